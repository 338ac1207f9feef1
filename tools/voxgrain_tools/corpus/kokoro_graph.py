"""Kokoro's graph by torch, for a GPU: in float, with the empty bins of its source as onnxruntime has them."""

from __future__ import annotations

import onnx
import torch

from .torch_graph import Attributes, TorchGraph, Value, in_float

# The source of Kokoro's sound is a constant where nothing is voiced. Of its transform of 20 samples all bins but two
# are then empty, exactly. onnxruntime leaves rounding errors there, the same in every such frame, and as the graph
# hears the phase of a bin as much as its size, they are heard: with zeros in their place unvoiced sounds are worse.
# These are those of onnxruntime's CPU provider.
PHASES = (0.0, 0.0, 2.49, -2.13, 0.79, -2.13, 0.17, 2.93, -1.34, 2.74, -1.55)
SIZES = (0.0, 0.0, 2.79e-8, 4.14e-8, 6.51e-8, 7.40e-8, 8.46e-8, 7.60e-8, 1.21e-8, 8.56e-8, 13.1e-8)
# The squared size below which a bin is taken for empty: that of 5e-7, about four times the largest of SIZES.
EMPTY = 2.5e-13
# The constant's own imaginary part, as a share of it. Its sign decides between pi and -pi for a negative constant: pi.
TILT = -4.5e-7


class KokoroGraph(TorchGraph):
    """Float products of the int8 graph `model` (`teachers.with_durations`), on a device."""

    def __init__(self, model: bytes, device: torch.device | str = "cpu") -> None:
        super().__init__(in_float(onnx.load_from_string(model)), device)
        self._rounding = torch.view_as_real(torch.polar(torch.tensor(SIZES), torch.tensor(PHASES))).to(self.device)

    def op_STFT(
        self, at: Attributes, a: torch.Tensor, step: torch.Tensor, window: torch.Tensor, length: Value = None
    ) -> torch.Tensor:
        bins = super().op_STFT(at, a, step, window, length)
        empty = bins.square().sum(-1, keepdim=True) < EMPTY
        bins = torch.where(empty, self._rounding, bins)
        bins[:, :, 0, 1] = TILT * bins[:, :, 0, 0]
        return bins

    def op_Atan(self, at: Attributes, a: torch.Tensor) -> torch.Tensor:
        # 0 / 0 in the two bins that may be exactly empty.
        return a.nan_to_num(0.0, 1e30, -1e30).atan()
