"""python -m voxgrain_tools STAGE --help"""

from __future__ import annotations

import argparse
import importlib
import sys

from . import common  # noqa: F401 - first: its clock counts the seconds that torch takes to load

# Stage: (module, which of its stages where it has several, one line). A module gives add_arguments, run and EXAMPLE, or
# for stage NAME of several add_NAME_arguments, run_NAME and EXAMPLE_NAME.
STAGES = {
    "corpus-text": ("corpus.text", "", "training sentences from Debian's free texts, or --natural ones"),
    "speak": ("corpus.speak", "", "the corpus spoken by a natural teacher, with phonemes, their times and tempos"),
    "synth": ("corpus.synth", "", "the corpus spoken by flite, with phone times, for the toy chain"),
    "codec": ("train.codec_train", "", "trains the codec, for both voices"),
    "codec-eval": ("measure.codec_eval", "", "STOI, PESQ and intelligibility of a codec"),
    "tokenize": ("train.codec", "tokenize", "the spoken corpus as codec tokens"),
    "target": ("train.lm", "target", "trains the target model"),
    "draft": ("train.lm", "draft", "trains the draft, then distils it from the target"),
    "draft-features": ("train.features", "", "trains a draft that sees the target's features"),
    "acceptance": ("train.lm", "acceptance", "teacher-forced acceptance of the drafts"),
    "precision": ("measure.precision", "", "what rounding the target costs, by ear"),
    "judge": ("measure.judge", "", "what is heard of a voice and how it sounds, teacher and codec beside it"),
    "say-right": ("measure.say_right", "", "whether initialisms, odd words, numbers and short replies are understood"),
    "train-all": (
        "train.pipeline",
        "",
        "all stages in three parts with time budgets, for a voice of letters that flite spoke",
    ),
    "train-toy": ("train.pipeline", "toy", "all stages at toy size on a CPU"),
    "restore": ("train.pipeline", "restore", "a work folder from part 1's results"),
    "join": ("files", "", "puts files together that train-all cut"),
    "shrink": ("files", "shrink", "a checkpoint's matrices to int8"),
    "export": ("export.export", "", "checkpoints to ONNX"),
    "golden": ("fixtures.golden", "", "reference values for the runtime's tests"),
    "evaluate": ("measure.evaluate", "", "intelligibility of the decoding arms"),
    "tiny": ("fixtures.tiny", "", "a random tiny bundle for tests"),
    "stock": ("fixtures.stock", "", "a random tiny model of stock matrix products for tests"),
    "taps": ("fixtures.taps", "", "a random tiny pair whose draft reads states of several layers, for tests"),
    "experiments": ("measure.experiments", "", "every experiment on groups, for docs/experiments"),
}


def main() -> int:
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        print("usage: python -m voxgrain_tools STAGE [--help]\n")
        for name, (_, _, line) in STAGES.items():
            print(f"  {name:14} {line}")
        return 0
    stage = sys.argv[1]
    if stage not in STAGES:
        print(f"unknown stage {stage!r}; try --help", file=sys.stderr)
        return 2
    module_name, which, line = STAGES[stage]
    module = importlib.import_module(f"{__package__}.{module_name}")
    which = f"_{which}" if which else ""
    parser = argparse.ArgumentParser(
        prog=f"python -m voxgrain_tools {stage}",
        description=line[0].upper() + line[1:] + ".",
        epilog="example: " + getattr(module, "EXAMPLE" + which.upper()),
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    getattr(module, f"add{which}_arguments")(parser)
    return getattr(module, f"run{which}")(parser.parse_args(sys.argv[2:])) or 0


if __name__ == "__main__":
    sys.exit(main())
