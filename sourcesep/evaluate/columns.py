"""What the terminal's table and the page share: the columns of the measures, and how numbers are written."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from sourcesep import metrics
from sourcesep.metrics import Measure

UNDEFINED = "–"


class Column(NamedTuple):
    """One average of a measure.

    Attributes:
        measure: the measure.
        average: "median" or "mean".
    """

    measure: Measure
    average: str

    @property
    def heading(self) -> str:
        """The heading of the column, between those of its neighbours; the unit is dB unless it names another."""
        label, unit = self.measure.label, self.measure.unit
        if self.average != self.measure.averages[0]:
            return "mean [95\u00a0%]"
        return label if unit in ("%", "dB") else f"{label}, {unit}"

    @property
    def label(self) -> str:
        """The full name of the column, for a cell that stands by itself."""
        measure = self.measure
        name = measure.label if measure.part == metrics.ACTIVE else f"{measure.label} {measure.part}"
        average = "" if self.average == measure.averages[0] else f", {self.average} [95\u00a0%]"
        return f"{name}{average}" if measure.unit == "%" else f"{name}{average}, {measure.unit}"

    @property
    def is_main(self) -> bool:
        """Whether it is the column of all columns."""
        return self.measure.key == metrics.MAIN_MEASURE and self.average == self.measure.averages[0]

    def format_value(self, scores: Mapping[str, Mapping[str, float]]) -> str:
        """Returns the average out of a row of the summary (key of a measure -> statistic)."""
        value = scores[self.measure.key][self.average]
        return format_percent(value) if self.measure.unit == "%" else format_number(value)

    def format_interval(self, scores: Mapping[str, Mapping[str, float]]) -> str:
        """Returns the interval of a mean in brackets; empty for a median, a share, and for fewer than two songs."""
        statistics = scores[self.measure.key]
        if self.average != "mean" or self.measure.unit == "%" or statistics["n"] < 2:
            return ""
        return f"[{format_number(statistics['mean_low'])}, {format_number(statistics['mean_high'])}]"


def list_columns() -> tuple[Column, ...]:
    """Returns the columns of all measures that have a label, in the order of metrics.MEASURES."""
    return tuple(
        Column(measure, average) for measure in metrics.MEASURES if measure.label for average in measure.averages
    )


def format_number(value: float | None, digits: int = 1) -> str:
    """Returns a score with a true minus sign, or a dash if it is undefined."""
    if value is None or not math.isfinite(value):
        return UNDEFINED
    text = f"{value:.{digits}f}"
    return text.replace("-", "−") if float(text) else text.lstrip("-")


def format_percent(value: float | None) -> str:
    """Returns a share of 0 to 1 in percent, or a dash if it is undefined."""
    return UNDEFINED if value is None or not math.isfinite(value) else f"{100 * value:.0f} %"


def format_count(number: int, noun: str) -> str:
    """Returns a number with its noun, in the plural except for 1."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
