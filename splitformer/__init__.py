"""Splitformer: Transformer encoder-decoders served as two gRPC services.

Importing this package imports neither torch nor grpc; each subpackage says what it needs.
"""

__version__ = "0.1.0"
