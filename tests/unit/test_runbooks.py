"""Every alert leads to a section of the operating page that says what to do."""

from __future__ import annotations

import re

from tests.support.markdown import ROOT

RULES = ROOT / "deploy/prometheus/rules"
PAGE = (ROOT / "docs/operating.md").read_text(encoding="utf-8")
METRIC = re.compile(r"\b(?:splitformer|grpc_server)_[a-z_]+\b")


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    text = "".join(file.read_text(encoding="utf-8") for file in sorted(RULES.glob("*.yml")))
    names = re.findall(r"- alert: (\w+)\n", text)
    anchors = re.findall(r"runbook: docs/operating.md#(\w+)\n", text)
    assert anchors == [name.lower() for name in names]
    assert re.findall(r"^#### (Splitformer\w+)$", PAGE, re.MULTILINE) == list(dict.fromkeys(names))


def test_rules_speak_of_metrics_that_the_page_lists() -> None:
    listed = set(re.findall(r"^\| `([a-z_]+)` \| (?:counter|gauge|histogram)", PAGE, re.MULTILINE))
    suffixed = {name + suffix for name in listed for suffix in ("", "_bucket", "_count", "_sum")}
    for file in RULES.glob("*.yml"):
        used = set(METRIC.findall(file.read_text(encoding="utf-8")))
        assert used <= suffixed, used - suffixed
