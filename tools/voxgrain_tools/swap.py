"""What a family of token groups costs and gains, before any index is built.

Damage: every token of held-out speech is replaced by a random other member of its group, the codec
decodes the result and a recogniser hears it. Gain: the acceptance of the group-level test, teacher
forced, from the exact coarse laws P and Q of target and draft.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from . import bundle, evaluate, scoring
from .onnx_functions import SPEECH
from .runtime import LanguageModel, Voice

EXAMPLE = (
    "python -m voxgrain_tools swap --bundle models/slt --checkpoint "
    "/tmp/vx/target.safetensors --texts tools/data/heldout.txt --work "
    "/tmp/vx/evaluate --family fsq:1 --family cos:0.8"
)

BLOCK = 1024


def digits_of(tokens: np.ndarray) -> np.ndarray:
    return tokens[..., None] >> (2 * np.arange(8)) & 3


def factor_rows(tokens: np.ndarray) -> np.ndarray:
    """[..., 36] rows of a factor table, as FactorEmbed sums them."""
    d = digits_of(tokens)
    pairs = [(a, b) for a in range(8) for b in range(a + 1, 8)]
    rows = [4 * i + d[..., i] for i in range(8)]
    rows += [32 + 16 * p + 4 * d[..., a] + d[..., b] for p, (a, b) in enumerate(pairs)]
    return np.stack(rows, axis=-1)


def table(checkpoint, which: str) -> np.ndarray:
    """Rows [65536, H] of the input embedding or the output head."""
    factors = checkpoint[f"{which}.factors"]
    out = np.empty((SPEECH, factors.shape[1]), np.float32)
    for start in range(0, SPEECH, 4096):
        out[start : start + 4096] = factors[factor_rows(np.arange(start, start + 4096))].sum(1)
    return out


class Family:
    """Groups `KIND:VALUE`: members(seeds) gives, for each seed token, the ids of its group.

    cos:T, head-cos:T     cosine of the input-embedding (head) rows above T
    topk:K, head-topk:K   the K nearest by cosine;  l2-topk:K  by Euclidean distance
    fsq:D                 at most D steps of codec digits apart in all
    random:K              K arbitrary tokens, the control
    """

    def __init__(self, spec: str, checkpoint, seed: int = 0, cap: int | None = None) -> None:
        self.spec, self.cap = spec, cap
        self.kind, value = spec.split(":")
        self.value = float(value)
        self._rng = np.random.default_rng(seed)
        if self.kind not in (
            "cos", "head-cos", "topk", "head-topk", "l2-topk", "fsq", "random"
        ):
            raise SystemExit(f"unknown family {spec!r}")
        if self.kind == "fsq":
            self._offsets = _fsq_offsets(int(self.value))
        elif self.kind != "random":
            which = "output_head" if self.kind.startswith("head") else "input_embedding"
            self._rows = table(checkpoint, which)
            self._norms = np.linalg.norm(self._rows, axis=1)
            if self.kind != "l2-topk":
                self._rows /= np.maximum(self._norms, 1e-12)[:, None]

    def members(self, seeds: np.ndarray):
        """Yields one array of token ids for each seed, the seed always among them."""
        for start in range(0, len(seeds), BLOCK):
            part = seeds[start : start + BLOCK]
            if self.kind == "fsq":
                yield from (self._near(t) for t in part)
            elif self.kind == "random":
                for t in part:
                    others = self._rng.integers(0, SPEECH, int(self.value))
                    yield np.unique(np.append(others, t))
            else:
                near = self._rows[part] @ self._rows.T
                if self.kind == "l2-topk":
                    near = 2 * near - (self._norms**2)[None]
                near[np.arange(len(part)), part] = np.inf
                yield from self._select(near)

    def _near(self, token: int) -> np.ndarray:
        moved = digits_of(np.asarray(token)) + self._offsets
        moved = moved[((moved >= 0) & (moved < 4)).all(axis=1)]
        return (moved << (2 * np.arange(8))).sum(axis=1)

    def _select(self, near: np.ndarray):
        if self.kind.endswith("topk"):
            count = int(self.value) + 1
            # The best of 1,024 strips bound the K-th best from below, so few entries are sorted.
            strips = near.reshape(len(near), 1024, -1).max(axis=2)
            floor = np.partition(strips, -count, axis=1)[:, -count]
            for row, least in zip(near, floor, strict=True):
                found = np.flatnonzero(row >= least)
                yield found[np.argpartition(-row[found], count - 1)[:count]]
            return
        for row in near:
            found = np.flatnonzero(row > self.value)
            if self.cap and len(found) > self.cap:
                found = found[np.argpartition(-row[found], self.cap)[: self.cap]]
            yield found


def _fsq_offsets(steps: int) -> np.ndarray:
    """All changes of 8 digits by at most `steps` in all."""
    found = [()]
    for _ in range(8):
        found = [
            (*f, d)
            for f in found
            for d in range(-3, 4)
            if sum(map(abs, f)) + abs(d) <= steps
        ]
    return np.array(found, np.int64)


def swap(family: Family, tokens: list[np.ndarray], seed: int):
    """The utterances with every token replaced, and facts about the groups they met."""
    flat = np.concatenate(tokens)
    unique, inverse = np.unique(flat, return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    ends = np.searchsorted(inverse[order], np.arange(len(unique)), side="right")
    rng = np.random.default_rng(seed)
    out, sizes = flat.copy(), np.empty(len(unique), np.int64)
    start = 0
    progress = evaluate.Progress(f"groups {family.spec}", len(unique))
    for n, (token, members) in enumerate(zip(unique, family.members(unique), strict=True)):
        others = members[members != token]
        sizes[n] = len(members)
        if len(others):
            places = order[start : ends[n]]
            out[places] = others[rng.integers(0, len(others), len(places))]
        start = ends[n]
        progress(n + 1)
    facts = {
        "replaced": float((out != flat).mean()),
        "mean_size_met": float(sizes[inverse].mean()),
        "median_size_met": float(np.median(sizes[inverse])),
    }
    cuts = np.cumsum([len(t) for t in tokens])[:-1]
    return np.split(out, cuts), facts


def sample(
    voice: Voice, texts: list[str], folder: Path, seed: int, speaker: str | None = None
) -> list[np.ndarray]:
    """Speech tokens that the target itself gives for the texts (temperature 1), kept in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    model, out = None, []
    end = voice.facts["vocabulary"]["end_of_speech"]
    progress = evaluate.Progress("target samples", len(texts))
    for i, text in enumerate(texts):
        path = folder / f"{i:05}.npy"
        if not path.exists():
            model = model or voice.language_model("target")
            model.reset()
            rng, tokens = np.random.default_rng([seed, i]), []
            logits = model.step(voice.prompt(text, speaker))
            while len(tokens) < 60 + 6 * len(text):
                p = np.cumsum(np.exp(logits[-1].astype(np.float64) - logits[-1].max()))
                token = int(np.searchsorted(p, rng.random() * p[-1], side="right"))
                if token == end:
                    break
                tokens.append(token)
                logits = model.step([token])
            np.save(path, np.array(tokens, np.uint16))
        out.append(np.load(path).astype(np.int64))
        progress(i + 1)
    return out


