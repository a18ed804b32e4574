"""The Transformer encoder-decoder of Vaswani et al. 2017; knows nothing of gRPC.

The readable model is in torch, which is imported where that model is used and not before: a service
that computes by the native library never does.

Shape vocabulary, used in every docstring and on every reshape:
    B batch, S source length, T target length, D model width, H heads, K head size, F feed-forward
    width, L layers, V vocabulary size.
"""

from typing import TYPE_CHECKING

from splitformer.model.cache import DecoderState
from splitformer.model.config import TransformerConfig

if TYPE_CHECKING:
    from splitformer.model.transformer import Transformer

__all__ = ["DecoderState", "Transformer", "TransformerConfig"]


def __getattr__(name: str) -> object:
    if name == "Transformer":
        from splitformer.model.transformer import Transformer  # noqa: PLC0415

        return Transformer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
