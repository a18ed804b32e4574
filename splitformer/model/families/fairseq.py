"""What BART, mBART, M2M100 and NLLB share: one configuration, ids of fairseq, language codes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from splitformer.errors import ConfigurationError
from splitformer.model.config import NormPlacement, Positions, TransformerConfig
from splitformer.model.families.fields import ACTIVATIONS, Fields, stack_sizes
from splitformer.model.files import Files
from splitformer.model.languages import Frame
from splitformer.model.sentencepiece import VocabularyTokenizer, load_processor
from splitformer.model.tokenizer import Tokenizer
from splitformer.model.tokenizer_json import JsonTokenizer

BOS, PAD, EOS, UNKNOWN = 0, 1, 2, 3
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
"""The first ids of fairseq's dictionaries."""

TOKENIZER = "tokenizer.json"
PIECES = "sentencepiece.bpe.model"


def architecture(
    config: Fields,
    *,
    norm: NormPlacement,
    positions: Positions,
    position_offset: int = 0,
    normalize_embeddings: bool = False,
    output_bias: bool = False,
    activation: str = "gelu",
    scale: bool = False,
) -> TransformerConfig:
    """Map config.json to our configuration.

    Args:
        config: config.json.
        norm: Where the norms are.
        positions: How positions are told.
        position_offset: Row of a fixed table that the first position takes.
        normalize_embeddings: Normalise the sum of embedding and position.
        output_bias: Add a bias to the logits.
        activation: Where config.json names none.
        scale: Multiply embeddings by sqrt(D) where config.json does not say.
    """
    vocabulary = config.integer("vocab_size")
    return TransformerConfig(
        source_vocabulary_size=vocabulary,
        target_vocabulary_size=vocabulary,
        **stack_sizes(config),
        max_positions=config.integer("max_position_embeddings", 1024),
        norm=norm,
        activation=config.choice("activation_function", activation, ACTIVATIONS),
        positions=positions,
        position_offset=position_offset,
        tie_output=config.flag("tie_word_embeddings", True),
        scale_embeddings=config.flag("scale_embedding", scale),
        normalize_embeddings=normalize_embeddings,
        output_bias=output_bias,
    )


def piece_tokenizer(
    files: Files, codes: Mapping[str, int], silent: Iterable[int] = ()
) -> Tokenizer:
    """Open tokenizer.json or, where there is none, SentencePiece's model with fairseq's ids."""
    quiet = {BOS, PAD, EOS, UNKNOWN, *codes.values(), *silent}
    if files.has(TOKENIZER):
        return JsonTokenizer(files.content(TOKENIZER), TOKENIZER, quiet)
    processor = load_processor(files.content(PIECES), PIECES)
    ids = fairseq_ids(processor.GetPieceSize(), processor.IdToPiece)
    return VocabularyTokenizer(processor, processor, ids, ids, silent=quiet)


def language_ids(files: Files, codes: Sequence[str]) -> dict[str, int]:
    """Find the ids of language codes: in tokenizer.json, or behind SentencePiece's pieces.

    Raises:
        ConfigurationError: tokenizer.json has none of them.
    """
    if files.has(TOKENIZER):
        known = added_tokens(files)
        found = {code: known[code] for code in codes if code in known}
        if not found:
            raise ConfigurationError(f"{TOKENIZER}: has none of this family's language codes")
        return found
    size = load_processor(files.content(PIECES), PIECES).GetPieceSize()
    return {code: size + 1 + i for i, code in enumerate(codes)}


def added_tokens(files: Files) -> dict[str, int]:
    """Return the tokens of tokenizer.json that its pieces were not trained to."""
    added = files.vocabulary(TOKENIZER).get("added_tokens") or []
    try:
        return {str(token["content"]): int(token["id"]) for token in added}
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigurationError(f"{TOKENIZER}: added_tokens cannot be read: {error}") from error


def fairseq_ids(size: int, name_of: Callable[[int], str]) -> dict[str, int]:
    """Number SentencePiece's pieces as fairseq does: its own four ids, then the others."""
    ids = {piece: i for i, piece in enumerate(SPECIAL)}
    return ids | {name_of(i): i + 1 for i in range(3, size)}


def frames(codes: Mapping[str, int], *, before: bool, default: str) -> dict[str, Frame]:
    """Return what goes around sources: the language's id before them, or behind the end token.

    Args:
        codes: Language to id.
        before: Where the id goes.
        default: Language of sources that name none; empty: they must name one.
    """
    made = {
        code: Frame(before=(token,), after=(EOS,)) if before else Frame(after=(EOS, token))
        for code, token in codes.items()
    }
    return {"": made[default], **made} if default in made else made
