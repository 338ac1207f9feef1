"""How a voice is understood and how it sounds, teacher and codec beside it, with intervals.

Word and character errors by Whisper base, opinions by DistillMOS and P808, all with 95 % intervals over the sentences
drawn
anew, and paired differences to the arm `ar` and to the teacher. Nobody listened."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from .. import scoring
from ..audio import seconds_of
from . import conditions, mos, whisper, words

EXAMPLE = (
    "python -m voxgrain_tools judge --voxgrain target/release/voxgrain --bundle models/voice "
    "--texts tools/data/heldout.txt --limit 100 --teacher hibari:heart --out /tmp/vx/judge"
)

Interval = tuple[float, float, float]
TEACHER, CODEC = "teacher", "codec"


def score(reference: str, transcript: str) -> dict:
    """Errors and faults of one transcript; its numbers and initialisms are read as the reference has them."""
    wanted = words.plain(reference)
    heard = words.closest(wanted, transcript)
    return {
        "words": len(wanted),
        "word_errors": scoring.distance(wanted, heard),
        "characters": len(" ".join(wanted)),
        "character_errors": scoring.distance(" ".join(wanted), " ".join(heard)),
        **scoring.faults(wanted, heard),
    }


def summarise(utterances: dict[str, list[dict]], baselines: Sequence[str]) -> dict[str, dict]:
    """Rates, means and their intervals of each condition, and the paired differences to each baseline but itself."""
    report: dict[str, dict] = {}
    for name, items in utterances.items():
        entry: dict = {"utterances": len(items), "seconds": sum(u["seconds"] for u in items)}
        for figure, value, total in (
            ("wer", "word_errors", "words"),
            ("cer", "character_errors", "characters"),
            *((s, s, None) for s in mos.SCORERS),
        ):
            if any(value not in u for u in items):
                continue

            def columns(of: str, value: str = value, total: str | None = total) -> tuple[list[float], list[float]]:
                return [u[value] for u in utterances[of]], [u[total] if total else 1.0 for u in utterances[of]]

            entry[figure] = scoring.bootstrap(*columns(name))
            for base in baselines:
                if base in utterances and base != name:
                    entry[f"{figure} - {base}"] = scoring.bootstrap(*columns(name), base=columns(base))
        for fault in ("skip", "repeat", "missing_end"):
            entry[fault] = sum(u[fault] for u in items)
        report[name] = entry
    return report


def shown(figure: str, value: Interval | None) -> str:
    if value is None:
        return ""
    if figure.startswith(("wer", "cer")):
        return "{:.2f} [{:.2f}, {:.2f}]".format(*(100 * v for v in value))
    return "{:.2f} [{:.2f}, {:.2f}]".format(*value)


def markdown(report: dict[str, dict], baselines: Sequence[str]) -> str:
    """Two tables: what each condition is, and how it differs."""
    names = {"wer": "WER, %", "cer": "CER, %", "distillmos": "DistillMOS", "p808": "P808"}
    figures = [f for f in names if any(f in e for e in report.values())]
    lines = [
        "| | " + " | ".join(names[f] for f in figures) + " | skips | repeats | missing ends | seconds |",
        "|---" * (len(figures) + 5) + "|",
    ]
    for name, entry in report.items():
        cells = [name, *(shown(f, entry.get(f)) for f in figures)]
        cells += [str(entry[f]) for f in ("skip", "repeat", "missing_end")]
        lines.append("| " + " | ".join([*cells, f"{entry['seconds']:.0f}"]) + " |")
    for base in baselines:
        others = {n: e for n, e in report.items() if any(f"{f} - {base}" in e for f in figures)}
        if not others:
            continue
        lines += ["", f"Minus {base}, paired:", "", "| | " + " | ".join(names[f] for f in figures) + " |"]
        lines.append("|---" * (len(figures) + 1) + "|")
        for name, entry in others.items():
            lines.append("| " + " | ".join([name, *(shown(f, entry.get(f"{f} - {base}")) for f in figures)]) + " |")
    return "\n".join(lines)


def read_texts(path: Path, limit: int | None) -> list[str]:
    """The lines of a file that hold something."""
    texts = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()][:limit]
    if not texts:
        raise SystemExit(f"{path}: no texts; one a line is wanted")
    return texts


def judge(
    texts: Sequence[str], folders: dict[str, Path], memory: Path, scorers: Sequence[str], workers: int
) -> dict[str, list[dict]]:
    """The verdicts of every utterance of every condition."""
    memory.mkdir(parents=True, exist_ok=True)
    judges = [whisper.verdicts(memory, workers), *(mos.verdicts(s, memory, workers) for s in scorers)]
    found: dict[str, list[dict]] = {}
    for name, folder in folders.items():
        paths = conditions.sounds(folder, len(texts))
        heard, *opinions = (each(paths) for each in judges)
        found[name] = [
            {"text": t, "heard": h, "seconds": seconds_of(p), **score(t, h), **dict(zip(scorers, values, strict=True))}
            for t, h, p, *values in zip(texts, heard, paths, *opinions, strict=True)
        ]
    return found


def add_program_arguments(parser: argparse.ArgumentParser, arms: str) -> None:
    parser.add_argument("--voxgrain", metavar="PROGRAM", default="voxgrain", help="the program, with any arguments")
    parser.add_argument(
        "--bundle", type=Path, metavar="DIR", help="the voice to judge; without it, only --wavs and --teacher"
    )
    parser.add_argument(
        "--arms", default=arms, help="arms of the program, separated by commas; `default` is the one it takes itself"
    )
    parser.add_argument("--say", default="", metavar="ARGUMENTS", help='more for `say`, e.g. "--speaker rms"')
    parser.add_argument("--teacher", metavar="NAME", help="hibari:heart, or kokoro:VOICE")
    parser.add_argument(
        "--wavs", action="append", default=[], metavar="NAME=DIR", help="a folder of sounds, one a text by name order"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2, help="sounds made or judged at once")
    parser.add_argument(
        "--out", type=Path, default=Path("judge"), metavar="DIR", help="sounds, verdicts and the report; reused"
    )


def make_conditions(
    args: argparse.Namespace, texts: Sequence[str], out: Path, for_teacher: Sequence[str] | None = None
) -> dict[str, Path]:
    """Folders of sounds by condition: teacher, codec, arms, then --wavs.

    The teacher may get other texts of the same words."""
    folders: dict[str, Path] = {}
    rate = 16000
    if args.bundle is not None:
        from ..export import bundle

        rate = bundle.read(args.bundle)["audio"]["sample_rate_hz"]
    if args.teacher:
        folders[TEACHER] = out / args.teacher.replace(":", "-")
        conditions.speak_teacher(args.teacher, for_teacher or texts, folders[TEACHER], rate)
    if getattr(args, "encoder", None):
        if not (args.teacher and args.bundle):
            raise SystemExit(
                "--encoder needs --teacher, whose sounds it encodes, and --bundle, whose codec decodes them"
            )
        folders[CODEC] = out / CODEC
        conditions.through_codec(args.encoder, args.bundle, folders[TEACHER], len(texts), folders[CODEC])
    if args.bundle is not None:
        for arm in filter(None, args.arms.split(",")):
            folders[arm] = out / arm
            arguments = args.say if arm == "default" else f"--arm {arm} {args.say}"
            conditions.speak_program(
                args.voxgrain, args.bundle, arguments, texts, folders[arm], args.seed, args.workers
            )
    for item in args.wavs:
        name, equals, folder = item.partition("=")
        if not equals or name in folders:
            raise SystemExit(f"--wavs {item}: NAME=DIR is wanted, with a name that no other condition has")
        folders[name] = Path(folder)
    if not folders:
        raise SystemExit("nothing to judge: give --bundle, --teacher or --wavs")
    return folders


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--texts", type=Path, required=True, metavar="FILE", help="one utterance a line")
    parser.add_argument("--limit", type=int, metavar="N", help="judge the first N texts only")
    add_program_arguments(parser, "ar,pcg,transport")
    parser.add_argument(
        "--encoder", type=Path, metavar="FILE", help="codec encoder checkpoint: the teacher through the codec as well"
    )
    parser.add_argument(
        "--scores", default=",".join(mos.SCORERS), help="opinions to predict, separated by commas; may be empty"
    )
    parser.add_argument("--baselines", default=f"ar,{TEACHER}", help="conditions that differences are taken to")


def run(args: argparse.Namespace) -> None:
    scorers = [s for s in args.scores.split(",") if s]
    if unknown := set(scorers) - set(mos.SCORERS):
        raise SystemExit(f"--scores: no {', '.join(sorted(unknown))}; there are {', '.join(mos.SCORERS)}")
    texts = read_texts(args.texts, args.limit)
    args.out.mkdir(parents=True, exist_ok=True)
    folders = make_conditions(args, texts, args.out / "sounds")
    utterances = judge(texts, folders, args.out, scorers, args.workers)
    baselines = [b for b in args.baselines.split(",") if b]
    report = summarise(utterances, baselines)
    table = f"{len(texts)} texts of {args.texts.name}\n\n{markdown(report, baselines)}\n"
    (args.out / "judge.md").write_text(table)
    facts = {"texts": args.texts.name, "seed": args.seed, "conditions": report, "sentences": utterances}
    (args.out / "judge.json").write_text(json.dumps(facts, indent=1) + "\n")
    print(table)
    for name, items in utterances.items():
        for u in items:
            if u["word_errors"]:
                print(f"{name}: {u['text']}\n    {u['heard']}")
