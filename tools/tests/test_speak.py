"""The corpus of a natural teacher, spoken by a stand-in with known times."""

import argparse

import numpy as np
import pytest

from voxgrain_tools.common import ALPHABETS, PHONEMES, TEMPOS
from voxgrain_tools.corpus import speak, synth, teachers


class Teacher:
    """Says each phoneme as two frames of a tone at the natural tempo, eight frames of silence around; never fast."""

    name = "test:tone"

    def phonemes(self, text):
        return text

    def frames(self, phonemes):
        return np.array([8, *(2 for _ in phonemes), 8], np.float32)

    def speak(self, phonemes, seed=1, speed=1.0):
        each = 2 if speed >= 1 else 4
        frames = np.array([8, *(each for _ in phonemes), 8], np.float32)
        size = round(teachers.FRAME * teachers.RATE)
        samples = np.zeros(int(frames.sum()) * size, np.float32)
        said = slice(8 * size, -8 * size)
        samples[said] = np.sin(np.arange(len(samples[said])) * 0.1)
        return teachers.Spoken(samples, phonemes, frames)


def test_symbols_are_the_front_ends():
    assert len(PHONEMES) == len(set(PHONEMES)) == 63 and len(set(ALPHABETS["phonemes"])) == 72
    assert speak.clean('"həlˈO,"  sˈɛd wˈʌn-tˈu ɾ') == "“həlˈO,” sˈɛd wˈʌn tˈu T."
    assert speak.clean("jˈɛs?") == "jˈɛs?" and speak.clean("♥") == ""
    assert len(synth.SOUND_ID) < 64, "the phone classifier has 64 classes"


def test_the_tempo_is_what_the_frames_say():
    made = speak.utter(Teacher(), "abdi.", 1, "9")
    assert made.text == "5abdi." and made.tempo == 1.0, "this teacher is never fast"
    slow = speak.utter(Teacher(), "a" * 99 + ".", 1, "1")
    assert slow.text[0] == speak.nearest_tempo((100 * 2 + 16) / (100 * 4 + 16)) == "1"
    assert speak.utter(Teacher(), "a" * 200 + ".", 1, "1").text[0] == "5", "too long to be slow"
    assert speak.utter(Teacher(), "a" * 400, 1) is None and speak.utter(Teacher(), "♥", 1) is None


def test_times_follow_the_cut():
    made = speak.utter(Teacher(), "ˈab ː.", 1)
    lead = round(speak.RATE * 0.06)
    frame = round(speak.RATE * teachers.FRAME)
    # Stress is its vowel's, length the sound's in front; space and mark are silence.
    assert [name for name, _ in made.marks] == ["pau", "a", "a", "b", "pau", "pau", "pau", "pau"]
    assert [end for _, end in made.marks][:4] == [lead, *(lead + 2 * frame * i for i in (1, 2, 3))]
    whole = lead + 12 * frame + round(speak.RATE * 0.14)
    assert whole <= made.marks[-1][1] == len(made.samples) <= whole + speak.RATE // 100
    loud = np.square(made.samples[lead + 400 : lead + 9 * frame] / 32768).mean()
    assert np.sqrt(loud) == pytest.approx(0.075, rel=0.05)


def test_what_is_spoken_is_read_by_the_store(tmp_path, monkeypatch):
    monkeypatch.setattr(speak, "open_teacher", lambda name, device: Teacher())
    (tmp_path / "audio").mkdir()
    (tmp_path / "texts").write_text("ab.\n♥\ntd.\nif.\n")
    args = argparse.Namespace(
        teacher="test:tone",
        voice="tone",
        texts=str(tmp_path / "texts"),
        work=str(tmp_path),
        name="w",
        seed=1,
        plain=True,
        limit=None,
        device="cpu",
        backwards=False,
    )
    for part in range(2):
        speak.speak_part(args, part, 2, float("inf"))
    (tmp_path / "audio" / "voices").write_text("other\ntone\n")
    store = synth.AudioStore(str(tmp_path))
    assert store.refresh() == 3
    assert sorted(zip(store.ids, store.texts)) == [(0, "5ab."), (2, "5td."), (3, "5if.")]
    assert store.phone_ids is synth.SOUND_ID and store.speakers == [1, 1, 1]
    assert store.phones[0].split()[1].startswith("a:")


