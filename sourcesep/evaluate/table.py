"""The summary of an evaluation as text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sourcesep.evaluate.columns import format_count, format_number, list_columns
from sourcesep.evaluate.scores import BSS_EVAL, MODEL, label_row
from sourcesep.metrics import MAIN_MEASURE


def make_table(figures: dict[str, Any]) -> str:
    """Returns one table per condition: for each instrument the model's row, then those of the anchors.

    Args:
        figures: as `summary.make_figures` returns them.
    """
    tables = []
    columns = [column for column in list_columns() if column.measure.in_terminal]
    for condition, instruments in figures["summary"].items():
        n_songs = sum(piece["condition"] == condition for piece in figures["pieces"])
        parts = [column.measure.part for column in columns]
        groups = [part if part not in parts[:i] else "" for i, part in enumerate(parts)]
        lines = [["", "n", *(column.heading for column in columns)]]
        for name, rows in instruments.items():
            for row, scores in rows.items():
                label = name if row == MODEL else f"  {label_row(row, len(instruments))}"
                cells = [f"{c.format_value(scores)} {c.format_interval(scores)}".rstrip() for c in columns]
                lines.append([label, str(scores[MAIN_MEASURE]["n"]), *cells])
        title = f"{condition}, {format_count(n_songs, 'song')}"
        tables.append(f"{title}\n{_align(lines, ['', '', *groups])}")
    for condition, instruments in figures["museval"].items():
        lines = [["", "n", *(f"{label}, dB" for label in BSS_EVAL.values())]]
        for name, scores in instruments.items():
            lines.append([name, str(scores["n"]), *(format_number(scores[key]) for key in BSS_EVAL)])
        tables.append(f"{condition}, BSSEval v4\n{_align(lines)}")
    left_out = [f"left out: {piece['name']}: {piece['reason']}" for piece in figures["left_out"]]
    return "\n\n".join([*tables, "\n".join(left_out)]).rstrip()


def _align(lines: Sequence[Sequence[str]], groups: Sequence[str] = ()) -> str:
    """Aligns cells to the right, the first of each line to the left, under the headings `groups` of some columns."""
    widths = [max(map(len, column)) for column in zip(*lines)]
    text = []
    if any(groups):
        heading, at = "", 0
        for group, width in zip(groups, widths):
            at += width + 2
            if group:
                heading = heading.ljust(at - width) + group
        text.append(heading)
    for first, *others in lines:
        cells = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(others, widths[1:]))]
        text.append("  ".join(cells).rstrip())
    return "\n".join(text)
