"""The encoder in C++: the same function as `Encoder.forward` on packed sources, without padding.

It makes the promise of `splitformer.model.native_decoder`: a memory is the same bits whatever is
encoded beside it, and whatever the number of threads.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

from splitformer.model.encoding import Features, Memory, Source
from splitformer.model.half import Half, half_of
from splitformer.model.native_decoder import KERNEL
from splitformer.model.plan import describe_encoder
from splitformer.native import InstructionSet, Plan, Precision

if TYPE_CHECKING:  # an encoder that torch holds is taken as well, and brings torch along itself
    from splitformer.model.encoder import Encoder


class NativeEncoder:
    """A loaded encoder, packed for the native library; a `SourceEncoder`.

    Args:
        encoder: Where the weights come from; its embedding table is shared.
        precision: "int8" quantises weights per output and activations per row, to 8 bits each.
        threads: Threads of a pass, the caller's included.
        cores: Cores to pin the other threads to; empty: none.
        isa: Which micro-kernels to use; None: the best, or what $SPLITFORMER_NATIVE says.

    Raises:
        NativeUnavailableError: The library cannot be used here.
    """

    batch_invariant = True
    kernel = KERNEL
    padded = False
    full_tokens = 32

    def __init__(
        self,
        encoder: Half | Encoder,
        precision: Precision,
        threads: int,
        cores: Sequence[int] = (),
        isa: InstructionSet | None = None,
    ) -> None:
        self.config = encoder.config
        self.precision = precision
        self.threads = threads
        self.plan = Plan(describe_encoder(half_of(encoder)), precision, threads, isa, cores)

    def close(self) -> None:
        """Stop the threads and free the packed weights."""
        self.plan.close()

    def encode(self, sources: Sequence[Source]) -> list[Memory]:
        """Encode sources together, to memories in their order.

        Raises:
            ValueError: A token, or the length of a source, is out of range.
        """
        if self.config.mel_bins:
            return [self.plan.hear(s.values) for s in sources if isinstance(s, Features)]
        counts = array("q", map(len, sources))
        tokens = array("i")
        for source in sources:
            assert not isinstance(source, Features)
            tokens.extend(source)
        rows = self.plan.encode(counts, tokens)
        return [rows[first:end] for first, end in pairwise(accumulate(counts, initial=0))]
