"""Who calls: what a caller has proved, where it had to prove something."""

from __future__ import annotations

import hashlib
from typing import Any

from grpc import aio


def caller_of(context: aio.ServicerContext[Any, Any]) -> str:
    """Name the caller by its TLS certificate; empty for callers who have shown none.

    The whole certificate counts, as names in it may be shared: that of a host by all who run there.
    A caller whose certificate has been renewed is another one.
    """
    if not context.peer_identities():
        return ""
    (certificate,) = context.auth_context()["x509_pem_cert"]
    return hashlib.sha256(certificate).hexdigest()
