"""The codec encoder checkpoint as a function from sound to tokens (PyTorch)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np


class Encoder:
    def __init__(self, path: Path, **overrides: Any) -> None:
        import torch

        from .. import common
        from . import codec

        tensors, config = common.load(str(path))
        config = {**codec.CONFIG, "features": codec.FEATURES_BEFORE, **config, **overrides}
        self._features = codec.features_of(config)
        self._model = codec.Encoder(config).eval()
        self._model.load_state_dict(tensors)
        self._torch, self._codec = torch, codec

    def __call__(self, sound: np.ndarray) -> np.ndarray:
        """Token ids of float32 samples at 16 kHz, padded with silence to whole tokens."""
        frame = self._codec.FRAME
        sound = np.pad(sound.astype(np.float32), (0, -len(sound) % frame))
        with self._torch.inference_mode():
            heard = self._features(self._torch.from_numpy(sound)[None])
            return self._codec.tokens_of(self._model(heard))[0].numpy()
