"""One vector for a whole source, made of its memory."""

from __future__ import annotations

import numpy as np

from splitformer import wire
from splitformer.errors import InvalidArgumentError
from splitformer.serving import packing
from splitformer.v1 import encoder_service_pb2 as pb, tensor_pb2

_OFFERED = (pb.POOLING_UNSPECIFIED, pb.POOLING_MEAN)


def check_pooling(pooling: pb.Pooling.ValueType) -> None:
    """InvalidArgumentError BAD_POOLING unless it is one that our models have: the mean."""
    if pooling in _OFFERED:
        return
    known = pooling in pb.Pooling.values()
    rule = "must be POOLING_MEAN or unset: this model has no CLS row" if known else "must be known"
    raise InvalidArgumentError.of(
        "pooling", rule, pb.Pooling.Name(pooling) if known else pooling, reason="BAD_POOLING"
    )


def pooled(header: tensor_pb2.MemoryHeader, data: wire.Buffer) -> tensor_pb2.Tensor:
    """Return the mean over a memory's rows, as float32 of shape D.

    It is the mean of the rounded rows, those that every decoder sees, summed in float64.
    """
    rows = packing.unpack(data, header.dtype, header.shape, "memory")  # (S, D)
    mean = rows.mean(axis=0, dtype=np.float64).astype("<f4")
    return wire.tensor_message(mean.tobytes(), tensor_pb2.DATA_TYPE_F32, mean.shape)
