"""Batches, loss, schedule, and a run that is cut off and resumed."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from splitformer.model import Transformer
from splitformer.model.attention import MultiHeadAttention
from tests.support.tiny_training import tiny_transformer
from training.curve import CHRF_COLUMNS, HEADER
from training.data import GROUP, Array, Batch, Batcher, BatchSettings, TokenArrays
from training.gradient import GradientPool, batch_loss
from training.loss import output_cross_entropy
from training.muon import Muon, orthogonalized
from training.optimizer import OptimizerSettings, rate_factor, split_parameters
from training.tokenizer import EOS, PAD, language_ids
from training.train import Probe, Trainer, TrainSettings
from training.worker import ByteDropout, worker_of

VOCABULARY = 50


def tiny_arrays(sources: int = 120) -> TokenArrays:
    random = np.random.default_rng(1)

    def ragged(count: int) -> tuple[np.ndarray, np.ndarray]:
        lengths = random.integers(1, 20, count)
        rows = [[*random.integers(8, VOCABULARY, n), EOS] for n in lengths]
        return (
            np.array(list(itertools.chain(*rows)), np.uint16),
            np.concatenate([[0], np.cumsum(lengths + 1)]),
        )

    pairs = [(s, lang) for s in range(sources) for lang in range(5) if lang < 2 or s % 2]
    owners, languages = zip(*pairs, strict=True)
    return TokenArrays(
        *ragged(sources),
        np.zeros(sources, np.int8),
        *ragged(len(pairs)),
        np.array(owners, np.int32),
        np.array(languages, np.int8),
    )


@pytest.fixture
def settings() -> TrainSettings:
    return TrainSettings(
        minutes=0.5,
        micro_batches=2,
        bf16=False,
        log_steps=2,
        checkpoint_minutes=0.1,
        batches=BatchSettings(tokens=128, pool=32),
    )


def test_batches_hold_each_chosen_target_once_within_the_limit() -> None:
    arrays = tiny_arrays()
    limits = BatchSettings(tokens=128, longest=15, pool=64)
    plan = Batcher(arrays, limits).plan(0)
    targets = [t for _, groups in plan for group in groups for t in group]
    assert len(targets) == len(set(targets))
    for sources, groups in plan:
        widths = [int(arrays.target_lengths[t]) for group in groups for t in group]
        assert max(widths) <= 15
        assert len(sources) == 1 or max(widths) * len(widths) <= 128
        for source, group in zip(sources, groups, strict=True):
            assert {int(arrays.target_sources[t]) for t in group} == {source}


def test_languages_are_balanced_and_buckets_are_tight() -> None:
    arrays = tiny_arrays(3000)
    batcher = Batcher(arrays, BatchSettings(tokens=512, pool=4096, languages=()))
    plan = batcher.plan(0)
    counts = chosen_by_language(arrays, plan)
    assert counts.max() < 1.15 * counts.min()  # of about 1,500 each: four standard deviations
    batches = [batcher.batch(*entry) for entry in plan]
    filled = sum(batch.tokens for batch in batches) / sum(b.labels.numel() for b in batches)
    assert filled > 0.5  # targets of one source differ in length at random here


def test_a_language_can_be_drawn_less_often() -> None:
    arrays = tiny_arrays(3000)
    halved = (("ja", 0.5),)
    plan = Batcher(arrays, BatchSettings(tokens=512, languages=halved)).plan(0)
    counts = chosen_by_language(arrays, plan)
    assert counts[0] < 0.6 * counts[1:].min()
    assert counts[0] > 0.4 * counts[1:].max()


def chosen_by_language(arrays: TokenArrays, plan: list[tuple[list[int], list[list[int]]]]) -> Array:
    """Returns how many targets of each language a plan holds."""
    targets = [t for _, groups in plan for group in groups for t in group]
    return np.bincount(arrays.target_languages[targets])


def test_rounds_are_reproducible_and_differ() -> None:
    arrays = tiny_arrays()
    first, second = (Batcher(arrays, BatchSettings(tokens=128)) for _ in range(2))
    assert first.plan(3) == second.plan(3)
    assert first.plan(3) != first.plan(4)


def test_decoder_inputs_are_labels_shifted_behind_the_language() -> None:
    arrays = tiny_arrays()
    batch = next(Batcher(arrays, BatchSettings(tokens=128)).round(0))
    for row in range(len(batch.rows)):
        labels = batch.labels[row][batch.labels[row] != PAD]
        assert batch.target[row, 0].item() in language_ids().values()
        assert batch.target[row, 1 : len(labels)].tolist() == labels[:-1].tolist()
        assert labels[-1] == EOS
    for row, length in enumerate(batch.lengths.tolist()):
        assert batch.source[row, length - 1] == EOS


def test_arrays_survive_the_disk(tmp_path: Path) -> None:
    arrays = tiny_arrays()
    arrays.save(tmp_path / "a.npz")
    again = TokenArrays.load(tmp_path / "a.npz")
    assert all(np.array_equal(getattr(arrays, n), getattr(again, n)) for n in arrays.__slots__)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_chunked_loss_equals_the_plain_one(smoothing: float) -> None:
    torch.manual_seed(1)
    hidden = torch.randn(700, 16, requires_grad=True)
    weight = torch.randn(VOCABULARY, 16, requires_grad=True)
    labels = torch.randint(0, VOCABULARY, (700,))
    logits = hidden @ weight.T
    plain = torch.nn.functional.cross_entropy(
        logits, labels, label_smoothing=smoothing, reduction="sum"
    )
    loss, likelihood = output_cross_entropy(hidden, weight, labels, smoothing)
    torch.testing.assert_close(loss, plain)
    expected = torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
    torch.testing.assert_close(likelihood, expected.detach())
    wanted = torch.autograd.grad(plain, (hidden, weight))
    torch.testing.assert_close(torch.autograd.grad(loss, (hidden, weight)), wanted)


def test_micro_batches_on_threads_give_the_gradient_of_the_whole() -> None:
    model, arrays = tiny_transformer(VOCABULARY), tiny_arrays()
    batches = list(itertools.islice(Batcher(arrays, BatchSettings(tokens=128)).round(0), 4))
    pool = GradientPool(model, 2, 0.1, torch.float32)
    measured = pool.accumulate(batches)
    pool.close()
    tokens = sum(batch.tokens for batch in batches)
    losses = [batch_loss(model, batch, 0.1, torch.float32)[0] for batch in batches]
    whole = torch.stack(losses).sum() / tokens
    assert measured.tokens == tokens
    assert measured.loss == pytest.approx(whole.item(), rel=1e-5)
    for parameter, wanted in zip(
        model.parameters(), torch.autograd.grad(whole, list(model.parameters())), strict=True
    ):
        torch.testing.assert_close(parameter.grad, wanted)


def test_a_worker_in_bfloat16_gives_gradients_of_the_same_direction() -> None:
    model, arrays = tiny_transformer(VOCABULARY), tiny_arrays()
    batch = next(Batcher(arrays, BatchSettings(tokens=128)).round(0))
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        pool = GradientPool(model, 1, 0.1, dtype)
        pool.accumulate([batch])
        pool.close()
        gradients = [p.grad for p in model.parameters()]
        found.append(torch.cat([g.flatten() for g in gradients if g is not None]))
        model.zero_grad()
    assert found[1].dtype is torch.float32
    assert torch.nn.functional.cosine_similarity(found[0], found[1], dim=0) > 0.99


def test_the_worker_follows_the_weights() -> None:
    model, arrays = tiny_transformer(VOCABULARY), tiny_arrays()
    batch = next(Batcher(arrays, BatchSettings(tokens=128)).round(0))
    pool = GradientPool(model, 1, 0.0, torch.float32)
    before = pool.accumulate([batch]).loss
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    assert pool.accumulate([batch]).loss != before
    pool.close()


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_byte_dropout_drops_its_share_and_keeps_the_mean(share: float) -> None:
    torch.manual_seed(1)
    dropout, ones = ByteDropout(share), torch.ones(1001, 99)
    dropped = dropout(ones)
    assert (dropped == 0).float().mean().item() == pytest.approx(share, abs=0.005)
    assert dropped.mean().item() == pytest.approx(1, abs=0.01)
    neighbours = (dropped[:, 1:] == 0) & (dropped[:, :-1] == 0)
    assert neighbours.float().mean().item() == pytest.approx(share**2, abs=0.005)
    assert torch.equal(dropout.eval()(ones), ones)
    with pytest.raises(ValueError, match="share: must lie in"):
        ByteDropout(1.0)


def test_dropout_is_on_in_the_worker_and_off_in_the_model() -> None:
    worker = worker_of(Transformer(tiny_transformer(VOCABULARY).config, dropout=0.1), torch.float32)
    kinds = {type(module) for module in worker.modules()}
    assert ByteDropout in kinds
    assert torch.nn.Dropout not in kinds
    assert MultiHeadAttention not in kinds


def test_a_target_does_not_depend_on_its_neighbours() -> None:
    model, arrays = tiny_transformer(VOCABULARY), tiny_arrays()
    batch = next(Batcher(arrays, BatchSettings(tokens=256)).round(0))
    with torch.no_grad():
        together = batch_loss(model, batch, 0.0, torch.float32)[1]
        alone = [
            batch_loss(model, _row(batch, i), 0.0, torch.float32)[1] for i in batch_rows(batch)
        ]
    torch.testing.assert_close(together, torch.stack(alone).sum(), rtol=1e-4, atol=1e-3)


def batch_rows(batch: Batch) -> range:
    return range(len(batch.rows))


def _row(batch: Batch, index: int) -> Batch:
    source = batch.rows[index]
    length, width = batch.lengths[source], (batch.labels[index] != PAD).sum()
    return Batch(
        batch.source[source, :length][None],
        length[None],
        torch.tensor([0]),
        batch.target[index, :width][None],
        batch.labels[index, :width][None],
    )


def test_rate_rises_holds_and_falls_to_zero() -> None:
    schedule = OptimizerSettings(warmup=0.1, decay=0.4)
    rates = [rate_factor(i / 100, schedule) for i in range(101)]
    assert rates[5] == pytest.approx(0.5)
    assert set(rates[10:61]) == {1.0}
    assert rates[80] == pytest.approx(0.5)
    assert rates[100] == 0.0
    assert rate_factor(1.5, schedule) == 0.0
    with pytest.raises(ValueError, match="warmup, decay"):
        OptimizerSettings(warmup=0.7, decay=0.4)


def test_muon_gets_the_hidden_matrices_only() -> None:
    matrices, others = split_parameters(tiny_transformer(VOCABULARY))
    assert all(parameter.ndim == 2 and VOCABULARY not in parameter.shape for parameter in matrices)
    assert sum(VOCABULARY in parameter.shape for parameter in others) == 1


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="minutes: must be positive, is 0"):
        TrainSettings(minutes=0)


def test_a_batch_has_whole_groups_of_sources() -> None:
    batch = next(Batcher(tiny_arrays(), BatchSettings(tokens=128)).round(0))
    assert len(batch.source) % GROUP == 0
    assert batch.source[int(batch.rows.max()) + 1 :, 1:].eq(PAD).all()
    assert len(batch.lengths) == len(batch.source)


def test_the_average_follows_the_weights(tmp_path: Path, settings: TrainSettings) -> None:
    last = train(tmp_path / "last", settings)
    settings = replace(settings, averaged=3)
    averaged = train(tmp_path / "averaged", settings)
    for one, other, mean in zip(
        last.model.parameters(),
        averaged.model.parameters(),
        averaged.average.parameters(),
        strict=True,
    ):
        torch.testing.assert_close(one, other)
        assert not torch.equal(mean, other)
    for own, mean in zip(last.model.parameters(), last.average.parameters(), strict=True):
        torch.testing.assert_close(own, mean)


def ticking() -> Callable[[], float]:
    """A clock that moves on one second whenever it is read."""
    return itertools.count(0.0, 1.0).__next__


def train(
    folder: Path,
    settings: TrainSettings,
    steps: int | None = None,
) -> Trainer:
    arrays = tiny_arrays()
    batcher = Batcher(arrays, BatchSettings(tokens=128, seed=9))
    validation = list(itertools.islice(batcher.round(0), 2))
    trainer = Trainer(
        tiny_transformer(VOCABULARY),
        arrays,
        validation,
        settings,
        folder,
        probe=Probe(CHRF_COLUMNS, lambda _: dict.fromkeys(CHRF_COLUMNS, 1.0)),
        clock=ticking(),
    )
    trainer.run(stop=lambda: steps is not None and trainer.progress.step >= steps)
    return trainer


@pytest.mark.parametrize("muon", [True, False])
def test_resumed_equals_uninterrupted(tmp_path: Path, settings: TrainSettings, muon: bool) -> None:
    settings = replace(settings, averaged=5, optimizer=replace(settings.optimizer, muon=muon))
    whole = train(tmp_path / "whole", settings)
    train(tmp_path / "cut", settings, steps=8)
    resumed = train(tmp_path / "cut", settings)
    assert resumed.progress == whole.progress
    curves = [(tmp_path / name / "curve.csv").read_text() for name in ("whole", "cut")]
    assert curves[0] == curves[1]
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[name]), name
    for name, tensor in whole.average.state_dict().items():
        assert torch.equal(tensor, resumed.average.state_dict()[name]), name


def test_training_lowers_the_loss_and_ends_with_a_probe(
    tmp_path: Path, settings: TrainSettings
) -> None:
    trainer = train(tmp_path, settings)
    rows = [line.split(",") for line in (tmp_path / "curve.csv").read_text().splitlines()]
    assert rows[0] == HEADER
    assert float(rows[-1][3]) < float(rows[1][3])
    assert rows[-1][5:] != [""] * 6
    assert trainer.consumed >= 1
    assert not list(tmp_path.glob("*.part"))


def test_rows_beyond_the_checkpoint_are_made_again(tmp_path: Path, settings: TrainSettings) -> None:
    train(tmp_path, settings, steps=6)
    curve = tmp_path / "curve.csv"
    before = curve.read_text()
    curve.write_text(before + "8,8.0,99,1.0,1.0,,,,,,\n")
    train(tmp_path, settings, steps=6)
    assert curve.read_text() == before


def test_seconds_before_a_warm_start_are_not_in_the_budget(
    tmp_path: Path, settings: TrainSettings
) -> None:
    first = train(tmp_path, settings, steps=4)
    first.progress.earlier = first.progress.seconds
    first.save()
    trainer = train(tmp_path, settings)
    assert 1 <= trainer.consumed < 1.2
    assert trainer.progress.seconds - trainer.progress.earlier >= settings.minutes * 60


@pytest.mark.parametrize("shape", [(12, 30), (30, 12), (16, 16)])
def test_muon_updates_by_matrices_whose_singular_values_are_near_one(
    shape: tuple[int, int],
) -> None:
    torch.manual_seed(1)
    values = torch.linalg.svdvals(orthogonalized(torch.randn(shape)))
    assert values.min() > 0.3
    assert values.max() < 1.3


def test_muon_takes_matrices_of_a_shape_together_without_mixing_them() -> None:
    torch.manual_seed(1)
    matrices = torch.randn(3, 8, 20)
    alone = torch.stack([orthogonalized(matrix) for matrix in matrices])
    torch.testing.assert_close(orthogonalized(matrices), alone)


def test_muon_is_that_of_torch_but_for_its_rounding() -> None:
    torch.manual_seed(1)
    ours, theirs = (torch.nn.Parameter(torch.ones(8, 20)) for _ in range(2))
    both = (
        Muon([ours], weight_decay=0.01, momentum=0.95, dtype=torch.bfloat16),
        torch.optim.Muon(
            [theirs], weight_decay=0.01, momentum=0.95, adjust_lr_fn="match_rms_adamw"
        ),
    )
    for _ in range(5):
        gradient = torch.randn(8, 20)
        for parameter, optimizer in zip((ours, theirs), both, strict=True):
            optimizer.param_groups[0]["lr"] = 3e-3
            parameter.grad = gradient.clone()
            optimizer.step()
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(ours, torch.ones(8, 20))
