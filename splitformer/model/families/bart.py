"""BART (Lewis et al. 2020), mBART (Liu et al. 2020) and mBART-50 (Tang et al. 2020).

Learned positions, and a norm on the embeddings. BART normalises behind sublayers, mBART before
them. mBART's sources end with their language's token and its targets start with theirs; mBART-50
puts both at the beginning, the target's behind the end token.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from splitformer.model.byte_level import read_byte_level
from splitformer.model.config import NormPlacement, TransformerConfig
from splitformer.model.description import Description
from splitformer.model.families import fairseq
from splitformer.model.families.family import Stored
from splitformer.model.families.fields import Fields, Generation, tokenizer_settings
from splitformer.model.families.names import is_redundant_like_fairseq, stored_like_fairseq
from splitformer.model.files import Files
from splitformer.model.languages import Frame, Languages
from splitformer.model.tokenizer import Tokenizer
from splitformer.model.tokenizer_json import JsonTokenizer

_VOCABULARY = "vocab.json"
_MBART = (
    "ar_AR cs_CZ de_DE en_XX es_XX et_EE fi_FI fr_XX gu_IN hi_IN it_IT ja_XX kk_KZ ko_KR lt_LT"
    " lv_LV my_MM ne_NP nl_XX ro_RO ru_RU si_LK tr_TR vi_VN zh_CN"
).split()
_MBART_50 = (
    *_MBART,
    *(
        "af_ZA az_AZ bn_IN fa_IR he_IL hr_HR id_ID ka_GE km_KH mk_MK ml_IN mn_MN mr_IN pl_PL ps_AF"
        " pt_XX sv_SE sw_KE ta_IN te_IN th_TH tl_XX uk_UA ur_PK xh_ZA gl_ES sl_SI"
    ).split(),
)
"""Languages in the order of their ids."""


class _LikeBart:
    """What BART and mBART have in common."""

    def stored(self, name: str, config: TransformerConfig) -> Stored:
        """Say where a tensor of ours is kept."""
        return stored_like_fairseq(name, config)

    def is_redundant(self, name: str, config: TransformerConfig) -> bool:
        """True for a stored tensor that is no parameter of ours."""
        return is_redundant_like_fairseq(name, config)


class BartFamily(_LikeBart):
    """BART, as a `Family`; see there."""

    name = "bart"

    def describe(self, files: Files) -> Description:
        """Read a folder's configuration."""
        config = Fields(files.settings("config.json"))
        generation = Generation.read(files, config, fairseq.EOS)
        frame = Frame(before=(fairseq.BOS,), after=(fairseq.EOS,))
        languages = Languages({"": frame}, {"": generation.start})
        return _description(self.name, files, config, generation, languages, "post")

    def tokenizer(self, files: Files, description: Description) -> Tokenizer:
        """Open a folder's byte-level BPE; its mask may be spelled in a source."""
        quiet = {fairseq.BOS, fairseq.PAD, fairseq.EOS, fairseq.UNKNOWN}
        if files.has(fairseq.TOKENIZER):
            data = files.content(fairseq.TOKENIZER)
            return JsonTokenizer(data, fairseq.TOKENIZER, quiet, spelled=True)
        return JsonTokenizer(_byte_level(files), _VOCABULARY, quiet, spelled=True)


class MBartFamily(_LikeBart):
    """mBART and mBART-50, as a `Family`; see there."""

    name = "mbart"

    def describe(self, files: Files) -> Description:
        """Read a folder's configuration."""
        config = Fields(files.settings("config.json"))
        generation = Generation.read(files, config, fairseq.EOS)
        languages = _languages(files, generation)
        return _description(self.name, files, config, generation, languages, "pre")

    def tokenizer(self, files: Files, description: Description) -> Tokenizer:
        """Open a folder's tokenizer."""
        return fairseq.piece_tokenizer(files, _codes(files))


def _description(
    family: str,
    files: Files,
    config: Fields,
    generation: Generation,
    languages: Languages,
    norm: NormPlacement,
) -> Description:
    return Description(
        name=files.folder.name,
        family=family,
        architecture=fairseq.architecture(
            config, norm=norm, positions="learned", normalize_embeddings=True, output_bias=True
        ),
        eos_id=generation.eos_id,
        languages=languages,
        never_generated=generation.never_generated,
        end_at_limit=generation.end_at_limit,
    )


def _languages(files: Files, generation: Generation) -> Languages:
    """mBART's languages; a checkpoint for one target names it by its start or its forced token."""
    codes, settings = _codes(files), tokenizer_settings(files)
    later = len(codes) > len(_MBART)  # mBART-50
    first = (generation.start_id,) if later else ()
    starts = {code: (*first, token) for code, token in codes.items()}
    if generation.start in starts.values():
        starts = {"": generation.start, **starts}
    default = settings.text("src_lang")
    return Languages(fairseq.frames(codes, before=later, default=default), starts)


def _codes(files: Files) -> Mapping[str, int]:
    named = tokenizer_settings(files).text("tokenizer_class")
    later = named.startswith("MBart50") if named else files.has(fairseq.TOKENIZER)
    return fairseq.language_ids(files, _MBART_50 if later else _MBART)


def _byte_level(files: Files) -> bytes:
    """Put vocab.json and merges.txt, which older folders have, together as a tokenizer.json."""
    vocabulary, merges, added = read_byte_level(files)
    vocabulary |= added
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    special = [
        {
            "id": vocabulary[piece],
            "content": piece,
            "special": True,
            "lstrip": piece == "<mask>",
            **dict.fromkeys(("single_word", "rstrip", "normalized"), False),
        }
        for piece in (*fairseq.SPECIAL, "<mask>")
        if piece in vocabulary
    ]
    values = {
        "version": "1.0",
        "added_tokens": special,
        "pre_tokenizer": {**byte_level, "use_regex": True},
        "decoder": {**byte_level, "use_regex": True},
        "model": {"type": "BPE", "vocab": vocabulary, "merges": merges},
    }
    return json.dumps(values).encode()
