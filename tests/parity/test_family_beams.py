"""Beam search over folders of published families finds what Transformers finds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from splitformer.generation import (
    EndReason,
    GenerationOptions,
    Hypotheses,
    Target,
    Vocabulary,
    decoding_for,
    step,
)
from splitformer.model.stepping import StepDecoder
from splitformer.model.torch_encoder import TorchEncoder
from splitformer_client import EndReason as ClientEnd, connect
from tests.parity import (
    test_bart,
    test_byt5,
    test_m2m100,
    test_marian,
    test_mbart,
    test_mt5,
    test_nllb,
    test_t5,
)
from tests.support.pairs import POSITIONS, Pair
from tests.support.servers import ServerThread

BEAMS, NEW_TOKENS = 3, 12
TEXTS = ("Open the file.", "naïve café 😀")
FAMILIES: dict[str, tuple[Callable[[Path], Pair], str, str]] = {
    "marian": (test_marian.make_pair, "", ""),
    "m2m100": (test_m2m100.make_pair, "en", "de"),
    "nllb": (test_nllb.make_pair, "eng_Latn", "deu_Latn"),
    "bart": (lambda folder: test_bart.make_pair(folder, None), "", ""),
    "mbart": (lambda folder: test_mbart.make_pair(folder, "mbart"), "en_XX", "de_DE"),
    "t5": (lambda folder: test_t5.make_pair(folder, **test_t5.KINDS["t5-1.1"]), "", ""),
    "mt5": (test_mt5.make_pair, "", ""),
    "byt5": (test_byt5.make_pair, "", ""),
}


@pytest.fixture(scope="module", params=list(FAMILIES))
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def pair(family: str, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    made = FAMILIES[family][0](tmp_path_factory.mktemp("beams") / family)
    made.theirs.generation_config.forced_eos_token_id = None  # at a limit of the caller's
    return made


@torch.inference_mode()
def ours(pair: Pair, decoder: StepDecoder, ids: list[int], start: tuple[int, ...]) -> Any:
    description = pair.checkpoint.description
    memory = torch.from_numpy(TorchEncoder(pair.ours.encoder).encode([ids])[0])
    detokenizer = pair.checkpoint.tokenizer.detokenizer()
    state, forced = decoder.begin(memory), len(start) - 1
    target = Target(start, state, detokenizer, POSITIONS, forced=forced)
    size = description.architecture.target_vocabulary_size
    vocabulary = Vocabulary(description.eos_id, description.never_generated, size)
    options = GenerationOptions(num_beams=BEAMS, num_return_sequences=BEAMS)
    decoding = decoding_for(target, options, NEW_TOKENS, vocabulary)
    while not decoding.finished:
        assert not step(decoder, [decoding], vocabulary.never)
    found = next(each for each in decoding.news() if isinstance(each, Hypotheses))
    ended = [description.eos_id]
    return [
        ([token.id for token in h.tokens] + ended * (h.reason is EndReason.EOS), h.score)
        for h in found
    ]


def theirs(pair: Pair, ids: list[int], start: tuple[int, ...]) -> list[tuple[list[int], float]]:
    """A language behind the start token is forced and counted, as Transformers does it."""
    forced = dict(zip(["forced_bos_token_id"], start[1:], strict=False))
    found = pair.theirs.generate(
        input_ids=torch.tensor([ids]),
        attention_mask=torch.ones(1, len(ids), dtype=torch.long),
        decoder_input_ids=torch.tensor([start[:1]]),
        decoder_start_token_id=start[0],
        **forced,
        num_beams=BEAMS,
        num_return_sequences=BEAMS,
        max_new_tokens=NEW_TOKENS + len(forced),
        do_sample=False,
        return_dict_in_generate=True,
        output_scores=True,
    )
    lengths = (found.beam_indices >= 0).sum(1).tolist()
    rows = [
        row[len(start) : 1 + length]
        for row, length in zip(found.sequences.tolist(), lengths, strict=True)
    ]
    return list(zip(rows, found.sequences_scores.tolist(), strict=True))


@pytest.mark.parametrize("text", TEXTS)
def test_the_same_hypotheses(pair: Pair, family: str, text: str) -> None:
    _, source, target = FAMILIES[family]
    ids = pair.source_ids(text, source)
    start = pair.checkpoint.description.languages.starts[target]
    expected = theirs(pair, ids, start)
    for decoder in pair.decoders():
        found = ours(pair, decoder, ids, start)
        assert [row for row, _ in found] == [row for row, _ in expected]
        assert [score for _, score in found] == pytest.approx(
            [score for _, score in expected], abs=1e-4
        )


def test_the_same_over_the_wire(pair: Pair, family: str, servers: ServerThread) -> None:
    _, source, language = FAMILIES[family]
    start = pair.checkpoint.description.languages.starts[language]
    settings = {"memory_dtype": "f32"}
    encoder = servers.start_encoder(pair.folder, **settings)
    decoder = servers.start_decoder(pair.folder, encoder, **settings)
    ended = [pair.checkpoint.description.eos_id]
    with connect(encoder.address, decoder.address) as client:
        for text in TEXTS:
            (answer,) = client.translate(
                text,
                language,
                source_language=source,
                num_beams=BEAMS,
                num_return_sequences=BEAMS,
                max_new_tokens=NEW_TOKENS,
                break_loops=False,  # random weights love them
            )
            expected = theirs(pair, pair.source_ids(text, source), start)
            found = [
                [token.id for token in h.tokens] + ended * (h.reason is ClientEnd.EOS)
                for h in answer.hypotheses
            ]
            assert found == [row for row, _ in expected]
            scores = [h.score for h in answer.hypotheses]
            assert scores == pytest.approx([score for _, score in expected], abs=1e-4)
