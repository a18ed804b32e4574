"""Settings of the services: flags, variables, units, ranges; nothing wrong is swallowed."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass, fields
from typing import Any

import pytest

from decoder_service.settings import DecoderSettings
from encoder_service.settings import EncoderSettings
from splitformer.errors import ConfigurationError
from splitformer.serving.configuration import parse_size, setting
from splitformer.serving.settings import Settings

KINDS = pytest.mark.parametrize("kind", [EncoderSettings, DecoderSettings])


@dataclass(frozen=True, kw_only=True)
class Sample(Settings):
    """Settings with one of each type."""

    flag: bool = setting(False, "A switch at 100 %.")
    ratio: float = setting(0.5, "A number.", at_least=0, at_most=1)
    names: tuple[str, ...] = setting((), "Some names.")


def test_defaults_hold_where_nothing_is_said() -> None:
    assert EncoderSettings.read([], {}) == EncoderSettings()
    assert EncoderSettings.read([], {"PATH": "/bin", "SPLITFORMER_DECODER_X": "1"}).port == 50051


def test_flags_win_over_variables() -> None:
    environment = {"SPLITFORMER_ENCODER_PORT": "1", "SPLITFORMER_ENCODER_THREADS": "3"}
    read = EncoderSettings.read(["--port", "2"], environment)
    assert (read.port, read.threads) == (2, 3)


@KINDS
def test_every_setting_can_be_given_both_ways(kind: type[Settings]) -> None:
    defaults = kind().describe()
    for field in fields(kind):
        value = defaults[field.name]
        text = ",".join(value) if isinstance(value, tuple) else str(value)
        flags = [f"--{field.name.replace('_', '-')}={text}"]
        assert kind.read(flags, {}) == kind()
        assert kind.read([], {kind.prefix + field.name.upper(): text}) == kind()


def test_types_are_read() -> None:
    read = Sample.read(["--flag", "yes", "--ratio", "1e-1", "--names", " a, b ,,"], {})
    assert (read.flag, read.ratio, read.names) == (True, 0.1, ("a", "b"))
    assert EncoderSettings.read(["--memory-bytes", "2 GiB"], {}).memory_bytes == 2**31


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--flag", "maybe"], "--flag: must be a valid bool, got 'maybe'"),
        (["--ratio", "half"], "--ratio: must be a valid float, got 'half'"),
        (["--ratio", "1.1"], "ratio: must be finite and 0 to 1, got 1.1"),
        (["--ratio", "nan"], "ratio: must be finite and 0 to 1, got nan"),
        (["--drain-seconds", "inf"], "drain_seconds: must be finite and at least 0, got inf"),
        (["--threads", "0"], "threads: must be finite and at least 1, got 0"),
        (["--threads", "1.5"], "--threads: must be a valid int, got '1.5'"),
        (["--event-loop", "trio"], "event_loop: must be one of auto, asyncio, uvloop, got 'trio'"),
        (["--port", "65536"], "port: must be finite and 0 to 65535, got 65536"),
        (["--max-message-bytes", "9"], "max_message_bytes: must be finite and at least 65536"),
        (["--drain", "1"], "unrecognized arguments: --drain 1"),
        (["extra"], "unrecognized arguments: extra"),
    ],
)
def test_what_is_wrong_is_named(flags: list[str], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Sample.read(flags, {})
    assert str(caught.value).startswith(message)


def test_an_unknown_variable_of_ours_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="SPLITFORMER_ENCODER_PRT: no such setting"):
        EncoderSettings.read([], {"SPLITFORMER_ENCODER_PRT": "1"})


@KINDS
def test_service_links_of_kubernetes_are_no_settings(kind: type[Settings]) -> None:
    links = {
        "SERVICE_HOST": "10.0.0.1",
        "SERVICE_PORT": "50051",
        "SERVICE_PORT_GRPC": "50051",
        "PORT": "tcp://10.0.0.1:50051",
        "PORT_50051_TCP": "tcp://10.0.0.1:50051",
        "PORT_50051_TCP_PROTO": "tcp",
        "PORT_50051_TCP_PORT": "50051",
        "PORT_50051_TCP_ADDR": "10.0.0.1",
        "METRICS_PORT": "tcp://10.0.0.1:9101",
        "HEADLESS_SERVICE_HOST": "10.0.0.1",
    }
    assert kind.read([], {kind.prefix + name: text for name, text in links.items()}) == kind()
    with pytest.raises(ConfigurationError, match="PORT_X: no such setting"):
        kind.read([], {kind.prefix + "PORT_X": "tcp://10.0.0.1:50051"})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"tls_key": "k"}, "tls_certificate: must be given with tls_key, got an empty name"),
        ({"tls_certificate": "c"}, "tls_key: must be given with tls_certificate"),
        ({"tls_client_ca": "a"}, "tls_client_ca: needs tls_certificate and tls_key"),
        ({"encoder_ca": "a"}, "encoder_ca: needs encoder_tls to be true, got 'a'"),
    ],
)
def test_tls_settings_that_do_not_fit_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        DecoderSettings(**given)


@KINDS
def test_values_are_checked_however_they_come(kind: Any) -> None:
    with pytest.raises(ConfigurationError, match="port"):
        kind(port=-1)
    with pytest.raises(ConfigurationError, match="memory_dtype: must be one of f32, f16"):
        kind(memory_dtype="f64")
    with pytest.raises(ConfigurationError, match="log_level"):
        kind(log_level="verbose")


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("7", 7), ("7B", 7), ("1kb", 1000), (" 2 MiB ", 2**21), ("1GiB", 2**30)],
)
def test_sizes_are_read(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MiB", "-1", "1.5GiB", "1 TB", "1e6", "0x10"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        parse_size(text)


@pytest.mark.parametrize(("host", "reachable"), [("127.0.0.1", "127.0.0.1"), ("::", None)])
def test_a_server_that_listens_everywhere_is_reached_by_name(
    host: str, reachable: str | None
) -> None:
    assert EncoderSettings(host=host).reachable_host == (reachable or socket.gethostname())


def test_an_address_may_hold_our_name_or_our_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "pod-1")
    monkeypatch.setattr(socket, "gethostbyname", {"pod-1": "10.1.2.3"}.__getitem__)
    filled = Settings.filled_in
    assert filled("advertise", "{hostname}.splitformer:1") == "pod-1.splitformer:1"
    assert filled("endpoint", "{address}.decoders.svc:1") == "10-1-2-3.decoders.svc:1"
    assert filled("advertise", "encoder:1") == "encoder:1"
    assert filled("advertise", "") == ""


def test_anything_else_in_braces_is_refused_at_start() -> None:
    rule = r"must hold nothing but \{hostname\} or \{address\} in braces, got "
    with pytest.raises(ConfigurationError, match=f"^advertise: {rule}'{{host}}:1'$"):
        EncoderSettings(advertise="{host}:1")
    with pytest.raises(ConfigurationError, match=f"^endpoint: {rule}'{{hostname:1'$"):
        DecoderSettings(endpoint="{hostname:1")


def test_an_address_that_nobody_knows_is_told_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(name: str) -> str:
        raise OSError("no such host")

    monkeypatch.setattr(socket, "gethostbyname", unknown)
    with pytest.raises(ConfigurationError, match=r"^advertise: \{address\} is not known, as"):
        EncoderSettings(advertise="{address}:1")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--admin", "127.0.0.1:0"], "admin: needs models"),
        (["--admin", "50061"], "admin: must be host:port, got '50061'"),
        (["--admin", "localhost:high"], "admin: must be host:port"),
        (["--admin", "0.0.0.0:1", "--models", "m"], "admin: must be on a loopback address"),
    ],
)
def test_administration_is_for_this_machine_or_for_known_callers(
    flags: list[str], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        EncoderSettings.read(flags, {})
    read = EncoderSettings.read(["--admin", "[::1]:50061", "--models", "m"], {})
    assert read.admin_address == ("::1", 50061)
    assert EncoderSettings.read([], {}).admin_address is None
