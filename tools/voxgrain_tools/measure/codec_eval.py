"""Stage codec-eval: STOI, PESQ and intelligibility of a codec's resynthesis, a voice each, on a CPU."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..audio import write_wav
from ..common import cpu_count, log
from ..train.similarity import measure
from . import whisper
from .judge import score

if TYPE_CHECKING:
    from ..train.codec import Codec

EXAMPLE = "python -m voxgrain_tools codec-eval --bundle models/voice --limit 100 --again --report codec.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--checkpoints", help="holds codec_encoder and codec_decoder, whole or cut")
    source.add_argument("--bundle", help="a bundle, whose decoder is judged as it ships, with tools/data's encoder")
    parser.add_argument("--encoder", default=None, help="encoder file, where it is elsewhere")
    parser.add_argument("--program", default=".dev/flite_synth")
    parser.add_argument("--voices", default="slt,rms")
    parser.add_argument("--limit", type=int, default=100, help="held-out sentences a voice, Harvard sentences first")
    parser.add_argument("--skip", type=int, default=0, help="leave out so many sentences at the start")
    parser.add_argument(
        "--again",
        action="store_true",
        help="also compare the synthesiser with itself: the same sentences, other noise in the excitation",
    )
    parser.add_argument("--recognisers", default="whisper", help="of whisper and pocketsphinx, or none")
    parser.add_argument("--work", default="/tmp/voxgrain-codec-eval")
    parser.add_argument("--report", default=None, help="JSON file")
    parser.add_argument("--wavs", default=None, help="folder for the sounds")
    parser.add_argument("--workers", type=int, default=None)


def open_codec(args: argparse.Namespace) -> tuple[Codec, dict[str, Any]]:
    """The codec that the arguments name, and its facts."""
    import shutil
    import tempfile

    from ..common import load
    from ..files import join
    from ..train.codec import ENCODER, codec_from_bundle, load_codec

    if args.bundle:
        return codec_from_bundle(args.bundle, args.encoder or ENCODER), {
            "bundle": os.path.basename(os.path.normpath(args.bundle))
        }
    with tempfile.TemporaryDirectory() as whole:
        join(args.checkpoints, whole)
        for name in ("encoder", "decoder"):
            source = f"{args.checkpoints}/codec_{name}.safetensors"
            if name == "encoder" and args.encoder:
                source = args.encoder
            if os.path.exists(source) and not (
                name == "encoder" and not args.encoder and os.path.exists(f"{whole}/codec_encoder.safetensors")
            ):
                shutil.copy(source, f"{whole}/codec_{name}.safetensors")
        return load_codec(whole), load(f"{whole}/codec_decoder.safetensors")[1]


def said_again(args: argparse.Namespace, voices: Sequence[str], texts: list[str]) -> dict[tuple[str, int], np.ndarray]:
    """{(voice, line): sound} of the synthesiser with other noise in its excitation, all else the same.

    No codec that leaves out the noise of each moment can be expected to come nearer to the first saying."""
    from ..corpus.synth import VOICES, AudioStore, Synthesis

    Synthesis(
        args.work,
        texts,
        args.program,
        args.workers,
        "again",
        voices=voices,
        every=True,
        plain=True,
        options=("--noise", 7),
    ).wait(600)
    store = AudioStore(args.work, "again", capacity_hours=100)
    store.refresh()
    return {(VOICES[store.speakers[i]], store.ids[i]): store.audio(i).numpy() for i in range(len(store.ids))}


def run(args: argparse.Namespace) -> None:
    import torch

    from .. import scoring
    from ..corpus.synth import VOICES, AudioStore, Synthesis, heldout_texts
    from ..train.codec import usage

    codec, facts = open_codec(args)
    voices = tuple(args.voices.split(","))
    spoken = heldout_texts()[args.skip : args.skip + args.limit]
    Synthesis(args.work, spoken, args.program, args.workers, "eval", voices=voices, every=True, plain=True).wait(600)
    store = AudioStore(args.work, "eval", capacity_hours=100)
    store.refresh()
    listeners = [n for n in args.recognisers.split(",") if n not in ("", "none")]
    ears = whisper.Whisper() if "whisper" in listeners else None
    again = said_again(args, voices, spoken) if args.again else {}
    report, every = {"checkpoint": facts, "voices": {}}, []
    for voice in voices:
        own = [i for i in np.argsort(store.ids, kind="stable") if store.speakers[i] == VOICES.index(voice)]
        pairs = []
        for i in own:
            audio = store.batch([i])
            tokens = codec.encode(audio)
            every.append(tokens[0].numpy())
            coded = (codec.decode(tokens)[0, : audio.shape[1]].clamp(-1, 1) * 32767).to(torch.int16).numpy()
            pairs.append((store.audio(i).numpy(), coded))
        workers = args.workers or min(2, cpu_count())
        entry = measure(pairs, workers)
        if again:
            figures = measure([(p[0], again[voice, store.ids[i]]) for i, p in zip(own, pairs)], workers)
            entry |= {f"again_{k}": figures.get(k) for k in ("stoi", "pesq_wb", "pesq_wb_low", "mel_distance")}
        texts = [store.texts[i] for i in own]
        for name in listeners:
            rates = {}
            for side, column in (("flite", 0), ("codec", 1)):
                sounds = [np.float32(p[column]) / 32768 for p in pairs]
                if name == "whisper":
                    heard = list(ears.sounds(sounds))
                else:
                    from .recognise_pocketsphinx import transcribe_each

                    heard = list(transcribe_each(sounds))
                rates[side] = [score(t, h) for t, h in zip(texts, heard)]
            for short, kind, of in (("cer", "character_errors", "characters"), ("wer", "word_errors", "words")):
                columns = {k: ([s[kind] for s in v], [s[of] for s in v]) for k, v in rates.items()}
                for side, c in columns.items():
                    entry[f"{name}_{short}_{side}"] = round(sum(c[0]) / max(1, sum(c[1])), 4)
                entry[f"{name}_{short}_difference"] = [
                    round(x, 4) for x in scoring.bootstrap(*columns["codec"], base=columns["flite"])
                ]
        report["voices"][voice] = entry
        log(voice, json.dumps(entry))
        if args.wavs:
            os.makedirs(args.wavs, exist_ok=True)
            for i, (real, coded) in zip(own, pairs):
                for side, x in (("flite", real), ("codec", coded)):
                    write_wav(f"{args.wavs}/{voice}_{store.ids[i] + args.skip:04d}_{side}.wav", np.float32(x) / 32768)
    report["usage"] = usage(np.concatenate(every))
    if args.report:
        with open(args.report, "w") as f:
            json.dump(report, f, indent=1)
    keys = [k for k in next(iter(report["voices"].values()))]
    print("| | " + " | ".join(report["voices"]) + " |\n|---" * 1 + "|---" * len(report["voices"]) + "|")
    for key in keys:
        print(f"| {key} | " + " | ".join(str(e.get(key)) for e in report["voices"].values()) + " |")
    print("codes:", report["usage"], file=sys.stderr)
