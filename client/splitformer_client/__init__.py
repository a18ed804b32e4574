"""Client of the Splitformer services: `connect` for plain code, `aio.connect` for asyncio.

Importing this package is cheap: what a name needs is imported when the name is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from splitformer.errors import SplitformerError
    from splitformer_client import aio
    from splitformer_client.alignment import Alignment
    from splitformer_client.bulk import Encoded
    from splitformer_client.info import ModelInfo, SessionInfo, SpeechInfo
    from splitformer_client.memory import Memory
    from splitformer_client.options import GenerationOptions
    from splitformer_client.settings import Tls
    from splitformer_client.spans import Span
    from splitformer_client.sync import Client, Session, Stream, connect
    from splitformer_client.values import (
        Alternative,
        End,
        EndReason,
        Hypothesis,
        Rewound,
        Score,
        Segment,
        Timings,
        Token,
        Transcript,
        Translation,
    )

__all__ = [
    "Alignment",
    "Alternative",
    "Client",
    "Encoded",
    "End",
    "EndReason",
    "GenerationOptions",
    "Hypothesis",
    "Memory",
    "ModelInfo",
    "Rewound",
    "Score",
    "Segment",
    "Session",
    "SessionInfo",
    "Span",
    "SpeechInfo",
    "SplitformerError",
    "Stream",
    "Timings",
    "Tls",
    "Token",
    "Transcript",
    "Translation",
    "aio",
    "connect",
]

_HOMES = {
    "SplitformerError": "splitformer.errors",
    "Encoded": "splitformer_client.bulk",
    "Memory": "splitformer_client.memory",
    "GenerationOptions": "splitformer_client.options",
    "Tls": "splitformer_client.settings",
    "Alignment": "splitformer_client.alignment",
    "Span": "splitformer_client.spans",
    **dict.fromkeys(("ModelInfo", "SessionInfo", "SpeechInfo"), "splitformer_client.info"),
    **dict.fromkeys(("Client", "Session", "Stream", "connect"), "splitformer_client.sync"),
}


def __getattr__(name: str) -> Any:
    """Import a public name from its module, once."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "aio":
        return importlib.import_module("splitformer_client.aio")
    value = getattr(importlib.import_module(_HOMES.get(name, "splitformer_client.values")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, imported or not."""
    return sorted(__all__)
