"""scripts/train_natural.sh at toy sizes on the CPU, over speech of a stand-in teacher (the real ones are packages)."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from voxgrain_tools.common import ALPHABETS, load
from voxgrain_tools.corpus import speak, teachers

SCRIPT = Path(__file__).parents[1] / "scripts" / "train_natural.sh"


class Teacher:
    """Says each phoneme as four frames of a tone of its own."""

    def __init__(self, pitch):
        self.pitch = pitch

    def phonemes(self, text):
        return text

    def speak(self, phonemes, seed=1, speed=1.0):
        size = 4 * round(teachers.FRAME * teachers.RATE)
        places = np.arange(size) * self.pitch / teachers.RATE
        tones = [np.sin(places * (1 + ord(c) % 7)) * (c != " ") for c in phonemes]
        silence = np.zeros(2 * size)
        frames = np.array([8, *(4 for _ in phonemes), 8], np.float32)
        return teachers.Spoken(np.concatenate([silence, *tones, silence]).astype(np.float32), phonemes, frames)


@pytest.fixture
def spoken(tmp_path, monkeypatch):
    """What the step `speech` leaves."""
    work = tmp_path / "work"
    (work / "audio").mkdir(parents=True)
    (work / "done").mkdir()
    (work / "audio" / "voices").write_text("heart\nmichael\n")
    (tmp_path / "texts").write_text("".join(f"həlˈO tə jˈu ɔl, {a}{b}.\n" for a in "bdfk" for b in "aeiou"))
    for voice, names, pitch in (("heart", ("w", "heldout"), 900), ("michael", ("w9", "heldout9"), 500)):
        monkeypatch.setattr(speak, "open_teacher", lambda name, device, pitch=pitch: Teacher(pitch))
        for name in names:
            args = argparse.Namespace(
                teacher=voice,
                voice=voice,
                texts=str(tmp_path / "texts"),
                work=str(work),
                name=name,
                seed=1,
                plain=True,
                limit=2 if name.startswith("held") else None,
                device="cpu",
                backwards=name == "w9",
            )
            speak.speak_part(args, 0, 1, float("inf"))
    (work / "done" / "speech").touch()
    return work


def test_the_script_goes_from_speech_to_checkpoints_and_on_where_it_stopped(spoken, tmp_path):
    out = tmp_path / "out"
    budgets = {"S_CODEC": "30", "S_GAN": "30", "S_TARGET": "12", "S_DRAFT": "40"}
    environment = os.environ | budgets | {"TOY": "1", "PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": ""}

    def run():
        done = subprocess.run(
            [str(SCRIPT), str(spoken), str(out)], env=environment, capture_output=True, text=True, timeout=580
        )
        logs = "\n".join(p.read_text()[-1500:] for p in sorted((spoken / "log").iterdir()))
        assert done.returncode == 0, done.stdout + done.stderr + logs
        return done.stdout

    said = run()
    assert "speech is done already" in said and "codec ends" in said and "draft ends" in said
    assert {p.name for p in out.iterdir()} == {
        "codec_encoder.safetensors",
        "codec_decoder.safetensors",
        "target.safetensors",
        "draft_features.safetensors",
    }
    assert load(f"{out}/target.safetensors")[1]["characters"] == ALPHABETS["phonemes"]
    judged = load(f"{out}/codec_decoder.safetensors")[1]
    assert judged["gan_steps"] == judged["steps"] > 0, "the decoder that ships heard discriminators from the begin"
    with np.load(spoken / "tokens.npz") as f:
        speakers = f["speakers"].tolist()
    assert speakers.count(0) == 2 * 20 and speakers.count(1) == 4 * 20
    (spoken / "done" / "draft").unlink()
    said = run()
    assert "target is done already" in said and "draft ends" in said and "codec ends" not in said
