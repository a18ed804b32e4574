"""FBGEMM, the 8-bit matrix products inside torch: a step's products alone, looped in C++."""

from __future__ import annotations

import warnings
from typing import cast

import torch
from torch import Tensor, nn

from splitformer.model.decoder import Decoder, DecoderLayer


class _Products(nn.Module):
    """All linear maps of a step, sorted by the width of their inputs so that they can share one."""

    def __init__(self, maps: list[nn.Linear]) -> None:
        super().__init__()
        widths = sorted({each.in_features for each in maps})
        assert len(widths) <= 2, "inputs are as wide as the model or as the feed-forward layer"
        self.narrow = nn.ModuleList(_quantised(m) for m in maps if m.in_features == widths[0])
        self.wide = nn.ModuleList(_quantised(m) for m in maps if m.in_features != widths[0])

    def forward(self, narrow: Tensor, wide: Tensor, steps: int) -> list[Tensor]:
        outputs: list[Tensor] = []  # what nobody keeps, the compiler does not compute
        for _ in range(steps):
            outputs.clear()
            for each in self.narrow:
                outputs.append(each(narrow))
            for each in self.wide:
                outputs.append(each(wide))
        return outputs


class Fbgemm:
    """The products of `decoder`'s steps with 8-bit weights and activations.

    Activations are quantised before and results requantised after each product, which is FBGEMM's
    own business; nothing is done between the products.

    Args:
        decoder: Gives the shapes and the weights.
    """

    def __init__(self, decoder: Decoder) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch is moving its quantised modules elsewhere
            self._products = torch.jit.script(_Products(_maps(decoder)).eval())
        config = decoder.config
        self._widths = (config.d_model, config.decoder.d_feed_forward)

    @torch.inference_mode()
    def products(self, rows: int, steps: int) -> None:
        """Run the products of so many steps."""
        narrow, wide = (
            torch.quantize_per_tensor(torch.rand(rows, width), 1 / 127, 64, torch.quint8)
            for width in self._widths
        )
        self._products(narrow, wide, steps)


def _maps(decoder: Decoder) -> list[nn.Linear]:
    """Every product of a step; query, key and value as one, as a fused step computes them."""
    maps = []
    for layer in cast(list[DecoderLayer], list(decoder.layers)):
        own, cross = layer.self_attention, layer.cross_attention
        maps.append(_beside(own.query, own.key, own.value))
        maps += [own.output, cross.query, cross.output]
        feed = layer.feed_forward
        maps += [feed.inner if feed.gate is None else _beside(feed.gate, feed.inner), feed.outer]
    return [*maps, decoder.output]


def _beside(*maps: nn.Linear) -> nn.Linear:
    weight = torch.cat([each.weight.detach() for each in maps])
    joined = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    joined.weight = nn.Parameter(weight)
    return joined


def _quantised(linear: nn.Linear) -> nn.Module:
    quantised = torch.ao.nn.quantized.Linear(linear.in_features, linear.out_features)
    weight = linear.weight.detach().float()
    scales = (weight.abs().amax(1) / 127).clamp(min=1e-8).double()
    zeros = torch.zeros(len(scales), dtype=torch.int64)
    packed = torch.quantize_per_channel(weight, scales, zeros, 0, torch.qint8)
    quantised.set_weight_bias(packed, None)
    quantised.scale, quantised.zero_point = 0.1, 64
    return quantised
