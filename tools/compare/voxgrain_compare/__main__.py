"""Runs the comparison; `tools/compare/run` installs what it needs and calls it."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import numpy as np

from voxgrain_tools.export import bundle, export

from . import engines, formats, model, report

ROOT = Path(__file__).resolve().parents[3]
POSITIONS = 1024
# Relative L2 distance to the float reference: what quantizing activations to 8 bits may cost.
BOUND = 0.04
PEERS = ("llama.cpp", "onnxruntime")


def say(*words) -> None:
    print(f"[{time.strftime('%H:%M:%S')}]", *words, file=sys.stderr, flush=True)


class Case:
    """One set of weights in every engine's format."""

    def __init__(self, args, name: str, bits: int | None, folder: Path) -> None:
        self.args, self.name = args, name
        self.bundled = None
        if name == "target":
            facts = bundle.read(args.bundle)
            self.bundled = args.bundle / facts["target"]["file"]
            digest = hashlib.sha256(Path(f"{self.bundled}.data").read_bytes()).hexdigest()[:8]
            self.weights = model.FromFile(self.bundled, name, bits)
            own = model.FromFile(self.bundled, name).uniform_bits()
            if bits not in (None, own):
                self.bundled = None
            label = f"target-{digest}"
            bits = bits or self.weights.uniform_bits()
        else:
            self.weights = model.Synthetic(model.SHAPES[name], bits)
            label = name
        self.bits = bits or "own"
        self.label = f"{name}, int{bits}" if bits else f"{name}, mixed bits"
        self.files = {}
        for engine in ("voxgrain", *PEERS):
            say("export", self.label, engine)
            label_bits = f"{label}-{self.bits}"
            self.files[engine] = formats.export(self.weights, engine, folder, label_bits)

    def start(self, stack, threads: int) -> list[engines.Child]:
        """Every engine, and voxgrain once more with the bundle's own factorised head."""
        found = [engines.voxgrain(self.args.program, self.files["voxgrain"], threads, POSITIONS)]
        if self.bundled:
            name = "voxgrain, factorised head"
            found.append(engines.voxgrain(self.args.program, self.bundled, threads, POSITIONS, name))
        found += [engines.peer(n, self.files[n], threads, POSITIONS) for n in PEERS]
        return [stack.enter_context(c) for c in found]

    def read_bytes(self, engine: str) -> int:
        if engine == "voxgrain, factorised head":
            return self.weights.own_pass_bytes()
        return model.pass_bytes(self.weights, 4 if engine == "onnxruntime" else 2)


def agreement(case: Case) -> dict:
    """Logits of each engine against the float reference, in passes of several rows on a cache
    that was rolled back before; and how far a pass of several rows is from single ones."""
    rng = np.random.default_rng(5)
    limit = min(case.weights.shape.vocabulary, case.weights.shape.head_rows - 1)
    tokens = [int(t) for t in rng.integers(0, limit, 37)]
    columns = case.weights.shape.head_rows
    want = model.logits(case.weights, tokens)
    result = {}
    with contextlib.ExitStack() as stack:
        for child in case.start(stack, 2):
            rows = [child.step(tokens[:24])]
            child.step([3, 5, 8, 13, 21])
            child.ask("rollback", 24)
            for at, to in ((24, 25), (25, 27), (27, 32), (32, 37)):
                rows.append(child.step(tokens[at:to]))
            got = np.concatenate(rows)[:, :columns]
            child.ask("rollback", 32)
            single = np.concatenate([child.step([t])[:, :columns] for t in tokens[32:]])
            result[child.name] = {
                "relative_l2": model.relative(got[24:], want[24:]),
                "prompt_relative_l2": model.relative(got[:24], want[:24]),
                "same_best_token": float((got.argmax(1) == want.argmax(1)).mean()),
                "rows_against_single": model.relative(got[32:], single),
            }
    return result


