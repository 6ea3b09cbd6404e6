"""The bytes of a Standard MIDI File -> the messages of each track, with as much repaired as can be played.

The format is that of "Standard MIDI Files 1.0" (RP-001, MIDI Manufacturers Association). Lengths and counts in the file
are taken as estimates: a track ends at its End of Track, else where its data ends or stops making sense, and what was
read until then is kept.

Where a message ends is worked out for all bytes of a file at once, by NumPy, as if one began at each of them; Python
then only hops from message to message.

No library is used, because none reads what this project needs: mido refuses or misreads damaged files as a whole and
takes ten times as long; symusic keeps neither system exclusive messages, nor ports, nor the channel of a note.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from data_gen import InputError

MAX_BYTES = 2 << 20  # 2 MiB; the longest songs have a fifth of it
MAX_TRACKS = 1_000
MAX_MESSAGES = 500_000  # in all tracks; the longest songs have a tenth of it, and more would take seconds to read

META, SYSTEM_EXCLUSIVE = 0xFF, 0xF0
END_OF_TRACK, SET_TEMPO, PORT, DEVICE_NAME = 0x2F, 0x51, 0x21, 0x09  # types of meta events; the last two are of RP-019

MESSAGE = np.dtype(
    [
        ("tick", "i8"),  # from the beginning of the track
        ("track", "i2"),  # counted from 0
        ("status", "u1"),  # 0x80 to 0xEF for a channel message, META, or SYSTEM_EXCLUSIVE
        ("number", "u1"),  # first data byte of a channel message, or the type of a meta event; else 0
        ("value", "u1"),  # second data byte of a channel message that has one; else 0
    ]
)
"""One row of `MidiFile.messages`."""

_MAX_PREFIX_BYTES = 256  # before the header: MacBinary puts 128 there, a text editor a byte order mark
_CONTINUED = 0xF7  # status of a packet that goes on with a system exclusive message, or holds something else
# System messages do not belong into a file; those that MIDI 1.0 defines are skipped, with their data bytes.
_SYSTEM_DATA_BYTES = {0xF1: 1, 0xF2: 2, 0xF3: 1, 0xF6: 0, 0xF8: 0, 0xFA: 0, 0xFB: 0, 0xFC: 0, 0xFE: 0}

# States of `_steps`. Those of faults are larger than any place in a file.
_ENDED, _TOO_LONG, _UNDEFINED = -1, 2**31 - 1, 2**31 - 2


@dataclasses.dataclass(frozen=True)
class MidiFile:
    """What a file holds.

    Attributes:
        ticks_per_beat: as in the header; negative where the file counts frames (SMPTE) instead of beats.
        messages: [message] of dtype MESSAGE, track by track, each in order of time: channel messages, system exclusive
            ones, and the meta events named above, without END_OF_TRACK.
        contents: number of a message -> its bytes: of a meta event, or of a system exclusive message without F0 and F7.
        repairs: what was wrong and could cost music, one phrase each.
    """

    ticks_per_beat: int
    messages: np.ndarray
    contents: dict[int, bytes]
    repairs: list[str]


def parse(data: bytes, name: str) -> MidiFile:
    """Reads the bytes of a Standard MIDI File, or of one in a RIFF wrapper (RMID); `name` names it in messages.

    Raises InputError, in one line that begins with the name, if it is not a MIDI file, holds no track, or holds more
    than a song needs.
    """
    if len(data) > MAX_BYTES:
        raise InputError(f"{name}: {len(data)} bytes, more than a song needs (limit {MAX_BYTES})")
    start = data.find(b"MThd", 0, len(data) if data[:4] == b"RIFF" else _MAX_PREFIX_BYTES)
    if start < 0:
        raise InputError(f"{name}: not a MIDI file (it does not begin with MThd)")
    header_bytes = int.from_bytes(data[start + 4 : start + 8], "big")
    if len(data) < start + 14:
        raise InputError(f"{name}: damaged MIDI file (it ends too early, in its header)")
    if not 6 <= header_bytes <= len(data) - start - 8:
        raise InputError(f"{name}: damaged MIDI file (a header of {header_bytes} bytes)")
    ticks_per_beat = int.from_bytes(data[start + 12 : start + 14], "big", signed=True)
    if ticks_per_beat == 0:
        raise InputError(f"{name}: damaged MIDI file (zero ticks per beat)")

    chunks = _track_chunks(data, start + 8 + header_bytes)
    if not chunks:
        raise InputError(f"{name}: damaged MIDI file (it ends too early: it holds no track)")
    if len(chunks) > MAX_TRACKS:
        raise InputError(f"{name}: more than {MAX_TRACKS} tracks, more than a song needs")
    padded = np.frombuffer(data + bytes(8), np.uint8)  # so that what is read behind the end is 0
    numbers, lengths, too_long = _numbers(padded)
    steps = _steps(padded, numbers, lengths, too_long).data
    faults: dict[int, tuple[int, str]] = {}  # track -> (byte, what is wrong there)
    places: list[int] = []  # of messages
    ends = [0]  # of tracks, as numbers of messages
    for track, (begin, end, is_cut) in enumerate(chunks):
        last, following = _hop(steps, begin, end, places)
        if len(places) > MAX_MESSAGES:
            raise InputError(f"{name}: more than {MAX_MESSAGES} events, more than a song needs")
        ends.append(len(places))
        if following > 2 * end + 1:
            status = padded[last + lengths[last]]
            faults[track] = (
                last,
                {
                    _TOO_LONG: "has a number of more than four bytes",
                    _UNDEFINED: f"has an undefined status byte ({status:#x})",
                }.get(following, "ends too early"),
            )
        elif following != _ENDED and is_cut:
            faults[track] = end, "ends too early"
    messages, over_127, contents = _read_messages(padded, numbers, lengths, np.array(places, np.int64), ends, faults)
    n_clipped = np.bincount(messages["track"], over_127, len(chunks)) if over_127.any() else np.zeros(len(chunks))
    repairs = []
    for track in sorted({*faults, *np.flatnonzero(n_clipped).tolist()}):
        if track in faults:
            repairs.append(f"track {track + 1} {faults[track][1]} at byte {faults[track][0]}")
        if n_clipped[track]:
            repairs.append(f"track {track + 1} has data bytes above 127, {n_clipped[track]:.0f} of them")
    return MidiFile(ticks_per_beat, messages, contents, repairs)


def _track_chunks(data: bytes, position: int) -> list[tuple[int, int, bool]]:
    """Finds the data of each track, whatever the lengths and the count in the file say.

    Returns (begin, end, whether the file ends before the length of the track is reached) for each.

    A length is believed if another chunk or the end of the file follows there, else the track reaches to the next
    chunk named MTrk. Chunks of other names are skipped, as RP-001 demands.
    """
    chunks = []
    while (position := _chunk_start(data, position)) >= 0:
        begin = position + 8
        end = begin + int.from_bytes(data[position + 4 : begin], "big")
        is_track, is_cut = data[position : position + 4] == b"MTrk", end > len(data)
        if end != len(data) and not _is_chunk(data, end):
            following = data.find(b"MTrk", begin)
            end = following if following >= 0 else len(data)
        if is_track:
            chunks.append((begin, end, is_cut))
        position = end
    return chunks


def _is_chunk(data: bytes, position: int) -> bool:
    """Returns whether a chunk may begin there: four letters, digits or spaces, as the names of chunks are."""
    name = data[position : position + 4]
    return len(data) >= position + 8 and name.isascii() and name.replace(b" ", b"x").isalnum()


def _chunk_start(data: bytes, position: int) -> int:
    """Returns where the next chunk begins, at `position` or at the next MTrk after it; -1 if there is none."""
    if _is_chunk(data, position):
        return position
    start = data.find(b"MTrk", position)
    return start if 0 <= start <= len(data) - 8 else -1


def _numbers(padded: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Reads a number of one to four bytes (RP-001, "variable-length quantity") at every byte of a file.

    Args:
        padded: uint8 [byte], with eight zeros at the end.

    Returns:
        numbers: int32 [byte].
        lengths: int32 [byte], in bytes.
        too_long: the places at which a number would have more than four bytes.
    """
    numbers, lengths = (padded & 0x7F).astype(np.int32), np.ones(len(padded), np.int32)
    places = np.flatnonzero(padded[:-8] >= 0x80)
    for offset in (1, 2, 3):
        following = padded[places + offset]
        numbers[places] = numbers[places] << 7 | following & 0x7F
        lengths[places] += 1
        places = places[following >= 0x80]
    return numbers, lengths, places


