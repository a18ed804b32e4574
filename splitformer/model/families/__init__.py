"""Families of published checkpoints: each says how its files become our model.

A family maps config.json to a `Description`, opens its tokenizer and says under which names its
tensors are stored. The arithmetic is the same for all (`TransformerConfig`).
"""

from __future__ import annotations

from splitformer.errors import ConfigurationError
from splitformer.model.families.bart import BartFamily, MBartFamily
from splitformer.model.families.family import Family
from splitformer.model.families.m2m100 import M2M100Family
from splitformer.model.families.marian import MarianFamily
from splitformer.model.families.splitformer import SplitformerFamily
from splitformer.model.families.t5 import T5Family
from splitformer.model.families.whisper import WhisperFamily
from splitformer.model.files import Files

FAMILIES: dict[str, Family] = {
    "splitformer": SplitformerFamily(),
    "marian": MarianFamily(),
    "m2m_100": M2M100Family(),
    "bart": BartFamily(),
    "mbart": MBartFamily(),
    "t5": T5Family("t5"),
    "mt5": T5Family("mt5"),
    "whisper": WhisperFamily(),
}
"""By the `model_type` of config.json."""


def family_of(files: Files) -> Family:
    """Return the family of a model folder.

    Raises:
        ConfigurationError: config.json is unreadable or names a type that we do not know.
    """
    given = files.settings("config.json").get("model_type")
    if not isinstance(given, str) or given not in FAMILIES:
        raise ConfigurationError(f"model_type: must be one of {', '.join(FAMILIES)}, got {given!r}")
    return FAMILIES[given]
