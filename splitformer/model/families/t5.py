"""T5 (Raffel et al. 2020), T5 1.1 and FLAN-T5, mT5 (Xue et al. 2021), ByT5 (Xue et al. 2022).

Positions are relative, norms are RMSNorm, scores are not divided, linear maps have no biases.
Later ones have gated feed-forward networks and an output projection of their own. The task is
written before the source ("translate English to German: "), so that memories are bound to it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from splitformer.errors import ConfigurationError
from splitformer.model.config import TransformerConfig
from splitformer.model.description import Description
from splitformer.model.families.family import Stored
from splitformer.model.families.fields import (
    ACTIVATIONS,
    Fields,
    Generation,
    tokenizer_settings,
)
from splitformer.model.files import Files
from splitformer.model.languages import Frame, Languages
from splitformer.model.sentencepiece import VocabularyTokenizer, load_processor
from splitformer.model.tokenizer import Tokenizer
from splitformer.model.tokenizer_bytes import ByteTokenizer
from splitformer.model.tokenizer_json import JsonTokenizer

_TOKENIZER, _PIECES = "tokenizer.json", "spiece.model"
_POSITIONS = 1024
"""Longest source and target where config.json names none; the model itself has no limit."""

_TRANSLATION = re.compile(r"translation_([a-zA-Z_-]+)_to_([a-zA-Z_-]+)")
_MAPS = {"query": "q", "key": "k", "value": "v", "output": "o"}
_FEED_FORWARD = {"outer": "wo", "gate": "wi_0"}
_EMBEDDINGS = ("shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
_OUTPUT = "lm_head.weight"
_UNUSED = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
"""In old checkpoints; cross-attention has no positions."""


class T5Family:
    """T5 and its kin, as a `Family`; see there.

    Args:
        name: "t5" (ByT5 too) or "mt5".
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def describe(self, files: Files) -> Description:
        """Read a folder's configuration."""
        config = Fields(files.settings("config.json"))
        generation = Generation.read(files, config, config.integer("pad_token_id", 0))
        return Description(
            name=files.folder.name,
            family=self.name,
            architecture=self._architecture(config),
            eos_id=generation.eos_id,
            languages=_languages(config, generation),
            never_generated=generation.never_generated,
            end_at_limit=generation.end_at_limit,
        )

    def tokenizer(self, files: Files, description: Description) -> Tokenizer:
        """Open a folder's tokenizer; `<extra_id_0>` and its like may be spelled in a source."""
        if tokenizer_settings(files).text("tokenizer_class").startswith("ByT5"):
            return ByteTokenizer()
        if files.has(_TOKENIZER):
            return JsonTokenizer(files.content(_TOKENIZER), _TOKENIZER, spelled=True)
        processor = load_processor(files.content(_PIECES), _PIECES)
        ids = {processor.IdToPiece(i): i for i in range(processor.GetPieceSize())}
        quiet = {i for i in ids.values() if processor.IsControl(i)}
        return VocabularyTokenizer(processor, processor, ids, ids, silent=quiet)

    def stored(self, name: str, config: TransformerConfig) -> Stored:
        """Say where a tensor of ours is kept."""
        if name.endswith("embedding.tokens.weight"):
            return Stored((*_EMBEDDINGS, _OUTPUT))
        if name == "decoder.output.weight":
            return Stored((_OUTPUT, *_EMBEDDINGS))
        return Stored((_renamed(name, config.gated),))

    def is_redundant(self, name: str, config: TransformerConfig) -> bool:
        """True for a stored tensor that is no parameter of ours."""
        return name in (*_EMBEDDINGS, _UNUSED)

    def _architecture(self, config: Fields) -> TransformerConfig:
        vocabulary, layers = config.integer("vocab_size"), config.integer("num_layers")
        projection = config.text("feed_forward_proj", "relu" if self.name == "t5" else _GATED)
        gated, _, activation = projection.rpartition("-")
        if gated not in ("", "gated") or activation not in ACTIVATIONS:
            raise ConfigurationError(
                f"feed_forward_proj: must be one of {', '.join(ACTIVATIONS)}, or gated-, got"
                f" {projection!r}"
            )
        # The first T5 shares its embeddings with the output projection, and scales for it. Whether
        # it does is all that tells later ones apart, unless config.json is of the latest kind.
        shared = config.values.get("tie_word_embeddings") is not False
        scaled = self.name == "t5" and config.flag("scale_decoder_outputs", shared)
        return TransformerConfig(
            source_vocabulary_size=vocabulary,
            target_vocabulary_size=vocabulary,
            d_model=config.integer("d_model"),
            heads=config.integer("num_heads"),
            d_head=config.integer("d_kv"),
            encoder_layers=layers,
            decoder_layers=config.integer("num_decoder_layers", layers),
            d_feed_forward=config.integer("d_ff"),
            max_positions=config.integer("n_positions", _POSITIONS),
            norm="pre",
            norm_kind="rms",
            activation="gelu_tanh" if projection == _GATED else ACTIVATIONS[activation],
            gated=bool(gated),
            positions="relative",
            relative_buckets=config.integer("relative_attention_num_buckets", 32),
            relative_distance=config.integer("relative_attention_max_distance", 128),
            tie_output=False,
            scale_embeddings=False,
            scale_attention=False,
            scale_output=scaled,
            biases=False,
            norm_epsilon=config.number("layer_norm_epsilon", 1e-6),
        )


_GATED = "gated-gelu"


def _languages(config: Fields, generation: Generation) -> Languages:
    """Languages of the tasks that config.json describes, if it does."""
    frame, starts = Frame(after=(generation.eos_id,)), {"": generation.start}
    tasks = list(_translations(config.values.get("task_specific_params")))
    if not tasks:
        return Languages({"": frame}, starts)
    sources = dict.fromkeys(("", *(source for source, _, _ in tasks)), frame)
    bindings = {"": Frame(), **{target: Frame(text=prefix) for _, target, prefix in tasks}}
    return Languages(sources, starts, bindings)


def _translations(tasks: Any) -> Iterator[tuple[str, str, str]]:
    """Source, target and prefix of each translation among the tasks; all have one source."""
    for name, values in (tasks if isinstance(tasks, dict) else {}).items():
        match = _TRANSLATION.fullmatch(name)
        prefix = values.get("prefix") if isinstance(values, dict) else None
        if match and isinstance(prefix, str):
            yield match[1], match[2], prefix


def _renamed(name: str, gated: bool) -> str:
    """Our name of a layer's or a stack's tensor, to theirs."""
    half, _, rest = name.partition(".")
    if rest == "norm.weight":
        return f"{half}.final_layer_norm.weight"
    if rest == "position_bias.table":
        return f"{half}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    _, number, part, *inner = rest.removesuffix(".weight").split(".")
    sublayer = part.removesuffix("_residual")
    last = 1 if half == "encoder" else 2
    place = {"self_attention": 0, "cross_attention": 1, "feed_forward": last}[sublayer]
    block = f"{half}.block.{number}.layer.{place}"
    if part.endswith("_residual"):
        return f"{block}.layer_norm.weight"
    if sublayer == "feed_forward":
        plain = "wi_1" if gated else "wi"
        return f"{block}.DenseReluDense.{_FEED_FORWARD.get(inner[0], plain)}.weight"
    kind = "SelfAttention" if place == 0 else "EncDecAttention"
    return f"{block}.{kind}.{_MAPS[inner[0]]}.weight"
