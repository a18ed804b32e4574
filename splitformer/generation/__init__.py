"""The sequential loop: what to compute next and which token to take; knows nothing of gRPC."""

from splitformer.generation.loop import EndReason, Produced, Target, step
from splitformer.generation.options import GenerationOptions

__all__ = ["EndReason", "GenerationOptions", "Produced", "Target", "step"]
