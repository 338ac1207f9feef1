"""Error counts of `judge` on cases made by hand."""

import numpy as np
import pytest

from voxgrain_tools import scoring

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
