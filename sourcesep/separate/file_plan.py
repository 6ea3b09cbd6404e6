"""Which files are written for a recording: what they hold and what they are called."""

from __future__ import annotations

import dataclasses
import pathlib
import string
from collections.abc import Sequence

import numpy as np

from data_gen import InputError
from sourcesep.separate.stem_writer import Encoding


@dataclasses.dataclass(frozen=True)
class FilePlan:
    """What is written for each recording, and where.

    Attributes:
        output_dir: folder that everything is written below.
        stems: names of the stems to write; empty for all.
        residual: whether to write what is left of the mixture without all stems, written or not.
        minus: names of stems to take out of the mixture, for one more file; empty for no such file.
        filename: template of a path with {stem}, {track} (name of the recording) and {ext} (of the format).
        encoding: of the files.

    Raises InputError if the template is not valid.
    """

    output_dir: str = "separated"
    stems: tuple[str, ...] = ()
    residual: bool = False
    minus: tuple[str, ...] = ()
    filename: str = "{track}/{stem}.{ext}"
    encoding: Encoding = dataclasses.field(default_factory=Encoding)

    def __post_init__(self) -> None:
        flag = f"--filename={self.filename}"
        try:
            fields = [part[1:] for part in string.Formatter().parse(self.filename) if part[1] is not None]
        except ValueError as error:
            raise InputError(f"{flag}: not a template ({error}); the default is {{track}}/{{stem}}.{{ext}}") from None
        for name, spec, conversion in fields:
            if name not in ("track", "stem", "ext") or spec or conversion:
                raise InputError(f"{flag}: {{{name}}} is unknown; there are {{track}}, {{stem}} and {{ext}}")
        if not any(name == "stem" for name, *_ in fields):
            raise InputError(f"{flag}: must contain {{stem}}, since there is one file per stem")
        path = pathlib.PurePath(self.filename)
        if path.is_absolute() or ".." in path.parts or self.filename.endswith("/"):
            raise InputError(f"{flag}: must name a file below --output_dir, by a relative path without ..")

    def check(self, stem_names: Sequence[str]) -> None:
        """Raises InputError if the plan names a stem that is not among those of the model."""
        for flag, names in (("stems", self.stems), ("minus", self.minus)):
            for name in names:
                if name not in stem_names:
                    raise InputError(f"--{flag}: the model has no {name!r}; it separates {', '.join(stem_names)}")
                if names.count(name) > 1:
                    raise InputError(f"--{flag}: {name!r} is named twice")

    def labels(self, stem_names: Sequence[str], has_references: bool = False) -> list[str]:
        """Returns what {stem} stands for in each of the files, in the order of `select`.

        Args:
            stem_names: names of the model's stems.
            has_references: whether the stems that the mixture is the sum of are known; then they and the mixture are
                written too.
        """
        labels = ["mixture"] if has_references else []
        labels += self.stems or stem_names
        if self.minus:
            labels.append("_".join(["minus", *self.minus]))
        if self.residual:
            labels.append("residual")
        return labels + [f"reference/{name}" for name in stem_names if has_references]

    def paths(self, track: str, stem_names: Sequence[str], has_references: bool = False) -> list[pathlib.Path]:
        """Returns the path of each file of a recording called `track`; other arguments are those of `labels`."""
        extension = self.encoding.format
        return [
            pathlib.Path(self.output_dir, self.filename.format(track=track, stem=label, ext=extension))
            for label in self.labels(stem_names, has_references)
        ]

    def select(
        self,
        mixture: np.ndarray,
        stems: np.ndarray,
        stem_names: Sequence[str],
        references: np.ndarray | None = None,
    ) -> np.ndarray:
        """Returns the waveforms of the files.

        Args:
            mixture: float32 [time, channel].
            stems: float32 [time, channel, stem].
            stem_names: names along the last axis of `stems`.
            references: float32 [time, channel, stem], the stems that the mixture is the sum of, where they are known.

        Returns:
            float32 [time, channel, file], one file for each of `labels`.
        """
        positions = {name: position for position, name in enumerate(stem_names)}
        waveforms = [] if references is None else [mixture[:, :, None]]
        waveforms.append(stems[:, :, [positions[name] for name in self.stems or stem_names]])
        if self.minus:
            removed = stems[:, :, [positions[name] for name in self.minus]].sum(axis=2)
            waveforms.append((mixture - removed)[:, :, None])
        if self.residual:
            waveforms.append((mixture - stems.sum(axis=2))[:, :, None])
        if references is not None:
            waveforms.append(references)
        return np.concatenate(waveforms, axis=2)