def passes(case: Case, threads: int, args) -> dict:
    """Times of every engine; engines take turns at each size of pass."""
    with contextlib.ExitStack() as stack:
        children = case.start(stack, threads)
        memory = stack.enter_context(engines.bandwidth(args.program, Path(f"{case.files['voxgrain']}.data"), threads))
        times = {c.name: {m: [] for m in args.rows} for c in children}
        speeds = [memory.ask("read", 2)]
        for child in children:
            child.ask("fill", args.past)
        watch = engines.Watch([*children, memory])
        for repeat in range(args.repeats):
            for m in args.rows:
                for i in range(len(children)):
                    child = children[(i + repeat) % len(children)]
                    times[child.name][m] += child.ask("pass", m, args.burst)["us"]
                    # Whatever still spins comes to rest.
                    time.sleep(0.003)
            speeds.append(memory.ask("read", 1))
        busy = watch.shares()
        best = {k: max(s[k] for s in speeds) for k in speeds[0]}
        rows = []
        for child in children:
            sizes = {m: [float(np.quantile(t, q)) for q in (0.25, 0.5, 0.75)] for m, t in times[child.name].items()}
            rows.append(
                {
                    "engine": child.name,
                    "about": child.hello,
                    "read_bytes": case.read_bytes(child.name),
                    "quartiles_us": sizes,
                    "memory": child.ask("memory"),
                }
            )
        return {
            "weights": case.label,
            "threads": threads,
            "past": args.past,
            "bandwidth": best,
            "busy": busy,
            "engines": rows,
        }


def draft_file(args, folder: Path) -> Path | None:
    """The draft for llama.cpp: the bundle's, or a checkpoint where that reads more than tokens."""
    facts = bundle.read(args.bundle)
    try:
        path = args.bundle / facts["draft"]["file"]
        weights = model.FromFile(path, "draft")
    except (ValueError, KeyError, StopIteration, IndexError) as why:
        if not args.draft:
            say(f"no draft for llama.cpp ({why}); give one with --draft CHECKPOINT")
            return None
        path = folder / "draft-checkpoint"
        path.mkdir(parents=True, exist_ok=True)
        checkpoint = export.Checkpoint.open(args.draft)
        export.language_model("draft", checkpoint, path, export.Bits(8), 2048)
        path = path / "draft.onnx"
        weights = model.FromFile(path, "draft")
    digest = hashlib.sha256(Path(f"{path}.data").read_bytes()).hexdigest()[:8]
    return formats.export(weights, "llama.cpp", folder, f"draft-{digest}")


def spoken(args, case: Case, draft: Path | None, threads: int) -> dict:
    """Tokens a second of whole sentences. Blocks of sentences go to every engine in turn."""
    lines = (ROOT / "tools/data/harvard.txt").read_text().splitlines()
    lines = [line for line in lines if line.strip()][: args.utterances]
    facts = bundle.read(args.bundle)
    v, begin = facts["vocabulary"], bundle.speaker(facts, None)["begin"]
    known = v["characters"]

    def prompt(line):
        ids = [v["first_character"] + known.index(c) for c in line.lower() if c in known]
        return ",".join(map(str, [begin, *ids, v["start_of_speech"]]))

    sums: dict[str, dict] = {}

    def add(name, **items):
        row = sums.setdefault(name, {})
        for key, value in items.items():
            row[key] = row.get(key, 0) + (value or 0)

    with contextlib.ExitStack() as stack:

        def start(label, engine, **options):
            child = engines.peer(engine, case.files[engine], threads, 2048, label, **options)
            return stack.enter_context(child)

        peers = [start("llama.cpp", "llama.cpp"), start("onnxruntime", "onnxruntime")]
        if draft:
            for gamma in args.gammas:
                label = f"llama.cpp, draft of {gamma}"
                peers.append(start(label, "llama.cpp", draft=draft, gamma=gamma, p_min=args.p_min))
        for child in peers:
            child.ask("generate", 1, 8, prompt(lines[0]))
        watch = engines.Watch(peers)
        for at in range(0, len(lines), args.block):
            block = lines[at : at + args.block]
            with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
                file.write("\n".join(block) + "\n")
                file.flush()
                command = [args.program, "bench", "--json", "--bundle", args.bundle, "-f", file.name]
                command += ["-n", len(block), "--threads", threads, "--seed", at + 1]
                out = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, check=True)
            for arm in json.loads(out.stdout)["arms"]:
                seconds = arm["compute_seconds"]
                codec = (arm.get("share") or {}).get("codec") or 0
                add(
                    f"voxgrain {arm['arm']}",
                    tokens=arm["tokens"],
                    seconds=seconds * (1 - codec),
                    with_codec=seconds,
                    weighted=(arm.get("acceptance_rate") or 0) * arm["tokens"],
                )
            for child in peers:
                for i, line in enumerate(block):
                    made = child.ask("generate", at + i + 1, 1000, prompt(line))
                    proposed = made.get("proposed")
                    add(
                        child.name,
                        tokens=made["tokens"],
                        seconds=made["us"] / 1e6,
                        sampling=made.get("sampling_us", 0) / 1e6,
                        proposed=proposed,
                        accepted=made.get("accepted"),
                    )
        busy = watch.shares()
        for child in peers:
            add(child.name, peak=child.ask("memory")["peak"])
    for row in sums.values():
        row["tokens_per_second"] = row["tokens"] / row["seconds"]
        if "with_codec" in row:
            row["tokens_per_second_with_codec"] = row["tokens"] / row["with_codec"]
            row["acceptance"] = row.pop("weighted") / row["tokens"] or None
        elif row["proposed"]:
            row["acceptance"] = row["accepted"] / row["proposed"]
    return {"threads": threads, "utterances": len(lines), "busy": busy, "arms": sums}