def test_dither_spreads_and_leaves_the_natural_tempo():
    assert not teachers.dither(50, 1.0, 3).any()
    spread = teachers.dither(1000, 1.3, 3)
    assert np.abs(spread).max() <= 0.5 and abs(spread.mean()) < 0.01
    assert np.histogram(spread, 10, (-0.5, 0.5))[0].min() > 90


def test_a_graph_gives_its_durations_alone():
    onnx = pytest.importorskip("onnx")
    ort = pytest.importorskip("onnxruntime")
    helper, F = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [
            helper.make_node("Div", ["x", "speed"], ["d"]),
            helper.make_node("Round", ["d"], ["r"]),
            helper.make_node("Clip", ["r", "one"], ["frames"]),
            helper.make_node("Mul", ["frames", "big"], ["sound"]),
        ],
        "teacher",
        [helper.make_tensor_value_info("x", F, ["n"]), helper.make_tensor_value_info("speed", F, [1])],
        [helper.make_tensor_value_info("sound", F, ["n"])],
        [helper.make_tensor("one", F, [], [1.0]), helper.make_tensor("big", F, [1], [600.0])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    opened = teachers.with_durations(model, "frames")
    feed = {"x": np.float32([2.0, 0.3, 3.4]), "speed": np.float32([1]), "dither": np.float32([0, 0, 0.2])}
    sound, frames = ort.InferenceSession(opened).run(None, feed)
    assert frames.tolist() == [2, 1, 4] and (sound == 600 * frames).all()
    alone = ort.InferenceSession(teachers.durations_alone(opened, "frames"))
    assert [o.name for o in alone.get_outputs()] == ["frames"]
    assert alone.run(None, feed)[0].tolist() == [2, 1, 4]
    with pytest.raises(ValueError, match="another release"):
        teachers.with_durations(model, "elsewhere")


def test_tempos_have_a_natural_one():
    assert TEMPOS[speak.NATURAL] == 1.0
    assert [speak.nearest_tempo(t) for t in (0.1, 0.64, 0.66, 1.05, 1.07, 9)] == ["1", "1", "2", "5", "6", "9"]


def test_models_of_phonemes(tmp_path):
    torch = pytest.importorskip("torch")
    from voxgrain_tools.export import bundle, export
    from voxgrain_tools.fixtures import tiny
    from voxgrain_tools.train import lm

    cpu = torch.device("cpu")
    rng = np.random.default_rng(0)
    texts = ["5həlˈO.", "9ðə kwˈɪk bɹˈWn fˈɑks?", "1ʧˈɛlO — “jˈɛs.”"]
    lengths = np.array([30, 60, 45])
    data = {"texts": texts, "lengths": lengths, "tokens": rng.integers(0, 65536, lengths.sum()).astype(np.uint16)}
    config = lm.with_alphabet(lm.TOY_TARGET, "phonemes")
    assert config["nph"] >= 72 + 5 and lm.with_alphabet(lm.TOY_TARGET) == lm.TOY_TARGET
    with pytest.raises(ValueError, match="which the alphabet has not"):
        lm.Documents(data, cpu)
    documents = lm.Documents(data, cpu, characters=ALPHABETS["phonemes"])
    ids = documents.stream.tolist()
    first = ids[1 : 1 + len(texts[0])]
    assert [ALPHABETS["phonemes"][i - 65540] for i in first] == list(texts[0])
    letters, _ = lm.train(
        "letters", lm.TOY_TARGET, str(tmp_path), dict(data, texts=["a", "b", "c"]), dict(data, texts=["a", "b", "c"]),
        1e4, cpu, positions=512, max_steps=1, warmup=1,
    )  # fmt: skip
    model, facts = lm.train(
        "target", config, str(tmp_path), data, data, 1e4, cpu, positions=512, max_steps=2, warmup=1, init=letters
    )
    assert np.isfinite(facts["best"]) and model.characters == ALPHABETS["phonemes"]
    tokens, _ = lm.generate(model, texts[:1], cpu, longest=4)
    assert len(tokens) == 1
    # Into a bundle and back: the alphabet travels.
    checkpoint = export.Checkpoint.open(tmp_path / "target.safetensors")
    codec = tiny.codec(1)
    export.write(tmp_path / "bundle", checkpoint, checkpoint, codec, name="phonemes", lexicon="../en-us.lexicon")
    assert bundle.read(tmp_path / "bundle")["vocabulary"]["characters"] == ALPHABETS["phonemes"]
    again = lm.lm_from_bundle(str(tmp_path / "bundle"))
    assert again.characters == model.characters and again.config["nph"] == config["nph"]
