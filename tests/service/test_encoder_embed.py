"""One pooled vector for a source: over the wire, in the client and from the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import grpc
import numpy as np
import pytest

import splitformer_client
from splitformer import wire
from splitformer.errors import InvalidArgumentError
from splitformer.v1 import encoder_service_pb2 as enc, tensor_pb2
from splitformer.wire import FloatArray
from tests.conftest import Services
from tests.support.rpc import TEXT, Caller, refused

INVALID = grpc.StatusCode.INVALID_ARGUMENT


def vector_of(answer: enc.EmbedResponse) -> FloatArray:
    vector = answer.vector
    assert vector.dtype == tensor_pb2.DATA_TYPE_F32
    return wire.unpack(wire.tensor_bytes(vector), vector.dtype, vector.shape)


def mean_of_memory(caller: Caller, text: str) -> FloatArray:
    header, data = caller.memory(text)
    rows = wire.unpack(data, header.dtype, header.shape)
    mean: FloatArray = rows.mean(axis=0, dtype=np.float64).astype(np.float32)
    return mean


@pytest.mark.parametrize("pooling", [enc.POOLING_UNSPECIFIED, enc.POOLING_MEAN])
def test_the_vector_is_the_mean_of_the_memory(
    caller: Caller, pooling: enc.Pooling.ValueType
) -> None:
    request = enc.EmbedRequest(source=enc.Source(text=TEXT), pooling=pooling)
    answer = caller.encoder.Embed(request)
    assert answer.vector.shape == [32]
    np.testing.assert_array_equal(vector_of(answer), mean_of_memory(caller, TEXT))
    assert answer.timings.encode_seconds > 0


def test_tokens_are_embedded_as_text_is(caller: Caller) -> None:
    ids = [token.id for token in caller.memory()[0].source_tokens]
    source = enc.Source(tokens=enc.TokenIds(ids=ids))
    vector = vector_of(caller.encoder.Embed(enc.EmbedRequest(source=source)))
    np.testing.assert_array_equal(vector, mean_of_memory(caller, TEXT))


def test_a_pooling_that_the_model_lacks_is_refused(caller: Caller) -> None:
    request = enc.EmbedRequest(source=enc.Source(text=TEXT), pooling=enc.POOLING_CLS)
    with refused(INVALID, "BAD_POOLING", "pooling", "POOLING_CLS"):
        caller.encoder.Embed(request)
    unknown: enc.Pooling.ValueType = 99  # type: ignore[assignment]
    request = enc.EmbedRequest(source=enc.Source(text=TEXT), pooling=unknown)
    with refused(INVALID, "BAD_POOLING", "pooling", 99):
        caller.encoder.Embed(request)


def test_a_bad_source_is_refused_as_it_is_by_encode(caller: Caller) -> None:
    with refused(INVALID, "EMPTY_SOURCE", "source.text", " "):
        caller.encoder.Embed(enc.EmbedRequest(source=enc.Source(text=" ")))
    with refused(INVALID, "EMPTY_SOURCE", "source", None):
        caller.encoder.Embed(enc.EmbedRequest())


def test_the_client_embeds(caller: Caller, services: Services) -> None:
    with splitformer_client.connect(services.encoder.address) as client:
        vector = client.embed(TEXT)
        np.testing.assert_array_equal(vector, client.embed(TEXT, pooling="mean"))
        np.testing.assert_array_equal(vector, mean_of_memory(caller, TEXT))
        with pytest.raises(InvalidArgumentError, match="no CLS row"):
            client.embed(TEXT, pooling="cls")
        with pytest.raises(InvalidArgumentError, match="pooling: must be one of"):
            client.embed(TEXT, pooling="max")  # type: ignore[arg-type]


def test_the_command_writes_a_vector_per_source(caller: Caller, services: Services) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    environment["SPLITFORMER_ENCODER"] = services.encoder.address

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "splitformer_client", "embed", *arguments]
        return subprocess.run(
            command,
            input=f"{TEXT}\n\nSave it.\n",
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=environment,
        )

    lines = [json.loads(line) for line in run().stdout.splitlines()]
    assert [line["source"] for line in lines] == [TEXT, "Save it."]
    for line in lines:
        expected = mean_of_memory(caller, line["source"])
        np.testing.assert_array_equal(np.array(line["vector"], np.float32), expected)
    refusal = run("--pooling", "cls", TEXT)
    assert refusal.returncode == 1
    assert "(BAD_POOLING)" in refusal.stderr