def _step_tables() -> np.ndarray:
    """Returns by how much a channel message moves on the state of `_steps`, int32 [class of running status, status]."""
    tables = np.zeros((2, 256), np.int32)
    tables[0, :0x80], tables[1, :0x80] = 2 * 2, 2 * 1 + 1  # without a status byte: two data bytes, or one
    for status in range(0x80, 0xF0):
        n_data = 1 if status & 0xE0 == 0xC0 else 2  # program change and channel pressure have one
        tables[:, status] = 2 * (1 + n_data) + (n_data == 1)
    for status, n_data in _SYSTEM_DATA_BYTES.items():
        tables[:, status] = 2 * (1 + n_data) + np.arange(2)
    return tables


_STEPS_BY_STATUS = _step_tables()


def _steps(padded: np.ndarray, numbers: np.ndarray, lengths: np.ndarray, too_long: np.ndarray) -> np.ndarray:
    """Works out where a message ends that begins at any byte of a file.

    A state is twice the place of a message, plus 1 if the "running status", the status byte that counts again where a
    message has none, is one of messages with one data byte. Arguments are those that `_numbers` takes and returns.

    Returns:
        int32 [state]: the state after the message, _ENDED after the end of a track; _TOO_LONG or _UNDEFINED if there is
        no such message.
    """
    n = len(padded) - 8
    places = np.arange(n, dtype=np.int32) + lengths[:n]  # of status bytes
    status = padded[places]
    steps = 2 * places[:, None] + _STEPS_BY_STATUS.T[status]
    (special,) = np.nonzero(status >= 0xF0)
    kinds = status[special]
    is_meta = kinds == META
    sized = is_meta | (kinds == SYSTEM_EXCLUSIVE) | (kinds == _CONTINUED)
    sizes = places[special[sized]] + 1 + is_meta[sized]  # where the sizes of the contents are
    is_too_long = np.zeros(len(padded), bool)
    is_too_long[too_long] = True
    after = sizes + lengths[sizes] + numbers[sizes]
    steps[special[sized]] = np.where(is_too_long[sizes], _TOO_LONG, 2 * after)[:, None]
    steps[special[sized], 1] += ~is_too_long[sizes]
    steps[special[is_meta & (padded[places[special] + 1] == END_OF_TRACK)]] = _ENDED
    steps[special[~sized & ~np.isin(kinds, list(_SYSTEM_DATA_BYTES))]] = _UNDEFINED
    steps[too_long] = _TOO_LONG
    return steps.ravel()


