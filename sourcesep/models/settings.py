"""Settings: dataclass fields that carry the help, the limits and the choices of their flags.

Config and the hyper-parameters of each model are dataclasses of such fields. Nothing here imports Keras or TensorFlow.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from absl import flags

from data_gen import InputError

if TYPE_CHECKING:
    from sourcesep.config import Config


def setting(
    default: Any,
    help_text: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[str, ...] | None = None,
    may_change: bool = False,
    alias: str | None = None,
) -> Any:
    """Returns a dataclass field that also defines a flag.

    Args:
        default: the default value; its type is the type of the flag. A tuple makes a comma-separated list.
        help_text: the help of the flag: one or more sentences.
        minimum, maximum: limits of the value, or of each value in a tuple.
        choices: the values allowed for a text.
        may_change: whether a run that is resumed may have another value than the one it was started with.
        alias: a second name of the flag.
    """
    limits = {"minimum": minimum, "maximum": maximum, "choices": choices}
    return dataclasses.field(
        default=default, metadata={"help": help_text, "may_change": may_change, "alias": alias, **limits}
    )


@dataclasses.dataclass(frozen=True)
class ModelSettings:
    """Base class of the hyper-parameters of a model; used as it is, for a model that has none.

    Raises InputError for values outside their limits.
    """

    def __post_init__(self) -> None:
        check_limits(self)

    def check(self, config: Config) -> None:
        """Raises InputError if these settings contradict the rest of the Config; nothing does by default."""


def setting_fields(settings: Any) -> dict[str, dataclasses.Field]:
    """Returns the fields of a dataclass (class or instance) that were made by `setting`, by name."""
    return {field.name: field for field in dataclasses.fields(settings) if "may_change" in field.metadata}


def check_limits(settings: Any) -> None:
    """Raises InputError, by the name of the flag, for a value outside its limits or choices."""
    for name, field in setting_fields(settings).items():
        given = getattr(settings, name)
        minimum, maximum, choices = (field.metadata[limit] for limit in ("minimum", "maximum", "choices"))
        for value in given if isinstance(given, tuple) else (given,):
            if minimum is not None and not value >= minimum or maximum is not None and not value <= maximum:
                wanted = f"at least {minimum}" if maximum is None else f"from {minimum} to {maximum}"
                raise InputError(
                    f"--{name}={as_flag(given)}: {'each' if given is not value else 'it'} must be {wanted}"
                )
            if choices and value not in choices:
                raise InputError(f"--{name}={as_flag(given)}: choose from {', '.join(choices)}")


def define_flag(
    field: dataclasses.Field, default: Any, help_text: str, flag_values: flags.FlagValues = flags.FLAGS
) -> None:
    """Defines the absl flag of a field, and its alias.

    Args:
        field: from `setting`; gives the name, the type and the choices.
        default: the default of the flag; None leaves it unset.
        help_text: the help of the flag.
        flag_values: where to define it.
    """
    name, choices, alias = field.name, field.metadata["choices"], field.metadata["alias"]
    if choices:
        flags.DEFINE_enum(name, default, choices, help_text, flag_values=flag_values)
    elif isinstance(field.default, tuple):
        texts = None if default is None else [str(value) for value in default]
        flags.DEFINE_list(name, texts, help_text, flag_values=flag_values)
    else:
        define: Any = {
            bool: flags.DEFINE_bool,
            str: flags.DEFINE_string,
            int: flags.DEFINE_integer,
            float: flags.DEFINE_float,
        }[type(field.default)]
        define(name, default, help_text, flag_values=flag_values)
    if alias:
        flags.DEFINE_alias(alias, name, flag_values=flag_values)


def from_flag(field: dataclasses.Field, value: Any) -> Any:
    """Returns the value of a field from the value of its absl flag: a list becomes a tuple of the type of the default.

    Raises InputError for an item of a list that is not of that type.
    """
    if not isinstance(value, list):
        return value
    default: Any = field.default
    item_type = type(default[0]) if default else str
    try:
        return tuple(item_type(item) for item in value)
    except ValueError:
        raise InputError(
            f"--{field.name}={as_flag(value)}: it takes a list of whole numbers such as {as_flag(default)}"
        ) from None


def as_flag(value: Any) -> str:
    """Returns a value as it is written on the command line."""
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
