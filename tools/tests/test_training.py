"""The training pipeline's arithmetic, at sizes that take seconds."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import torch

import voxgrain_tools
from voxgrain_tools import common, files
from voxgrain_tools.corpus import plain as corpus_text
from voxgrain_tools.corpus import synth
from voxgrain_tools.train import codec, codec_train, lm, similarity


def test_factored_normaliser_equals_the_full_softmax():
    torch.manual_seed(0)
    scores = (torch.randn(3, 481) * 2).requires_grad_()
    full = lm.full_logits(scores)
    tokens = torch.randint(0, 65536, (200,))
    rows = torch.from_numpy(lm.factor_rows(tokens.numpy()))
    assert torch.allclose(full[0, tokens], scores[0, :480][rows].sum(1), atol=1e-4)
    assert torch.allclose(lm.total_lse(scores), full.logsumexp(1), atol=1e-4)
    (a,) = torch.autograd.grad(full.logsumexp(1).sum(), scores, retain_graph=True)
    (b,) = torch.autograd.grad(lm.total_lse(scores).sum(), scores)
    assert torch.allclose(a, b, atol=1e-5)


def test_losses_equal_their_plain_forms():
    torch.manual_seed(1)
    p, q = torch.randn(3, 481, requires_grad=True), torch.randn(3, 481)
    targets, ones, hot = torch.tensor([5, 40000, 65536]), torch.ones(3), lm.MultiHot(64)
    full = lm.full_logits(p)
    assert abs(lm.ce_loss(p, targets, ones, hot) - torch.nn.functional.cross_entropy(full, targets)) < 1e-4
    lse = lm.total_lse(p)
    (marginals,) = torch.autograd.grad(lse.sum(), p)
    own = (lse - (marginals * p).sum(1)).mean()
    laws = full.log_softmax(1)
    plain = (laws.exp() * (laws - lm.full_logits(q).log_softmax(1))).sum(1).mean()
    assert abs(lm.kl_part(q, marginals, ones) - own - plain) < 1e-3


def toy_documents():
    texts = ["hello there.", "yes.", "what is it?", "one two three."]
    rng = np.random.default_rng(0)
    lengths = np.array([40, 12, 33, 50], np.int32)
    return lm.Documents(
        {"texts": texts, "lengths": lengths, "tokens": rng.integers(0, 65536, lengths.sum()).astype(np.uint16)},
        torch.device("cpu"),
    )


def test_packed_documents_do_not_see_each_other():
    torch.manual_seed(2)
    documents, model = toy_documents(), lm.LanguageModel(lm.TOY_TARGET).eval()
    packed = documents.to_device(documents.pack(256, seed=0))
    tokens, positions, numbers, bounds, targets, _ = documents.batch(packed, 0)
    assert (tokens == common.SOS).sum() == (targets == common.END).sum() > 0
    whole = model(tokens, positions, numbers, bounds)
    for a, b in zip(bounds[:-1].tolist(), bounds[1:].tolist()):
        if b > a:
            assert positions[a] == 0
            alone = model(tokens[a:b], positions[a:b], numbers[a:b], None)
            assert torch.allclose(whole[a:b], alone, atol=1e-4)


def test_sampling_with_a_cache_equals_the_forward_pass():
    torch.manual_seed(3)
    model, texts = lm.LanguageModel(lm.TOY_TARGET).eval(), ["hello there.", "a b c, what is it?"]
    out, _ = lm.generate(model, texts, torch.device("cpu"), top_k=1, longest=10)
    for text, tokens in zip(texts, out):
        prompt = [common.BEGIN] + [common.FIRST_CHARACTER + common.CHARACTERS.index(c) for c in text] + [common.SOS]
        x = torch.tensor(prompt + tokens.astype(int).tolist())
        hidden = model(x, torch.arange(len(x)), torch.zeros(len(x)), None)
        best = lm.full_logits(model._head(hidden[len(prompt) - 1 :])).argmax(1)
        assert best[: len(tokens)].tolist() == tokens.astype(int).tolist()


def test_neighbour_noise_moves_one_digit_by_one():
    tokens = torch.randint(0, 65536, (500,))
    moved = lm.disturb(tokens, 1.0)
    digits = lambda t: (t.unsqueeze(1) >> (2 * torch.arange(8))) & 3  # noqa: E731
    assert ((digits(tokens) - digits(moved)).abs().sum(1) == 1).all()
    specials = torch.arange(65536, 65600)
    assert torch.equal(lm.disturb(specials, 1.0), specials)


def test_codec_frames_tokens_and_sound():
    torch.manual_seed(4)
    model = codec.Codec(codec.TOY).eval()
    tokens = model.encode(torch.randn(2, 3300))
    assert tokens.shape == (2, 11)
    assert model.decode(tokens).shape == (2, 11 * 320)
    z = torch.randn(2, 9, 8) * 2
    assert torch.allclose(codec.values_of(codec.tokens_of(z)), codec_train.quantize(z), atol=1e-6)
    long = torch.randint(0, 65536, (1, 60))
    # One token of look-ahead: the overlap of frames.
    assert torch.allclose(model.decode(long)[:, : 39 * 320], model.decode(long[:, :40])[:, : 39 * 320], atol=1e-5)
    spectrum = torch.randn(1, 20, 642) * 0.3
    sound, total = codec.sound(spectrum)[0].numpy(), np.zeros(19 * 160 + 640)
    window = np.hanning(641)[:640]
    for f, a in enumerate(spectrum[0].double().numpy()):
        total[f * 160 : f * 160 + 640] += np.fft.irfft(np.exp(np.minimum(a[:321], 6)) * np.exp(1j * a[321:])) * window
    assert np.abs(total[240:-240] / 1.5 - sound).max() < 1e-5


def test_wide_features_are_aligned():
    hear = codec.WideFeatures(dict(codec.CONFIG, features="wide"))
    sound = torch.zeros(1, 3200)
    sound[0, 1680] = 0.5  # The middle of frame 10.
    frames = hear(sound)
    assert frames.shape == (1, 20, hear.size)
    quiet = hear(torch.zeros(1, 3200))
    for part in (slice(0, 80), slice(80, 160), slice(288, 608)):
        assert (frames - quiet)[0, :, part].abs().sum(1).argmax() == 10


def test_noise_of_training():
    z = torch.randn(400, 5, 8)
    values = codec.values_of(codec.tokens_of(z))
    moved = codec_train.quantize(z, torch.zeros(400)) - values
    assert ((moved.abs() > 0.1).sum(-1) <= 1).all() and moved.abs().max() < 0.67
    assert torch.allclose(codec_train.quantize(z, torch.ones(400), 0.3), values, atol=1e-6)
    blurred = codec_train.quantize(z, torch.full((400,), 0.2), 0.3)
    assert ((blurred - torch.tanh(z)).abs() <= 1 / 3 + 1e-5).all()


def test_flat_adam_is_adamw_and_ignores_what_is_not_finite():
    torch.manual_seed(6)
    ours = torch.nn.Linear(7, 3)
    theirs = torch.nn.Linear(7, 3)
    theirs.load_state_dict(ours.state_dict())
    flat = codec_train.Flat((ours,), torch.device("cpu"), (0.8, 0.95), decay=0.1, limit=1e9)
    flat.facts.copy_(torch.tensor([1e-2, 0.5]))
    reference = torch.optim.AdamW(theirs.parameters(), 1e-2, (0.8, 0.95), weight_decay=0.1)
    for _ in range(5):
        x = torch.randn(4, 7)
        flat.grad.zero_()
        for model in (ours, theirs):
            model(x).square().sum().backward()
        flat.update()
        reference.step()
        reference.zero_grad()
    assert torch.allclose(ours.weight, theirs.weight, atol=1e-6) and torch.allclose(ours.bias, theirs.bias, atol=1e-6)
    before = float(flat.step)
    flat.grad.fill_(float("nan"))
    flat.update()
    assert torch.isfinite(flat.weights).all() and float(flat.step) == before


def test_spectral_loss_is_zero_for_the_same_sound_only():
    torch.manual_seed(7)
    loss, sound = codec_train.SpectralLoss(), torch.randn(2, 16000) * 0.1
    same = loss(sound, sound.clone())
    other = loss(sound, sound * 0.5)
    assert abs(same["mel"]) < 1e-5 and abs(same["envelope"]) < 0.02 and same["loudness"] < 1e-6
    assert other["mel"] > 1 and other["envelope"] < 0.02  # A correlation does not hear the level.
    assert loss(sound, torch.randn(2, 16000) * 0.1)["envelope"] > 0.5
    fake = (sound * 0).requires_grad_()
    loss.total(loss(sound, fake)).backward()
    assert torch.isfinite(fake.grad).all()


def test_second_voice_begins_with_its_own_symbol():
    data = {
        "texts": ["ab", "ab"],
        "lengths": np.array([3, 2], np.int32),
        "tokens": np.arange(5, dtype=np.uint16),
        "speakers": np.array([0, 1], np.uint8),
    }
    documents = lm.Documents(data, torch.device("cpu"))
    assert documents.stream[documents.starts].tolist() == list(common.BEGINS) == [65537, 65539]


def test_clicks_are_counted():
    t = np.arange(16000)
    tone = np.int16(8000 * np.sin(t * 0.05))
    broken = tone.copy()
    broken[8000:] = np.int16(8000 * np.sin(t[8000:] * 0.05 + 2.0))
    assert similarity.clicks((tone, tone)) == 0 < similarity.clicks((tone, broken))


def test_normalised_text():
    cases = {
        "It's 3:05 -- isn't it?": None,
        "In 1984, 21 men paid $40.": "in nineteen eighty four, twenty one men paid forty dollars.",
        "The 3rd (of four) e.g. this": "the third of four for example, this",
        "x <- y": None,
    }
    for raw, wanted in cases.items():
        got = corpus_text.normalise(raw)
        if wanted is not None:
            assert got == wanted
        assert got is None or re.fullmatch(r"[a-z ',.?!]+", got)
    assert corpus_text.number_words(1_204_017) == "one million two hundred and four thousand seventeen"
    assert corpus_text.ordinal_words(22) == "twenty second"
    assert corpus_text.year_words(2005) == "two thousand and five"


def test_split_pack_and_join(tmp_path):
    (tmp_path / "cut").mkdir()
    tensors = {"a.weight": torch.randn(96, 64), "norm.weight": torch.randn(64)}
    path = str(tmp_path / "m.safetensors")
    common.save(path, tensors, {"H": 64})
    files.pack12(path, path + ".packed")
    assert len(files.split(path + ".packed", str(tmp_path / "cut"), limit=4000)) > 2
    (joined,) = files.join(str(tmp_path / "cut"), str(tmp_path / "out"))
    got, config = common.load(joined)
    assert config == {"H": 64}
    assert (got["a.weight"] - tensors["a.weight"]).abs().max() < 2e-3 * tensors["a.weight"].abs().max()


def sounds_on_disk(folder, name):
    """Two voices of noise and tones, in the synthesiser's files."""
    rng = np.random.default_rng(2)
    (folder / "audio").mkdir(exist_ok=True)
    for i, voice in enumerate(("slt", "rms")):
        rows, parts, at = [], [], 0
        for n in (9600, 16000):
            sound = 3000 * np.sin(np.arange(n) * (0.05 + 0.03 * i)) + rng.standard_normal(n) * 300
            parts.append(np.int16(sound))
            rows.append(f"{len(rows)}\t{at}\t{n}\t1\t1\tpau:{n} \tyes.\t{voice}\n")
            at += n
        np.concatenate(parts).tofile(folder / "audio" / f"{name}{i:02d}.pcm")
        (folder / "audio" / f"{name}{i:02d}.tsv").write_text("".join(rows))


