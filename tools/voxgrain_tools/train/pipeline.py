"""Drivers: train-all runs the stages in three parts with wall-clock budgets; train-toy runs them at toy size."""

from __future__ import annotations

import argparse
import glob
import json
import os
import shutil
import time
import traceback
import zipfile
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..audio import zip_wavs
from ..common import Clock, Ids, add_table_arguments, cpu_count, device_of, load, log
from ..corpus.synth import VOICES, hours_on_disk
from ..files import pack12, ship, split

if TYPE_CHECKING:
    import torch

EXAMPLE = "python -m voxgrain_tools train-all --part 1 --budget 575 --work /tmp/vx --out out"
EXAMPLE_RESTORE = "python -m voxgrain_tools restore --folder out --work /tmp/vx"
EXAMPLE_TOY = "python -m voxgrain_tools train-toy --work /tmp/toy --program .dev/flite_synth"


def _write(path, value):
    with open(path + ".part", "w") as f:
        json.dump(value, f, indent=1)
    os.replace(path + ".part", path)


def attempt(name: str, function: Callable[[], Any], report: dict[str, Any]) -> bool:
    """Runs a step; its failure is reported and does not end the others."""
    began = time.monotonic()
    try:
        report[name] = function()
    except Exception:  # noqa: BLE001
        report[name] = {"error": traceback.format_exc()[-2000:]}
        log(f"{name} FAILED\n{report[name]['error']}")
    report.setdefault("seconds", {})[name] = round(time.monotonic() - began, 1)
    return not (isinstance(report[name], dict) and "error" in report[name])


def part_codec(args: argparse.Namespace, clock: Clock, report: dict[str, Any]) -> None:
    """Synthesis in the background; the codec (unless one is given), the corpus as tokens."""
    from ..corpus.synth import AudioStore, Synthesis, heldout_texts, read_texts
    from . import codec, codec_train

    device = device_of(args.device)
    voices = tuple(args.voice or VOICES[:1])
    full = args.size == "full"
    held_job = Synthesis(
        args.work,
        heldout_texts(),
        args.program,
        args.workers,
        "heldout",
        limit=args.heldout_limit,
        voices=voices,
        every=True,
    )
    texts = read_texts(args.texts)
    held_job.wait(25)
    job = Synthesis(args.work, texts, args.program, args.workers, voices=voices)
    reserve = min(95.0, 0.2 * args.budget)
    try:

        def train():
            store = AudioStore(args.work, "w", device, min(args.hours, 12.0 if full else 0.5), one_chunk=True)
            while store.hours() < (1.5 if full else 0.02) and job.running() and clock.elapsed() < 60:
                time.sleep(1)
                store.refresh()
            log(f"{store.hours():.2f} h of audio, codec starts")
            size = {} if full else {"batch": 4, "seconds": 0.64, "judged": 0.32, "width": 4, "warmup": 4}
            size["config"] = dict(
                codec.CONFIG if full or args.codec_init_bundle else codec.TOY, fsq_digits=Ids(args.codes).digits
            )
            mode = "graphs" if device.type == "cuda" else "plain"
            return codec_train.train(
                args.work,
                store,
                clock.left() - reserve,
                device,
                mode,
                out=args.out,
                init=args.codec_init,
                init_bundle=args.codec_init_bundle,
                used=0.0,
                lr=args.codec_lr,
                gan_from=args.gan_from,
                refresh_until=120,
                frozen=args.codec_freeze_encoder,
                pesq_weight=args.pesq_weight,
                **size,
            )[1]

        if args.codec:
            for name in ("encoder", "decoder"):
                shutil.copy(f"{args.codec}/codec_{name}.safetensors", args.work)
        else:
            attempt("codec", train, report)
        _write(f"{args.out}/report_1.json", report)
        store, held = AudioStore(args.work, "w", device, args.hours), AudioStore(args.work, "heldout", device, 100)
        held.refresh()

        store.refresh(25)
        while job.running() and clock.left() > reserve and hours_on_disk(args.work) < args.hours:
            time.sleep(1)
    finally:
        job.stop()
    store.refresh(30)
    report["audio"] = {"hours": round(store.hours(), 2), "utterances": len(store.ids), "heldout": len(held.ids)}
    log(report["audio"], f"after {clock.elapsed():.0f} s")
    model = codec.load_codec(args.work, device)
    codec_train.ship(args.work, args.out)

    def heldout():
        data = codec.tokenize(model, held, device)
        codec.save_tokens(f"{args.work}/heldout.npz", data)
        return {"utterances": len(data["ids"]), **codec.usage(data["tokens"])}

    def corpus():
        began = time.monotonic()
        data = codec.tokenize(model, store, device)
        facts = {"utterances": len(data["ids"]), "tokens": len(data["tokens"]), **codec.usage(data["tokens"])}
        codec.save_tokens(f"{args.work}/spoken.npz", data)
        for copy in range(1, args.copies):
            data = codec.both(data, codec.tokenize(model, store, device, shift_seed=args.shift_seed + copy))
        codec.save_tokens(f"{args.work}/tokens.npz", data)
        log(f"encoded in {time.monotonic() - began:.1f} s:", facts)
        return facts

    attempt("heldout", heldout, report)
    attempt("corpus", corpus, report)
    _write(f"{args.out}/report_1.json", report)

    def samples():
        import torch

        sounds = {}
        for i in np.lexsort((held.speakers, held.ids))[: 4 * len(voices)]:
            audio = held.batch([i]).to(device)
            key = f"{held.ids[i]:04d}_{VOICES[held.speakers[i]]}"
            sounds[f"{key}_flite"] = audio[0].cpu().numpy()
            sounds[f"{key}_codec"] = model.decode(model.encode(audio))[0].cpu().numpy()
        zip_wavs(f"{args.out}/samples_1.zip", sounds, [f"{args.work}/heldout.npz"])
        mel = codec_train.SpectralLoss().to(device)
        values = []
        for i in range(min(60, len(held.ids))):
            audio = held.batch([i]).to(device)
            with torch.no_grad():
                values.append(float(mel(audio, model.decode(model.encode(audio))[:, : audio.shape[1]])["mel"]))
        return {"heldout_mel_distance": round(float(np.mean(values)), 4)}

    attempt("samples", samples, report)
    _write(f"{args.out}/report_1.json", report)


