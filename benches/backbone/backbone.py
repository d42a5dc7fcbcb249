#!/usr/bin/env python3
"""What a backbone costs that is loaded from a library, against the same one linked in: whole runs of `sconce train` in turn, the
time of an update from their logs' own clock, and the median of the rounds' ratios.

    cargo build --release --example with_plugins
    (cd examples/plugins/backbone-rust && cargo build --release)
    python benches/backbone/backbone.py
"""

import argparse
import shutil
import statistics
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = ROOT / "examples/plugins/backbone-rust/target/release/libsconce_patch_mlp.so"
BATCH = 16


def options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", type=Path, default=LIBRARY)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--updates", type=int, default=250)
    parser.add_argument("--width", type=int, nargs="*", default=[64, 512])
    parser.add_argument("--work", type=Path, default=ROOT / "runs/backbone")
    return parser.parse_args()


def seconds(program, more, width, updates, out):
    """Seconds of a run with so many updates, after one that has filled the cache."""
    shutil.rmtree(out / "checkpoints", ignore_errors=True)
    sets = [f'backbone={{type="patch-mlp",width={width},words=192}}', f"train.images={updates * BATCH}", "preview=false",
            "validation=false", "ema=none", f"train.save_every_images={updates * BATCH}"]
    command = [program, "train", "quickstart", "--out", out, *more]
    for field in sets:
        command += ["--set", field]
    start = time.monotonic()
    subprocess.run([str(part) for part in command], check=True, capture_output=True)
    return time.monotonic() - start


def main():
    args = options()
    linked = (ROOT / "target/release/examples/with_plugins", [])
    loaded = (ROOT / "target/release/sconce", ["--plugin", args.library])
    print(f"{'width':>6} {'linked ms':>10} {'loaded ms':>10} {'ratio':>7}  of an update of {BATCH} pictures")
    for width in args.width:
        rounds = []
        for name, (program, more) in (("linked", linked), ("loaded", loaded)):
            seconds(program, more, width, 1, args.work / name)
        for _ in range(args.rounds):
            took = []
            for name, (program, more) in (("linked", linked), ("loaded", loaded)):
                few, many = (seconds(program, more, width, n, args.work / name) for n in (1, 1 + args.updates))
                took.append(1000 * (many - few) / args.updates)
            rounds.append(took)
        one, other = (statistics.median(column) for column in zip(*rounds))
        ratio = statistics.median(b / a for a, b in rounds)
        print(f"{width:6} {one:10.2f} {other:10.2f} {ratio:7.3f}")


if __name__ == "__main__":
    main()
