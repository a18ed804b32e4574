"""Identical sources of one authenticated caller share a memory; nobody else's do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from encoder_service.service import EncoderService
from splitformer.errors import NotFoundError
from splitformer_client import Client, Memory, Tls, connect
from tests.conftest import Services
from tests.support.certificates import Authority, Pair
from tests.support.rpc import eventually
from tests.support.servers import Running, ServerThread

TEXT = "Open the file."
REUSED = "splitformer_encoder_reused_sources_total"
ENCODED = "splitformer_encoder_sources_total"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def encoder(
    servers: ServerThread, tiny_model: Path, authority: Authority
) -> Running[EncoderService]:
    """An encoder that asks callers for certificates."""
    own = authority.pair("server")
    return servers.start_encoder(
        tiny_model,
        tls_certificate=str(own.certificate),
        tls_key=str(own.key),
        tls_client_ca=str(authority.certificate),
    )


class Callers:
    """Clients with a certificate each."""

    def __init__(self, authority: Authority, address: str) -> None:
        self._authority = authority
        self._address = address
        self._clients: list[Client] = []
        self._pairs: dict[str, Pair] = {}

    def of(self, name: str) -> Client:
        if name not in self._pairs:
            self._pairs[name] = self._authority.pair(name)
        pair = self._pairs[name]
        tls = Tls(
            ca=str(self._authority.certificate),
            certificate=str(pair.certificate),
            key=str(pair.key),
        )
        self._clients.append(connect(self._address, tls=tls, timeout=20))
        return self._clients[-1]

    def close(self) -> None:
        for client in self._clients:
            client.close()


@pytest.fixture
def callers(authority: Authority, encoder: Running[EncoderService]) -> Iterator[Callers]:
    made = Callers(authority, encoder.address)
    yield made
    made.close()


def kept(client: Client, source: str | list[int] = TEXT) -> Memory:
    return client.encode(source, delivery="reference")


def test_the_same_source_of_the_same_caller_is_encoded_once(
    callers: Callers, encoder: Running[EncoderService]
) -> None:
    first, second = callers.of("ann"), callers.of("ann")
    before = encoder.metric(ENCODED)
    memories = [kept(first), kept(first), kept(second)]
    assert len({memory.id for memory in memories}) == 1
    leases = {memory.reference.lease.lease_id for memory in memories if memory.reference}
    assert len(leases) == 3, "each holder has a lease of its own"
    assert encoder.metric(ENCODED) == before + 1
    assert encoder.metric(REUSED) == 2
    for left, memory in zip((2, 1, 0), memories, strict=True):
        assert first.release(memory) == left
    assert kept(first).id != memories[0].id, "what has gone is encoded again"


def test_callers_share_nothing_with_each_other(
    callers: Callers, encoder: Running[EncoderService]
) -> None:
    ann, bob = kept(callers.of("ann")), kept(callers.of("bob"))
    assert ann.id != bob.id, "although both certificates name the same host"
    assert encoder.metric(REUSED) == 0


def test_bulk_jobs_share_too(callers: Callers, encoder: Running[EncoderService]) -> None:
    client = callers.of("ann")
    memory = kept(client)
    (again,) = client.encode_many([TEXT], delivery="reference")
    assert again.result().id == memory.id
    assert encoder.metric(REUSED) == 1


@pytest.mark.parametrize("other", ["Open the file!", [5, 6, 1]])
def test_other_sources_have_memories_of_their_own(callers: Callers, other: str | list[int]) -> None:
    client = callers.of("ann")
    assert kept(client).id != kept(client, other).id


def test_the_same_tokens_with_and_without_their_text_are_told_apart(callers: Callers) -> None:
    client = callers.of("ann")
    text = kept(client)
    ids = [token.id for token in text.header.source_tokens]
    tokens = kept(client, ids)
    assert tokens.id != text.id
    assert [token.end for token in tokens.header.source_tokens] == [0] * len(ids)
    assert (text.text, tokens.text) == (TEXT, "")


def test_an_expired_memory_is_not_shared(
    callers: Callers, encoder: Running[EncoderService]
) -> None:
    client = callers.of("ann")
    memory = client.encode(TEXT, delivery="reference", lease=0.001)
    eventually(lambda: encoder.service.store.leases == 0)
    assert kept(client).id != memory.id
    with pytest.raises(NotFoundError):
        client.fetch(memory)


def test_a_memory_is_as_if_unknown_to_other_callers(callers: Callers) -> None:
    ann, bob = callers.of("ann"), callers.of("bob")
    memory = kept(ann)
    for foreign in (bob.fetch, bob.renew, bob.release):
        with pytest.raises(NotFoundError) as caught:
            foreign(memory)
        assert caught.value.reason == "MEMORY_NOT_FOUND"
    assert ann.fetch(ann.renew(memory)).is_local
    assert ann.release(memory) == 0


def test_anonymous_callers_share_nothing(services: Services) -> None:
    with connect(services.encoder.address) as client:
        memories = [kept(client), kept(client)]
        assert memories[0].id != memories[1].id
        for memory in memories:
            client.release(memory)
    assert services.encoder.metric(REUSED) == 0