def part_target(args: argparse.Namespace, clock: Clock, report: dict[str, Any]) -> None:
    from . import lm
    from .codec import load_tokens

    device = device_of(args.device)
    train, held = load_tokens(f"{args.work}/tokens.npz"), load_tokens(f"{args.work}/heldout.npz")
    log(f"{len(train['ids'])} utterances, {len(train['tokens'])} tokens")

    def run():
        config, positions = (lm.TARGET, 32768) if args.size == "full" else (lm.TOY_TARGET, 2048)
        config = lm.with_table(config, args.codes, args.table)
        _, facts = lm.train(
            "target",
            config,
            args.work,
            train,
            held,
            clock.left() - min(35.0, 0.1 * args.budget),
            device,
            args.target_lr,
            positions,
            init=args.target_init,
        )
        return facts

    attempt("target", run, report)
    _write(f"{args.out}/report_2.json", report)
    ship_target(args)


def ship_target(args: argparse.Namespace) -> None:
    path = f"{args.work}/target.safetensors"
    if os.path.exists(path):
        pack12(path, path + ".packed")
        log("target:", [os.path.basename(n) for n in split(path + ".packed", args.out)])


def part_draft(args: argparse.Namespace, clock: Clock, report: dict[str, Any]) -> None:
    """The feature draft; the corpus as tokens and some speech, to take along."""
    from . import codec, features, lm

    device = device_of(args.device)
    target = lm.load_lm(f"{args.work}/target.safetensors", device)
    full = args.size == "full"
    if os.path.exists(f"{args.work}/spoken.npz"):
        report["packed"] = codec.pack_tokens(codec.load_tokens(f"{args.work}/spoken.npz"), args.out, limit=14_500_000)
    data, held = codec.load_tokens(f"{args.work}/tokens.npz"), codec.load_tokens(f"{args.work}/heldout.npz")
    width = target.config["H"]
    config = dict(features.CONFIG, H=width, features=width, nh=target.config["nh"], I=target.config["I"])
    options = (
        {}
        if full
        else {
            "positions": 512,
            "row": 512,
            "steps": 3,
            "warmup": 2,
            "sample_options": {"limit": 4},
            "acceptance_options": {"limit": 16, "chunk": 16},
        }
    )

    def draft():
        return features.make(
            target,
            data,
            held,
            args.work,
            args.out,
            clock,
            device,
            config,
            min(70.0, 0.15 * args.budget),
            reserve=min(60.0, 0.2 * args.budget),
            **options,
        )

    attempt("draft", draft, report)
    _write(f"{args.out}/report_3.json", report)
    attempt("samples", lambda: samples(args, clock, report, target, device), report)
    _write(f"{args.out}/report_3.json", report)


