"""bundle.toml: what a voice is made of, with a checksum of every file."""

from __future__ import annotations

import hashlib
import tomllib
from pathlib import Path

from ..common import CHARACTERS, IDS, TEMPOS, Ids

# 1: prompts of letters. 2: [text] says what prompts are written in.
LETTERS_FORMAT, FORMAT = 1, 2
# Samples at the end of a decoded prefix that the next token still changes.
LATENCY_SAMPLES = 240
LICENCE = "see models/README.md"
# Of what the tools themselves make, such as the random test bundle.
CODE_LICENCE = "same as the code"
# Of the default voice. Whoever trains on other teachers says which: export --attribution.
ATTRIBUTION = (
    "Trained on speech synthesised with hibari-tts 0.2.1, voice heart (Apache-2.0), itself distilled from Kokoro-82M, "
    "voice af_heart, and with Kokoro-82M, voice am_michael (hexgrad, Apache-2.0)."
)
AUDIO = {"sample_rate_hz": 16000, "frame_rate_hz": 50, "fft_size": 640, "hop": 160, "max_log_magnitude": 6.0}


def vocabulary(codes: int = 65536, characters: str = CHARACTERS) -> dict:
    ids = Ids(codes)
    return {
        "speech": ids.speech,
        "end_of_speech": ids.end,
        "begin": ids.begin,
        "start_of_speech": ids.start,
        "pad": ids.pad,
        "first_character": ids.first_character,
        "characters": characters,
        "fsq_digits": ids.digits,
        "fsq_levels": 4,
    }


def text(characters: str, lexicon: str | None) -> dict | None:
    """[text] for what a model reads; None for letters, which format 1 means."""
    if characters == CHARACTERS:
        return None
    if not lexicon:
        raise SystemExit("a voice of phonemes needs --lexicon: a file, relative to the bundle")
    tempos = {k: v for k, v in TEMPOS.items() if k in characters}
    return {
        "front_end": "phonemes",
        "lexicon": lexicon,
        "tempo_symbols": "".join(tempos),
        "tempos": list(tempos.values()),
    }


VOCABULARY = vocabulary()
# The symbol of a bundle without speakers, and the one that nothing else ever feeds to a model.
SPEAKER_SYMBOLS = IDS.begins
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


def parse_speaker(text: str) -> dict:
    """`NAME:BEGIN` or `NAME:BEGIN:DESCRIPTION`."""
    name, _, rest = text.partition(":")
    begin, _, description = rest.partition(":")
    try:
        return {"name": name, "begin": int(begin), "description": description}
    except ValueError:
        raise SystemExit(f"--speaker {text!r} is not NAME:BEGIN:DESCRIPTION") from None


def check_speakers(speakers: list[dict], symbols: tuple[int, ...] = SPEAKER_SYMBOLS) -> None:
    """What the runtime will refuse is not written."""
    names = [s["name"] for s in speakers]
    begins = [s["begin"] for s in speakers]
    for name, begin in zip(names, begins, strict=True):
        if not name or name != name.strip() or not name.isprintable() or len(name) > 64:
            raise SystemExit(f"{name!r} is no name of a speaker")
        if begin not in symbols:
            free = " and ".join(map(str, symbols))
            raise SystemExit(f"speaker {name!r} cannot begin with {begin}: {free} are free")
    for what, values in (("name", names), ("symbol", begins)):
        if len(set(values)) < len(values):
            raise SystemExit(f"two speakers have the same {what}: {', '.join(map(str, values))}")


def speakers(facts: dict) -> list[dict]:
    """Who a bundle can speak as, the default first."""
    if facts.get("speakers"):
        return facts["speakers"]
    return [{"name": facts["name"], "begin": facts["vocabulary"]["begin"], "description": ""}]


def speaker(facts: dict, name: str | None) -> dict:
    known = {s["name"]: s for s in speakers(facts)}
    if name is None:
        return next(iter(known.values()))
    if name not in known:
        raise SystemExit(f"there is no speaker {name!r} in this bundle; it has {', '.join(known)}")
    return known[name]


def write(
    folder: Path,
    *,
    name: str,
    sections: dict[str, dict],
    groups: str | None,
    speakers: list[dict] | None = None,
    sampling: dict | None = None,
    training: dict | None = None,
    licence: str = LICENCE,
    attribution: str = ATTRIBUTION,
    codes: int = IDS.speech,
    characters: str = CHARACTERS,
    lexicon: str | None = None,
) -> None:
    check_speakers(speakers or [], Ids(codes).begins)
    front_end = text(characters, lexicon)
    number = FORMAT if front_end else LETTERS_FORMAT
    lines = _table("", {"format": number, "name": name, "licence": licence, "attribution": attribution})
    lines += _table("[audio]", AUDIO)
    lines += _table("[vocabulary]", vocabulary(codes, characters))
    if front_end:
        lines += _table("[text]", front_end)
    for entry in speakers or []:
        lines += _table("[[speakers]]", entry)
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
