#!/usr/bin/env python3
"""The step of `examples/bench_step.rs` in PyTorch eager, with the networks of diffusers and the LoRA of peft (PyPI: torch,
diffusers, peft). The same options, the same line of JSON."""

import argparse
import json
import statistics
import time

import torch
import diffusers

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
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    return args


def network(args, config, dtype):
    """The network, made in its own type, and the parameters that train. A full fine-tune keeps f32 masters, and computes in
    bf16 by autocast."""
    torch.set_default_dtype(dtype if args.mode == "lora" else torch.float32)
    with torch.device(args.device):
        unet = getattr(diffusers, config.get("_class_name", "UNet2DConditionModel")).from_config(config)
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
    """What the network reads beside latents and time."""
    if "joint_attention_dim" in config:
        cond = {
            "encoder_hidden_states": torch.randn(args.batch, args.tokens, config["joint_attention_dim"], dtype=dtype),
            "pooled_projections": torch.randn(args.batch, config["pooled_projection_dim"], dtype=dtype),
        }
        if config["_class_name"].startswith("Flux"):
            _, height, width = map(int, args.latent.split("x"))
            rows, columns = torch.meshgrid(torch.arange(height // 2.0), torch.arange(width // 2.0), indexing="ij")
            cond["img_ids"] = torch.stack([torch.zeros_like(rows), rows, columns], -1).reshape(-1, 3)
            cond["txt_ids"] = torch.zeros(args.tokens, 3)
            if config["guidance_embeds"]:
                cond["guidance"] = torch.full((args.batch,), 3.5)
        return cond
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

    on = lambda value: {k: on(v) for k, v in value.items()} if isinstance(value, dict) else value.to(args.device)
    batch, channels, height, width = shape = (args.batch, *map(int, args.latent.split("x")))
    packed = config.get("_class_name", "").startswith("Flux")
    if packed:
        shape = (batch, height * width // 4, channels * 4)
    x, target = on(torch.randn(shape, dtype=dtype)), on(torch.randn(shape))
    t = on(torch.randint(0, 1000, (args.batch,)))
    t = t.to(dtype) / 1000 if packed else t
    cond = on(conditions(args, config, dtype))
    keyword = {"timestep": t}
    mixed = torch.autocast(args.device.split(":")[0], torch.bfloat16, enabled=args.mode == "full" and args.dtype == "bf16")
    wait = torch.cuda.synchronize if args.device != "cpu" else lambda: None

    def step():
        with mixed:
            loss = torch.nn.functional.mse_loss(unet(x, **keyword, **cond).sample.float(), target)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    seconds = []
    for i in range(args.warmup + args.steps):
        start = time.perf_counter()
        step()
        wait()
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