class Laws:
    """Target and draft probabilities at some positions of held-out speech, computed once."""

    def __init__(
        self, voice: Voice, texts, tokens, positions: int, temperature: float, speaker: str | None = None
    ) -> None:
        models = [LanguageModel(voice.folder / voice.facts[m]["file"]) for m in ("target", "draft")]
        self.target, self.draft = [], []
        rng = np.random.default_rng(0)
        each = max(1, positions // len(tokens))
        for text, speech in zip(texts, tokens, strict=True):
            if len(self.target) >= positions:
                break
            prompt = voice.prompt(text, speaker)
            chosen = rng.choice(len(speech), min(each, len(speech)), replace=False)
            for model, laws in zip(models, (self.target, self.draft), strict=True):
                model.reset()
                logits = model.step([*prompt, *speech.tolist()])[len(prompt) - 1 + chosen]
                logits = logits.astype(np.float64) / temperature
                p = np.exp(logits - logits.max(axis=1, keepdims=True))
                laws.extend((p / p.sum(axis=1, keepdims=True)).astype(np.float32))
        self.target, self.draft = np.stack(self.target), np.stack(self.draft)

    def token(self) -> float:
        return float(np.minimum(self.target, self.draft).sum(axis=1).mean())

    def acceptance(self, family: Family) -> tuple[float, dict]:
        """Mean over positions of sum_g min(P(g), Q(g)) with equal-split weights."""
        from scipy.sparse import csr_matrix

        counts, parts = [], []
        progress = evaluate.Progress(f"all groups {family.spec}", SPEECH)
        for n, members in enumerate(family.members(np.arange(SPEECH))):
            counts.append(len(members))
            parts.append(members.astype(np.int32))
            progress(n + 1)
        starts = np.concatenate([[0], np.cumsum(counts)])
        columns = np.concatenate(parts)
        groups = csr_matrix(
            (np.ones(len(columns), np.float32), columns, starts), shape=(SPEECH, SPEECH)
        )
        owners = np.bincount(columns, minlength=SPEECH)  # N(t): groups that contain t
        total = 0.0
        for p, q in zip(self.target, self.draft, strict=True):
            both = groups @ np.stack([p[:SPEECH] / owners, q[:SPEECH] / owners], axis=1)
            total += np.minimum(both[:, 0], both[:, 1]).sum() + min(p[SPEECH], q[SPEECH])
        sizes = np.array(counts)
        facts = {
            "mean_size": float(sizes.mean()),
            "largest": int(sizes.max()),
            "singletons": float((sizes == 1).mean()),
            "megabytes_at_2_bytes": float(2 * sizes.sum() / 1e6),
        }
        return float(total / len(self.target)), facts


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--family", action="append", required=True, help=Family.__doc__)
    parser.add_argument("--checkpoint", type=Path, required=True, help="the target's safetensors")
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--texts", type=Path, required=True, help="held-out, one utterance a line")
    parser.add_argument(
        "--encoder",
        type=Path,
        help="codec encoder checkpoint: tokens of flite's speech (default: the target's samples)",
    )
    parser.add_argument("--work", type=Path, required=True, help="the folder `evaluate` uses")
    parser.add_argument("--limit", type=int, default=200)
    parser.add_argument("--speaker", metavar="NAME", help="who of the bundle speaks (default: its first)")
    parser.add_argument("--cap", type=int, help="largest group of a threshold family")
    parser.add_argument("--positions", type=int, default=300, help="for acceptance; 0: none")
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--flite", default="flite")
    parser.add_argument("--recogniser", type=Path)
    parser.add_argument("--recognisers", default="ctc")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--report", type=Path)


def run(args: argparse.Namespace) -> None:
    from .export import Checkpoint

    voice = Voice(args.bundle)
    texts = evaluate.read_texts(args.texts, voice.facts["vocabulary"]["characters"], args.limit)
    sounds = args.work / f"sounds-{evaluate.short_hash(args.texts)}"
    home = sounds / f"bundle-{evaluate.short_hash(args.bundle / 'bundle.toml')}"
    speaker = bundle.speaker(voice.facts, args.speaker)["name"]
    if args.encoder:
        reference = evaluate.flite_voice(voice.facts, args.speaker)
        heard = evaluate.flite_folder(sounds, reference)
        evaluate.speak_flite(args.flite, texts, heard, reference)
        coded = evaluate.tokens_folder(sounds, reference, args.encoder)
        tokens = evaluate.tokenise(args.encoder, heard, len(texts), coded)
    else:
        coded = home / (f"tokens-target-{args.seed}" + (f"-{speaker}" if args.speaker else ""))
        tokens = sample(voice, texts, coded, args.seed, args.speaker)
    checkpoint = Checkpoint.open(args.checkpoint)
    laws = None
    if args.positions:
        laws = Laws(voice, texts, tokens, args.positions, args.temperature, args.speaker)
    hear = evaluate.recognisers(args.recognisers.split(","), args.work, args.recogniser)

    rows, clean = [], {}
    for spec in ["unswapped", *dict.fromkeys(args.family)]:
        entry: dict = {"family": spec}
        if spec == "unswapped":
            folder, items = home / f"codec-{coded.name}", tokens
            if laws:
                entry["acceptance"] = laws.token()
        else:
            family = Family(spec, checkpoint, args.seed, args.cap)
            items, facts = swap(family, tokens, args.seed)
            entry |= facts
            name = f"{coded.name}-{spec.replace(':', '-')}-{args.cap}-{args.seed}"
            folder = home / f"swap-{name}"
            if laws:
                entry["acceptance"], facts = laws.acceptance(family)
                entry |= facts
        evaluate.resynthesise(args.bundle, items, folder)
        for recogniser in hear:
            heard = recogniser([folder / f"{i:05}.wav" for i in range(len(texts))])
            scores = [scoring.score(t, h) for t, h in zip(texts, heard, strict=True)]
            errors = [s["character_errors"] for s in scores]
            totals = [s["characters"] for s in scores]
            entry[f"cer_{recogniser.name}"] = scoring.bootstrap(errors, totals)
            if spec == "unswapped":
                clean[recogniser.name] = errors
            else:
                entry[f"cer_{recogniser.name}_damage"] = scoring.bootstrap(
                    errors, totals, base=(clean[recogniser.name], totals)
                )
        rows.append(entry)
        print(json.dumps(entry), file=sys.stderr)
    path = args.report or args.work / "swap.json"
    report = {"utterances": len(texts), "speaker": speaker, "rows": rows}
    path.write_text(json.dumps(report, indent=1) + "\n")
    print(markdown(rows, [r.name for r in hear]))


def markdown(rows: list[dict], names: list[str]) -> str:
    def interval(v):
        return f"{v[0]:.3f} [{v[1]:.3f}, {v[2]:.3f}]" if v else ""

    def number(v, form):
        return format(v, form) if v is not None else ""

    head = ["family", "acceptance", "mean size", "largest", "MB", "replaced"]
    for name in names:
        head += [f"CER {name}", f"CER {name} - unswapped"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for r in rows:
        cells = [
            r["family"],
            number(r.get("acceptance"), ".3f"),
            number(r.get("mean_size", r.get("mean_size_met")), ".1f"),
            number(r.get("largest"), "d"),
            number(r.get("megabytes_at_2_bytes"), ".1f"),
            number(r.get("replaced"), ".3f"),
        ]
        for name in names:
            cells += [interval(r.get(f"cer_{name}")), interval(r.get(f"cer_{name}_damage"))]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
