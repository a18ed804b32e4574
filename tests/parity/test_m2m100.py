"""M2M100 and SMaLL-100 folders as downloaded: what Transformers computes with them, we do too."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import M2M100Config, M2M100ForConditionalGeneration, M2M100Tokenizer

from splitformer.errors import InvalidArgumentError
from splitformer.generation import GenerationOptions, Target, Vocabulary, decoding_for, run
from splitformer.model.checkpoint import Checkpoint
from splitformer.model.torch_encoder import TorchEncoder
from splitformer_client import connect
from tests.support.checkpoints import SENTENCES
from tests.support.hub_tokenizers import FAIRSEQ
from tests.support.pairs import POSITIONS, Pair, train_pieces, varied
from tests.support.servers import ServerThread

SHORT = ("Open the file.", "Save all changes now", "naïve café 😀")
TEXTS = (*SENTENCES, "Größe: 5 µm (ungefähr) 😀", "  two  spaces ", "naïve café")
LANGUAGES, MADE_UP = 100, 8


def make_pair(folder: Path) -> Pair:
    folder.mkdir()
    pieces = train_pieces(folder / "sentencepiece.bpe.model", 200)
    ids = {piece: i for i, piece in enumerate([*FAIRSEQ, *pieces[3:]])}
    (folder / "vocab.json").write_text(json.dumps(ids))
    config = M2M100Config(
        vocab_size=len(ids) + LANGUAGES + MADE_UP,
        d_model=32,
        encoder_layers=2,
        decoder_layers=3,
        encoder_attention_heads=4,
        decoder_attention_heads=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=48,
        max_position_embeddings=POSITIONS,
        init_std=0.05,
    )
    M2M100Tokenizer(
        str(folder / "vocab.json"), str(folder / "sentencepiece.bpe.model")
    ).save_pretrained(folder)
    edit_settings(folder, src_lang=None)
    torch.manual_seed(5)
    return Pair.of(varied(M2M100ForConditionalGeneration(config)), folder)


def edit_settings(folder: Path, **changes: object) -> None:
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return make_pair(tmp_path_factory.mktemp("m2m") / "m2m100_tiny")


@pytest.fixture(scope="module")
def tokenizer(pair: Pair) -> M2M100Tokenizer:
    return M2M100Tokenizer.from_pretrained(pair.folder)


def test_encoder_output(pair: Pair) -> None:
    pair.check_encoder()


def test_logits(pair: Pair) -> None:
    pair.check_logits()


def test_forced_languages(pair: Pair, tokenizer: M2M100Tokenizer) -> None:
    outputs = []
    for language in ("de", "ja"):
        first = tokenizer.get_lang_id(language)
        for text in SHORT:
            ids = pair.source_ids(text, "en")
            outputs.append(pair.check_greedy(ids, language, forced_bos_token_id=first))
            assert outputs[-1][:2] == [2, first]
    assert outputs[0] != outputs[len(SHORT)]
    assert len({token for output in outputs for token in output}) > 8, "repetition proves little"


@torch.inference_mode()
@pytest.mark.parametrize("penalty", [1.0, 0.0, 2.0, -1.0])
def test_beams_count_the_language(pair: Pair, tokenizer: M2M100Tokenizer, penalty: float) -> None:
    """A token that is forced has no cost, but Transformers counts it in the length."""
    ids, most, description = pair.source_ids(SHORT[0], "en"), 24, pair.checkpoint.description
    theirs = pair.theirs.generate(
        torch.tensor([ids]),
        num_beams=4,
        num_return_sequences=4,
        length_penalty=penalty,
        max_length=most + 1,
        early_stopping=False,
        output_scores=True,
        return_dict_in_generate=True,
        forced_bos_token_id=tokenizer.get_lang_id("de"),
    )
    start = description.languages.starts["de"]
    memory = torch.from_numpy(TorchEncoder(pair.ours.encoder).encode([ids])[0])
    for decoder in pair.decoders():
        detokenizer = pair.checkpoint.tokenizer.detokenizer()
        target = Target(start, decoder.begin(memory), detokenizer, most, forced=len(start) - 1)
        options = GenerationOptions(num_beams=4, num_return_sequences=4, length_penalty=penalty)
        size = description.architecture.target_vocabulary_size
        vocabulary = Vocabulary(description.eos_id, description.never_generated, size)
        run(decoder, decoding_for(target, options, 1000, vocabulary), vocabulary.never)
        assert target.search is not None
        found = [*target.search.found(options)]
        assert [each.score for each in found] == pytest.approx(
            theirs.sequences_scores.tolist(), rel=1e-4
        )
        for each, expected in zip(found, theirs.sequences.tolist(), strict=True):
            ours = [*start, *(token.id for token in each.tokens)]
            assert expected[: len(ours)] == ours


@pytest.mark.parametrize("text", TEXTS)
def test_tokenizer(pair: Pair, tokenizer: M2M100Tokenizer, text: str) -> None:
    for language in ("en", "zu"):
        tokenizer.src_lang = language
        assert pair.source_ids(text, language) == tokenizer(text).input_ids
    tokenizer.tgt_lang = "de"
    first, *target = tokenizer(text_target=text).input_ids
    assert pair.checkpoint.description.languages.starts["de"] == (2, first)
    assert [*pair.checkpoint.tokenizer.encode_target(text), 2] == target
    expected = tokenizer.decode(target, skip_special_tokens=True)
    assert pair.checkpoint.tokenizer.decode([first, *target]).strip() == expected.strip()


def test_over_the_wire(pair: Pair, tokenizer: M2M100Tokenizer, servers: ServerThread) -> None:
    requests = [(text, "en", to) for text in SHORT for to in ("de", "fr")]
    expected = [
        pair.check_greedy(
            pair.source_ids(text, source), to, forced_bos_token_id=tokenizer.get_lang_id(to)
        )
        for text, source, to in requests
    ]
    pair.check_wire(servers, requests, expected)


def test_one_memory_feeds_many_languages(pair: Pair, servers: ServerThread) -> None:
    encoder = servers.start_encoder(pair.folder)
    decoder = servers.start_decoder(pair.folder, encoder)
    with connect(encoder.address, decoder.address) as client:
        info = client.decoder_info()
        assert (info.family, info.language_on_decoder) == ("m2m_100", True)
        assert len(info.target_languages) == LANGUAGES
        before = encoder.metric("splitformer_encoder_sources_total")
        answers = client.translate(
            "Open the file.", ["de", "fr", "ja"], source_language="en", break_loops=False
        )
        assert encoder.metric("splitformer_encoder_sources_total") == before + 1
        assert len({answer.text for answer in answers}) > 1
        with pytest.raises(InvalidArgumentError, match=r"source\.language: must be one of af, am"):
            client.encode("Open the file.")


def test_small_100_binds_memories_by_the_target_before_the_source(
    pair: Pair, tokenizer: M2M100Tokenizer, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(pair.folder, tmp_path / "small100"))
    edit_settings(folder, tokenizer_class="SMALL100Tokenizer")
    languages = Checkpoint(folder).description.languages
    assert not languages.on_decoder
    small = Pair(pair.theirs, folder, Checkpoint(folder), pair.ours)
    tokenizer.src_lang = "ja"  # M2M100's prefix is that of the source, SMaLL-100's of the target
    assert small.source_ids("Open the file.", "", "ja") == tokenizer("Open the file.").input_ids
    assert small.check_greedy(small.source_ids("Open the file.", "", "ja"))[0] == 2


def test_a_default_source_language(pair: Pair, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(pair.folder, tmp_path / "copy"))
    edit_settings(folder, src_lang="en")
    ids = [piece.id for piece in Checkpoint(folder).encode_source("Open")]
    assert ids == pair.source_ids("Open", "en")
