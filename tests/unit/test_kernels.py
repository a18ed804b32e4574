"""Which arithmetic serves, and that torch and the native library mean the same by it."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch

from splitformer import native
from splitformer.errors import ConfigurationError
from splitformer.model.checkpoint import Checkpoint
from splitformer.model.decoder import Decoder
from splitformer.model.native_decoder import NativeDecoder
from splitformer.model.stepping import StepDecoder
from splitformer.model.torch_decoder import TorchDecoder
from splitformer.serving.arithmetic import Arithmetic
from splitformer.serving.kernels import source_encoder, step_decoder
from tests.support.native import needs_native
from tests.support.questions import asked_of

EOS = 1


@pytest.fixture(scope="module")
def checkpoint(tiny_model: Path) -> Checkpoint:
    return Checkpoint(tiny_model)


@pytest.fixture(scope="module")
def decoder(checkpoint: Checkpoint) -> Decoder:
    return checkpoint.load_decoder()


@needs_native
def test_auto_takes_the_native_library_where_it_can(checkpoint: Checkpoint) -> None:
    chosen = step_decoder(checkpoint, Arithmetic())
    assert isinstance(chosen, NativeDecoder)
    assert (chosen.precision, chosen.batch_invariant) == ("int8", True)
    chosen.close()


def test_torch_serves_otherwise_and_the_log_says_why(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(native, "available", lambda: False)
    monkeypatch.setattr(native, "reason", lambda: "no compiler")
    with caplog.at_level(logging.WARNING):
        chosen = step_decoder(checkpoint, Arithmetic())
    assert isinstance(chosen, TorchDecoder)
    assert (chosen.precision, chosen.batch_invariant) == ("fp32", False)
    (record,) = caplog.records
    assert record.__dict__["fields"] == {"why": "no compiler"}


def test_native_or_nothing(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "available", lambda: False)
    monkeypatch.setattr(native, "reason", lambda: "no compiler")
    with pytest.raises(ConfigurationError, match=r"kernels: the native library .* no compiler"):
        step_decoder(checkpoint, Arithmetic(kernels="native"))


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"precision": "int4"}, "precision: must be one of auto, int8, fp32, got 'int4'"),
        ({"kernels": "cuda"}, "kernels: must be one of auto, native, torch, got 'cuda'"),
        ({"device": "tpu"}, "device: must be cpu, cuda, or cuda: and a number, got 'tpu'"),
        (
            {"device": "cuda:1", "precision": "int8"},
            "precision: must be one of auto, bf16, fp16, fp32 on cuda:1, got 'int8'",
        ),
        (
            {"device": "cuda", "kernels": "native"},
            "kernels: must be one of auto, torch on cuda, got 'native'",
        ),
    ],
)
def test_choices_that_are_unknown_or_do_not_go_together(
    choices: dict[str, str], message: str
) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        Arithmetic(**choices)  # type: ignore[arg-type]
    assert str(refusal.value) == message


def test_a_gpu_that_is_not_there_is_said(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for start in (step_decoder, source_encoder):
        with pytest.raises(ConfigurationError, match=r"device: this machine.*has no GPU"):
            start(checkpoint, Arithmetic(device="cuda"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ConfigurationError, match="device: must be at most cuda:1, got 'cuda:2'"):
        step_decoder(checkpoint, Arithmetic(device="cuda:2"))


@needs_native
def test_both_advance_alike(decoder: Decoder) -> None:
    torch.manual_seed(2)
    memories = [torch.randn(n, decoder.config.d_model) for n in (3, 9, 1)]
    tokens = [[4, 8, 9], [5], [6, 7]]
    both: list[StepDecoder] = [TorchDecoder(decoder), NativeDecoder(decoder, "fp32", 1)]
    one, other = (
        each.advance(
            tokens,
            [each.begin(memory) for memory in memories],
            never=(0, 2, 3),
            asked=asked_of(
                denied={1: (EOS, 40)},
                logits={0, 2},
                candidates={1: 5},
                given={0: 17, 2: 3},
                attention={2, 0},
            ),
        )
        for each in both
    )
    assert one.ids == other.ids
    assert not {0, 2, 3} & set(one.ids)
    assert one.ids[1] != EOS
    assert one.log_probabilities == pytest.approx(other.log_probabilities, abs=1e-4)
    assert one.log_sums == pytest.approx(other.log_sums, abs=1e-4)
    assert one.logits.keys() == other.logits.keys() == {0, 2}
    for row, logits in one.logits.items():
        torch.testing.assert_close(logits, other.logits[row], atol=1e-3, rtol=1e-4)
        assert one.given[row] == pytest.approx(other.given[row], abs=1e-4)
        weights = one.attention[row]
        assert weights.shape == (len(memories[row]),)
        assert float(weights.sum()) == pytest.approx(1.0, abs=1e-5)
        torch.testing.assert_close(weights, other.attention[row], atol=1e-5, rtol=1e-4)
    assert one.candidates[1].ids == other.candidates[1].ids
    assert one.given[0] == float(one.logits[0][17])
    both[1].close()


def _asked(outputs: Iterable[int]) -> dict[int, native.Question]:
    """Everything that can be asked about some outputs."""
    every = list(outputs)
    return asked_of(
        denied=dict.fromkeys(every, (EOS,)),
        candidates=dict.fromkeys(every, 4),
        logits=set(every),
        given=dict.fromkeys(every, 11),
        attention=set(every),
    )


@needs_native
def test_several_outputs_and_candidates_are_those_of_single_steps(decoder: Decoder) -> None:
    """Rows computed together answer as rows computed one by one do, whoever computes."""
    memory = torch.randn(5, decoder.config.d_model, generator=torch.Generator().manual_seed(3))
    row, many = [4, 8, 9, 7], 3
    for each in (TorchDecoder(decoder), NativeDecoder(decoder, "fp32", 1)):
        one, other = each.begin(memory), each.begin(memory)
        single = [each.advance([[token]], [one], (0, 2), _asked([0])) for token in row][-many:]
        together = each.advance(
            [row, [5]],
            [other, each.begin(memory)],
            (0, 2),
            _asked(range(many)),
            outputs=[many, 1],
        )
        assert together.ids[:many] == [answer.ids[0] for answer in single]
        assert list(together.candidates) == [0, 1, 2]
        for i, answer in enumerate(single):
            ours, theirs = together.candidates[i], answer.candidates[0]
            assert ours.ids == theirs.ids
            assert ours.logits == pytest.approx(theirs.logits, abs=1e-5)
            assert not {0, 2, EOS} & set(ours.ids)
            assert ours.ids[0] == together.ids[i]
            torch.testing.assert_close(together.logits[i], answer.logits[0], atol=1e-5, rtol=0)
            assert together.given[i] == pytest.approx(answer.given[0], abs=1e-5)
            alike = (together.attention[i], answer.attention[0])
            torch.testing.assert_close(*alike, atol=1e-6, rtol=1e-4)
