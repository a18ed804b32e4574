"""A model folder, opened by us and by Transformers: the same sources through both, compared."""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from splitformer.errors import ConfigurationError
from splitformer.generation import GenerationOptions, Sequential, Target, Vocabulary, run
from splitformer.model.checkpoint import Checkpoint
from splitformer.model.stepping import StepDecoder
from splitformer.native import Question
from splitformer.serving.arithmetic import Arithmetic
from splitformer.serving.kernels import source_encoder, step_decoder

_TOLERANCE = 1e-3
"""Largest difference of a memory or of logits, as a share of their largest value."""

NEW_TOKENS = 40
"""Tokens of a target at most, but for what it begins with."""


@dataclass(frozen=True, slots=True, eq=False)
class Expected:
    """What Transformers makes of a source: memory (S, D), greedy target, logits (T, V) of it."""

    memory: NDArray[np.float32]
    logits: NDArray[np.float32]
    target: list[int]


@dataclass(slots=True)
class Comparison:
    """How far two ways to run a model are apart.

    Attributes:
        sources: How many there are.
        memory: Largest difference of memories, as a share of the largest value.
        logits: The same for logits.
        same: Greedy targets that are the same to the last token.
        tokenized: Sources that are cut the same way; None: there was nothing to compare with.
        different: Sources whose targets differ.
    """

    sources: int
    memory: float = 0.0
    logits: float = 0.0
    same: int = 0
    tokenized: int | None = None
    different: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """True if nothing differs but by rounding."""
        close = max(self.memory, self.logits) < _TOLERANCE
        return close and not self.different and self.tokenized in (None, self.sources)

    def rows(self) -> Iterator[tuple[str, str]]:
        """Yield what to show, as names and values."""
        if self.tokenized is not None:
            yield "tokens of sources", f"{self.tokenized} of {self.sources} the same"
        yield "encoder output", f"differs by {self.memory:.1e} of its largest value"
        yield "logits", f"differ by {self.logits:.1e} of their largest value"
        yield "greedy outputs", f"{self.same} of {self.sources} the same"
        for text in self.different[:3]:
            yield "", f"differs: {text}"


class Pair(ABC):
    """A model folder, opened by us and by Transformers.

    Args:
        checkpoint: The folder.
        theirs: The model as Transformers has it.
        start: What targets begin with.

    Attributes:
        sources: What our encoder takes, by what to call it.
        theirs: The model as Transformers has it.
        vocabulary: What may be generated.
    """

    sources: Mapping[str, Any]

    def __init__(self, checkpoint: Checkpoint, theirs: Any, start: tuple[int, ...]) -> None:
        description = checkpoint.description
        self.checkpoint = checkpoint
        self.start = start
        size = description.architecture.target_vocabulary_size
        self.vocabulary = Vocabulary(description.eos_id, description.never_generated, size)
        self.theirs = theirs

    @abstractmethod
    def _encoded(self, source: Any) -> Any:
        """Run Transformers' encoder."""

    @abstractmethod
    def _their_target(self, source: Any) -> list[int]:
        """Decode greedily in Transformers, with nothing that their settings suggest besides."""

    def _tokenized_alike(self) -> int | None:
        """Count sources that Transformers' tokenizer cuts as ours; None if it cannot be used."""
        return None

    @torch.inference_mode()
    def compare(self, precision: str) -> Comparison:
        """Compare all sources in one precision of ours."""
        arithmetic = Arithmetic(precision)
        encoder = source_encoder(self.checkpoint, arithmetic)
        decoder = step_decoder(self.checkpoint, arithmetic)
        tokenized = self._tokenized_alike() if precision == "fp32" else None
        result = Comparison(len(self.sources), tokenized=tokenized)
        for (name, source), expected in zip(self.sources.items(), self.expected, strict=True):
            memory = encoder.encode([source])[0]
            logits = self._logits(decoder, memory, expected.target)
            result.memory = max(result.memory, _apart(memory, expected.memory))
            result.logits = max(result.logits, _apart(logits, expected.logits))
            if self._our_target(decoder, memory) == expected.target:
                result.same += 1
            else:
                result.different.append(name)
        encoder.close()
        decoder.close()
        return result

    @cached_property
    def expected(self) -> list[Expected]:
        """What Transformers says of each source."""
        return [self._expected(source) for source in self.sources.values()]

    @torch.inference_mode()
    def _expected(self, source: Any) -> Expected:
        encoded, target = self._encoded(source), self._their_target(source)
        memory = encoded.last_hidden_state
        answer = self.theirs(
            encoder_outputs=encoded,
            attention_mask=torch.ones(memory.shape[:2], dtype=torch.long),
            decoder_input_ids=torch.tensor([target]),
        )
        return Expected(memory[0].numpy(), answer.logits[0].numpy(), target)

    def _logits(self, decoder: StepDecoder, memory: Any, target: list[int]) -> Any:
        """Logits after each token of a target, (T, V)."""
        state = decoder.begin(torch.from_numpy(memory))
        asked = dict.fromkeys(range(len(target)), Question(logits=True))
        answer = decoder.advance([target], [state], (), asked, [len(target)])
        return np.stack([answer.logits[i] for i in range(len(target))])

    def _our_target(self, decoder: StepDecoder, memory: Any) -> list[int]:
        state = decoder.begin(torch.from_numpy(memory))
        positions = self.checkpoint.description.architecture.max_positions
        detokenizer = self.checkpoint.tokenizer.detokenizer()
        target = Target(self.start, state, detokenizer, positions)
        decoding = Sequential(target, GenerationOptions(), self.most, self.vocabulary)
        run(decoder, decoding, self.vocabulary.never)
        end = [target.end.id] if target.end else []
        return [*self.start, *(token.id for token in target.produced), *end]

    @property
    def most(self) -> int:
        """Tokens behind what a target begins with, at most."""
        return NEW_TOKENS - len(self.start) + 1


def check_languages(checkpoint: Checkpoint, source: str, target: str) -> None:
    """ConfigurationError unless the model knows both."""
    languages = checkpoint.description.languages
    targets = languages.starts if languages.on_decoder else languages.bindings
    for name, value, known in (
        ("source_language", source, languages.sources),
        ("target_language", target, targets),
    ):
        if value not in known:
            some = ", ".join(filter(None, known)) or "(none)"
            raise ConfigurationError(f"{name}: must be one of {some}, got {value!r}")


def opened(folder: Path, kind: str) -> Any:
    """Open a folder with one of Transformers' classes.

    Raises:
        ConfigurationError: Transformers is not here, or cannot open it.
    """
    if importlib.util.find_spec("transformers") is None:
        raise ConfigurationError("verify: needs Transformers (pip install transformers)")
    import transformers  # noqa: PLC0415 (not needed to serve)

    try:
        model = getattr(transformers, kind).from_pretrained(
            folder, dtype=torch.float32, local_files_only=True
        )
    except Exception as error:  # it may raise anything
        raise ConfigurationError(f"verify: Transformers cannot open it: {error}") from error
    return model.eval()


def _apart(ours: Any, theirs: Any) -> float:
    """Largest difference as a share of the largest value."""
    return float(np.abs(ours - theirs).max() / max(1e-9, float(np.abs(theirs).max())))
