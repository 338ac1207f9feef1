"""Every experiment on groups: runs `voxgrain eval`, hears the sounds, writes docs/experiments.

Results of every step are kept under --work by bundle and command, so a run that was stopped goes
on, and `--only` makes single tables anew. Tables go between the marks of OUT/README.md, plots
beside it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from .. import scoring
from ..common import DATA
from ..export import bundle
from . import conditions, whisper
from .judge import read_texts, score

EXAMPLE = (
    "python -m voxgrain_tools experiments --bundle models/voice --voxgrain target/release/voxgrain "
    "--work /tmp/vx/experiments --out docs/experiments"
)

STEPS = (
    "groups",
    "acceptance",
    "bounds",
    "depth",
    "swap",
    "shared",
    "sweep",
    "arms",
    "grid",
    "live",
    "drafts",
    "codebooks",
)
# Steps that look at every family that the program knows.
WHOLE = {"groups", "acceptance", "bounds", "swap"}

ARMS = ("ar", "sd", "tolerance", "pcg", "transport")
# Families whose bounds, kernels and speech are measured; the first is the default.
MAIN = ("fsq:1", "fsq:2", "fsq:3", "cos:0.7", "top:32", "head-top:32", "sound-top:32", "random:16")
GRID = ("fsq:1", "fsq:2", "cos:0.7", "sound-top:32")
CHAINS = ("fsq:1", "fsq:2", "cos:0.7")
# Families that a voice of another codebook is measured with.
BOOK = (
    "fsq:1",
    "fsq:2",
    "cos:0.7",
    "top:8",
    "top:32",
    "head-top:8",
    "head-top:32",
    "sound-top:8",
    "sound-top:32",
    "random:16",
)
SETTINGS = ((1.0, 0, 1.0), (0.8, 0, 1.0), (0.6, 0, 1.0), (1.0, 50, 1.0), (1.0, 0, 0.9), (0.8, 50, 0.95))


def stem(family: str) -> str:
    """The name of a family's file, as `voxgrain eval groups` writes it."""
    return family.replace(":", "-").replace("@", "-p")


def kind_of(name: str) -> str:
    """What a family compares: the name without its numbers."""
    parts = [p for p in name.split("-") if not p.lstrip("p").replace(".", "").isdigit()]
    return "-".join(parts)


KINDS = {
    "cos": "input embedding, cosine",
    "top": "input embedding, nearest K",
    "l2-top": "input embedding, nearest K by Euclidean distance",
    "head-cos": "output head, cosine",
    "head-top": "output head, nearest K",
    "fsq": "codec digits, steps",
    "sound-top": "decoded sound, nearest K",
    "random": "random",
}


class Runner:
    """Runs the program and keeps what it prints."""

    def __init__(self, args: argparse.Namespace, bundle: Path) -> None:
        self.args, self.bundle = args, bundle
        self.home = args.work / f"bundle-{conditions.digest(bundle / 'bundle.toml')[:8]}"
        self.indexes = self.home / "indexes"
        if args.speaker:
            self.home /= f"speaker-{args.speaker}"
        self.home.mkdir(parents=True, exist_ok=True)
        self.commands: dict[str, str] = {}

    def files(self, families: Iterable[str]) -> list[str]:
        return [str(self.indexes / f"{stem(f)}.asg") for f in families]

    def _result(self, step: str, words: list[str]) -> Path:
        key = hashlib.sha256("\n".join(words).encode()).hexdigest()[:12]
        return self.home / f"{step}-{key}.json"

    def has(self, step: str, *words: str) -> bool:
        return self._result(step, [str(w) for w in words]).exists()

    def eval(self, step: str, *words: str) -> dict:
        """`voxgrain eval WORDS --json`, once."""
        words = [str(w) for w in words]
        program = shlex.split(self.args.voxgrain)
        command = [*program, "eval", *words, "--bundle", str(self.bundle), "--json"]
        if self.args.speaker:
            command += ["--speaker", self.args.speaker]
        if self.args.threads:
            command += ["--threads", str(self.args.threads)]
        self.commands[step] = self._shown(words)
        path = self._result(step, words)
        if not path.exists():
            print(f"\n{step}: {self.commands[step]}", file=sys.stderr, flush=True)
            began = time.monotonic()
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            value = json.loads(done.stdout)
            value["wall_seconds"] = time.monotonic() - began
            part = path.with_suffix(".part")
            part.write_text(json.dumps(value))
            part.rename(path)
        return json.loads(path.read_text())

    def _shown(self, words: list[str]) -> str:
        """The command as a person would type it, paths shortened and indexes folded."""
        folder = str(self.indexes) + "/"
        inside = [w for w in words if w.startswith(folder)]
        rest, folded = [], False
        for word in words:
            if word in inside:
                if len(inside) > 8:
                    rest += [] if folded else ["idx/*.asg"]
                    folded = True
                else:
                    rest.append("idx/" + Path(word).name)
            elif word == str(self.args.texts):
                rest.append(f"tools/data/{self.args.texts.name}")
            else:
                rest.append(word.replace(str(self.home) + "/", "").replace("indexes", "idx"))
        return "voxgrain eval " + shlex.join(rest).replace("'idx/*.asg'", "idx/*.asg")

    def sentences(self, count: int) -> list[str]:
        return ["--file", str(self.args.texts), "-n", str(max(2, round(count * self.args.scale)))]


