#!/usr/bin/env python3
"""The step of `examples/bench_step.rs` in PyTorch eager, with the UNet of diffusers and the LoRA of peft (PyPI: torch,
diffusers, peft). The same options, the same line of JSON."""

import argparse
import json
import statistics
import time

import torch
from diffusers import UNet2DConditionModel

ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]


def options():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True)
    parser.add_argument("--latent", default="4x32x32", help="channels, height and width")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=77)
    parser.add_argument("--mode", choices=["full", "lora"], default="full")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--dtype", choices=["f32", "bf16"], default="f32", help="of frozen weights")
    parser.add_argument("--checkpoint", action="store_true")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    if args.mode == "full" and args.dtype != "f32":
        parser.error("a full fine-tune keeps f32 masters: here bf16 is for the frozen weights of a LoRA")
    return args


def network(args, config, dtype):
    """The UNet, made in its own type, and the parameters that train."""
    torch.set_default_dtype(dtype)
    unet = UNet2DConditionModel.from_config(config)
    torch.set_default_dtype(torch.float32)
    if args.mode == "lora":
        from peft import LoraConfig

        unet.requires_grad_(False)
        unet.add_adapter(LoraConfig(r=args.rank, lora_alpha=args.rank, target_modules=ATTENTION))
    if args.checkpoint:
        unet.enable_gradient_checkpointing()
    unet.train()
    trained = [p for p in unet.parameters() if p.requires_grad]
    for p in trained:
        p.data = p.data.float()
    return unet, trained


def conditions(args, config, dtype):
    """The text's context and, in SDXL, its pooled embedding and the geometry."""
    cond = {"encoder_hidden_states": torch.randn(args.batch, args.tokens, config["cross_attention_dim"], dtype=dtype)}
    if config.get("addition_embed_type") == "text_time":
        pooled = config["projection_class_embeddings_input_dim"] - 6 * config["addition_time_embed_dim"]
        cond["added_cond_kwargs"] = {
            "text_embeds": torch.randn(args.batch, pooled, dtype=dtype),
            "time_ids": torch.full((args.batch, 6), 64.0, dtype=dtype),
        }
    return cond


def peak_mib():
    """The most memory resident so far."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) // 1024 for line in status if line.startswith("VmHWM:"))


def main():
    args = options()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    with open(args.config) as file:
        config = json.load(file)
    dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[args.dtype]
    unet, trained = network(args, config, dtype)
    optimizer = torch.optim.AdamW(trained, lr=1e-5, weight_decay=0.01, fused=True)

    shape = (args.batch, *map(int, args.latent.split("x")))
    x, target = torch.randn(shape, dtype=dtype), torch.randn(shape)
    t = torch.randint(0, 1000, (args.batch,))
    cond = conditions(args, config, dtype)

    def step():
        loss = torch.nn.functional.mse_loss(unet(x, t, **cond).sample.float(), target)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    seconds = []
    for i in range(args.warmup + args.steps):
        start = time.perf_counter()
        step()
        if i >= args.warmup:
            seconds.append(time.perf_counter() - start)
    count = lambda parameters: sum(p.numel() for p in parameters) / 1e6
    print(
        json.dumps(
            {
                "engine": f"torch {torch.__version__}",
                "params_m": count(unet.parameters()) - (count(trained) if args.mode == "lora" else 0),
                "trained_m": count(trained),
                "median_s": statistics.median(seconds),
                "min_s": min(seconds),
                "peak_mib": peak_mib(),
            }
        )
    )


if __name__ == "__main__":
    main()
