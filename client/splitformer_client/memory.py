"""The memory: what an encoder made of a source, here or still with its encoder."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

from splitformer import wire
from splitformer.errors import FailedPreconditionError
from splitformer.v1 import encoder_service_pb2, tensor_pb2

_DTYPE_NAMES = {number: name for name, number in wire.DTYPE_NAMES.items()}


@dataclass(frozen=True, slots=True, eq=False)
class Memory:
    """The output matrix of an encoder, held locally or by reference.

    Attributes:
        header: Everything but the numbers, as the protocol's message.
        data: The numbers in their wire type, or None if they are elsewhere.
        reference: Where the encoder keeps it and the caller's lease, or None.
    """

    header: tensor_pb2.MemoryHeader = field(repr=False)
    data: bytes | bytearray | None = field(default=None, repr=False)
    reference: tensor_pb2.MemoryReference | None = field(default=None, repr=False)

    @classmethod
    def of_answer(cls, answer: encoder_service_pb2.EncodeResponse) -> Self:
        """Read the answer to an Encode.

        Raises:
            InvalidArgumentError: An inline array whose bytes do not fit its shape.
        """
        if answer.HasField("reference"):
            return cls(answer.reference.header, reference=answer.reference)
        return cls(answer.inline.header, wire.tensor_bytes(answer.inline.tensor))

    @property
    def id(self) -> str:
        """Id under which the encoder keeps it; empty for a local memory."""
        return self.reference.memory_id if self.reference else ""

    @property
    def is_local(self) -> bool:
        """True if the numbers are here."""
        return self.data is not None

    @property
    def model(self) -> str:
        """Name of the model that made it."""
        return self.header.model

    @property
    def fingerprint(self) -> str:
        """Hash of that model, hexadecimal."""
        return self.header.fingerprint.model

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and columns: S x D for sequences, 1 x D for vectors."""
        return tuple(self.header.shape)

    @property
    def dtype(self) -> str:
        """Element type on the wire: "f32", "f16", "bf16" or "i8"."""
        return _DTYPE_NAMES.get(self.header.dtype, "unspecified")

    @property
    def language(self) -> str:
        """Target language it is bound to; empty if the decoder chooses."""
        return self.header.target_language

    @property
    def text(self) -> str:
        """The source; empty if that was token ids or the memory does not tell of it."""
        return self.header.source_text

    @property
    def lease_seconds(self) -> float:
        """Time that was left of the lease when the encoder answered; 0 for a local memory."""
        return self.reference.lease.remaining_ms / 1000 if self.reference else 0.0

    @property
    def array(self) -> wire.FloatArray:
        """The numbers as float32.

        Raises:
            FailedPreconditionError: MEMORY_NOT_LOCAL, the numbers are with the encoder.
        """
        if self.data is None:
            raise FailedPreconditionError(
                f"memory.array: memory {self.id} is held by reference, fetch it first",
                reason="MEMORY_NOT_LOCAL",
            )
        return wire.unpack(self.data, self.header.dtype, self.header.shape, "memory")

    def __repr__(self) -> str:
        where = "local" if self.is_local else f"reference {self.id} at {self._endpoint}"
        shape = "x".join(map(str, self.shape))
        return f"Memory({self.model}, {shape} {self.dtype}, {where})"

    @property
    def _endpoint(self) -> str:
        return self.reference.endpoint if self.reference else ""
