"""What every file of settings shares: strict models, TOML reading, and errors in one line."""

import difflib
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from flop_p2p.errors import ConfigError

SettingsType = TypeVar("SettingsType", bound="Settings")


class Settings(BaseModel):
    """Frozen settings that refuse unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def read_toml(path: Path) -> dict[str, Any]:
    """The content of a TOML file.

    Raises:
        ConfigError: the file is absent, unreadable or not TOML.
    """
    try:
        with path.open("rb") as file:
            content = tomllib.load(file)
        repr(content)  # fails for a hexadecimal number so long that no message could show it
        return content
    except OSError as error:
        raise ConfigError(f"{path}: cannot read this file ({error.strerror})") from error
    except RecursionError as error:
        raise ConfigError(f"{path}: not a valid TOML file: too many brackets within each other") from error
    except ValueError as error:  # of TOML, of UTF-8, or a number of thousands of digits
        raise ConfigError(f"{path}: not a valid TOML file: {error}") from error


def validate(model: type[SettingsType], values: dict[str, Any], where: str) -> SettingsType:
    """Build ``model`` from ``values``; ``where`` names their origin in the error.

    Raises:
        ConfigError: one line about the first wrong key, with the nearest known name for an unknown one.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "settings"
        if first["type"] == "extra_forbidden":
            reason = _unknown_key(model, first["loc"])
        else:
            reason = first["msg"].removeprefix("Value error, ")
            if not isinstance(first["input"], dict | BaseModel):
                reason += f", got {first['input']!r}"
        raise ConfigError(f"{where}: {key}: {reason}") from error


def _unknown_key(model: type[BaseModel], location: tuple[int | str, ...]) -> str:
    section: type[BaseModel] = model
    for part in location[:-1]:
        field = section.model_fields.get(str(part))
        if field is None or not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)):
            return "unknown key"  # inside a list or a table of the user's own keys
        section = field.annotation
    known = sorted(section.model_fields)
    close = difflib.get_close_matches(str(location[-1]), known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known keys are {', '.join(known)}"
    return f"unknown key; {hint}"


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Tables of settings from values by dotted key, such as ``{"training.lr": 0.1}``."""
    tables: dict[str, Any] = {}
    for dotted, value in values.items():
        *sections, key = dotted.split(".")
        table = tables
        for section in sections:
            table = table.setdefault(section, {})
        table[key] = value
    return tables


def merge(base: dict[str, Any], other: Mapping[str, Any]) -> None:
    """Lay ``other`` over ``base``, section by section."""
    for key, value in other.items():
        if isinstance(value, Mapping) and isinstance(base.get(key), dict):
            merge(base[key], value)
        else:
            base[key] = dict(value) if isinstance(value, Mapping) else value


def first_difference(before: Settings, now: Settings, may_change: Collection[str] = ()) -> str | None:
    """The first key in which two sets of settings differ, with both values; None if they agree.

    Args:
        may_change: dotted keys that are not compared.
    """
    old, new = _flat(before.model_dump(mode="json")), _flat(now.model_dump(mode="json"))
    for key in sorted(old.keys() - set(may_change)):
        if old[key] != new[key]:
            return f"{key} was {old[key]!r} and is now {new[key]!r}"
    return None


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted key."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat
