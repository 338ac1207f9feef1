"""Training the codec's decoder alone, its PESQ-wb distance, other numbers of digits, and codecs read back from
bundles."""

from pathlib import Path

import numpy as np
import pytest
import torch
from test_training import sounds_on_disk

from voxgrain_tools import common
from voxgrain_tools.corpus import synth
from voxgrain_tools.export import export
from voxgrain_tools.export.runtime import Codec
from voxgrain_tools.train import codec, codec_train, perceptual

VOICE = Path(__file__).parents[2] / "models" / "voice"
OPTIONS = {
    "device": torch.device("cpu"),
    "config": codec.TOY,
    "batch": 2,
    "seconds": 0.64,
    "judged": 0.16,
    "width": 2,
    "warmup": 1,
    "gan_from": 1.0,
}


def rough_sound(seconds=2.0, seed=0):
    """Noise in syllables: something that is loud and quiet in turns."""
    rng, n = np.random.default_rng(seed), int(16000 * seconds)
    gain = 0.1 * np.abs(np.sin(np.arange(n) / 16000 * 2 * np.pi * 2))
    return torch.tensor((rng.standard_normal(n) * gain)[None], dtype=torch.float32)


def bundle_of(folder):
    """A toy codec's export with the file of its encoder beside it."""
    torch.manual_seed(0)
    model = codec.Codec(codec.TOY).eval()
    model.save(str(folder))
    export.codec_decoder(export.Checkpoint.open(folder / "codec_decoder.safetensors"), folder, export.Bits(8))
    return str(folder), str(folder / "codec_encoder.safetensors")


def agrees_with_its_file(made, file):
    tokens = np.random.default_rng(1).integers(0, 65536, 30)
    expected = Codec(file).spectrum(tokens)
    with torch.no_grad():
        spectrum = made.decoder(codec.values_of(torch.from_numpy(tokens)[None]))[0].numpy()
    assert np.abs(spectrum - expected).max() < 1e-4 * np.abs(expected).max()
    sound = made.decode(torch.from_numpy(tokens)[None])[0]
    assert len(sound) == 30 * 320 and torch.isfinite(sound).all()


def test_a_codec_comes_back_from_its_bundle(tmp_path):
    folder, encoder = bundle_of(tmp_path)
    made = codec.codec_from_bundle(folder, encoder)
    agrees_with_its_file(made, tmp_path / "codec.onnx")
    # Exported once more, the integers are the same: nothing is lost on the way.
    again = tmp_path / "again"
    again.mkdir()
    made.save(str(again))
    source = export.Checkpoint.open(again / "codec_decoder.safetensors")
    export.codec_decoder(source, again, export.Bits(8))
    a, b = (codec.codec_from_bundle(str(f), encoder).decoder.state_dict() for f in (tmp_path, again))
    assert all((a[k] - b[k]).abs().max() <= 2e-3 * a[k].abs().max() + 1e-6 for k in a)


@pytest.mark.skipif(not (VOICE / "codec.onnx.data").exists(), reason="the voice is not here")
def test_the_shipped_codec_comes_back():
    agrees_with_its_file(codec.codec_from_bundle(str(VOICE)), VOICE / "codec.onnx")


@pytest.mark.parametrize("mode", ["plain", "compiled"])
def test_a_frozen_encoder_stays_and_the_decoder_learns(tmp_path, monkeypatch, mode):
    source = tmp_path / "source"
    source.mkdir()
    folder, encoder = bundle_of(source)
    monkeypatch.setattr(codec_train, "ENCODER", encoder)
    monkeypatch.setattr(codec_train, "codec_from_bundle", lambda folder: codec.codec_from_bundle(folder, encoder))
    sounds_on_disk(tmp_path, "w")
    store = synth.AudioStore(str(tmp_path), "w", capacity_hours=0.01, one_chunk=True)
    old = codec.codec_from_bundle(folder, encoder)
    options = dict(OPTIONS, frozen=True, pesq_weight=0.4)
    made, _ = codec_train.train(
        str(tmp_path), store, 1e4, max_steps=3, mode=mode, init_bundle=folder, used=0.0, **options
    )
    assert (tmp_path / "codec_encoder.safetensors").read_bytes() == Path(encoder).read_bytes()
    assert all(torch.equal(a, b) for a, b in zip(made.encoder.parameters(), old.encoder.parameters()))
    changed = [not torch.equal(a, b) for a, b in zip(made.decoder.parameters(), old.decoder.parameters())]
    assert all(changed)
    audio = store.batch([0])
    assert torch.equal(made.encode(audio), old.encode(audio))
    # From the state, and from the folder of checkpoints: the encoder's file again.
    again, facts = codec_train.train(str(tmp_path), store, 1e4, max_steps=5, resume=True, **options)
    assert facts["steps"] == 5 and torch.equal(again.encode(audio), old.encode(audio))
    with pytest.raises(ValueError, match="--freeze-encoder"):
        codec_train.train(str(tmp_path), store, 1e4, max_steps=6, resume=True, **OPTIONS)


