"""Settings from flags and environment, as one frozen dataclass per service.

A setting `max_positions` of the encoder is the flag `--max-positions` and the environment variable
`SPLITFORMER_ENCODER_MAX_POSITIONS`; flags win. Unknown names and malformed values are refused.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import re
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self, get_type_hints

from splitformer.errors import ConfigurationError
from splitformer.serving.layout import cores_of
from splitformer.serving.priority import check_policy
from splitformer.serving.process import check_event_loop
from splitformer.tls import TlsFiles

_EVERYWHERE = ("", "0.0.0.0", "::", "[::]")  # noqa: S104 (recognised, not bound to)
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


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings that both services have.

    Raises:
        ConfigurationError: A value breaks its rule.
    """

    prefix: ClassVar[str] = "SPLITFORMER_"

    host: str = setting("127.0.0.1", "Address to listen on; 0.0.0.0 for all.")
    port: int = port_setting(0, "Port of the gRPC server; 0 takes a free one.")
    metrics_port: int = port_setting(0, "Port of the /metrics page; 0 takes a free one.")
    model: str = setting("", "Model folder; empty: the embedded model.")
    models: str = setting(
        "", "Folder whose subfolders may be loaded as models by name; empty: none may."
    )
    models_bytes: int = setting(
        4 * 2**30, "Budget for the weights of all models, in bytes.", at_least=1, size=True
    )
    admin: str = setting(
        "",
        "host:port where models are loaded and unloaded, on a loopback address or with"
        " tls_client_ca; empty: nowhere.",
    )
    threads: int = setting(1, "Threads for the arithmetic.", at_least=1)
    cores: str = setting("", "Cores the process may use, such as 0-3,6; empty: all.")
    engine_cores: str = setting(
        "", "Cores for the threads that compute, one for each, such as 0-3,6; empty: any."
    )
    nice: int = setting(
        0,
        "Added to the niceness of the process; more yields to others, less takes privileges.",
        at_least=-20,
        at_most=19,
    )
    policy: str = setting(
        "usual",
        "How Linux schedules the process once it serves: usual, or idle, which gives way at once to"
        " whatever else wants a core.",
    )
    memory_bytes: int = setting(2**30, "Budget, in bytes.", at_least=1, size=True)
    max_message_bytes: int = setting(
        64 * 2**20, "Largest gRPC message accepted, in bytes.", at_least=2**16, size=True
    )
    tls_certificate: str = setting(
        "", "PEM file with the server's certificate and its chain; empty: no TLS."
    )
    tls_key: str = setting("", "PEM file with the certificate's private key, without a password.")
    tls_client_ca: str = setting(
        "",
        "PEM file with authorities that callers' certificates must come from; empty: any caller.",
    )
    notice_seconds: float = setting(
        0.0,
        "How long after SIGTERM new work is still taken, so that balancers see NOT_SERVING first.",
        at_least=0,
    )
    drain_seconds: float = setting(
        30.0, "Longest wait for running calls after that, in seconds.", at_least=0
    )
    event_loop: str = setting(
        "auto", "What runs the event loop: asyncio, uvloop, or auto (uvloop if it is installed)."
    )
    log_level: str = setting("info", "Least severe log lines: debug, info, warning or error.")

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            _check_range(field, getattr(self, field.name))
        cores_of(self.cores)
        cores_of(self.engine_cores, "engine_cores")
        check_policy(self.policy)
        check_event_loop(self.event_loop)
        if self.log_level not in ("debug", "info", "warning", "error"):
            raise ConfigurationError(
                "log_level: must be debug, info, warning or error, got " + repr(self.log_level)
            )
        self._check_tls()
        self._check_admin()

    @classmethod
    def read(cls, arguments: Sequence[str], environment: Mapping[str, str]) -> Self:
        """Read flags and environment variables.

        Raises:
            ConfigurationError: A name is unknown or a value malformed.
        """
        given = {**_from_environment(cls, environment), **_from_flags(cls, arguments)}
        hints = get_type_hints(cls)
        values = {
            field.name: _parse(source, text, hints[field.name], field.metadata["size"])
            for field in dataclasses.fields(cls)
            if field.name in given
            for source, text in [given[field.name]]
        }
        return cls(**values)

    @property
    def tls_files(self) -> TlsFiles | None:
        """The server's TLS files; None: without TLS."""
        if not self.tls_certificate:
            return None
        return TlsFiles(self.tls_certificate, self.tls_key, self.tls_client_ca, "tls_client_ca")

    @property
    def is_exposed(self) -> bool:
        """True if other machines may call us, and without TLS."""
        return not _is_loopback(self.host) and not self.tls_certificate

    @property
    def with_torch(self) -> bool:
        """True if torch is to compute."""
        return False

    @property
    def admin_address(self) -> tuple[str, int] | None:
        """Host and port of `admin`; None: there is none."""
        host, _, port = self.admin.rpartition(":")
        return (host.strip("[]"), int(port)) if self.admin else None

    @property
    def reachable_host(self) -> str:
        """A name others can reach us by: `host`, or this machine's name if that means all."""
        return socket.gethostname() if self.host in _EVERYWHERE else self.host

    @staticmethod
    def filled_in(name: str, template: str) -> str:
        """Return an address with this machine's name or IPv4 address put in.

        Args:
            name: The setting it comes from.
            template: It may hold {hostname}, or {address}, which has dashes as in the names that
                Kubernetes gives to pods.

        Raises:
            ConfigurationError: Something else stands in braces, or we have no address.
        """
        filled = template.replace("{hostname}", socket.gethostname())
        if "{address}" in filled:
            filled = filled.replace("{address}", _own_address(name).replace(".", "-"))
        if "{" in filled or "}" in filled:
            raise ConfigurationError(
                f"{name}: must hold nothing but {{hostname}} or {{address}} in braces,"
                f" got {template!r}"
            )
        return filled

    def describe(self) -> dict[str, Any]:
        """Return all settings as JSON-ready values, to be printed at start."""
        return dataclasses.asdict(self)

    def _check_admin(self) -> None:
        if not self.admin:
            return
        host, _, port = self.admin.rpartition(":")
        if not host or not port.isdecimal() or int(port) > 65535:
            raise ConfigurationError(f"admin: must be host:port, got {self.admin!r}")
        if not _is_loopback(host) and not self.tls_client_ca:
            raise ConfigurationError(
                "admin: must be on a loopback address unless tls_client_ca says who may call, got"
                f" {self.admin!r}"
            )
        if not self.models:
            raise ConfigurationError("admin: needs models, the folder that they are loaded from")

    def _check_tls(self) -> None:
        TlsFiles(self.tls_certificate, self.tls_key)
        if self.tls_client_ca and not self.tls_certificate:
            raise ConfigurationError(
                "tls_client_ca: needs tls_certificate and tls_key; without TLS no caller shows a"
                f" certificate, got {self.tls_client_ca!r}"
            )


def _is_loopback(host: str) -> bool:
    return host in ("localhost", "::1", "[::1]") or host.startswith("127.")


def _own_address(name: str) -> str:
    try:
        return socket.gethostbyname(socket.gethostname())
    except OSError as error:
        raise ConfigurationError(
            f"{name}: {{address}} is not known, as the name of this machine,"
            f" {socket.gethostname()!r}, does not resolve: {error}"
        ) from error


def _check_range(field: dataclasses.Field[Any], value: Any) -> None:
    least, most = field.metadata["at_least"], field.metadata["at_most"]
    if least is None or (least <= value <= most and value != math.inf):
        return
    rule = f"at least {least}" if most == math.inf else f"{least} to {most}"
    raise ConfigurationError(f"{field.name}: must be finite and {rule}, got {value!r}")


def _from_environment(
    cls: type[Settings], environment: Mapping[str, str]
) -> dict[str, tuple[str, str]]:
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


def _from_flags(cls: type[Settings], arguments: Sequence[str]) -> dict[str, tuple[str, str]]:
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
