"""The page to listen to: what is drawn, written and linked."""

import argparse
import re

import numpy as np
import pytest

from voxgrain_tools import audio
from voxgrain_tools.export import bundle
from voxgrain_tools.measure import conditions, listen

RATE = 16000


def tone(seconds, frequency):
    return (0.3 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def test_a_tone_stands_at_its_frequency():
    shown = listen.spectrogram(tone(0.5, 2000.0), RATE)
    bins = shown.shape[0]
    assert shown.max() == 0 and shown.min() >= -listen.RANGE
    assert abs(shown[:, 20].argmax() / (bins - 1) * RATE / 2 - 2000) <= RATE / 2 / (bins - 1)


def test_a_sound_shorter_than_the_window_is_drawn():
    assert listen.spectrogram(tone(0.01, 500.0), RATE).shape[1] == 1


@pytest.fixture
def made(tmp_path, monkeypatch):
    pytest.importorskip("soundfile")
    pytest.importorskip("matplotlib")

    def speak(folder, count, frequency):
        folder.mkdir(parents=True)
        for i in range(count):
            audio.write_wav(folder / f"{i:05}.wav", tone(0.3 + 0.1 * i, frequency), RATE)

    monkeypatch.setattr(bundle, "read", lambda _: {"audio": {"sample_rate_hz": RATE}})
    monkeypatch.setattr(conditions, "speak_teacher", lambda n, texts, folder, rate: speak(folder, len(texts), 300.0))
    monkeypatch.setattr(conditions, "through_codec", lambda e, b, clean, n, folder: speak(folder, n, 310.0))
    arms = []

    def program(command, where, arguments, texts, folder, seed):
        arms.append(arguments)
        speak(folder, len(texts), 320.0)

    monkeypatch.setattr(conditions, "speak_program", program)
    texts = tmp_path / "texts.txt"
    texts.write_text("One.\nTwo words.\n")
    parser = argparse.ArgumentParser()
    listen.add_arguments(parser)

    def run(*speakers):
        line = ["--bundle", "b", "--texts", str(texts), "--encoder", "e", "--out", str(tmp_path / "page")]
        listen.run(parser.parse_args([*line, *(x for s in speakers for x in ("--speaker", s))]))
        return tmp_path / "page", arms

    return run


def test_every_link_of_the_page_is_there_and_sounds_as_made(made):
    import soundfile

    page, arms = made("heart=hibari:heart", "michael=kokoro:am_michael")
    links = re.findall(r"\]\(([^)]+)\)", (page / "README.md").read_text())
    assert len(links) == len(set(links)) == 2 * 2 * (5 + 1)
    assert sorted(links) == sorted(p.name for p in page.iterdir() if p.name != "README.md")
    assert arms == [f"--speaker {s}{a}" for s in ("heart", "michael") for a in (" --arm ar", " --arm pcg", "")]
    samples, rate = soundfile.read(page / "michael-2-codec.flac", dtype="float32")
    assert rate == RATE and np.abs(samples - tone(0.4, 310.0)).max() <= 1 / 32768


def test_a_speaker_without_its_teacher_is_refused(made):
    with pytest.raises(SystemExit, match="NAME=TEACHER"):
        made("heart")
