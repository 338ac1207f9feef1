#!/usr/bin/env python3
"""Prints what is in the program, as CycloneDX 1.5: every crate that is linked, with its version, licence and checksum,
and the weights and data of this repository with theirs. Needs Python and cargo, nothing else.

    targets/sbom.py > voxgrain.cdx.json
    targets/sbom.py --no-default-features --features capi --target aarch64-unknown-linux-gnu

What follows is given to `cargo tree`, as for notices.py, which has the texts of the licences.
"""

import hashlib
import json
import re
import sys

from notices import ROOT, cargo, linked

# What goes into a package beside the program; models/NOTICE has what is owed for it.
DATA = ("models/voice", "models/lexicon", "asg-cache")


def licence(folder: str) -> str:
    """Of a bundle what it says itself, of the lexicon that of its sources."""
    bundle = ROOT / folder / "bundle.toml"
    if bundle.exists():
        return re.search(r'^licence = "([^"]*)"', bundle.read_text(), re.M)[1]
    return "Apache-2.0" if folder == "models/lexicon" else "MIT"


def checksums() -> dict[tuple[str, str], str]:
    """Of the registry's archives, as Cargo.lock has them."""
    found = {}
    for block in (ROOT / "Cargo.lock").read_text().split("[[package]]")[1:]:
        field = dict(re.findall(r'^(name|version|checksum) = "([^"]*)"', block, re.M))
        if "checksum" in field:
            found[field["name"], field["version"]] = field["checksum"]
    return found


def crates(options: list[str]) -> list[dict]:
    packages = json.loads(cargo("metadata", "--locked", "--format-version", "1"))["packages"]
    known = {(p["name"], p["version"]): p for p in packages}
    sums, rows = checksums(), []
    for name, version in sorted(linked(options)):
        row = {
            "type": "library",
            "name": name,
            "version": version,
            "purl": f"pkg:cargo/{name}@{version}",
            "licenses": [{"expression": known[name, version]["license"].replace("/", " OR ")}],
        }
        if (name, version) in sums:
            row["hashes"] = [{"alg": "SHA-256", "content": sums[name, version]}]
        rows.append(row)
    return rows


def data() -> list[dict]:
    rows = []
    for folder in DATA:
        for path in sorted(p for p in (ROOT / folder).iterdir() if p.is_file()):
            if path.suffix in {".onnx", ".data", ".lexicon", ".asg", ".toml"}:
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
                rows.append({
                    "type": "machine-learning-model" if folder == "models/voice" else "data",
                    "name": str(path.relative_to(ROOT)),
                    "licenses": [{"license": {"name": licence(folder)}}],
                    "hashes": [{"alg": "SHA-256", "content": digest}],
                })
    return rows


def main() -> int:
    parts = crates(sys.argv[1:])
    own = next(p for p in parts if p["name"] == "voxgrain")
    parts.remove(own)
    own["type"] = "application"
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": own},
        "components": parts + data(),
    }
    choices = {p["name"]: p["licenses"][0]["expression"].split(" OR ") for p in parts}
    copyleft = [name for name, all_of in choices.items() if all("GPL" in one for one in all_of)]
    if copyleft:
        print(f"not permissive: {copyleft}", file=sys.stderr)
        return 1
    print(json.dumps(document, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
