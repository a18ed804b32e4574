"""Options of generation that a model folder sets for requests that say nothing of them.

Folders hold many such suggestions, in generation_config.json, or in config.json where they are
older. Taken over are those that rule tokens out or make them less likely, so that greedy decoding
gives what Transformers' `generate` gives with the same folder. Those that take more work than a
caller asked for (`num_beams`), that choose at random, or that bound lengths, are not.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from splitformer.errors import ConfigurationError
from splitformer.model.families.fields import Fields, generation_settings
from splitformer.model.files import Files


@dataclass(frozen=True, slots=True)
class Defaults:
    """What holds where a request does not say otherwise.

    Attributes:
        no_repeat_ngram_size: No n-gram of this size occurs twice; 0: any may.
        repetition_penalty: Makes tokens that were said less likely; 1: it does not.

    Raises:
        ConfigurationError: A value breaks its rule.
    """

    no_repeat_ngram_size: int = 0
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        for name, least, fine in (
            ("no_repeat_ngram_size", "at least 0", self.no_repeat_ngram_size >= 0),
            ("repetition_penalty", "above 0", 0 < self.repetition_penalty < float("inf")),
        ):
            if not fine:
                raise ConfigurationError(f"{name}: must be {least}, got {getattr(self, name)!r}")

    @staticmethod
    def read(files: Files) -> Defaults:
        """Read a folder's.

        Raises:
            ConfigurationError: A value is of another type, or breaks its rule.
        """
        given = generation_settings(files, Fields(files.settings("config.json")))
        off = Defaults()
        penalty = given.number("repetition_penalty", off.repetition_penalty)
        return Defaults(given.integer("no_repeat_ngram_size", off.no_repeat_ngram_size), penalty)

    @property
    def set(self) -> dict[str, float]:
        """Those that do something, by name."""
        off = asdict(Defaults())
        return {name: value for name, value in asdict(self).items() if value != off[name]}
