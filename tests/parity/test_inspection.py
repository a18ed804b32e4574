"""Attention, log-probabilities of given ids and scores are Hugging Face's, torch and native."""

from __future__ import annotations

import pytest
import torch

from splitformer.generation import Scoring, Target, run
from tests.parity.test_marian import PAD, make_pair
from tests.support.pairs import Pair, close, padded
from tests.support.questions import asked_of

ROWS = 9


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    pair = make_pair(tmp_path_factory.mktemp("marian") / "opus-mt")
    pair.theirs.set_attn_implementation("eager")
    return pair


@torch.inference_mode()
def test_attention_is_the_last_layers_mean_of_heads(pair: Pair) -> None:
    source, lengths, mask = padded(100)
    target = torch.randint(0, 100, (3, ROWS))
    theirs = pair.theirs(
        input_ids=source, attention_mask=mask, decoder_input_ids=target, output_attentions=True
    ).cross_attentions[-1]  # (B, H, T, S)
    memory, counts = pair.ours.encode(source, lengths), lengths.tolist()
    for decoder in pair.decoders():
        states = [decoder.begin(memory[i, :n]) for i, n in enumerate(counts)]
        first = decoder.advance(target[:, :1].tolist(), states, asked=asked_of(attention={0, 2}))
        assert first.attention.keys() == {0, 2}
        close(torch.from_numpy(first.attention[2]), theirs[2, :, 0, : counts[2]].mean(0))
        every = asked_of(attention=set(range(23)))
        rest = decoder.advance(target[:, 1:].tolist(), states, (), every, [8, 7, 8]).attention
        for i, end in enumerate((8, 15, 23)):
            for j in range(7):
                close(
                    torch.from_numpy(rest[end - 1 - j]), theirs[i, :, -1 - j, : counts[i]].mean(0)
                )
        decoder.close()


@torch.inference_mode()
def test_log_probabilities_of_given_ids(pair: Pair) -> None:
    source, lengths, mask = padded(100)
    target, labels = torch.randint(0, 100, (2, 3, ROWS))
    logits = pair.theirs(input_ids=source, attention_mask=mask, decoder_input_ids=target).logits
    expected = logits.log_softmax(-1).gather(-1, labels[..., None])[..., 0]  # (B, T)
    memory, given = pair.ours.encode(source, lengths), labels.flatten().tolist()
    for decoder in pair.decoders():
        states = [decoder.begin(memory[i, :n]) for i, n in enumerate(lengths.tolist())]
        asked = asked_of(given=dict(enumerate(given)))
        answer = decoder.advance(target.tolist(), states, (), asked, [ROWS] * 3)
        actual = [answer.log_probability(i, answer.given[i]) for i in range(3 * ROWS)]
        close(torch.tensor(actual).unflatten(0, (3, ROWS)), expected)
        decoder.close()


@torch.inference_mode()
@pytest.mark.parametrize("count", [1, 2, 16, 17, 39])
def test_scores_are_teacher_forced(pair: Pair, count: int) -> None:
    source, lengths, _ = padded(100)
    labels = torch.randint(3, 100, (count,))
    start = pair.checkpoint.description.languages.starts[""]
    inputs = torch.cat([torch.tensor(start), labels[:-1]])[None]
    logits = pair.theirs(input_ids=source[:1], decoder_input_ids=inputs).logits
    expected = logits.log_softmax(-1)[0, range(count), labels]
    memory = pair.ours.encode(source[:1], lengths[:1])[0]
    for decoder in pair.decoders():
        detokenizer = pair.checkpoint.tokenizer.detokenizer()
        target = Target(start, decoder.begin(memory), detokenizer, len(start) + count - 1)
        run(decoder, Scoring(target, labels.tolist()), never=(PAD,))
        assert [token.id for token in target.produced] == labels.tolist()
        close(torch.tensor([token.log_probability for token in target.produced]), expected)
        decoder.close()
