"""The summary of an evaluation as text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sourcesep.evaluate.columns import format_count, format_number, format_percent, list_columns
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
        groups = [f"{part}, dB" if part not in parts[:i] else "" for i, part in enumerate(parts)]
        headings = ["", "n", *(column.heading for column in columns)]
        lines = []
        for name, rows in instruments.items():
            for row, scores in rows.items():
                label = name if row == MODEL else f"  {label_row(row, len(instruments))}"
                cells = [f"{c.format_value(scores)} {c.format_interval(scores)}".rstrip() for c in columns]
                lines.append([label, str(scores[MAIN_MEASURE]["n"]), *cells])
        title = f"{condition}, {format_count(n_songs, 'song')}"
        tables.append(f"{title}\n{_align(['', '', *groups], headings, lines)}")
    for condition, instruments in figures["found"].items():
        headings = ["", "present", "found", "precision", "recall"]
        lines = [
            [name, str(row["n_present"]), str(row["n_found"])]
            + [format_percent(row[share]) for share in ("precision", "recall")]
            for name, row in instruments.items()
        ]
        tables.append(f"{condition}, instruments found, songs\n{_align([''] * len(headings), headings, lines)}")
    for condition, instruments in figures["museval"].items():
        headings = ["", "n", *BSS_EVAL.values()]
        lines = []
        for name, scores in instruments.items():
            lines.append([name, str(scores["n"]), *(format_number(scores[key]) for key in BSS_EVAL)])
        tables.append(f"{condition}, BSSEval v4, dB\n{_align([''] * len(headings), headings, lines)}")
    left_out = [f"left out: {piece['name']}: {piece['reason']}" for piece in figures["left_out"]]
    return "\n\n".join([*tables, "\n".join(left_out)]).rstrip()


def _align(groups: Sequence[str], headings: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Aligns columns to the right, the first one to the left.

    Args:
        groups: for each column the heading above it and those to its right; empty under the group of another column.
        headings: of the columns; their words are written one below the other, to save width.
        lines: the cells.
    """
    words = [heading.split(" ", 1) for heading in headings]
    cells = [[""] * (2 - len(word)) + word for word in words]  # [column, line of the heading]
    heading_lines = list(zip(*cells))
    widths = [max(map(len, column)) for column in zip(*heading_lines, *lines)]
    text = []
    if any(groups):
        top, right = "", 0
        for group, width in zip(groups, widths):
            top = top.ljust(right) + group if group else top
            right += width + 2
        text.append(top)
    for first, *others in [*heading_lines, *lines]:
        aligned = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(others, widths[1:]))]
        text.append("  ".join(aligned).rstrip())
    return "\n".join(line for line in text if line)
