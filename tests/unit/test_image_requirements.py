"""What the images are made of is pinned by hash, and agrees with pyproject.toml."""

from __future__ import annotations

import re

import pytest

from tools import image_requirements
from tools.image_requirements import SETS, Set, stale

EACH = pytest.mark.parametrize("each", SETS, ids=lambda each: each.name)


def test_no_file_is_stale() -> None:
    assert not stale(), "run tools/image_requirements.py"


@EACH
def test_every_package_has_a_version_and_a_hash(each: Set) -> None:
    lines = [line for line in each.file.read_text().splitlines() if not line.startswith("#")]
    for pin, digest in zip(lines[::2], lines[1::2], strict=True):
        assert re.fullmatch(r"[a-z0-9-]+==[\w.+]+ \\", pin)
        assert re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}", digest)


def test_torch_is_in_what_is_named_for_it_and_only_one_kind_has_cuda() -> None:
    text = {each.name: each.file.read_text() for each in SETS}
    assert [name for name in text if "\ntorch==" in text[name]] == ["cpu", "cuda"]
    assert [name for name in text if "nvidia" in text[name]] == ["cuda"]
    assert "\ntorch==2.13.0+cpu " in text["cpu"]


def test_a_changed_requirement_or_pin_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    more = Set("client", SETS[0].purpose, extras=("otel",))
    assert image_requirements._is_current(SETS[0])
    assert not image_requirements._is_current(more)
    monkeypatch.setattr(image_requirements, "PYTHON", "3.12")
    assert stale() == [each.name for each in SETS]
