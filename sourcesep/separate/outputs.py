"""Which files a separated recording becomes: what they hold, what they are called."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import string
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from data_gen import InputError
from sourcesep.separate.stem_writer import Encoding


class Separated(NamedTuple):
    """What became of one recording.

    Attributes:
        folder: where its stems lie.
        sdr_db: SDR per instrument against the stems that the input was mixed from, where these are known.
        files: paths of what was written, from the folder.
        notes: what the user should know about it.
    """

    folder: pathlib.Path
    sdr_db: dict[str, float]
    files: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Outputs:
    """What is written for each recording.

    Attributes:
        stems: instruments to write; empty for all.
        residual: whether to write what the mixture holds beside all stems, written or not.
        minus: instruments to take out of the mixture, for one more file; empty for none.
        filename: template of a path with {stem}, {track} (name of the recording) and {ext} (of the format).
        encoding: of the files.

    Raises InputError for a template that is none.
    """

    stems: tuple[str, ...] = ()
    residual: bool = False
    minus: tuple[str, ...] = ()
    filename: str = "{track}/{stem}.{ext}"
    encoding: Encoding = dataclasses.field(default_factory=Encoding)

    def __post_init__(self):
        flag = f"--filename={self.filename}"
        try:
            fields = [part[1:] for part in string.Formatter().parse(self.filename) if part[1] is not None]
        except ValueError as error:
            raise InputError(f"{flag}: no template ({error}); the default is {{track}}/{{stem}}.{{ext}}") from None
        for name, spec, conversion in fields:
            if name not in ("track", "stem", "ext") or spec or conversion:
                raise InputError(f"{flag}: {{{name}}} is unknown; there are {{track}}, {{stem}} and {{ext}}")
        if not any(name == "stem" for name, *_ in fields):
            raise InputError(f"{flag}: must contain {{stem}}, since there is one file per stem")
        path = pathlib.PurePath(self.filename)
        if path.is_absolute() or ".." in path.parts or self.filename.endswith("/"):
            raise InputError(f"{flag}: must name a file below --output_dir, by a relative path without ..")

    def check(self, instruments: Sequence[str]) -> None:
        """Raises InputError if an instrument that is asked for is none of the model's."""
        for flag, names in (("stems", self.stems), ("minus", self.minus)):
            for name in names:
                if name not in instruments:
                    raise InputError(f"--{flag}: the model has no {name!r}; it separates {', '.join(instruments)}")
                if names.count(name) > 1:
                    raise InputError(f"--{flag}: {name!r} is named twice")

    def names(self, instruments: Sequence[str]) -> list[str]:
        """What {stem} stands for in each of the files, in the order of `select`."""
        names = list(self.stems or instruments)
        if self.minus:
            names.append("_".join(["minus", *self.minus]))
        return names + ["residual"] * self.residual

    def select(self, mixture: np.ndarray, stems: np.ndarray, instruments: Sequence[str]) -> np.ndarray:
        """The waveforms of the files.

        Args:
            mixture: float32 [time, channel].
            stems: float32 [time, channel, instrument].
            instruments: names along the last axis of `stems`.

        Returns:
            float32 [time, channel, file], a file for each of `names`.
        """
        positions = [list(instruments).index(name) for name in self.stems or instruments]
        waveforms = [stems[:, :, positions]]
        if self.minus:
            taken = stems[:, :, [list(instruments).index(name) for name in self.minus]]
            waveforms.append((mixture - taken.sum(axis=2))[:, :, None])
        if self.residual:
            waveforms.append((mixture - stems.sum(axis=2))[:, :, None])
        return np.concatenate(waveforms, axis=2)

    def paths(self, output_dir: str, track: str, names: Sequence[str]) -> list[pathlib.Path]:
        """The path of each file of a recording."""
        return [
            pathlib.Path(output_dir, self.filename.format(track=track, stem=name, ext=self.encoding.format))
            for name in names
        ]

    @staticmethod
    def found(
        paths: Sequence[pathlib.Path], names: Sequence[str], instruments: Sequence[str], found: Sequence[str]
    ) -> list[pathlib.Path]:
        """Of the paths of files with these names, those that are not the stem of an instrument that was not found."""
        return [path for path, name in zip(paths, names) if name not in instruments or name in found]

    @staticmethod
    def written(paths: Sequence[pathlib.Path], sdr_db: dict[str, float], notes: Sequence[str]) -> Separated:
        """What to tell about a recording whose files these are."""
        folder = pathlib.Path(os.path.commonpath([path.parent for path in paths]) if paths else ".")
        return Separated(folder, sdr_db, tuple(os.path.relpath(path, folder) for path in paths), tuple(notes))
