"""Judging without the judges: what is made, kept, counted and compared."""

import argparse
import json
import sys

import numpy as np
import pytest

from voxgrain_tools import audio
from voxgrain_tools.corpus import teachers
from voxgrain_tools.measure import conditions, judge, mos
from voxgrain_tools.measure.cache import Verdicts

RATE = 16000

# Stands in for the program: a WAV file and a line of JSON for each line of the batch.
PROGRAM = """
import argparse, pathlib, sys, wave
p = argparse.ArgumentParser()
p.add_argument("say")
for name in ("bundle", "arm", "threads", "batch", "out-dir", "seed"):
    p.add_argument("--" + name)
p.add_argument("--json", action="store_true")
a = p.parse_args()
texts = pathlib.Path(a.batch).read_text().splitlines()
if "boom" in texts:
    sys.exit("cannot say boom")
with open(pathlib.Path(__file__).parent / "calls", "a") as f:
    f.write(a.batch + "\\n")
for i, text in enumerate(texts):
    with wave.open(f"{a.out_dir}/{i:05}.wav", "wb") as w:
        w.setparams((1, 2, 16000, 0, "NONE", ""))
        w.writeframes(bytes(2 * len(text)))
    print('{"tokens": %d}' % len(text))
"""


def tone(seconds, rate=RATE, frequency=440.0, size=0.3):
    return (size * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def test_wav_files_come_back(tmp_path):
    sound = tone(0.1)
    audio.write_wav(tmp_path / "a.wav", sound, 24000)
    back, rate = audio.read_wav(tmp_path / "a.wav")
    assert rate == 24000 and np.abs(back - sound).max() <= 0.5 / 32768 + 1e-7
    assert audio.seconds_of(tmp_path / "a.wav") == pytest.approx(len(sound) / 24000)
    assert [p.name for p in tmp_path.iterdir()] == ["a.wav"]
    with pytest.raises(ValueError, match="24000 Hz where 16000 Hz"):
        audio.read_wav(tmp_path / "a.wav", RATE)


def test_what_is_too_loud_is_clipped_and_not_wrapped():
    assert audio.pcm16(np.array([1.0, 2.0, -1.0, -3.0])).tolist() == [32767, 32767, -32768, -32768]


def test_resampling_keeps_a_tone_in_place_and_drops_what_the_rate_cannot_hold():
    low, high = tone(0.5, 24000), tone(0.5, 24000, 9000.0)
    inner = slice(400, -400)
    assert np.abs(audio.resample(low, 24000, RATE)[inner] - tone(0.5)[inner]).max() < 1e-3
    assert np.abs(audio.resample(high, 24000, RATE)[inner]).max() < 1e-3


def test_trim_leaves_as_much_silence_as_it_says():
    sound = np.concatenate([np.zeros(RATE), tone(0.5), np.zeros(RATE)]).astype(np.float32)
    first, last = audio.speech_span(sound, RATE)
    assert first == RATE - round(audio.LEAD * RATE) and last == RATE + RATE // 2 + round(audio.TAIL * RATE)
    assert audio.speech_span(np.zeros(RATE, np.float32), RATE) is None
    assert len(audio.trim(np.zeros(RATE, np.float32), RATE)) == RATE


def test_level_is_the_same_for_quiet_and_loud_with_any_silence():
    quiet = np.concatenate([tone(0.5, size=0.01), np.zeros(RATE)]).astype(np.float32)
    for sound in (quiet, quiet * 30, quiet[: RATE // 2]):
        made = audio.level(sound, RATE)[: RATE // 2]
        assert np.sqrt(np.square(made).mean()) == pytest.approx(0.075, rel=1e-3)
    spike = tone(0.5, size=0.01)
    spike[100] = 1.0
    assert np.abs(audio.level(spike, RATE)).max() == pytest.approx(0.95)


def test_fade_begins_and_ends_in_silence_and_leaves_its_input():
    sound = np.ones(RATE, np.float32)
    made = audio.fade(sound, RATE)
    assert made[0] == made[-1] == 0 and made[RATE // 2] == 1 and sound[0] == 1


def test_mel_filters_have_slaneys_area_and_cover_the_band():
    filters = mos.mel_filters()
    frequencies = np.fft.rfftfreq(mos.MEL_FFT, 1 / RATE)
    assert filters.shape == (120, 161) and filters.min() >= 0
    # Bins are coarse beside a band, but over many bands the area is one each.
    assert filters[40:].sum() * frequencies[1] / 80 == pytest.approx(1, rel=0.02)
    centres = frequencies[filters.argmax(1)]
    assert np.all(np.diff(centres) >= 0) and centres[-1] > 7700


def test_log_mel_is_relative_to_the_loudest():
    loud = mos.log_mel(tone(1.0), mos.mel_filters())
    quiet = mos.log_mel(tone(1.0, size=0.03), mos.mel_filters())
    assert loud.shape == (100, 120) and loud.max() == pytest.approx(1) and loud.min() >= -1
    assert np.abs(loud - quiet).max() < 0.05


def test_verdicts_are_kept_and_survive_half_a_line(tmp_path):
    paths = []
    for i, length in enumerate((100, 200, 100)):
        audio.write_wav(tmp_path / f"{i}.wav", np.zeros(length, np.float32))
        paths.append(tmp_path / f"{i}.wav")
    asked = []

    def length(these):
        for path in these:
            asked.append(path.name)
            yield path.stat().st_size

    assert Verdicts("size", tmp_path, length)(paths) == [244, 444, 244]
    assert sorted(asked) == ["1.wav", "2.wav"]  # The third is the first again.
    with (tmp_path / "verdicts-size.jsonl").open("a") as file:
        file.write('{"sound": "')
    assert Verdicts("size", tmp_path, length)(paths) == [244, 444, 244] and len(asked) == 2


def test_the_program_speaks_what_is_new(tmp_path):
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / "bundle.toml").write_text("a")
    program = f"{sys.executable} {script}"
    texts = [f"text {'x' * i}" for i in range(60)]
    out = tmp_path / "out"

    def calls():
        return len((tmp_path / "calls").read_text().splitlines())

    facts = conditions.speak_program(program, bundle, "--arm ar", texts, out)
    assert [f["tokens"] for f in facts] == [len(t) for t in texts] and calls() == 3
    assert [audio.seconds_of(p) * RATE for p in conditions.sounds(out, 60)] == [len(t) for t in texts]
    assert conditions.speak_program(program, bundle, "--arm ar", texts, out) == facts and calls() == 3
    (bundle / "bundle.toml").write_text("b")
    conditions.speak_program(program, bundle, "--arm ar", texts, out)
    assert calls() == 6
    with pytest.raises(SystemExit, match="cannot say boom"):
        conditions.speak_program(program, bundle, "--arm ar", ["boom"], out)
    with pytest.raises(SystemExit, match="60 WAV files for 61 texts"):
        conditions.sounds(out, 61)


def test_differences_are_paired():
    def items(errors, score):
        return [
            {
                "seconds": 1.0,
                "words": 10,
                "word_errors": e,
                "characters": 50,
                "character_errors": e,
                "distillmos": s,
                "skip": False,
                "repeat": False,
                "missing_end": False,
            }
            for e, s in zip(errors, score, strict=True)
        ]

    rng = np.random.default_rng(0)
    errors, scores = rng.integers(0, 3, 200), rng.normal(4, 0.5, 200)
    report = judge.summarise({"ar": items(errors, scores), "pcg": items(errors + 1, scores - 0.1)}, ["ar", "teacher"])
    assert report["pcg"]["wer - ar"] == pytest.approx((0.1, 0.1, 0.1))
    assert report["pcg"]["distillmos - ar"] == pytest.approx((-0.1, -0.1, -0.1))
    low, high = report["ar"]["distillmos"][1:]
    assert low < scores.mean() < high and 0.1 < high - low < 0.2
    assert "p808" not in report["ar"] and "wer - ar" not in report["ar"] and "wer - teacher" not in report["pcg"]
    table = judge.markdown(report, ["ar", "teacher"])
    assert "Minus ar, paired:" in table and "teacher" not in table and "-0.10 [-0.10, -0.10]" in table


def test_a_folder_of_sounds_needs_a_name_of_its_own(tmp_path):
    parser = argparse.ArgumentParser()
    judge.add_arguments(parser)
    texts = ["--texts", "x"]
    for wrong in (["--wavs", str(tmp_path)], ["--wavs", f"a={tmp_path}", "--wavs", f"a={tmp_path}"], []):
        with pytest.raises(SystemExit, match="NAME=DIR|nothing to judge"):
            judge.make_conditions(parser.parse_args(texts + wrong), ["one"], tmp_path / "out")
    assert judge.make_conditions(parser.parse_args([*texts, "--wavs", f"a={tmp_path}"]), ["one"], tmp_path) == {
        "a": tmp_path
    }


def test_lower_case_gets_the_capitals_that_a_tagger_wants():
    assert teachers.written("will i see john?") == "Will I see John?"
    assert teachers.written("The FBI met i.") == "The FBI met i."


def test_json_of_the_report_can_be_read(tmp_path):
    report = judge.summarise({"a": [{**judge.score("one two", "one too"), "seconds": 2.0}]}, [])
    assert json.loads(json.dumps(report))["a"]["wer"][0] == 0.5
