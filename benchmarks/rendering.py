"""Measures how fast chunks are rendered: `python -m benchmarks.rendering --midi_dir=DIR`. Prints Markdown.

All ways are measured in one run. The usual way is that of pretty_midi: `fluidsynth()` renders the whole song of each
instrument, and the result is cut.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import time

import numpy as np
import pretty_midi
from absl import app, flags

from data_gen import fluidsynth_library, midi, synth
from data_gen.chunks import Chunker
from data_gen.corpus import Corpus, MidiCorpus, open_corpus
from data_gen.effects import EffectChances
from data_gen.instruments import parse_instruments
from data_gen.played import PlayedStems
from data_gen.soundfont_file import PROCEDURAL
from data_gen.variation import Variation
from data_gen.workers import Workers

try:
    import tinysoundfont  # pip install --no-deps tinysoundfont: without pyaudio, which rendering does not need
except ImportError:
    tinysoundfont = None

INSTRUMENTS = parse_instruments(["drums", "piano", "strings", "bass"])
RATE, CHUNK, CHUNKS = 44_100, 4_410, 50


def chunker(corpus: Corpus, soundfont: str) -> Chunker:
    """Returns the chunker of the published experiment; it drops nothing, so that all ways give the same chunks."""
    source = PlayedStems(corpus, INSTRUMENTS, (soundfont,), RATE)
    return Chunker(source, "train", source.names, CHUNK, chunks_per_song=CHUNKS, keep_silent=1.0, keep_solo=1.0)


def varied(ours: Chunker) -> Chunker:
    """Returns a chunker with every variation and effect on, and every second instrument through computed sounds."""
    soundfonts = (*ours.source.soundfonts, PROCEDURAL)
    variation = Variation(transpose=3, tempo=0.1, velocity=0.3, presets=0.3, reverb=0.2, chorus=0.1, timbre=0.5)
    source = PlayedStems(ours.source.corpus, INSTRUMENTS, soundfonts, RATE, variation, remix_match=0.3)
    chances = EffectChances(
        equaliser=0.5,
        compression=0.3,
        saturation=0.3,
        room=0.3,
        bandwidth=0.2,
        codec=0.1,
        noise=0.3,
        low_cut=0.5,
        master=0.5,
    )
    return dataclasses.replace(ours, source=source, effects=chances, gain_db=3.0)


def usual_way(path: str, soundfont: str, rng: np.random.Generator) -> np.ndarray:
    """Renders the whole song of each instrument with pretty_midi, and cuts chunks [chunk, time, instrument]."""
    song = pretty_midi.PrettyMIDI(path)
    stems = []
    for instrument in INSTRUMENTS:
        parts = [p for p in song.instruments if instrument.plays(128 if p.is_drum else 0, p.program)]
        waveforms = [part.fluidsynth(fs=RATE, synthesizer=soundfont) for part in parts]
        stem = np.zeros(max((len(w) for w in waveforms), default=0), np.float32)
        for waveform in waveforms:
            stem[: len(waveform)] += waveform
        stems.append(stem)
    length = max(map(len, stems))
    stems = np.stack([np.pad(stem, (0, length - len(stem))) for stem in stems], axis=-1)
    starts = rng.integers(0, length - CHUNK, CHUNKS)
    return np.stack([stems[start : start + CHUNK] for start in starts])


def with_tinysoundfont(ours: Chunker, visits: int) -> float:
    """Chunks per second of the same windows through tinysoundfont, an instance per instrument and without chasing."""
    synths = []
    for _ in INSTRUMENTS:
        one = tinysoundfont.Synth(samplerate=RATE)
        synths.append((one, one.sfload(ours.source.soundfonts[0])))
    windows = [(visit.song, float(visit.starts_s[0]), len(visit.starts_s)) for visit in map(ours.visit, range(visits))]
    pieces = {name: midi.read_midi(name) for name in {window[0] for window in windows}}
    began_s = time.perf_counter()
    for name, start_s, n_chunks in windows:
        events = pieces[name].events
        n_samples = n_chunks * CHUNK
        begin, end = np.searchsorted(events["time_s"], [start_s, start_s + n_samples / RATE])
        for instrument, (one, font) in zip(INSTRUMENTS, synths):
            one.sounds_off()
            at = 0
            for time_s, _, kind, channel, bank, program, number, value in events[begin:end].tolist():
                due = round((time_s - start_s) * RATE)
                if kind == midi.NOTE_ON and instrument.plays(bank, program):
                    one.generate_simple(due - at)
                    at = due
                    one.program_select(channel, font, bank, program, instrument.is_percussion)
                    one.noteon(channel, number, value)
                elif kind == midi.NOTE_OFF:
                    one.noteoff(channel, number)
            one.generate_simple(n_samples - at)
    return sum(n_chunks for _, _, n_chunks in windows) / (time.perf_counter() - began_s)


def chunks_per_second(workers: Workers, visits: int) -> float:
    """Measures chunks per second of wall time, after the first visit."""
    next(workers)
    began_s, n_chunks = time.perf_counter(), 0
    for _ in range(visits):
        n_chunks += len(next(workers).starts_s)
    return n_chunks / (time.perf_counter() - began_s)


def share_in_fluidsynth(some: Chunker, visits: int) -> tuple[float, float]:
    """Measures shares of a visit's CPU time: all of FluidSynth, and FluidSynth on audio that ends up in chunks."""
    inside_s = useful_s = 0.0
    fluid = fluidsynth_library.load()
    original_process, original_renew = fluid.process, synth.Synthesizer._renew

    def timed_renew(self, *arguments):
        original_renew(self, *arguments)
        renders.append([])

    def timed_process(handle, n_samples, *rest):
        began_s = time.process_time()
        status = original_process(handle, n_samples, *rest)
        renders[-1].append((n_samples, time.process_time() - began_s))
        return status

    renders: list[list[tuple[int, float]]] = []
    some.visit(0)
    fluid.process, synth.Synthesizer._renew = timed_process, timed_renew
    try:
        began_s = time.process_time()
        lengths = [some.visit(index).mixture.shape[0] * CHUNK for index in range(visits)]
        total_s = time.process_time() - began_s
    finally:
        fluid.process, synth.Synthesizer._renew = original_process, original_renew
    for calls, useful_samples in zip(renders, lengths):
        inside_s += sum(seconds for _, seconds in calls)
        preroll = sum(n for n, _ in calls) - useful_samples
        for n_samples, seconds in calls:
            skipped = min(preroll, n_samples)
            preroll -= skipped
            useful_s += seconds * (1 - skipped / n_samples)
    return inside_s / total_s, useful_s / total_s