class Ears:
    """Character errors of folders of sounds, against the texts."""

    def __init__(self, args: argparse.Namespace, texts: list[str]) -> None:
        self.texts = texts
        self.recogniser = whisper.verdicts(args.work)

    def scores(self, folder: Path, count: int) -> list[dict]:
        """Errors and faults of each sound."""
        heard = self.recogniser([folder / f"{i:05}.wav" for i in range(count)])
        return [score(t, h) for t, h in zip(self.texts[:count], heard, strict=True)]

    def compare(self, folders: dict[str, Path], base: str, count: int, faults: bool = False) -> dict[str, dict]:
        """Error rates of each folder, their paired differences to the base's and, with `faults`, faults."""

        def columns(scores, errors, totals):
            return [s[errors] for s in scores], [s[totals] for s in scores]

        kinds = {"cer": ("character_errors", "characters"), "wer": ("word_errors", "words")}
        plain, out = self.scores(folders[base], count), {}
        for name, folder in folders.items():
            own = plain if name == base else self.scores(folder, count)
            out[name] = {f: sum(s[f] for s in own) for f in ("skip", "repeat", "missing_end") if faults}
            for kind, keys in kinds.items():
                out[name][kind] = scoring.bootstrap(*columns(own, *keys))
                if name != base:
                    out[name][f"{kind}_minus"] = scoring.bootstrap(*columns(own, *keys), base=columns(plain, *keys))
        return out


def spoken(run: Runner, ears: Ears, step: str, families: Iterable[str], arms: Any, count: int, *more: str) -> dict:
    """Speech of every arm and family, with what the recogniser hears."""
    out = run.home / step
    words = ["speech", *run.files(families), *run.sentences(count), *more, "--out", out]
    for arm in arms:
        words += ["--arm", arm]
    result = run.eval(step, *words)
    folders = {lane["lane"]: out / lane["lane"] for lane in result["lanes"]}
    heard = ears.compare(folders, "ar", result["sentences"], faults=True)
    for lane in result["lanes"]:
        lane |= heard[lane["lane"]]
    return result


def swapped(run: Runner, ears: Ears, step: str, families: Iterable[str], count: int, *more: str) -> dict:
    """The target's speech with every token replaced within its group, with what the recogniser hears."""
    out = run.home / step
    result = run.eval(step, "swap", *run.files(families), *run.sentences(count), *more, "--out", out)
    folders = {name: out / name for name in ("unswapped", *(f["name"] for f in result["families"]))}
    heard = ears.compare(folders, "unswapped", result["sentences"])
    result["unswapped"] = heard["unswapped"]
    for family in result["families"]:
        family |= heard[family["name"]]
    return result


def needed(steps: Any, final: Any) -> list[str]:
    """The families that the steps use; none named stands for all that the program knows."""
    if WHOLE & set(steps):
        return []
    uses = {
        "depth": CHAINS,
        "shared": MAIN,
        "sweep": MAIN,
        "arms": final,
        "grid": GRID,
        "live": CHAINS,
        "drafts": CHAINS,
        "codebooks": ("fsq:1",),
    }
    return list(dict.fromkeys(f for step in steps for f in uses[step]))


