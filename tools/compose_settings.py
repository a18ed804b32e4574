"""Write the services' settings into deploy/compose.yaml, so that `.env` may hold any of them.

Compose hands a variable that is listed without a value on to the container if it is set, and only
then. Usage: `python -m tools.compose_settings [--check]`.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

from decoder_service.settings import DecoderSettings
from encoder_service.settings import EncoderSettings
from splitformer.serving.settings import Settings
from tools.generated import checking, settle

FILE = Path(__file__).resolve().parent.parent / "deploy/compose.yaml"
FIXED = frozenset(
    ("host", "port", "metrics_port", "advertise", "endpoint", "encoders", "encoder_tls")
)
"""Given by the Compose files, as are the TLS files."""

_INDENT = "      "


def variables(kind: type[Settings]) -> list[str]:
    """Return the names of the variables that are passed on."""
    names = [field.name for field in dataclasses.fields(kind)]
    open_ones = [each for each in names if each not in FIXED and not each.startswith("tls_")]
    return [kind.prefix + each.upper() for each in open_ones if each != "encoder_ca"]


def filled(text: str) -> str:
    """Return the file's text with both lists as they should be."""
    for name, kind in (("encoder", EncoderSettings), ("decoder", DecoderSettings)):
        begin, end = f"{_INDENT}# begin {name} settings\n", f"{_INDENT}# end {name} settings\n"
        before, _, rest = text.partition(begin)
        after = rest.partition(end)[2]
        lines = "".join(f"{_INDENT}- {variable}\n" for variable in variables(kind))
        text = before + begin + lines + end + after
    return text


def main() -> int:
    """Write the file, or check it."""
    check = checking("Write the settings that deploy/compose.yaml passes on.")
    return settle({FILE: filled(FILE.read_text(encoding="utf-8"))}, check)


if __name__ == "__main__":
    sys.exit(main())
