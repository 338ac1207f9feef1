"""Sounds to judge: a program's arms, a teacher, and the teacher through a bundle's codec, one WAV file a text."""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ..audio import fade, level, read_wav, resample, trim, write_wav
from ..corpus.teachers import RATE as TEACHER_RATE
from ..corpus.teachers import open_teacher
from .progress import Progress

CHUNK = 25


def digest(*items: str | Path) -> str:
    """A short hash of words, of files by content and of folders by the content of their files."""
    found = hashlib.sha256()
    for item in items:
        paths = (
            sorted(p for p in item.rglob("*") if p.is_file()) if isinstance(item, Path) and item.is_dir() else [item]
        )
        for path in paths:
            found.update(path.read_bytes() if isinstance(path, Path) else path.encode())
            found.update(b"\0")
    return found.hexdigest()[:16]


def sounds(folder: Path, count: int) -> list[Path]:
    """The first `count` WAV files of a folder by name."""
    paths = sorted(folder.glob("*.wav"))
    if len(paths) < count:
        raise SystemExit(
            f"{folder}: {len(paths)} WAV files for {count} texts; one a text is wanted, in the order of their names"
        )
    return paths[:count]


def fresh(folder: Path, key: str) -> bool:
    """Whether a folder holds nothing yet for this key; what another key left is removed."""
    mark = folder / "key"
    if mark.exists() and mark.read_text() == key:
        return False
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    mark.write_text(key)
    return True


def speak_program(
    program: str, bundle: Path, arguments: str, texts: Sequence[str], folder: Path, seed: int = 1, workers: int = 2
) -> list[dict]:
    """`voxgrain say --batch` over chunks of the texts, some at once; its measurements, one a text where it prints them.

    Another program, bundle, text or argument speaks anew; a stopped run goes on."""
    command = [*shlex.split(program), "say", "--bundle", str(bundle), *shlex.split(arguments)]
    found = shutil.which(command[0])
    if found is None:
        raise SystemExit(f"no program {command[0]}: cargo build --release, then --voxgrain target/release/voxgrain")
    files = [Path(w) for w in command[1:] if Path(w).is_file()]
    fresh(folder, digest(Path(found), bundle, *files, *command[1:], str(seed)))
    progress = Progress(folder.name, len(texts))

    def speak(start: int) -> list[dict]:
        part = texts[start : start + CHUNK]
        log = folder / f"{start:05}-{digest(*part)}.jsonl"
        if not log.exists():
            batch, out = folder / f"{start:05}.txt", folder / f"{start:05}"
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir()
            batch.write_text("\n".join(part) + "\n")
            done = subprocess.run(
                [
                    *command,
                    "--threads",
                    "1",
                    "--batch",
                    str(batch),
                    "--out-dir",
                    str(out),
                    "--seed",
                    str(seed + start),
                    "--json",
                ],
                capture_output=True,
                text=True,
            )
            if done.returncode:
                raise SystemExit(f"{shlex.join(command)} ends with {done.returncode}:\n{done.stderr.strip()[-2000:]}")
            made = sorted(out.glob("*.wav"))
            if len(made) != len(part):
                raise SystemExit(f"{folder.name}: {len(made)} WAV files for {len(part)} texts from line {start + 1} on")
            for i, path in enumerate(made):
                path.rename(folder / f"{start + i:05}.wav")
            log.write_text("".join(x + "\n" for x in done.stdout.splitlines() if x.startswith("{")))
            shutil.rmtree(out)
        return [json.loads(x) for x in log.read_text().splitlines()]

    facts: list[dict] = []
    with ThreadPoolExecutor(workers) as pool:
        for n, lines in enumerate(pool.map(speak, range(0, len(texts), CHUNK)), start=1):
            facts += lines
            progress(min(n * CHUNK, len(texts)))
    return facts


def speak_teacher(name: str, texts: Sequence[str], folder: Path, rate: int, seed: int = 1) -> None:
    """The teacher at `rate` Hz, trimmed and at one loudness, as a corpus has it."""
    fresh(folder, digest(name, str(rate), str(seed)))
    teacher = None
    progress = Progress(name, len(texts))
    for i, text in enumerate(texts):
        path, said = folder / f"{i:05}.wav", folder / f"{i:05}.txt"
        if not (path.exists() and said.exists() and said.read_text() == text):
            teacher = teacher or open_teacher(name, threads=2)
            spoken = teacher.speak(teacher.phonemes(text), seed=seed + i)
            samples = resample(spoken.samples, TEACHER_RATE, rate)
            write_wav(path, fade(level(trim(samples, rate), rate), rate), rate)
            said.write_text(text)
        progress(i + 1)


def through_codec(encoder: Path, bundle: Path, clean: Path, count: int, folder: Path) -> None:
    """The first sounds of `clean` through the encoder's checkpoint and the bundle's decoder."""
    from ..export.runtime import Voice
    from ..train.encoder import Encoder

    fresh(folder, digest(encoder, bundle))
    encode = decode = None
    progress = Progress("codec", count)
    for i, path in enumerate(sounds(clean, count)):
        out = folder / f"{i:05}.wav"
        if not out.exists() or out.stat().st_mtime < path.stat().st_mtime:
            encode, decode = encode or Encoder(encoder), decode or Voice(bundle).codec()
            samples, rate = read_wav(path)
            write_wav(out, decode.decode(encode(samples))[: len(samples)], rate)
        progress(i + 1)
