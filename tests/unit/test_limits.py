"""What a container's limit of memory has room for is known before it is taken."""

from __future__ import annotations

from pathlib import Path

import pytest

from splitformer.errors import ConfigurationError
from splitformer.serving import limits

MIB = 2**20


def given(monkeypatch: pytest.MonkeyPatch, folder: Path, text: str) -> None:
    """Let there be a limit."""
    file = folder / "limit"
    file.write_text(text)
    monkeypatch.setattr(limits, "_LIMIT_FILES", (str(folder / "absent"), str(file)))


@pytest.mark.parametrize("text", ["max\n", "9223372036854771712\n", "\n"])
def test_without_a_limit_everything_fits(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str
) -> None:
    given(monkeypatch, tmp_path, text)
    assert limits.memory_limit() is None
    limits.check_budget_fits(2**50, "")


def test_budget_model_and_process_must_fit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(bytes(3 * MIB))
    given(monkeypatch, tmp_path, f"{400 * MIB}\n")
    limits.check_budget_fits(269 * MIB, str(tmp_path))
    with pytest.raises(ConfigurationError) as caught:
        limits.check_budget_fits(270 * MIB, str(tmp_path))
    assert str(caught.value) == (
        "memory: must fit into this container's limit of 400 MiB, got memory_bytes (270 MiB) + the"
        " model (3 MiB) + the process (128 MiB); raise the limit to 401 MiB, or lower memory_bytes"
    )


def test_a_limit_below_the_bare_process_ends_it_with_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given(monkeypatch, tmp_path, f"{64 * MIB}\n")
    with pytest.raises(SystemExit) as caught:
        limits.check_process_fits("decoder-service")
    assert caught.value.code == 2
    assert capsys.readouterr().err == (
        "decoder-service: memory: must fit into this container's limit of 64 MiB, got the process"
        " (128 MiB); raise the limit to 128 MiB\n"
    )


def test_torch_takes_more(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given(monkeypatch, tmp_path, f"{400 * MIB}\n")
    limits.check_budget_fits(16 * MIB, "", with_torch=True)
    with pytest.raises(ConfigurationError, match=r"the process \(384 MiB\)"):
        limits.check_budget_fits(17 * MIB, "", with_torch=True)
