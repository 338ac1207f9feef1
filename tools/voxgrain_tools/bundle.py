"""bundle.toml: what a voice is made of, with a checksum of every file."""

from __future__ import annotations

import hashlib
import tomllib
from pathlib import Path

FORMAT = 1
# Samples at the end of a decoded prefix that the next token still changes.
LATENCY_SAMPLES = 240
LICENCE = "see models/README.md"
# Of what the tools themselves make, such as the random test bundle.
CODE_LICENCE = "same as the code"
ATTRIBUTION = (
    "Trained on speech synthesised with flite 2.2, voice cmu_us_slt "
    "(Carnegie Mellon University, CMU ARCTIC)."
)
AUDIO = {
    "sample_rate_hz": 16000,
    "frame_rate_hz": 50,
    "fft_size": 640,
    "hop": 160,
    "max_log_magnitude": 6.0,
}
VOCABULARY = {
    "speech": 65536,
    "end_of_speech": 65536,
    "begin": 65537,
    "start_of_speech": 65538,
    "pad": 65539,
    "first_character": 65540,
    "characters": " ',.?!abcdefghijklmnopqrstuvwxyz",
    "fsq_digits": 8,
    "fsq_levels": 4,
}
SAMPLING = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "gamma": 4}


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _value(value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        return f'"{escaped}"'
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_value(v) for v in value) + "]"
    return repr(value)


def _table(header: str, items: dict) -> list[str]:
    lines = [header] if header else []
    return lines + [f"{key} = {_value(item)}" for key, item in items.items()] + [""]


def write(
    folder: Path,
    *,
    name: str,
    sections: dict[str, dict],
    groups: str | None,
    sampling: dict | None = None,
    training: dict | None = None,
    licence: str = LICENCE,
    attribution: str = ATTRIBUTION,
) -> None:
    lines = _table(
        "",
        {"format": FORMAT, "name": name, "licence": licence, "attribution": attribution},
    )
    lines += _table("[audio]", AUDIO)
    lines += _table("[vocabulary]", VOCABULARY)
    for section, items in sections.items():
        lines += _table(f"[{section}]", items)
    lines += _table("[sampling]", {**SAMPLING, **(sampling or {})})
    if groups:
        lines += _table("[groups]", {"file": groups})
    for path in sorted([*folder.glob("*.onnx"), *folder.glob("*.onnx.data")]):
        entry = {"path": path.name, "bytes": path.stat().st_size, "sha256": sha256(path)}
        lines += _table("[[files]]", entry)
    if training:
        lines += _table("[training]", training)
    (folder / "bundle.toml").write_text("\n".join(lines).rstrip() + "\n")


def read(folder: Path) -> dict:
    return tomllib.loads((folder / "bundle.toml").read_text())


def check(folder: Path) -> list[str]:
    """Everything wrong with the bundle's files; empty if all sizes and checksums hold."""
    problems = []
    for entry in read(folder).get("files", []):
        path = folder / entry["path"]
        if not path.is_file():
            problems.append(f"{entry['path']}: missing")
        elif path.stat().st_size != entry["bytes"]:
            problems.append(f"{entry['path']}: {path.stat().st_size} bytes, not {entry['bytes']}")
        elif sha256(path) != entry["sha256"]:
            problems.append(f"{entry['path']}: checksum differs")
    return problems
