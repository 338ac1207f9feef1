"""Sentences to listen to and look at: by the teacher, its sounds through the codec, and the program's arms.

FLAC files, a spectrogram a sentence, and a README.md with all of them; what somebody sees and hears before building."""

from __future__ import annotations

import argparse
import io
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..audio import read_wav
from . import conditions

EXAMPLE = (
    "python -m voxgrain_tools listen --voxgrain target/release/voxgrain --bundle models/voice --texts "
    "tools/data/listen.txt --speaker heart=hibari:heart --encoder tools/data/codec_encoder.safetensors "
    "--out docs/listen"
)

ARMS = ("ar", "pcg", "default")
# Of the spectrogram: window and step in seconds, and how far below its peak anything shows, in dB.
WINDOW, STEP, RANGE = 0.032, 0.008, 80.0
SIZE_LIMIT = 3 << 20


def spectrogram(samples: np.ndarray, rate: int) -> np.ndarray:
    """Decibels below the peak, [bins, frames], of a Hann window of 32 ms every 8 ms."""
    size, step = round(WINDOW * rate), round(STEP * rate)
    padded = np.pad(samples, (0, max(0, size - len(samples))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[::step]
    power = np.abs(np.fft.rfft(frames * np.hanning(size), axis=1)).T ** 2
    decibels = 10 * np.log10(power + 1e-12)
    return np.maximum(decibels - decibels.max(), -RANGE)


def draw(path: Path, title: str, sounds: dict[str, tuple[np.ndarray, int]]) -> None:
    """One picture: a spectrogram a condition, over one axis of time."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from PIL import Image

    longest = max(len(samples) / rate for samples, rate in sounds.values())
    figure, rows = plt.subplots(len(sounds), 1, sharex=True, figsize=(8, 1.15 * len(sounds) + 0.7), squeeze=False)
    for axes, (name, (samples, rate)) in zip(rows[:, 0], sounds.items(), strict=True):
        extent = (0.0, len(samples) / rate, 0.0, rate / 2000)
        axes.imshow(spectrogram(samples, rate), origin="lower", aspect="auto", extent=extent, cmap="magma")
        axes.set_xlim(0, longest)
        axes.set_ylabel(f"{name}\nkHz", fontsize=8)
        axes.tick_params(labelsize=7)
    rows[0, 0].set_title(title, fontsize=9)
    rows[-1, 0].set_xlabel("seconds", fontsize=8)
    figure.tight_layout(h_pad=0.3)
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=80, format="png")
    plt.close(figure)
    # A palette of 48 colours is a third of the bytes and looks the same.
    Image.open(drawn).convert("RGB").quantize(48, dither=Image.Dither.NONE).save(path, optimize=True)


def write_flac(path: Path, samples: np.ndarray, rate: int) -> None:
    """16 bits at the densest level."""
    import soundfile

    soundfile.write(path, samples, rate, subtype="PCM_16", format="FLAC", compression_level=1.0)


def page(speakers: dict[str, str], texts: Sequence[str], names: Sequence[str], seed: int) -> str:
    """README.md: a section a speaker, a table a sentence."""
    teachers = ", ".join(f"`{teacher}` for `{speaker}`" for speaker, teacher in speakers.items())
    lines = [
        "# Listen",
        "",
        f"The same sentences by the teacher ({teachers}), by the teacher through the codec, which is as near as the",
        "model could come, and by the program: `ar` is plain decoding, `pcg` accepts by groups, `default` is what",
        f"`voxgrain say` does by itself. Seed {seed}, none chosen by ear.",
        "",
        f"Made by `{EXAMPLE}`.",
    ]
    for speaker in speakers:
        lines += ["", f"## {speaker}"]
        for i, text in enumerate(texts):
            stem = f"{speaker}-{i + 1}"
            links = " · ".join(f"[{name}]({stem}-{name}.flac)" for name in names)
            lines += ["", f"**{text}**", "", links, "", f"![Spectrograms of the sentence by each]({stem}.png)"]
    return "\n".join(lines) + "\n"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--voxgrain", metavar="PROGRAM", default="voxgrain", help="the program, with any arguments")
    parser.add_argument("--bundle", type=Path, required=True, metavar="DIR", help="the voice")
    parser.add_argument("--texts", type=Path, required=True, metavar="FILE", help="one sentence a line")
    parser.add_argument(
        "--speaker",
        action="append",
        required=True,
        metavar="NAME=TEACHER",
        help="a speaker of the voice and its teacher, such as heart=hibari:heart; once a speaker",
    )
    parser.add_argument("--encoder", type=Path, required=True, metavar="FILE", help="codec encoder checkpoint")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="FLAC, PNG and README.md")


def run(args: argparse.Namespace) -> None:
    from ..export import bundle
    from .judge import read_texts

    speakers = dict(item.split("=", 1) for item in args.speaker if "=" in item)
    if len(speakers) != len(args.speaker):
        raise SystemExit("--speaker: NAME=TEACHER is wanted, each name once")
    texts = read_texts(args.texts, None)
    rate = bundle.read(args.bundle)["audio"]["sample_rate_hz"]
    names = ("teacher", "codec", *ARMS)
    args.out.mkdir(parents=True, exist_ok=True)
    kept = []
    with tempfile.TemporaryDirectory() as work:
        for speaker, teacher in speakers.items():
            folders = {name: Path(work) / speaker / name for name in names}
            conditions.speak_teacher(teacher, texts, folders["teacher"], rate)
            conditions.through_codec(args.encoder, args.bundle, folders["teacher"], len(texts), folders["codec"])
            for arm in ARMS:
                arguments = f"--speaker {speaker}" + ("" if arm == "default" else f" --arm {arm}")
                conditions.speak_program(args.voxgrain, args.bundle, arguments, texts, folders[arm], args.seed)
            for i, text in enumerate(texts):
                sounds = {n: read_wav(conditions.sounds(folders[n], len(texts))[i]) for n in names}
                stem = f"{speaker}-{i + 1}"
                for name, (samples, its_rate) in sounds.items():
                    kept.append(args.out / f"{stem}-{name}.flac")
                    write_flac(kept[-1], samples, its_rate)
                draw(args.out / f"{stem}.png", text, sounds)
    (args.out / "README.md").write_text(page(speakers, texts, names, args.seed))
    total = sum(path.stat().st_size for path in kept)
    print(f"{len(kept)} sounds of {total / 1e6:.2f} MB in {args.out}")
    if total > SIZE_LIMIT:
        raise SystemExit(f"{args.out}: the sounds have {total} bytes, more than 3 MiB; take shorter sentences")