def _hop(steps: memoryview, begin: int, end: int, places: list[int]) -> tuple[int, int]:
    """Follows the messages of a track from `begin` to `end`, and appends the place of each whole one to `places`.

    Returns the place of the last message that was looked at, and the state after it: see `_steps`.
    """
    state = following = 2 * begin
    last = 2 * end + 1
    for _ in range(MAX_MESSAGES + 1 - len(places)):
        if state >= 2 * end:
            break
        following = steps[state]
        if not state < following <= last:
            break
        places.append(state >> 1)
        state = following
    return state >> 1, following


def _read_messages(
    padded: np.ndarray,
    numbers: np.ndarray,
    lengths: np.ndarray,
    places: np.ndarray,
    ends: list[int],
    faults: dict[int, tuple[int, str]],
) -> tuple[np.ndarray, np.ndarray, dict[int, bytes]]:
    """Reads the messages at `places`, in tracks that end at `ends`; adds to `faults` tracks that lack a status byte.

    Returns messages as in MidiFile; how many data bytes of each are above 127, int [message]; contents as in MidiFile.
    """
    rows = np.zeros(len(places), MESSAGE)
    rows["track"] = np.repeat(np.arange(len(ends) - 1), np.diff(ends))
    ticks = np.concatenate([[0], np.cumsum(numbers[places], dtype=np.int64)])
    rows["tick"] = ticks[1:] - np.repeat(ticks[ends[:-1]], np.diff(ends))
    data_places = places + lengths[places]
    status = padded[data_places]
    has_status, is_channels = status >= 0x80, (status >= 0x80) & (status < 0xF0)
    data_places += has_status
    running = np.maximum.accumulate(np.where(is_channels, np.arange(len(rows)), -1)) if len(rows) else data_places
    kept = has_status | (running >= np.repeat(ends[:-1], np.diff(ends)))
    for track in np.unique(rows["track"][~kept]).tolist():  # it is read up to where a status byte is missing
        first = ends[track] + int(np.argmin(kept[ends[track] : ends[track + 1]]))
        kept[first : ends[track + 1]] = False
        faults[track] = int(places[first]), "has a message without a status byte"
    status = np.where(has_status, status, status[running])
    is_channels = status < 0xF0
    number, value = padded[data_places], padded[data_places + 1]
    value[~is_channels | (status & 0xE0 == 0xC0)] = 0
    over_127 = is_channels * ((number > 127) + (value > 127).astype(np.uint8))
    rows["status"] = status
    rows["number"] = np.where(is_channels, np.minimum(number, 127), np.where(status == META, number, 0))
    rows["value"] = np.minimum(value, 127)

    is_exclusive = (status == SYSTEM_EXCLUSIVE) | (status == _CONTINUED)
    kept &= is_channels | is_exclusive | ((status == META) & np.isin(number, (SET_TEMPO, PORT, DEVICE_NAME)))
    contents: dict[int, bytes] = {}
    held, held_track = b"", -1  # a system exclusive message of which packets may follow
    special = np.flatnonzero(kept & ~is_channels)
    size_places = data_places[special] + (status[special] == META)
    begins = size_places + lengths[size_places]
    for row, begin, end in zip(special.tolist(), begins.tolist(), (begins + numbers[size_places]).tolist()):
        content = padded[begin:end].tobytes()
        if is_exclusive[row]:
            track = int(rows["track"][row])
            if status[row] == _CONTINUED:  # on its own it holds something else
                content = held + content if held_track == track else b""
            kept[row] = bool(content)
            held, held_track = (b"", -1) if content.endswith(b"\xf7") or not content else (content, track)
            content = content.removesuffix(b"\xf7")
        contents[row] = content
    rows["status"][is_exclusive] = SYSTEM_EXCLUSIVE
    numbers_kept = np.cumsum(kept) - 1
    return rows[kept], over_127[kept], {int(numbers_kept[row]): c for row, c in contents.items() if kept[row]}