def samples(args: argparse.Namespace, clock: Clock, report: dict[str, Any], target: Any, device: torch.device) -> None:
    """Forty held-out sentences a voice, as the synthesiser, the codec and the target say them."""
    import torch

    from ..corpus.synth import AudioStore
    from . import lm
    from .codec import load_codec

    held = AudioStore(args.work, "heldout", device, 100)
    held.refresh()
    codec = load_codec(args.work, device)
    table, sounds = {}, {}

    def decode(tokens):
        if not len(tokens):
            return np.zeros(320, np.float32)
        return codec.decode(torch.from_numpy(tokens.astype(np.int64)).to(device)[None])[0].cpu().numpy()

    for speaker in sorted(set(held.speakers)):
        order = [i for i in np.argsort(held.ids, kind="stable") if held.speakers[i] == speaker][:40]
        texts = [held.texts[i] for i in order]

        def note(name, waves, facts=None):
            table[f"{VOICES[speaker]}_{name}"] = {"seconds": round(sum(map(len, waves)) / 16000, 1), **(facts or {})}
            log(VOICES[speaker], name, table[f"{VOICES[speaker]}_{name}"])
            for i in range(0, len(waves), 8):
                sounds[f"{i:02d}_{VOICES[speaker]}_{name}"] = waves[i]

        spoken = [held.batch([i])[0].cpu().numpy() for i in order]
        note("flite", spoken)
        note("codec", [decode(codec.encode(torch.from_numpy(s).to(device)[None])[0].cpu().numpy()) for s in spoken])
        if clock.left() > 12:
            tokens, ended = lm.generate(target, texts, device, longest=400, speaker=speaker)
            note("target", [decode(t) for t in tokens], {"ended": sum(ended)})
        zip_wavs(f"{args.out}/samples_3.zip", sounds)
    return table


def part_ablation(args: argparse.Namespace, clock: Clock, report: dict[str, Any]) -> None:
    """Independent drafts, plain and distilled, to compare the feature draft with."""
    from . import lm
    from .codec import load_tokens

    device = device_of(args.device)

    def drafts():
        documents = lm.Documents(load_tokens(f"{args.work}/tokens.npz"), device, args.codes)
        held = lm.Documents(load_tokens(f"{args.work}/heldout.npz"), device, args.codes)
        config, positions = (lm.DRAFT, 32768) if args.size == "full" else (lm.TOY_DRAFT, 2048)
        config = lm.with_table(config, args.codes, args.table)
        share = (clock.left() - min(15.0, 0.1 * args.budget)) / 200.0
        return lm.train_drafts(args.work, documents, held, 85 * share, 115 * share, device, config, positions)

    attempt("drafts", drafts, report)
    for name in ("draft_plain", "draft"):
        if os.path.exists(f"{args.work}/{name}.safetensors"):
            ship(f"{args.work}/{name}.safetensors", args.out)
    _write(f"{args.out}/report_4.json", report)

    def acceptance():
        if args.size == "toy":
            return lm.measure_acceptance(args.work, device, 64, 2048, groups=False)
        return lm.measure_acceptance(args.work, device)

    attempt("acceptance", acceptance, report)


def add_restore_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--folder", required=True, help="part 1's results")
    parser.add_argument("--texts", default=".dev/corpus.txt.xz", help="the text that part 1 spoke")
    parser.add_argument("--work", required=True)


def run_restore(args: argparse.Namespace) -> None:
    """Without the phones, which do not travel: the target then trains without the phone classifier."""
    from ..corpus.synth import read_texts
    from .codec import save_tokens, unpack_tokens

    os.makedirs(args.work, exist_ok=True)
    data, texts = unpack_tokens(sorted(glob.glob(f"{args.folder}/tokens_*.npz"))), read_texts(args.texts)
    data["texts"] = np.array([texts[i] for i in data["ids"]])
    save_tokens(f"{args.work}/tokens.npz", data)
    with zipfile.ZipFile(f"{args.folder}/samples_1.zip") as z:
        z.extract("heldout.npz", args.work)
    for name in ("encoder", "decoder"):
        shutil.copy(f"{args.folder}/codec_{name}.safetensors", args.work)
    log(len(data["ids"]), "utterances")


