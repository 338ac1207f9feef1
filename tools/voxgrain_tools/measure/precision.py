"""Stage precision: what rounding the target costs, heard on many sentences of every voice.

Each model (a checkpoint in float, bundles at 8 and 4 bits) speaks the held-out sentences by plain
sampling in float32, so that nothing but the weights differs; Whisper hears them beside the
synthesiser's own sound and its passage through the codec.
"""

from __future__ import annotations

import argparse
import json
import os
from typing import Any

import numpy as np
import torch

from .. import scoring
from ..common import device_of, log
from .judge import score
from .whisper import Whisper

EXAMPLE = (
    "python -m voxgrain_tools precision --work /tmp/vx --codec /tmp/vx --model float=/tmp/vx/target.safetensors "
    "--model int8=v8 --model int4=models/voice --report precision.json"
)


def hear(judge: Whisper, texts: list[str], waves: list[np.ndarray]) -> list[dict[str, Any]]:
    """Errors and faults of each sound."""
    return [score(text, heard) for text, heard in zip(texts, judge.sounds(waves), strict=True)]


def summary(
    scores: list[dict[str, Any]], ended: list[bool], base: list[dict[str, Any]] | None = None
) -> dict[str, Any]:
    """Rates with 95 % intervals; against `base`, scores of the same utterances, the paired difference."""

    def column(items, kind):
        total = "words" if kind == "word_errors" else "characters"
        return [s[kind] for s in items], [s[total] for s in items]

    out = {"utterances": len(scores), "ended": int(sum(ended))}
    for short, kind in (("cer", "character_errors"), ("wer", "word_errors")):
        out[short] = scoring.bootstrap(*column(scores, kind))
        if base is not None:
            out[f"{short}_minus"] = scoring.bootstrap(*column(scores, kind), base=column(base, kind))
    for fault in ("skip", "repeat", "missing_end"):
        out[fault] = int(sum(s[fault] for s in scores))
    return out


def speak(
    model: Any, texts: list[str], speaker: int, device: torch.device | str, codec: Any, seed: int, longest: int = 1200
) -> tuple[list[np.ndarray], list[bool]]:
    """Sounds of all texts, and which of them ended by themselves."""
    from ..train.sampler import sample_batch

    torch.manual_seed(seed)
    order = np.argsort([len(t) for t in texts], kind="stable")
    waves, ended = [np.zeros(320, np.float32)] * len(texts), [False] * len(texts)
    size = 512 if device.type == "cuda" else 8
    for at in range(0, len(order), size):
        rows = order[at : at + size]
        chosen = [texts[i] for i in rows]
        found = sample_batch(
            model,
            chosen,
            [speaker] * len(rows),
            min(longest, 8 * max(map(len, chosen)) + 150),
            device,
            graphs=device.type == "cuda",
            enough=1.0,
            dtype=torch.float32,
        )
        for k, tokens in found.items():
            sound = codec.decode(torch.from_numpy(tokens.astype(np.int64)).to(device)[None])
            waves[rows[k]], ended[rows[k]] = sound[0].float().cpu().numpy(), True
    return waves, ended


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--work", required=True, help="holds the held-out sentences as spoken by the synthesiser (audio/)"
    )
    parser.add_argument(
        "--codec", required=True, help="folder of codec_encoder.safetensors and codec_decoder.safetensors"
    )
    parser.add_argument(
        "--model",
        action="append",
        required=True,
        metavar="NAME=PATH",
        help="a checkpoint or a bundle's folder; the others are compared with the first",
    )
    parser.add_argument("--limit", type=int, default=1000, help="sentences a voice")
    parser.add_argument("--seeds", type=int, default=1, help="times that each is spoken")
    parser.add_argument("--report", required=True)
    parser.add_argument("--device", default=None)


def run(args: argparse.Namespace) -> None:
    from ..corpus.synth import VOICES, AudioStore
    from ..train import lm
    from ..train.codec import load_codec

    device = device_of(args.device)
    held = AudioStore(args.work, "heldout", device, 100)
    held.refresh()
    judge = Whisper()
    codec = load_codec(args.codec, device)
    models = {}
    for item in args.model:
        name, path = item.split("=", 1)
        models[name] = lm.lm_from_bundle(path, "target", device) if os.path.isdir(path) else lm.load_lm(path, device)
    report, kept = {}, {}
    for speaker in sorted(set(held.speakers)):
        rows = [i for i in np.argsort(held.ids, kind="stable") if held.speakers[i] == speaker][: args.limit]
        texts = [held.texts[i] for i in rows]

        def note(name, scores, ended, base=None):
            kept.setdefault(name, ([], []))
            kept[name][0].extend(scores)
            kept[name][1].extend(ended)
            report[f"{VOICES[speaker]}_{name}"] = summary(scores, ended, base)
            log(VOICES[speaker], name, json.dumps(report[f"{VOICES[speaker]}_{name}"]))

        spoken = [held.batch([i])[0].float() for i in rows]
        note("spoken", hear(judge, texts, [s.cpu().numpy() for s in spoken]), [True] * len(rows))
        coded = [codec.decode(codec.encode(s[None]))[0].float().cpu().numpy() for s in spoken]
        note("codec", hear(judge, texts, coded), [True] * len(rows), kept["spoken"][0][-len(rows) :])
        base = None
        for name, model in models.items():
            scores, ended = [], []
            for seed in range(args.seeds):
                waves, done = speak(model, texts, speaker, device, codec, seed + 1)
                scores, ended = scores + hear(judge, texts, waves), ended + done
            note(name, scores, ended, base)
            base = base or scores
    names = list(models)
    for name in names:
        report[f"all_{name}"] = summary(*kept[name], kept[names[0]][0] if name != names[0] else None)
        log("all", name, json.dumps(report[f"all_{name}"]))
    with open(args.report + ".part", "w") as f:
        json.dump(report, f, indent=1)
    os.replace(args.report + ".part", args.report)
