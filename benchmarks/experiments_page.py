"""Results of experiments -> docs/experiments.md and its plots."""

from __future__ import annotations

import json
import pathlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
from scipy.ndimage import uniform_filter1d  # noqa: E402

from benchmarks.experiments_plan import Experiment, Variant, result_path  # noqa: E402
from sourcesep.evaluate.scores import MODEL, ROWS  # noqa: E402
from sourcesep.metrics import MAIN_MEASURE, MEASURES  # noqa: E402

HEAD = """# Experiments

`python -m benchmarks.experiments --midi_dir=MIDI` writes this page, except the paragraphs below the plots.

Scores are medians over held-out songs, in the part of a song in which the instrument plays, of the SDR in dB, or of the
gain over the best constant gain on the mixture where a table says "over constant"; `all` is their mean over
instruments. Rows with several seeds show the mean, and the lowest and the highest score. `n` is the number of songs.

"Ten minutes" are ten minutes on two cores of the machine that ran the first row. Rows that ran
on other machines made as many steps as ten minutes on the first machine allow: a step of tasnet was timed on both. The
actual duration of each run is at the end of its section.
"""


def read_results(folder: pathlib.Path, experiment: str, variants: Sequence[Variant]) -> list[dict[str, Any]]:
    """Returns the results of an experiment, one per run, in the order of its rows, by seed."""
    results = []
    for variant in variants:
        paths = folder.glob(str(result_path(experiment, variant, "*")))
        alike = [{**json.loads(path.read_text()), "variant": variant.name} for path in paths]
        results += sorted(alike, key=lambda result: result["seed"])
    return results


def overall_sdr(result: Mapping[str, Any]) -> float:
    """Computes the median SDR of a run, averaged over instruments and conditions."""
    return statistics.mean(_average(rows, MODEL, MAIN_MEASURE) or 0.0 for rows in result["summary"].values())


def write(experiments: Mapping[str, Experiment], results_dir: pathlib.Path, docs: pathlib.Path) -> None:
    """Writes the page.

    Args:
        experiments: by name, in the order of the page. Those without results are left out.
        results_dir: the folder of results.
        docs: folder of the page; plots go into its folder `experiments`.
    """
    parts = [HEAD]
    for name, experiment in experiments.items():
        if not read_results(results_dir, name, [variant for variant in experiment.variants if not variant.same_as]):
            continue
        results = read_results(results_dir, name, experiment.variants)
        parts += [f"## {experiment.title}\n\n{experiment.question}\n"]
        conditions = list(dict.fromkeys(_place(condition) for result in results for condition in result["summary"]))
        parts += [_table(results, condition, experiment.measure) for condition in conditions]
        picture = docs / "experiments" / f"{name}.png"
        _plot(results, picture)
        caption = "Training loss over steps, smoothed over a tenth of them, one line per seed"
        parts.append(f"![{caption}](experiments/{picture.name})\n")
        notes = results_dir / name / "notes.md"
        if notes.exists():
            parts.append(notes.read_text().strip() + "\n")
        parts.append(_runs(results))
    docs.mkdir(exist_ok=True)
    (docs / "experiments.md").write_text("\n".join(parts))


def _place(condition: str) -> str:
    """Returns a condition without whether it was used in training, which differs between rows."""
    return condition.partition(" (")[0]


