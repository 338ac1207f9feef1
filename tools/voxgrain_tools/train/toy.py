"""train-toy: every stage at toy size, with checks."""

from __future__ import annotations

import argparse
import glob
import os
import shutil

import numpy as np

from ..common import Clock, Ids, add_table_arguments, load, log
from ..corpus.synth import VOICES
from ..files import pack12, split

EXAMPLE = "python -m voxgrain_tools train-toy --work /tmp/toy --program .dev/flite_synth"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--work", required=True)
    parser.add_argument("--program", default=".dev/flite_synth")
    parser.add_argument("--utterances", type=int, default=30)
    add_table_arguments(parser)


def expect(holds: bool, what: str, facts: object = "") -> None:
    """A check of the toy run; unlike an assertion it is made under -O as well."""
    if not holds:
        raise RuntimeError(f"train-toy expects that {what} {facts}".strip())


def run(args: argparse.Namespace) -> None:
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