def test_codec_training_goes_on_where_it_stopped(tmp_path):
    sounds_on_disk(tmp_path, "w")
    store = synth.AudioStore(str(tmp_path), "w", capacity_hours=0.01, one_chunk=True)
    options = {
        "device": torch.device("cpu"),
        "config": codec.TOY,
        "batch": 2,
        "seconds": 0.32,
        "judged": 0.16,
        "width": 2,
        "warmup": 1,
        "gan_from": 0.5,
    }
    _, facts = codec_train.train(str(tmp_path), store, 1e4, max_steps=4, **options)
    assert facts["gan_steps"] == 2 and sorted(store.speakers) == [0, 0, 1, 1]
    assert (tmp_path / "before_gan" / "codec_decoder.safetensors").exists()
    saved = torch.load(tmp_path / "codec_state.pt", weights_only=False)
    assert saved["critic"]["step"] == 2 and saved["generator"]["step"] == 4
    made, facts = codec_train.train(str(tmp_path), store, 1e4, max_steps=6, resume=True, used=0.0, **options)
    assert facts["steps"] == 6 and facts["gan_steps"] == 4
    assert common.load(str(tmp_path / "codec_decoder.safetensors"))[1]["gan_steps"] == 4
    tokens = codec.tokenize(made, store, torch.device("cpu"), phones=False)
    assert tokens["ids"].tolist() == [0, 0, 1, 1] and tokens["speakers"].tolist() == [0, 1, 0, 1]
    # On a machine without the state: the weights alone.
    _, facts = codec_train.train(str(tmp_path / "before_gan"), store, 1e4, max_steps=7, init=str(tmp_path), **options)
    assert facts["steps"] == 7 and facts["gan_steps"] == 1