PARTS = {"1": (part_codec, 575), "2": (part_target, 575), "3": (part_draft, 440), "4": (part_ablation, 240)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--part",
        choices=["1", "2", "3", "4", "all"],
        default="all",
        help="1: synthesis, codec, tokens; 2: target; 3: draft, figures; "
        "4: drafts of older kinds, to compare with (not in `all`)",
    )
    parser.add_argument("--budget", type=float, default=None, help="seconds for the part, start-up included")
    parser.add_argument("--work", required=True, help="folder kept between parts; needs 20 GB")
    parser.add_argument("--out", required=True, help="results, in files below 16 MiB")
    parser.add_argument("--texts", default=".dev/corpus.txt.xz")
    parser.add_argument("--program", default=".dev/flite_synth")
    parser.add_argument("--workers", type=int, default=None)
    parser.add_argument("--hours", type=float, default=170.0, help="at most so much audio")
    parser.add_argument(
        "--voice", action="append", default=None, help="may be repeated: the voices share the corpus (default: slt)"
    )
    parser.add_argument("--codec", default=None, help="folder of a trained codec: part 1 then trains none")
    parser.add_argument("--codec-init", default=None, help="folder of a codec to go on from")
    parser.add_argument("--codec-init-bundle", default=None, help="bundle to go on from, with tools/data's encoder")
    parser.add_argument("--codec-freeze-encoder", action="store_true", help="the tokens stay: only the decoder learns")
    parser.add_argument("--pesq-weight", type=float, default=0.0, help="of the PESQ-wb distance in the codec's loss")
    parser.add_argument("--shift-seed", type=int, default=0, help="another number shifts the further copies otherwise")
    parser.add_argument("--codec-lr", type=float, default=1.2e-3, help="peak learning rate of the codec")
    parser.add_argument(
        "--gan-from", type=float, default=1.0, help="share of the codec's time after which discriminators join"
    )
    add_table_arguments(parser)
    parser.add_argument(
        "--target-init", default=None, help="a bundle, an .onnx or a .safetensors that the target goes on from"
    )
    parser.add_argument("--target-lr", type=float, default=1e-3, help="peak learning rate of the target")
    parser.add_argument(
        "--copies", type=int, default=2, help="times that the corpus is encoded, each with its own shifts in time"
    )
    parser.add_argument("--heldout-limit", type=int, default=None)
    parser.add_argument("--size", choices=["full", "toy"], default="full")
    parser.add_argument("--device", default=None)


def run(args: argparse.Namespace) -> None:
    os.makedirs(args.work, exist_ok=True)
    os.makedirs(args.out, exist_ok=True)
    parts = {k: PARTS[k] for k in "123"} if args.part == "all" else {args.part: PARTS[args.part]}
    given = args.budget
    for name, (function, budget) in parts.items():
        args.budget = given or budget
        clock = Clock(args.budget)
        report = {}
        log(f"part {name}: {args.budget:.0f} s, {cpu_count()} cores")
        attempt("part", lambda: function(args, clock, report), report)
        _write(f"{args.out}/report_{name}.json", report)
        log(f"part {name} ends after {clock.elapsed():.0f} s", report.get("seconds"))


def add_toy_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--work", required=True)
    parser.add_argument("--program", default=".dev/flite_synth")
    parser.add_argument("--utterances", type=int, default=30)
    add_table_arguments(parser)


def expect(holds: bool, what: str, facts: object = "") -> None:
    """A check of the toy run; unlike an assertion it is made under -O as well."""
    if not holds:
        raise RuntimeError(f"train-toy expects that {what} {facts}".strip())


