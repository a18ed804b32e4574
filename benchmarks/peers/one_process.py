"""Our two services' engines in one process, behind one gRPC server.

It answers both services' RPCs, with memories that stay where they are, and one streaming RPC of its
own. That one has the same models, engines, sessions, interceptor and token messages as the two
services; what is missing is what the split adds: a second process, the RPCs that open a session,
and the memory's way from one to the other.

Usage: `python -m benchmarks.peers.one_process MODEL`; prints its port.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import grpc
import numpy as np
from grpc import aio

from decoder_service import messages
from decoder_service.beginnings import CheckHeader, Way
from decoder_service.hand_off import MemoryPuller
from decoder_service.opening import Wish
from decoder_service.service import DecoderService
from decoder_service.servicer import register as register_decoder
from decoder_service.settings import DecoderSettings
from encoder_service.service import EncoderService
from encoder_service.servicer import register as register_encoder
from encoder_service.settings import EncoderSettings
from splitformer import wire
from splitformer.generation import GenerationOptions
from splitformer.serving.process import loop_factory, settle
from splitformer.serving.server import Server
from splitformer.serving.telemetry import Telemetry
from splitformer.v1 import decoder_service_pb2 as pb, model_pb2, tensor_pb2

NAME = "splitformer.benchmarks.OneProcess"
METHOD = f"/{NAME}/Translate"


class HereAlready:
    """In place of the decoder's puller: takes memories out of the encoder's store."""

    def __init__(self, encoder: EncoderService) -> None:
        self._encoder = encoder

    def check_endpoint(self, endpoint: str) -> None:
        """Accept any: there is only one encoder."""

    async def pull(
        self, reference: tensor_pb2.MemoryReference, check_header: CheckHeader
    ) -> tuple[tensor_pb2.MemoryHeader, wire.Buffer]:
        """Return a memory's header and the encoder's own bytes."""
        memory = self._encoder.store.get(reference.memory_id)
        check_header(memory.header)
        return memory.header, memory.segment.data

    async def close(self) -> None:
        """Nothing is held."""


class OneProcess:
    """Both services as one `splitformer.serving.server.Service`."""

    names = (*EncoderService.names, *DecoderService.names)
    models = None

    def __init__(self, model: str, language: str, telemetry: Telemetry) -> None:
        self.encoder = EncoderService(EncoderSettings(model=model), telemetry)
        self.decoder = DecoderService(DecoderSettings(model=model), telemetry)
        self.decoder.common.puller = cast(MemoryPuller, HereAlready(self.encoder))
        self._language = language

    async def start(self, port: int) -> None:
        """Load both halves."""
        await self.encoder.start(port)
        await self.decoder.start(port)

    def info(self) -> model_pb2.ModelInfo:
        """Describe the decoder's half."""
        return self.decoder.info()

    def drain(self) -> None:
        """Take nothing more."""
        self.encoder.drain()
        self.decoder.drain()

    @property
    def busy(self) -> bool:
        """True while either is."""
        return self.encoder.busy or self.decoder.busy

    async def close(self) -> None:
        """Stop both engines."""
        await self.decoder.close()
        await self.encoder.close()

    async def translate(self, request: bytes, context: Any) -> AsyncIterator[pb.GenerateResponse]:
        """Encode, open, generate, as the two servicers do."""
        count, *ids = np.frombuffer(request, "<i4").tolist()
        pieces = self.encoder.sources.accept_tokens(ids, "", "")
        source = await self.encoder.encode(pieces, keep_pieces=False)

        async def transfer(check: CheckHeader) -> tuple[tensor_pb2.MemoryHeader, wire.Buffer]:
            check(source.header)
            return source.header, source.encoded.memory.data

        opened = await self.decoder.open(Wish(self._language), "", Way("upload", transfer))
        options = GenerationOptions(max_new_tokens=count or None, min_new_tokens=count)
        parts = self.decoder.generating.generate(opened.session.id, options, close_on_end=True)
        async for part in parts:
            yield messages.part_message(part, pb.GenerateResponse())


def register(service: OneProcess, server: aio.Server) -> None:
    """Add both services and the one method."""
    register_encoder(service.encoder, server)
    register_decoder(service.decoder, server)
    handler: grpc.RpcMethodHandler[Any, Any] = grpc.unary_stream_rpc_method_handler(
        service.translate, bytes, _token_or_nothing
    )
    generic = grpc.method_handlers_generic_handler(NAME, {"Translate": handler})
    server.add_generic_rpc_handlers([generic])


def _token_or_nothing(message: pb.GenerateResponse) -> bytes:
    """Write a token's message; the end is an empty one, which clients skip."""
    return message.SerializeToString() if message.HasField("tokens") else b""


async def serve(model: str, language: str) -> None:
    """Serve until killed."""
    telemetry = Telemetry()
    settings = DecoderSettings(model=model, port=0, metrics_port=0)
    service = OneProcess(model, language, telemetry)
    server = Server(settings, service, register, telemetry)
    await server.start()
    settle()
    print(server.port, flush=True)
    await asyncio.Event().wait()


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--language", required=True)
    options = parser.parse_args()
    with asyncio.Runner(loop_factory=loop_factory("auto")) as runner:
        runner.run(serve(options.model, options.language))


if __name__ == "__main__":
    main()
