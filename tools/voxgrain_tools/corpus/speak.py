"""Stage speak: a corpus spoken by a natural teacher, with its phonemes as text, phone times and tempos.

Each text becomes a tempo's symbol and phonemes (`common.ALPHABETS`); half of the texts are spoken at the natural
tempo, the others at one of `common.TEMPOS`. The symbol is the tempo that the teacher's frames came to, not the one
that it was asked for. Silence is cut to 60 ms before and 140 ms after the speech, loudness is brought to one level."""

from __future__ import annotations

import argparse
import glob
import multiprocessing
import os
import time
from dataclasses import dataclass

import numpy as np

from ..audio import fade, level, pcm16, resample, speech_span
from ..common import PHONEMES, TEMPOS, cpu_count, log
from .synth import SOUND_ID, natural_voices, read_texts
from .teachers import RATE as TEACHER_RATE
from .teachers import Spoken, Teacher, open_teacher

EXAMPLE = (
    "python -m voxgrain_tools speak --teacher hibari:heart --texts .dev/corpus.txt.xz --work /tmp/vx --budget 300 "
    "--workers 14"
)
RATE = 16000
NATURAL = next(symbol for symbol, tempo in TEMPOS.items() if tempo == 1.0)
# What to ask a teacher for: durations of one frame cannot shrink, so fast speech saturates (measured on hibari).
ASKED = {"6": 1.137, "7": 1.305, "8": 1.495, "9": 1.803}
LONGEST = 330  # Phonemes of a text; slow ones are shorter, or they would not fit a row of training.
LONGEST_SLOW, SLOW = 140, 0.85
# How a teacher's front end writes what PHONEMES has another symbol for.
MAPPED = {"ɾ": "T", "ʔ": "t", "-": " ", "–": "—"}
ENDS = ";:,.!?—…”)"


def clean(phonemes: str) -> str:
    """A teacher's phonemes in the symbols of PHONEMES, as the runtime's front end writes them.

    Straight quotes become pairs, several spaces one, and every text ends in a mark."""
    out, opened = [], False
    for c in phonemes:
        c = MAPPED.get(c, c)
        if c == '"':
            opened = not opened
            c = "“" if opened else "”"
        if c in PHONEMES:
            out.append(c)
    text = " ".join("".join(out).split())
    return text + "." if text and text[-1] not in ENDS else text


def nearest_tempo(tempo: float) -> str:
    """The symbol of the tempo that is nearest by ratio."""
    return min(TEMPOS, key=lambda symbol: abs(np.log(TEMPOS[symbol] / tempo)))


def marks_of(spoken: Spoken, begin: int, count: int, rate: int) -> list[tuple[str, int]]:
    """(sound, end in samples) of each phoneme, after `begin` samples were cut and `count` kept.

    Stress belongs to the vowel behind it and length to the one in front; marks and spaces are silence."""
    symbols = ["pau", *spoken.phonemes, "pau"]
    marks, name = [], "pau"
    for i, (symbol, end) in enumerate(zip(symbols, spoken.ends(), strict=True)):
        if symbol in "ˈˌ":
            symbol = next((s for s in symbols[i:] if s not in "ˈˌ"), "pau")
        name = name if symbol == "ː" else symbol if symbol in SOUND_ID else "pau"
        marks.append((name, min(round(end * rate) - begin, count)))
    return [(name, end) for name, end in marks if end > 0]


@dataclass
class Utterance:
    """int16 samples at `RATE`, what a model reads for them, and the times of the sounds."""

    samples: np.ndarray
    text: str
    tempo: float
    marks: list[tuple[str, int]]


def utter(teacher: Teacher, text: str, seed: int, tempo: str = NATURAL) -> Utterance | None:
    """The text in the teacher's voice at about a tempo; None for what has no sound or is too long."""
    phonemes = clean(teacher.phonemes(text))
    if not 1 <= len(phonemes) <= LONGEST:
        return None
    if TEMPOS[tempo] < SLOW and len(phonemes) > LONGEST_SLOW:
        tempo = NATURAL
    spoken = teacher.speak(phonemes, seed, ASKED.get(tempo, TEMPOS[tempo]))
    true = 1.0
    if tempo != NATURAL:
        true = float(teacher.frames(phonemes).sum() / spoken.frames.sum())
    samples = resample(spoken.samples, TEACHER_RATE, RATE)
    span = speech_span(samples, RATE)
    if span is None:
        return None
    samples = fade(level(samples[span[0] : span[1]], RATE), RATE)
    marks = marks_of(spoken, span[0], len(samples), RATE)
    return Utterance(pcm16(samples), nearest_tempo(true) + phonemes, true, marks)