def measure(args: argparse.Namespace, run: Runner, ears: Ears, steps: Any) -> dict:
    """The results of the steps, by name."""
    found: dict[str, dict] = {}
    run.indexes.mkdir(exist_ok=True)
    # Where all families are built already, steps that need some of them build none anew.
    whole = ("groups", "groups", "--out", run.indexes)
    wanted = [] if run.has(*whole) else needed(steps, args.final)
    found["groups"] = run.eval(*whole[:2], *wanted, *whole[2:])
    built = found["groups"]["families"]
    plain = [f["name"] for f in built if f["power"] is None]
    weighted = [f["name"] for f in built if f["power"] is not None]
    every = ("--every", 10)
    if "acceptance" in steps:
        found["acceptance"] = run.eval(
            "acceptance", "acceptance", *run.files([*plain, *weighted]), *run.sentences(60), *every
        )
    if "bounds" in steps:
        found["bounds"] = run.eval(
            "bounds", "acceptance", *run.files([*MAIN, *weighted]), *run.sentences(40), *every, "--bounds", 5
        )
    if "depth" in steps:
        found["depth"] = run.eval("depth", "acceptance", *run.files(CHAINS), *run.sentences(40), "--depth", 6)
    for name, families, more in (("swap", plain, ()), ("shared", MAIN[:-1], ("--shared",))):
        if name in steps:
            found[name] = swapped(run, ears, name, families, 100, *more)
    if "sweep" in steps:
        found["sweep"] = spoken(run, ears, "sweep", MAIN, ARMS, 100)
    if "arms" in steps:
        found["arms"] = spoken(run, ears, "arms", args.final, ARMS, args.arms_sentences)
    if "grid" in steps:
        rows, policy = [], []
        for temperature, top_k, top_p in SETTINGS:
            law = ["--temperature", temperature, "--top-k", top_k, "--top-p", top_p]
            name = f"grid-{temperature}-{top_k}-{top_p}"
            got = run.eval(name, "acceptance", *run.files(GRID), *run.sentences(20), *law, "--bounds", 5)
            rows += got["settings"]
            policy.append(
                run.eval(
                    f"{name}-speech",
                    "speech",
                    *run.files(GRID[:2]),
                    *run.sentences(30),
                    *law,
                    *(w for a in ARMS for w in ("--arm", a)),
                )
            )
        found["grid"] = {"settings": rows, "policy": policy}
    if "live" in steps:
        base = ["live", *run.sentences(10)]
        cos, fsq = run.files(["cos:0.7", "fsq:2"])
        cuts = ["--top-k", "20,50,200"]
        found["live"] = {
            "cosine": run.eval("live", *base, "--theta", 0.7, "--index", cos, *cuts),
            "nucleus": run.eval("live-top-p", *base, "--theta", 0.7, "--index", cos, "--top-p", 0.9),
            "mass": run.eval("live-mass", *base, "--theta", 0.7, "--index", cos, "--mass", "0.8,0.95"),
            "digits": run.eval("live-fsq", *base, "--fsq", 2, "--index", fsq, *cuts),
        }
    if "drafts" in steps and args.draft:
        found["drafts"] = {}
        for item in args.draft:
            name, folder = item.split("=", 1)
            other = Runner(args, Path(folder))
            other.indexes = run.indexes
            accepted = other.eval(f"draft-{name}", "acceptance", *run.files(CHAINS), *run.sentences(60), "--depth", 4)
            speech = spoken(other, ears, f"draft-{name}-speech", CHAINS[:2], ARMS, 100)
            found["drafts"][name] = {"acceptance": accepted, "speech": speech}
            run.commands["drafts"] = other.commands[f"draft-{name}"]
    if "codebooks" in steps and args.codebook:
        found["codebooks"] = {}
        for item in args.codebook:
            name, folder = item.split("=", 1)
            found["codebooks"][name] = codebook(Runner(args, Path(folder)), ears)
    return found


def codebook(run: Runner, ears: Ears) -> dict:
    """A voice of another codebook: its own groups, what they accept, and the damage of swapping."""
    run.indexes.mkdir(exist_ok=True)
    built = run.eval("groups", "groups", *BOOK, "--out", run.indexes)
    accepted = run.eval("acceptance", "acceptance", *run.files(BOOK), *run.sentences(40), "--every", 10, "--bounds", 5)
    swap = swapped(run, ears, "swap", BOOK, 60)
    speech = spoken(run, ears, "speech", BOOK[:2], ARMS, 100)
    codes = bundle.read(run.bundle)["vocabulary"]["speech"]
    return {"codes": codes, "groups": built, "acceptance": accepted, "swap": swap, "speech": speech}


def number(v: float | None, digits: int = 3) -> str:
    return "" if v is None else f"{v:.{digits}f}"


def interval(v: Sequence[float] | None, digits: int = 3, scale: float = 1.0) -> str:
    if v is None:
        return ""
    return f"{scale * v[0]:.{digits}f} [{scale * v[1]:.{digits}f}, {scale * v[2]:.{digits}f}]"


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(r) + " |" for r in rows])


def first(result: dict) -> dict:
    """The only setting's rows at the target's true states."""
    return result["settings"][0]["depths"][0]


def acceptance_table(result: dict) -> str:
    rows = first(result)
    lines = [
        [
            f["name"],
            number(f["mean_members"], 1),
            str(f["max_members"]),
            number(f["bytes"] / 1e6, 2),
            interval(f["groups"]),
            interval(f["groups_minus_token"]),
            interval(f.get("groups_shift")),
            interval(f.get("transport")),
            number(f["transport"][0] - rows["token"][0]),
        ]
        for f in rows["families"]
        if f["power"] is None
    ]
    said = (
        f"{rows['positions']} positions of {result['sentences']} sentences; by token "
        f"{interval(rows['token'])}, with tolerance 0.4 {interval(rows['tolerance'])} at a shift of "
        f"{number(rows['tolerance_shift'][0])}."
    )
    head = [
        "groups",
        "members",
        "most",
        "index, MB",
        "pcg",
        "pcg - by token",
        "shift of pcg",
        "transport",
        "shift of transport",
    ]
    return said + "\n\n" + table(head, lines)


