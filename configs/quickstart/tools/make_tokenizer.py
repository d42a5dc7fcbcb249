#!/usr/bin/env python3
"""Makes ../blank/tokenizer and ../blank/tokenizer_2, CLIP's tokenizer with a small vocabulary.

CLIP's vocabulary (49,408 entries) would be most of a small text encoder. Here it keeps, in the original order, the
first merges of CLIP's list and those that the words of the captions need, so that common words and every word of a
caption stay one token where CLIP has one. Taking merges away leaves the order of the others alone, and the merges by
which a word is built are all kept: the words of the captions split exactly as CLIP splits them. Any other text still
tokenises, into smaller pieces, since all 256 bytes are there.

    make_tokenizer.py merges.txt      # of any CLIP tokenizer folder, or CLIP's own bpe_simple_vocab_16e6.txt

Needs Python 3.9, nothing else.
"""

import argparse
import json
from pathlib import Path

HERE = Path(__file__).resolve().parent
FIRST = 2000  # merges kept whether a caption needs them or not
CLIP_MERGES = 49152 - 256 - 2  # of a longer file, CLIP takes the first so many
MAX_LENGTH = 24  # tokens, with start and end; the longest caption takes 9
BOS, EOS = "<|startoftext|>", "<|endoftext|>"
TEMPLATE = "on a black white grey gray red green blue background"
EXTRA = "photo picture image emoji icon small big cute yellow orange purple pink brown colorful"


def byte_symbols() -> list[str]:
    """One printable character for each byte, printable bytes first: the order of CLIP's ids."""
    kept = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [b for b in range(256) if b not in kept]
    return [*map(chr, kept), *(chr(256 + i) for i in range(len(rest)))]


def merges_of(word: str, rank: dict[tuple[str, str], int]) -> set[tuple[str, str]]:
    """The merges by which a lower-case ASCII word is put together."""
    parts, used = [*word[:-1], word[-1] + "</w>"], set()
    while True:
        pair = min(zip(parts, parts[1:]), key=lambda p: rank.get(p, len(rank)), default=None)
        if pair not in rank:
            return used
        used.add(pair)
        joined, i = [], 0
        while i < len(parts):
            both = tuple(parts[i : i + 2]) == pair
            joined.append("".join(pair) if both else parts[i])
            i += 2 if both else 1
        parts = joined


def main() -> None:
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("merges", type=Path)
    lines = args.parse_args().merges.read_text(encoding="utf-8").splitlines()
    merges = [tuple(line.split()) for line in lines[1 : CLIP_MERGES + 1]]
    rank = {pair: i for i, pair in enumerate(merges)}

    rows = (HERE.parent / "data" / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
    captions = " ".join([TEMPLATE, EXTRA, *(json.loads(row)["text"] for row in rows)])
    words = {w for w in "".join(c if c.isalpha() else " " for c in captions.lower()).split()}
    needed = set().union(*(merges_of(word, rank) for word in words))
    kept = [pair for i, pair in enumerate(merges) if i < FIRST or pair in needed]

    symbols = byte_symbols()
    tokens = [*symbols, *(s + "</w>" for s in symbols), *map("".join, kept), BOS, EOS]
    assert len(set(tokens)) == len(tokens)
    vocab = {token: i for i, token in enumerate(tokens)}
    for folder, pad in ("tokenizer", EOS), ("tokenizer_2", "!"):
        out = HERE.parent / "blank" / folder
        out.mkdir(parents=True, exist_ok=True)
        special = {"bos_token": BOS, "eos_token": EOS, "unk_token": EOS, "pad_token": pad}
        added = {str(vocab[t]): {"content": t, "lstrip": False, "normalized": False, "rstrip": False,
                                 "single_word": False, "special": True} for t in sorted({pad, BOS, EOS}, key=vocab.get)}
        config = {"add_prefix_space": False, "added_tokens_decoder": added, **special, "clean_up_tokenization_spaces": False,
                  "do_lower_case": True, "errors": "replace", "model_max_length": MAX_LENGTH, "tokenizer_class": "CLIPTokenizer"}
        text = "#version: 0.2\n" + "".join(" ".join(pair) + "\n" for pair in kept)
        (out / "merges.txt").write_text(text, encoding="utf-8")
        (out / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")
        (out / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
        (out / "special_tokens_map.json").write_text(json.dumps(special, indent=2) + "\n")
    print(f"{len(vocab)} tokens, {len(kept)} merges, {len(needed)} of them for {len(words)} words")


if __name__ == "__main__":
    main()
