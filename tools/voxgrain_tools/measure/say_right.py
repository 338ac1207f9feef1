"""Whether a voice says what ordinary text is full of: initialisms, words of irregular spelling, phone numbers, short
replies.

Every sentence of data/say_right.tsv is spoken and heard by Whisper base; the teacher says the same. What counts is
that the
word, the letters, the digits or the whole reply are heard; the rest of the sentence only carries them."""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import dataclass
from pathlib import Path

from ..common import DATA
from . import judge, whisper, words

EXAMPLE = (
    "python -m voxgrain_tools say-right --voxgrain target/release/voxgrain --bundle models/voice "
    "--teacher hibari:heart --out /tmp/vx/say-right"
)

SENTENCES = Path(DATA) / "say_right.tsv"


@dataclass(frozen=True)
class Sentence:
    kind: str
    text: str
    wanted: tuple[str, ...]

    def spelt_out(self) -> str:
        """What the teacher is given: digits as words, groups set apart, so that it is judged by its voice.

        Teachers read a number's digits as they like, which says nothing about how the same words are understood."""
        if self.kind != "phone":
            return self.text
        groups = re.sub(r"[^0-9]+", ", ", self.text).strip(", ").split(", ")
        said = ", ".join(" ".join(words.ONES[int(d)] for d in group) for group in groups)
        return re.sub(r"\(?[0-9].*[0-9]", said, self.text)

    def right(self, transcript: str) -> bool:
        """Whether what has to be heard is in the transcript, by the rule of its kind."""
        return any(RULES[self.kind](reading, transcript) for reading in self.wanted)


def _inside(wanted: list[str], heard: list[str]) -> bool:
    return any(heard[i : i + len(wanted)] == wanted for i in range(len(heard) - len(wanted) + 1))


def has_initialism(wanted: str, transcript: str) -> bool:
    """Letters in a row count as one word: "U.S.A." and "u s a" are usa."""
    return wanted in (w.removesuffix("'s") for w in words.letters_together(transcript))


def has_words(wanted: str, transcript: str) -> bool:
    reference = wanted.split()
    return _inside(reference, words.closest(reference, transcript)) or _inside(reference, words.plain(transcript))


def has_digits(wanted: str, transcript: str) -> bool:
    return words.digits(transcript) == wanted


def is_reply(wanted: str, transcript: str) -> bool:
    return words.closest(wanted.split(), transcript) == wanted.split()


RULES = {"initialism": has_initialism, "word": has_words, "phone": has_digits, "reply": is_reply}


def read_sentences(path: Path) -> list[Sentence]:
    """Lines of kind, text and readings, separated by tabs; # begins a comment."""
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        fields = line.split("\t")
        if len(fields) != 3 or fields[0] not in RULES:
            raise SystemExit(
                f"{path}:{number}: kind ({', '.join(RULES)}), text and readings are wanted, separated by tabs"
            )
        found.append(Sentence(fields[0], fields[1], tuple(fields[2].split(" / "))))
    return found


def markdown(sentences: list[Sentence], heard: dict[str, list[str]]) -> str:
    """How many of each kind are right in each condition, then every miss with what was heard."""
    kinds = list(dict.fromkeys(s.kind for s in sentences))
    right = {name: [s.right(h) for s, h in zip(sentences, hs, strict=True)] for name, hs in heard.items()}
    lines = ["| right | " + " | ".join(kinds) + " |", "|---" * (len(kinds) + 1) + "|"]
    for name, marks in right.items():
        cells = []
        for kind in kinds:
            own = [m for m, s in zip(marks, sentences, strict=True) if s.kind == kind]
            cells.append(f"{sum(own)} of {len(own)}")
        lines.append("| " + " | ".join([name, *cells]) + " |")
    lines += ["", "| kind | text | " + " | ".join(heard) + " |", "|---" * (len(heard) + 2) + "|"]
    for i, sentence in enumerate(sentences):
        if all(marks[i] for marks in right.values()):
            continue
        cells = ["right" if right[name][i] else heard[name][i] or "(nothing)" for name in heard]
        lines.append("| " + " | ".join([sentence.kind, sentence.text, *cells]) + " |")
    return "\n".join(lines)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sentences", type=Path, default=SENTENCES, metavar="FILE")
    judge.add_program_arguments(parser, "default")


def run(args: argparse.Namespace) -> None:
    sentences = read_sentences(args.sentences)
    args.out.mkdir(parents=True, exist_ok=True)
    texts = [s.text for s in sentences]
    folders = judge.make_conditions(args, texts, args.out / "say-right", [s.spelt_out() for s in sentences])
    recogniser = whisper.verdicts(args.out, args.workers)
    heard = {n: recogniser(judge.conditions.sounds(f, len(sentences))) for n, f in folders.items()}
    table = markdown(sentences, heard) + "\n"
    (args.out / "say_right.md").write_text(table)
    facts = [
        {"kind": s.kind, "text": s.text, **{n: {"heard": h[i], "right": s.right(h[i])} for n, h in heard.items()}}
        for i, s in enumerate(sentences)
    ]
    (args.out / "say_right.json").write_text(json.dumps(facts, indent=1) + "\n")
    print(table)