def numbers(text: str) -> list[int]:
    return [int(t) for t in text.split(",")]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tools/compare/run", description=__doc__)
    parser.add_argument("--weights", default="target,250m,1b", help="of target, 250m, 1b, toy")
    parser.add_argument("--bits", type=numbers, default=[8, 4])
    parser.add_argument("--threads", type=numbers, default=[1, 2])
    parser.add_argument("--rows", type=numbers, default=[1, 2, 4, 5, 8])
    parser.add_argument("--past", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=15, help="rounds over all engines")
    parser.add_argument("--burst", type=int, default=3, help="passes an engine times at its turn")
    parser.add_argument("--utterances", type=int, default=20, help="sentences spoken; 0: none")
    parser.add_argument("--block", type=int, default=5, help="sentences an engine speaks at a turn")
    parser.add_argument("--gammas", type=numbers, default=[2, 4], help="llama.cpp's drafted tokens")
    parser.add_argument("--p-min", type=float, default=0.0, help="llama.cpp's --draft-p-min")
    parser.add_argument("--bundle", type=Path, default=ROOT / "models/voice")
    parser.add_argument(
        "--draft", type=Path, help="checkpoint of a draft for llama.cpp, if the bundle's reads features"
    )
    parser.add_argument("--cache", type=Path, default=ROOT / "target/compare", help="models go here")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/compare")
    parser.add_argument("--program", type=Path, required=True, help="the voxgrain program")
    parser.add_argument("--quick", action="store_true", help="few repeats, no 1b: for a try")
    parser.add_argument("--check-only", action="store_true", help="agreement alone")
    args = parser.parse_args()
    args.weights = args.weights.split(",")
    if args.quick:
        args.weights = [w for w in args.weights if w != "1b"]
        args.repeats, args.utterances, args.block = 3, 4, 2
    return args


def main() -> int:
    args = arguments()
    result = {
        "date": date.today().isoformat(),
        "machine": engines.machine(),
        "settings": {k: getattr(args, k) for k in ("past", "repeats", "burst", "utterances", "p_min")},
        "agreement": {},
        "passes": [],
        "speech": [],
    }
    load = result["machine"]["load_average"][0]
    if load > 0.5:
        say(
            f"the machine is busy (load {load:.1f}): times will be wrong, most of all with as many "
            "threads as cores, where llama.cpp waits by spinning"
        )
    args.cache.mkdir(parents=True, exist_ok=True)
    target = None
    failed = []
    for name in args.weights:
        for bits in args.bits:
            case = Case(args, name, bits, args.cache)
            if case.bundled:
                target = case
            if name != "1b":
                say("agreement", case.label)
                found = result["agreement"][case.label] = agreement(case)
                for engine, row in found.items():
                    say(f"  {engine}: {row['relative_l2']:.4f}, rows against single {row['rows_against_single']:.1e}")
                    if not max(row["relative_l2"], row["prompt_relative_l2"]) < BOUND:
                        failed.append(f"{case.label}, {engine}: {row['relative_l2']:.3f}")
            for threads in args.threads if not args.check_only else []:
                say("passes", case.label, f"{threads} threads")
                result["passes"].append(passes(case, threads, args))
    if "target" in args.weights and args.utterances and not args.check_only:
        if target is None:
            target = Case(args, "target", None, args.cache)
        draft = draft_file(args, args.cache)
        for threads in args.threads:
            say("speech", f"{threads} threads")
            result["speech"].append(spoken(args, target, draft, threads))
    if failed:
        say("these logits are too far from the reference, so nothing is reported:", *failed)
        return 1
    report.write(result, args.out)
    print((args.out / "README.md").read_text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
