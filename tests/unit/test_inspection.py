"""What is told of a token: the likeliest others, their texts, what it aligns with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from splitformer.generation import GenerationOptions, Sequential, Target, Vocabulary, run
from splitformer.generation.inspection import aligned, with_text
from splitformer.model.checkpoint import Checkpoint
from splitformer.model.tokenizer import SourcePiece, Tokenizer
from splitformer.model.torch_decoder import TorchDecoder


@pytest.fixture(scope="module")
def checkpoint(tiny_model: Path) -> Checkpoint:
    return Checkpoint(tiny_model)


@torch.inference_mode()
@pytest.mark.parametrize("count", [1, 5, 100])
@pytest.mark.parametrize(
    "options", [{}, {"temperature": 1.0, "seed": 3, "suppressed_tokens": (9,)}]
)
def test_alternatives_are_the_models_likeliest_others(
    checkpoint: Checkpoint, count: int, options: dict[str, Any]
) -> None:
    description, decoder = checkpoint.description, checkpoint.load_decoder()
    memory = torch.randn(5, description.architecture.d_model)
    tokenizer = checkpoint.tokenizer
    target = Target((3,), decoder.begin(memory), tokenizer.detokenizer(), 12)
    vocabulary = Vocabulary(
        description.eos_id, description.never_generated, decoder.config.target_vocabulary_size
    )
    chosen = GenerationOptions(alternatives=count, min_new_tokens=12, **options)
    run(TorchDecoder(decoder), Sequential(target, chosen, 12, vocabulary), vocabulary.never)
    state, ids = decoder.begin(memory), [3]
    for token in target.produced:
        scores = decoder.step([ids[-1:]], [state])[0].log_softmax(-1)
        scores[[*vocabulary.never, vocabulary.eos_id, token.id]] = -torch.inf
        expected = scores.topk(count)
        assert token.details is not None
        others = token.details.alternatives
        assert [other.id for other in others] == expected.indices.tolist()
        told = torch.tensor([other.log_probability for other in others])
        torch.testing.assert_close(told, expected.values, atol=1e-5, rtol=1e-5)
        for other in others[:5]:
            before = tokenizer.decode(ids[1:])
            text = tokenizer.detokenizer()
            for earlier in ids[1:]:
                text.add(earlier)
            assert other.text == text.add(other.id), before
        ids.append(token.id)


def test_peeking_changes_nothing(checkpoint: Checkpoint) -> None:
    tokenizer: Tokenizer = checkpoint.tokenizer
    ids = tokenizer.encode_target("Über ファイル ☃ größer")
    detokenizer, peeked = tokenizer.detokenizer(), ""
    for token in ids:
        for other in (5, *ids):
            detokenizer.peek(other)
        expected = detokenizer.peek(token)
        assert detokenizer.add(token) == expected
        peeked += expected
    assert peeked + detokenizer.finish() == tokenizer.decode(ids)


def texts(*spans: tuple[int, int]) -> list[int]:
    return with_text([SourcePiece(5, begin, end) for begin, end in spans])


def test_positions_that_share_the_attention_align() -> None:
    spans = ((0, 3), (3, 5), (5, 9), (9, 9))
    assert aligned([0.1, 0.2, 0.3, 0.4], texts(*spans)) == (1, 2)
    assert aligned([0.6, 0.2, 0.2, 0.0], texts(*spans)) == (0,)
    assert aligned([0.2, 0.4, 0.4], texts()) == (0, 1, 2)
    assert aligned([0.2, 0.8], texts((0, 0), (0, 0))) == (1,), "nothing but added tokens"