def test_codec_watcher_goes_on_in_a_plainer_mode(tmp_path):
    sounds_on_disk(tmp_path, "w")
    sounds_on_disk(tmp_path, "heldout")
    arguments = [
        "--work",
        str(tmp_path),
        "--out",
        str(tmp_path / "out"),
        "--size",
        "toy",
        "--device",
        "cpu",
        "--resume",
        "--hours",
        "0.0001",
        "--fail-in",
        "graphs",
        "--total-budget",
        "16",
        "--call-budget",
        "16",
        "--reserve",
        "2",
        "--workers",
        "1",
    ]
    environment = dict(os.environ, PYTHONPATH=os.path.dirname(os.path.dirname(voxgrain_tools.__file__)))
    assert (
        subprocess.run([sys.executable, "-m", "voxgrain_tools", "codec", *arguments], env=environment).returncode == 0
    )
    report = json.loads((tmp_path / "out" / "codec_report.json").read_text())
    assert report["modes"] == ["graphs", "compiled"] and report["finished"] == "compiled"
    assert {"codec_encoder.safetensors", "codec_decoder.safetensors"} <= set(os.listdir(tmp_path / "out"))


def test_a_shifted_encoding_hears_the_same_speech_later():
    class Store:
        ids, speakers, texts = [0, 1], [0, 1], ["a.", "b."]
        phones = ["pau:1600 aa:4800", "b:3200"]
        phone_ids = synth.PHONE_ID
        sounds = [torch.linspace(-1, 1, 4800), torch.linspace(1, -1, 3300)]

        def lengths(self):
            return np.array([len(s) for s in self.sounds])

        def batch(self, indices):
            return torch.nn.utils.rnn.pad_sequence([self.sounds[i] for i in indices], batch_first=True)

    class Heard:
        def encode(self, audio):
            self.audio = audio
            return torch.zeros(len(audio), -(-audio.shape[1] // 320), dtype=torch.long)

    plain, shifted = Heard(), Heard()
    a = codec.tokenize(plain, Store(), torch.device("cpu"))
    b = codec.tokenize(shifted, Store(), torch.device("cpu"), shift_seed=1)
    shifts = np.random.default_rng(1).integers(40, 280, 2)
    assert a["lengths"].tolist() == [15, 11] and b["lengths"].tolist() == [
        -(-(4800 + shifts[0]) // 320),
        -(-(3300 + shifts[1]) // 320),
    ]
    order = np.argsort([4800 + shifts[0], 3300 + shifts[1]])
    for row, u in enumerate(order):  # the shorter first
        sound = Store.sounds[u]
        assert (
            torch.equal(shifted.audio[row, shifts[u] : shifts[u] + len(sound)], sound)
            and not shifted.audio[row, : shifts[u]].any()
        )
    assert len(codec.both(a, b)["ids"]) == 4 and codec.both(a, b)["phones"].shape == codec.both(a, b)["tokens"].shape
