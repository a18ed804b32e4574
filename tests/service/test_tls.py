"""TLS and mutual TLS: callers, the decoder's calls, renewed files, and what is refused."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from decoder_service.service import DecoderService
from encoder_service.service import EncoderService
from splitformer.errors import ConfigurationError, NotFoundError, UnavailableError
from splitformer.validity import valid_until
from splitformer_client import Tls, aio, connect
from tests.conftest import Services
from tests.support.certificates import Authority, Pair
from tests.support.rpc import eventually
from tests.support.servers import Running, ServerThread

TEXT = "Open the file."


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def server(authority: Authority) -> Pair:
    return authority.pair("server")


@pytest.fixture(scope="module")
def caller(authority: Authority) -> Pair:
    return authority.pair("caller")


@dataclass(frozen=True)
class Secured:
    """Both services and what a client needs to reach them."""

    encoder: Running[EncoderService]
    decoder: Running[DecoderService]

    @property
    def addresses(self) -> tuple[str, str]:
        return self.encoder.address, self.decoder.address


def started(
    servers: ServerThread, model: Path, own: dict[str, str], towards_encoder: dict[str, Any]
) -> Secured:
    encoder = servers.start_encoder(model, **own, inline_bytes=0)
    return Secured(encoder, servers.start_decoder(model, encoder, **own, **towards_encoder))


@pytest.fixture
def plain_tls(
    servers: ServerThread, tiny_model: Path, authority: Authority, server: Pair
) -> Secured:
    """Servers that ask callers for nothing."""
    own = {"tls_certificate": str(server.certificate), "tls_key": str(server.key)}
    hop = {"encoder_tls": True, "encoder_ca": str(authority.certificate)}
    return started(servers, tiny_model, own, hop)


@pytest.fixture
def mutual_tls(
    servers: ServerThread, tiny_model: Path, authority: Authority, server: Pair
) -> Secured:
    """Servers that ask callers for a certificate, the decoder's call to the encoder included."""
    own = {"tls_certificate": str(server.certificate), "tls_key": str(server.key)}
    own["tls_client_ca"] = str(authority.certificate)
    hop = {"encoder_tls": True, "encoder_ca": str(authority.certificate)}
    return started(servers, tiny_model, own, hop)


def of(authority: Authority, pair: Pair | None = None) -> Tls:
    certificate, key = (str(pair.certificate), str(pair.key)) if pair else ("", "")
    return Tls(ca=str(authority.certificate), certificate=certificate, key=key)


def translated(secured: Secured, tls: Tls | bool) -> str:
    with connect(*secured.addresses, tls=tls, timeout=20) as client:
        return client.translate(TEXT, "de", max_new_tokens=4)[0].text


# --- what works


def test_a_memory_goes_from_encoder_to_decoder_over_tls(
    plain_tls: Secured, authority: Authority
) -> None:
    assert translated(plain_tls, of(authority))
    opened = "splitformer_decoder_sessions_opened_total"
    assert plain_tls.decoder.metric(opened, route="reference") == 1


def test_mutual_tls_on_every_connection(
    mutual_tls: Secured, authority: Authority, caller: Pair
) -> None:
    assert translated(mutual_tls, of(authority, caller))


def test_a_decoder_gets_a_memory_only_with_a_lease_of_its_owner(
    mutual_tls: Secured, authority: Authority, caller: Pair
) -> None:
    came = "splitformer_decoder_memory_transfers_total"
    with connect(*mutual_tls.addresses, tls=of(authority, caller), timeout=20) as client:
        memory = client.encode(TEXT, delivery="reference")
        for _ in range(2):  # in chunks, then by shared memory
            client.open_session(memory, language="de").close()
        assert memory.reference
        memory.reference.lease.lease_id = "0" * 32
        with pytest.raises(NotFoundError):
            client.open_session(memory, language="de")
    paths = [mutual_tls.decoder.metric(came, path=path) for path in ("chunks", "shared")]
    assert paths == [1, 1]


