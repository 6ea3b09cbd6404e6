"""Results of experiments -> docs/experiments.md and its plots."""

from __future__ import annotations

import json
import pathlib
import statistics

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
from scipy.ndimage import uniform_filter1d  # noqa: E402

from benchmarks.experiments_plan import result_path  # noqa: E402

ANCHORS = ("mixture", "mixture / K", "zeros", "ideal ratio mask")
HEAD = """# Experiments

Written by `python benchmarks/experiments.py`; nothing here is typed by hand but the paragraphs below the plots.

Figures are medians over held-out songs of the SDR in dB where the instrument plays; `all` is their mean over
instruments. With several seeds: the mean, and the lowest to the highest. `n` is the number of songs.

Ten minutes are two cores of the machine that ran the first row: as many steps as they allow. Where a faster or slower
machine ran a row, tasnet's step told by how much; what each run took is at the end of its section.
"""


def read_results(folder: pathlib.Path, experiment: str, variants) -> list[dict]:
    """The results of an experiment, one a run, in the order of its rows, by seed."""
    results = []
    for variant in variants:
        paths = folder.glob(str(result_path(experiment, variant, "*")))
        alike = [{**json.loads(path.read_text()), "variant": variant.name} for path in paths]
        results += sorted(alike, key=lambda result: result["seed"])
    return results


def overall_sdr(result: dict) -> float:
    """Median SDR of a run, averaged over instruments and conditions."""
    return statistics.mean(_all(result, condition, "model") for condition in result["summary"])


def write(experiments: dict, results_dir: pathlib.Path, docs: pathlib.Path) -> None:
    """Writes the page.

    Args:
        experiments: by name, with `title`, `question` and `variants`, in the order of the page.
        results_dir: with a folder of results for each; those without are left out.
        docs: folder of the page; plots go into `experiments` there.
    """
    parts = [HEAD]
    for name, experiment in experiments.items():
        if not read_results(results_dir, name, [variant for variant in experiment.variants if not variant.same_as]):
            continue
        results = read_results(results_dir, name, experiment.variants)
        parts += [f"## {experiment.title}\n\n{experiment.question}\n"]
        conditions = list(dict.fromkeys(_place(condition) for result in results for condition in result["summary"]))
        parts += [_table(results, condition) for condition in conditions]
        picture = docs / "experiments" / f"{name}.png"
        _plot(results, picture)
        parts.append(f"![Loss over steps, mean over a tenth of them, one line a seed](experiments/{picture.name})\n")
        notes = results_dir / name / "notes.md"
        if notes.exists():
            parts.append(notes.read_text().strip() + "\n")
        parts.append(_runs(results))
    docs.mkdir(exist_ok=True)
    (docs / "experiments.md").write_text("\n".join(parts))


def _place(condition: str) -> str:
    """A condition without what training heard, which differs from row to row."""
    return condition.partition(" (")[0]


def _rows(result: dict, place: str) -> dict | None:
    """instrument -> row -> scores under a condition."""
    return next((rows for condition, rows in result["summary"].items() if _place(condition) == place), None)


def _all(result: dict, condition: str, row: str) -> float:
    medians = [rows[row]["sdr_db"]["median"] for rows in result["summary"][condition].values()]
    return statistics.mean(median for median in medians if median is not None)


def _table(results: list[dict], place: str) -> str:
    names = list(dict.fromkeys(name for result in results for name in _rows(result, place) or ()))
    n = next(iter(results))
    heard = {next(c for c in result["summary"] if _place(c) == place).partition(" (")[2][:-1] for result in results}
    note = f" ({heard.pop()})" if len(heard) == 1 else ""
    head = [f"{place}{note}", "parameters", "steps", *names, "all"]
    lines = [" | ".join(head), "|".join(["---"] * len(head))]
    for variant in dict.fromkeys(result["variant"] for result in results):
        alike = [result for result in results if result["variant"] == variant]
        cells = [_cell([_rows(result, place)[name]["model"]["sdr_db"]["median"] for result in alike]) for name in names]
        cells.append(_cell([_mean_over(_rows(result, place), "model") for result in alike]))
        seeds = f", {len(alike)} seeds" if len(alike) > 1 else ""
        facts = [f"{alike[0]['parameters']:,}", _span([result["steps"] for result in alike])]
        lines.append(" | ".join([f"{variant}{seeds}", *facts, *cells]))
    anchors = _rows(n, place)
    for row in ANCHORS:
        cells = [_cell([anchors[name][row]["sdr_db"]["median"]]) if name in anchors else "" for name in names]
        lines.append(" | ".join([f"*{row}*", "", "", *cells, _cell([_mean_over(anchors, row)])]))
    counts = " | ".join(str(anchors[name]["model"]["sdr_db"]["n"]) if name in anchors else "" for name in names)
    lines.append(f"*n* | | | {counts} | ")
    return "\n".join(f"| {line} |" for line in lines) + "\n"


def _mean_over(rows: dict, row: str) -> float | None:
    medians = [scores[row]["sdr_db"]["median"] for scores in rows.values()]
    known = [median for median in medians if median is not None]
    return statistics.mean(known) if known else None


def _cell(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "–"
    mean, low, high = (
        f"{value:.1f}".replace("-0.0", "0.0") for value in (statistics.mean(known), min(known), max(known))
    )
    return mean if len(known) == 1 else f"{mean} ({low} to {high})"


def _span(values: list[int]) -> str:
    return f"{min(values):,}" if min(values) == max(values) else f"{min(values):,} to {max(values):,}"


def _plot(results: list[dict], picture: pathlib.Path) -> None:
    """Small multiples: the loss of each variant, which is a measure of its own, one line a seed."""
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
                smooth = uniform_filter1d(losses, max(1, len(losses) // 10), mode="nearest")  # batches differ a lot
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


def _runs(results: list[dict]) -> str:
    """Seed, command, wall time and machine of each run."""
    lines = ["<details><summary>Commands, wall times, machines</summary>\n"]
    for result in results:
        lines.append(
            f"- {result['variant']}, seed {result['seed']}: {result['steps']:,} steps in {result['train_s'] / 60:.1f} "
            f"minutes, {result['date']}, {result['machine']}; judged on {result['seconds']:.0f} s of each of "
            f"{result['songs']} songs: `{result['command']}`"
        )
    return "\n".join([*lines, "\n</details>\n"])
