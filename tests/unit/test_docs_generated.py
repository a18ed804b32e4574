"""The generated parts of the documents are what the code says now."""

from __future__ import annotations

import re
import subprocess
import sys
import xml.etree.ElementTree as ET

import pytest

from decoder_service.servicer import DecoderServicer
from encoder_service.servicer import EncoderServicer
from splitformer import errors
from tests.support.markdown import ROOT
from tools import draw_flow, reference_tables

_SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize(
    "tool",
    [
        "compose_settings",
        "dashboards",
        "draw_flow",
        "kubernetes_rules",
        "reference_tables",
        "slo_rules",
    ],
)
def test_generated_parts_are_up_to_date(tool: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", f"tools.{tool}", "--check"],
        cwd=ROOT,
        env={"PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_protocol_page_lists_every_reason_in_the_code_and_no_other() -> None:
    page = (ROOT / "docs/protocol.md").read_text(encoding="utf-8")
    table = page.partition("<!-- begin error reasons -->")[2].partition("<!-- end")[0]
    listed = set(re.findall(r"^\| `([A-Z_]+)`", table, re.MULTILINE))
    code = "".join(
        file.read_text(encoding="utf-8")
        for folder in reference_tables.SOURCES
        for file in (ROOT / folder).rglob("*.py")
    )
    named = set(re.findall(r'reason="([A-Z_]+)"', code))
    defaults = {error.default_reason for error in errors.ERRORS_BY_CODE.values()}
    assert named <= listed
    # What is listed beyond that is chosen by a condition, as in `reason="A" if x else "B"`.
    assert all(f'"{reason}"' in code for reason in listed - named - defaults)


@pytest.mark.parametrize("servicer", [EncoderServicer, DecoderServicer])
def test_every_rpc_is_offered(servicer: type) -> None:
    proto = f"{servicer.__module__.partition('.')[0]}.proto"
    assert {name for _, name, _, _ in reference_tables.rpcs(proto)} <= vars(servicer).keys()


def test_a_stale_table_is_noticed() -> None:
    page = (ROOT / "docs/operating.md").read_text(encoding="utf-8")
    doctored = page.replace("| `--max-batch` |", "| `--max-butch` |")
    assert doctored != page
    assert reference_tables.renewed(doctored, set()) == page


def test_meanings_of_reasons_are_kept_and_missing_ones_are_marked() -> None:
    written = "| `SESSION_BUSY` | ABORTED |  | Somebody else is at it. | `x.py` |"
    table = reference_tables.reasons_table(written)
    assert "| `SESSION_BUSY` | ABORTED |  | Somebody else is at it. | `decoder_service/" in table
    assert re.search(r"\| `QUEUE_FULL` \| RESOURCE_EXHAUSTED \| yes \| \? \|", table)


def test_the_picture_is_the_same_every_time_and_stays_inside_its_frame() -> None:
    drawn = draw_flow.draw()
    assert drawn == draw_flow.draw()
    root = ET.fromstring(drawn)
    for node in root.iter(f"{_SVG}text"):
        words = node.text or ""
        size, x = float(node.attrib["font-size"]), float(node.attrib["x"])
        assert size >= 13, words
        width = sum(size * (1.0 if ord(letter) > 0x2E80 else 0.6) for letter in words)
        left = {"start": x, "middle": x - width / 2, "end": x - width}[node.attrib["text-anchor"]]
        assert left >= 0, words
        assert left + width <= draw_flow.WIDTH, words


def test_the_picture_brings_its_own_background() -> None:
    root = ET.fromstring(draw_flow.draw())
    first = next(root.iter(f"{_SVG}rect"))
    assert first.attrib["fill"] == draw_flow.PAPER
    assert float(first.attrib["width"]) > 0.99 * draw_flow.WIDTH
