"""Placeholders and markup of software text, which a translation has to repeat letter by letter.

They are printf's (``%s``, ``%1$d``, ``%(name)s``), Qt's (``%1``, ``%n``), those in braces
(``{}``, ``{name}``, ``${name}``, ``{{name}}``), variables (``$name``, ``%NAME%``), tags and
entities (``<b>``, ``&lt;``). What letters follow is part of a word, and no placeholder; letters of
scripts without spaces are not of that word.
"""

from __future__ import annotations

import re
from collections import Counter

from splitformer import words

_PATTERN = re.compile(
    r"""
    </?[A-Za-z][^<>]*>                                # <b>, </a>, <a href="%1">
  | &(?:[A-Za-z]\w+|\#\w+);                           # &lt;, &#160;
  | %\(\w+\)[-+0]*\d*(?:\.\d+)?[A-Za-z]               # %(name)s
  | %(?:\d+\$)?[-+0\#']*(?:\d+|\*)?(?:\.(?:\d+|\*))?(?:hh?|ll?|[jLqtz])?[cdefgiosuxEGX]
  | %L?\d{1,2} | %n | %%                              # %1, %L1
  | %[A-Z][A-Z_]{2,}%?                                # %NAME%
  | \$?\{\{?[^{}\s"']*\}\}?                           # {}, {name}, {0:d}, ${name}
  | \$[A-Za-z_]\w*(?:\.\w+)*                          # $name
    """,
    re.ASCII | re.VERBOSE,
)


def placeholders(text: str) -> Counter[str]:
    """Return the placeholders of a text, and how many times each stands in it."""
    found = _PATTERN.finditer(text)
    return Counter(each[0] for each in found if not words.inside(text, each.end()))


def astray(source: str, text: str) -> int:
    """Return how many placeholders a translation lacks, or has beyond those of its source."""
    wanted, found = placeholders(source), placeholders(text)
    return (wanted - found).total() + (found - wanted).total()
