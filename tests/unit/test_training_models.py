"""The weights' own distribution."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

PACKAGE = Path(__file__).parents[2] / "models" / "splitformer_models"


@pytest.fixture
def models(tmp_path: Path) -> ModuleType:
    """The package, copied beside a folder that looks like a model."""
    code = tmp_path / "__init__.py"
    code.write_text((PACKAGE / "__init__.py").read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "en-multi").mkdir()
    (tmp_path / "en-multi" / "config.json").write_text("{}")
    spec = importlib.util.spec_from_file_location("copied_models", code)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_path_of_a_model(models: ModuleType, tmp_path: Path) -> None:
    assert models.model_names() == ["en-multi"]
    assert models.model_path() == models.model_path("en-multi") == tmp_path / "en-multi"


def test_unknown_names_are_refused(models: ModuleType) -> None:
    with pytest.raises(ValueError, match="name: must be one of en-multi, got 'xx'"):
        models.model_path("xx")
    with pytest.raises(ValueError, match="must be one of"):
        models.model_path("../en-multi")
