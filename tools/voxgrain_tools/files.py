"""Files that travel: checkpoints in fewer bits, cut to a size, and put together again (stages join and shrink)."""

from __future__ import annotations

import argparse
import os
import shutil

import numpy as np

from .common import log

EXAMPLE = "python -m voxgrain_tools join --folder out --out .dev/checkpoints"
EXAMPLE_SHRINK = "python -m voxgrain_tools shrink checkpoints/codec_encoder.safetensors data/codec_encoder.safetensors"


def split(path: str, folder: str, limit: int = 15_700_000) -> list[str]:
    """Cuts a file into PATH.000, PATH.001, ... of at most `limit` bytes; `join` puts it together."""
    data = open(path, "rb").read()
    parts = max(1, -(-len(data) // limit))
    size = -(-len(data) // parts)
    names = []
    for i in range(parts):
        name = os.path.join(folder, f"{os.path.basename(path)}.{i:03d}")
        with open(name, "wb") as f:
            f.write(data[i * size : (i + 1) * size])
        names.append(name)
    return names


def join(folder: str, out: str) -> list[str]:
    """Joins every NAME.000, NAME.001, ... in `folder` into out/NAME; unpacks .packed checkpoints."""
    os.makedirs(out, exist_ok=True)
    names = sorted({n[:-4] for n in os.listdir(folder) if n[-4:] == ".000"})
    made = []
    for name in names:
        path, i = os.path.join(out, name), 0
        with open(path, "wb") as f:
            while os.path.exists(part := os.path.join(folder, f"{name}.{i:03d}")):
                f.write(open(part, "rb").read())
                i += 1
        if name.endswith(".packed"):
            unpack12(path, path[:-7])
            os.remove(path)
            path = path[:-7]
        made.append(path)
    return made


def pack12(path: str, packed: str) -> None:
    """Matrices as 12-bit integers with a scale a row: 3/4 of float16's size, far finer than int8."""
    from safetensors import safe_open
    from safetensors.numpy import save_file

    with safe_open(path, "np") as f:
        metadata = dict(f.metadata() or {})
        out = {}
        for name in f.keys():
            value = f.get_tensor(name)
            if value.ndim != 2 or value.size < 4096 or value.size % 2:
                out[name] = value
                continue
            value = value.astype(np.float32)
            scale = np.maximum(np.abs(value).max(1, keepdims=True), 1e-8) / 2047
            q = (np.rint(value / scale).astype(np.int32) + 2048).astype(np.uint16).reshape(-1, 2)
            out[name + "_12"] = np.stack(
                [q[:, 0] & 255, (q[:, 0] >> 8) | ((q[:, 1] & 15) << 4), q[:, 1] >> 4], 1
            ).astype(np.uint8)
            out[name + "_12_scale"] = scale.astype(np.float32)
    save_file(out, packed, metadata=metadata)


def unpack12(packed: str, path: str) -> None:
    from safetensors import safe_open
    from safetensors.numpy import save_file

    with safe_open(packed, "np") as f:
        metadata, out = f.metadata(), {}
        for name in f.keys():
            if name.endswith("_12_scale"):
                continue
            value = f.get_tensor(name)
            if name.endswith("_12"):
                b, scale = value.astype(np.uint16), f.get_tensor(name + "_scale")
                q = np.stack([b[:, 0] | ((b[:, 1] & 15) << 8), (b[:, 1] >> 4) | (b[:, 2] << 4)], 1)
                value = ((q.reshape(len(scale), -1).astype(np.float32) - 2048) * scale).astype(np.float16)
                name = name[:-3]
            out[name] = value
    save_file(out, path, metadata=metadata)


def ship(path: str, out: str, limit: int = 15_700_000) -> list[str]:
    """A checkpoint into `out`: as it is, or in 12 bits and cut, if it is too large to travel whole."""
    if os.path.getsize(path) <= limit:
        return [shutil.copy(path, out)]
    pack12(path, path + ".packed")
    return split(path + ".packed", out, limit)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--folder", required=True, help="holds NAME.000, NAME.001, ...")
    parser.add_argument("--out", required=True)


def run(args: argparse.Namespace) -> None:
    log("joined", join(args.folder, args.out))


def add_shrink_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint")
    parser.add_argument("out")


def run_shrink(args: argparse.Namespace) -> None:
    """Matrices to int8 with a float16 scale a row, as `common.load` reads them; everything else as it is."""
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
