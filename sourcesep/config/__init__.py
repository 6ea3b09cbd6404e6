"""Config: one frozen dataclass holds everything that defines a run. Its fields make the flags and the saved JSON.

The fields come in four groups (stems.py, songs.py, chunks.py, training.py), each with what follows from it alone;
what concerns several groups is here. Nothing here imports TensorFlow, so that a command checks its flags at once and
render processes start fast.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from absl import flags

from data_gen import InputError
from data_gen.stems import OTHER
from sourcesep.config.chunks import ChunkSettings
from sourcesep.config.songs import PATH_SETTINGS, SongSettings, expand_setting
from sourcesep.config.stems import CONDITIONED_MODELS, StemSettings
from sourcesep.config.training import TrainingSettings
from sourcesep.loss_terms import TERMS, check_loss, parse_loss
from sourcesep.models import MODELS, make_settings, models_with, settings_class, takes_channels, takes_condition
from sourcesep.models.settings import as_flag, check_limits, define_flag, from_flag, setting, setting_fields


@dataclasses.dataclass(frozen=True)
class Config(TrainingSettings, ChunkSettings, SongSettings, StemSettings):
    """Everything that defines a run. The defaults are the original report's experiment on varied data.

    Lists are tuples here and comma-separated flags on the command line. `targets` is never empty: if it is not given,
    it names all instruments. `network` holds the settings of the model; if it is not given, they are the model's
    defaults. `Config.from_values` takes fields and settings of the model alike, by the names of their flags.

    Raises InputError for names, values and combinations that are not allowed.
    """

    model: str = setting("wavenet", f"Model to train: {', '.join(MODELS)}.")
    network: Any = None  # the Settings of the model; without a flag of its own

    def __post_init__(self) -> None:
        check_limits(self)
        if self.network is None:
            object.__setattr__(self, "network", make_settings(self.model, {}))
        if type(self.network) is not settings_class(self.model):
            raise InputError(
                f"network: settings of another model than {self.model}; use Config.from_values to change the model"
            )
        self.check_names()
        object.__setattr__(self, "targets", self.targets or self.instrument_names)
        self._check_combinations()

    def _check_recordings(self) -> None:
        """Raises InputError for recordings of instruments that are not there, and those that nothing would use."""
        for name in (name for name, _ in self.solo_folders if name not in (*self.instrument_names, OTHER)):
            raise InputError(f"--solo_dir: {name!r} is not among the instruments ({', '.join(self.instrument_names)})")
        for name in (name for name in self.more_stem_names if name not in self.instrument_names):
            raise InputError(
                f"--stem_names: {name!r} is not among the instruments ({', '.join(self.instrument_names)})"
            )
        if self.solo_dir and not self.remix:
            raise InputError("--solo_dir: remixing puts solo recordings into mixtures; set e.g. --remix=0.5")

    def _check_combinations(self) -> None:
        """Raises InputError, by the name of the flag, for flags that contradict each other."""
        if self.patience and not self.validate_every:
            raise InputError(f"--patience={self.patience} counts validations: set --validate_every as well")
        self.check_shares()
        self._check_recordings()
        if self.other and not self.has_rest and not self.stems_dir:
            raise InputError("--other: every instrument is a target, nothing is left over; name fewer --targets")
        if self.other and OTHER in self.instrument_names:
            raise InputError(f"--other: an instrument is called {OTHER!r} already; rename it")
        if self.conditioning != "none" and not takes_condition(self.model):
            raise InputError(
                f"--conditioning={self.conditioning}: --model={self.model} takes no condition; "
                f"{', '.join(CONDITIONED_MODELS)} can"
            )
        if self.blind and self.conditioning != "none":
            raise InputError(
                f"--blind contradicts --conditioning={self.conditioning}, which states which instruments are present"
            )
        if self.blind and self.require != "any":
            raise InputError(
                "--blind needs --require=any, so that the model is trained on pieces without an instrument"
            )
        if self.channels > 1 and not takes_channels(self.model):
            raise InputError(
                f"--channels={self.channels}: --model={self.model} has one channel; "
                f"{', '.join(filter(takes_channels, MODELS))} can"
            )
        if self.channels > 1 and (self.conditioning != "none" or self.consistent):
            raise InputError(f"--channels={self.channels}: not together with --conditioning or --consistent")
        if self.consistent:
            self.require_whole_mixture("consistent", "--noconsistent")
        check_loss(self.loss, len(self.model_stems), self.chunk_samples)
        for term in parse_loss(self.loss):
            if TERMS[term].uses_mixture:
                self.require_whole_mixture(f"loss={self.loss}", f"a loss without {term}")
        self.network.check(self)

    def require_whole_mixture(self, flag: str, instead: str) -> None:
        """Raises InputError unless the stems that the model gives sum to the mixture.

        Args:
            flag: the flag that needs it, without dashes.
            instead: what to use where they do not.
        """
        if self.has_rest and not self.other:
            raise InputError(
                f"--{flag}: the stems of these --targets do not make up the mixture; add --other, or use {instead}"
            )
        if len(self.model_stems) < 2:
            raise InputError(f"--{flag}: the model gives one stem at a time, nothing to sum; use {instead}")

    @property
    def has_rest(self) -> bool:
        """Whether something sounds in the mixture that is not a target."""
        return len(self.targets) < len(self.instrument_names) or OTHER in dict(self.solo_folders)

    @property
    def stems_make_up_mixture(self) -> bool:
        """Whether the model gives several stems at once, and they sum to the mixture."""
        return len(self.model_stems) > 1 and (self.other or not self.has_rest)

    def setting_fields(self) -> dict[str, dataclasses.Field]:
        """Returns all fields that have a flag, by the flag's name: those of Config and the settings of the model."""
        return {**setting_fields(self), **setting_fields(self.network)}

    def values(self) -> dict[str, Any]:
        """Returns the values of `setting_fields`, by the flag's name."""
        common = {name: getattr(self, name) for name in setting_fields(self)}
        return {**common, **{name: getattr(self.network, name) for name in setting_fields(self.network)}}

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Config:
        """Returns the Config with these values, by the flag's name; the inverse of `values`.

        Args:
            values: fields of Config and settings of the model; what is left out has its default.

        Raises InputError as Config does, and for a setting that the model does not have.
        """
        common = {name: value for name, value in values.items() if name in setting_fields(cls)}
        own = {name: value for name, value in values.items() if name not in common}
        return cls(**common, network=make_settings(values.get("model", cls.model), own))

    def to_json(self) -> str:
        """Returns `values` as a JSON object."""
        return json.dumps(self.values(), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Config:
        """Returns the Config of a JSON object; the inverse of `to_json`.

        Settings of other models are ignored: files of earlier versions hold those of all models.

        Raises ValueError (InputError is one) for any other text, and for values that do not exist here.
        """
        values = json.loads(text)
        if not isinstance(values, dict):
            raise ValueError("not a JSON object")
        unknown = sorted(name for name in values if name not in setting_fields(cls) and not models_with(name))
        if unknown:
            raise ValueError(f"it has {', '.join(unknown)}, which this version does not know")
        return cls.from_values(
            without_foreign_settings(
                {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
            )
        )

    @classmethod
    def from_flags(cls, flag_values: flags.FlagValues = flags.FLAGS, model: str | None = None) -> Config:
        """Returns the Config that the parsed absl flags give.

        Args:
            flag_values: the parsed flags, from `define_flags`.
            model: a model to use in place of that of --model; settings that it does not have are then ignored.

        Raises InputError as `from_values` does.
        """
        values = {name: from_flag(field, flag_values[name].value) for name, field in setting_fields(cls).items()}
        for name, fields in _fields_of_models().items():
            if flag_values[name].value is not None:  # unset stands for the default of the model
                values[name] = from_flag(next(iter(fields.values())), flag_values[name].value)
        for name in PATH_SETTINGS:  # absolute, since a run is also used from other folders
            if name in values:
                values[name] = expand_setting(name, values[name])
        return cls.from_values(without_foreign_settings({**values, "model": model}) if model else values)


def without_foreign_settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values without the settings that only other models than `values["model"]` have."""
    own = setting_fields(settings_class(values.get("model", Config.model)))
    return {name: value for name, value in values.items() if name in own or not models_with(name)}


def define_flags(flag_values: flags.FlagValues = flags.FLAGS) -> None:
    """Defines one absl flag for each field of Config and for each setting of a model.

    Models may share a setting, so its flag has no default: unset stands for the default of the model. Its help names
    the models that have it, and their defaults.
    """
    for field in setting_fields(Config).values():
        define_flag(field, field.default, field.metadata["help"], flag_values)
    for fields in _fields_of_models().values():
        models_by_help: dict[str, list[str]] = {}
        for model, field in fields.items():
            help_text = f"{field.metadata['help']} Default: {as_flag(field.default)}."
            models_by_help.setdefault(help_text, []).append(model)
        help_text = " ".join(f"{', '.join(models)}: {text}" for text, models in models_by_help.items())
        define_flag(next(iter(fields.values())), None, help_text, flag_values)


def _fields_of_models() -> dict[str, dict[str, dataclasses.Field]]:
    """Returns the fields of all settings of models: by the name of the setting, then by that of the model."""
    fields: dict[str, dict[str, dataclasses.Field]] = {}
    for model in MODELS:
        for name, field in setting_fields(settings_class(model)).items():
            fields.setdefault(name, {})[model] = field
    return fields
