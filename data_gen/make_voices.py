"""Makes recordings of voices that sing and speak, by espeak-ng: `python -m data_gen.make_voices FOLDER --count=100`.

No MIDI file sings. With `--solo_dir=other:FOLDER` and `--remix` these voices come into the mixtures of training, so
that a model learns to leave singing out of its stems. They are synthetic: they have vowels, consonants and vibrato, but
not a singer's sound.

A sung word is brought to its note by pitch-synchronous overlap-add (TD-PSOLA, Moulines & Charpentier 1990): grains of
two periods are laid out at the periods of the note, which leaves the formants where they are and holds the vowel.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import tempfile

import numpy as np
import soundfile
from absl import app, flags, logging
from tqdm import tqdm

from data_gen import InputError
from data_gen.command import exit_status
from data_gen.files import replacing

PROGRAM = "espeak-ng"
RATE_HZ = 22_050  # of all its voices
SPOKEN = 0.25  # of the recordings are spoken, not sung

WORDS = {
    "en-us": "love light heart away tonight dream alone river shadow morning fire home",
    "de": "Liebe Nacht Sonne Regen Leben wieder allein Feuer Sehnsucht Heimat Wolken Zeit",
    "fr-fr": "amour nuit soleil toujours jamais rêve danser rivière lumière maison demain coeur",
    "es": "corazón noche amor camino luna siempre cantar cielo mañana fuego soledad vida",
    "it": "amore sole mare sempre cuore notte volare parole dolce vento stella domani",
    "pl": "miłość noc serce słońce droga zawsze rzeka cisza gwiazda dom marzenie wiatr",
    "ja": "そら うみ こころ ゆめ はな かぜ ひかり なみだ あした ほし",
    "fi": "rakkaus yö sydän taivas tuuli meri unelma aamu valo koti",
    "la": "la la na na o ah du du mi ma lo le",
}
"""Language of espeak-ng -> words, most of them with an open vowel."""

_VOICES = {"m": (45, 64), "f": (55, 76)}  # letter of the voices (m1 to m5, f1 to f5) -> their MIDI keys
_SCALE = (0, 2, 4, 5, 7, 9, 11)  # semitones above the key of a melody
_LOWEST_HZ, _HIGHEST_HZ = 60.0, 500.0  # of a voice of espeak-ng
_FADE_S = 0.01  # at both ends of a note
_LEVEL = 0.1  # RMS of a recording
_VIBRATO_FROM_S = 0.15  # a vowel has been held this long when vibrato sets in


def make_voices(folder: str | os.PathLike[str], count: int, seed: int) -> list[pathlib.Path]:
    """Writes `count` recordings of about 10 s into a folder, named by number, language, voice and what they do.

    Raises InputError if espeak-ng is not installed or lacks a language, or the folder cannot be made.
    """
    if not shutil.which(PROGRAM):
        raise InputError(f"{PROGRAM} is not installed: on Debian and Ubuntu, apt-get install {PROGRAM}")
    folder = pathlib.Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot make this folder ({error.strerror})") from None
    paths = []
    for number in tqdm(range(count), desc="voices", unit="file"):
        rng = np.random.default_rng([seed, number])
        language = str(rng.choice(list(WORDS)))
        register = str(rng.choice(list(_VOICES)))
        voice = f"{language}+{register}{rng.integers(1, 6)}"
        if rng.random() < SPOKEN:
            manner, samples = "spoken", _speak(voice, rng)
        else:
            manner, samples = "sung", sing(draw_melody(register, rng), voice, rng)
        samples *= _LEVEL / max(1e-9, float(np.sqrt(np.square(samples).mean())))
        path = folder / f"{number:04d}-{voice.replace('+', '-')}-{manner}.flac"
        with replacing(path) as partial:
            soundfile.write(partial, np.clip(samples, -1, 1), RATE_HZ, format="FLAC")
        paths.append(path)
    return paths


def draw_melody(register: str, rng: np.random.Generator) -> list[tuple[int, float]]:
    """Draws a melody for the "m" or "f" voices: (MIDI key, seconds) of each note, steps of a major scale."""
    (low, high), tonic = _VOICES[register], rng.integers(12)
    keys = [key for key in range(low, high + 1) if (key - tonic) % 12 in _SCALE]
    place, beat_s = len(keys) // 2, rng.uniform(0.35, 0.7)
    melody, total_s = [], 0.0
    while total_s < 8:
        place = int(np.clip(place + rng.integers(-3, 4), 0, len(keys) - 1))
        melody.append((keys[place], float(beat_s * rng.choice((1, 1, 2, 3)))))
        total_s += melody[-1][1]
    return melody


def sing(melody: list[tuple[int, float]], voice: str, rng: np.random.Generator) -> np.ndarray:
    """Returns a melody of (MIDI key, seconds), a word on each note, by a voice such as "de+f2"; float [time]."""
    words = WORDS[voice.partition("+")[0]].split()
    notes = []
    for key, length_s in melody:
        hz = 440 * 2 ** ((key - 69) / 12)
        word = _espeak(str(rng.choice(words)), voice, int(rng.integers(30, 70)), int(rng.integers(110, 170)))
        notes.append(_hold(word, hz, round(length_s * RATE_HZ), rng))
    return np.concatenate(notes)


def _speak(voice: str, rng: np.random.Generator) -> np.ndarray:
    words = WORDS[voice.partition("+")[0]].split()
    text = ", ".join(" ".join(rng.choice(words, rng.integers(2, 7))) for _ in range(5))
    return _espeak(text, voice, int(rng.integers(20, 80)), int(rng.integers(110, 200)))


def _espeak(text: str, voice: str, pitch: int, words_per_minute: int) -> np.ndarray:
    """Returns a text as a voice speaks it, without silence around it, float [time]. Raises InputError if it cannot."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "text.wav")
        arguments = ["-v", voice, "-p", str(pitch), "-s", str(words_per_minute), "-w", path, "--", text]
        done = subprocess.run([PROGRAM, *arguments], capture_output=True, text=True, check=False)
        if done.returncode or not os.path.isfile(path):
            reason = (done.stderr.strip().splitlines() or ["it wrote no sound"])[0]
            raise InputError(f"{PROGRAM} cannot speak as {voice}: {reason}")
        samples, rate = soundfile.read(path)
    if rate != RATE_HZ:
        raise InputError(f"{PROGRAM} speaks as {voice} at {rate} Hz, not at {RATE_HZ} Hz")
    (loud,) = np.nonzero(np.abs(samples) > 0.01)
    return samples[loud[0] : loud[-1] + 1] if len(loud) else np.zeros(1)


