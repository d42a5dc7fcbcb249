#!/usr/bin/env python3
"""Makes ../data, the quickstart's pictures, from two npm packages.

Every line of concepts.txt names one emoji by its English label, and what the caption calls it when the label is
not how one would say it ("ear of corn = corn"). The picture is trimmed, centred and reduced to 64 x 64 with
premultiplied alpha, and keeps its transparency: the trainer puts it on a ground. Nothing is downloaded here:

    npm pack @lobehub/fluent-emoji-3d@1.1.0 emojibase-data@17.0.0
    for f in lobehub-fluent-emoji-3d-1.1.0 emojibase-data-17.0.0; do mkdir $f; tar xzf $f.tgz -C $f --strip-components=1; done
    make_data.py lobehub-fluent-emoji-3d-1.1.0 emojibase-data-17.0.0

Needs Python 3.9 or later and Pillow (made with 13.0; another version may encode to other bytes, not other pictures).
"""

import argparse
import io
import json
import re
from pathlib import Path

from PIL import Image

SIDE = 64
FILL = 0.875  # of the frame that the longer side of the object takes
SEEN = 8  # alpha, of 255, from which a pixel counts as part of the object
HERE = Path(__file__).resolve().parent


def code(name: str) -> str:
    """The code points of an emoji as both packages can be joined on: lower case, no variation selectors."""
    return "-".join(p for p in name.lower().split("-") if p != "fe0f")


def concepts() -> list[tuple[str, str]]:
    """(label, caption) of each line."""
    lines = (HERE / "concepts.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.split("=", 1) for line in lines if line and not line.startswith("#"))
    return [(p[0].strip(), p[-1].strip()) for p in pairs]


def reduced(image: Image.Image) -> Image.Image:
    """Cuts the square that gives the object its share of the frame and scales it down.

    Pillow resizes RGBA in premultiplied form, so no colour leaks in from behind transparent pixels.
    """
    image = image.convert("RGBA")
    left, top, right, bottom = image.getchannel("A").point(lambda a: 255 * (a >= SEEN)).getbbox()
    half = max(right - left, bottom - top) / FILL / 2
    margin = int(half) + 1  # the square may reach beyond the picture
    wide = Image.new("RGBA", (image.width + 2 * margin, image.height + 2 * margin))
    wide.paste(image, (margin, margin))
    x, y = margin + (left + right) / 2, margin + (top + bottom) / 2
    return wide.resize((SIDE, SIDE), Image.Resampling.LANCZOS, (x - half, y - half, x + half, y + half))


def encoded(image: Image.Image, suffix: str) -> bytes:
    out = io.BytesIO()
    options = {"png": {"optimize": True}, "webp": {"lossless": True, "quality": 100, "method": 6}}
    image.save(out, suffix, **options[suffix])
    return out.getvalue()


def main() -> None:
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("pictures", type=Path, help="@lobehub/fluent-emoji-3d, unpacked")
    args.add_argument("labels", type=Path, help="emojibase-data, unpacked")
    args.add_argument("--out", type=Path, default=HERE.parent / "data")
    args.add_argument("--format", choices=["webp", "png"], default="webp")
    args = args.parse_args()

    files = {code(f.stem): f for f in sorted((args.pictures / "assets").glob("*.webp"))}
    emoji = json.loads((args.labels / "en" / "data.json").read_text(encoding="utf-8"))
    by_label = {e["label"]: code(e["hexcode"]) for e in emoji}
    args.out.mkdir(parents=True, exist_ok=True)
    for old in [*args.out.glob("*.png"), *args.out.glob("*.webp")]:
        old.unlink()

    rows, size = {}, 0
    for label, caption in concepts():
        if label not in by_label or by_label[label] not in files:
            raise SystemExit(f"concepts.txt: no emoji is labelled {label!r}, or it has no picture")
        name = re.sub(r"[^a-z0-9]+", "-", caption.lower()).strip("-") + "." + args.format
        if name in rows:
            raise SystemExit(f"concepts.txt: two lines give {name}")
        with Image.open(files[by_label[label]]) as image:
            data = encoded(reduced(image), args.format)
        (args.out / name).write_bytes(data)
        rows[name], size = caption, size + len(data)
    lines = (json.dumps({"file_name": f, "text": t}, ensure_ascii=False) + "\n" for f, t in sorted(rows.items()))
    (args.out / "metadata.jsonl").write_text("".join(lines), encoding="utf-8")
    print(f"{len(rows)} pictures, {size} bytes")


if __name__ == "__main__":
    main()
