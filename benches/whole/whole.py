#!/usr/bin/env python3
"""What a whole run takes at full size: the most memory that the device and the process had in use, and the time of a step.

The model's folder is made here, of its public config and random weights in bf16, sharded as published ones are: what a step
takes depends on neither its values nor its pictures'. Then `sconce train` runs the recipe, from reading and encoding to the
file that it writes, once for each `--variant`, which is a list of fields to set. Needs PyTorch and safetensors, and nvidia-smi
for a GPU's memory.

    python benches/whole/whole.py flux-dev flux-dev-lora --device cuda:0 \\
        --variant model.quantise.transformer=nf4 --variant "model.quantise.transformer=none model.swap_blocks=28"
"""

import argparse
import json
import resource
import shutil
import statistics
import struct
import subprocess
import threading
import time
import zlib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "tests/fixtures/data"
# What stands around the components of a full size: the fixture of the same family.
AROUND = {"flux-dev": "flux-a", "flux-schnell": "flux-b", "sd3-medium": "sd3-a", "sd35-medium": "sd3-c", "sd35-large": "sd3-b",
          "sdxl": "sdxl-a", "sd15": "sd1-a", "sd21": "sd2-a"}
SHARD_BYTES = 4 << 30


def options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=AROUND)
    parser.add_argument("recipe")
    parser.add_argument("--sconce", default=ROOT / "target/release/sconce", help="the built program")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--side", type=int, default=1024, help="of the pictures, in pixels")
    parser.add_argument("--variant", action="append", default=[], help="fields to set, apart by spaces")
    parser.add_argument("--work", type=Path, default=Path("runs/whole"), help="where all of it is kept")
    return parser.parse_args()


def weights(component, to, device):
    """Random weights of a component, in shards with an index."""
    import torch
    from safetensors.torch import save_file

    stem = "model" if component.name.startswith("text") else "diffusion_pytorch_model"
    shapes = [line.split(" ") for line in (component / "keys.txt").read_text().splitlines()]
    shards, size = [{}], 0
    for key, shape in shapes:
        shape = [int(side) for side in shape.split(",")]
        count = 2
        for side in shape:
            count *= side
        if size + count > SHARD_BYTES and shards[-1]:
            shards.append({})
            size = 0
        shards[-1][key] = shape
        size += count
    place = {}
    generator = torch.Generator(device).manual_seed(zlib.crc32(str(to).encode()))
    for i, shard in enumerate(shards):
        name = f"{stem}-{i + 1:05}-of-{len(shards):05}.safetensors" if len(shards) > 1 else f"{stem}.safetensors"
        tensors = {}
        for key, shape in shard.items():
            if key.endswith("position_ids"):
                tensors[key] = torch.arange(shape[-1])[None]
            elif len(shape) == 1:
                tensors[key] = torch.full(shape, float(key.endswith("weight")), dtype=torch.bfloat16)
            else:
                normal = torch.randn(shape, generator=generator, device=device, dtype=torch.bfloat16)
                tensors[key] = (normal * 0.02).cpu()
            place[key] = name
        save_file(tensors, to / name, {"format": "pt"})
    if len(shards) > 1:
        (to / f"{stem}.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": place}))


def folder(args):
    """The model's folder."""
    to, around = args.work / args.model, DATA / AROUND[args.model] / "model"
    if (to / "whole").is_file():
        return to
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(around, to)
    index = json.loads((to / "model_index.json").read_text())
    for name, (_, kind) in [item for item in index.items() if item[0].startswith("tokenizer") and item[1][1]]:
        source = DATA / ("tokenizer-t5" if kind.startswith("T5") else "tokenizer")
        shutil.copytree(source, to / name, dirs_exist_ok=True)
    shared = {"flux-schnell": "flux-dev", "sd35-medium": "sd3-medium", "sd35-large": "sd3-medium"}.get(args.model, args.model)
    for component in {*(DATA / "full" / shared).iterdir(), *(DATA / "full" / args.model).iterdir()}:
        own = DATA / "full" / args.model / component.name
        component = own if own.is_dir() else component
        (to / component.name).mkdir(exist_ok=True)
        shutil.copy(component / "config.json", to / component.name)
        weights(component, to / component.name, args.device)
    (to / "whole").touch()
    return to


def png(path, side, shade):
    """A picture of one colour."""
    row = b"\0" + bytes(shade) * side
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(row * side)) + chunk(b"IEND", b""))


def pictures(args):
    to = args.work / f"pictures-{args.side}"
    to.mkdir(parents=True, exist_ok=True)
    for i in range(4):
        png(to / f"{i}.png", args.side, (40 * i, 255 - 40 * i, 99))
        (to / f"{i}.txt").write_text(f"picture number {i}")
    return to


class Card(threading.Thread):
    """The most memory of the device that is in use, in MiB, every tenth of a second."""

    def __init__(self, device):
        super().__init__(daemon=True)
        self.index, self.peak, self.ends = device.partition(":")[2] or "0", 0, threading.Event()

    def run(self):
        while not self.ends.wait(0.1):
            command = ["nvidia-smi", "-i", self.index, "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
            self.peak = max(self.peak, int(subprocess.run(command, capture_output=True, text=True, check=True).stdout))


def clock(out):
    """When each step was logged, from the TensorBoard file: records of an Event, whose fields 1 and 2 are time and step."""
    data, times = next((out / "tensorboard").iterdir()).read_bytes(), {}
    while data:
        size = struct.unpack("<Q", data[:8])[0]
        event, data = data[12 : 12 + size], data[16 + size :]
        if b"step/loss" in event:
            times[event[10]] = struct.unpack("<d", event[1:9])[0]
    return list(times.values())


def run(args, model, data, variant, number):
    out = args.work / f"run-{args.model}-{number}"
    shutil.rmtree(out, ignore_errors=True)
    fields = [f"model.path='{model}'", f"data.source.0.path='{data}'", f"train.images={args.images}", "train.accumulate=1",
              "preview=false", "validation=false", f"train.save_every_images={args.images}", *variant.split()]
    command = [args.sconce, "train", args.recipe, "--device", args.device, "--out", out]
    for field in fields:
        command += ["--set", field]
    card = Card(args.device) if args.device.startswith("cuda") else None
    if card:
        card.start()
    start = time.time()
    with open(args.work / f"{out.name}.log", "w") as log:
        done = subprocess.run([str(word) for word in command], stdout=log, stderr=log)
    took = time.time() - start
    if card:
        card.ends.set()
    if done.returncode:
        raise SystemExit((args.work / f"{out.name}.log").read_text()[-3000:])
    times = clock(out)
    step = statistics.median(b - a for a, b in zip(times, times[1:]))
    host = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
    print(f"| {variant or 'as it is'} | {step:.2f} s | {took:.0f} s | {card.peak if card else '-'} MiB | {host} MiB |", flush=True)


def main():
    args = options()
    args.work = args.work.absolute()
    args.work.mkdir(parents=True, exist_ok=True)
    start = time.time()
    model, data = folder(args), pictures(args)
    print(f"{args.model}, {args.recipe}, {args.side} px; its folder took {time.time() - start:.0f} s\n")
    print("| | a step | whole | device | host, most so far |\n|---|---|---|---|---|")
    for number, variant in enumerate(args.variant or [""]):
        run(args, model, data, variant, number)


if __name__ == "__main__":
    main()