# ---- Held on a note -------------------------------------------------------------------------------------------------
def _hold(word: np.ndarray, hz: float, n_samples: int, rng: np.random.Generator) -> np.ndarray:
    """Returns a word sung on a note: its loudest vowel is held until the note ends, with vibrato; float [time]."""
    centre, period = _find_vowel(word)
    marks = _pitch_marks(word, centre, period)
    held = max(0, n_samples - len(word))
    vibrato_hz, depth_cents = rng.uniform(4.5, 6.5), rng.uniform(0, 50)
    padded = np.pad(word, (period, period))
    window = np.hanning(2 * period + 1)[:-1]
    note = np.zeros(n_samples + 2 * period)
    at = 0.0  # output time of the grain, in samples
    while at < n_samples:
        inside_s = (at - centre) / RATE_HZ  # since the vowel is held
        if at < centre:
            source = at
        elif at < centre + held:
            source = centre + 2 * period * np.sin(2 * np.pi * 1.3 * inside_s)  # a vowel that stands still sounds dead
        else:
            source = at - held
        mark = marks[np.abs(marks - source).argmin()]
        note[int(at) : int(at) + 2 * period] += window * padded[mark : mark + 2 * period]
        swing = np.sin(2 * np.pi * vibrato_hz * inside_s) if inside_s > _VIBRATO_FROM_S else 0.0
        at += RATE_HZ / (hz * 2 ** (depth_cents / 1_200 * swing))
    note = note[period : period + n_samples]
    fade = np.linspace(0, 1, min(len(note), round(_FADE_S * RATE_HZ)))
    note[: len(fade)] *= fade
    note[len(note) - len(fade) :] *= fade[::-1]
    return note


def _find_vowel(word: np.ndarray) -> tuple[int, int]:
    """Returns the middle of the loudest voiced stretch of a word, and its period there, in samples."""
    n = min(len(word), round(0.05 * RATE_HZ))
    begins = range(0, max(1, len(word) - n), n // 4 or 1)
    lags = np.arange(round(RATE_HZ / _HIGHEST_HZ), round(RATE_HZ / _LOWEST_HZ))
    best = (-1.0, len(word) // 2, int(lags[len(lags) // 2]))
    for begin in begins:
        frame = word[begin : begin + n]
        energy = float(np.square(frame).sum())
        if len(frame) < 2 * lags[0] or energy <= 0:
            continue
        correlation = np.fft.irfft(np.abs(np.fft.rfft(frame, 4 * n)) ** 2)[: len(frame)]
        usable = lags[lags < len(frame)]
        unbiased = correlation[usable] / (len(frame) - usable)
        strongest = unbiased.max()
        # The shortest lag that is nearly as strong: the others are multiples of the period.
        period = int(usable[np.argmax(unbiased > 0.9 * strongest)])
        near = slice(max(0, period - lags[0] - period // 8), period - lags[0] + period // 8 + 1)
        period = int(usable[near][unbiased[near].argmax()])
        voiced = float(correlation[period] / correlation[0])
        best = max(best, (energy * max(0.0, voiced), begin + len(frame) // 2, period))
    return best[1], best[2]


def _pitch_marks(word: np.ndarray, centre: int, period: int) -> np.ndarray:
    """Returns the places of the pulses of a voice, about a period apart: the peaks near to where they are expected."""

    def peak(expected: int, reach: int) -> int:
        begin = max(0, expected - reach)
        return begin + int(word[begin : expected + reach + 1].argmax())

    first = peak(centre, period // 2)
    marks = [first]
    while marks[-1] + period < len(word):
        marks.append(max(marks[-1] + 1, peak(marks[-1] + period, period // 5)))
    while marks[0] - period >= 0:
        marks.insert(0, min(marks[0] - 1, peak(marks[0] - period, period // 5)))
    return np.array([mark for mark in marks if 0 <= mark < len(word)])


def main(arguments: list[str]) -> int:
    """Writes the recordings. Returns the exit status."""
    if len(arguments) != 1:
        raise InputError("name one folder to write into, as in data_gen.make_voices voices/")
    paths = make_voices(arguments[0], flags.FLAGS.count, flags.FLAGS.seed)
    print(f"{arguments[0]}: {len(paths)} recordings; train with --solo_dir=other:{arguments[0]} --remix=0.5")
    return 0


if __name__ == "__main__":
    flags.DEFINE_integer("count", 200, "Number of recordings to make.", lower_bound=1)
    flags.DEFINE_integer("seed", 0, "Of what is drawn: the same recordings for the same seed.")
    flags.FLAGS.set_default("verbosity", logging.WARNING)
    app.run(lambda argv: exit_status(main, argv[1:]))
