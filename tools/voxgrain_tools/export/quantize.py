"""Block quantisation and the packed layout of `ai.voxgrain.QMatMul`.

A weight matrix [N, K] is cut into blocks of 32 columns of one row; each block has one f16 scale.
Packing is lossless: `unpack(pack(q, scales))` gives back exactly the integers and scales.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BLOCK = 32
ROWS = 16


@dataclass(frozen=True)
class Quantised:
    """Integers [N, K] (int8) and one f16 scale a block [N, K / 32]."""

    values: np.ndarray
    scales: np.ndarray
    bits: int

    def dequantise(self) -> np.ndarray:
        n, k = self.values.shape
        blocks = self.values.reshape(n, k // BLOCK, BLOCK).astype(np.float32)
        return (blocks * self.scales.astype(np.float32)[:, :, None]).reshape(n, k)


def _f16_up(x: np.ndarray) -> np.ndarray:
    """The smallest f16 that is not below x, so that x / scale never exceeds the integer range."""
    h = x.astype(np.float16)
    low = h.astype(np.float32) < x
    h[low] = np.nextafter(h[low], np.float16(np.inf))
    return h


def _round(blocks: np.ndarray, scale: np.ndarray, low: int, high: int) -> np.ndarray:
    s = scale.astype(np.float32)[:, :, None]
    return np.clip(np.rint(blocks / np.where(s > 0, s, 1)), low, high)


def quantise(weight: np.ndarray, bits: int = 8) -> Quantised:
    """Symmetric quantisation of float32 [N, K], K a multiple of 32, to 8 or 4 bits."""
    n, k = weight.shape
    if k % BLOCK:
        raise ValueError(f"{k} columns are not a multiple of {BLOCK}: pad with zero columns first")
    if not np.isfinite(weight).all():
        raise ValueError("weight has a value that is not finite")
    blocks = np.ascontiguousarray(weight, dtype=np.float32).reshape(n, k // BLOCK, BLOCK)
    peak = np.abs(blocks).max(axis=2)
    if bits == 8:
        scales = _f16_up(peak / 127)
        values = _round(blocks, scales, -127, 127)
    elif bits == 4:
        best = np.full(peak.shape, np.inf, dtype=np.float32)
        scales = np.zeros(peak.shape, dtype=np.float16)
        values = np.zeros(blocks.shape, dtype=np.float32)
        # From well inside the range (clipping the peak) to a little over peak / 7.
        for factor in np.linspace(0.70, 1.02, 17):
            trial = _f16_up(peak / 7 * np.float32(factor))
            q = _round(blocks, trial, -8, 7)
            # The least-squares scale for these integers, then the integers for that scale.
            square = (q * q).sum(axis=2)
            trial = np.where(square > 0, (q * blocks).sum(axis=2) / np.maximum(square, 1), 0)
            trial = np.maximum(trial, 0).astype(np.float16)
            q = _round(blocks, trial, -8, 7)
            error = ((q * trial.astype(np.float32)[:, :, None] - blocks) ** 2).sum(axis=2)
            better = error < best
            best[better], scales[better], values[better] = error[better], trial[better], q[better]
    else:
        raise ValueError(f"bits must be 8 or 4, not {bits}")
    values[scales == 0] = 0
    return Quantised(values.reshape(n, k).astype(np.int8), scales, bits)


def pack(matrix: Quantised) -> tuple[np.ndarray, np.ndarray]:
    """The bytes u8 [N16, K/32, 32/(64/bits), 16, 4] and the scales f16 [N16, K/32, 16] of QMatMul.

    16 rows are interleaved so that 64 bytes hold 4 neighbouring columns of 16 rows.
    """
    n, k = matrix.values.shape
    n16, kb = -(-n // ROWS), k // BLOCK
    values = np.zeros((n16 * ROWS, k), dtype=np.int16)
    values[:n] = matrix.values
    scales = np.zeros((n16 * ROWS, kb), dtype=np.float16)
    scales[:n] = matrix.scales
    # [N16, 16, KB, 8, 4] -> [N16, KB, 8, 16, 4]
    tiles = values.reshape(n16, ROWS, kb, 8, 4).transpose(0, 2, 3, 1, 4)
    if matrix.bits == 8:
        packed = (tiles + 128).astype(np.uint8)
    else:
        nibbles = (tiles + 8).astype(np.uint8)
        packed = nibbles[:, :, :4] | (nibbles[:, :, 4:] << 4)
    return (np.ascontiguousarray(packed), np.ascontiguousarray(scales.reshape(n16, ROWS, kb).transpose(0, 2, 1)))


def pack_rows(matrix: Quantised) -> tuple[np.ndarray, np.ndarray]:
    """The weights u8 [N, K/32, 32 or 16] and the scales f32 [N, K/32] of the stock operator
    `com.microsoft.MatMulNBits`: row by row, column 2i in the low nibble of byte i of a block."""
    n, k = matrix.values.shape
    stored = (matrix.values.astype(np.int16) + (1 << (matrix.bits - 1))).astype(np.uint8)
    if matrix.bits == 4:
        stored = stored[:, 0::2] | (stored[:, 1::2] << 4)
    return (np.ascontiguousarray(stored.reshape(n, k // BLOCK, -1)), matrix.scales.astype(np.float32))


def pack_table(matrix: Quantised) -> tuple[np.ndarray, np.ndarray]:
    """The values u8 [N, K/32, 32 or 16] and the scales f16 [N, K/32] of QEmbed: row by row, column i of a block in
    the low nibble of its byte i and column i + 16 in the high one."""
    n, k = matrix.values.shape
    stored = (matrix.values.astype(np.int16) + (1 << (matrix.bits - 1))).astype(np.uint8).reshape(n, k // BLOCK, BLOCK)
    if matrix.bits == 4:
        stored = stored[:, :, :16] | (stored[:, :, 16:] << 4)
    return np.ascontiguousarray(stored), np.ascontiguousarray(matrix.scales)


def unpack_table(values: np.ndarray, scales: np.ndarray, bits: int) -> Quantised:
    """The inverse of `pack_table`."""
    whole = values if bits == 8 else np.concatenate([values & 15, values >> 4], axis=2)
    whole = whole.astype(np.int16) - (1 << (bits - 1))
    return Quantised(whole.astype(np.int8).reshape(len(values), -1), np.ascontiguousarray(scales), bits)


def dequantise_rows(
    weights: np.ndarray, scales: np.ndarray, bits: int, zero_points: np.ndarray | None = None
) -> np.ndarray:
    """Float32 [N, K] of a MatMulNBits node's tensors."""
    n, kb = weights.shape[:2]

    def stored(bytes_: np.ndarray) -> np.ndarray:
        """Numbers of `bits` each along the last axis, low nibble first."""
        if bits == 8:
            return bytes_.astype(np.float32)
        pairs = np.stack([bytes_ & 15, bytes_ >> 4], axis=-1)
        return pairs.reshape(*bytes_.shape[:-1], -1).astype(np.float32)

    zero = np.full((n, kb), 1 << (bits - 1), np.float32)
    if zero_points is not None:
        zero = stored(zero_points.reshape(n, -1))[:, :kb]
    blocks = (stored(weights) - zero[:, :, None]) * scales.reshape(n, kb, 1).astype(np.float32)
    return blocks.reshape(n, kb * BLOCK)


