$ckpt = "C:\models\flux1-dev.safetensors"
accelerate launch `
  --mixed_precision bf16 --num_cpu_threads_per_process 1 `
  sd-scripts/flux_train_network.py `
  --pretrained_model_name_or_path $ckpt `
  --clip_l C:\models\clip_l.safetensors --t5xxl C:\models\t5xxl_fp16.safetensors --ae C:\models\ae.safetensors `
  --cache_latents_to_disk --save_model_as safetensors --sdpa --persistent_data_loader_workers `
  --max_data_loader_n_workers 2 --seed 42 --gradient_checkpointing --mixed_precision bf16 --save_precision bf16 `
  --network_module networks.lora_flux --network_dim 16 --network_alpha 16 --network_train_unet_only `
  --network_args "train_blocks=all" "loraplus_unet_lr_ratio=4" `
  --optimizer_type adamw8bit --learning_rate 1e-4 `
  --cache_text_encoder_outputs --cache_text_encoder_outputs_to_disk --fp8_base --blocks_to_swap 18 `
  --max_train_steps 1000 --save_every_n_steps 250 --dataset_config flux.toml `
  --timestep_sampling shift --discrete_flow_shift 3.1582 --sigmoid_scale 1.0 `
  --model_prediction_type raw --guidance_scale 1.0 --loss_type l2 --t5xxl_max_token_length 512 --apply_t5_attn_mask
