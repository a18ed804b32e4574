"""Writing files that are generated, or, with `--check`, only saying which of them are stale."""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path


def checking(does: str) -> bool:
    """Read the command line of a tool that `does` something; return whether it is only to check."""
    parser = argparse.ArgumentParser(description=does)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if stale")
    check: bool = parser.parse_args().check
    return check


def settle(texts: Mapping[Path, str], check: bool) -> int:
    """Write every file whose text is another, or, if `check`, name it; return the exit status."""
    tool = Path(sys.argv[0]).stem
    stale = [file for file, text in texts.items() if not _holds(file, text)]
    for file in stale:
        if check:
            print(f"{file.name} is stale: run `python -m tools.{tool}`", file=sys.stderr)
        else:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(texts[file], encoding="utf-8")
    return 1 if check and stale else 0


def _holds(file: Path, text: str) -> bool:
    return file.is_file() and file.read_text(encoding="utf-8") == text