def unpack_rows(weights: np.ndarray, scales: np.ndarray, bits: int) -> Quantised:
    """The inverse of `pack_rows`; scales that f16 does not hold exactly are refused."""
    half = scales.reshape(weights.shape[:2]).astype(np.float16)
    if not np.array_equal(half.astype(np.float32), scales.reshape(half.shape).astype(np.float32)):
        raise ValueError("f16 does not hold the scales exactly")
    whole = dequantise_rows(weights, np.ones_like(half), bits)
    return Quantised(whole.astype(np.int8), half, bits)


def unpack(packed: np.ndarray, scales: np.ndarray, rows: int, bits: int) -> Quantised:
    """The inverse of `pack`."""
    n16, kb = packed.shape[:2]
    if bits == 8:
        tiles = packed.astype(np.int16) - 128
    else:
        tiles = np.concatenate([packed & 15, packed >> 4], axis=2).astype(np.int16) - 8
    values = tiles.transpose(0, 3, 1, 2, 4).reshape(n16 * ROWS, kb * BLOCK)[:rows]
    blocks = scales.transpose(0, 2, 1).reshape(n16 * ROWS, kb)[:rows]
    return Quantised(np.ascontiguousarray(values.astype(np.int8)), np.ascontiguousarray(blocks), bits)
