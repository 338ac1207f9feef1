"""Stage corpus-text: training sentences from Debian's free texts, plus generated ones.

Writes the training text (compressed, not committed) and data/heldout.txt. Every line is
lower case in [a-z ' , . ? !] and space, digits spelled out, 1 to 250 characters; with --natural
as people write it (`natural`), and without the lines that data/ holds out.
"""

from __future__ import annotations

import argparse
import lzma
import os
import random
import re

from ..common import DATA
from . import natural, plain

EXAMPLE = "python -m voxgrain_tools corpus-text --packages .dev/debs --out .dev/corpus.txt.xz"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--packages", default=".dev/debs", help="folder for the unpacked Debian packages")
    parser.add_argument("--out", default=".dev/corpus.txt.xz", help="training text, xz")
    parser.add_argument(
        "--natural",
        action="store_true",
        help="as people write it, for natural teachers; what --data holds out is left out, and not written anew",
    )
    parser.add_argument(
        "--count", type=int, default=None, help="lines, held-out ones included (default: 176000; natural: 460000)"
    )
    parser.add_argument("--heldout", type=int, default=1000)
    parser.add_argument("--data", default=DATA, help="folder with harvard.txt, where heldout.txt is written")
    parser.add_argument("--seed", type=int, default=1)


def write(path: str, lines: list[str]) -> None:
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    with lzma.open(path, "wt", preset=9, encoding="utf-8") as f:
        f.write("\n".join(lines) + "\n")


def run_natural(args: argparse.Namespace) -> None:
    heldout = [line for name in ("harvard", "heldout") for line in open(f"{args.data}/{name}.txt").read().split("\n")]
    lines = natural.build(args.packages, args.count or 460_000, args.seed, heldout)
    write(args.out, lines)
    lengths = sorted(map(len, lines))
    print(
        f"{len(lines)} lines, characters mean {sum(lengths) / len(lines):.1f}, median {lengths[len(lines) // 2]}, "
        f"longest {lengths[-1]}; {os.path.getsize(args.out) / 2**20:.2f} MiB",
        flush=True,
    )


def run(args: argparse.Namespace) -> None:
    plain.unpack(args.packages)
    if args.natural:
        run_natural(args)
        return
    chosen = plain.build(args.packages, args.count or 176_000, args.seed)
    harvard = set(open(f"{args.data}/harvard.txt").read().split("\n"))
    chosen = [t for t in chosen if t not in harvard]
    heldout, used = [], set()
    for t in chosen:  # held-out texts: 4 words or more, as prompts are
        if len(heldout) < args.heldout and len(t.split(" ")) >= 4:
            heldout.append(t)
            used.add(t)
    train = [t for t in chosen if t not in used]
    # Again, since the held-out ones came from the front and are not short.
    random.Random(args.seed + 1).shuffle(train)
    for text in chosen:
        if not re.fullmatch(r"[a-z ',.?!]{1,250}", text):
            raise ValueError(f"a sentence with characters that no voice reads got through: {text!r}")
    with open(f"{args.data}/heldout.txt", "w") as f:
        f.write("\n".join(heldout) + "\n")
    write(args.out, train)
    lengths = sorted(map(len, train))
    words = {w for t in train for w in re.findall(r"[a-z']+", t)}
    print(
        f"{len(train)} texts, {len(words)} distinct words, characters mean {sum(lengths) / len(train):.1f}, "
        f"median {lengths[len(train) // 2]}, longest {lengths[-1]}; 1-3 words: "
        f"{sum(len(t.split()) <= 3 for t in train) / len(train):.3f}, over 110: "
        f"{sum(n > 110 for n in lengths) / len(train):.3f}; {os.path.getsize(args.out) / 2**20:.2f} MiB",
        flush=True,
    )
