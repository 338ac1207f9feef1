"""A spoken corpus on its way to tokens: even shares of a store, copies of a voice, labels by several processes."""

import numpy as np
import pytest

from voxgrain_tools.corpus import labels, synth


def write(work, name, voice, count, seconds=0.5, first=0):
    """`count` utterances of half a second, each a phone "a" up to its middle and silence after."""
    (work / "audio").mkdir(exist_ok=True)
    size = int(seconds * 16000)
    rng = np.random.default_rng(first)
    (rng.standard_normal(count * size) * 3000).astype(np.int16).tofile(work / "audio" / f"{name}.pcm")
    rows = [
        f"{first + i}\t{i * size}\t{size}\t1.0\t1.0\ta:{size // 2} pau:{size}\t5a{first + i}.\t{voice}\n"
        for i in range(count)
    ]
    (work / "audio" / f"{name}.tsv").write_text("".join(rows))


def test_a_balanced_store_keeps_room_for_the_slower_teacher(tmp_path):
    pytest.importorskip("torch")
    (tmp_path / "audio").mkdir()
    (tmp_path / "audio" / "voices").write_text("quick\n")
    write(tmp_path, "w00", "quick", 100)
    hours = 40 * 0.5 / 3600
    stores = [synth.AudioStore(str(tmp_path), capacity_hours=hours, one_chunk=True, balanced=b) for b in (True, False)]
    # The second speaker is named after the store was opened.
    (tmp_path / "audio" / "voices").write_text("quick\nslow\n")
    for store in stores:
        store.refresh()
    write(tmp_path, "w900", "slow", 30, first=500)
    for store in stores:
        store.refresh()
    balanced, other = ([store.speakers.count(s) for s in (0, 1)] for store in stores)
    # The quick one exceeds both limits, as a run of up to 2^22 samples is read whole.
    assert balanced[1] == 30 and stores[0].voices == ("quick", "slow")
    assert other[1] == 0 and other[0] >= 40


def test_labels_are_the_same_by_one_and_by_several_processes(monkeypatch):
    rng = np.random.default_rng(1)
    phones, counts, shifts = [], [], rng.integers(0, 300, 30)
    for _ in range(30):
        ends = np.sort(rng.integers(1, 320 * 40, 12))
        phones.append(" ".join(f"{name}:{end}" for name, end in zip("abcdefghijkl", ends)))
        counts.append(int(ends[-1]) // 320 + 3)
    numbers = {name: i + 1 for i, name in enumerate("abcdefghijk")}
    one = labels.phone_labels(phones, np.array(counts), shifts, numbers, 320)
    assert len(one) == sum(counts) and set(one.tolist()) <= set(range(12))
    # Token by token: a token is of the phone that has not ended half a token after its begin.
    at = 0
    for marks, count, shift in zip(phones, counts, shifts):
        pairs = [m.split(":") for m in marks.split()]
        for t in range(count):
            name = next((n for n, e in pairs if (int(e) + shift + 160) // 320 > t), None)
            assert one[at + t] == numbers.get(name, 0)
        at += count
    monkeypatch.setattr(labels, "A_JOB", 15)
    monkeypatch.setattr(labels, "cpu_count", lambda: 2)
    assert np.array_equal(labels.phone_labels(phones, np.array(counts), shifts, numbers, 320), one)
    assert len(labels.phone_labels([], np.zeros(0, int), np.zeros(0, int), numbers, 320)) == 0


def test_copies_of_one_voice(tmp_path):
    torch = pytest.importorskip("torch")
    from voxgrain_tools.__main__ import STAGES
    from voxgrain_tools.train import codec

    assert codec.copies_of(["2", "b=4"], ("a", "b")) == [2, 4] and codec.copies_of([], ("a",)) == [1]
    for wrong in ("0", "c=2", "a=x", "a="):
        with pytest.raises(SystemExit, match="--copies"):
            codec.copies_of([wrong], ("a", "b"))
    torch.manual_seed(0)
    model = codec.Codec(codec.TOY)
    model.save(str(tmp_path))
    (tmp_path / "audio").mkdir()
    (tmp_path / "audio" / "voices").write_text("heart\nmichael\n")
    write(tmp_path, "w00", "heart", 3)
    write(tmp_path, "w900", "michael", 2, first=1)
    write(tmp_path, "heldout00", "heart", 1)
    assert STAGES["tokenize"][0] == "train.codec"
    import argparse

    parser = argparse.ArgumentParser()
    codec.add_tokenize_arguments(parser)
    codec.run_tokenize(
        parser.parse_args(["--work", str(tmp_path), "--copies", "2", "--copies", "michael=3", "--device", "cpu"])
    )
    data = codec.load_tokens(f"{tmp_path}/tokens.npz")
    assert data["speakers"].tolist().count(0) == 2 * 3 and data["speakers"].tolist().count(1) == 3 * 2
    assert data["ids"].tolist()[:5] == [0, 1, 1, 2, 2] and data["speakers"].tolist()[:5] == [0, 0, 1, 0, 1]
    bounds = np.concatenate([[0], np.cumsum(data["lengths"])])
    one = [i for i, (u, s) in enumerate(zip(data["ids"], data["speakers"])) if (u, s) == (1, 1)]
    spans = [data["tokens"][bounds[i] : bounds[i + 1]].tolist() for i in one]
    assert len(spans) == 3 and len({tuple(s) for s in spans}) == 3, "each copy has a shift of its own"
    sounds = [data["phones"][bounds[i] : bounds[i + 1]].tolist() for i in one]
    assert all(s.count(synth.SOUND_ID["a"]) in (12, 13) for s in sounds)
    assert len(codec.load_tokens(f"{tmp_path}/heldout.npz")["ids"]) == 1
