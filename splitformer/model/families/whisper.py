"""Whisper (Radford et al. 2022): speech to text in its own language or in English, with times."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

from splitformer.errors import ConfigurationError
from splitformer.model.audio.features import LogMel
from splitformer.model.byte_level import ByteLevelTokenizer, read_byte_level
from splitformer.model.config import TransformerConfig
from splitformer.model.description import Description, check_id
from splitformer.model.encoding import STRIDE
from splitformer.model.families.family import Stored
from splitformer.model.families.fields import (
    ACTIVATIONS,
    Fields,
    Generation,
    generation_settings,
    stack_sizes,
)
from splitformer.model.families.names import stored_like_fairseq
from splitformer.model.files import Files
from splitformer.model.languages import Frame, Languages
from splitformer.model.speech import TRANSCRIBE, Speech
from splitformer.model.tokenizer import Tokenizer

_PREPROCESSOR = "preprocessor_config.json"
_TASKS = (TRANSCRIBE, "translate")
_MARK = re.compile(r"<\|(.*)\|>")
_LANGUAGE = re.compile(r"[a-z]{2,3}")
_OUTPUT = "proj_out.weight"
_CONVOLUTIONS = {"first": "conv1", "second": "conv2"}


class WhisperFamily:
    """Whisper, as a `Family`; see there."""

    name = "whisper"

    def describe(self, files: Files) -> Description:
        """Read a folder's configuration."""
        config = Fields(files.settings("config.json"))
        generation = Generation.read(files, config)
        architecture = _architecture(config)
        speech = _speech(files, config, architecture)
        start = generation.start_id
        named = {code: (start, token) for code, token in speech.languages.items()}
        return Description(
            name=files.folder.name,
            family=self.name,
            architecture=architecture,
            eos_id=generation.eos_id,
            languages=Languages({"": Frame()}, {"": (start,), **(named or {"en": (start,)})}),
            never_generated=generation.never_generated,
            speech=speech,
        )

    def tokenizer(self, files: Files, description: Description) -> Tokenizer:
        """Open a folder's byte-level tokenizer; nothing that is marked <|so|> is text."""
        vocabulary, merges, added = read_byte_level(files)
        marked = [token for name, token in vocabulary.items() if _MARK.fullmatch(name)]
        silent = {*marked, *added.values(), description.eos_id}
        tokenizer = ByteLevelTokenizer(vocabulary, merges, silent)
        tokenizer.source_size = 0  # sources are audio
        return tokenizer

    def stored(self, name: str, config: TransformerConfig) -> Stored:
        """Say where a tensor of ours is kept."""
        half, _, inner = name.partition(".")
        part, _, leaf = inner.removeprefix("embedding.").partition(".")
        if inner == "embedding.positions":
            return _stored(f"{half}.embed_positions.weight")
        if inner.startswith("embedding.") and part in _CONVOLUTIONS:
            return _stored(f"{half}.{_CONVOLUTIONS[part]}.{leaf}")
        if inner in ("embedding.tokens.weight", "output.weight"):
            return _stored(f"{half}.embed_tokens.weight", _OUTPUT)
        stored = stored_like_fairseq(name, config)
        # Keys have no bias: one that is the same for all of them changes no attention.
        return dataclasses.replace(stored, optional=name.endswith("key.bias"))

    def is_redundant(self, name: str, config: TransformerConfig) -> bool:
        """True for the output map, which is the embedding table."""
        return name == _OUTPUT


def _architecture(config: Fields) -> TransformerConfig:
    if not config.flag("tie_word_embeddings", True):
        raise ConfigurationError("tie_word_embeddings: must be true, got False")
    return TransformerConfig(
        source_vocabulary_size=0,
        target_vocabulary_size=config.integer("vocab_size"),
        **stack_sizes(config),
        max_positions=config.integer("max_target_positions", 448),
        source_positions=config.integer("max_source_positions", 1500),
        mel_bins=config.integer("num_mel_bins", 80),
        norm="pre",
        activation=config.choice("activation_function", "gelu", ACTIVATIONS),
        positions="learned",  # the encoder's are sines, but stored with the weights
        share_embeddings=False,
        scale_embeddings=config.flag("scale_embedding", False),
    )


def _speech(files: Files, config: Fields, architecture: TransformerConfig) -> Speech:
    own = generation_settings(files, config)
    marks = _marks(files)
    languages = _tokens(own, "lang_to_id") or {
        name: token for name, token in marks.items() if _LANGUAGE.fullmatch(name)
    }
    tasks = _tokens(own, "task_to_id") or {t: marks[t] for t in _TASKS if t in marks}
    if not own.flag("is_multilingual", bool(tasks)):
        languages, tasks = {}, {}
    no_times = own.integer("no_timestamps_token_id", marks.get("notimestamps"))
    size = architecture.target_vocabulary_size
    for name, token in ({"no_timestamps_token_id": no_times} | languages | tasks).items():
        check_id(name, token, size)
    never_first = tuple(own.values.get("begin_suppress_tokens") or ())
    for token in never_first:
        check_id("begin_suppress_tokens", token, size)
    latest = "max_initial_timestamp_index"
    return Speech(
        features=_features(files, architecture),
        languages=languages,
        tasks=tasks,
        no_times_id=no_times,
        latest_begin=own.integer(latest) if own.has(latest) else None,
        never_first=never_first,
    )


def _features(files: Files, architecture: TransformerConfig) -> LogMel:
    features = LogMel.from_preprocessor(files.settings(_PREPROCESSOR))
    if features.bins != architecture.mel_bins:
        raise ConfigurationError(
            f"{_PREPROCESSOR}: feature_size must be num_mel_bins ({architecture.mel_bins}),"
            f" got {features.bins}"
        )
    if features.frames != STRIDE * architecture.longest_source:
        raise ConfigurationError(
            f"{_PREPROCESSOR}: a window must have {STRIDE} frames per source position"
            f" ({STRIDE * architecture.longest_source}), got {features.frames}"
        )
    return features


def _marks(files: Files) -> dict[str, int]:
    """Tokens of the form <|name|>, by name."""
    vocabulary, _, added = read_byte_level(files)
    found = {_MARK.fullmatch(token): number for token, number in (vocabulary | added).items()}
    return {match[1]: number for match, number in found.items() if match}


def _tokens(fields: Fields, name: str) -> dict[str, int]:
    """A map of names, marked or not, to tokens."""
    values = fields.values.get(name) or {}
    if not isinstance(values, Mapping):
        raise ConfigurationError(f"{name}: must map names to ids, got {values!r}")
    return {
        match[1] if (match := _MARK.fullmatch(str(key))) else str(key): token
        for key, token in values.items()
    }


def _stored(*names: str) -> Stored:
    """Tensors of the model, with and without the model around it."""
    inner = [each for name in names for each in (f"model.{name}", name)]
    return Stored(tuple(inner))
