"""The composer: what may be taken for granted about a piece, and how much pieces differ."""

from __future__ import annotations

import collections
import functools

import numpy as np
import pytest

from data_gen import InputError
from data_gen.channels import DRUM_CHANNEL, SUSTAIN
from data_gen.composer import compose
from data_gen.composer.repertoire import FAMILIES, KEY_NAMES, STYLES
from data_gen.instruments import CANDIDATES, DRUM_BANK, Instrument, parse_instruments
from data_gen.midi import BEND, CONTROL, NOTE_OFF, NOTE_ON

FOUR = parse_instruments(["drums", "bass", "piano", "strings"])
FIFTEEN = tuple(Instrument(f"family_{i}", tuple(range(8 * i, 8 * i + 8))) for i in range(15))
ENSEMBLES = {
    "four": FOUR,
    "ten": tuple(CANDIDATES.values()),
    "drums": (CANDIDATES["drums"],),
    "piano": (CANDIDATES["piano"],),
    "custom": parse_instruments(["choir:52-54", "organ:16-20", "drums"]),
    "odd": parse_instruments(["timpani:47", "effects:96-103+120-127", "guitars:24-31"]),
    "fifteen and drums": (*FIFTEEN, CANDIDATES["drums"]),
}
SEEDS = range(30)


@functools.cache
def pieces(ensemble: str):
    return [compose(seed, ENSEMBLES[ensemble]) for seed in SEEDS]


@pytest.fixture(params=ENSEMBLES, scope="module")
def ensemble(request):
    return ENSEMBLES[request.param], pieces(request.param)


def is_sounding(notes: np.ndarray, duration_s: float, frame_s: float = 0.1) -> np.ndarray:
    """Whether any of the notes sounds: [frame]."""
    sounding = np.zeros(int(duration_s / frame_s) + 2, bool)
    for start_s, end_s in zip(notes["time_s"], notes["end_s"]):
        sounding[int(start_s / frame_s) : int(end_s / frame_s) + 1] = True
    return sounding


def longest_run(flags: np.ndarray) -> int:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(int), [0]])))
    return int((edges[1::2] - edges[::2]).max(initial=0))


def test_the_same_seed_composes_the_same_piece():
    for seed in (0, 7, (3, 1, 4)):
        one, same = compose(seed, FOUR), compose(seed, FOUR)
        assert one.name == same.name
        assert one.events.tobytes() == same.events.tobytes()


def test_what_was_composed_before_does_not_matter():
    np.random.seed(0)
    before = compose(5, FOUR)
    np.random.random(10)
    compose(6, ENSEMBLES["ten"])
    assert compose(5, FOUR).events.tobytes() == before.events.tobytes()


def test_different_seeds_compose_different_pieces():
    melodies = {tuple(np.diff(p.notes_of(CANDIDATES["piano"])["number"][:40].astype(int))) for p in pieces("four")}
    assert len(melodies) == len(SEEDS)
    assert compose((1, 2), FOUR).events.tobytes() != compose((2, 1), FOUR).events.tobytes()


def test_every_named_instrument_plays_and_nothing_else_does(ensemble):
    instruments, composed = ensemble
    for piece in composed:
        counts = [len(piece.notes_of(instrument)) for instrument in instruments]
        assert min(counts) > 0, piece.name
        assert sum(counts) == len(piece.notes), piece.name


def test_instruments_share_no_channel_and_drums_have_their_own(ensemble):
    instruments, composed = ensemble
    for piece in composed:
        owners = collections.defaultdict(set)
        for instrument in instruments:
            for channel in np.unique(piece.notes_of(instrument)["channel"]).tolist():
                owners[channel].add(instrument.name)
        assert all(len(names) == 1 for names in owners.values()), piece.name
        notes = piece.notes
        assert ((notes["channel"] == DRUM_CHANNEL) == (notes["bank"] == DRUM_BANK)).all()


def test_events_come_in_playing_order(ensemble):
    rank = np.array([2, 1, 0, 0])  # of NOTE_ON, NOTE_OFF, CONTROL, BEND at one time
    for piece in ensemble[1]:
        events = piece.events
        later = np.diff(events["time_s"])
        assert (later >= 0).all()
        assert (np.diff(rank[events["kind"]].astype(int))[later == 0] >= 0).all()
        assert events["time_s"][0] >= 0


def test_every_note_ends_by_its_own_note_off(ensemble):
    for piece in ensemble[1]:
        held = collections.Counter()
        for event in piece.events:
            key = (int(event["channel"]), int(event["number"]))
            if event["kind"] == NOTE_ON:
                assert held[key] == 0, f"{piece.name}: {key} is struck while it is down"
                held[key] += 1
            elif event["kind"] == NOTE_OFF:
                assert held[key] == 1, f"{piece.name}: {key} is released while it is up"
                held[key] -= 1
        assert not any(held.values()), piece.name


def test_notes_have_sane_lengths_pitches_and_velocities(ensemble):
    for piece in ensemble[1]:
        notes = piece.notes
        length_s = notes["end_s"] - notes["time_s"]
        assert length_s.min() >= 0.02 and length_s.max() < 20, piece.name
        assert np.median(length_s) < 3, piece.name
        assert notes["value"].min() >= 1 and notes["value"].max() <= 127
        keys = notes["number"][notes["bank"] != DRUM_BANK]
        assert ((keys >= 21) & (keys <= 108)).all(), piece.name


