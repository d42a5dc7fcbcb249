#!/usr/bin/env python3
"""Runs what papers compare, on the quickstart's small model, over several seeds, and prints tables with their spread.

A comparison is a list of variants of one recipe: each a name, the same for the same run, and the fields that it sets. A run that has ended is not run
again, and one that was stopped goes on, so the whole can be interrupted. Pictures drawn for training captions are held
against the very picture that each caption is of (root mean square difference of pixel values in [0, 1]; lower is better):
the data has one picture a caption, so this says how far a model has learned its data. Needs numpy and Pillow.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy
from PIL import Image

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
QUICKSTART = ROOT / "configs/quickstart"
GAP = 2  # pixels between the pictures of a sheet

NOTHING = HERE / "from-nothing.toml"
CONVERT = HERE / "convert.toml"
AT_ONCE = "model.convert.over_images=0"
GENTLY = "optimizer.lr=5e-5"
FLOW = ["schedule={type='rectified-flow'}", "objective={type='flow'}"]
ZERO = ["schedule={type='zero-terminal',of={type='scaled-linear'}}", "objective={type='v'}"]

COMPARISONS = {
    "min-snr": (
        "Min-SNR against plain epsilon, from nothing (Hang et al. 2023 report 3.4 times fewer steps to an equal FID)",
        NOTHING,
        {"epsilon": [], "epsilon, min-snr 5": ["weighting={type='min-snr',gamma=5.0}"]},
    ),
    "zero-terminal": (
        "What a model can draw: epsilon on scaled-linear against v on zero terminal SNR, from nothing (Lin et al. 2023)",
        NOTHING,
        {"epsilon, leading": ["sampling.spacing={type='leading'}"], "v, zero-terminal": [*ZERO, AT_ONCE]},
    ),
    "logit-normal": (
        "Logit-normal against uniform times for rectified flow, from nothing (Esser et al. 2024)",
        NOTHING,
        {"flow, uniform": [*FLOW, AT_ONCE], "flow, logit-normal": [*FLOW, AT_ONCE, "timesteps={type='logit-normal'}"]},
    ),
    "uncertainty": (
        "Learned uncertainty on or off, with epsilon, from nothing (Karras et al. 2024, EDM2)",
        NOTHING,
        {"epsilon": [], "epsilon, uncertainty": ["weighting={type='uncertainty'}"]},
    ),
    "convert-to-flow": (
        "The quickstart's epsilon model to rectified flow: validation loss of the flow",
        CONVERT,
        {
            "flow, at once": [*FLOW, AT_ONCE],
            "flow, mapped": [*FLOW, "model.convert=true"],
            "flow, fading": [*FLOW, "model.convert.over_images={half}"],
        },
    ),
    "convert-gently": (
        "The same at a tenth of the rate",
        CONVERT,
        {
            "flow, at once, gently": [*FLOW, AT_ONCE, GENTLY],
            "flow, mapped, gently": [*FLOW, "model.convert=true", GENTLY],
            "flow, fading, gently": [*FLOW, "model.convert.over_images={half}", GENTLY],
        },
    ),
    "convert-to-zero-terminal": (
        "The quickstart's epsilon model to v and zero terminal SNR: validation loss of v",
        CONVERT,
        {
            "v, at once": [AT_ONCE],
            "v, mapped": ["model.convert=true"],
            "v, fading": ["model.convert.over_images={half}"],
        },
    ),
}


def options():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sconce", default=ROOT / "target/release/sconce", help="the built program")
    parser.add_argument("--out", type=Path, default=ROOT / "runs/papers", help="where the runs are kept")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, default=8_000)
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs at a time, each on one thread")
    parser.add_argument("--only", nargs="*", choices=COMPARISONS, default=list(COMPARISONS))
    return parser.parse_args()


def untrained(args):
    """The quickstart's model with the denoiser that an autoencoder's run leaves as it was initialised."""
    to, start = args.out / "model", args.out / "start"
    if not (to / "model_index.json").is_file():
        recipe = QUICKSTART / "autoencoder.toml"
        train(args, recipe, start, ["train.images=8", "preview=false", "validation=false"])
        shutil.copytree(QUICKSTART / "model", to, dirs_exist_ok=True)
        shutil.copytree(start / "model/unet", to / "unet", dirs_exist_ok=True)
    return to


def train(args, recipe, out, fields):
    command = [args.sconce, "train", recipe, "--out", out, "--resume"]
    for field in fields:
        command += ["--set", field]
    done = subprocess.run(
        [str(word) for word in command], env={**os.environ, "RAYON_NUM_THREADS": "1"}, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"{out.name}: {done.stderr[-2000:]}")


def events(out, kind):
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return {line["images"]: line for line in lines if line["event"] == kind}


def cells(sheet):
    """The square pictures of a one-row sheet, as rows of H W 3 in [0, 1]."""
    pixels = numpy.asarray(Image.open(sheet).convert("RGB"), dtype=numpy.float64) / 255
    side = pixels.shape[0] - 2 * GAP
    return [pixels[GAP : GAP + side, x : x + side] for x in range(GAP, pixels.shape[1] - side, side + GAP)]


def wanted(prompt, side):
    """The picture that a training caption is of."""
    name, ground = prompt.removesuffix(" background").split(" on a ")
    rgb = {"black": (0, 0, 0), "white": (255, 255, 255), "grey": (128, 128, 128)}[ground]
    captions = map(json.loads, (QUICKSTART / "data/metadata.jsonl").read_text().splitlines())
    file = next(line["file_name"] for line in captions if line["text"] == name)
    picture = Image.open(QUICKSTART / "data" / file).convert("RGBA")
    picture = Image.alpha_composite(Image.new("RGBA", picture.size, (*rgb, 255)), picture).convert("RGB")
    return numpy.asarray(picture.resize((side, side), Image.Resampling.LANCZOS), dtype=numpy.float64) / 255


def fidelity(out, images, prompts):
    drawn = cells(out / f"previews/{images:09}.png")
    assert len(drawn) == len(prompts), (len(drawn), len(prompts))
    errors = [((p - wanted(q, p.shape[0])) ** 2).mean() ** 0.5 for p, q in zip(drawn, prompts)]
    return statistics.mean(errors)


def prompts_of(recipe):
    text = Path(recipe).read_text().split("prompts = [", 1)[1].split("]", 1)[0]
    return [part.strip().strip('"') for part in text.split(",") if part.strip()]


def spread(values):
    return f"{statistics.mean(values):.4f} ± {statistics.stdev(values) if len(values) > 1 else 0:.4f}"


def main():
    args = options()
    args.out = args.out.absolute()
    model = untrained(args) if any(COMPARISONS[name][1] == NOTHING for name in args.only) else None
    runs = []
    for name in args.only:
        _, recipe, variants = COMPARISONS[name]
        for variant, fields in variants.items():
            for seed in range(1, args.seeds + 1):
                out = args.out / f"{variant.replace(', ', '-').replace(' ', '-')}-{seed}"
                common = [f"train.images={args.images}", f"train.seed={seed}", f"data.cache='{args.out / 'cache'}'"]
                if recipe == NOTHING:
                    common.append(f"model.path='{model}'")
                fields = [field.format(half=args.images // 2) if "{half}" in field else field for field in fields]
                runs.append((recipe, out, [*common, *fields], name, variant))
    with ThreadPoolExecutor(args.jobs) as pool:  # what two comparisons share runs once
        list(pool.map(lambda run: train(args, *run[:3]), {run[1]: run for run in runs}.values()))
    for name in args.only:
        title, recipe, variants = COMPARISONS[name]
        if recipe == CONVERT:
            losses(title, {v: [run[1] for run in runs if run[3:] == (name, v)] for v in variants}, args)
            continue
        prompts = prompts_of(recipe)
        marks = None
        rows = []
        for variant in variants:
            outs = [run[1] for run in runs if run[3:] == (name, variant)]
            drawn = [sorted(int(p.stem) for p in (out / "previews").glob("*.png"))[1:] for out in outs]
            marks = marks or drawn[0]
            errors = [[fidelity(out, at, prompts) for out, at in zip(outs, column)] for column in zip(*drawn)]
            last = [events(out, "luminance") for out in outs]
            grounds = [[line[max(line)][g] for line in last] for g in ("black", "grey", "white")]
            rows.append([variant, *map(spread, errors), *map(spread, grounds)])
        head = ["", *(f"{at} images" for at in marks), "black", "grey", "white"]
        show(f"{title}; {args.seeds} seeds, mean ± standard deviation.", [head, *rows])


def losses(title, outs, args):
    """The validation losses of variants that share their measure."""
    found = {variant: [events(out, "validation") for out in runs] for variant, runs in outs.items()}
    marks = sorted(next(iter(found.values()))[0])
    rows = [[variant, *(spread([run[at]["loss"] for run in runs]) for at in marks)] for variant, runs in found.items()]
    show(f"{title}; {args.seeds} seeds, mean ± standard deviation.", [["", *(f"{at} images" for at in marks)], *rows])


def show(title, rows):
    print(f"\n{title}\n")
    for row in [rows[0], ["---"] * len(rows[0]), *rows[1:]]:
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
