#!/usr/bin/env python3
"""Running text for the tagger and for measuring: sentences of Debian packages, case and marks kept.

    python3 texts.py FOLDER      downloads and unpacks the packages into FOLDER and writes
                                 FOLDER/train.txt and FOLDER/heldout.txt (2,000 sentences)

The tagger learns from the examples of WordNet and from fortunes alone, which are free to use;
the held-out sentences come from two GPL documents too (the Anarchist FAQ, the Debian
handbook), which are only read for measuring.
"""

import glob
import gzip
import html
import os
import random
import re
import subprocess
import sys

PACKAGES = ["wordnet-base", "anarchism", "fortunes", "fortunes-min", "debian-handbook"]
HELD_OUT = (("wordnet", 500), ("anarchism", 500), ("fortunes", 700), ("handbook", 300))
SEED = 7


def unpack(folder):
    os.makedirs(folder, exist_ok=True)
    for name in PACKAGES:
        if not os.path.isdir(f"{folder}/{name}"):
            subprocess.run(["apt-get", "download", "-q", name], cwd=folder, check=True, stdout=subprocess.DEVNULL)
            deb = sorted(glob.glob(f"{folder}/{name}_*.deb"))[-1]
            subprocess.run(["dpkg", "-x", deb, f"{folder}/{name}"], check=True)


def read(path):
    if path.endswith(".gz"):
        with gzip.open(path, "rt", encoding="utf-8", errors="replace") as f:
            return f.read()
    with open(path, encoding="utf-8", errors="replace") as f:
        return f.read()


def sentences(prose):
    prose = re.sub(r"\s+", " ", prose)
    prose = re.sub(r"\b(Mr|Mrs|Dr|St|Prof|vs|etc|No|Vol|pp|p|ed|cf|al)\.", r"\1", prose)
    for s in re.split(r"(?<=[.?!])[\"')\]_*]*\s+(?=[\"'(\[_*]*[A-Z])", prose):
        yield s.strip()


def plain(s):
    """The sentence if it needs no normalising: letters and ordinary marks alone."""
    s = html.unescape(s).replace("\u2019", "'").replace("\u2018", "'")
    s = re.sub(r"[\"*_`\u201c\u201d]", "", s).strip()
    s = re.sub(r"\s+", " ", s)
    if not 12 <= len(s) <= 240 or len(s.split()) < 4 or re.search(r"[^A-Za-z ',.?!;:\-]", s):
        return None
    if re.search(r"--|\.\.|[A-Z]\.|(^|\s)[-.]", s) or not re.search(r"[.?!]$", s):
        return None
    return None if sum(c.isupper() for c in s) > 0.3 * len(s) else s


def collect(folder):
    found = {}

    def add(kind, s):
        s = plain(s)
        if s:
            found.setdefault(s, kind)

    for path in sorted(glob.glob(f"{folder}/wordnet-base/usr/share/wordnet/data.*")):
        for line in read(path).splitlines():
            if "|" in line and not line.startswith("  "):
                for example in re.findall(r'"([^"]+)"', line.split("|", 1)[1]):
                    example = example.strip()
                    add("wordnet", example if re.search(r"[.?!]$", example) else example + ".")
    for path in sorted(glob.glob(f"{folder}/anarchism/usr/share/doc/anarchism/markdown/*.md.gz")):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", read(path))
        for paragraph in re.split(r"\n\s*\n", text):
            for s in sentences(re.sub(r"^[>#\s*]+", "", paragraph, flags=re.M)):
                add("anarchism", s)
    for package in ("fortunes", "fortunes-min"):
        for path in sorted(glob.glob(f"{folder}/{package}/usr/share/games/fortunes/*.u8")):
            for fortune in read(path).split("\n%\n"):
                for s in sentences(re.sub(r"\n\s+-- .*", "", fortune, flags=re.S)):
                    add("fortunes", s)
    for path in sorted(glob.glob(f"{folder}/debian-handbook/usr/share/doc/debian-handbook/html/en-US/*.html")):
        for paragraph in re.findall(r'<div class="para">(.*?)</div>', read(path), flags=re.S):
            for s in sentences(re.sub(r"<[^>]+>", "", paragraph)):
                add("handbook", s)
    return found


def main(folder):
    unpack(folder)
    rng = random.Random(SEED)
    items = sorted(collect(folder).items())
    rng.shuffle(items)
    kinds = {}
    for s, kind in items:
        kinds.setdefault(kind, []).append(s)
    held = []
    for kind, n in HELD_OUT:
        held += kinds[kind][:n]
        kinds[kind] = kinds[kind][n:]
    train = kinds["wordnet"] + kinds["fortunes"]
    rng.shuffle(train)
    for name, lines in (("heldout", held), ("train", train)):
        with open(f"{folder}/{name}.txt", "w") as f:
            f.write("\n".join(lines) + "\n")
    print(len(train), "to train on,", len(held), "held out")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
