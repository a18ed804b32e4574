"""Marian folders as downloaded: what Transformers computes with them, we compute too."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from transformers import MarianConfig, MarianMTModel, MarianTokenizer

from splitformer.errors import FailedPreconditionError, InvalidArgumentError
from splitformer_client import connect
from tests.support.checkpoints import SENTENCES
from tests.support.pairs import POSITIONS, Pair, train_pieces, varied
from tests.support.servers import ServerThread

REFUSED = r"must be 'deu'.*got 'fra'"
CODES = (">>fra<<", ">>deu<<", ">>zho_Hans<<")
PAD = 2
SHORT = ("Open the file.", "Save all changes now", "naïve café 😀")
TEXTS = (*SENTENCES, "Größe: 5 µm (ungefähr) 😀", "  two  spaces ", "naïve café")


def make_folder(
    folder: Path, codes: tuple[str, ...] = (), separate: bool = False
) -> dict[str, int]:
    """Write tokenizer files as OPUS-MT has them; return the sizes of the vocabularies."""
    folder.mkdir(exist_ok=True)
    source = train_pieces(folder / "source.spm", 150, SENTENCES[:4])
    target = train_pieces(folder / "target.spm", 180, SENTENCES[4:])
    special = ["</s>", "<unk>", "<pad>"]
    of_source = dict.fromkeys([*special, *codes, *source[3:]])
    of_target = dict.fromkeys([*special, *target[3:]])
    pieces = of_source if separate else of_source | of_target
    write_vocabulary(folder / "vocab.json", pieces)
    if separate:
        write_vocabulary(folder / "target_vocab.json", of_target)
    settings = {"source_lang": "eng", "target_lang": "deu", "separate_vocabs": separate}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    sizes = {"vocab_size": len(pieces)}
    return sizes | ({"decoder_vocab_size": len(of_target)} if separate else {})


def write_vocabulary(path: Path, pieces: Iterable[str]) -> None:
    path.write_text(json.dumps({piece: i for i, piece in enumerate(pieces)}))


def make_pair(
    folder: Path,
    codes: tuple[str, ...] = (),
    separate: bool = False,
    positions: int = POSITIONS,
) -> Pair:
    sizes = make_folder(folder, codes, separate)
    config = MarianConfig(
        **sizes,
        d_model=32,
        encoder_layers=3,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=48,
        max_position_embeddings=positions,
        activation_function="swish",
        scale_embedding=True,
        share_encoder_decoder_embeddings=not separate,
        pad_token_id=PAD,
        decoder_start_token_id=PAD,
        eos_token_id=0,
        forced_eos_token_id=0,
        init_std=0.05,
    )
    torch.manual_seed(5)
    model = varied(MarianMTModel(config))
    model.generation_config.bad_words_ids = [[PAD]]
    return Pair.of(model, folder)


@pytest.fixture(scope="module", params=["shared", "separate"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder = tmp_path_factory.mktemp("marian") / f"opus-mt-{request.param}"
    return make_pair(folder, separate=request.param == "separate")


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return make_pair(tmp_path_factory.mktemp("marian") / "opus-mt-en-ROMANCE", CODES)


def test_encoder_output(pair: Pair) -> None:
    pair.check_encoder()


def test_logits(pair: Pair) -> None:
    pair.check_logits()


def test_greedy_output(pair: Pair) -> None:
    outputs = [pair.check_greedy(pair.source_ids(text)) for text in SHORT]
    assert len({token for output in outputs for token in output}) > 5, "repetition proves little"
    assert outputs[0][0] == PAD, "the start"


@pytest.mark.parametrize("text", TEXTS)
def test_tokenizer(pair: Pair, text: str) -> None:
    theirs = MarianTokenizer.from_pretrained(pair.folder)
    assert pair.source_ids(text) == theirs(text).input_ids
    target = theirs(text_target=text).input_ids
    ours = pair.checkpoint.tokenizer
    assert [*ours.encode_target(text), 0] == target
    expected = theirs.decode(target, skip_special_tokens=True)
    assert ours.decode(target).strip() == expected.strip()


def test_spans_of_pieces(pair: Pair) -> None:
    *pieces, end = pair.checkpoint.encode_source("Größe: 5 µm")
    raw = "Größe: 5 µm".encode()
    assert b"".join(raw[p.begin : p.end] for p in pieces).split() == raw.split()
    assert (end.begin, end.end) == (len(raw), len(raw))


def test_over_the_wire(pair: Pair, servers: ServerThread) -> None:
    expected = [pair.check_greedy(pair.source_ids(text)) for text in SHORT]
    answers = pair.check_wire(servers, [(text, "eng", "deu") for text in SHORT], expected)
    decoded = pair.checkpoint.tokenizer.decode
    assert [a.text for a in answers] == 2 * [decoded(whole[1:]) for whole in expected]


def test_a_language_token_before_the_source(several: Pair) -> None:
    theirs = MarianTokenizer.from_pretrained(several.folder)
    for code in ("fra", "deu", "zho_Hans"):
        expected = theirs(f">>{code}<<Open the file.").input_ids
        assert several.source_ids("Open the file.", "eng", code) == expected
    outputs = [
        several.check_greedy(several.source_ids(SHORT[0], "", code)) for code in ("fra", "deu")
    ]
    assert outputs[0] != outputs[1]


def test_memories_are_bound_to_a_language(several: Pair, servers: ServerThread) -> None:
    texts = [("Open the file.", "", "fra"), ("Open the file.", "eng", "zho_Hans")]
    expected = [several.check_greedy(several.source_ids(t, s, to)) for t, s, to in texts]
    several.check_wire(servers, texts, expected)
    encoder = servers.start_encoder(several.folder)
    decoder = servers.start_decoder(several.folder, encoder)
    with connect(encoder.address, decoder.address) as client:
        info = client.encoder_info()
        assert (info.family, info.language_on_decoder) == ("marian", False)
        assert info.target_languages == ("fra", "deu", "zho_Hans")
        with pytest.raises(InvalidArgumentError, match="must be one of fra, deu, zho_Hans, got ''"):
            client.encode("Open the file.")
        memory = client.encode("Open the file.", target_language="deu")
        assert memory.language == "deu"
        with pytest.raises(FailedPreconditionError, match=REFUSED):
            client.open_session(memory, language="fra")
        with (
            client.open_session(memory) as session,
            pytest.raises(FailedPreconditionError, match=REFUSED),
        ):
            session.fork(language="fra")
        named = client.encode(">>deu<<Open the file.")
        assert named.language == "deu"
        assert named.data == memory.data
    for options in (["Open the file."], ["--file", "/dev/stdin"]):  # for people, and line by line
        done = _translate(encoder.address, decoder.address, "--to", "fra,deu", *options)
        assert done.stderr.startswith("note: the language is on the encoder's side of ")
        assert done.stderr.endswith("; each source is encoded 2 times\n")
    alone = _translate(encoder.address, decoder.address, "--to", "fra", "--file", "/dev/stdin")
    assert (alone.returncode, alone.stderr) == (0, "")


def _translate(encoder: str, decoder: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "splitformer_client", "translate", "--max-new-tokens", "2"]
    addresses = ["--encoder", encoder, "--decoder", decoder]
    stdin = "Open the file.\n"
    return subprocess.run(
        [*command, *addresses, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_token_in_the_source_names_the_language(several: Pair) -> None:
    languages = several.checkpoint.description.languages
    assert languages.marked(">>fra<< Open") == "fra"
    assert languages.marked(">>xxx<< Open") == languages.marked("Open >>fra<<") == ""
