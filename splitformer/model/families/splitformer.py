"""Our own checkpoints, as `training` writes them: one folder, tensors under our own names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from splitformer.errors import ConfigurationError
from splitformer.model.config import TransformerConfig
from splitformer.model.description import Description, check_id
from splitformer.model.families.family import Stored
from splitformer.model.files import Files, check_bare
from splitformer.model.languages import Frame, Languages
from splitformer.model.sentencepiece import SentencePieceTokenizer
from splitformer.model.symbols import SymbolTokenizer
from splitformer.model.tokenizer import Tokenizer

_ENCODER_EMBEDDING = "encoder.embedding.tokens.weight"
_DECODER_EMBEDDING = "decoder.embedding.tokens.weight"
_OUTPUT_WEIGHT = "decoder.output.weight"
_TOKENIZERS = ("sentencepiece", "symbols")


@dataclass(frozen=True, slots=True)
class OwnConfig:
    """What our own config.json says.

    Attributes:
        name: Name under which requests ask for the model.
        architecture: Shape of the Transformer.
        eos_id: Ends sources and targets.
        pad_id: Fills batches; never generated.
        unk_id: Stands for what the vocabulary lacks; never generated.
        source_language: Language of the sources.
        target_languages: Language to the token that starts its targets.
        tokenizer_file: File name of the tokenizer.
        tokenizer_type: "sentencepiece", or "symbols" for the tables of a `SymbolTokenizer`.
    """

    name: str
    architecture: TransformerConfig
    eos_id: int
    pad_id: int
    unk_id: int
    source_language: str
    target_languages: Mapping[str, int] = field(default_factory=dict)
    tokenizer_file: str = "tokenizer.model"
    tokenizer_type: str = "sentencepiece"

    def __post_init__(self) -> None:
        size = self.architecture.target_vocabulary_size
        check_id("pad_id", self.pad_id, size)
        check_id("unk_id", self.unk_id, size)
        check_bare("tokenizer.file", self.tokenizer_file)
        if self.tokenizer_type not in _TOKENIZERS:
            raise ConfigurationError(
                f"config.json: tokenizer.type must be one of {', '.join(_TOKENIZERS)},"
                f" got {self.tokenizer_type!r}"
            )

    @property
    def description(self) -> Description:
        """The same, as every family says it."""
        frame = Frame(after=(self.eos_id,))
        starts = {language: (token,) for language, token in self.target_languages.items()}
        return Description(
            name=self.name,
            family=SplitformerFamily.name,
            architecture=self.architecture,
            eos_id=self.eos_id,
            languages=Languages({"": frame, self.source_language: frame}, starts),
            never_generated=(self.pad_id, self.unk_id, *self.target_languages.values()),
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> OwnConfig:
        """Read parsed config.json; the error names what is missing or wrong."""
        try:
            return cls(
                name=values["name"],
                architecture=TransformerConfig.from_dict(values["architecture"]),
                eos_id=values["eos_id"],
                pad_id=values["pad_id"],
                unk_id=values["unk_id"],
                source_language=values["source_language"],
                target_languages=dict(values["target_languages"]),
                tokenizer_file=values["tokenizer"]["file"],
                tokenizer_type=values["tokenizer"]["type"],
            )
        except KeyError as error:
            raise ConfigurationError(f"config.json: missing field {error}") from error
        except (AttributeError, TypeError) as error:
            raise ConfigurationError(f"config.json: a field has the wrong type: {error}") from error

    def to_dict(self) -> dict[str, Any]:
        """Return config.json's contents; `from_dict` is the inverse."""
        return {
            "model_type": SplitformerFamily.name,
            "name": self.name,
            "architecture": self.architecture.to_dict(),
            "tokenizer": {"type": self.tokenizer_type, "file": self.tokenizer_file},
            "eos_id": self.eos_id,
            "pad_id": self.pad_id,
            "unk_id": self.unk_id,
            "source_language": self.source_language,
            "target_languages": dict(self.target_languages),
        }


class SplitformerFamily:
    """Our own checkpoints, as a `Family`; see there."""

    name = "splitformer"

    def describe(self, files: Files) -> Description:
        """Read a folder's configuration."""
        return OwnConfig.from_dict(files.settings("config.json")).description

    def tokenizer(self, files: Files, description: Description) -> Tokenizer:
        """Open a folder's tokenizer."""
        config = OwnConfig.from_dict(files.settings("config.json"))
        if config.tokenizer_type == "symbols":
            return SymbolTokenizer.from_dict(files.vocabulary(config.tokenizer_file))
        return SentencePieceTokenizer(files.content(config.tokenizer_file), config.tokenizer_file)

    def stored(self, name: str, config: TransformerConfig) -> Stored:
        """A tensor is stored under its own name, or under that of the one it is tied to."""
        if name == _OUTPUT_WEIGHT and config.tie_output:
            name = _DECODER_EMBEDDING
        if name == _DECODER_EMBEDDING and config.share_embeddings:
            name = _ENCODER_EMBEDDING
        return Stored((name,))

    def is_redundant(self, name: str, config: TransformerConfig) -> bool:
        """Nothing is stored twice."""
        return False
