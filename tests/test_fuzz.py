"""The MIDI reader against damaged real files."""

import collections

from benchmarks import fuzz


def test_a_damaged_real_file_gives_a_sound_piece_or_one_line(real_midi):
    paths = sorted(map(str, real_midi.rglob("*.mid")))
    outcomes = [fuzz.read((paths[seed % len(paths)], seed))[0] for seed in range(300)]
    assert all("\n" not in outcome for outcome in outcomes)
    assert 3 < collections.Counter(outcomes)["read"] < 300
