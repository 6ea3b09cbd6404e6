"""Voices made by espeak-ng: they sing the notes they are given, and training hears them beside its instruments."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pytest
import soundfile
from data_helpers import pitch_hz, rms

from data_gen import InputError, make_voices
from sourcesep.config import Config
from sourcesep.sources import make_chunker

RATE_HZ = make_voices.RATE_HZ


def vowel(hz: float, formants_hz: tuple[float, ...], seconds: float) -> np.ndarray:
    """Pulses of a pitch through resonances of 80 Hz."""
    time_s = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    pulses = (np.diff(np.floor(time_s * hz), prepend=-1) > 0).astype(float)
    ring = sum(np.exp(-np.pi * 80 * time_s[:1_000]) * np.sin(2 * np.pi * f * time_s[:1_000]) for f in formants_hz)
    return 0.1 * np.convolve(pulses, ring)[: len(pulses)]


@pytest.mark.parametrize("hz", [98.0, 196.0, 262.0])
def test_a_word_is_held_on_its_note_with_its_formants_where_they_were(hz):
    note = make_voices._hold(vowel(140, (700, 1_900), 0.3), hz, RATE_HZ, np.random.default_rng(1))
    assert len(note) == RATE_HZ
    held = note[2_000:-2_000]
    spectrum = np.square(np.abs(np.fft.rfft(held * np.hanning(len(held)), RATE_HZ)))  # a bin is 1 Hz
    harmonics = [spectrum[round(k * hz * 0.97) : round(k * hz * 1.03) + 1].sum() for k in range(1, int(1_500 / hz))]
    assert sum(harmonics) > 0.9 * spectrum[round(0.9 * hz) : int(1_500 / hz) * round(hz) - round(hz / 2)].sum()
    at_formants = sum(spectrum[f - 150 : f + 150].sum() for f in (700, 1_900))
    assert at_formants > 0.6 * spectrum.sum()


@pytest.fixture(scope="module")
def voices(tmp_path_factory):
    if not shutil.which(make_voices.PROGRAM):
        pytest.skip("espeak-ng is not installed")
    folder = tmp_path_factory.mktemp("voices")
    return folder, make_voices.make_voices(folder, 6, seed=0)


def test_every_language_sings_its_notes(voices):
    for number, language in enumerate(make_voices.WORDS):
        rng = np.random.default_rng(number)
        for key in (57, 64):
            sung = make_voices.sing([(key, 1.2)], f"{language}+f{1 + number % 5}", rng)
            assert len(sung) == round(1.2 * RATE_HZ)
            # The strongest partial is one of the note's, through the vowel in the middle.
            partial = pitch_hz(sung[8_000:16_000], RATE_HZ) / (440 * 2 ** ((key - 69) / 12))
            assert round(partial) >= 1 and abs(1_200 * np.log2(partial / round(partial))) < 50, (language, key)


def test_the_same_seed_makes_the_same_recordings_and_they_are_equally_loud(voices, tmp_path):
    folder, paths = voices
    again = make_voices.make_voices(tmp_path, 2, seed=0)
    assert [path.name for path in again] == [path.name for path in paths[:2]]
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in paths[:2]]
    for path in paths:
        samples, rate = soundfile.read(path)
        assert rate == RATE_HZ and 0.08 < rms(samples) < 0.11 and len(samples) > 4 * RATE_HZ, path
    assert {path.stem.rpartition("-")[2] for path in paths} == {"sung", "spoken"}


def test_training_on_composed_pieces_hears_voices_that_belong_to_no_stem(voices):
    config = Config(
        model="wavenet", instruments=("drums", "bass"), solo_dir=(f"other:{voices[0]}",), remix=1.0, sample_rate=8_000
    )
    chunker, plain = (make_chunker(one, "train") for one in (config, dataclasses.replace(config, solo_dir=())))
    added = []
    for index in range(4):
        visit = chunker.visit(index)
        assert visit.stems.shape[-1] == 2
        added.append(rms(visit.mixture[..., 0] - visit.stems.sum(axis=-1)) / rms(visit.mixture))
    assert 0 < sum(share > 0.1 for share in added)
    visit = plain.visit(0)
    np.testing.assert_allclose(visit.mixture[..., 0], visit.stems.sum(axis=-1), atol=1e-6)


def test_without_espeak_one_line_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="espeak-ng is not installed: on Debian and Ubuntu, apt-get install espeak-ng"):
        make_voices.make_voices(tmp_path / "voices", 1, seed=0)
    assert not (tmp_path / "voices").exists()


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=f"{tmp_path}/file: cannot make this folder"):
        make_voices.make_voices(tmp_path / "file", 1, seed=0)
