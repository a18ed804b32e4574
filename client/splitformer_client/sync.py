"""The client for code without asyncio: the asynchronous one behind plain calls."""

from __future__ import annotations

import functools
import weakref
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from splitformer_client import aio
from splitformer_client.aio import AsyncClient
from splitformer_client.bulk import AsyncEncoding, Encoded
from splitformer_client.portal import Portal, Stream
from splitformer_client.settings import Tls
from splitformer_client.sync_session import Generation, Session

__all__ = ["Client", "Encoding", "Generation", "Session", "Stream", "connect"]

P = ParamSpec("P")
T = TypeVar("T")
Made = TypeVar("Made")
Plain = TypeVar("Plain")


def connect(
    encoder: str | None = None,
    decoder: str | None = None,
    *,
    model: str = "",
    tls: Tls | bool | None = None,
    timeout: float = 30.0,
    allowed_endpoint_suffixes: Sequence[str] = (),
) -> Client:
    """Make a client; arguments as in `splitformer_client.aio.connect`."""
    return Client(
        aio.connect(
            encoder,
            decoder,
            model=model,
            tls=tls,
            timeout=timeout,
            allowed_endpoint_suffixes=allowed_endpoint_suffixes,
        )
    )


class Encoding(Stream[Encoded]):
    """What became of many sources, as `AsyncEncoding`."""

    def __init__(self, portal: Portal, encoding: AsyncEncoding) -> None:
        super().__init__(portal, encoding)
        self._encoding = encoding

    @property
    def sent(self) -> int:
        """Sources sent so far."""
        return self._encoding.sent

    @property
    def done(self) -> int:
        """Sources answered so far, those that failed included."""
        return self._encoding.done

    @property
    def failed(self) -> int:
        """Sources that failed so far."""
        return self._encoding.failed


def _waiting(
    method: Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Client, P], T]:
    """The same call, which returns once it is done."""

    @functools.wraps(method)
    def call(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._portal.run(method(self._client, *args, **kwargs))

    return call


def _streaming(
    method: Callable[Concatenate[AsyncClient, P], AsyncGenerator[T]],
) -> Callable[Concatenate[Client, P], Stream[T]]:
    """The same call, whose answer is a plain iterator."""

    @functools.wraps(method)
    def call(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> Stream[T]:
        return Stream(self._portal, method(self._client, *args, **kwargs))

    return call


def _making(
    method: Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, Made]],
    plain: Callable[[Portal, Made], Plain],
) -> Callable[Concatenate[Client, P], Plain]:
    """The same call, with what it makes behind plain calls too."""

    @functools.wraps(method)
    def call(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> Plain:
        return plain(self._portal, self._portal.run(method(self._client, *args, **kwargs)))

    return call


def _on_loop(
    method: Callable[Concatenate[AsyncClient, P], Made],
) -> Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, Made]]:
    """The same call as a coroutine, for what must be made on the event loop's thread."""

    @functools.wraps(method)
    async def call(self: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> Made:
        return method(self, *args, **kwargs)

    return call


class Client:
    """Both services in one object, for any number of threads.

    Every method does what the one of `AsyncClient` with the same name does, and raises the same.
    What is read token by token is a `Stream`, a plain iterator, to be closed if it is left early.
    Of many sources, an iterator is read on the client's own thread.

    Args:
        client: What does the work; the new object owns it.
    """

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._portal = Portal()
        self._finalizer = weakref.finalize(self, Portal.close, self._portal)

    translate = _waiting(AsyncClient.translate)
    translate_stream = _streaming(AsyncClient.translate_stream)
    stream = _streaming(AsyncClient.stream)
    score = _waiting(AsyncClient.score)
    transcribe = _waiting(AsyncClient.transcribe)
    transcribe_stream = _streaming(AsyncClient.transcribe_stream)

    encode = _waiting(AsyncClient.encode)
    encode_many = _making(_on_loop(AsyncClient.encode_many), Encoding)
    stream_encode = _waiting(AsyncClient.stream_encode)
    embed = _waiting(AsyncClient.embed)
    fetch = _waiting(AsyncClient.fetch)
    renew = _waiting(AsyncClient.renew)
    release = _waiting(AsyncClient.release)

    open_session = _making(AsyncClient.open_session, Session)
    decode = _making(_on_loop(AsyncClient.decode), Generation)

    encoder_info = _waiting(AsyncClient.encoder_info)
    decoder_info = _waiting(AsyncClient.decoder_info)

    def close(self) -> None:
        """Cancel running calls, release what they hold, and close the connections."""
        if self._finalizer.alive:
            self._portal.run(self._client.close())
            self._finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
