"""Either side, or a client, is killed: one lease time later everything is free again."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from splitformer.serving.local import LocalServices, Ports
from splitformer.v1 import decoder_service_pb2 as dec, encoder_service_pb2 as enc, tensor_pb2
from splitformer.v1.decoder_service_pb2_grpc import DecoderServiceStub
from splitformer.v1.encoder_service_pb2_grpc import EncoderServiceStub
from tests.support.checkpoints import make_checkpoint
from tests.support.rpc import TEXT, collected, eventually

LONG = " ".join([TEXT] * 60)
"""Its memory takes seconds to fetch, a byte a message."""

CLIENT = """
import sys, time
from splitformer_client import connect
client = connect(*sys.argv[1:])
memory = client.encode("Open the file.", delivery="reference", lease=2.0)
session = client.open_session(memory, language="de")
print("holding", flush=True)
time.sleep(600)
"""


class Both:
    """Two services as processes, and raw calls to them."""

    failure: Any = None

    def __init__(self, services: LocalServices) -> None:
        self.services = services
        self.channels = [grpc.insecure_channel(a) for a in (services.encoder, services.decoder)]
        self.encoder = EncoderServiceStub(self.channels[0])
        self.decoder = DecoderServiceStub(self.channels[1])

    def kill(self, name: str) -> None:
        """End a service as a crash does."""
        os.kill(self.services.pids[name], signal.SIGKILL)

    def reference(self, lease_ms: int, text: str = TEXT) -> tensor_pb2.MemoryReference:
        request = enc.EncodeRequest(
            source=enc.Source(text=text),
            delivery=enc.MEMORY_DELIVERY_REFERENCE,
            lease_ms=lease_ms,
        )
        return self.encoder.Encode(request).reference

    def open(self, reference: tensor_pb2.MemoryReference) -> str:
        header = dec.SessionHeader(reference=reference, target_language="de")
        requests = iter([dec.OpenSessionRequest(header=header)])
        return self.decoder.OpenSession(requests).session_id

    def on_its_way(self, reference: tensor_pb2.MemoryReference) -> threading.Thread:
        """Open a session in a thread, until the memory is on its way; its failure is no news."""

        def opening() -> None:
            try:
                self.open(reference)
            except grpc.RpcError as error:
                self.failure = error

        thread = threading.Thread(target=opening)
        thread.start()
        eventually(lambda: self.leases() == 2)
        return thread

    def leases(self) -> int:
        return self._metric("splitformer_encoder_leases")

    def memory_bytes(self) -> int:
        return self._metric("splitformer_encoder_memory_bytes")

    def load(self) -> tuple[int, int]:
        """Sessions that the decoder holds, and its bytes."""
        load = self.decoder.GetLoad(dec.DecoderServiceGetLoadRequest()).load
        return load.held, load.used_bytes

    def _metric(self, name: str) -> int:
        page = f"http://127.0.0.1:{self.services.ports.encoder_metrics}/metrics"
        with urllib.request.urlopen(page) as answer:
            found = re.search(rf"^{name} (\S+)$", answer.read().decode(), re.MULTILINE)
        assert found, name
        return int(float(found[1]))


@pytest.fixture
def both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Both]:
    """Services whose memories take a while to fetch: every byte is a message."""
    monkeypatch.setenv("SPLITFORMER_ENCODER_CHUNK_BYTES", "1")
    monkeypatch.setenv("SPLITFORMER_ENCODER_LEASE_SECONDS", "1")
    model = make_checkpoint(tmp_path / "model", max_positions=1024)
    flags = ("--drain-seconds", "0.1")
    decoder_flags = ("--idle-seconds", "3", "--shared-memory", "false")
    with LocalServices(
        Ports.any(), str(model), tmp_path / "log", flags=flags, decoder_flags=decoder_flags
    ) as services:
        made = Both(services)
        yield made
        for channel in made.channels:
            channel.close()


def test_a_decoder_that_is_killed_while_fetching_strands_no_lease(both: Both) -> None:
    reference = both.reference(60_000, LONG)
    thread = both.on_its_way(reference)
    both.kill("decoder")
    thread.join()
    eventually(lambda: both.leases() == 1)
    both.encoder.ReleaseMemory(
        enc.ReleaseMemoryRequest(memory_id=reference.memory_id, lease_id=reference.lease.lease_id)
    )
    assert (both.leases(), both.memory_bytes()) == (0, 0)


def test_an_encoder_that_is_killed_fails_what_is_on_its_way_and_nothing_else(both: Both) -> None:
    session = both.open(both.reference(1000))
    eventually(lambda: both.leases() == 0)
    held, used = both.load()
    thread = both.on_its_way(both.reference(60_000, LONG))
    both.kill("encoder")
    thread.join()
    assert both.failure is not None
    assert both.failure.code() is grpc.StatusCode.UNAVAILABLE
    assert both.load() == (held, used)
    assert collected(both.decoder.Generate(dec.GenerateRequest(session_id=session))).tokens
    both.decoder.CloseSession(dec.CloseSessionRequest(session_id=session))
    assert both.load() == (0, 0)


def test_a_client_that_is_killed_strands_neither_memory_nor_session(both: Both) -> None:
    command = [sys.executable, "-c", CLIENT, both.services.encoder, both.services.decoder]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == "holding\n"
        assert both.load()[0] == 1
        client.kill()
    eventually(lambda: (both.leases(), both.memory_bytes()) == (0, 0))
    eventually(lambda: both.load() == (0, 0))
