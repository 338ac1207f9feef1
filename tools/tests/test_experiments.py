import json

import pytest

from voxgrain_tools.measure import experiments


def test_names_are_those_of_the_program():
    assert experiments.stem("fsq:2@1") == "fsq-2-p1"
    assert experiments.stem("head-cos:0.6") == "head-cos-0.6"
    for name, kind in (("fsq-2-p1", "fsq"), ("head-top-32", "head-top"), ("cos-0.7", "cos"), ("l2-top-32", "l2-top")):
        assert experiments.kind_of(name) == kind


def test_tables_go_between_their_marks():
    text = "a\n<!-- x -->\nold\n<!-- /x -->\nb\n<!-- y -->\n<!-- /y -->\n"
    out = experiments.fill(text, {"x": "| new |", "y": "z"})
    assert out == "a\n<!-- x -->\n| new |\n<!-- /x -->\nb\n<!-- y -->\nz\n<!-- /y -->\n"
    assert experiments.fill(out, {"x": "| new |", "y": "z"}) == out
    with pytest.raises(SystemExit):
        experiments.fill(text, {"missing": ""})


def three(value):
    return [value, value - 0.01, value + 0.01]


def family(name, groups, power=None):
    bounds = {
        k: three(groups)
        for k in (
            "bound_token",
            "equal",
            "common",
            "step",
            "climbed",
            "near_low",
            "near_high",
            "shared_low",
            "shared_high",
        )
    }
    return {
        "name": name,
        "mean_members": 13.0,
        "max_members": 17,
        "bytes": 690000,
        "power": power,
        "groups": three(groups),
        "groups_minus_token": three(0.1),
        "groups_shift": three(0.2),
        "transport": three(0.8),
        "bound_positions": 50,
        **bounds,
    }


def laws(families, **law):
    depth = {
        "depth": 1,
        "positions": 100,
        "token": three(0.6),
        "tolerance": three(0.8),
        "tolerance_shift": three(0.2),
        "families": families,
    }
    law = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, **law}
    return {**law, "depths": [depth, depth | {"depth": 4}]}


def lane(name, arm, index):
    return {
        "lane": name,
        "arm": arm,
        "index": index,
        "acceptance_rate": three(0.5),
        "cut": 0,
        "drafted_per_round": three(3),
        "tokens_per_round": three(2.5),
        "speed_up": three(1.3),
        "cer": three(0.1),
        "cer_minus": three(0.01),
        "wer": three(0.3),
        "wer_minus": three(0.02),
        "skip": 1,
        "repeat": 0,
        "missing_end": 0,
    }


def results():
    families = [family("fsq-1", 0.7), family("fsq-2", 0.75), family("fsq-2-p1", 0.74, 1.0)]
    accepted = {"sentences": 9, "settings": [laws(families)]}
    law = {"temperature": 1.0, "top_k": 0, "top_p": 1.0}
    speech = {
        "sentences": 9,
        "threads": 2,
        "kernel": "k",
        "gamma": "auto",
        "sampling": law,
        "lanes": [lane("ar", "ar", None), lane("pcg-fsq-1", "pcg", "fsq-1")],
    }
    swapped = {
        "name": "fsq-1",
        "mean_members": 13.0,
        "mel_db": three(1.5),
        "replaced": three(1),
        "cer_minus": three(0.02),
        "cer": three(0.1),
    }
    swap = {"sentences": 9, "unswapped": {"cer": three(0.1)}, "families": [swapped]}
    spread = {"p50": 60.0, "p95": 80.0}
    live = {
        "sampling": law,
        "mass": 1.0,
        "support": spread,
        "token": three(0.6),
        "live": three(0.7),
        "live_shift": three(0.1),
        "index_shift": three(0.1),
        "index": three(0.7),
        "live_us": spread,
        "index_us": None,
        "live_bytes": 1000,
        "index_bytes": None,
        "skipped": 0,
    }
    return {
        "acceptance": accepted,
        "bounds": accepted,
        "depth": accepted,
        "swap": swap,
        "shared": swap | {"families": [swapped | {"name": "fsq-1-shared"}]},
        "sweep": speech,
        "arms": speech,
        "grid": {"settings": [laws(families[:1])], "policy": [speech]},
        "live": {"cosine": {"theta": 0.7, "fsq": None, "rows": [live]}},
        "drafts": {"plain": {"acceptance": accepted, "speech": speech}},
        "codebooks": {
            "small": {
                "codes": 1024,
                "acceptance": accepted | {"settings": [laws(families[:1])]},
                "swap": swap,
                "speech": speech,
            }
        },
    }


def test_every_result_has_a_table_of_equal_rows():
    found = json.loads(json.dumps(results()))
    parts = experiments.tables(found)
    assert set(parts) == {
        "acceptance",
        "bounds",
        "depth",
        "frontier",
        "sweep",
        "arms",
        "grid",
        "live",
        "drafts",
        "codebooks",
    }
    for text in parts.values():
        for block in text.split("\n\n"):
            widths = {line.count("|") for line in block.splitlines() if line.startswith("|")}
            assert len(widths) <= 1, block
    assert "| fsq-1 | 13.0 | 17 | 0.69 | 0.700 [0.690, 0.710]" in parts["acceptance"]
    assert "| fsq-1 | 13.0 | 0.700 | 0.800 | 1.50" in parts["frontier"]


def test_plots_are_written(tmp_path):
    pytest.importorskip("matplotlib")
    experiments.plots(results(), tmp_path)
    names = {p.stem for p in tmp_path.glob("*.svg")}
    assert names == {"acceptance", "frontier", "bounds", "depth", "sweep", "arms", "grid"}


def test_only_what_steps_use_is_built():
    assert experiments.needed(["grid", "acceptance"], ["fsq:1"]) == []
    assert experiments.needed(["arms"], ["fsq:1"]) == ["fsq:1"]
    assert experiments.needed(["drafts", "live"], ["fsq:1"]) == list(experiments.CHAINS)
    assert set(experiments.GRID) <= set(experiments.needed(["grid", "sweep"], []))
