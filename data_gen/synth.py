"""Plays a window of a piece through FluidSynth: all stems in one pass.

One FluidSynth instance plays every instrument at once. Each instrument has its own channels, sixteen or as many as a
piece of several ports needs, and its own output group (FluidSynth sends synth channel c to group c modulo the number of
groups), so that no stem contains sound of another, and they sum to the mixture. Each instrument has its own reverb and
chorus, which are off for most visits: silence is then exactly zero.

An instance holds several SoundFonts at once; a `Sound` says for each instrument which of them plays it, and how.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import pathlib
import tempfile
from collections.abc import Iterator, Sequence

import numpy as np

from data_gen import InputError, RenderError, fluidsynth_library, midi
from data_gen.instruments import DRUM_BANK, Instrument
from data_gen.procedural import make_presets
from data_gen.soundfont_file import PROCEDURAL, Preset, SoundFontFile, write_soundfont
from data_gen.variation import Effects, Sound

BLOCK_SAMPLES = 64  # FluidSynth acts on events between blocks of this length (FLUID_BUFSIZE)
PREROLL_S = 0.5  # audio rendered and discarded before a window, so that notes already sounding are past their attack
MAX_DECAYED_S = 3.0  # a plucked or struck note older than this has faded and is not repeated at the pre-roll
GAIN = 1.0  # brings a full mixture near -18 dBFS RMS; FluidSynth's default of 0.2 gives -32
POLYPHONY = 512  # voices, twice FluidSynth's default, since several instruments share one instance

# General MIDI programs whose sound fades by itself: pianos, mallets, guitars, plucked basses, harp, and the plucked and
# struck instruments of the ethnic and percussive families.
_DECAYING_PROGRAMS = (*range(0, 16), *range(24, 38), 45, 46, 47, *range(104, 109), *range(112, 120))
_RPN_CONTROLLERS = (6, 38, 96, 97, 98, 99, 100, 101)  # these only have a meaning in sequence
_MAX_CHANNELS = 256  # of a FluidSynth instance (its setting synth.midi-channels)
_REVERB_SEND, _CHORUS_SEND = 91, 93  # controllers
# A piece's own effect sends are ignored, since `effects` decides, and so are its channel mode messages: omni, mono and
# poly would act on all of FluidSynth's channels at once.
_IGNORED_CONTROLLERS = (_REVERB_SEND, _CHORUS_SEND, 124, 125, 126, 127)


class Synthesizer:
    """Plays pieces through SoundFonts, each of which is held in memory once.

    Args:
        soundfonts: paths of SF2 or SF3 files, or one path. PROCEDURAL stands for presets that are computed, for each
            render, from the seeds of its sounds.
        instruments: the instruments to play, in the order of the stems. No others are played.
        sample_rate: in Hz, 8,000 to 96,000.
        n_channels: 1, the mean of left and right, or 2.

    Raises InputError if a SoundFont is missing or damaged, or if none has a preset for one of the instruments.
    """

    def __init__(
        self,
        soundfonts: str | pathlib.Path | Sequence[str | pathlib.Path],
        instruments: Sequence[Instrument],
        sample_rate: int,
        n_channels: int = 1,
    ):
        paths = [soundfonts] if isinstance(soundfonts, (str, pathlib.Path)) else soundfonts
        for path in paths:
            if path != PROCEDURAL:
                _check_soundfont(path)
        self.soundfonts = tuple(map(str, paths))
        self.instruments = tuple(instruments)
        self.sample_rate = sample_rate
        self.n_channels = n_channels
        n_groups = len(self.instruments)
        if n_groups > 16:
            raise InputError(f"{n_groups} instruments: FluidSynth has channels for 16 at once")
        self._fluid = fluid = fluidsynth_library.load()
        self._settings = fluid.new_settings()
        for name, value in {
            "synth.audio-channels": n_groups,
            "synth.audio-groups": n_groups,
            "synth.effects-groups": n_groups,
            "synth.midi-channels": 16 * n_groups,  # more for a piece of several ports, see `_renew`
            "synth.polyphony": POLYPHONY,
            "synth.threadsafe-api": 0,  # one thread drives it; with it on, long renders lose events
        }.items():
            fluid.settings_setint(self._settings, name.encode(), value)
        fluid.settings_setnum(self._settings, b"synth.sample-rate", sample_rate)
        # Mono is the mean of left and right: their sum at half gain.
        fluid.settings_setnum(self._settings, b"synth.gain", GAIN / 2)
        self._activate_effects(False)
        self._synth = fluid.new_synth(self._settings)
        self._fonts: list[int | None] = []  # FluidSynth's pointers; None for PROCEDURAL
        self._kits: list[tuple[int, int] | None] = []
        for path in self.soundfonts:
            self._load(path)
        self._presets: dict[tuple[int, int, int, int], tuple[int, int, int]] = {}
        self._buffer = np.empty(0, np.float32)
        for position, instrument in enumerate(self.instruments):
            bank = DRUM_BANK if instrument.is_percussion else 0
            self._preset(position, 0, bank, (instrument.programs or (0,))[0])

    def _load(self, path: str) -> None:
        """Loads a SoundFont with all its samples.

        FluidSynth can also load those of a preset when it is selected, but not after the SoundFont was moved to
        another instance, see `_renew`: it crashes.
        """
        fluid = self._fluid
        if path == PROCEDURAL:
            self._fonts.append(None)
            self._kits.append(None)
            return
        with fluid.lock:
            fluid.log.clear()
            font_id = fluid.sfload(self._synth, path.encode(), 0)
            if font_id < 0:
                reason = "; ".join(fluid.log) or "damaged"
                raise InputError(f"{path}: FluidSynth cannot load this SoundFont ({reason})")
            self._fonts.append(fluid.get_sfont_by_id(self._synth, font_id))
            self._kits.append(SoundFontFile(path).kit)

    def __del__(self) -> None:
        if getattr(self, "_synth", None):
            self._fluid.delete_synth(self._synth)
        if getattr(self, "_settings", None):
            self._fluid.delete_settings(self._settings)

    def _activate_effects(self, active: bool) -> None:
        for name in (b"synth.reverb.active", b"synth.chorus.active"):
            self._fluid.settings_setint(self._settings, name, int(active))

    def _renew(self, effects: Sequence[Effects], n_channels: int) -> None:
        """Replaces the FluidSynth instance, in half a millisecond, and moves the loaded SoundFonts to the new one.

        The new instance has `n_channels` channels for each instrument.

        `fluid_synth_system_reset` would keep the last gain of each voice, and ramp from it into the next note that the
        voice plays: a render would depend on those before it.
        """
        fluid = self._fluid
        self._activate_effects(bool(effects))
        n_groups = len(self.instruments)
        # FluidSynth wants a multiple of 16.
        fluid.settings_setint(self._settings, b"synth.midi-channels", -(-n_channels * n_groups // 16) * 16)
        synth = fluid.new_synth(self._settings)
        for font in self._fonts:
            if font is not None:
                fluid.remove_sfont(self._synth, font)
        self._font_ids = [-1 if font is None else fluid.add_sfont(synth, font) for font in self._fonts]
        fluid.delete_synth(self._synth)
        self._synth = synth
        self._selected: dict[int, tuple[int, int, int]] = {}  # synth channel -> its preset
        fluid.log.clear()  # the old instance logs that its presets are gone
        for group, effect in enumerate(effects):
            fluid.set_reverb_group_roomsize(synth, group, effect.reverb_room)
            for channel in range(group, n_channels * n_groups, n_groups):
                fluid.cc(synth, channel, _REVERB_SEND, effect.reverb_send)
                fluid.cc(synth, channel, _CHORUS_SEND, effect.chorus_send)

    def _preset(self, position: int, font: int, bank: int, program: int) -> tuple[int, int, int]:
        """Returns the (number of the SoundFont, bank, program) that plays a note.

        The SoundFont is `font` if it has the program or, within the instrument, another one: first of the same family
        of eight. Else it is the first that has the program; else the first that has any of the instrument.
        """
        key = (position, font, bank, program)
        if key not in self._presets:
            if self._fonts[font] is None:  # each instrument has a bank of its own there
                return font, position, 0 if self.instruments[position].is_percussion else program
            for candidate in self._candidates(*key):
                pointer = self._fonts[candidate[0]]
                if pointer is not None and self._fluid.sfont_get_preset(pointer, *candidate[1:]):
                    self._presets[key] = candidate
                    break
            else:
                name = self.instruments[position].name
                raise InputError(f"{', '.join(self.soundfonts)}: this SoundFont has no preset for {name}")
        return self._presets[key]

    def _candidates(self, position: int, font: int, bank: int, program: int) -> Iterator[tuple[int, int, int]]:
        """Yields the presets to play a note with, the best one first."""
        instrument = self.instruments[position]
        others = [other for other in range(len(self._fonts)) if other != font]
        if instrument.is_percussion:
            for one in (font, *others):
                kit = self._kits[one]
                if kit and kit[0] != DRUM_BANK:
                    yield (one, *kit)
                yield from ((one, bank, program), (one, DRUM_BANK, 0), *([(one, *kit)] if kit else ()))
            return
        family = [other for other in instrument.programs if other // 8 == program // 8]
        yield (font, bank, program)
        yield from ((font, 0, one) for one in (program, *family))
        yield from ((other, 0, program) for other in others)
        yield from ((one, 0, other) for one in (font, *others) for other in instrument.programs)

    def render(
        self,
        piece: midi.Piece,
        start_samples: int,
        n_samples: int,
        effects: Sequence[Effects] = (),
        sounds: Sequence[Sound] = (),
    ) -> np.ndarray:
        """Plays one window of a piece.

        Notes that sound at the start of the pre-roll are started there, with the controller values of that moment.
        Windows that start on a multiple of BLOCK_SAMPLES agree with the same window cut from a render of the whole.

        Args:
            piece: what to play.
            start_samples: first sample of the window from the start of the piece, rounded down to BLOCK_SAMPLES.
            n_samples: length of the window.
            effects: one entry per instrument; empty for no effects, which is faster.
            sounds: one entry per instrument; empty for the first SoundFont as it is.

        Returns:
            float32 [time, instrument] in the order of `instruments`, or [time, instrument, channel] for two channels.

        Raises:
            RenderError: FluidSynth warned or failed.
        """
        first_block = start_samples // BLOCK_SAMPLES
        preroll_block = max(0, first_block - int(PREROLL_S * self.sample_rate) // BLOCK_SAMPLES)
        end_block = first_block - (-n_samples // BLOCK_SAMPLES)
        n_preroll = (first_block - preroll_block) * BLOCK_SAMPLES

        times_blocks = piece.events["time_s"] * (self.sample_rate / BLOCK_SAMPLES) - 0.5  # an event acts at the nearest
        begin, end = np.searchsorted(times_blocks, [preroll_block - 1, end_block - 1], side="right")
        chased = _chase(piece.events, begin, preroll_block * BLOCK_SAMPLES / self.sample_rate)
        events = piece.events[np.concatenate([chased, np.arange(begin, end)])]
        blocks = np.concatenate([np.full(len(chased), preroll_block), np.ceil(times_blocks[begin:end])]).astype(int)
        sounds = sounds or (Sound(),) * len(self.instruments)
        owners, routes, n_channels = self._route(events, piece.name, sounds)
        has_route = np.array([bool(positions) for positions in routes])
        is_audible = np.where(events["kind"] == midi.NOTE_ON, owners >= 0, has_route[events["channel"]])
        is_audible &= (events["kind"] != midi.CONTROL) | ~np.isin(events["number"], _IGNORED_CONTROLLERS)

        played = [column[is_audible].tolist() for column in (blocks, events, owners)]
        fluid = self._fluid
        with fluid.lock:
            self._renew(effects, n_channels)
            self._compute(sounds, events, owners)
            self._tune(sounds, routes)
            groups = self._silence((end_block - preroll_block) * BLOCK_SAMPLES)
            pointers = groups.ctypes.data + np.arange(len(groups), dtype=np.uint64) * np.uint64(groups.strides[0])
            if effects:  # reverb and chorus of each group, left and right, are added to the group's own buffers
                pointers = np.concatenate([pointers, np.tile(pointers.reshape(-1, 2), (1, 2)).ravel()])
            at_block = preroll_block
            for block, event, owner in zip(*played):
                if block > at_block:
                    self._advance(block - at_block, pointers)
                    at_block = block
                self._play(event, owner, routes, sounds)
            self._advance(end_block - at_block, pointers)
            if fluid.log:
                raise RenderError(f"{piece.name}: FluidSynth with {', '.join(self.soundfonts)}: {'; '.join(fluid.log)}")
            stereo = groups[:, n_preroll : n_preroll + n_samples]
            if self.n_channels == 1:
                stems = stereo[0::2] + stereo[1::2]
            else:
                stems = (2 * stereo).reshape(-1, 2, n_samples)  # to [instrument, channel, time]
            for stem, sound in zip(stems, sounds):
                if sound.gain != 1.0:
                    stem *= np.float32(sound.gain)
            return np.moveaxis(stems, -1, 0)

    def _silence(self, n_samples: int) -> np.ndarray:
        """Returns zeros [2 * instrument, time] to render into. The memory is reused, since new pages cost time."""
        if self._buffer.size < 2 * len(self.instruments) * n_samples:
            self._buffer = np.empty(2 * len(self.instruments) * n_samples, np.float32)
        groups = self._buffer[: 2 * len(self.instruments) * n_samples].reshape(-1, n_samples)
        groups.fill(0.0)
        return groups

    def _route(
        self, events: np.ndarray, name: str, sounds: Sequence[Sound]
    ) -> tuple[np.ndarray, list[dict[int, tuple[int, ...]]], int]:
        """Finds the instrument of each note, and the synth channels that receive the events of each channel.

        Synth channel c leaves by group c modulo the number of instruments, so the k-th channel of the instrument at
        `position` is k * number of instruments + position. In a piece of one port k is the MIDI channel; in one of
        several ports the channels that an instrument has notes on are counted, since FluidSynth has 256 in all. The
        layer of a sound plays on channels that are left over; where there are none it is left out.

        Returns:
            owners: int8 [event], position of the instrument that plays the note, -1 for other events.
            routes: for each channel of the piece {position of an instrument with notes on it: its synth channel, and
                that of its layer}.
            n_channels: how many channels each instrument needs, at least 16.

        Raises:
            RenderError: the piece plays an instrument on more channels than FluidSynth has.
        """
        is_note = events["kind"] == midi.NOTE_ON
        owners = np.full(len(events), -1, np.int8)
        n_groups, n_channels = len(self.instruments), 16
        has_one_port = not len(events) or events["channel"].max() < 16
        routes: list[dict[int, tuple[int, ...]]] = [{} for _ in range(16 if has_one_port else 256)]
        for position, instrument in enumerate(self.instruments):
            mine = is_note & instrument.owns(events)
            owners[mine] = position
            used = np.unique(events["channel"][mine]).tolist()
            n_channels = max(n_channels, len(used))
            numbers = used if has_one_port else list(range(len(used)))
            free = iter(() if sounds[position].layer is None else sorted({*range(16)} - {*numbers}))
            for number, channel in zip(numbers, used):
                layer = next(free, None)
                both = (number,) if layer is None else (number, layer)
                routes[channel][position] = tuple(one * n_groups + position for one in both)
        if n_channels * n_groups > _MAX_CHANNELS:
            raise RenderError(
                f"{name}: an instrument plays on {n_channels} channels, and FluidSynth has {_MAX_CHANNELS // n_groups} "
                f"for each of {n_groups} instruments"
            )
        return owners, routes, n_channels

    def _compute(self, sounds: Sequence[Sound], events: np.ndarray, owners: np.ndarray) -> None:
        """Loads the presets that PROCEDURAL plays in this render; they go with the FluidSynth instance."""
        presets: list[Preset] = []
        for position, (instrument, sound) in enumerate(zip(self.instruments, sounds)):
            mine = events[owners == position]
            if self._fonts[sound.font] is None and len(mine):
                programs = (0,) if instrument.is_percussion else np.unique(mine["program"]).tolist()
                keys = np.unique([_moved(key, sound.shift) for key in mine["number"].tolist()]).tolist()
                presets += make_presets(instrument, programs, keys, sound.seed, position)
        if presets:
            with tempfile.TemporaryDirectory(prefix="sourcesep-") as folder:
                path = os.path.join(folder, f"{next(_numbers)}.sf2")  # FluidSynth keeps samples by name and time
                write_soundfont(path, presets)
                font_id = self._fluid.sfload(self._synth, path.encode(), 0)
            self._font_ids = [font_id if font is None else one for font, one in zip(self._fonts, self._font_ids)]

    def _tune(self, sounds: Sequence[Sound], routes: list[dict[int, tuple[int, ...]]]) -> None:
        """Sets the generators of each sound on the channels that play it."""
        for route in routes:
            for position, synth_channels in route.items():
                for synth_channel in synth_channels:
                    for generator, value in sounds[position].generators:
                        self._fluid.set_gen(self._synth, synth_channel, generator, value)

    def _play(
        self, event: tuple, owner: int, routes: list[dict[int, tuple[int, ...]]], sounds: Sequence[Sound]
    ) -> None:
        """Sends an event to FluidSynth, on the channels of the instruments that it concerns."""
        _, _, kind, channel, bank, program, number, value = event
        fluid, synth = self._fluid, self._synth
        if kind == midi.NOTE_ON:
            sound = sounds[owner]
            for position, other_channels in routes[channel].items():
                if position != owner:  # a repeated key ends the earlier note, whichever instrument played it
                    for other_channel in other_channels:
                        fluid.noteoff(synth, other_channel, _moved(number, sounds[position].shift))
            for synth_channel in routes[channel][owner]:
                preset = self._preset(owner, sound.font, bank, program)
                if sound.layer is not None and synth_channel != routes[channel][owner][0]:
                    preset = self._preset(owner, sound.layer[0], min(bank, DRUM_BANK), sound.layer[1])
                if self._selected.get(synth_channel) != preset:
                    font, *bank_and_program = preset
                    fluid.program_select(synth, synth_channel, self._font_ids[font], *bank_and_program)
                    self._selected[synth_channel] = preset
                fluid.noteon(synth, synth_channel, _moved(number, sound.shift), value)
            return
        for position, synth_channels in routes[channel].items():
            for synth_channel in synth_channels:
                if kind == midi.NOTE_OFF:
                    fluid.noteoff(synth, synth_channel, _moved(number, sounds[position].shift))
                elif kind == midi.CONTROL:
                    fluid.cc(synth, synth_channel, number, value)
                elif kind == midi.BEND:
                    fluid.pitch_bend(synth, synth_channel, value + 8192)
                elif kind == midi.CHANNEL_PRESSURE:
                    fluid.channel_pressure(synth, synth_channel, value)
                else:
                    fluid.key_pressure(synth, synth_channel, _moved(number, sounds[position].shift), value)

    def _advance(self, n_blocks: int, pointers: np.ndarray) -> None:
        """Renders blocks to the addresses in `pointers` (dry, then effects), and advances these."""
        n_samples, n_dry = n_blocks * BLOCK_SAMPLES, 2 * len(self.instruments)
        if n_samples:
            address = pointers.ctypes.data
            self._fluid.process(self._synth, n_samples, len(pointers) - n_dry, address + 8 * n_dry, n_dry, address)
            pointers += np.uint64(4 * n_samples)


_numbers = itertools.count()


def _moved(key: int, semitones: int) -> int:
    return min(127, max(0, key + semitones))


def _check_soundfont(soundfont: str | pathlib.Path) -> None:
    """Refuses files that FluidSynth's loaders would reject only after printing to the terminal."""
    try:
        with open(soundfont, "rb") as file:
            header = file.read(12)
            length = file.seek(0, 2)
    except OSError:
        raise InputError(f"no such SoundFont: {soundfont}") from None
    if header[:4] != b"RIFF" or header[8:] != b"sfbk":
        raise InputError(f"{soundfont}: not a SoundFont (SF2 or SF3)")
    if int.from_bytes(header[4:8], "little") + 8 > length:
        raise InputError(f"{soundfont}: FluidSynth cannot load this SoundFont (it ends too early)")


