"""The state of MIDI channels: which bank and program a note is played by, and what a reset changes.

Each rule names its source:
    GM1   General MIDI System Level 1, RP-003 (MIDI Manufacturers Association, 1991)
    GM2   General MIDI 2, RP-024 (1999)
    GS    Roland GS, as the owner's manuals of the SC-55 and SC-88 Pro document it
    XG    Yamaha XG Specification, as the manuals of the MU50 and MU80 print it
    RP-015, RP-019   recommended practices: Response to Reset All Controllers; Device Name and Port meta events
    FluidSynth   version 2.6 with synth.device-id=16
    TiMidity++   version 2.14

The modes differ in what Bank Select (MSB: controller 0, LSB: controller 32) means, and in how a channel comes to be
percussion. In all of them Bank Select waits for the next program change, channel 10 begins as percussion, and every
other channel begins with program 0.

mode     percussion is                                     bank of the other channels
none     channel 10; MSB 120 (GM2), 126, 127 (XG)          MSB; LSB if the MSB is 121 (GM2)
GM1      channel 10                                        0: Bank Select is not received (MU50, FP-30X, FluidSynth)
GS       channel 10; parts set to "use for rhythm"         MSB ("variation")
XG       MSB 126 (effects kit), 127 (drum kit), 120        LSB; MSB 64 (sound effects) see `_voice`
GM2      MSB 120; 121 for melody, others ignored           LSB

"None" is a file that sets no mode. FluidSynth and TiMidity++ then play MSB 126 and 127 as melody; but no GS file needs
these (they select sounds of the older MT-32), and XG files without a reset do.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable, Mapping

import numpy as np

from data_gen.instruments import DRUM_BANK
from data_gen.midi_file import DEVICE_NAME, META, PORT, SYSTEM_EXCLUSIVE

# Controllers with a meaning of their own (MIDI 1.0 specification, table III).
BANK_SELECT, BANK_SELECT_LSB, SUSTAIN, ALL_SOUND_OFF, RESET_CONTROLLERS, ALL_NOTES_OFF = 0, 32, 64, 120, 121, 123
DRUM_CHANNEL = 9  # "channel 10" counted from 0 (GM1)
MAX_PORTS = 16  # of 16 channels each, so that a channel is a number of 8 bits

GM1, GS, XG, GM2 = "GM1", "GS", "XG", "GM2"
_PERCUSSION_BANKS = {"": (120, 126, 127), GM1: (), GS: (), XG: (120, 126, 127), GM2: (120,)}
_FIRST_BANK = {XG: (0, 127), GM2: (121, 120)}  # MSB that a channel begins with: melody, percussion; else 0
_XG_EFFECTS, _GM2_MELODY = 64, 121  # values of the MSB
_DEVICE_IDS = (0x10, 0x7F)  # the device ID that GS and XG messages in files have, and "all devices"

# Controllers that Reset All Controllers leaves alone (RP-015), with the values they have after a reset of the system.
_RESET_VALUES = {7: 100, 39: 0, 8: 64, 40: 0, 10: 64, 42: 0, **dict.fromkeys(range(70, 80), 64)}
_DATA_ENTRY = (6, 38, 96, 97)
_FOLLOWED = (BANK_SELECT, BANK_SELECT_LSB, *_RESET_VALUES, *_DATA_ENTRY)  # controllers with an effect here
# Registered parameters after a reset: pitch bend range 2 semitones, fine and coarse tuning in the centre (GM1, GM2).
_RESET_PARAMETERS = (
    *((101, 0), (100, 0), (6, 2), (38, 0), (101, 0), (100, 1), (6, 64), (38, 0), (101, 0), (100, 2), (6, 64)),
    *((101, 127), (100, 127)),
)


def ports(messages: np.ndarray, contents: Mapping[int, bytes]) -> np.ndarray:
    """Returns the port of each message of a file, numbered from 0 as far as ports with channel messages go.

    A port is a set of 16 channels of its own. A track is played by the device that it names (meta event 09) through the
    port that it names (meta event 21), and both count from the beginning of the track until another follows (RP-019).
    A track that names no port uses port 0; one that names no device uses the first device named in the file.

    Args:
        messages, contents: of a `midi_file.MidiFile`.

    Returns:
        uint8 [message].
    """
    devices: dict[bytes, int] = {}  # name -> number, in order of appearance
    named: dict[int, list[tuple[int, int, bytes]]] = collections.defaultdict(list)  # track -> (message, kind, content)
    rows = [row for row, content in contents.items() if content]
    for row, message in zip(rows, messages[rows].tolist()):
        _, track, status, kind, _ = message
        if status == META and kind in (PORT, DEVICE_NAME):
            named[track].append((row, kind, contents[row]))
            if kind == DEVICE_NAME:
                devices.setdefault(contents[row], len(devices))
    if not named:
        return np.zeros(len(messages), np.uint8)
    begins: list[int] = []  # of stretches of messages with one key
    keys: list[tuple[int, int]] = []  # (device, port) of each of them
    n_tracks = int(messages["track"][-1]) + 1
    for track, begin in enumerate(np.searchsorted(messages["track"], np.arange(n_tracks)).tolist()):
        first = {kind: content for _, kind, content in reversed(named[track])}
        key = devices.get(first.get(DEVICE_NAME, b""), 0), first.get(PORT, b"\0")[0]
        begins.append(begin)
        keys.append(key)
        for row, kind, content in named[track]:
            key = (devices[content], key[1]) if kind == DEVICE_NAME else (key[0], content[0])
            begins.append(row)
            keys.append(key)
    stretch = np.searchsorted(begins, np.arange(len(messages)), side="right") - 1
    used = np.unique(stretch[messages["status"] < 0xF0]).tolist()  # by channel messages
    numbers = {key: min(n, MAX_PORTS - 1) for n, key in enumerate(sorted({keys[place] for place in used}))}
    return np.array([numbers.get(key, 0) for key in keys], np.uint8)[stretch]


@dataclasses.dataclass
class _Channel:
    """What a channel remembers, apart from the bank and the program in force."""

    is_rhythm: bool  # whether it is percussion unless Bank Select says otherwise
    msb: int  # of Bank Select, for the next program change
    lsb: int = 0
    changed: set[int] = dataclasses.field(default_factory=set)  # controllers of _RESET_VALUES and _DATA_ENTRY


def follow(
    messages: np.ndarray, channels: np.ndarray, contents: Mapping[int, bytes]
) -> tuple[np.ndarray, list[tuple[int, int, int, int]]]:
    """Follows all channels of a file.

    Args:
        messages: [message] of dtype `midi_file.MESSAGE`, in order of time.
        channels: uint8 [message], port * 16 + MIDI channel; port * 16 of messages that have no channel.
        contents: number of a message -> its bytes, if it is a meta event or system exclusive.

    Returns:
        voices: uint8 [message, 2], the SoundFont bank and the program that a note struck there is played by.
        controls: (message, channel, number, value), control changes with the effect on sounds and controllers that
            system exclusive messages have, in order of time.
    """
    n = len(messages)
    kinds, numbers = messages["status"] & 0xF0, messages["number"]
    is_exclusive = messages["status"] == SYSTEM_EXCLUSIVE
    is_change = (kinds == 0xC0) | is_exclusive | ((kinds == 0xB0) & np.isin(numbers, _FOLLOWED))
    # Messages that have a channel reset with the others: it sounds, or has controllers that a reset changes.
    is_use = np.isin(kinds, (0xB0, 0xC0, 0xD0, 0xE0)) | ((kinds == 0x90) & (messages["value"] > 0))
    state = _Channels()
    controls: list[tuple[int, int, int, int]] = []
    changes = [(channel, -1, *_first_voice(channel)) for channel in range(16 * MAX_PORTS)]
    last = 0  # message up to which the channels in use are known
    rows = np.flatnonzero(is_change)
    changing = zip(rows.tolist(), channels[rows].tolist(), messages[rows].tolist())
    for row, channel, (_, _, status, number, value) in changing:
        if status == SYSTEM_EXCLUSIVE:
            state.use(set(channels[last:row][is_use[last:row]].tolist()))
            last = row
            controls += [(row, *control) for control in state.receive_exclusive(channel // 16, contents[row])]
        elif status >= 0xC0:
            state.change_program(channel, number)
        else:
            state.change_control(channel, number, value)
        changes += [(changed, row, *voice) for changed, voice in state.changed.items()]
        state.changed.clear()
    table = np.array(changes, np.int64)
    table = table[np.lexsort((table[:, 1], table[:, 0]))]  # by channel, then by time
    begins = table[:, 0] * (n + 1) + table[:, 1] + 1
    places = np.searchsorted(begins, channels.astype(np.int64) * (n + 1) + np.arange(n) + 1, side="right") - 1
    return table[places, 2:].astype(np.uint8), controls


def _first_voice(channel: int) -> tuple[int, int]:
    """Returns the SoundFont bank and the program of a channel after a reset."""
    return DRUM_BANK if channel % 16 == DRUM_CHANNEL else 0, 0


class _Channels:
    """Follows all channels of a file, message by message. A channel is numbered port * 16 + MIDI channel.

    Attributes:
        voices: [channel] (SoundFont bank, program) that a note struck now is played by.
        changed: channel -> the new one of its `voices`, since the caller last emptied it.
    """

    def __init__(self) -> None:
        self.voices = [_first_voice(channel) for channel in range(16 * MAX_PORTS)]
        self.changed: dict[int, tuple[int, int]] = {}
        self._mode = ""
        self._used: dict[int, _Channel] = {}  # channels with messages since the last reset

    def _channel(self, channel: int) -> _Channel:
        if channel not in self._used:
            is_rhythm = channel % 16 == DRUM_CHANNEL
            self._used[channel] = _Channel(is_rhythm, self._first_bank(is_rhythm))
        return self._used[channel]

    def _first_bank(self, is_rhythm: bool) -> int:
        return _FIRST_BANK.get(self._mode, (0, 0))[is_rhythm]

    def use(self, channels: Iterable[int]) -> None:
        """Notes that channels sound or have controllers that a reset would change."""
        for channel in channels:
            self._channel(channel)

    def change_control(self, channel: int, number: int, value: int) -> None:
        """Takes in a control change."""
        state = self._channel(channel)
        if number == BANK_SELECT:
            if self._mode != GM2 or value in (120, _GM2_MELODY):  # FluidSynth; GM2 names no other value
                state.msb = value
        elif number == BANK_SELECT_LSB:
            state.lsb = value
        elif number in _FOLLOWED:
            state.changed.add(number)

    def change_program(self, channel: int, program: int) -> None:
        """Takes in a program change, which also puts the bank selected before it into force."""
        self._play(channel, self._voice(self._channel(channel), program))

    def _play(self, channel: int, voice: tuple[int, int]) -> None:
        self.voices[channel] = self.changed[channel] = voice

    def _voice(self, state: _Channel, program: int) -> tuple[int, int]:
        """Returns the SoundFont bank and the program that a program change selects."""
        mode, msb = self._mode, state.msb
        if msb in _PERCUSSION_BANKS[mode] or (state.is_rhythm and mode not in (XG, GM2)):
            return DRUM_BANK, program
        if mode == XG and msb == _XG_EFFECTS:
            # XG lists its effects in the order of the eight General MIDI effects, 16 programs for each of these.
            return 0, 120 + program // 16
        if mode == GM1:
            return 0, program
        return (state.lsb if mode in (XG, GM2) or (mode == "" and msb == _GM2_MELODY) else msb), program

    def receive_exclusive(self, port: int, data: bytes) -> list[tuple[int, int, int]]:
        """Takes in a system exclusive message (without F0 and F7) that arrives at a port.

        Returns:
            control changes (channel, number, value) that have the effect on sounds and controllers that it has; [] for
            most messages. All ports are reset together, as the parts of one device are, and in FluidSynth.
        """
        if len(data) < 4 or data[1] not in _DEVICE_IDS or max(data) > 127:
            return []
        if data[0] == 0x7E and data[2] == 0x09:  # "General MIDI System" (GM1, GM2)
            mode = {1: GM1, 3: GM2}.get(data[3])
            return self._reset(mode) if mode else []
        if data[0] == 0x41 and data[2:4] == b"\x42\x12" and len(data) >= 9:
            # GS "data set": address of three bytes, data, checksum. Devices drop it if the checksum is wrong.
            if sum(data[4:]) % 128 == 0:
                return self._set_gs(port, data[4:7], data[7:-1])
        elif data[0] == 0x43 and data[2] == 0x4C and len(data) >= 7:  # XG "parameter change": address, data
            return self._set_xg(port, data[3:6], data[6:])
        return []

    def _set_gs(self, port: int, address: bytes, data: bytes) -> list[tuple[int, int, int]]:
        if address == b"\x40\x00\x7f":  # GS Reset; 7F leaves GS for GM1 (FluidSynth)
            return self._reset({0: GS, 0x7F: GM1}.get(data[0], self._mode)) if data[0] in (0, 0x7F) else []
        if address == b"\x00\x00\x7f":  # "system mode set" of the SC-88, which resets too (TiMidity++)
            return self._reset(GS)
        # A message to a part acts in every mode but XG: GM System On only turns off Bank Select and NRPN (SC-88 Pro).
        if self._mode == XG or address[0] not in (0x40, 0x50) or address[1] >> 4 != 1:
            return []
        # Part numbers (the second digit of the middle byte): 0 is channel 10, 1 to 9 are channels 1 to 9, then as is.
        part = address[1] & 0xF
        channel = DRUM_CHANNEL if part == 0 else part - 1 if part <= 9 else part
        port ^= address[0] == 0x50  # the other sixteen parts of the SC-88 (TiMidity++)
        if address[2] == 0x15:  # "use for rhythm part": 0 off, 1 and 2 the maps of drums
            self._set_rhythm(16 * port + channel, data[0] > 0)
        elif address[2] == 0x00 and len(data) >= 2:  # "tone number": bank and program at once
            self.change_control(16 * port + channel, BANK_SELECT, data[0])
            self.change_program(16 * port + channel, data[1])
        return []

    def _set_xg(self, port: int, address: bytes, data: bytes) -> list[tuple[int, int, int]]:
        if address in (b"\x00\x00\x7e", b"\x00\x00\x7f"):  # XG System On; All Parameter Reset
            return self._reset(XG) if data[0] == 0 else []
        # A message to a part (a channel, in the order of these) acts in every mode but GS.
        if self._mode == GS or address[0] != 0x08 or address[1] > 15:
            return []
        channel = 16 * port + address[1]
        if address[2] == 0x07:  # "part mode": 0 normal, else drums
            self._set_rhythm(channel, data[0] > 0)
        elif address[2] in (0x01, 0x02):  # Bank Select MSB and LSB
            self.change_control(channel, BANK_SELECT if address[2] == 0x01 else BANK_SELECT_LSB, data[0])
        elif address[2] == 0x03:
            self.change_program(channel, data[0])
        return []

    def _set_rhythm(self, channel: int, is_rhythm: bool) -> None:
        """Makes a channel percussion or melody, with program 0 until the next program change (FluidSynth).

        Nothing happens if it is that already: a Sound Canvas keeps a program for each of the two.
        """
        state = self._channel(channel)
        state.is_rhythm = is_rhythm
        if (self.voices[channel][0] == DRUM_BANK) != is_rhythm:
            state.msb, state.lsb = self._first_bank(is_rhythm), 0
            self._play(channel, (DRUM_BANK if is_rhythm else 0, 0))

    def _reset(self, mode: str) -> list[tuple[int, int, int]]:
        """Brings every channel to its first state: sounds, controllers, bank and program (GM1, GS, XG, FluidSynth)."""
        controls = []
        for channel, state in sorted(self._used.items()):
            controls += [(channel, ALL_SOUND_OFF, 0), (channel, RESET_CONTROLLERS, 0)]
            if state.changed & set(_DATA_ENTRY):
                controls += [(channel, number, value) for number, value in _RESET_PARAMETERS]
            controls += [(channel, n, value) for n, value in _RESET_VALUES.items() if n in state.changed]
            self._play(channel, _first_voice(channel))
        self._used.clear()
        self._mode = mode
        return controls
