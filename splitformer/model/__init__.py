"""The Transformer encoder-decoder of Vaswani et al. 2017, in torch; knows nothing of gRPC.

Shape vocabulary, used in every docstring and on every reshape:
    B batch, S source length, T target length, D model width, H heads, K head size, F feed-forward
    width, L layers, V vocabulary size.
"""

from splitformer.model.config import TransformerConfig
from splitformer.model.decoder import DecoderState
from splitformer.model.transformer import Transformer

__all__ = ["DecoderState", "Transformer", "TransformerConfig"]
