"""The default weights of Splitformer, as files."""

from __future__ import annotations

from pathlib import Path

__all__ = ["DEFAULT_MODEL", "model_names", "model_path"]

DEFAULT_MODEL = "en-multi"


def model_names() -> list[str]:
    """Return the names of the models this distribution holds, sorted."""
    folder = Path(__file__).parent
    return sorted(config.parent.name for config in folder.glob("*/config.json"))


def model_path(name: str = DEFAULT_MODEL) -> Path:
    """Return the folder of a model: config.json, model.safetensors and the tokenizer.

    Raises:
        ValueError: No model has that name; the message lists those that exist.
    """
    names = model_names()
    if name not in names:
        raise ValueError(f"name: must be one of {', '.join(names)}, got {name!r}")
    return Path(__file__).parent / name
