"""Which instruments a folder of MIDI holds, and which ten are the best candidates for separation.

`python -m data_gen.statistics --midi_dir=DIR` prints them.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from absl import app, flags

from data_gen.command import exit_status
from data_gen.index import Entry, scan
from data_gen.instruments import CANDIDATES, Instrument, parse_instruments

N_CANDIDATES = 10
GROUPS: tuple[Instrument, ...] = (  # the families of General MIDI, split where one mixes instruments that differ
    *CANDIDATES.values(),
    *parse_instruments(
        "mallets:8-15 organ:16-20 accordion:21-23 solo_strings:40-44 pizzicato:45 harp:46 timpani:47 choir:52-54 "
        "orchestra_hit:55 synth_pad:88-95 effects:96-103 ethnic:104-111 percussive:112-119 sounds:120-127".split()
    ),
)


def count(entries: Sequence[Entry], groups: Sequence[Instrument]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts instruments over a folder, each song once.

    Returns:
        pieces: [instrument], number of songs that hold it.
        note_seconds: [instrument], summed length of its notes, in seconds.
        together: [instrument, instrument], number of songs that hold both; its diagonal is `pieces`.
    """
    songs = {entry.song: entry for entry in entries if not entry.error}.values()
    held = np.array([[entry.holds(group) for group in groups] for entry in songs], int).reshape(-1, len(groups))
    note_seconds = np.zeros(len(groups))
    for entry in songs:
        for key, (_, length_s) in entry.notes.items():
            bank, program = map(int, key.split(":"))
            note_seconds += [length_s * group.plays(bank, program) for group in groups]
    together = held.T @ held
    return np.diag(together), note_seconds, together


def propose(pieces: np.ndarray, note_seconds: np.ndarray, n: int = N_CANDIDATES) -> list[int]:
    """Returns the positions of the `n` most frequent instruments, without those that are mere accents.

    An accent (orchestra hits, effects) sounds for less than a tenth as long per piece as the median instrument.
    """
    per_piece_s = note_seconds / np.maximum(pieces, 1)
    floor_s = 0.1 * np.median(per_piece_s[pieces > 0]) if pieces.any() else 0.0
    order = sorted(range(len(pieces)), key=lambda i: -pieces[i])
    return [i for i in order if pieces[i] and per_piece_s[i] >= floor_s][:n]


def plot(
    picture: str, names: Sequence[str], pieces: np.ndarray, note_seconds: np.ndarray, together: np.ndarray
) -> None:
    """Draws pieces and hours of notes per instrument, and the share of its pieces that hold each other one."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    order = np.argsort(-pieces, kind="stable")
    labels = [names[i] for i in order]
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(17, 7), width_ratios=(1, 1, 1.5))
    for axes, values, title in (
        (left, pieces[order], "pieces that hold it"),
        (middle, note_seconds[order] / 3600, "hours of its notes"),
    ):
        axes.barh(labels, values)
        axes.invert_yaxis()
        axes.set_title(title)
    share = together[np.ix_(order, order)] / np.maximum(pieces[order], 1)[:, None]
    image = right.imshow(share, vmin=0, vmax=1, cmap="viridis")
    right.set_xticks(range(len(labels)), labels, rotation=90)
    right.set_yticks(range(len(labels)), labels)
    right.set_title("share of the row's pieces that also hold the column")
    figure.colorbar(image, ax=right, shrink=0.7)
    figure.tight_layout()
    figure.savefig(picture, dpi=80)
    plt.close(figure)


def report(midi_dir: str, wanted: Sequence[str], picture: str) -> str:
    """Scans a folder, writes the picture, and returns the report as text.

    Raises InputError for a folder without MIDI or an instrument that does not exist.
    """
    instruments = parse_instruments(wanted)
    entries = scan(midi_dir)
    readable = [entry for entry in entries if not entry.error]
    songs = list({entry.song: entry for entry in readable}.values())
    pieces, note_seconds, together = count(readable, GROUPS)
    lines = [f"{len(entries)} MIDI files, {len(readable)} readable, {len(songs)} songs after leaving out copies", ""]
    lines.append(f"{'instrument':18}{'pieces':>8}{'share':>8}{'note hours':>12}  most often together with")
    for i in np.argsort(-pieces, kind="stable"):
        if pieces[i]:
            others = [j for j in np.argsort(-together[i], kind="stable") if j != i and together[i, j]][:3]
            others_named = ", ".join(f"{GROUPS[j].name} {together[i, j] / pieces[i]:.0%}" for j in others)
            hours = note_seconds[i] / 3600
            lines.append(f"{GROUPS[i].name:18}{pieces[i]:8}{pieces[i] / len(songs):8.0%}{hours:12.2f}  {others_named}")
    lines += ["", f"pieces that hold all of {', '.join(i.name for i in instruments)}:"]
    for size in range(1, len(instruments) + 1):
        subset = instruments[:size]
        n = sum(all(entry.holds(instrument) for instrument in subset) for entry in songs)
        lines.append(f"  {' + '.join(i.name for i in subset)}: {n}")
    chosen = propose(pieces, note_seconds)
    lines += ["", f"candidates: --instruments={','.join(str(GROUPS[i]) for i in chosen)}"]
    best = sorted(
        itertools.combinations(chosen, min(4, len(chosen))),
        key=lambda four: -sum(all(entry.holds(GROUPS[i]) for i in four) for entry in songs),
    )
    if best:
        n = sum(all(entry.holds(GROUPS[i]) for i in best[0]) for entry in songs)
        named = ", ".join(GROUPS[i].name for i in best[0])
        lines.append(f"the {len(best[0])} of them with the most pieces: {named} ({n})")
    if picture:
        plot(picture, [group.name for group in GROUPS], pieces, note_seconds, together)
        lines.append(f"plot: {picture}")
    return "\n".join(lines)


def main(_: list[str]) -> int:
    """Prints the report. Returns the exit status."""
    print(report(flags.FLAGS.midi_dir, flags.FLAGS.instruments, flags.FLAGS.plot))
    return 0


if __name__ == "__main__":
    flags.DEFINE_string("midi_dir", None, "Folder of MIDI files, read recursively.", required=True)
    flags.DEFINE_list("instruments", ["drums", "piano", "strings", "bass"], "Count the pieces that hold all of these.")
    flags.DEFINE_string("plot", "corpus.png", "Picture of the distribution to write; empty for none.")
    app.run(lambda argv: exit_status(main, argv[1:]))
