"""Instruments: how they are written, and which notes are theirs."""

from __future__ import annotations

import pytest

from data_gen import InputError
from data_gen.instruments import (
    CANDIDATES,
    DRUM_BANK,
    Instrument,
    parse_instrument,
    parse_instruments,
    playable_pitches,
)


def test_a_known_name_is_that_candidate():
    assert len(CANDIDATES) == 10
    for name, instrument in CANDIDATES.items():
        assert parse_instrument(name) is instrument
        assert instrument.name == name


def test_the_candidates_hold_their_general_midi_families():
    assert CANDIDATES["piano"].programs == tuple(range(8))
    assert CANDIDATES["bass"].programs == tuple(range(32, 40))
    assert CANDIDATES["strings"].programs == (48, 49, 50, 51)
    assert CANDIDATES["guitar"].programs + CANDIDATES["distorted_guitar"].programs == tuple(range(24, 32))
    assert CANDIDATES["drums"].is_percussion


def test_no_two_candidates_share_a_program_so_that_all_ten_can_be_named_at_once():
    assert parse_instruments(CANDIDATES) == tuple(CANDIDATES.values())


@pytest.mark.parametrize(
    ("text", "programs"),
    [
        ("choir:52-54", (52, 53, 54)),
        ("keys:16-17+0-1", (0, 1, 16, 17)),
        ("one:127", (127,)),
        ("twice:5+5", (5,)),
        ("overlapping:3-5+4-6", (3, 4, 5, 6)),
        ("all_of_it:0-127", tuple(range(128))),
        (" padded:7 ", (7,)),
    ],
)
def test_programs_are_single_numbers_and_ranges_joined_by_plus(text, programs):
    assert parse_instrument(text) == Instrument(text.strip().split(":")[0], programs)


@pytest.mark.parametrize(
    "text",
    ["", "kazoo", "x:", "x:128", "x:-1", "x:5-4", "x:a", "x:1,2", "x:1++2", "x:1-2-3", "x:0-128", "x: 1", "x:1:2"],
)
def test_an_unknown_name_or_a_wrong_range_is_refused_in_one_line_that_says_how_to_write_it(text):
    with pytest.raises(InputError, match="write NAME:PROGRAMS") as refusal:
        parse_instrument(text)
    assert "\n" not in str(refusal.value)
    assert repr(text) in str(refusal.value)


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(InputError, match="'kazoo'.*drums, bass, piano.*synth_lead"):
        parse_instrument("kazoo")


@pytest.mark.parametrize("name", ["", "a b", "../up", "a/b", "1st", "näme", "a-b", "_x", "a.b", "x\n"])
def test_a_name_that_cannot_name_a_file_is_refused(name):
    with pytest.raises(InputError, match="letters, digits and _"):
        parse_instrument(f"{name}:52")


def test_instruments_keep_the_order_in_which_they_are_named():
    assert [i.name for i in parse_instruments(["strings", "drums", "choir:52"])] == ["strings", "drums", "choir"]


@pytest.mark.parametrize("recorded", [False, True])
def test_the_rest_plays_what_no_other_instrument_plays_but_no_percussion(recorded):
    keys, rest, choir = parse_instruments(["keys:0-15+17", "rest", "choir:52-126"], recorded)
    assert rest == Instrument("rest", (16, *range(18, 52), 127))
    assert not rest.plays(DRUM_BANK, 127) and rest.plays(0, 127)
    assert parse_instruments(map(str, (keys, rest, choir))) == (keys, rest, choir)
    assert parse_instruments(["rest:5", "choir:52"])[0].programs == (5,)


@pytest.mark.parametrize(
    ("texts", "complaint"),
    [
        (["rest", "rest"], "'rest' is named twice"),
        (["all:0-127", "rest"], "leave no program for 'rest'"),
        ([], "no instrument named"),
        (["bass", "bass"], "'bass' is named twice"),
        (["choir:52", "choir:53"], "'choir' is named twice"),
        (["piano", "keys:7+16"], r"'piano' and 'keys' share the programs \[7\]"),
        (["drums", "drums"], "'drums' is named twice"),
    ],
)
def test_instruments_that_are_none_or_overlap_are_refused(texts, complaint):
    with pytest.raises(InputError, match=complaint):
        parse_instruments(texts)


def test_a_name_may_be_given_to_other_programs_than_the_candidates():
    assert parse_instrument("piano:0-1") == Instrument("piano", (0, 1))
    assert str(parse_instrument("piano:0-1")) == "piano:0-1"


@pytest.mark.parametrize("text", [*CANDIDATES, "choir:52-54", "keys:0-7+16-20", "bass:33", "one:0"])
def test_an_instrument_is_read_back_from_what_it_is_written_as(text):
    instrument = parse_instrument(text)
    assert parse_instrument(str(instrument)) == instrument


@pytest.mark.parametrize(
    ("name", "bank", "program", "plays"),
    [
        ("piano", 0, 0, True),
        ("piano", 0, 7, True),
        ("piano", 0, 8, False),
        ("piano", 8, 3, True),  # a variation of bank 8
        ("piano", DRUM_BANK, 0, False),
        ("drums", DRUM_BANK, 0, True),
        ("drums", DRUM_BANK, 48, True),
        ("drums", 0, 0, False),
        ("strings", DRUM_BANK, 48, False),  # the orchestra kit
    ],
)
def test_percussion_belongs_to_the_drums_and_the_programs_of_any_other_bank_to_their_instrument(
    name, bank, program, plays
):
    assert CANDIDATES[name].plays(bank, program) is plays


def test_an_instrument_can_be_a_key_of_a_dictionary():
    assert {parse_instrument("choir:52"): 1}[Instrument("choir", (52,))] == 1


def test_the_playable_pitches_of_an_instrument_are_those_of_all_its_programs():
    assert playable_pitches(CANDIDATES["piano"]) == (21, 108)
    low, high = playable_pitches(parse_instrument("both:0+33"))
    assert low == 21 == min(playable_pitches(CANDIDATES["piano"])[0], playable_pitches(CANDIDATES["bass"])[0])
    assert high == 108
    assert playable_pitches(CANDIDATES["drums"]) == (0, 127)
