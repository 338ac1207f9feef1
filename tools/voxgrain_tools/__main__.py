"""python -m voxgrain_tools STAGE --help"""

import argparse
import importlib
import sys

# stage: (module, functions that add arguments and run, name of the example, one line)
STAGES = {
    "corpus-text": ("corpus.text", "add_arguments", "run", "EXAMPLE", "training sentences from Debian's free texts"),
    "synth": ("corpus.synth", "add_arguments", "run", "EXAMPLE", "the corpus spoken by flite, with phone times"),
    "codec": ("train.codec_train", "add_arguments", "run", "EXAMPLE", "trains the codec, for both voices"),
    "codec-eval": ("measure.codec_eval", "add_arguments", "run", "EXAMPLE", "STOI, PESQ and intelligibility of a codec"),
    "tokenize": ("train.codec", "add_tokenize_arguments", "run_tokenize", "EXAMPLE_TOKENIZE", "the spoken corpus as codec tokens"),
    "target": ("train.lm", "add_target_arguments", "run_target", "EXAMPLE_TARGET", "trains the target model"),
    "draft": ("train.lm", "add_draft_arguments", "run_draft", "EXAMPLE_DRAFT", "trains the draft, then distils it from the target"),
    "draft-features": ("train.features", "add_arguments", "run", "EXAMPLE", "trains a draft that sees the target's features"),
    "recogniser": ("train.recogniser", "add_arguments", "run", "EXAMPLE", "trains the character recogniser that judges speech"),
    "acceptance": ("train.lm", "add_acceptance_arguments", "run_acceptance", "EXAMPLE_ACCEPTANCE", "teacher-forced acceptance of the drafts"),
    "precision": ("measure.precision", "add_arguments", "run", "EXAMPLE", "what rounding the target costs, by ear"),
    "judge": ("measure.judge", "add_arguments", "run", "EXAMPLE", "what is heard of a voice, and how it sounds"),
    "say-right": ("measure.say_right", "add_arguments", "run", "EXAMPLE", "initialisms, odd words, numbers and short replies"),
    "train-all": ("train.pipeline", "add_arguments", "run", "EXAMPLE_ALL", "all stages in three parts with time budgets"),
    "train-toy": ("train.pipeline", "add_toy_arguments", "run_toy", "EXAMPLE_TOY", "all stages at toy size on a CPU"),
    "restore": ("train.pipeline", "add_restore_arguments", "run_restore", "EXAMPLE_RESTORE", "a work folder from part 1's results"),
    "join": ("files", "add_arguments", "run", "EXAMPLE", "puts files together that train-all cut"),
    "shrink": ("files", "add_shrink_arguments", "run_shrink", "EXAMPLE_SHRINK", "a checkpoint's matrices to int8"),
}
for _name, _module, _line in (
    ("export", "export.export", "checkpoints to ONNX"),
    ("golden", "fixtures.golden", "reference values for the runtime's tests"),
    ("evaluate", "measure.evaluate", "intelligibility of the decoding arms"),
    ("tiny", "fixtures.tiny", "a random tiny bundle for tests"),
    ("stock", "fixtures.stock", "a random tiny model of stock matrix products for tests"),
    ("experiments", "measure.experiments", "every experiment on groups, for docs/experiments"),
):
    STAGES[_name] = (_module, "add_arguments", "run", None, _line)


def main():
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        print("usage: python -m voxgrain_tools STAGE [--help]\n")
        for name, entry in STAGES.items():
            print(f"  {name:14} {entry[4]}")
        return 0
    stage = sys.argv[1]
    if stage not in STAGES:
        print(f"unknown stage {stage!r}; try --help", file=sys.stderr)
        return 2
    module_name, add, run, example, line = STAGES[stage]
    module = importlib.import_module(f"{__package__}.{module_name}")
    text = getattr(module, example or "EXAMPLE", None) or f"python -m voxgrain_tools {stage} --work /tmp/vx"
    parser = argparse.ArgumentParser(prog=f"python -m voxgrain_tools {stage}", description=line[0].upper() + line[1:] + ".",
                                     epilog=f"example: {text}", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    getattr(module, add)(parser)
    return getattr(module, run)(parser.parse_args(sys.argv[2:])) or 0


if __name__ == "__main__":
    sys.exit(main())