def bounds_table(result: dict) -> str:
    def pair(f, name):
        return f"{f[name + '_low'][0]:.3f} .. {f[name + '_high'][0]:.3f}"

    rows = first(result)["families"]
    lines = [
        [
            f["name"],
            *(number(f[k][0]) for k in ("bound_token", "equal", "common", "step", "climbed")),
            pair(f, "shared"),
            interval(f.get("transport")),
            pair(f, "near"),
        ]
        for f in rows
        if f["power"] is None and f.get("equal")
    ]
    head = [
        "groups",
        "by token",
        "equal split",
        "common",
        "one step",
        "climbed",
        "most, sharing a group",
        "transport (all positions)",
        "most, near",
    ]
    powers = [
        [f["name"], interval(f["groups"])] for f in rows if f["power"] is not None or f["name"] in ("fsq-2", "cos-0.7")
    ]
    said = f"{rows[0]['bound_positions']} positions."
    return (
        said + "\n\n" + table(head, lines) + "\n\nSimilarity weights (name-pP: power P), "
        f"{first(result)['positions']} positions:\n\n" + table(["groups", "pcg"], powers)
    )


def depth_table(result: dict) -> str:
    depths = result["settings"][0]["depths"]
    names = [f["name"] for f in depths[0]["families"]]
    rows = []
    for d in depths:
        rows.append([str(d["depth"]), str(d["positions"]), interval(d["token"])])
        for f in d["families"]:
            rows[-1] += [number(f["groups"][0]), number(f.get("transport", [None])[0])]
    head = ["draft of the round", "positions", "by token"]
    for n in names:
        head += [f"pcg {n}", f"transport {n}"]
    return table(head, rows)


def paid(gained: dict, near: dict, shared: dict, token: float) -> dict[str, float]:
    """CER points that a rule's shift costs if moved tokens do the damage of swapped ones: near tokens
    for transport, tokens that share a group for pcg."""
    return {
        "pcg": 100 * gained["groups_shift"][0] * shared["cer_minus"][0],
        "transport": 100 * (gained["transport"][0] - token) * near["cer_minus"][0],
    }


def frontier_table(swap: dict, shared: dict, acceptance: dict) -> str:
    token = first(acceptance)["token"][0]
    gained = {f["name"]: f for f in first(acceptance)["families"]}
    twice = {f["name"].removesuffix("-shared"): f for f in shared["families"]}
    rows = []
    for f in swap["families"]:
        g, t = gained[f["name"]], twice.get(f["name"])
        rows.append(
            [
                f["name"],
                number(f["mean_members"], 1),
                number(g["groups"][0]),
                number(g.get("transport", [None])[0]),
                interval(f["mel_db"], 2),
                interval(f["cer_minus"], 1, 100),
                interval(t["mel_db"], 2) if t else "",
                interval(t["cer_minus"], 1, 100) if t else "",
                number(paid(g, f, t, token)["pcg"], 2) if t else "",
                number(paid(g, f, t, token)["transport"], 2) if t else "",
            ]
        )
    head = [
        "groups",
        "members",
        "pcg",
        "transport",
        "mel, dB",
        "damage in CER, points",
        "mel, dB, sharing a group",
        "damage, sharing a group",
        "shift x damage, pcg",
        "shift x damage, transport",
    ]
    said = (
        f"{swap['sentences']} sentences; character errors of the unswapped speech "
        f"{interval(swap['unswapped']['cer'], 1, 100)} %."
    )
    return said + "\n\n" + table(head, rows)


def speech_table(result: dict) -> str:
    rows = [
        [
            x["lane"],
            interval(x["acceptance_rate"]),
            number(x["drafted_per_round"][0], 2),
            interval(x["tokens_per_round"], 2),
            interval(x["speed_up"], 2),
            interval(x["cer"], 1, 100),
            interval(x.get("cer_minus"), 1, 100),
            interval(x.get("wer_minus"), 1, 100),
            str(x["skip"]),
            str(x["repeat"]),
            str(x["missing_end"]),
            str(x["cut"]),
        ]
        for x in result["lanes"]
    ]
    head = [
        "arm and groups",
        "accepted",
        "drafted a round",
        "tokens a round",
        "speed-up over ar",
        "CER, %",
        "CER - ar, points",
        "WER - ar, points",
        "skips",
        "repeats",
        "missing ends",
        "cut",
    ]
    said = f"{result['sentences']} sentences, {result['threads']} threads, {result['kernel']}, gamma {result['gamma']}."
    return said + "\n\n" + table(head, rows)


