"""Our Transformer equals Hugging Face's Marian on shared random weights."""

from __future__ import annotations

import pytest
import torch
from transformers import MarianConfig, MarianMTModel

from benchmarks.peers.huggingface_model import OUR_NAMES
from splitformer.model import Transformer, TransformerConfig

VOCABULARY, D_MODEL, START, EOS = 90, 32, 0, 1


@pytest.fixture(scope="module")
def reference() -> MarianMTModel:
    torch.manual_seed(7)
    config = MarianConfig(
        vocab_size=VOCABULARY,
        d_model=D_MODEL,
        encoder_layers=3,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_position_embeddings=40,
        activation_function="swish",
        scale_embedding=True,
        pad_token_id=START,
        eos_token_id=EOS,
        decoder_start_token_id=START,
        forced_eos_token_id=None,
        init_std=0.1,
    )
    model = MarianMTModel(config).eval()
    with torch.no_grad():
        model.final_logits_bias.normal_(std=0.1, generator=torch.Generator().manual_seed(3))
        # With tied weights a random model only echoes its last token; turned round, it does not.
        model.model.decoder.layers[-1].final_layer_norm.weight.neg_()
    return model


@pytest.fixture(scope="module")
def ours(reference: MarianMTModel) -> Transformer:
    theirs = reference.config
    model = Transformer(
        TransformerConfig(
            source_vocabulary_size=VOCABULARY,
            target_vocabulary_size=VOCABULARY,
            d_model=D_MODEL,
            heads=theirs.encoder_attention_heads,
            encoder_layers=theirs.encoder_layers,
            decoder_layers=theirs.decoder_layers,
            d_feed_forward=theirs.encoder_ffn_dim,
            max_positions=theirs.max_position_embeddings,
            norm="post",
            activation="silu",
            output_bias=True,
        )
    ).eval()
    model.load_state_dict(translated(reference))
    return model


def translated(reference: MarianMTModel) -> dict[str, torch.Tensor]:
    """Map Marian's tensors to our names."""
    tensors = {"decoder.output.bias": reference.final_logits_bias[0]}
    embedding = reference.model.shared.weight
    for name in ("encoder.embedding.tokens", "decoder.embedding.tokens", "decoder.output"):
        tensors[f"{name}.weight"] = embedding
    for name, tensor in reference.state_dict().items():
        parts = name.split(".")
        if "layers" in parts:
            tensors[".".join(OUR_NAMES.get(part, part) for part in parts[1:])] = tensor
    return tensors


def padded() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(11)
    source, lengths = torch.randint(2, VOCABULARY, (3, 12)), torch.tensor([12, 7, 2])
    mask = (torch.arange(12) < lengths[:, None]).long()
    return source, lengths, mask


@torch.inference_mode()
def test_encoder_output(reference: MarianMTModel, ours: Transformer) -> None:
    source, lengths, mask = padded()
    expected = reference.get_encoder()(input_ids=source, attention_mask=mask).last_hidden_state
    actual = ours.encode(source, lengths)
    for row, length in enumerate(lengths.tolist()):
        torch.testing.assert_close(
            actual[row, :length], expected[row, :length], atol=1e-5, rtol=1e-5
        )


@torch.inference_mode()
def test_logits(reference: MarianMTModel, ours: Transformer) -> None:
    source, lengths, mask = padded()
    target = torch.randint(0, VOCABULARY, (3, 9))
    expected = reference(input_ids=source, attention_mask=mask, decoder_input_ids=target).logits
    torch.testing.assert_close(ours(source, lengths, target), expected, atol=2e-5, rtol=1e-5)


@torch.inference_mode()
def test_greedy_output(reference: MarianMTModel, ours: Transformer) -> None:
    source, lengths, mask = padded()
    expected = reference.generate(
        input_ids=source, attention_mask=mask, do_sample=False, num_beams=1, max_new_tokens=25
    )
    memory = ours.encode(source, lengths)
    states = [ours.begin(memory[i, :n]) for i, n in enumerate(lengths.tolist())]
    tokens = [[START] for _ in states]
    for _ in range(25):
        logits = ours.step([row[-1:] for row in tokens], states)
        for row, choice in zip(tokens, logits.argmax(-1).tolist(), strict=True):
            row.append(choice)
    for row, theirs in zip(tokens, expected.tolist(), strict=True):
        end = theirs.index(EOS) + 1 if EOS in theirs else len(theirs)
        assert row[:end] == theirs[:end]
    assert len({token for row in tokens for token in row}) > 8, "repetition would prove little"
