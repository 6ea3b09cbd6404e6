"""The settings that say what sounds in a mixture and which stems a model gives."""

from __future__ import annotations

import dataclasses

from data_gen import InputError
from data_gen.instruments import CANDIDATES, name_of
from data_gen.stems import OTHER
from sourcesep.models import MODELS, takes_condition
from sourcesep.models.settings import setting

CONDITIONED_MODELS = [model for model in MODELS if takes_condition(model)]


@dataclasses.dataclass(frozen=True)
class StemSettings:
    """What sounds in a mixture, and which stems a model gives: a group of the fields of Config."""

    instruments: tuple[str, ...] = setting(
        ("drums", "piano", "strings", "bass"),
        f"Instruments that sound in the mixture, separated by commas: {', '.join(CANDIDATES)}, or any other as "
        "NAME:PROGRAMS with General MIDI programs from 0, e.g. choir:52-54, or rest: all programs of no other one.",
    )
    targets: tuple[str, ...] = setting((), "Instruments to separate, separated by commas; empty for all instruments.")
    other: bool = setting(
        False, "Adds one more stem, named other: the sum of all instruments that are not in --targets."
    )
    conditioning: str = setting(
        "none",
        "What the model receives in addition to the mixture: binary, which instruments are present; embedding, which "
        f"one to extract (the model runs once for each). For the models {' and '.join(CONDITIONED_MODELS)}.",
        choices=("none", "binary", "embedding"),
    )
    blind: bool = setting(False, "separate.py detects which instruments are present and writes only their stems.")
    consistent: bool = setting(
        False,
        "Adds a last layer that corrects the stems so that they sum to the mixture; needs all instruments as "
        "--targets, or --other.",
    )

    @property
    def instrument_names(self) -> tuple[str, ...]:
        """Names of the instruments that sound in the mixture."""
        return tuple(name_of(text) for text in self.instruments)

    @property
    def stem_names(self) -> tuple[str, ...]:
        """Names of the stems, in order: the targets, and "other" with --other."""
        return (*self.targets, OTHER) if self.other else self.targets

    @property
    def model_stems(self) -> tuple[str, ...]:
        """Names of the stems that the model gives at once: `stem_names`, or with an embedding only the one wanted."""
        return ("wanted",) if self.conditioning == "embedding" else self.stem_names

    def check_names(self) -> None:
        """Raises InputError for names of instruments and targets that cannot be used."""
        names = self.instrument_names
        if not names:
            raise InputError("--instruments: name at least one instrument")
        for name in names:
            if names.count(name) > 1:
                raise InputError(f"--instruments: {name!r} is named twice")
        for target in self.targets:
            if target not in names:
                raise InputError(f"--targets: {target!r} is not among the instruments ({', '.join(names)})")
            if self.targets.count(target) > 1:
                raise InputError(f"--targets: {target!r} is named twice")