def _find_rows(result: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Returns instrument -> row -> scores under a condition; empty if it was not scored under it."""
    return next((rows for condition, rows in result["summary"].items() if _place(condition) == place), {})


def _median(scores: Mapping[str, Any], measure: str) -> float | None:
    return scores[measure]["median"]


def _table(results: Sequence[dict[str, Any]], place: str, measure: str) -> str:
    """Returns the table of an experiment under one condition, as Markdown, with the medians of one measure."""
    names = list(dict.fromkeys(name for result in results for name in _find_rows(result, place)))
    heard = {next(c for c in result["summary"] if _place(c) == place).partition(" (")[2][:-1] for result in results}
    note = f" ({heard.pop()})" if len(heard) == 1 and heard != {""} else ""
    (label,) = (known.label for known in MEASURES if known.key == measure)
    note += "" if measure == MAIN_MEASURE else f", {label}"
    head = [f"{place}{note}", "parameters", "steps", *names, "all"]
    lines = [" | ".join(head), "|".join(["---"] * len(head))]
    for variant in dict.fromkeys(result["variant"] for result in results):
        alike = [result for result in results if result["variant"] == variant]
        tables = [_find_rows(result, place) for result in alike]
        cells = [_cell([_median(rows[name][MODEL], measure) for rows in tables if name in rows]) for name in names]
        cells.append(_cell([_average(rows, MODEL, measure) for rows in tables]))
        seeds = f", {len(alike)} seeds" if len(alike) > 1 else ""
        facts = [f"{alike[0]['parameters']:,}", _span([result["steps"] for result in alike])]
        lines.append(" | ".join([f"{variant}{seeds}", *facts, *cells]))
    anchors = _find_rows(results[0], place)
    for row in ROWS:
        if row == MODEL or not all(measure in anchors[name].get(row, ()) for name in anchors):
            continue  # older results lack an anchor or a measure
        cells = [_cell([_median(anchors[name][row], measure)]) if name in anchors else "" for name in names]
        lines.append(" | ".join([f"*{row}*", "", "", *cells, _cell([_average(anchors, row, measure)])]))
    counts = " | ".join(str(anchors[name][MODEL][measure]["n"]) if name in anchors else "" for name in names)
    lines.append(f"*n* | | | {counts} | ")
    return "\n".join(f"| {line} |" for line in lines) + "\n"


def _average(rows: Mapping[str, Any], row: str, measure: str) -> float | None:
    """Averages the medians of a row over the instruments that have one."""
    medians = [_median(scores[row], measure) for scores in rows.values()]
    known = [median for median in medians if median is not None]
    return statistics.mean(known) if known else None


def _cell(values: Sequence[float | None]) -> str:
    """Returns the mean over seeds, with the lowest and the highest value of several."""
    known = [value for value in values if value is not None]
    if not known:
        return "–"
    mean, low, high = (
        f"{value:.1f}".replace("-0.0", "0.0") for value in (statistics.mean(known), min(known), max(known))
    )
    return mean if len(known) == 1 else f"{mean} ({low} to {high})"


def _span(values: Sequence[int]) -> str:
    return f"{min(values):,}" if min(values) == max(values) else f"{min(values):,} to {max(values):,}"


def _plot(results: Sequence[dict[str, Any]], picture: pathlib.Path) -> None:
    """Draws the training loss of each row in a plot of its own, since losses differ in scale; one line per seed."""
    variants = list(dict.fromkeys(result["variant"] for result in results))
    n_columns = min(3, len(variants))
    n_rows = -(-len(variants) // n_columns)
    figure, grid = plt.subplots(n_rows, n_columns, figsize=(4 * n_columns, 2.8 * n_rows), squeeze=False)
    for axes in grid.ravel()[len(variants) :]:
        axes.remove()
    for axes, variant in zip(grid.ravel(), variants):
        for result in results:
            if result["variant"] == variant and result["curve"]:
                steps, losses = zip(*result["curve"])
                # Smoothed, since the losses of single batches vary a lot.
                smooth = uniform_filter1d(losses, max(1, len(losses) // 10), mode="nearest")
                axes.plot(steps, smooth, linewidth=1, label=f"seed {result['seed']}")
        axes.set_title(variant, fontsize=10)
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
    for axes in grid[:, 0]:
        axes.set_ylabel("training loss")
    if len({result["seed"] for result in results}) > 1:
        grid[0, 0].legend(fontsize=8)
    figure.tight_layout()
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, dpi=100)
    plt.close(figure)


def _runs(results: Sequence[dict[str, Any]]) -> str:
    """Returns a list of seed, command, duration and machine of each run."""
    lines = ["<details><summary>Commands, durations, machines</summary>\n"]
    for result in results:
        lines.append(
            f"- {result['variant']}, seed {result['seed']}: {result['steps']:,} steps in {result['train_s'] / 60:.1f} "
            f"minutes, {result['date']}, {result['machine']}; scored on {result['seconds']:.0f} s of each of "
            f"{result['songs']} songs: `{result['command']}`"
        )
    return "\n".join([*lines, "\n</details>\n"])
