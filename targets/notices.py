#!/usr/bin/env python3
"""Prints the notices that whoever ships voxgrain owes to the crates in it: name, version, licence
and licence text of each, every text once. Needs Python and cargo, nothing else.

    targets/notices.py > THIRD-PARTY.txt
    targets/notices.py --no-default-features --features capi --target aarch64-unknown-linux-gnu

What follows is given to `cargo tree`; by default it is the program as `cargo build` makes it, for
this machine. Listed are the crates that end up in the binary, not build scripts and macros.
Weights and data have notices of their own: models/NOTICE.
"""

import collections
import json
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
NAMES = re.compile(r"(licen[cs]e|copying|notice|copyright|unlicense)", re.IGNORECASE)


def cargo(*arguments: str) -> str:
    return subprocess.run(
        ["cargo", *arguments], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def linked(options: list[str]) -> set[tuple[str, str]]:
    """Name and version of every crate that is linked, macros apart."""
    tree = cargo(
        "tree", "--locked", "--edges", "normal,no-proc-macro", "--prefix", "none", "--format", "{p}",
        *options,
    )
    crates = set()
    for line in tree.splitlines():
        name, version = line.split()[:2]
        crates.add((name, version.lstrip("v")))
    return crates


def texts(folder: pathlib.Path) -> list[str]:
    found = [f for f in folder.iterdir() if NAMES.search(f.name)]
    files = sorted(g for f in found for g in ([f] if f.is_file() else f.rglob("*")) if g.is_file())
    return [f.read_text(errors="replace").strip() for f in files]


def main() -> int:
    wanted = linked(sys.argv[1:])
    packages = json.loads(cargo("metadata", "--locked", "--format-version", "1"))["packages"]
    found = {(p["name"], p["version"]): p for p in packages if p["source"]}
    rows, users = [], collections.defaultdict(list)
    for key in sorted(wanted & found.keys()):
        package = found[key]
        label = f"{package['name']} {package['version']}"
        own = texts(pathlib.Path(package["manifest_path"]).parent)
        by = ", ".join(package["authors"]) or package["repository"] or "its authors"
        note = "" if own else f"; the crate has no licence file; by {by}"
        rows.append(f"{label}: {package['license'] or 'see its text'}{note}")
        for text in own:
            users[re.sub(r"\s+", " ", text)].append((label, text))
    print("voxgrain contains these crates, each under the licence that it names:\n")
    print("\n".join(rows))
    print("Rust's standard library: MIT OR Apache-2.0, its texts are share/doc/rust/COPYRIGHT-library.html of the compiler")
    for uses in users.values():
        print("\n" + "=" * 80)
        print(", ".join(sorted({label for label, _ in uses})) + "\n")
        print(uses[0][1])
    missing = sorted(wanted - found.keys() - {("voxgrain", v) for _, v in wanted})
    if missing:
        print(f"not found in cargo's metadata: {missing}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
