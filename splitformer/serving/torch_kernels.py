"""Halves of a model that torch computes: on a GPU, or where the native library cannot be used."""

from __future__ import annotations

import torch

from splitformer.errors import ConfigurationError
from splitformer.model.checkpoint import Checkpoint
from splitformer.model.encoding import SourceEncoder
from splitformer.model.paged_decoder import PagedDecoder
from splitformer.model.stepping import StepDecoder
from splitformer.model.torch_decoder import TorchDecoder
from splitformer.model.torch_encoder import TorchEncoder
from splitformer.serving.arithmetic import Arithmetic

_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def step_decoder(checkpoint: Checkpoint, arithmetic: Arithmetic, pool_bytes: int) -> StepDecoder:
    """Return a decoder; as `kernels.step_decoder`."""
    torch.set_num_threads(arithmetic.threads)
    if not arithmetic.on_gpu:
        return TorchDecoder(checkpoint.load_decoder())
    weights = checkpoint.load_decoder().to(_gpu(arithmetic), _TYPES[arithmetic.held])
    return PagedDecoder(weights, pool_bytes)


def source_encoder(checkpoint: Checkpoint, arithmetic: Arithmetic) -> SourceEncoder:
    """Return an encoder; as `kernels.source_encoder`."""
    torch.set_num_threads(arithmetic.threads)
    encoder = checkpoint.load_encoder()
    if arithmetic.on_gpu:
        encoder = encoder.to(_gpu(arithmetic), _TYPES[arithmetic.held])
    return TorchEncoder(encoder)


def _gpu(arithmetic: Arithmetic) -> torch.device:
    device = torch.device(arithmetic.device)
    if not torch.cuda.is_available():
        raise ConfigurationError(
            f"device: this machine, or its torch {torch.__version__}, has no GPU to use,"
            f" got {arithmetic.device!r}"
        )
    if (device.index or 0) >= torch.cuda.device_count():
        last = torch.cuda.device_count() - 1
        raise ConfigurationError(f"device: must be at most cuda:{last}, got {arithmetic.device!r}")
    return device