def _chase(events: np.ndarray, begin: int, time_s: float) -> np.ndarray:
    """Returns the rows of earlier events that still have an effect at `time_s`, in the order in which to send them.

    First the last value of each controller, bend and pressure; then the notes that still sound; then the releases of
    those that only the pedal holds.
    """
    past = events[:begin]
    is_state = np.isin(past["kind"], (midi.CONTROL, midi.BEND, midi.CHANNEL_PRESSURE))
    is_sequence = (past["kind"] == midi.CONTROL) & np.isin(past["number"], _RPN_CONTROLLERS)
    states = np.flatnonzero(is_state & ~is_sequence)
    n_channels = int(past["channel"].max(initial=0)) + 1
    last = np.full((n_channels, midi.KEY_PRESSURE, 128), -1)  # of several rows assigned to one place the last one stays
    last[past["channel"][states], past["kind"][states], past["number"][states]] = states
    controls = np.sort(np.concatenate([last[last >= 0], np.flatnonzero(is_sequence)]))

    decays = (past["bank"] == DRUM_BANK) | np.isin(past["program"], _DECAYING_PROGRAMS)
    sounds = (past["end_s"] > time_s) & ~(decays & (past["time_s"] < time_s - MAX_DECAYED_S))
    notes = np.flatnonzero((past["kind"] == midi.NOTE_ON) & sounds)
    keys = past["channel"].astype(np.int32) * 128 + past["number"]
    is_release = past["kind"] == midi.NOTE_OFF
    releases = [note + np.flatnonzero(is_release[note:] & (keys[note:] == keys[note])) for note in notes]
    return np.concatenate([controls, notes, *releases])


def default_soundfont() -> str:
    """Returns the path of FluidR3_GM.sf2 if a system package installed it, else of the embedded SoundFont."""
    for folder in ("/usr/share/sounds/sf2", "/usr/share/soundfonts"):
        path = pathlib.Path(folder, "FluidR3_GM.sf2")
        if path.is_file():
            return str(path)
    return embedded_soundfont()


def embedded_soundfont() -> str:
    """Returns the path of the small TimGM6mb.sf2 that pretty_midi contains."""
    package = importlib.util.find_spec("pretty_midi")
    if package is None or package.origin is None:
        raise InputError("pretty_midi, which contains the default SoundFont, is missing: pip install pretty_midi")
    return str(pathlib.Path(package.origin).with_name("TimGM6mb.sf2"))
