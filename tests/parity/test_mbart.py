"""mBART and mBART-50 folders as downloaded: what Transformers computes with them, we do too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from sentencepiece import SentencePieceProcessor
from transformers import (
    MBart50Tokenizer,
    MBartConfig,
    MBartForConditionalGeneration,
    MBartTokenizer,
)
from transformers.models.mbart import tokenization_mbart
from transformers.models.mbart50 import tokenization_mbart50

from splitformer.model.checkpoint import Checkpoint
from tests.support.checkpoints import SENTENCES
from tests.support.hub_tokenizers import FAIRSEQ, train_unigram
from tests.support.pairs import POSITIONS, Pair, train_pieces, varied
from tests.support.servers import ServerThread

SHORT = ("Open the file.", "Save all changes now", "naïve café 😀")
TEXTS = (*SENTENCES, "Größe: 5 µm (ungefähr) 😀", "two  spaces", "naïve café")
KINDS = {"mbart": MBartTokenizer, "mbart50": MBart50Tokenizer}


def make_pair(folder: Path, kind: str) -> Pair:
    trained = json.loads(train_unigram(FAIRSEQ).to_str())["model"]["vocab"]
    codes = language_codes(kind)
    vocabulary = [*map(tuple, trained), *((code, 0.0) for code in codes), ("<mask>", 0.0)]
    KINDS[kind](vocab=vocabulary).save_pretrained(folder)
    return save_model(folder, len(vocabulary), kind)


def language_codes(kind: str) -> list[str]:
    module = tokenization_mbart if kind == "mbart" else tokenization_mbart50
    return list(module.FAIRSEQ_LANGUAGE_CODES)


def save_model(folder: Path, size: int, kind: str) -> Pair:
    config = MBartConfig(
        vocab_size=size,
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_position_embeddings=POSITIONS,
        scale_embedding=True,
        decoder_start_token_id=2 if kind == "mbart50" else None,
        init_std=0.05,
    )
    torch.manual_seed(5)
    model = MBartForConditionalGeneration(config)
    for stack in (model.model.encoder, model.model.decoder):
        stack.embed_positions.weight.data.normal_(std=0.3)
    return Pair.of(varied(model), folder)


@pytest.fixture(scope="module", params=list(KINDS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def pair(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return make_pair(tmp_path_factory.mktemp("mbart") / kind, kind)


@pytest.fixture(scope="module")
def tokenizer(kind: str, pair: Pair) -> Any:
    return KINDS[kind].from_pretrained(pair.folder)


def forced(kind: str, tokenizer: Any, language: str) -> dict[str, Any]:
    """How Transformers is told the target language."""
    token = tokenizer.convert_tokens_to_ids(language)
    return {"decoder_start_token_id" if kind == "mbart" else "forced_bos_token_id": token}


def test_encoder_output_and_logits(pair: Pair) -> None:
    pair.check_encoder()
    pair.check_logits()


@pytest.mark.parametrize("text", TEXTS)
def test_tokenizer(pair: Pair, tokenizer: Any, text: str) -> None:
    for language in ("en_XX", "ja_XX"):
        tokenizer.src_lang = language
        assert pair.source_ids(text, language) == tokenizer(text).input_ids
    ids = tokenizer(text, add_special_tokens=False).input_ids
    assert pair.checkpoint.tokenizer.encode_target(text) == ids
    expected = tokenizer.decode(ids, skip_special_tokens=True)
    assert pair.checkpoint.tokenizer.decode(ids).strip() == expected.strip()


def test_forced_languages(pair: Pair, kind: str, tokenizer: Any) -> None:
    outputs = {
        language: pair.check_greedy(
            pair.source_ids(SHORT[0], "en_XX"), language, **forced(kind, tokenizer, language)
        )
        for language in ("de_DE", "ro_RO")
    }
    assert outputs["de_DE"] != outputs["ro_RO"]
    code = tokenizer.convert_tokens_to_ids("ro_RO")
    assert outputs["ro_RO"][: 1 if kind == "mbart" else 2] == (
        [code] if kind == "mbart" else [2, code]
    )


def test_over_the_wire(pair: Pair, kind: str, tokenizer: Any, servers: ServerThread) -> None:
    requests = [(text, "en_XX", to) for text in SHORT for to in ("de_DE", "fr_XX")]
    expected = [
        pair.check_greedy(pair.source_ids(text, source), to, **forced(kind, tokenizer, to))
        for text, source, to in requests
    ]
    pair.check_wire(servers, requests, expected)


def test_one_target_needs_no_name(pair: Pair, kind: str, tokenizer: Any) -> None:
    """As mbart-large-en-ro and mbart-large-50-many-to-one do."""
    path = pair.folder / "generation_config.json"
    saved = path.read_text()
    token = tokenizer.convert_tokens_to_ids("ro_RO")
    path.write_text(json.dumps(json.loads(saved) | forced(kind, tokenizer, "ro_RO")))
    try:
        starts = Checkpoint(pair.folder).description.languages.starts
        assert starts[""] == starts["ro_RO"]
        assert starts[""][-1] == token
    finally:
        path.write_text(saved)
    assert "" not in Checkpoint(pair.folder).description.languages.starts


def test_pieces_alone(kind: str, tmp_path: Path) -> None:
    """Folders without tokenizer.json: SentencePiece's pieces, numbered as fairseq does."""
    pieces = train_pieces(tmp_path / "sentencepiece.bpe.model", 200)
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": KINDS[kind].__name__})
    )
    codes = language_codes(kind)
    pair = save_model(tmp_path, len(pieces) + 1 + len(codes) + 1, kind)
    processor = SentencePieceProcessor(model_file=str(tmp_path / "sentencepiece.bpe.model"))
    english = len(pieces) + 1 + codes.index("en_XX")
    last = pair.checkpoint.description.languages.starts[codes[-1]]
    assert last[-1] == pair.theirs.config.vocab_size - 2, "the mask comes behind the languages"
    for text in TEXTS:
        own = [3 if token == 0 else token + 1 for token in processor.encode(text)]
        framed = [*own, 2, english] if kind == "mbart" else [english, *own, 2]
        assert pair.source_ids(text, "en_XX") == framed
