"""Marian and OPUS-MT (Junczys-Dowmunt et al. 2018; Tiedemann and Thottingal 2020).

Many targets start from the padding token, whose embedding is zero. Models with several target
languages are told which by a token at the beginning of the source, `>>fra<<`, so that their
memories are bound to it. Sources and targets are cut by two SentencePiece models; `vocab.json`
numbers the pieces of both, or those of sources where `target_vocab.json` has the others.
"""

from __future__ import annotations

from collections.abc import Mapping

from splitformer.model.config import TransformerConfig
from splitformer.model.description import Description
from splitformer.model.families.family import Stored
from splitformer.model.families.fields import (
    ACTIVATIONS,
    Fields,
    Generation,
    stack_sizes,
    tokenizer_settings,
)
from splitformer.model.families.names import is_redundant_like_fairseq, stored_like_fairseq
from splitformer.model.files import Files
from splitformer.model.languages import Frame, Languages
from splitformer.model.sentencepiece import VocabularyTokenizer, load_processor
from splitformer.model.tokenizer import SourcePiece, Tokenizer

_VOCABULARY, _TARGET_VOCABULARY = "vocab.json", "target_vocab.json"
_MARKER = ">>{}<<"


class MarianFamily:
    """Marian, as a `Family`; see there."""

    name = "marian"

    def describe(self, files: Files) -> Description:
        """Read a folder's configuration."""
        config = Fields(files.settings("config.json"))
        generation = Generation.read(files, config, config.integer("pad_token_id"))
        never = (*generation.never_generated, config.integer("pad_token_id"))
        return Description(
            name=files.folder.name,
            family=self.name,
            architecture=_architecture(config),
            eos_id=generation.eos_id,
            languages=_languages(files, generation),
            never_generated=tuple(dict.fromkeys(never)),
            end_at_limit=generation.end_at_limit,
        )

    def tokenizer(self, files: Files, description: Description) -> Tokenizer:
        """Open a folder's SentencePiece models and vocabularies."""
        vocabulary = files.vocabulary(_VOCABULARY)
        separate = _separate(files)
        return MarianTokenizer(
            load_processor(files.content("source.spm"), "source.spm"),
            load_processor(files.content("target.spm"), "target.spm"),
            vocabulary,
            files.vocabulary(_TARGET_VOCABULARY) if separate else vocabulary,
            silent={description.eos_id, *description.never_generated},
        )

    def stored(self, name: str, config: TransformerConfig) -> Stored:
        """Say where a tensor of ours is kept."""
        return stored_like_fairseq(name, config)

    def is_redundant(self, name: str, config: TransformerConfig) -> bool:
        """True for a stored tensor that is no parameter of ours."""
        return is_redundant_like_fairseq(name, config)


class MarianTokenizer(VocabularyTokenizer):
    """Two SentencePiece models; a source may begin with a language token."""

    def pieces(self, text: str) -> list[SourcePiece]:
        """Tokenise a text; a language token at its beginning is one piece."""
        code = text.partition("<<")[0] + "<<"
        if not text.startswith(">>") or code not in self._source_ids:
            return super().pieces(text)
        end = len(code.encode())
        rest = super().pieces(text[len(code) :])
        first = SourcePiece(self._source_ids[code], 0, end)
        return [first, *(SourcePiece(p.id, p.begin + end, p.end + end) for p in rest)]


def _architecture(config: Fields) -> TransformerConfig:
    vocabulary = config.integer("vocab_size")
    shared = config.flag("share_encoder_decoder_embeddings", True)
    target = vocabulary if shared else config.integer("decoder_vocab_size", vocabulary)
    return TransformerConfig(
        source_vocabulary_size=vocabulary,
        target_vocabulary_size=target,
        **stack_sizes(config),
        max_positions=config.integer("max_position_embeddings"),
        activation=config.choice("activation_function", "gelu", ACTIVATIONS),
        share_embeddings=shared,
        tie_output=config.flag("tie_word_embeddings", True),
        scale_embeddings=config.flag("scale_embedding", False),
        output_bias=True,
    )


def _languages(files: Files, generation: Generation) -> Languages:
    settings = tokenizer_settings(files)
    frame = Frame(after=(generation.eos_id,))
    sources = dict.fromkeys(("", settings.text("source_lang")), frame)
    if bindings := _bindings(files):
        return Languages(sources, {"": generation.start}, bindings, _MARKER)
    starts = dict.fromkeys(("", settings.text("target_lang")), generation.start)
    return Languages(sources, starts)


def _bindings(files: Files) -> Mapping[str, Frame]:
    """Target languages that a source may be told, by their tokens; none with two vocabularies."""
    if _separate(files):
        return {}
    return {
        piece[2:-2]: Frame(before=(token,))
        for piece, token in files.vocabulary(_VOCABULARY).items()
        if piece.startswith(">>") and piece.endswith("<<") and len(piece) > len("<<>>")
    }


def _separate(files: Files) -> bool:
    return tokenizer_settings(files).flag("separate_vocabs", files.has(_TARGET_VOCABULARY))
