"""The bytes of a Standard MIDI File -> the messages of each track, with as much repaired as can be played.

The format is that of "Standard MIDI Files 1.0" (RP-001, MIDI Manufacturers Association). Lengths and counts in the file
are taken as estimates: a track ends at its End of Track, else where its data ends or stops making sense, and what was
read until then is kept.

No library is used, because none reads what this project needs: mido refuses or misreads damaged files as a whole and
takes seven times as long; symusic keeps neither system exclusive messages, nor ports, nor the channel of a note.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from data_gen import InputError

MAX_BYTES = 2 << 20  # 2 MiB; the longest songs have a fifth of it
MAX_TRACKS = 1_000
MAX_MESSAGES = 500_000  # in all tracks; the longest songs have a tenth of it, and more would take seconds to read

META, SYSTEM_EXCLUSIVE = 0xFF, 0xF0
END_OF_TRACK, SET_TEMPO, PORT, DEVICE_NAME = 0x2F, 0x51, 0x21, 0x09  # types of meta events; the last two are of RP-019

Message = tuple[int, int, int, Any]
"""(tick, status, number, value).

A channel message has its status byte, 0x80 to 0xEF, and two data bytes (one of them 0 for messages that have one). A
meta event is (tick, META, its type, its bytes). A system exclusive message is (tick, SYSTEM_EXCLUSIVE, 0, its bytes
without F0 and F7).
"""

_MAX_PREFIX_BYTES = 256  # before the header: MacBinary puts 128 there, a text editor a byte order mark
_ONE_DATA_BYTE = (0xC0, 0xD0)  # program change and channel pressure
# System messages do not belong into a file; those that MIDI 1.0 defines are skipped, with their data bytes.
_SYSTEM_DATA_BYTES = {0xF1: 1, 0xF2: 2, 0xF3: 1, 0xF6: 0, 0xF8: 0, 0xFA: 0, 0xFB: 0, 0xFC: 0, 0xFE: 0}


@dataclasses.dataclass(frozen=True)
class MidiFile:
    """What a file holds.

    Attributes:
        ticks_per_beat: as in the header; negative where the file counts frames (SMPTE) instead of beats.
        tracks: the messages of each track, in order of time.
        repairs: what was wrong and could cost music, one phrase each.
    """

    ticks_per_beat: int
    tracks: list[list[Message]]
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

    tracks: list[list[Message]] = []
    repairs: list[str] = []
    n_messages = 0
    for begin, end, is_cut in _track_chunks(data, start + 8 + header_bytes):
        if len(tracks) == MAX_TRACKS:
            raise InputError(f"{name}: more than {MAX_TRACKS} tracks, more than a song needs")
        track, n_clipped, fault = _parse_track(data[begin:end], is_cut, MAX_MESSAGES + 1 - n_messages)
        tracks.append(track)
        n_messages += len(track)
        if n_messages > MAX_MESSAGES:
            raise InputError(f"{name}: more than {MAX_MESSAGES} events, more than a song needs")
        if fault:
            repairs.append(f"track {len(tracks)} {fault[1]} at byte {begin + fault[0]}")
        if n_clipped:
            repairs.append(f"track {len(tracks)} has data bytes above 127, {n_clipped} of them")
    if not tracks:
        raise InputError(f"{name}: damaged MIDI file (it ends too early: it holds no track)")
    return MidiFile(ticks_per_beat, tracks, repairs)


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


def _parse_track(track: bytes, is_cut: bool, most: int) -> tuple[list[Message], int, tuple[int, str] | None]:
    """Reads the data of a track, at most `most` messages of it; `is_cut` says that the file ends before the track does.

    Returns:
        the messages; how many data bytes were above 127 and are clipped; (byte, what is wrong) if the
        track stops making sense there or is cut off, else None.
    """
    messages: list[Message] = []
    position = tick = running = n_clipped = 0
    held = b""  # a system exclusive message of which packets may follow
    length = len(track)
    begin = 0  # of the message that is being read
    try:
        while position < length and len(messages) < most:
            begin = position
            delta = track[position]
            position += 1
            if delta >= 0x80:  # of more than one byte, which is rare
                delta, position = _variable_length(track, begin)
            tick += delta
            status = track[position]
            if status < 0x80:
                status = running  # "running status": the status byte of the message before counts again
                if not status:
                    return messages, n_clipped, (begin, "has a message without a status byte")
            else:
                position += 1
            if status < 0xF0:
                running = status
                number = track[position]
                position += 1
                value = 0
                if status & 0xF0 not in _ONE_DATA_BYTE:
                    value = track[position]
                    position += 1
                if number > 127 or value > 127:
                    n_clipped += (number > 127) + (value > 127)
                    number, value = min(number, 127), min(value, 127)
                messages.append((tick, status, number, value))
            elif status in (META, 0xF0, 0xF7):
                kind = 0
                if status == META:
                    kind = track[position]
                    position += 1
                size, position = _variable_length(track, position)
                if kind == END_OF_TRACK and status == META:
                    return messages, n_clipped, None
                content = track[position : position + size]
                position += size
                if len(content) < size:
                    raise IndexError
                if status == META:
                    messages.append((tick, META, kind, content))
                else:  # F0 begins a system exclusive message, F7 goes on with it or with something else
                    held = content if status == 0xF0 else held + content if held else b""
                    if held:
                        messages.append((tick, SYSTEM_EXCLUSIVE, 0, held.removesuffix(b"\xf7")))
                    held = b"" if held.endswith(b"\xf7") else held
            elif status in _SYSTEM_DATA_BYTES:
                position += _SYSTEM_DATA_BYTES[status]
            else:
                return messages, n_clipped, (begin, f"has an undefined status byte ({status:#x})")
    except IndexError:
        return messages, n_clipped, (begin, "ends too early")
    except ValueError as error:
        return messages, n_clipped, (begin, str(error))
    return messages, n_clipped, (length, "ends too early") if is_cut else None


def _variable_length(track: bytes, position: int) -> tuple[int, int]:
    """Reads a number of one to four bytes (RP-001, "variable-length quantity"); returns it and what follows it."""
    number = track[position]
    position += 1
    if number < 0x80:
        return number, position
    number &= 0x7F
    for following in range(position, position + 3):
        byte = track[following]
        number = number << 7 | byte & 0x7F
        if byte < 0x80:
            return number, following + 1
    raise ValueError("has a number of more than four bytes")