async def test_the_asynchronous_client_and_variables(
    mutual_tls: Secured, authority: Authority, caller: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, path in tls_variables(authority, caller).items():
        monkeypatch.setenv(name, path)
    async with aio.connect(*mutual_tls.addresses, timeout=20) as client:
        assert (await client.encoder_info()).name
    monkeypatch.setenv("SPLITFORMER_TLS", "false")
    async with aio.connect(*mutual_tls.addresses, timeout=20) as client:
        with pytest.raises(UnavailableError):
            await client.encoder_info()


def tls_variables(authority: Authority, pair: Pair) -> dict[str, str]:
    return {
        "SPLITFORMER_TLS_CA": str(authority.certificate),
        "SPLITFORMER_TLS_CERTIFICATE": str(pair.certificate),
        "SPLITFORMER_TLS_KEY": str(pair.key),
    }


@pytest.mark.parametrize("command", [("health",), ("info",), ("translate", "-t", "de", TEXT)])
def test_every_command_takes_files_from_variables_and_options(
    mutual_tls: Secured, authority: Authority, caller: Pair, command: tuple[str, ...]
) -> None:
    encoder, decoder = mutual_tls.addresses
    addresses = {"SPLITFORMER_ENCODER": encoder, "SPLITFORMER_DECODER": decoder}
    variables = tls_variables(authority, caller)
    options = [
        f"--{name.removeprefix('SPLITFORMER_').lower().replace('_', '-')}={value}"
        for name, value in variables.items()
    ]
    assert run(*command, environment=addresses | variables).returncode == 0
    assert run(*command, *options, environment=addresses).returncode == 0
    assert run(*command, environment=addresses).returncode == 1


def run(*arguments: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "splitformer_client", *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **environment},
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )


# --- what is refused


def test_callers_without_tls_or_trust_are_refused(
    plain_tls: Secured, tmp_path: Path, authority: Authority
) -> None:
    for tls in (False, of(Authority(tmp_path))):
        with pytest.raises(UnavailableError, match="encoder 127"):
            translated(plain_tls, tls)
    assert translated(plain_tls, of(authority))


def test_callers_without_a_certificate_or_with_a_strangers_are_refused(
    mutual_tls: Secured, tmp_path: Path, authority: Authority
) -> None:
    stranger = Authority(tmp_path).pair("stranger")
    for tls in (of(authority), of(authority, stranger)):
        with pytest.raises(UnavailableError):
            translated(mutual_tls, tls)


def test_a_decoder_that_does_not_trust_the_encoder_pulls_nothing(
    servers: ServerThread, tiny_model: Path, authority: Authority, server: Pair, tmp_path: Path
) -> None:
    own = {"tls_certificate": str(server.certificate), "tls_key": str(server.key)}
    hop = {"encoder_tls": True, "encoder_ca": str(Authority(tmp_path).certificate)}
    with pytest.raises(UnavailableError) as caught:
        translated(started(servers, tiny_model, own, hop), of(authority))
    assert caught.value.reason == "ENCODER_UNREACHABLE"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"certificate": "absent.pem"}, "tls_certificate: '.*absent.pem' cannot be read: No such"),
        ({"key": "absent.key"}, "tls_key: '.*absent.key' cannot be read: No such file"),
        ({"key": "."}, "tls_key: '.*' cannot be read: Is a directory"),
        ({"key": "ca.key"}, "tls_key: '.*ca.key' is not the key of tls_certificate '.*server.pem'"),
        ({"certificate": "names"}, "tls_certificate: '.*names' and tls_key '.*' must hold a PEM"),
        ({"ca": "absent.pem"}, "tls_ca: '.*absent.pem' cannot be read: No such file"),
        ({"ca": "names"}, "tls_ca: '.*names' must hold PEM certificates"),
    ],
)
def test_unusable_files_of_a_client_are_named(
    authority: Authority, server: Pair, change: dict[str, str], message: str
) -> None:
    folder = server.key.parent
    files = {"ca": "ca.pem", "certificate": "server.pem", "key": "server.key"} | change
    with pytest.raises(ConfigurationError, match=message):
        connect("a:1", "b:1", tls=Tls(**{name: str(folder / file) for name, file in files.items()}))