def main(_) -> None:
    """Measures and prints the results."""
    soundfont = flags.FLAGS.soundfont or synth.default_soundfont()
    corpus = MidiCorpus(flags.FLAGS.midi_dir, INSTRUMENTS)
    ours = chunker(corpus, soundfont)
    rng = np.random.default_rng(0)
    paths = [corpus.name("train", index) for index in rng.permutation(corpus.size("train"))[: flags.FLAGS.usual_visits]]

    began_s = time.perf_counter()
    for path in paths:
        usual_way(path, soundfont, rng)
    usual = len(paths) * CHUNKS / (time.perf_counter() - began_s)
    rows = [("pretty_midi, whole songs, one core", usual)]
    if tinysoundfont:
        rows.append(
            ("tinysoundfont, the same windows as below, one core", with_tinysoundfont(ours, flags.FLAGS.visits))
        )
    for n_workers in (0, 1, 2):
        with Workers(ours, n_workers) as workers:
            label = f"sourcesep, {n_workers} worker processes" if n_workers else "sourcesep, in this process"
            rows.append((label, chunks_per_second(workers, flags.FLAGS.visits)))
    with Workers(varied(ours), 0) as workers:
        label = "sourcesep, everything varied, with effects and computed sounds, in this process"
        rows.append((label, chunks_per_second(workers, flags.FLAGS.visits)))
    began_s = time.perf_counter()
    with Workers(chunker(open_corpus("", INSTRUMENTS, "all", 0), soundfont), 1) as workers:
        next(workers)
        first_s = time.perf_counter() - began_s
        rows.append(("sourcesep, composed pieces, 1 worker process", chunks_per_second(workers, flags.FLAGS.visits)))
    inside, useful = share_in_fluidsynth(ours, flags.FLAGS.visits)

    print(f"SoundFont {pathlib.Path(soundfont).name}, {os.cpu_count()} cores\n")
    print("| way | chunks of 100 ms per second | against pretty_midi |\n|---|---|---|")
    for label, rate in rows:
        print(f"| {label} | {rate:.0f} | {rate / usual:.1f} |")
    print(f"\nOf a worker's CPU time {inside:.0%} is inside FluidSynth, {useful:.0%} on audio that ends up in chunks.")
    print(f"First visit of the composed corpus after {first_s:.1f} s.")


if __name__ == "__main__":
    flags.DEFINE_string("midi_dir", None, "Folder of MIDI files.", required=True)
    flags.DEFINE_string("soundfont", "", "SoundFont; empty for the default of train.py.")
    flags.DEFINE_integer("visits", 40, "Number of visits to measure.")
    flags.DEFINE_integer("usual_visits", 5, "Number of visits to measure in the usual way.")
    app.run(main)
