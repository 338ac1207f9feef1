"""Intelligibility of the decoding arms against the synthesiser and the codec, by independent recognisers.

Everything is kept under --work and reused: sounds by condition, transcripts by the sound's hash.
A run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from .. import scoring
from ..audio import read_wav, seconds_of, write_wav
from ..export import bundle
from ..export.runtime import Voice
from . import whisper
from .cache import Verdicts
from .judge import score
from .progress import Progress

EXAMPLE = (
    "python -m voxgrain_tools evaluate --bundle models/voice --texts "
    "tools/data/heldout.txt --limit 500 --encoder /tmp/vx/codec_encoder.safetensors "
    "--voxgrain target/release/voxgrain --work /tmp/vx/evaluate"
)

RATE = 16000
CHUNK = 50
ARMS = ("ar", "sd", "tolerance", "pcg", "transport")
FAULTS = ("skip", "repeat", "missing_end", "capped")


def short_hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:8]


def read_texts(path: Path, characters: str, limit: int | None) -> list[str]:
    texts = [line.strip() for line in path.read_text().splitlines()]
    texts = [t for t in texts if t and set(t) <= set(characters)]
    return texts[:limit]


def flite_voice(facts: dict, speaker: str | None) -> str:
    """The synthesiser's voice that a speaker was trained on: speakers are named after it."""
    return bundle.speaker(facts, speaker)["name"] if facts.get("speakers") else "slt"


def flite_folder(sounds: Path, voice: str) -> Path:
    return sounds / ("flite" if voice == "slt" else f"flite-{voice}")


def tokens_folder(sounds: Path, voice: str, encoder: Path) -> Path:
    name = f"tokens-{short_hash(encoder)}"
    return sounds / (name if voice == "slt" else f"{name}-{voice}")


def speak_flite(flite: str, texts: list[str], folder: Path, voice: str = "slt") -> None:
    """The synthesiser itself, without the corpus's changes of pace and pitch."""
    folder.mkdir(parents=True, exist_ok=True)
    todo = [(i, t) for i, t in enumerate(texts) if not (folder / f"{i:05}.wav").exists()]

    def one(item):
        i, text = item
        part = folder / f"{i:05}.part"
        subprocess.run([flite, "-voice", voice, "-t", text, "-o", str(part)], check=True)
        part.rename(folder / f"{i:05}.wav")

    progress = Progress("flite", len(todo))
    with ThreadPoolExecutor(2) as pool:
        for done, _ in enumerate(pool.map(one, todo), start=1):
            progress(done)


