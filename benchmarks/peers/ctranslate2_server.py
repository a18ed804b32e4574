"""CTranslate2 behind a `grpc.aio` server as thin as ours: ids in, one id per message out.

Without batching each request runs `generate_tokens`, CTranslate2's own token stream. With batching
the requests that wait are translated together by `translate_batch`, and a request's tokens come
when its batch is done; `--max-batch` and `--wait-ms` tune it.

Usage: `python -m benchmarks.peers.ctranslate2_server MODEL [--batching] …`; prints its port.
"""

from __future__ import annotations

import argparse
import asyncio
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ctranslate2
import grpc
import numpy as np
from grpc import aio

from benchmarks import event_loop
from benchmarks.peers.ctranslate2_model import token_names

METHOD = "/peer.Translator/Translate"
EOS = "</s>"
LONGEST = 256


class Direct:
    """Streams each request by itself."""

    def __init__(self, translator: Any, names: list[str], threads: int) -> None:
        self._translator = translator
        self._names = names
        self._threads = ThreadPoolExecutor(threads)

    async def translate(self, ids: list[int], count: int) -> AsyncIterator[int]:
        """Yield the target's ids as they are generated; stop when nobody listens any more."""
        loop, tokens = asyncio.get_running_loop(), asyncio.Queue[int | None]()
        given_up = threading.Event()

        def run() -> None:
            source = [self._names[i] for i in ids]
            if not given_up.is_set():
                for step in self._translator.generate_tokens(source, **lengths(count)):
                    loop.call_soon_threadsafe(tokens.put_nowait, step.token_id)
                    if given_up.is_set():
                        break
            loop.call_soon_threadsafe(tokens.put_nowait, None)

        loop.run_in_executor(self._threads, run)
        try:
            while (token := await tokens.get()) is not None:
                yield token
        finally:
            given_up.set()


class Batching:
    """Collects the requests that wait and translates them together."""

    def __init__(
        self, translator: Any, names: list[str], most: int, wait: float, workers: int
    ) -> None:
        self._translator = translator
        self._workers = workers
        self._names = names
        self._index = {name: i for i, name in enumerate(names)}
        self._most = most
        self._wait = wait
        self._waiting: asyncio.Queue[tuple[list[int], int, asyncio.Future[list[int]]]]
        self._waiting = asyncio.Queue()
        self._worker = asyncio.ensure_future(self._work())

    async def translate(self, ids: list[int], count: int) -> AsyncIterator[int]:
        """Yield the target's ids once the batch is done."""
        answer: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait((ids, count, answer))
        for token in await answer:
            yield token

    async def _work(self) -> None:
        while True:
            batch = [await self._waiting.get()]
            if self._wait:
                await asyncio.sleep(self._wait)
            while len(batch) < self._most and not self._waiting.empty():
                batch.append(self._waiting.get_nowait())
            results = await asyncio.to_thread(self._run, batch)
            for (_, _, answer), tokens in zip(batch, results, strict=True):
                if not answer.done():
                    answer.set_result(tokens)

    def _run(self, batch: list[Any]) -> list[list[int]]:
        count = max(wanted for _, wanted, _ in batch)
        results = self._translator.translate_batch(
            [[self._names[i] for i in ids] for ids, _, _ in batch],
            max_batch_size=-(-len(batch) // self._workers),
            beam_size=1,
            **lengths(count),
        )
        return [[self._index[t] for t in result.hypotheses[0]] for result in results]


def lengths(count: int) -> dict[str, Any]:
    """Options for exactly `count` tokens, or for 0 as many as the model wants."""
    if not count:
        return {"max_decoding_length": LONGEST}
    suppressed = [[EOS]]
    return {
        "max_decoding_length": count,
        "min_decoding_length": count,
        "suppress_sequences": suppressed,
    }


def handler_of(translator: Direct | Batching) -> grpc.GenericRpcHandler:
    """Make the one method: request int32 [count, ids…], responses one int32 each."""

    async def translate(request: bytes, context: Any) -> AsyncIterator[bytes]:
        count, *ids = np.frombuffer(request, "<i4").tolist()
        async for token in translator.translate(ids, count):
            yield int(token).to_bytes(4, "little", signed=True)

    return grpc.method_handlers_generic_handler(
        "peer.Translator", {"Translate": grpc.unary_stream_rpc_method_handler(translate)}
    )


async def serve(options: argparse.Namespace) -> None:
    """Serve until killed."""
    translator = ctranslate2.Translator(
        options.model,
        device="cpu",
        compute_type=options.compute_type,
        inter_threads=options.inter_threads,
        intra_threads=options.intra_threads,
    )
    names = token_names(options.vocabulary)
    peer: Direct | Batching
    if options.batching:
        peer = Batching(
            translator, names, options.max_batch, options.wait_ms / 1000, options.inter_threads
        )
    else:
        peer = Direct(translator, names, options.inter_threads)
    server = aio.server()
    server.add_generic_rpc_handlers([handler_of(peer)])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--vocabulary", type=int, required=True)
    parser.add_argument("--compute-type", default="int8")
    parser.add_argument("--inter-threads", type=int, default=1)
    parser.add_argument("--intra-threads", type=int, default=2)
    parser.add_argument("--batching", action="store_true")
    parser.add_argument("--max-batch", type=int, default=64)
    parser.add_argument("--wait-ms", type=float, default=2.0)
    event_loop.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
