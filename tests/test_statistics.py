"""Which instruments a folder holds: counted by song, proposed by frequency, and shown in a report and a picture."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import matplotlib.image
import numpy as np
import pytest
from conftest import ROOT
from data_helpers import song_bytes

from data_gen.index import scan
from data_gen.instruments import parse_instruments
from data_gen.statistics import GROUPS, count, propose, report

MELODIES = ([60, 62, 64, 65, 67, 69, 71, 72], [60, 67, 61, 66, 62, 65, 63, 64], [70, 58, 69, 59, 68, 60, 67, 61])


@pytest.fixture
def folder(tmp_path) -> pathlib.Path:
    """Piano and bass; piano and strings, twice; organ: three songs in four files, and one broken file."""
    for name, melody, programs in (
        ("one.mid", MELODIES[0], (0, 33)),
        ("two.mid", MELODIES[1], (0, 48)),
        ("copy of two.mid", MELODIES[1], (0, 48)),
        ("three.mid", MELODIES[2], (19,)),
    ):
        (tmp_path / name).write_bytes(song_bytes(melody, programs=programs))
    (tmp_path / "broken.mid").write_bytes(b"MThd")
    return tmp_path


def test_every_general_midi_program_belongs_to_one_group():
    programs = [program for group in GROUPS for program in group.programs]
    assert sorted(programs) == list(range(128))


def test_songs_are_counted_once_however_many_copies_there_are(folder):
    groups = parse_instruments(["piano", "bass", "strings", "organ:16-20", "drums"])
    pieces, note_seconds, together = count(scan(str(folder)), groups)
    assert pieces.tolist() == [2, 1, 1, 1, 0]
    assert together.tolist() == [[2, 1, 1, 0, 0], [1, 1, 0, 0, 0], [1, 0, 1, 0, 0], [0, 0, 0, 1, 0], [0] * 5]
    # Eight notes of half a beat at 120 beats per minute.
    np.testing.assert_allclose(note_seconds, [4.0, 2.0, 2.0, 2.0, 0.0], atol=1e-6)


def test_the_most_frequent_instruments_are_proposed_without_mere_accents():
    pieces = np.array([5, 9, 7, 0, 8])
    note_seconds = np.array([500.0, 900.0, 700.0, 0.0, 8.0])  # the last sounds for one second a piece
    assert propose(pieces, note_seconds, n=2) == [1, 2]
    assert propose(pieces, note_seconds, n=9) == [1, 2, 0]


def test_the_report_counts_and_proposes_and_the_picture_is_one(folder, tmp_path):
    picture = tmp_path / "plot.png"
    text = report(str(folder), ["piano", "strings"], str(picture))
    assert "5 MIDI files, 4 readable, 3 songs" in text
    assert "  piano: 2\n  piano + strings: 1\n" in text
    (candidates,) = [line for line in text.splitlines() if line.startswith("candidates: ")]
    assert candidates.startswith("candidates: --instruments=piano,")
    proposed = parse_instruments(candidates.partition("=")[2].split(","))  # can be given to train.py as it stands
    assert {instrument.name for instrument in proposed} == {"piano", "bass", "strings", "organ"}
    assert matplotlib.image.imread(picture).std() > 0.05  # not a blank page


def test_the_command_ends_with_one_line_and_status_1_for_an_empty_folder(tmp_path):
    command = [sys.executable, "-m", "data_gen.statistics", f"--midi_dir={tmp_path}", "--plot="]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("data_gen.statistics: --midi_dir=")
    assert not done.stdout