def run_toy(args: argparse.Namespace) -> None:
    """Every stage on a CPU in about a minute; the checkpoints are real in all but size and training."""
    import torch

    from ..corpus.synth import AudioStore, Synthesis, heldout_texts
    from ..files import join
    from . import codec, codec_train, features, lm

    device = torch.device("cpu")
    work = args.work
    shutil.rmtree(work, ignore_errors=True)
    os.makedirs(f"{work}/out")
    texts = sorted(heldout_texts(), key=len)
    Synthesis(work, texts[: args.utterances], args.program, 2, voices=VOICES).wait(60)
    Synthesis(
        work, texts[args.utterances : args.utterances + 2], args.program, 2, "heldout", voices=VOICES, every=True
    ).wait(60)
    store, held = AudioStore(work, "w", capacity_hours=0.1, one_chunk=True), AudioStore(work, "heldout")
    expect(store.refresh() == args.utterances and held.refresh() == 4, "every sentence is spoken")
    target_config, draft_config = (lm.with_table(c, args.codes, args.table) for c in (lm.TOY_TARGET, lm.TOY_DRAFT))
    model, facts = codec_train.train(
        work,
        store,
        1e4,
        device,
        config=dict(codec.TOY, fsq_digits=Ids(args.codes).digits),
        batch=4,
        seconds=0.48,
        judged=0.32,
        width=4,
        max_steps=24,
        gan_from=0.7,
        warmup=4,
    )
    expect(facts["last"] < facts["first"], "it learns", facts)
    model = codec.load_codec(work)
    for name, source in (("tokens", store), ("heldout", held)):
        codec.save_tokens(f"{work}/{name}.npz", codec.tokenize(model, source, device))
    data = codec.load_tokens(f"{work}/tokens.npz")
    written, total = codec.pack_tokens(data, f"{work}/out")
    again = codec.unpack_tokens(sorted(glob.glob(f"{work}/out/tokens_*.npz")))
    expect(written == total and np.array_equal(again["tokens"], data["tokens"]), "packed tokens come back")
    expect(
        np.array_equal(again["speakers"], data["speakers"]) and set(data["speakers"].tolist()) == {0, 1},
        "both voices are there",
    )
    documents = lm.Documents(data, device, args.codes)
    validation = lm.Documents(codec.load_tokens(f"{work}/heldout.npz"), device, args.codes)
    options = {"positions": 1024, "max_steps": 12, "warmup": 2}
    target, facts = lm.train("target", target_config, work, documents, validation, 1e4, device, 5e-3, **options)
    expect(facts["last"] < facts["first"], "it learns", facts)
    pack12(f"{work}/target.safetensors", f"{work}/target.safetensors.packed")
    split(f"{work}/target.safetensors.packed", f"{work}/out", limit=50_000)
    join(f"{work}/out", f"{work}/joined")
    a, b = load(f"{work}/target.safetensors")[0], load(f"{work}/joined/target.safetensors")[0]
    expect(all((a[k] - b[k]).abs().max() <= 1e-3 * a[k].abs().max() + 1e-6 for k in a), "the cut target is the target")
    facts = lm.train_drafts(work, documents, validation, 1e4, 1e4, device, draft_config, 1024, 8)
    expect(all(np.isfinite(f["best"]) for f in facts.values()), "the drafts train")
    clock = Clock(1e4)
    figures = features.make(
        target,
        data,
        codec.load_tokens(f"{work}/heldout.npz"),
        work,
        f"{work}/out",
        clock,
        device,
        features.TOY,
        generate=2.0,
        old=f"{work}/draft.safetensors",
        sample_options={"limit": 4},
        acceptance_options={"limit": 16, "chunk": 16},
        positions=512,
        row=512,
        steps=3,
        max_steps=12,
        warmup=2,
        lr=5e-3,
    )
    expect(figures["training"]["last"] < figures["training"]["first"], "the feature draft learns", figures)
    expect(
        0 < figures["acceptance_heldout"]["features"]["token"][2] <= 1,
        "the feature draft is accepted now and then",
        figures,
    )
    result = lm.measure_acceptance(work, device, limit=64, positions=1024, groups=False)
    expect(0 < result["draft"]["token"] <= 1, "the draft is accepted now and then")
    tokens, _ = lm.generate(target, texts[:2], device, 1.0, 50, longest=20)
    sound = model.decode(torch.from_numpy(np.concatenate(tokens + [np.zeros(1, np.uint16)]).astype(np.int64))[None])
    expect(torch.isfinite(sound).all(), "the sound is finite")
    log("toy run: all stages worked")
