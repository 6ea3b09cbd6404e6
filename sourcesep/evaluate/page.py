"""The HTML page of an evaluation: tables, plots, spectrograms and players.

The page is one file that needs no network: pictures and sound are inside it.
"""

from __future__ import annotations

import itertools
import math
import pathlib
from collections.abc import Sequence
from typing import Any

import jinja2

from sourcesep import metrics
from sourcesep.evaluate.columns import format_count, format_number, format_percent, list_columns
from sourcesep.evaluate.scores import BSS_EVAL, IDEAL, MIXTURE, MODEL, label_row
from sourcesep.metrics import MAIN_MEASURE

WORST_DB = -15.0  # scores below this are drawn at the left edge of the plot
MOST_TICKS = 8  # intervals between the plot's ticks, at most


def make_page(title: str, figures: dict[str, Any], examples: Sequence[dict[str, Any]]) -> str:
    """Returns the page as HTML.

    Args:
        title: of the page.
        figures: as `summary.make_figures` returns them.
        examples: from `gallery.make_example`.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(pathlib.Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=format_number, percent=format_percent, clock=_format_clock)
    environment.globals.update(label_row=label_row, count=format_count)
    columns = list_columns()
    groups = [
        (part, len(list(group))) for part, group in itertools.groupby(columns, lambda column: column.measure.part)
    ]
    return environment.get_template("page.html.j2").render(
        title=title,
        figures=figures,
        examples=examples,
        plot=_lay_out_plot(figures),
        metrics=metrics,
        columns=columns,
        groups=groups,
        bss_eval=BSS_EVAL,
        main=MAIN_MEASURE,
        MODEL=MODEL,
        MIXTURE=MIXTURE,
        IDEAL=IDEAL,
    )


def _lay_out_plot(figures: dict[str, Any]) -> dict[str, Any]:
    """Computes where the plot's marks are: the main score of each instrument in each song, in percent of the width."""
    summary = figures["summary"]
    scores = [
        (piece["condition"], name, piece["name"], rows[MODEL][MAIN_MEASURE])
        for piece in figures["pieces"]
        for name, rows in piece["instruments"].items()
        if math.isfinite(rows[MODEL][MAIN_MEASURE])
    ]
    medians = [
        rows[row][MAIN_MEASURE]["median"]
        for instruments in summary.values()
        for rows in instruments.values()
        for row in (MIXTURE, IDEAL)
    ]
    drawn = [max(WORST_DB, value) for value in [0.0, *(score[3] for score in scores), *medians] if math.isfinite(value)]
    low, high = math.floor(min(drawn)) - 1, math.ceil(max(drawn)) + 1
    step = next(step for step in (1, 2, 5, 10, 20, 50, 100) if (high - low) / step <= MOST_TICKS)

    def place(value: float) -> float:
        return round(100 * (max(WORST_DB, value) - low) / (high - low), 2)

    lanes = {condition: position for position, condition in enumerate(summary)}
    instruments = {}
    for name in dict.fromkeys(name for stems in summary.values() for name in stems):
        rows = {condition: stems[name] for condition, stems in summary.items() if name in stems}
        marks = [
            {"lane": lanes[condition], "row": row, "value": rows[condition][row][MAIN_MEASURE]["median"]}
            for condition in rows
            for row in (MODEL, MIXTURE, IDEAL)
            if math.isfinite(rows[condition][row][MAIN_MEASURE]["median"])
        ]
        instruments[name] = {
            "dots": [
                {"lane": lanes[condition], "x": place(value), "value": value, "song": song, "shift": index % 5 - 2}
                for index, (condition, stem, song, value) in enumerate(scores)
                if stem == name
            ],
            "marks": [{**mark, "x": place(mark["value"])} for mark in marks],
        }
    ticks = [{"x": place(value), "value": value} for value in range(-(-low // step) * step, high + 1, step)]
    return {"conditions": list(summary), "instruments": instruments, "ticks": ticks}


def _format_clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