def grid_table(result: dict) -> str:
    rows = []
    for s in result["settings"]:
        depth = s["depths"][0]
        for i, f in enumerate(depth["families"]):
            law = f"{s['temperature']:g}, {s['top_k']}, {s['top_p']:g}" if i == 0 else ""
            token = number(depth["token"][0]) if i == 0 else ""
            rows.append(
                [
                    law,
                    token,
                    f["name"],
                    number(f["groups"][0]),
                    number(f.get("transport", [None])[0]),
                    number(f["climbed"][0]),
                    f"{f['near_low'][0]:.3f} .. {f['near_high'][0]:.3f}",
                ]
            )
    head = ["T, top-k, top-p", "by token", "groups", "pcg", "transport", "climbed kernel", "most, near"]
    lanes = [x["lane"] for x in result["policy"][0]["lanes"]]
    spoken_rows = []
    for policy in result["policy"]:
        law = policy["sampling"]
        spoken_rows.append(
            [f"{law['temperature']:.2g}, {law['top_k']}, {law['top_p']:.2g}"]
            + [number(x["tokens_per_round"][0], 2) for x in policy["lanes"]]
        )
    return table(head, rows) + "\n\nTokens a round on policy:\n\n" + table(["T, top-k, top-p", *lanes], spoken_rows)


def live_table(result: dict) -> str:
    rows = []
    for run in result.values():
        for r in run["rows"]:
            s, near = r["sampling"], f"cos {run['theta']:.2g}" if run["theta"] else f"fsq {run['fsq']}"

            def us(v):
                return f"{v['p50']:.0f} / {v['p95']:.0f}" if v else ""

            rows.append(
                [
                    near,
                    f"{s['temperature']:.2g}, {s['top_k']}, {s['top_p']:.2g}",
                    f"{r['mass']:g}",
                    us(r["support"]),
                    number(r["token"][0]),
                    number(r["live"][0]),
                    number(r["live_shift"][0]),
                    number(r["index"][0]) if r["index"] else "",
                    number(r["index_shift"][0]) if r["index"] else "",
                    us(r["live_us"]),
                    us(r["index_us"]),
                    number(r["live_bytes"] / 1e6, 2),
                    number(r["index_bytes"] / 1e6, 2) if r["index_bytes"] else "",
                ]
            )
    head = [
        "near",
        "T, top-k, top-p",
        "mass",
        "support, p50 / p95",
        "by token",
        "on the fly",
        "shift",
        "index",
        "shift",
        "µs on the fly, p50 / p95",
        "µs index",
        "MB on the fly",
        "MB index",
    ]
    skipped = sum(r["skipped"] for run in result.values() for r in run["rows"])
    said = f"{skipped} positions with more than 8,192 such tokens are left out.\n\n" if skipped else ""
    return said + table(head, rows)


def drafts_table(result: dict) -> str:
    rows, lanes = [], []
    for name, r in result.items():
        for d in r["acceptance"]["settings"][0]["depths"]:
            if d["depth"] not in (1, 4):
                continue
            row = [name, str(d["depth"]), interval(d["token"])]
            for f in d["families"]:
                row += [
                    number(f["groups"][0]),
                    interval(f["groups_minus_token"]),
                    number(f.get("transport", [None])[0]),
                ]
            rows.append(row)
        for x in r["speech"]["lanes"]:
            if x["lane"] != "ar":
                lanes.append(
                    [
                        name,
                        x["lane"],
                        interval(x["acceptance_rate"]),
                        interval(x["tokens_per_round"], 2),
                        interval(x["speed_up"], 2),
                        interval(x.get("cer_minus"), 1, 100),
                    ]
                )
    head = ["draft", "of the round", "by token"]
    for f in next(iter(result.values()))["acceptance"]["settings"][0]["depths"][0]["families"]:
        head += [f"pcg {f['name']}", "- by token", "transport"]
    return (
        table(head, rows)
        + "\n\nOn policy:\n\n"
        + table(["draft", "arm", "accepted", "tokens a round", "speed-up over ar", "CER - ar, points"], lanes)
    )


