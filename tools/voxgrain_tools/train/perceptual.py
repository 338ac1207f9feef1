"""PESQ-wb (ITU-T P.862.2) as a differentiable distance of aligned sounds at 16 kHz.

The perceptual model and its disturbances, without what needs searching: time alignment, and the second look at frames
that
were badly aligned. PESQ finds delays by correlating waveforms, which goes wrong where a codec's glottal pulses lie
elsewhere
than the speaker's: for such sounds PESQ-wb lies below what is estimated here. Frames are fixed in number, so that a
step
with this loss can be captured as one graph.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import nn

RATE, FFT, HOP = 16000, 512, 256
# The standard's bands: bins of the spectrum in each, and the hearing threshold of each as a power.
BINS = (
    1,
    1,
    1,
    1,
    1,
    1,
    1,
    1,
    2,
    1,
    1,
    1,
    1,
    1,
    2,
    1,
    1,
    2,
    2,
    2,
    2,
    2,
    2,
    2,
    2,
    3,
    3,
    3,
    3,
    4,
    3,
    4,
    5,
    4,
    5,
    6,
    6,
    7,
    8,
    9,
    9,
    12,
    12,
    15,
    16,
    18,
    21,
    25,
    20,
)
THRESHOLDS = (
    51286152.0,
    2454709.5,
    70794.59,
    4897.789,
    1174.898,
    389.0452,
    104.7129,
    45.70882,
    17.7828,
    9.772372,
    4.897789,
    3.090296,
    1.905461,
    1.258925,
    0.977237,
    0.724436,
    0.562341,
    0.457088,
    0.389045,
    0.331131,
    0.295121,
    0.269153,
    0.25704,
    0.251189,
    0.251189,
    0.251189,
    0.251189,
    0.263027,
    0.288403,
    0.30903,
    0.338844,
    0.371535,
    0.398107,
    0.436516,
    0.467735,
    0.489779,
    0.501187,
    0.501187,
    0.512861,
    0.524807,
    0.524807,
    0.524807,
    0.512861,
    0.47863,
    0.42658,
    0.371535,
    0.363078,
    0.416869,
    0.537032,
)
WIDTHS = (  # in Bark
    0.157344,
    0.317994,
    0.322441,
    0.326934,
    0.331474,
    0.336061,
    0.340697,
    0.345381,
    0.350114,
    0.354897,
    0.359729,
    0.364611,
    0.369544,
    0.374529,
    0.379565,
    0.384653,
    0.389794,
    0.394989,
    0.400236,
    0.405538,
    0.410894,
    0.416306,
    0.421773,
    0.427297,
    0.432877,
    0.438514,
    0.444209,
    0.449962,
    0.455774,
    0.461645,
    0.467577,
    0.473569,
    0.479621,
    0.485736,
    0.491912,
    0.498151,
    0.504454,
    0.510819,
    0.51725,
    0.523745,
    0.530308,
    0.536934,
    0.543629,
    0.55039,
    0.55722,
    0.564119,
    0.571085,
    0.578125,
    0.585232,
)
DENSITIES = (  # power a bin to power a band
    100,
    100,
    100,
    100,
    100,
    100,
    100,
    100,
    50,
    100,
    100,
    100,
    100,
    100,
    53.04708,
    110,
    117.992,
    65,
    68.76015,
    70,
    71.42882,
    75,
    76.84338,
    80.96878,
    88.64613,
    63.86439,
    68.15535,
    72.54778,
    75.58483,
    58.37919,
    80.95084,
    64.13565,
    54.38479,
    73.82188,
    64.43707,
    59.17646,
    65.52128,
    61.39982,
    58.14405,
    57.00454,
    64.1263,
    54.311,
    61.11498,
    55.07775,
    56.84934,
    55.62887,
    53.13705,
    54.98584,
    79.54697,
)
POWER_SCALE, LOUDNESS_SCALE, ZWICKER = 6.910853e-6, 0.1866055, 0.23
LEVEL = 1e7  # mean square of the speech band
HIGH_PASS = ((2.6657628, -5.3315255, 2.6657628), (1, -1.8890331, 0.89487434))
SILENCE = 100  # largest step at that level of what is cut off both ends
SYLLABLE = 20  # frames, every half of it


def root(x: torch.Tensor, power: float, floor: float = 1e-6) -> torch.Tensor:
    """The root of x >= 0 with a bounded slope at 0."""
    return (x + floor) ** (1 / power) - floor ** (1 / power)


class PerceptualLoss(nn.Module):
    """What P.862.2 takes off 4.5 for each pair of sounds [B, n] in -1..1: 1.56 where PESQ-wb is 3.2, 1.08 where it is
    3.8.

    `quietest`: crops below this mean square of the speech band are not raised to the level of speech."""

    def __init__(self, quietest: float = 2e-4) -> None:
        super().__init__()
        self.quietest = quietest
        edges, hz = np.cumsum((0, *BINS)), np.fft.rfftfreq(FFT, 1 / RATE)
        bands = np.zeros((len(BINS), FFT // 2 + 1))
        for band, (a, b) in enumerate(zip(edges, edges[1:])):
            bands[band, a:b] = DENSITIES[band] * POWER_SCALE
        z = np.exp(-2j * np.pi * hz / RATE)
        gain = np.abs(np.polyval(HIGH_PASS[0][::-1], z) / np.polyval(HIGH_PASS[1][::-1], z)) ** 2
        gain[0] = 0
        centres = np.cumsum(WIDTHS) - np.array(WIDTHS) / 2
        exponents = ZWICKER * np.where(centres < 4, np.minimum(2, 6 / (centres + 2)), 1) ** 0.15
        thresholds, widths = np.array(THRESHOLDS), np.array(WIDTHS)
        tables = {
            "bands": bands * gain,
            "speech": ((hz > 340) & (hz < 3300)) * 2 / (FFT * 0.375 * FFT),
            "thresholds": thresholds,
            "exponents": exponents,
            "loudness": (thresholds / 0.5) ** exponents * LOUDNESS_SCALE,
            # The lowest band counts in no sum.
            "audible": np.r_[0, np.ones(len(BINS) - 1)],
            "widths": np.r_[0, widths[1:]],
        }
        for name, value in tables.items():
            self.register_buffer(name, torch.tensor(value, dtype=torch.float32), persistent=False)
        self.register_buffer("window", torch.hann_window(FFT), persistent=False)

    def power(self, audio: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """[B, frames, 49] powers of the bands at the standard's level, and what brought the power to it."""
        s = torch.stft(audio.float(), FFT, HOP, window=self.window, center=False, return_complex=True).transpose(1, 2)
        p = s.real.square() + s.imag.square()
        level = (p @ self.speech).mean(1).clamp_min(self.quietest)
        scale = (LEVEL / level)[:, None, None]
        return (p * scale) @ self.bands.T, scale[..., 0]

    def audible_sum(self, p: torch.Tensor, factor: float = 1.0) -> torch.Tensor:
        return (p * (p > factor * self.thresholds) * self.audible).sum(-1)

    def loud(self, p: torch.Tensor) -> torch.Tensor:
        """Zwicker's loudness a band; nothing below the threshold of hearing."""
        x = p.clamp_min(self.thresholds) / self.thresholds
        return self.loudness * ((0.5 + 0.5 * x) ** self.exponents - 1)

    def norm(self, x: torch.Tensor, power: float) -> torch.Tensor:
        """Over the bands, by their widths."""
        total = self.widths.sum()
        return root(((x * self.widths) ** power).sum(-1) / total, power) * total

    @staticmethod
    def between(audio: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """Which frames lie between the first and the last that are not digital silence."""
        loud = (audio.unfold(1, FFT, HOP).abs().amax(-1) * scale.sqrt() > SILENCE).float()
        return ((loud.cumsum(1) > 0) & (loud.flip(1).cumsum(1).flip(1) > 0)).float()

    @staticmethod
    def over_time(x: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
        """The sixth power's mean within a syllable, the square's over syllables."""
        count = -(-x.shape[1] // (SYLLABLE // 2))
        room = (0, count * (SYLLABLE // 2) + SYLLABLE // 2 - x.shape[1])
        x, inside = (nn.functional.pad(v, room).unfold(1, SYLLABLE, SYLLABLE // 2) for v in (x * inside, inside))
        weight = inside[..., : SYLLABLE // 2].amax(-1)
        return root((root((x**6).mean(-1), 6).square() * weight).sum(-1) / weight.sum(-1).clamp_min(1), 2)

    def disturbances(self, real: torch.Tensor, fake: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The symmetric and the asymmetric one of each pair, [B] both."""
        (a, scale), (b, _) = self.power(real), self.power(fake)
        inside = self.between(real, scale)
        # One choice of what counts for both: a choice each would let a single frame at the limit tilt a whole band.
        counts = (self.audible_sum(a, 100) >= 1e7)[..., None] & (a > 100 * self.thresholds)
        mean_a, mean_b = ((p * counts).mean(1, keepdim=True) for p in (a, b))
        # A constant filter is hardly heard: the reference takes it over, ...
        a = a * ((mean_b + 1000) / (mean_a + 1000)).clamp(0.01, 100)
        energy = self.audible_sum(a)
        gain = (energy + 5e3) / (self.audible_sum(b) + 5e3)
        # ... and gains that vary slowly as little: smoothed by 0.2, as five taps.
        gain = nn.functional.pad(gain, (4, 0), mode="replicate")
        n, taps = energy.shape[1], [0.8 * 0.2**k for k in range(4)] + [0.2**4]
        gain = sum(t * gain[:, 4 - k : 4 - k + n] for k, t in enumerate(taps))
        b = b * gain.clamp(3e-4, 5)[..., None]
        loud_a, loud_b = self.loud(a), self.loud(b)
        d = loud_b - loud_a
        d = (d.abs() - 0.25 * torch.minimum(loud_a, loud_b)).clamp_min(0)
        # What was added is worse than what is missing.
        factor = ((b + 50) / (a + 50)) ** 1.2
        factor = torch.where(factor < 3, torch.zeros_like(factor), factor.clamp(max=12))
        weight = ((energy + 1e5) / 1e7) ** 0.04
        symmetric, asymmetric = self.norm(d, 2) / weight, self.norm(d * factor, 1) / weight
        return tuple(self.over_time(x.clamp(max=45), inside) for x in (symmetric, asymmetric))

    def forward(self, real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
        symmetric, asymmetric = self.disturbances(real, fake)
        return 0.1 * symmetric + 0.0309 * asymmetric


def estimate(distance: ArrayLike) -> np.ndarray:
    """PESQ-wb from the distance, by P.862.2's mapping."""
    return 0.999 + 4 / (1 + np.exp(-1.3669 * (4.5 - np.asarray(distance)) + 3.8224))
