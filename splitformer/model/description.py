"""What a model folder's configuration comes to, whatever family it is of."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from splitformer.errors import ConfigurationError
from splitformer.model.config import TransformerConfig
from splitformer.model.languages import Frame, Languages
from splitformer.model.speech import Speech


@dataclass(frozen=True, slots=True)
class Description:
    """A model, apart from its weights and its tokenizer.

    Attributes:
        name: Name under which requests ask for the model.
        family: Name of the family that described it.
        architecture: Shape of the Transformer.
        eos_id: Ends targets.
        languages: How it is told its languages.
        never_generated: Ids that no target may contain.
        end_at_limit: The last token that there is room for is the end token, whatever is likeliest.
        speech: What there is to say of a model whose sources are audio; None: they are text.

    Raises:
        ConfigurationError: An id is not in its vocabulary.
    """

    name: str
    family: str
    architecture: TransformerConfig
    eos_id: int
    languages: Languages
    never_generated: tuple[int, ...] = ()
    end_at_limit: bool = False
    speech: Speech | None = None

    def __post_init__(self) -> None:
        size = self.architecture.target_vocabulary_size
        for name, token in self._target_ids():
            check_id(name, token, size)
        size = self.architecture.source_vocabulary_size
        for group in (self.languages.sources, self.languages.bindings):
            for language, frame in group.items():
                for token in (*frame.before, *frame.after):
                    check_id(f"source_languages.{language}", token, size)

    def _target_ids(self) -> Iterator[tuple[str, object]]:
        yield "eos_id", self.eos_id
        for language, start in self.languages.starts.items():
            for token in start:
                yield f"target_languages.{language}", token
        for token in self.never_generated:
            yield "never_generated", token

    def identity(self) -> dict[str, Any]:
        """Return what tells models apart as JSON-ready values: all but the name."""
        values = dataclasses.asdict(self)
        del values["name"]
        return values


def check_id(name: str, token: object, size: int) -> None:
    """ConfigurationError unless `token` is an id of a vocabulary of this size."""
    if type(token) is not int or not 0 <= token < size:
        raise ConfigurationError(f"{name}: must be an id below {size}, got {token!r}")


__all__ = ["Description", "Frame", "Languages", "check_id"]