def speak_part(args: argparse.Namespace, number: int, count: int, until: float) -> None:
    """Every count-th text into NAME<number>.pcm and .tsv.

    Columns: id, first sample, samples, tempo, pitch, sounds, text, voice."""
    teacher = open_teacher(args.teacher, device=args.device)
    texts = read_texts(args.texts)
    prefix = f"{args.work}/audio/{args.name}{number:02d}"
    at, made, failed, flushed = 0, 0, 0, time.monotonic()
    rows: list[str] = []
    rng = np.random.default_rng([args.seed, number])
    with open(prefix + ".pcm", "wb") as pcm, open(prefix + ".tsv", "w", encoding="utf-8") as tsv:
        order = list(range(number, len(texts), count))
        for i in (order[::-1] if args.backwards else order)[: args.limit]:
            if time.time() > until:
                break
            natural = args.plain or rng.random() < 0.5
            tempo = NATURAL if natural else str(rng.choice(list(TEMPOS)))
            try:
                said = utter(teacher, texts[i], args.seed * 1_000_003 + i, tempo)
            except Exception as error:  # noqa: BLE001 - one text is no reason to stop
                failed += 1
                log(f"text {i}: {error!r}"[:300])
                if failed > 20 + made // 50:
                    raise
                continue
            if said is None:
                continue
            pcm.write(said.samples.tobytes())
            sounds = " ".join(f"{name}:{end}" for name, end in said.marks)
            facts = (i, at, len(said.samples), f"{said.tempo:.3f}", "1.0", sounds, said.text, args.voice)
            rows.append("\t".join(map(str, facts)) + "\n")
            at, made = at + len(said.samples), made + 1
            if time.monotonic() - flushed > 2:  # Samples before the rows that name them: readers follow.
                pcm.flush()
                tsv.writelines(rows)
                tsv.flush()
                rows, flushed = [], time.monotonic()
        pcm.flush()
        tsv.writelines(rows)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--teacher", default="hibari:heart", metavar="NAME", help="or kokoro:VOICE")
    parser.add_argument(
        "--voice", default=None, help="name of the speaker (default: the teacher's); numbered as they first speak"
    )
    parser.add_argument("--texts", default=".dev/corpus.txt.xz", help="one a line, as people write them")
    parser.add_argument("--work", required=True)
    parser.add_argument("--name", default="w", help="of the files in WORK/audio; w9 for a second teacher beside w")
    parser.add_argument("--budget", type=float, default=1e9, help="seconds")
    parser.add_argument("--workers", type=int, default=None, help="processes of one thread (default: a core each)")
    parser.add_argument(
        "--device", default="cpu", help="cuda: Kokoro by torch on a GPU (--workers 10 share it well); hibari needs none"
    )
    parser.add_argument(
        "--backwards", action="store_true", help="from the last text on: a second teacher then says other texts"
    )
    parser.add_argument("--limit", type=int, default=None, help="texts a worker")
    parser.add_argument("--plain", action="store_true", help="natural tempo only, as held-out speech is")
    parser.add_argument("--seed", type=int, default=1)


def run(args: argparse.Namespace) -> None:
    args.voice = args.voice or args.teacher.partition(":")[2]
    began, until = time.monotonic(), time.time() + args.budget
    os.makedirs(f"{args.work}/audio", exist_ok=True)
    if args.voice not in natural_voices(args.work):
        with open(f"{args.work}/audio/voices", "a", encoding="utf-8") as f:
            f.write(args.voice + "\n")
    # Two digits a worker: `w` must not remove what `w9` says beside it.
    for old in glob.glob(f"{args.work}/audio/{args.name}[0-9][0-9].*"):
        os.remove(old)
    count = min(args.workers or cpu_count(), 100)
    os.environ["OMP_NUM_THREADS"] = "1"
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=speak_part, args=(args, i, count, until)) for i in range(count)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if any(worker.exitcode for worker in workers):
        raise SystemExit(f"speak: {sum(bool(w.exitcode) for w in workers)} of {count} workers failed, see above")
    size = sum(os.path.getsize(p) for p in glob.glob(f"{args.work}/audio/{args.name}[0-9]*.pcm"))
    log(f"{args.teacher}: {size / 2 / RATE / 3600:.2f} h in {time.monotonic() - began:.0f} s")
