"""Values of config.json and generation_config.json, taken with errors that name the field."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypedDict, TypeVar

from splitformer.errors import ConfigurationError
from splitformer.model.config import Activation
from splitformer.model.files import Files

GENERATION = "generation_config.json"
TOKENIZER_SETTINGS = "tokenizer_config.json"
ACTIVATIONS: Mapping[str, Activation] = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
T = TypeVar("T")


class Fields:
    """An object of a JSON file.

    Args:
        values: The object.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values

    def has(self, name: str) -> bool:
        """True if a field is there and not null."""
        return self.values.get(name) is not None

    def integer(self, name: str, default: int | None = None) -> int:
        """Return a whole number; `default` if the field is missing or null."""
        value = self.values.get(name, default)
        value = default if value is None else value
        if type(value) is not int:
            raise ConfigurationError(f"{name}: must be an integer, got {value!r}")
        return value

    def number(self, name: str, default: float) -> float:
        """Return a number; `default` if the field is missing or null."""
        value = self.values.get(name, default)
        value = default if value is None else value
        if type(value) not in (int, float):
            raise ConfigurationError(f"{name}: must be a number, got {value!r}")
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        """Return true or false; `default` if the field is missing."""
        value = self.values.get(name, default)
        if not isinstance(value, bool):
            raise ConfigurationError(f"{name}: must be true or false, got {value!r}")
        return value

    def text(self, name: str, default: str = "") -> str:
        """Return a string; `default` if the field is missing or null."""
        value = self.values.get(name)
        value = default if value is None else value
        if not isinstance(value, str):
            raise ConfigurationError(f"{name}: must be a string, got {value!r}")
        return value

    def choice(self, name: str, default: str, known: Mapping[str, T]) -> T:
        """Return what a name stands for."""
        value = self.text(name, default)
        if value not in known:
            raise ConfigurationError(f"{name}: must be one of {', '.join(known)}, got {value!r}")
        return known[value]


class StackSizes(TypedDict):
    """Sizes of both stacks, as `TransformerConfig` names them."""

    d_model: int
    heads: int
    decoder_heads: int
    encoder_layers: int
    decoder_layers: int
    d_feed_forward: int
    decoder_feed_forward: int


def stack_sizes(config: Fields) -> StackSizes:
    """Return the sizes that config.json has under fairseq's names."""
    return {
        "d_model": config.integer("d_model"),
        "heads": config.integer("encoder_attention_heads"),
        "decoder_heads": config.integer("decoder_attention_heads"),
        "encoder_layers": config.integer("encoder_layers"),
        "decoder_layers": config.integer("decoder_layers"),
        "d_feed_forward": config.integer("encoder_ffn_dim"),
        "decoder_feed_forward": config.integer("decoder_ffn_dim"),
    }


def tokenizer_settings(files: Files) -> Fields:
    """Return tokenizer_config.json, empty if there is none."""
    return Fields(files.settings(TOKENIZER_SETTINGS) if files.has(TOKENIZER_SETTINGS) else {})


def generation_settings(files: Files, config: Fields) -> Fields:
    """Return generation_config.json, or config.json where there is none, as older ones."""
    return Fields(files.settings(GENERATION)) if files.has(GENERATION) else config


@dataclass(frozen=True, slots=True)
class Generation:
    """How a checkpoint's targets begin and end.

    Attributes:
        eos_id: Ends targets.
        start_id: The decoder's first input.
        forced_first: Comes right behind it, whatever is likeliest; None: nothing does.
        never_generated: Ids that no target may contain.
        end_at_limit: The last token that there is room for is the end token.
    """

    eos_id: int
    start_id: int
    forced_first: int | None
    never_generated: tuple[int, ...]
    end_at_limit: bool

    @property
    def start(self) -> tuple[int, ...]:
        """The decoder's first input where no language decides it."""
        return (self.start_id,) if self.forced_first is None else (self.start_id, self.forced_first)

    @classmethod
    def read(cls, files: Files, config: Fields, start_id: int | None = None) -> Generation:
        """Read generation_config.json, or config.json where there is none, as older ones.

        Args:
            files: The folder.
            config: config.json.
            start_id: The decoder's first input where neither file names it.

        Raises:
            ConfigurationError: It asks for what we do not have.
        """
        own = generation_settings(files, config)
        both = Fields({**config.values, **{k: v for k, v in own.values.items() if v is not None}})
        eos_id = _one_end(both.values.get("eos_token_id"))
        forced_end = _one_end(own.values["forced_eos_token_id"]) if own.has(_FORCED_END) else None
        if forced_end not in (None, eos_id):
            raise ConfigurationError(
                f"{_FORCED_END}: must be the end token {eos_id}, got {forced_end}"
            )
        forced = own.integer("forced_bos_token_id") if own.has("forced_bos_token_id") else None
        never = (*_banned(own.values.get("bad_words_ids")), *_ids(own, "suppress_tokens"))
        start = both.integer("decoder_start_token_id", start_id)
        return cls(eos_id, start, forced, tuple(dict.fromkeys(never)), forced_end is not None)


_FORCED_END = "forced_eos_token_id"


def _one_end(value: object) -> int:
    ids = value if isinstance(value, list) else [value]
    if len(ids) != 1 or type(ids[0]) is not int:
        raise ConfigurationError(f"eos_token_id: must be one id, got {value!r}")
    return ids[0]


def _banned(value: object) -> list[int]:
    """Words that may not be generated; those of several tokens would need a filter of their own."""
    words = value or []
    if not isinstance(words, list) or not all(isinstance(w, list) and len(w) == 1 for w in words):
        raise ConfigurationError(f"bad_words_ids: must hold lists of one id each, got {value!r}")
    return [word[0] for word in words]


def _ids(fields: Fields, name: str) -> list[int]:
    value = fields.values.get(name) or []
    if not isinstance(value, list):
        raise ConfigurationError(f"{name}: must be a list of ids, got {value!r}")
    return value