def test_a_frozen_encoder_hears_around_the_crop(tmp_path):
    sounds_on_disk(tmp_path, "w")
    store = synth.AudioStore(str(tmp_path), "w", capacity_hours=0.01, one_chunk=True)
    trainer = codec_train.Trainer(store, mode="plain", frozen=True, **OPTIONS)
    trainer.refresh()
    trainer.prepare(0.5)
    around = trainer.CONTEXT * codec.FRAME
    wide, real = trainer.crops(around), trainer.crops()
    assert torch.equal(wide[:, around:-around], real)
    for row, (start, _, begin) in zip(wide, trainer.spots.T.tolist()):
        assert not row[: max(0, around - (start - begin))].any()
    values, _ = trainer.values(real)
    assert values.shape == (2, trainer.count // codec.FRAME, 8) and not values.requires_grad


def test_the_pesq_distance_is_zero_for_the_same_and_grows_with_noise():
    loss, sound = perceptual.PerceptualLoss(), rough_sound()
    noise = torch.randn_like(sound) * sound.std()
    assert float(loss(sound, sound)) == pytest.approx(0, abs=1e-4)
    values = [float(loss(sound, sound + noise * g)) for g in (0.03, 0.1, 0.3, 1.0)]
    assert values == sorted(values) and values[-1] > values[0] + 0.5
    # Level and a fixed filter hardly count.
    assert float(loss(sound, 0.5 * sound)) < 0.05
    assert perceptual.estimate(0) > 4.6 > perceptual.estimate(1) > perceptual.estimate(3)


@pytest.mark.parametrize("kind", ["noisy", "same", "silent fake", "silent real", "both silent"])
def test_the_pesq_distance_has_finite_gradients(kind):
    real = rough_sound() * (kind not in ("silent real", "both silent"))
    fake = real.clone() if kind == "same" else rough_sound(seed=1) * (kind not in ("silent fake", "both silent"))
    fake.requires_grad_()
    value = perceptual.PerceptualLoss()(real, fake).mean()
    value.backward()
    assert torch.isfinite(value) and torch.isfinite(fake.grad).all()


def test_the_pesq_distance_follows_pesq():
    pesq = pytest.importorskip("pesq").pesq
    loss, sound = perceptual.PerceptualLoss(), rough_sound(3.0)
    noise, known, ours = torch.randn_like(sound) * sound.std(), [], []
    for gain in (0.01, 0.03, 0.1, 0.2, 0.4, 0.8):
        known.append(pesq(16000, sound[0].numpy(), (sound + gain * noise)[0].numpy(), "wb"))
        ours.append(float(perceptual.estimate(loss(sound, sound + gain * noise))[0]))
    assert np.abs(np.array(known) - ours).max() < 0.3, (known, ours)


def test_five_digits_make_a_codec_of_1024_codes(tmp_path):
    sounds_on_disk(tmp_path, "w")
    first = tmp_path / "first"
    first.mkdir()
    eight = codec.Codec(codec.TOY).eval()
    eight.save(str(first))
    store = synth.AudioStore(str(tmp_path), "w", capacity_hours=0.01, one_chunk=True)
    options = OPTIONS | {"config": dict(codec.TOY, fsq_digits=5)}
    trainer = codec_train.Trainer(store, **options)
    trainer.start_from(codec.load_codec(str(first)))
    assert torch.allclose(trainer.codec.decoder.up.weight, eight.decoder.up.weight, atol=1e-3)
    assert trainer.codec.encoder.out.weight.shape[0] == trainer.codec.decoder.inp.weight.shape[1] == 5
    made, _ = codec_train.train(str(tmp_path), store, 1e4, max_steps=2, init=str(first), **options)
    tokens = codec.tokenize(made, store, torch.device("cpu"), phones=False)["tokens"]
    assert tokens.dtype == np.uint16 and tokens.max() < 1024 and codec.usage(tokens)["used"] <= 1024
    every = torch.arange(1024)
    z = torch.atanh(codec.values_of(every, 5).clamp(-0.99, 0.99))
    assert torch.equal(codec.tokens_of(z), every)
    assert made.decode(every[None])[0].shape == (1024 * 320,)
    with pytest.raises(ValueError, match="of another shape"):
        codec_train.Trainer(store, frozen=True, **options).start_from(eight)
    assert common.load(str(tmp_path / "codec_decoder.safetensors"))[1]["fsq_digits"] == 5