def tokenise(encoder: Path, sounds: Path, count: int, folder: Path) -> list[np.ndarray]:
    """Codec tokens of the first sounds, kept in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    tokens: list[np.ndarray] = []
    encode = None
    progress = Progress("codec encoder", count)
    for i in range(count):
        path = folder / f"{i:05}.npy"
        if not path.exists():
            if encode is None:
                from ..train.encoder import Encoder

                encode = Encoder(encoder)
            np.save(path, encode(read_wav(sounds / f"{i:05}.wav", RATE)[0]).astype(np.uint16))
        tokens.append(np.load(path).astype(np.int64))
        progress(i + 1)
    return tokens


def resynthesise(voice: Path, tokens: list[np.ndarray], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    decoder = None
    progress = Progress("codec decoder", len(tokens))
    for i, item in enumerate(tokens):
        path = folder / f"{i:05}.wav"
        if not path.exists():
            decoder = decoder or Voice(voice).codec()
            write_wav(path, decoder.decode(item))
        progress(i + 1)


def speak_arm(command: list[str], texts: list[str], folder: Path, seed: int) -> list[dict]:
    """Batches through `voxgrain say`; returns its JSON lines. A finished batch is not run again."""
    folder.mkdir(parents=True, exist_ok=True)
    facts: list[dict] = []
    # Files named in the command count by content, such as another group index at the same path;
    # the program does not, so that a rebuild keeps the sounds: remove them to hear the new one.
    files = [short_hash(Path(word)) for word in command[1:] if Path(word).is_file()]
    progress = Progress(folder.name, len(texts))
    for start in range(0, len(texts), CHUNK):
        part = texts[start : start + CHUNK]
        words = [*command, *files, str(seed), *part]
        key = hashlib.sha256("\n".join(words).encode()).hexdigest()[:16]
        log = folder / f"{start:05}-{key}.jsonl"
        if not log.exists():
            batch, out = folder / f"{start:05}.txt", folder / f"{start:05}"
            batch.write_text("\n".join(part) + "\n")
            out.mkdir(exist_ok=True)
            done = subprocess.run(
                [*command, "--batch", str(batch), "--out-dir", str(out)] + ["--seed", str(seed + start), "--json"],
                stdout=subprocess.PIPE,
                text=True,
            )
            # 8: all was spoken, but some of it was cut, which the line's facts tell.
            if done.returncode not in (0, 8):
                raise subprocess.CalledProcessError(done.returncode, done.args)
            lines = [x for x in done.stdout.splitlines() if x.startswith("{")]
            if len(lines) != len(part):
                raise SystemExit(f"{folder.name}: {len(lines)} JSON lines for {len(part)} texts")
            for i in range(len(part)):
                (out / f"{i:05}.wav").rename(folder / f"{start + i:05}.wav")
            log.write_text("\n".join(lines) + "\n")
        facts += [json.loads(x) for x in log.read_text().splitlines()]
        progress(len(facts))
    return facts


def recognisers(names: list[str], work: Path) -> dict[str, Verdicts]:
    found = {}
    for name in names:
        if name == "whisper":
            found[name] = whisper.verdicts(work)
        elif name == "pocketsphinx":
            from .recognise_pocketsphinx import transcribe_each

            found[name] = Verdicts(name, work, lambda paths: transcribe_each(read_wav(p, RATE)[0] for p in paths))
        else:
            raise SystemExit(f"unknown recogniser {name!r}: whisper or pocketsphinx")
    return found


def codec_quality(clean: Path, coded: Path, count: int) -> dict:
    """Mean STOI and wide-band PESQ of the resynthesis; what is not installed is left out."""
    result: dict = {}
    pairs = []
    for i in range(count):
        a, b = (read_wav(side / f"{i:05}.wav", RATE)[0] for side in (clean, coded))
        n = min(len(a), len(b))
        pairs.append((a[:n], b[:n]))
    try:
        from pystoi import stoi
    except ImportError:
        print("pystoi is not installed: no STOI", file=sys.stderr)
    else:
        result["stoi"] = float(np.mean([stoi(a, b, RATE) for a, b in pairs]))
    try:
        from pesq import PesqError, pesq
    except ImportError:
        print("pesq is not installed: no PESQ", file=sys.stderr)
    else:
        values = [pesq(RATE, a, b, "wb", on_error=PesqError.RETURN_VALUES) for a, b in pairs]
        result["pesq_wb"] = float(np.mean([v for v in values if v > 0]))
    result["utterances"] = len(pairs)
    return result


def summarise(
    texts: list[str],
    heard: dict[str, dict[str, list[str]]],
    seconds: dict[str, list[float]],
    facts: dict[str, list[dict]],
    baseline: str = "ar",
) -> dict:
    """Rates and intervals of every condition; `heard[recogniser][condition]` are transcripts."""
    report: dict = {"utterances": len(texts), "conditions": {}}
    scores = {
        name: {c: [score(t, h) for t, h in zip(texts, hs, strict=True)] for c, hs in by_condition.items()}
        for name, by_condition in heard.items()
    }

    def columns(name, condition, kind):
        items = scores[name][condition]
        total = "words" if kind == "word_errors" else "characters"
        return [s[kind] for s in items], [s[total] for s in items]

    for condition in seconds:
        entry: dict = {"recognisers": {}}
        logs = facts.get(condition, [])
        capped = [bool(f.get("cut", f.get("capped"))) for f in logs] or [False] * len(texts)
        for name in scores:
            rates = {}
            for short, kind in (("wer", "word_errors"), ("cer", "character_errors")):
                rates[short] = scoring.bootstrap(*columns(name, condition, kind))
                if condition in facts and condition != baseline and baseline in scores[name]:
                    rates[f"{short}_minus_{baseline}"] = scoring.bootstrap(
                        *columns(name, condition, kind), base=columns(name, baseline, kind)
                    )
            items = scores[name][condition]
            for fault in ("skip", "repeat"):
                rates[fault] = sum(s[fault] for s in items)
            rates["missing_end"] = sum(s["missing_end"] or c for s, c in zip(items, capped, strict=True))
            entry["recognisers"][name] = rates
        entry["capped"] = sum(capped)
        own, base = seconds[condition], seconds.get("flite")
        entry["audio_seconds"] = float(np.sum(own))
        if base is not None:
            entry["duration_ratio"] = float(np.sum(own) / np.sum(base))
            entry["duration_ratio_per_utterance_sd"] = float(np.std(np.divide(own, base)))
        if logs:

            def total(key):
                return sum(f.get(key) or 0 for f in logs)

            entry["rtf"] = total("compute_seconds") / max(total("audio_seconds"), 1e-9)
            if total("proposed"):
                entry["acceptance_rate"] = total("accepted") / total("proposed")
            if total("rounds"):
                entry["tokens_per_round"] = total("tokens") / total("rounds")
        report["conditions"][condition] = entry
    return report


def markdown(report: dict, baseline: str = "ar") -> str:
    def interval(v):
        return f"{100 * v[0]:.1f} [{100 * v[1]:.1f}, {100 * v[2]:.1f}]"

    lines = []
    names = sorted({n for c in report["conditions"].values() for n in c["recognisers"]})
    for name in names:
        lines += [
            f"{name}, {report['utterances']} utterances; % with 95 % intervals",
            "",
            f"| condition | WER | CER | WER - {baseline} | CER - {baseline} | skips "
            "| repeats | missing ends | duration / flite |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
        for condition, entry in report["conditions"].items():
            r = entry["recognisers"][name]
            differences = [interval(r[k]) if k in r else "" for k in (f"wer_minus_{baseline}", f"cer_minus_{baseline}")]
            ratio = entry.get("duration_ratio")
            cells = [condition, interval(r["wer"]), interval(r["cer"]), *differences]
            cells += [str(r[k]) for k in ("skip", "repeat", "missing_end")]
            cells.append(f"{ratio:.3f}" if ratio is not None else "")
            lines.append("| " + " | ".join(cells) + " |")
        lines.append("")
    spoken = {c: e for c, e in report["conditions"].items() if "rtf" in e}
    if spoken:
        lines += ["| arm | rtf | tokens a round | acceptance | length cap |", "|---|---|---|---|---|"]
        for condition, e in spoken.items():
            rounds, rate = e.get("tokens_per_round"), e.get("acceptance_rate")
            cells = [condition, f"{e['rtf']:.3f}"]
            cells.append(f"{rounds:.2f}" if rounds else "")
            cells.append(f"{rate:.3f}" if rate is not None else "")
            cells.append(str(e["capped"]))
            lines.append("| " + " | ".join(cells) + " |")
        lines.append("")
    if report.get("codec"):
        items = {k: v for k, v in report["codec"].items() if k != "utterances"}
        shown = ", ".join(f"{k} {v:.3f}" for k, v in items.items())
        lines.append(f"Codec resynthesis, {report['codec']['utterances']} utterances: {shown}")
    return "\n".join(lines)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--texts", type=Path, required=True, help="one utterance a line")
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder of sounds and transcripts")
    parser.add_argument(
        "--speaker",
        metavar="NAME",
        help="who of the bundle speaks (default: its first); flite's reference has the voice of that name",
    )
    parser.add_argument("--voxgrain", default="voxgrain", help="the program, with any arguments")
    parser.add_argument("--flite", default="flite")
    parser.add_argument("--encoder", type=Path, help="codec encoder checkpoint")
    parser.add_argument("--recognisers", default="whisper", help="of whisper and pocketsphinx")
    parser.add_argument("--conditions", default="flite,codec," + ",".join(ARMS))
    parser.add_argument(
        "--arm",
        action="append",
        default=[],
        metavar="NAME=ARGUMENTS",
        help='another condition, e.g. "pcg-g8=--arm pcg --gamma 8"',
    )
    parser.add_argument("--limit", type=int)
    parser.add_argument(
        "--limit-of",
        action="append",
        default=[],
        metavar="RECOGNISER=COUNT",
        help="let a slow recogniser hear only the first COUNT utterances",
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quality", type=int, default=100, help="utterances for STOI and PESQ")
    parser.add_argument("--report", type=Path, help="JSON report (default: WORK/report.json)")


def run(args: argparse.Namespace) -> None:
    args.work.mkdir(parents=True, exist_ok=True)
    voice = Voice(args.bundle)
    texts = read_texts(args.texts, voice.facts["vocabulary"]["characters"], args.limit)
    limits = {k: int(v) for k, v in (x.split("=") for x in args.limit_of)}
    # Sounds are numbered by their line in the file, and depend on the weights that made them.
    sounds = args.work / f"sounds-{short_hash(args.texts)}"
    spoken = sounds / f"bundle-{short_hash(args.bundle / 'bundle.toml')}"
    if args.speaker:
        spoken = spoken / f"speaker-{bundle.speaker(voice.facts, args.speaker)['name']}"
    reference = flite_voice(voice.facts, args.speaker)
    folders = {"flite": flite_folder(sounds, reference)}

    arms = {name: f"--arm {name}" for name in ARMS}
    arms.update(item.split("=", 1) for item in args.arm)
    conditions = args.conditions.split(",") + [a.split("=", 1)[0] for a in args.arm]
    facts: dict[str, list[dict]] = {}
    if {"flite", "codec"} & set(conditions):
        speak_flite(args.flite, texts, folders["flite"], reference)
    quality = None
    if "codec" in conditions:
        if args.encoder is None:
            raise SystemExit("the codec condition needs --encoder (or leave it out of --conditions)")
        coded = tokens_folder(sounds, reference, args.encoder)
        tokens = tokenise(args.encoder, folders["flite"], len(texts), coded)
        folders["codec"] = spoken / f"codec-{coded.name}"
        resynthesise(args.bundle, tokens, folders["codec"])
        if args.quality:
            count = min(args.quality, len(texts))
            quality = codec_quality(folders["flite"], folders["codec"], count)
    for condition in conditions:
        if condition in arms:
            program = shlex.split(args.voxgrain)
            command = [*program, "say", "--bundle", str(args.bundle)]
            command += ["--voice", args.speaker] if args.speaker else []
            command += shlex.split(arms[condition])
            folders[condition] = spoken / condition
            facts[condition] = speak_arm(command, texts, folders[condition], args.seed)
        elif condition not in ("flite", "codec"):
            raise SystemExit(f"unknown condition {condition!r}")

    paths = {c: [folders[c] / f"{i:05}.wav" for i in range(len(texts))] for c in conditions}
    seconds = {c: [seconds_of(p) for p in ps] for c, ps in paths.items()}
    reports = []
    for ear, recogniser in recognisers(args.recognisers.split(","), args.work).items():
        n = min(limits.get(ear, len(texts)), len(texts))
        heard = {ear: {c: recogniser(ps[:n]) for c, ps in paths.items()}}
        reports.append(
            summarise(texts[:n], heard, {c: s[:n] for c, s in seconds.items()}, {c: f[:n] for c, f in facts.items()})
        )
    speaker = bundle.speaker(voice.facts, args.speaker)["name"]
    result = {"texts": args.texts.name, "seed": args.seed, "speaker": speaker, "codec": quality, "reports": reports}
    path = args.report or args.work / "report.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    for report in reports:
        print(markdown(report))
    if quality:
        print(markdown({"conditions": {}, "codec": quality, "utterances": 0}))
    print(f"\nwritten: {path}", file=sys.stderr)