def test_controllers_bends_and_pedals_are_back_at_rest_when_the_piece_ends(ensemble):
    rest = {SUSTAIN: 0, 1: 0, 11: 127}
    for piece in ensemble[1]:
        last = {}
        for event in piece.events[np.isin(piece.events["kind"], (CONTROL, BEND))]:
            last[int(event["channel"]), int(event["kind"]), int(event["number"])] = int(event["value"])
        for (_, kind, number), value in last.items():
            assert 0 <= value <= 127 if kind == CONTROL else value == 0
            assert value == rest.get(number, value), piece.name


def test_volume_and_pan_are_set_before_the_first_note(ensemble):
    for piece in ensemble[1]:
        first_note_s = piece.notes["time_s"][0]
        for number in (7, 10):
            settings = piece.events[(piece.events["kind"] == CONTROL) & (piece.events["number"] == number)]
            assert set(piece.notes["channel"]) <= set(settings["channel"])
            assert (settings["time_s"] <= first_note_s).all()


def test_pieces_last_about_a_minute_or_two(ensemble):
    assert all(55 < piece.duration_s < 160 for piece in ensemble[1])


@pytest.mark.parametrize("name", ["four", "ten"])
def test_every_instrument_often_rests_while_another_plays(name):
    for instrument in ENSEMBLES[name]:
        rests = 0
        for piece in pieces(name):
            sounding = {i: is_sounding(piece.notes_of(i), piece.duration_s) for i in ENSEMBLES[name]}
            others = np.any([s for i, s in sounding.items() if i is not instrument], axis=0)
            rests += longest_run(~sounding[instrument] & others) >= 40
        assert rests >= 0.4 * len(SEEDS), f"{instrument.name} rests in {rests} of {len(SEEDS)} pieces"


def test_instruments_also_play_together_and_alone():
    n_together = collections.Counter()
    for piece in pieces("four"):
        sounding = np.sum([is_sounding(piece.notes_of(i), piece.duration_s).astype(int) for i in FOUR], axis=0)
        n_together.update(sounding.tolist())
    share = {n: count / sum(n_together.values()) for n, count in n_together.items()}
    assert share[4] > 0.15 and share[3] > 0.15 and share[2] > 0.1 and share[1] > 0.03


def test_the_key_in_the_name_is_heard():
    heard = 0
    for piece in pieces("ten"):
        name = piece.name.split("-")[-2]
        tonic = KEY_NAMES.index(name.rstrip("m"))
        triad = [(tonic + interval) % 12 for interval in (0, 3 if name.endswith("m") else 4, 7)]
        melodic = piece.notes[piece.notes["bank"] != DRUM_BANK]
        shares = np.bincount(melodic["number"] % 12, minlength=12) / len(melodic)
        heard += shares[triad].mean() > 1.2 / 12
    assert heard >= 0.8 * len(SEEDS)


def test_the_tempo_in_the_name_is_heard():
    """Where nothing swings, the distances between drum strokes are multiples of a step, but for jitter and fills."""
    heard = total = 0
    for piece in pieces("drums"):
        style, metre, _, tempo = piece.name.split("-")[2:]
        beats = np.diff(piece.notes["time_s"])[:200] * float(tempo[:-3]) / 60
        steps_of_beat = 6 if metre == "6_8" else 4
        on_grid = np.abs(beats * steps_of_beat - np.round(beats * steps_of_beat)) < 0.25
        if STYLES[style].swing.startswith("0 "):
            heard += on_grid.mean() > 0.85
            total += 1
    assert total >= 5 and heard >= 0.7 * total


def test_pieces_differ_in_tempo_key_metre_style_and_programs():
    names = [piece.name.split("-") for piece in pieces("four")]
    assert len({name[2] for name in names}) >= 10  # styles
    assert len({name[3] for name in names}) >= 3  # metres
    assert len({name[4] for name in names}) >= 12  # keys
    tempos_bpm = [float(name[5][:-3]) for name in names]
    assert min(tempos_bpm) < 80 and max(tempos_bpm) > 140
    for instrument in FOUR[1:]:
        programs = {p for piece in pieces("four") for p in piece.notes_of(instrument)["program"].tolist()}
        assert programs == set(instrument.programs)
    assert len({p for piece in pieces("four") for p in piece.notes_of(FOUR[0])["program"].tolist()}) >= 3


def test_an_instrument_is_not_known_by_its_register():
    medians = {i.name: [np.median(p.notes_of(i)["number"]) for p in pieces("four")] for i in FOUR[1:]}
    assert np.ptp(medians["strings"]) > 30 and np.ptp(medians["piano"]) > 30
    assert np.min(medians["strings"]) < np.max(medians["bass"]) + 5
    bass = np.concatenate([p.notes_of(FOUR[1])["number"] for p in pieces("four")])
    assert np.mean((bass >= 23) & (bass <= FAMILIES["bass"].high + 12)) > 0.95


def test_timing_and_strength_are_of_players_in_some_pieces_and_of_a_machine_in_others():
    spreads = [piece.notes_of(i)["value"].std() for piece in pieces("four") for i in FOUR]
    assert np.min(spreads) < 1 and np.max(spreads) > 8 and np.median(spreads) > 2
    levels = [np.median(piece.notes_of(i)["value"]) for piece in pieces("four") for i in FOUR]
    assert np.min(levels) < 75 and np.max(levels) > 115


def test_densities_are_those_of_real_files():
    """Notes per second, median over pieces, within a factor of two of the 200 files of shared/midi."""
    for instrument, real in zip(FOUR, (7.9, 3.4, 3.4, 1.3)):
        density = np.median([len(p.notes_of(instrument)) / p.duration_s for p in pieces("four")])
        assert real / 2 < density < real * 2, instrument.name


def test_more_instruments_than_channels_are_refused():
    with pytest.raises(InputError, match="16 melodic instruments"):
        compose(0, (*FIFTEEN, Instrument("effects", (120,))))
