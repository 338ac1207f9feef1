"""Stages join and shrink: files that train-all cut put together, and checkpoints with int8 matrices."""

from .common import join, log

EXAMPLE = "python -m voxgrain_tools join --folder out --out .dev/checkpoints"


def add_arguments(parser):
    parser.add_argument("--folder", required=True, help="holds NAME.000, NAME.001, ...")
    parser.add_argument("--out", required=True)


def run(args):
    log("joined", join(args.folder, args.out))


EXAMPLE_SHRINK = "python -m voxgrain_tools shrink checkpoints/codec_encoder.safetensors data/codec_encoder.safetensors"


def add_shrink_arguments(parser):
    parser.add_argument("checkpoint")
    parser.add_argument("out")


def run_shrink(args):
    """Matrices to int8 with a float16 scale a row, as `common.load` reads them; everything else as it is."""
    import os

    import numpy as np
    from safetensors import safe_open
    from safetensors.numpy import save_file

    with safe_open(args.checkpoint, "np") as f:
        metadata, out = f.metadata(), {}
        for name in f.keys():
            value = f.get_tensor(name)
            if value.ndim == 2 and value.shape[1] >= 64:
                value = value.astype(np.float32)
                scale = (np.maximum(np.abs(value).max(1, keepdims=True), 1e-6) / 127).astype(np.float16)
                out[name + "_scale"] = scale
                value = np.rint(value / scale.astype(np.float32)).clip(-127, 127).astype(np.int8)
            out[name] = value
    save_file(out, args.out + ".part", metadata=metadata)
    os.replace(args.out + ".part", args.out)
    log(f"{os.path.getsize(args.checkpoint):,} to {os.path.getsize(args.out):,} bytes")
