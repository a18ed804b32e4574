"""How a setting is declared, and how flags and environment variables fill a dataclass of them.

A setting `max_positions` of the encoder is the flag `--max-positions` and the environment variable
`SPLITFORMER_ENCODER_MAX_POSITIONS`; flags win. Unknown names and malformed values are refused.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_type_hints

from splitformer.errors import ConfigurationError

_BINARY_UNITS = {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
_SERVICE_LINK = re.compile(
    r"(?:\w+_)?(?:SERVICE_HOST|SERVICE_PORT(?:_\w+)?|PORT_\d+_(?:TCP|UDP|SCTP)(?:_[A-Z]+)?)"
)
"""What Kubernetes puts into the environment of every pod for a service called like us."""
_LINK_ADDRESS = re.compile(r"(?:tcp|udp|sctp)://.*")
_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, **_BINARY_UNITS}


def setting(
    default: Any,
    explanation: str,
    *,
    at_least: float | None = None,
    at_most: float = math.inf,
    size: bool = False,
) -> Any:
    """Declare a setting.

    Args:
        default: Its value if neither flag nor environment gives one.
        explanation: One line for `--help` and the documentation, with the unit.
        at_least: Smallest number allowed.
        at_most: Largest number allowed; infinity itself never is.
        size: A number of bytes, which may be written as `512MiB`.
    """
    metadata = {
        "explanation": explanation,
        "at_least": at_least,
        "at_most": at_most,
        "size": size,
    }
    return dataclasses.field(default=default, metadata=metadata)


def port_setting(default: int, explanation: str) -> Any:
    """Declare a setting that is a port."""
    return setting(default, explanation, at_least=0, at_most=65535)


def check_range(field: dataclasses.Field[Any], value: Any) -> None:
    """Raise ConfigurationError unless a setting's value lies in its range."""
    least, most = field.metadata["at_least"], field.metadata["at_most"]
    if least is None or (least <= value <= most and value != math.inf):
        return
    rule = f"at least {least}" if most == math.inf else f"{least} to {most}"
    raise ConfigurationError(f"{field.name}: must be finite and {rule}, got {value!r}")


def values_given(
    cls: type[Any], arguments: Sequence[str], environment: Mapping[str, str]
) -> dict[str, Any]:
    """Return the values that flags and environment variables give, by the names of the fields.

    Args:
        cls: A dataclass whose fields are all declared by `setting`; its `prefix` begins the names
            of its variables.
        arguments: Flags and their values.
        environment: Variables and their values.

    Raises:
        ConfigurationError: A name is unknown or a value malformed.
    """
    texts = {**_from_environment(cls, environment), **_from_flags(cls, arguments)}
    hints = get_type_hints(cls)
    return {
        field.name: _parse(source, text, hints[field.name], field.metadata["size"])
        for field in dataclasses.fields(cls)
        if field.name in texts
        for source, text in [texts[field.name]]
    }


def _from_environment(cls: type[Any], environment: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Map field names to (variable, text); refuse variables with our prefix that name no field.

    Service links of Kubernetes, which look like ours if a service is called like us, are left out.
    """
    known = {cls.prefix + field.name.upper(): field.name for field in dataclasses.fields(cls)}
    ours = {
        name: text
        for name, text in environment.items()
        if name.startswith(cls.prefix) and not _is_service_link(name[len(cls.prefix) :], text)
    }
    if unknown := sorted(ours.keys() - known.keys()):
        raise ConfigurationError(f"{unknown[0]}: no such setting; known: {', '.join(known)}")
    return {known[name]: (name, text) for name, text in ours.items()}


def _is_service_link(name: str, text: str) -> bool:
    if _SERVICE_LINK.fullmatch(name):
        return True
    return name.endswith("PORT") and _LINK_ADDRESS.fullmatch(text) is not None


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        raise ConfigurationError(f"{message}; --help lists all settings")


def _from_flags(cls: type[Any], arguments: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Map field names to (flag, text)."""
    parser = _Parser(description=cls.__doc__, allow_abbrev=False)
    for field in dataclasses.fields(cls):
        explanation = f"{field.metadata['explanation']} Default: {field.default!r}."
        parser.add_argument(_flag(field.name), help=explanation.replace("%", "%%"), metavar="VALUE")
    given = vars(parser.parse_args(arguments))
    return {name: (_flag(name), text) for name, text in given.items() if text is not None}


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _parse(source: str, text: str, kind: Any, size: bool) -> Any:
    parsers: dict[Any, Callable[[str], Any]] = {
        str: str,
        int: parse_size if size else int,
        float: float,
        bool: _parse_bool,
        tuple[str, ...]: lambda value: tuple(p.strip() for p in value.split(",") if p.strip()),
    }
    name = getattr(kind, "__name__", "list")
    try:
        return parsers[kind](text)
    except ValueError as error:
        raise ConfigurationError(f"{source}: must be a valid {name}, got {text!r}") from error


def _parse_bool(text: str) -> bool:
    values = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.lower() not in values:
        raise ValueError(text)
    return values[text.lower()]


def parse_size(text: str) -> int:
    """Read a number of bytes such as `1048576`, `512MiB` or `2 GB`; ValueError if it is none."""
    match = re.fullmatch(r"(\d+)\s*([A-Za-z]*)", text.strip())
    if match is None or match[2].upper() not in _UNITS:
        raise ValueError(text)
    return int(match[1]) * _UNITS[match[2].upper()]