def codebooks_table(result: dict) -> str:
    rows, lanes = [], []
    for name, r in result.items():
        accepted = first(r["acceptance"])
        damage = {f["name"]: f for f in r["swap"]["families"]}
        for i, f in enumerate(accepted["families"]):
            rows.append(
                [
                    f"{name}, {r['codes']:,} codes" if i == 0 else "",
                    f["name"],
                    number(f["mean_members"], 1),
                    interval(accepted["token"]) if i == 0 else "",
                    interval(f["groups"]),
                    number(f.get("transport", [None])[0]),
                    f"{f['near_low'][0]:.3f} .. {f['near_high'][0]:.3f}" if f.get("near_low") else "",
                    interval(damage[f["name"]]["cer_minus"], 1, 100),
                ]
            )
        for i, x in enumerate(r["speech"]["lanes"]):
            lanes.append(
                [
                    name if i == 0 else "",
                    x["lane"],
                    interval(x["acceptance_rate"]),
                    interval(x["tokens_per_round"], 2),
                    interval(x["speed_up"], 2),
                    interval(x["cer"], 1, 100),
                    interval(x.get("cer_minus"), 1, 100),
                ]
            )
    head = ["voice", "groups", "members", "by token", "pcg", "transport", "most, near", "damage in CER, points"]
    return (
        table(head, rows)
        + "\n\nOn policy:\n\n"
        + table(["voice", "arm", "accepted", "tokens a round", "speed-up over ar", "CER, %", "CER - ar, points"], lanes)
    )


def tables(found: dict) -> dict[str, str]:
    """Markdown by mark."""
    out = {}
    for name, make in (
        ("acceptance", acceptance_table),
        ("bounds", bounds_table),
        ("depth", depth_table),
        ("sweep", speech_table),
        ("arms", speech_table),
        ("grid", grid_table),
        ("live", live_table),
        ("drafts", drafts_table),
        ("codebooks", codebooks_table),
    ):
        if found.get(name):
            out[name] = make(found[name])
    if all(found.get(n) for n in ("swap", "shared", "acceptance")):
        out["frontier"] = frontier_table(found["swap"], found["shared"], found["acceptance"])
    return out


def fill(text: str, parts: dict[str, str]) -> str:
    """Replaces what stands between `<!-- NAME -->` and `<!-- /NAME -->`."""
    for name, body in parts.items():
        begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        if begin not in text or end not in text:
            raise SystemExit(f"the README has no place for the table {name!r}: add {begin} {end}")
        before, rest = text.split(begin, 1)
        text = f"{before}{begin}\n{body}\n{end}{rest.split(end, 1)[1]}"
    return text


COLOURS = {
    "cos": "#0b6e4f",
    "top": "#58b368",
    "l2-top": "#9bc53d",
    "head-cos": "#3d5a80",
    "head-top": "#7aa0d8",
    "fsq": "#c8553d",
    "sound-top": "#8e5aa8",
    "random": "#888888",
}


def plots(found: dict, out: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams |= {
        "svg.hashsalt": "voxgrain",
        "font.size": 9,
        "axes.grid": True,
        "grid.alpha": 0.3,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    from matplotlib import pyplot as plt

    def save(figure, name):
        figure.tight_layout()
        figure.savefig(out / f"{name}.svg", metadata={"Date": None})
        plt.close(figure)

    def curves(axis, points, label_points=True):
        """`points[kind]` = [(x, y, name)], a line a kind."""
        for kind, items in points.items():
            items = sorted(items)
            colour = COLOURS.get(kind, "black")
            axis.plot(
                [p[0] for p in items],
                [p[1] for p in items],
                "o-",
                color=colour,
                label=KINDS.get(kind, kind),
                markersize=4,
                linewidth=1.2,
            )
            for x, y, name in items if label_points else ():
                axis.annotate(
                    name.removeprefix(kind + "-"),
                    (x, y),
                    textcoords="offset points",
                    xytext=(4, 3),
                    fontsize=7,
                    color=colour,
                )

    def by_kind(items, x, y):
        points: dict[str, list] = {}
        for f in items:
            if x(f) is not None and y(f) is not None:
                points.setdefault(kind_of(f["name"]), []).append((x(f), y(f), f["name"]))
        return points

    if found.get("acceptance"):
        rows = first(found["acceptance"])
        plain = [f for f in rows["families"] if f["power"] is None]
        figure, axes = plt.subplots(1, 2, figsize=(10, 4), sharey=True)
        for axis, key, title in ((axes[0], "groups", "pcg, equal split"), (axes[1], "transport", "transport")):
            curves(axis, by_kind(plain, lambda f: f["mean_members"], lambda f, k=key: f.get(k, [None])[0]))
            axis.axhline(rows["token"][0], color="black", linestyle=":", label="by token")
            axis.set_xscale("log")
            axis.set_xlabel("members of a group, mean")
            axis.set_title(title)
        axes[0].set_ylabel("acceptance of a first draft")
        axes[0].legend(fontsize=7)
        save(figure, "acceptance")
        if found.get("swap") and found.get("shared"):
            gained = {f["name"]: f for f in plain}
            figure, axes = plt.subplots(1, 3, figsize=(14, 4.2), sharey=True)
            swaps = [f | {"gain": gained[f["name"]]} for f in found["swap"]["families"]]
            near = [f for f in swaps if kind_of(f["name"]) != "random"]
            for axis, x, name in (
                (axes[0], lambda f: 100 * f["cer_minus"][0], "damage when every token is swapped, CER points"),
                (axes[1], lambda f: f["mel_db"][0], "the same, log-mel distance in dB"),
            ):
                curves(axis, by_kind(near, x, lambda f: f["gain"]["groups"][0]))
                points = by_kind(near, x, lambda f: f["gain"].get("transport", [None])[0])
                for kind, items in points.items():
                    items = sorted(items)
                    axis.plot(
                        [p[0] for p in items],
                        [p[1] for p in items],
                        "^--",
                        markersize=4,
                        linewidth=0.8,
                        color=COLOURS.get(kind, "black"),
                        alpha=0.7,
                    )
                axis.axhline(rows["token"][0], color="black", linestyle=":")
                axis.set_xlabel(name)
            twice = {f["name"].removesuffix("-shared"): f for f in found["shared"]["families"]}
            both = [f for f in near if f["name"] in twice]
            for rule, key, mark in (("pcg", "groups", "o-"), ("transport", "transport", "^--")):
                points = by_kind(
                    both,
                    lambda f, r=rule: paid(f["gain"], f, twice[f["name"]], rows["token"][0])[r],
                    lambda f, k=key: f["gain"].get(k, [None])[0],
                )
                for kind, items in points.items():
                    items, colour = sorted(items), COLOURS.get(kind, "black")
                    axes[2].plot(
                        [p[0] for p in items], [p[1] for p in items], mark, color=colour, markersize=4, linewidth=1
                    )
                    for x, y, name in items:
                        axes[2].annotate(
                            name, (x, y), textcoords="offset points", xytext=(4, 3), fontsize=7, color=colour
                        )
            axes[2].axhline(rows["token"][0], color="black", linestyle=":")
            axes[2].set_xlabel("shift times damage, CER points")
            axes[0].plot([], [], "o-", color="black", label="pcg, equal split")
            axes[0].plot([], [], "^--", color="black", label="transport")
            axes[0].set_ylabel("acceptance of a first draft")
            axes[0].legend(fontsize=7)
            save(figure, "frontier")
    if found.get("bounds"):
        rows = [f for f in first(found["bounds"])["families"] if f["power"] is None and f.get("equal")]
        figure, axis = plt.subplots(figsize=(9, 4))
        series = [
            ("by token", "bound_token", "#bbbbbb"),
            ("pcg, equal split", "equal", "#c8553d"),
            ("pcg, common", "common", "#e0a030"),
            ("pcg, one step", "step", "#d0b060"),
            ("pcg, climbed", "climbed", "#58b368"),
            ("most, sharing a group", "shared_low", "#0b6e4f"),
            ("most, near", "near_low", "#3d5a80"),
        ]
        for k, (label, key, colour) in enumerate(series):
            axis.bar(
                [i + (k - 3) * 0.12 for i in range(len(rows))],
                [f[key][0] for f in rows],
                0.11,
                color=colour,
                label=label,
            )
        axis.set_xticks(range(len(rows)), [f["name"] for f in rows])
        axis.set_ylim(0.4, 1)
        axis.set_ylabel("acceptance of a first draft")
        axis.legend(fontsize=7, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1))
        save(figure, "bounds")
    if found.get("depth"):
        depths = found["depth"]["settings"][0]["depths"]
        figure, axis = plt.subplots(figsize=(6, 3.6))
        xs = [d["depth"] for d in depths]
        axis.plot(xs, [d["token"][0] for d in depths], "o:", color="black", label="by token")
        for i, f in enumerate(depths[0]["families"]):
            colour = COLOURS.get(kind_of(f["name"])) if f["name"] != "fsq-1" else "#e0a030"
            axis.plot(xs, [d["families"][i]["groups"][0] for d in depths], "o-", color=colour, label=f"pcg {f['name']}")
            axis.plot(
                xs,
                [d["families"][i].get("transport", [None])[0] for d in depths],
                "^--",
                color=colour,
                label=f"transport {f['name']}",
            )
        axis.set_xlabel("draft of the round")
        axis.set_ylabel("acceptance")
        axis.legend(fontsize=7, ncols=2)
        save(figure, "depth")
    for step in ("sweep", "arms"):
        if not found.get(step):
            continue
        figure, axis = plt.subplots(figsize=(7, 4))
        for x in found[step]["lanes"]:
            if x["lane"] == "ar":
                continue
            d = [100 * v for v in x["cer_minus"]]
            colour = COLOURS.get(kind_of(x["index"])) if x["index"] else "black"
            mark = {"pcg": "o", "transport": "^", "sd": "s", "tolerance": "D"}[x["arm"]]
            axis.errorbar(
                d[0],
                x["tokens_per_round"][0],
                xerr=[[d[0] - d[1]], [d[2] - d[0]]],
                fmt=mark,
                color=colour,
                markersize=5,
                linewidth=0.8,
            )
            axis.annotate(
                x["lane"],
                (d[0], x["tokens_per_round"][0]),
                textcoords="offset points",
                xytext=(4, 4),
                fontsize=7,
                color=colour,
            )
        axis.axvline(0, color="black", linestyle=":")
        axis.set_xlabel("CER - ar, points, with 95 % interval")
        axis.set_ylabel("tokens a round")
        save(figure, step)
    if found.get("grid"):
        settings = found["grid"]["settings"]
        figure, axis = plt.subplots(figsize=(8, 3.8))
        xs = range(len(settings))
        axis.plot(xs, [s["depths"][0]["token"][0] for s in settings], "s:", color="black", label="by token")
        for i, f in enumerate(settings[0]["depths"][0]["families"]):
            rows = [s["depths"][0]["families"][i] for s in settings]
            colour = COLOURS.get(kind_of(f["name"])) if f["name"] != "fsq-1" else "#e0a030"
            for key, mark in (("groups", "o-"), ("transport", "^--"), ("near_low", "_:")):
                label = {"groups": "pcg", "transport": "transport", "near_low": "most, near"}[key]
                axis.plot(
                    xs,
                    [r[key][0] for r in rows],
                    mark,
                    color=colour,
                    label=f"{label} {f['name']}",
                    markersize=4,
                    linewidth=1,
                )
        axis.set_xticks(xs, [f"T {s['temperature']:g}\nk {s['top_k']}\np {s['top_p']:g}" for s in settings])
        axis.set_ylabel("acceptance of a first draft")
        axis.legend(fontsize=6, ncols=2, loc="center left", bbox_to_anchor=(1, 0.5))
        save(figure, "grid")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--texts", type=Path, default=Path(DATA) / "heldout.txt")
    parser.add_argument("--voxgrain", default="voxgrain", help="the program, with any arguments")
    parser.add_argument("--work", type=Path, required=True, help="folder of indexes, sounds and results")
    parser.add_argument("--out", type=Path, help="folder of README.md and plots (default: print tables)")
    parser.add_argument("--only", default=",".join(STEPS), help="steps, with commas")
    parser.add_argument("--scale", type=float, default=1.0, help="sentences as a share of the full run's")
    parser.add_argument("--arms-sentences", type=int, default=500, help="of the step arms, times the scale")
    parser.add_argument(
        "--final",
        action="append",
        metavar="FAMILY",
        default=None,
        help="families of the 500-sentence run (default: fsq:1 and fsq:2)",
    )
    parser.add_argument(
        "--draft",
        action="append",
        default=[],
        metavar="NAME=BUNDLE",
        help="bundles of one target with different drafts, for the step drafts",
    )
    parser.add_argument(
        "--codebook",
        action="append",
        default=[],
        metavar="NAME=BUNDLE",
        help="bundles of other codebooks or tables, for the step codebooks",
    )
    parser.add_argument("--speaker", metavar="NAME", help="who of the bundle speaks (default: its first)")
    parser.add_argument("--threads", type=int, help="of the program (default: its own choice)")


def run(args: argparse.Namespace) -> None:
    steps = args.only.split(",")
    for step in steps:
        if step not in STEPS:
            raise SystemExit(f"unknown step {step!r}: {', '.join(STEPS)}")
    args.final = args.final or ["fsq:1", "fsq:2"]
    args.work.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    texts = read_texts(args.texts, None)
    runner = Runner(args, args.bundle)
    found = measure(args, runner, Ears(args, texts), steps)
    parts = {"groups": "", **tables(found)}
    commands = {k: v for k, v in runner.commands.items() if k in parts or k in ("groups", "swap")}
    if "frontier" in parts:
        commands["frontier"] = commands.pop("swap", "")
    for name, body in parts.items():
        if commands.get(name):
            parts[name] = f"`{commands[name]}`\n\n{body}".rstrip()
    if args.out is None:
        print("\n\n".join(f"### {n}\n\n{t}" for n, t in parts.items()))
    else:
        page = args.out / "README.md"
        page.write_text(fill(page.read_text(), parts))
        plots(found, args.out)
        # The folders of this run are nobody's business.
        text = json.dumps(found, separators=(",", ":"))
        for folder in (runner.home, runner.indexes.parent, args.work):
            text = text.replace(f"{folder}/", "")
        (args.out / "results.json").write_text(text + "\n")
    minutes = (time.monotonic() - began) / 60
    print(f"experiments: {minutes:.1f} minutes", file=sys.stderr)
