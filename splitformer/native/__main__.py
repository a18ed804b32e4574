"""`python -m splitformer.native`: build the library and say what it will run on.

With `--package` it is built inside the package, for images and wheels. With `--sanitize` the C++
self-test is built with the given sanitizers and run; exit status 2 if the compiler lacks them.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

from splitformer.native import instruction_set, reason
from splitformer.native.build import (
    BuildError,
    build_into_package,
    build_self_test,
    find_or_build,
)


def main() -> int:
    """Run the command; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m splitformer.native", description=__doc__)
    parser.add_argument("--package", action="store_true", help="build inside the package")
    parser.add_argument(
        "--sanitize", metavar="LIST", help='run the self-test, e.g. with "address,undefined"'
    )
    options = parser.parse_args()
    try:
        if options.sanitize is not None:
            return _self_test(options.sanitize)
        path = build_into_package() if options.package else find_or_build()
    except BuildError as error:
        return _say(str(error), 1)
    if why_not := reason():
        return _say(f"{path}: built, but cannot be used here: {why_not}", 1)
    return _say(f"{path}: {instruction_set().name}", 0)


def _self_test(sanitizers: str) -> int:
    try:
        path = build_self_test(sanitizers)
    except BuildError as error:
        return _say(str(error), 2)
    return subprocess.run([path], check=False).returncode


def _say(text: str, status: int) -> int:
    print(text, file=sys.stderr if status else sys.stdout)
    return status


if __name__ == "__main__":
    sys.exit(main())
