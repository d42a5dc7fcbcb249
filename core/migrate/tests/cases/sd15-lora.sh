#!/bin/bash
# My first LoRA.
MODEL="/models/sd15/v1-5-pruned-emaonly.safetensors"
export OUT=/output/cat

accelerate launch --num_cpu_threads_per_process 1 --mixed_precision bf16 ./sd-scripts/train_network.py \
  --pretrained_model_name_or_path="$MODEL" \
  --train_data_dir="/data/cat" \
  --output_dir="$OUT" \
  --output_name="cat_v1" \
  --resolution="512,512" \
  --network_module=networks.lora \
  --network_dim=16 --network_alpha=8 \
  --learning_rate=1e-4 --unet_lr 1e-4 --text_encoder_lr=5e-5 \
  --optimizer_type="AdamW8bit" --optimizer_args "weight_decay=0.05" "betas=0.9,0.99" \
  --lr_scheduler="cosine_with_restarts" --lr_warmup_steps=100 --lr_scheduler_num_cycles=3 \
  --max_train_steps=2000 --train_batch_size=2 --gradient_accumulation_steps=2 \
  --min_snr_gamma=5 --noise_offset=0.05 --multires_noise_iterations=6 --multires_noise_discount=0.3 \
  --ip_noise_gamma=0.1 \
  --loss_type=huber --huber_c=0.1 --huber_schedule=snr \
  --min_timestep=100 --max_timestep=900 \
  --caption_extension=".txt" --shuffle_caption --keep_tokens=1 --caption_dropout_rate=0.05 \
  --enable_bucket --min_bucket_reso=320 --max_bucket_reso=960 --bucket_reso_steps=64 --bucket_no_upscale \
  --cache_latents --cache_latents_to_disk --xformers --gradient_checkpointing --flip_aug --color_aug \
  --clip_skip=2 --max_token_length=225 --seed=1234 --save_every_n_steps=500 --save_last_n_steps=1000 \
  --save_model_as=safetensors --save_precision=fp16 --max_grad_norm=1.0 \
  --sample_prompts=/data/prompts.txt --sample_every_n_steps=500 --sample_sampler=euler_a \
  --network_dropout=0.1 --scale_weight_norms=1.0 --mixed_precision=bf16 --logging_dir=logs --log_with=wandb \
  --wandb_api_key=abcdef --huggingface_token hf_secret --max_data_loader_n_workers 4 --learnign_rate=1
