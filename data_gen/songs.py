"""Finds which files hold the same song, and assigns songs to splits, by their music and not by their names.

Two files are the same song if enough of their sequences of intervals agree: copies in another key, at another tempo, or
slightly edited count as one song.
"""

from __future__ import annotations

import collections
import zlib
from collections.abc import Iterable, Sequence

import numpy as np

from data_gen import midi
from data_gen.instruments import DRUM_BANK

VALIDATION_SHARE, TEST_SHARE = 0.1, 0.1
NGRAM = 6  # consecutive intervals that form one feature of the music
SIGNATURE_SIZE = 32  # minima kept of the hashed features (min-wise hashing, Broder 1997)
SAME_SONG = 0.5  # share of equal minima from which on two files are the same song


def music_signature(piece: midi.Piece) -> tuple[int, ...]:
    """Returns a signature of the music of a piece that does not depend on key, tempo or instruments.

    The features are all sequences of NGRAM intervals within each channel (of NGRAM keys for percussion), where a chord
    counts as its top note. The share of places at which two signatures agree estimates the share of features that the
    pieces have in common.

    Returns:
        SIGNATURE_SIZE integers below 2**32.
    """
    features: set[int] = set()
    notes = piece.notes
    for channel in np.unique(notes["channel"]):
        line = notes[notes["channel"] == channel]
        line = line[np.lexsort((line["number"], line["time_s"].round(3)))]
        is_top = np.append(np.diff(line["time_s"].round(3)) > 0, True)
        pitches = line["number"][is_top].astype(np.int16)
        steps = pitches if (line["bank"] == DRUM_BANK).any() else np.diff(pitches)
        if len(steps) < NGRAM:  # a short line is one feature
            features.add(zlib.crc32(steps.tobytes()))
            continue
        windows = np.lib.stride_tricks.sliding_window_view(steps, NGRAM)
        features.update(_crc32(windows).tolist())
    return minhash(features)


# What a byte does to the remainder. zlib begins with all bits set and flips all at the end, which is undone here.
_CRC_OF_BYTE = np.array([zlib.crc32(bytes([byte ^ 0xFF])) ^ 0xFF000000 for byte in range(256)], np.uint32)


def _crc32(rows: np.ndarray) -> np.ndarray:
    """Returns `zlib.crc32` of the bytes of each row, uint32 [row]: all rows at once, byte by byte."""
    remainders = np.full(len(rows), 0xFFFFFFFF, np.uint32)
    for column in np.ascontiguousarray(rows).view(np.uint8).T:
        remainders = _CRC_OF_BYTE[(remainders ^ column) & 0xFF] ^ remainders >> 8
    return ~remainders


def minhash(features: Iterable[int], size: int = SIGNATURE_SIZE) -> tuple[int, ...]:
    """Returns `size` minima of hashed features (integers below 2**32), () if there is no feature.

    The share of places at which two of them agree estimates the share of features in common (Broder 1997).
    """
    hashes = np.array(sorted(features), np.uint64)
    if not len(hashes):
        return ()
    # A universal hash family (Carter & Wegman 1979): odd multipliers, the high half of the product.
    rng = np.random.default_rng(0)
    multipliers = rng.integers(1, 2**63, size, dtype=np.uint64) * 2 + 1
    offsets = rng.integers(0, 2**63, size, dtype=np.uint64)
    minima = [(((hashes * a + b) >> np.uint64(32)).min()) for a, b in zip(multipliers, offsets)]
    return tuple(int(minimum) for minimum in minima)


def name_songs(signatures: Sequence[tuple[int, ...]], known: Sequence[int], same_song: float = SAME_SONG) -> list[int]:
    """Numbers the songs of a set of files, so that files of the same song share a number.

    Args:
        signatures: what `music_signature` returned for each file.
        known: the number that each file has already, 0 for new files. Known numbers are kept, so that no song moves to
            another split.
        same_song: share of equal minima from which on two files are the same song.

    Returns:
        the number of each file, above 0.
    """
    order = sorted(range(len(signatures)), key=lambda i: (known[i] == 0, signatures[i]))  # then by content, not name
    holders: dict[tuple[int, int], list[int]] = collections.defaultdict(list)  # (place, minimum) -> files
    songs = list(known)
    for i in order:
        signature = np.array(signatures[i])
        if not songs[i]:
            candidates = {j for place in enumerate(signatures[i]) for j in holders[place]}
            alike = [(float(np.mean(signature == np.array(signatures[j]))), songs[j]) for j in candidates]
            share, song = max(alike, default=(0.0, 0))
            songs[i] = song if share >= same_song else zlib.crc32(signature.tobytes()) + 1
        for place in enumerate(signatures[i]):
            if len(holders[place]) < 50:  # phrases that everybody uses would make this quadratic
                holders[place].append(i)
    return songs


def split_of(song: int) -> str:
    """Returns the split of a song, which depends on nothing but its number."""
    draw = zlib.crc32(str(song).encode()) / 2**32
    if draw < TEST_SHARE:
        return "test"
    return "validation" if draw < TEST_SHARE + VALIDATION_SHARE else "train"