def test_one_file_of_a_pair_is_not_enough() -> None:
    with pytest.raises(ConfigurationError, match="tls_key: must be given with tls_certificate"):
        Tls(certificate="x")
    with pytest.raises(ConfigurationError, match="tls_certificate: must be given with tls_key"):
        Tls(key="x")


def test_a_variable_that_is_no_switch_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPLITFORMER_TLS", "perhaps")
    with pytest.raises(ConfigurationError, match="SPLITFORMER_TLS: must be true or false, got 'pe"):
        connect("a:1", "b:1")


def test_an_expired_certificate_is_refused_and_named(tmp_path: Path) -> None:
    pair = Authority(tmp_path).pair("old", days=-1)
    with pytest.raises(
        ConfigurationError, match=r"tls_certificate: '.*old.pem' must be valid, it ex"
    ):
        connect("a:1", "b:1", tls=Tls(certificate=str(pair.certificate), key=str(pair.key)))


@pytest.mark.parametrize("days", [1, 20_000])  # written in two forms, before 2050 and after
def test_when_a_certificate_expires_is_read_as_openssl_reads_it(tmp_path: Path, days: int) -> None:
    pair = Authority(tmp_path).pair("some", days=days)
    command = ["openssl", "x509", "-noout", "-enddate", "-in", str(pair.certificate)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    expected = ssl.cert_time_to_seconds(done.stdout.strip().removeprefix("notAfter="))
    assert valid_until(pair.certificate.read_bytes()).timestamp() == expected


def test_what_is_no_certificate_has_no_end() -> None:
    for text in (b"", b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----"):
        with pytest.raises(ValueError, match="certificate"):
            valid_until(text)


def test_a_server_tells_when_its_certificate_expires(
    plain_tls: Secured, server: Pair, services: Services
) -> None:
    metric = "splitformer_tls_certificate_expiry_timestamp_seconds"
    expected = valid_until(server.certificate.read_bytes()).timestamp()
    assert plain_tls.encoder.metric(metric) == plain_tls.decoder.metric(metric) == expected
    assert services.encoder.metric(metric) == 0


# --- renewal


def shown_certificate(running: Running[Any], authority: Authority) -> Any:
    """The subject of the certificate that a server shows."""
    context = ssl.create_default_context(cafile=str(authority.certificate))
    host, port = running.address.split(":")
    with (
        socket.create_connection((host, int(port)), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        return connection.getpeercert()["subject"]  # type: ignore[index]


def test_renewed_files_are_shown_to_the_next_caller_and_half_renewed_ones_are_not(
    servers: ServerThread, tiny_model: Path, authority: Authority
) -> None:
    first, second = authority.pair("first"), authority.pair("second")
    names = {"first": ((("commonName", "first"),),), "second": ((("commonName", "second"),),)}
    running = servers.start_encoder(
        tiny_model, tls_certificate=str(first.certificate), tls_key=str(first.key)
    )
    assert shown_certificate(running, authority) == names["first"]
    old_key = first.key.read_bytes()
    first.renew_from(second)
    new_key = first.key.read_bytes()
    first.key.write_bytes(old_key)  # the key has not come yet
    assert shown_certificate(running, authority) == names["first"]
    first.key.write_bytes(new_key)
    assert shown_certificate(running, authority) == names["second"]


def test_a_decoder_takes_up_renewed_authorities_for_its_calls(
    servers: ServerThread, tiny_model: Path, authority: Authority, server: Pair, tmp_path: Path
) -> None:
    other = Authority(tmp_path)
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(other.certificate.read_bytes())
    own = {"tls_certificate": str(server.certificate), "tls_key": str(server.key)}
    secured = started(servers, tiny_model, own, {"encoder_tls": True, "encoder_ca": str(trusted)})
    with pytest.raises(UnavailableError):
        translated(secured, of(authority))
    fresh = tmp_path / "fresh.pem"
    fresh.write_bytes(authority.certificate.read_bytes() + other.certificate.read_bytes())
    fresh.replace(trusted)
    assert translated(secured, of(authority))
    eventually(lambda: not secured.decoder.service.common.puller._channels._leaving)
