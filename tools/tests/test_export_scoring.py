"""Error counts of `evaluate` on cases made by hand."""

import json

import numpy as np
import pytest

from voxgrain_tools import scoring
from voxgrain_tools.measure import evaluate

TEXT = "the cat sat on the old mat by the door"


@pytest.mark.parametrize(
    ("heard", "expected"),
    [
        (TEXT, set()),
        ("the cat sat on the mat by the door", set()),  # one word is not a skip
        ("the cat sat mat by the door", {"skip"}),
        ("the cat sat on the old mat by", {"missing_end"}),
        ("the cat sat on", {"missing_end"}),
        ("", {"missing_end"}),
        ("the cat sat on the old mat by the", set()),  # the last word alone
        ("the cat sat sat on the old mat by the door", {"repeat"}),
        ("the cat sat on the cat sat on the old mat by the door", {"repeat"}),
        ("the cat sat up on the old mat by the door", set()),  # inserted, but no repeat
        ("the dog sat on a cold hat by the floor", set()),
        ("on the old mat by the door the door", {"skip", "repeat"}),
    ],
)
def test_faults(heard, expected):
    found = scoring.faults(TEXT.split(), heard.split())
    assert {k for k, v in found.items() if v} == expected


def test_suspects_give_the_words_said():
    reference = TEXT.split()
    for said in (
        "the cat sat mat by the door",
        "the cat sat sat on the old mat by the door",
        "on the old mat by the door",
    ):
        found = scoring.suspects(reference, said.split())
        assert [words for _, words in found] == [said.split()]


def test_faults_of_a_single_word():
    assert scoring.faults(["yes"], [])["missing_end"]
    assert not any(scoring.faults(["yes"], ["yes"]).values())
    assert not any(scoring.faults([], ["um"]).values())


def test_alignment_covers_both_sides_once():
    rng = np.random.default_rng(0)
    for _ in range(200):
        a = rng.integers(0, 4, rng.integers(0, 9)).tolist()
        b = rng.integers(0, 4, rng.integers(0, 9)).tolist()
        path = scoring.align(a, b)
        assert [i for o, i, _ in path if o != scoring.INSERT] == list(range(len(a)))
        assert [j for o, _, j in path if o != scoring.DELETE] == list(range(len(b)))
        assert sum(o != scoring.EQUAL for o, _, _ in path) == scoring.distance(a, b)


def test_score_counts_words_and_characters():
    s = scoring.score("Don't stop, now!", "don't stop no")
    assert (s["words"], s["word_errors"]) == (3, 1)
    assert (s["characters"], s["character_errors"]) == (len("don't stop now"), 1)


def test_bootstrap_interval_covers_the_truth_and_pairs_help():
    rng = np.random.default_rng(1)
    totals = np.full(400, 10)
    base = rng.binomial(10, 0.2, 400)
    worse = np.minimum(base + (rng.random(400) < 0.2), 10)
    rate, low, high = scoring.bootstrap(base, totals)
    assert low < 0.2 < high and rate == base.sum() / 4000
    difference, low, high = scoring.bootstrap(worse, totals, base=(base, totals))
    assert 0 < low < difference < high
    assert high - low < 0.02


def test_arms_run_in_batches_and_resume(tmp_path, monkeypatch):
    program = tmp_path / "say.py"
    calls = tmp_path / "calls"
    program.write_text(
        f"""
import argparse, json, pathlib, wave
p = argparse.ArgumentParser()
p.add_argument("say")
for name in ("--batch", "--out-dir", "--arm", "--seed"):
    p.add_argument(name)
p.add_argument("--json", action="store_true")
a = p.parse_args()
with open({str(calls)!r}, "a") as f:
    f.write(a.seed + "\\n")
for i, text in enumerate(open(a.batch).read().splitlines()):
    with wave.open(str(pathlib.Path(a.out_dir) / f"{{i:05}}.wav"), "wb") as w:
        w.setparams((1, 2, 16000, 0, "NONE", ""))
        w.writeframes(bytes(320))
    print(json.dumps({{"arm": a.arm, "text": text, "tokens": 5, "rounds": 2}}))
"""
    )
    monkeypatch.setattr(evaluate, "CHUNK", 2)
    command = ["python3", str(program), "say", "--arm", "sd"]
    texts = ["one", "two", "three"]
    for _ in range(2):
        facts = evaluate.speak_arm(command, texts, tmp_path / "sd", seed=7)
        assert [f["text"] for f in facts] == texts
        assert all((tmp_path / "sd" / f"{i:05}.wav").exists() for i in range(3))
    assert calls.read_text().split() == ["7", "9"]


def test_report_has_every_condition_and_prints():
    texts = ["the cat sat on the mat"] * 30
    heard = {"whisper": {"flite": texts, "ar": texts, "pcg": ["the cat sat"] * 30}}
    seconds = {"flite": [2.0] * 30, "ar": [2.1] * 30, "pcg": [1.0] * 30}
    log = {"tokens": 100, "rounds": 40, "proposed": 160, "accepted": 80}
    log |= {"compute_seconds": 0.2, "audio_seconds": 2.0}
    facts = {"ar": [{**log, "proposed": 0, "accepted": 0}] * 30, "pcg": [log] * 30}
    facts["pcg"] = [{**log, "capped": i == 0} for i in range(30)]
    report = evaluate.summarise(texts, heard, seconds, facts)
    pcg = report["conditions"]["pcg"]
    assert pcg["recognisers"]["whisper"]["wer"][0] == pytest.approx(0.5)
    assert pcg["recognisers"]["whisper"]["wer_minus_ar"][0] == pytest.approx(0.5)
    assert pcg["recognisers"]["whisper"]["missing_end"] == 30 and pcg["capped"] == 1
    assert pcg["tokens_per_round"] == 2.5 and pcg["acceptance_rate"] == 0.5
    assert pcg["duration_ratio"] == 0.5
    assert "| pcg | 50.0 [50.0, 50.0]" in evaluate.markdown(report)
    assert json.dumps(report)
