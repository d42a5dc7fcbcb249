#!/usr/bin/env python3
"""Runs our step and PyTorch's in turn, and prints what both take as Markdown tables.

Both are a new process each time, and go in turn round by round. The time of a case is the median over its rounds of each
process's median; the ratio that is printed is the median of the pairs'. Beside each round's ratio stands how many cores
other processes kept busy meanwhile: believe a round where that is near 0.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]

UNETS = {
    "quickstart": [ROOT / "configs/quickstart/blank/unet/config.json", "4x16x16", 16, 24],
    "mid-size": [HERE / "mid.json", "4x32x32", 2, 77],
    "mmdit": [HERE / "mmdit.json", "16x32x32", 2, 154],
    "flux": [HERE / "flux.json", "16x32x32", 2, 128],
}


def options():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sconce", default=ROOT / "target/release/examples/bench_step", help="the built example")
    parser.add_argument("--unets", nargs="*", choices=UNETS, default=["quickstart", "mid-size"])
    parser.add_argument("--modes", nargs="*", choices=["full", "lora"], default=["full", "lora"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-memory", action="store_true", help="only the table of times")
    return parser.parse_args()


def run(args, engine, unet, mode, steps, warmup, *more):
    config, latent, batch, tokens = UNETS[unet]
    command = [args.sconce] if engine == "sconce" else [sys.executable, HERE / "torch_step.py"]
    command += ["--config", config, "--latent", latent, "--batch", batch, "--tokens", tokens, "--mode", mode]
    command += ["--steps", steps, "--warmup", warmup, "--threads", args.threads, *more]
    environment = {**os.environ, "OMP_NUM_THREADS": str(args.threads), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([str(word) for word in command], env=environment, stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def busy_elsewhere():
    """CPU seconds since the start that are not ours nor our children's (Linux)."""
    with open("/proc/stat") as stat:
        ticks = [int(word) for word in stat.readline().split()[1:]]
    every = (sum(ticks[:8]) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")
    ours = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return every - sum(usage.ru_utime + usage.ru_stime for usage in ours)


def times(args):
    print(f"| UNet | trains | params | trained | sconce | PyTorch | ratio | rounds (others' cores) |\n|{'---|' * 8}")
    for unet in args.unets:
        for mode in args.modes:
            pairs, others = [], []
            for i in range(args.rounds):
                order = ["sconce", "torch"] if i % 2 == 0 else ["torch", "sconce"]
                start, elsewhere = time.monotonic(), busy_elsewhere()
                pair = {engine: run(args, engine, unet, mode, args.steps, args.warmup) for engine in order}
                pairs.append(pair)
                others.append((busy_elsewhere() - elsewhere) / (time.monotonic() - start))
            ours, theirs = (statistics.median(p[e]["median_s"] for p in pairs) for e in ("sconce", "torch"))
            ratios = [p["sconce"]["median_s"] / p["torch"]["median_s"] for p in pairs]
            rounds = ", ".join(f"{ratio:.2f} ({cores:.1f})" for ratio, cores in zip(ratios, others))
            first = pairs[0]["sconce"]
            if abs(first["params_m"] - pairs[0]["torch"]["params_m"]) > 1e-4:
                sys.exit(f"{unet}: not the same network: {pairs[0]}")
            print(
                f"| {unet} | {mode} | {first['params_m']:.1f} M | {first['trained_m']:.2f} M | {ours:.3f} s | {theirs:.3f} s "
                f"| {statistics.median(ratios):.2f} | {rounds} |",
                flush=True,
            )


def memory(args):
    print("\n| UNet | trains | keeps | sconce | | PyTorch | |\n|---|---|---|---|---|---|---|")
    for unet in args.unets:
        for mode in args.modes:
            for keeps, more in {"all": [], "block inputs": ["--checkpoint"]}.items():
                ours, theirs = (run(args, engine, unet, mode, 2, 1, *more) for engine in ("sconce", "torch"))
                cells = " | ".join(f"{r['peak_mib']} MiB | {r['median_s']:.3f} s" for r in (ours, theirs))
                print(f"| {unet} | {mode} | {keeps} | {cells} |", flush=True)


if __name__ == "__main__":
    chosen = options()
    times(chosen)
    if not chosen.no_memory:
        memory(chosen)
