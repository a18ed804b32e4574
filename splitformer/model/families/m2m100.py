"""M2M100 (Fan et al. 2021), NLLB-200 (Costa-jussà et al. 2022) and SMaLL-100 (Mohammadshahi 2022).

One architecture. A source begins with its language's token, and so does a target, behind the end
token; SMaLL-100 puts the target's language before the source instead and knows no other. M2M100
numbers its pieces by vocab.json, NLLB by tokenizer.json.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from splitformer.errors import ConfigurationError
from splitformer.model.config import TransformerConfig
from splitformer.model.description import Description
from splitformer.model.families import fairseq
from splitformer.model.families.family import Stored
from splitformer.model.families.fields import Fields, Generation, tokenizer_settings
from splitformer.model.families.names import is_redundant_like_fairseq, stored_like_fairseq
from splitformer.model.files import Files
from splitformer.model.languages import Frame, Languages
from splitformer.model.sentencepiece import VocabularyTokenizer, load_processor
from splitformer.model.tokenizer import Tokenizer

_VOCABULARY = "vocab.json"
_NLLB_CODE = re.compile(r"[a-z]{3}_[A-Z][a-z]{3}")
_ORDERS = {
    "m2m100": (
        "af am ar ast az ba be bg bn br bs ca ceb cs cy da de el en es et fa ff fi fr fy ga gd gl"
        " gu ha he hi hr ht hu hy id ig ilo is it ja jv ka kk km kn ko lb lg ln lo lt lv mg mk ml"
        " mn mr ms my ne nl no ns oc or pa pl ps pt ro ru sd si sk sl so sq sr ss su sv sw ta th"
        " tl tn tr uk ur uz vi wo xh yi yo zh zu"
    ),
    "wmt21": "en ha is ja cs ru zh de",
}
"""Languages in the order of their ids, which follow those of vocab.json."""


class M2M100Family:
    """M2M100, NLLB-200 and SMaLL-100, as a `Family`; see there."""

    name = "m2m_100"

    def describe(self, files: Files) -> Description:
        """Read a folder's configuration."""
        config = Fields(files.settings("config.json"))
        generation = Generation.read(files, config, fairseq.EOS)
        return Description(
            name=files.folder.name,
            family=self.name,
            architecture=fairseq.architecture(
                config,
                norm="pre",
                positions="sinusoidal_closed",
                position_offset=2,
                activation="relu",
                scale=True,
            ),
            eos_id=generation.eos_id,
            languages=_languages(files, generation),
            never_generated=generation.never_generated,
            end_at_limit=generation.end_at_limit,
        )

    def tokenizer(self, files: Files, description: Description) -> Tokenizer:
        """Open a folder's tokenizer."""
        codes = _codes(files)
        if not files.has(_VOCABULARY):
            return fairseq.piece_tokenizer(files, codes)
        processor = load_processor(files.content(fairseq.PIECES), fairseq.PIECES)
        ids = files.vocabulary(_VOCABULARY)
        quiet = {token for piece, token in ids.items() if piece in fairseq.SPECIAL}
        return VocabularyTokenizer(processor, processor, ids, ids, silent=quiet)

    def stored(self, name: str, config: TransformerConfig) -> Stored:
        """Say where a tensor of ours is kept."""
        return stored_like_fairseq(name, config)

    def is_redundant(self, name: str, config: TransformerConfig) -> bool:
        """True for a stored tensor that is no parameter of ours."""
        return is_redundant_like_fairseq(name, config)


def _languages(files: Files, generation: Generation) -> Languages:
    codes, settings = _codes(files), tokenizer_settings(files)
    if settings.text("tokenizer_class") == "SMALL100Tokenizer":
        bindings = {code: Frame(before=(token,)) for code, token in codes.items()}
        ends = {"": Frame(after=(generation.eos_id,))}
        return Languages(ends, {"": generation.start}, bindings)
    before = not settings.flag("legacy_behaviour", False)
    starts: dict[str, tuple[int, ...]]
    starts = {code: (generation.start_id, token) for code, token in codes.items()}
    if generation.start in starts.values():
        starts = {"": generation.start, **starts}
    default = settings.text("src_lang")
    return Languages(fairseq.frames(codes, before=before, default=default), starts)


def _codes(files: Files) -> Mapping[str, int]:
    """Languages and their ids."""
    if not files.has(_VOCABULARY):
        return fairseq.language_ids(files, _nllb_codes(files))
    order = tokenizer_settings(files).choice("language_codes", "m2m100", _ORDERS)
    first = 1 + max(files.vocabulary(_VOCABULARY).values(), default=-1)
    return {code: first + i for i, code in enumerate(order.split())}


def _nllb_codes(files: Files) -> list[str]:
    """NLLB's codes as its tokenizer.json has them."""
    if not files.has(fairseq.TOKENIZER):
        raise ConfigurationError(
            f"tokenizer: needs {_VOCABULARY} (M2M100) or {fairseq.TOKENIZER} (NLLB)"
        )
    return list(filter(_NLLB_CODE.fullmatch, fairseq.added_tokens(files)))
