"""Stage join: puts the files together that train-all cut to 16 MiB, and unpacks 12-bit checkpoints."""

from .common import join, log

EXAMPLE = "python -m voxgrain_tools join --folder out --out .dev/checkpoints"


def add_arguments(parser):
    parser.add_argument("--folder", required=True, help="holds NAME.000, NAME.001, ...")
    parser.add_argument("--out", required=True)


def run(args):
    log("joined", join(args.folder, args.out))
