"""Whisper against Hugging Face Transformers, on small random configurations."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from transformers import (
    WhisperFeatureExtractor,
    WhisperTokenizer,
)

from splitformer import native
from splitformer.generation import (
    EndReason,
    GenerationOptions,
    Hypotheses,
    SpeechRules,
    Target,
    Vocabulary,
    decoding_for,
    likeliest_of,
    run,
)
from splitformer.model.audio.features import LogMel
from splitformer.model.native_encoder import NativeEncoder
from splitformer_client import connect
from tests.support.native import needs_native
from tests.support.questions import asked_of
from tests.support.servers import ServerThread
from tests.support.sounds import RATE, sound
from tests.support.whisper import MAX_TARGET, make_whisper
from tests.support.whisper_reference import BEAMS, Pair, Transcribed, beams, greedy

KERNELS = ["torch", pytest.param("native", marks=needs_native)]


@pytest.mark.parametrize("bins", [80, 128])
@pytest.mark.parametrize("seconds", [0.01, 3.7, 30, 31])
def test_features_are_the_reference_s(bins: int, seconds: float) -> None:
    theirs = WhisperFeatureExtractor(feature_size=bins)
    samples = sound(seconds)[: 30 * RATE]
    expected = theirs(samples, sampling_rate=RATE, return_tensors="np")["input_features"][0]
    ours = LogMel(bins)(samples)
    assert ours.shape == (3000, bins)
    # The reference computes in float32; its own two implementations differ by as much.
    assert np.allclose(ours, expected.T, atol=2e-4)
    padded = np.pad(samples, (0, 30 * RATE - len(samples)))
    exact = theirs._np_extract_fbank_features(padded[None], "cpu")[0]
    assert np.allclose(ours, exact.T, atol=1e-6)


def test_filters_are_the_reference_s() -> None:
    for bins in (80, 128):
        theirs = WhisperFeatureExtractor(feature_size=bins)
        assert np.allclose(LogMel(bins).filters, theirs.mel_filters, atol=1e-12)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny models are slow on several threads while others want the cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(
    scope="module",
    params=[
        {},
        {"multilingual": False, "bins": 128, "whole_tokenizer": True, "dtype": torch.float16},
    ],
    ids=["multilingual", "english"],
)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder = tmp_path_factory.mktemp("whisper") / "tiny-whisper"
    return Pair(make_whisper(folder, **request.param))


@torch.inference_mode()
@pytest.mark.parametrize("kernel", KERNELS)
def test_encoder_output(pair: Pair, kernel: str) -> None:
    encoder = pair.encoder(kernel)
    sources = [pair.features(sound(seconds, seed)) for seed, seconds in enumerate((1, 0.3, 0.02))]
    memories = encoder.encode(sources)
    for source, memory in zip(sources, memories, strict=True):
        features = torch.from_numpy(source.values.T.copy())[None]
        expected = pair.theirs.model.encoder(features).last_hidden_state[0]
        assert len(memory) == len(source)
        assert np.allclose(memory, expected.numpy(), atol=2e-5)
        assert np.array_equal(memory, encoder.encode([source])[0]), "alone, the same bits"
    encoder.close()


@torch.inference_mode()
@pytest.mark.parametrize("kernel", KERNELS)
def test_step_logits(pair: Pair, kernel: str) -> None:
    memory = pair.encoder("torch").encode([pair.features(sound(1))])[0]
    torch.manual_seed(5)
    target = torch.randint(0, pair.theirs.config.vocab_size, (1, 30))
    expected = pair.theirs(
        encoder_outputs=(torch.from_numpy(memory)[None],), decoder_input_ids=target
    ).logits[0]
    decoder = pair.decoder(kernel)
    state = decoder.begin(torch.from_numpy(memory))
    for position, token in enumerate(target[0].tolist()):
        answer = decoder.advance([[token]], [state], asked=asked_of(logits={0}))
        assert np.allclose(answer.logits[0], expected[position], atol=2e-4)
    decoder.close()


def test_tokenizer(pair: Pair) -> None:
    theirs = WhisperTokenizer.from_pretrained(pair.folder)
    tokenizer = pair.ours.tokenizer
    for text in (" Open the file.", "größer ¿qué? 打开 🎧 \n\t x", "<|en|> is text", "", " "):
        ids = tokenizer.encode_target(text)
        if "<|" not in text:
            assert ids == theirs(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(ids) == text
        detokenizer = tokenizer.detokenizer()
        assert "".join(map(detokenizer.add, ids)) + detokenizer.finish() == text
    every = list(range(pair.theirs.config.vocab_size))
    ours = "".join(tokenizer.decode([token]) for token in every if token < 256)
    assert ours == "".join(
        theirs.decode([token], skip_special_tokens=True) for token in every if token < 256
    )
    assert not tokenizer.decode([token for token in every if token >= pair.ours.description.eos_id])


BEAM_LENGTH = 16
STARTS = [("en", "transcribe", True), ("de", "translate", True), ("zh", "transcribe", False)]


def start_of(pair: Pair, language: str, task: str, timestamps: bool) -> tuple[int, ...]:
    """The decoder's first input; a model of one language knows no other and no tasks."""
    if not pair.speech.languages:
        language, task = "en", "transcribe"
    begun = pair.ours.description.languages.starts[language]
    return (*begun, *pair.speech.behind_language(task, timestamps))


def vocabulary_of(pair: Pair) -> Vocabulary:
    description = pair.ours.description
    size = description.architecture.target_vocabulary_size
    rules = SpeechRules.of(pair.speech, description.eos_id)
    return Vocabulary(description.eos_id, description.never_generated, size, speech=rules)


@torch.inference_mode()
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("language", "task", "timestamps"), STARTS)
def test_greedy_output(pair: Pair, kernel: str, language: str, task: str, timestamps: bool) -> None:
    start = start_of(pair, language, task, timestamps)
    encoder, decoder, vocabulary = pair.encoder("torch"), pair.decoder(kernel), vocabulary_of(pair)
    seen = set()
    for seed in range(3):
        memory = torch.from_numpy(encoder.encode([pair.features(sound(0.9, seed))])[0])
        expected = greedy(pair, memory, start, timestamps)
        detokenizer = pair.ours.tokenizer.detokenizer()
        target = Target(start, decoder.begin(memory), detokenizer, MAX_TARGET)
        options = GenerationOptions()
        run(decoder, decoding_for(target, options, MAX_TARGET, vocabulary), vocabulary.never)
        ids = [token.id for token in target.produced]
        assert ids + ([vocabulary.eos_id] if target.end else []) == expected
        assert not timestamps or any(token >= pair.speech.first_time_id for token in expected)
        seen.update(expected)
    assert len(seen) > 8, "repetition would prove little"
    decoder.close()


@torch.inference_mode()
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("language", "task", "timestamps"), STARTS)
def test_beam_search(pair: Pair, kernel: str, language: str, task: str, timestamps: bool) -> None:
    start = start_of(pair, language, task, timestamps)
    encoder, decoder, vocabulary = pair.encoder("torch"), pair.decoder(kernel), vocabulary_of(pair)
    options = GenerationOptions(num_beams=BEAMS, num_return_sequences=BEAMS)
    for seed in range(3):
        memory = torch.from_numpy(encoder.encode([pair.features(sound(0.9, seed))])[0])
        expected = beams(pair, memory, start, timestamps, len(start) + BEAM_LENGTH)
        target = Target(start, decoder.begin(memory), pair.ours.tokenizer.detokenizer(), MAX_TARGET)
        decoding = decoding_for(target, options, BEAM_LENGTH, vocabulary)
        run(decoder, decoding, vocabulary.never)
        (found,) = (each for each in decoding.news() if isinstance(each, Hypotheses))
        ended = [vocabulary.eos_id]
        assert [
            [token.id for token in each.tokens] + ended * (each.reason is EndReason.EOS)
            for each in found
        ] == [ids for ids, _ in expected]
        scores = [score for _, score in expected]
        assert [each.score for each in found] == pytest.approx(scores, abs=1e-4)
        assert timestamps == any(ids[0] >= pair.speech.first_time_id for ids, _ in expected)
    decoder.close()


@torch.inference_mode()
@pytest.mark.parametrize("kernel", KERNELS)
def test_language_detection(pair: Pair, kernel: str) -> None:
    if not pair.speech.detects:
        pytest.skip("it knows one language only")
    encoder, decoder = pair.encoder("torch"), pair.decoder(kernel)
    start = pair.ours.description.languages.starts[""]
    for seed in range(4):
        features = pair.features(sound(0.9, seed))
        expected = pair.theirs.detect_language(torch.from_numpy(features.values.T.copy())[None])
        state = decoder.begin(torch.from_numpy(encoder.encode([features])[0]))
        among = list(pair.speech.languages.values())
        assert likeliest_of(decoder, state, start[0], among) == int(expected)
    decoder.close()


@torch.inference_mode()
def test_whole_generation_without_times(pair: Pair) -> None:
    """Transformers' `generate` from beginning to end, against a transcript in process."""
    languages = {"language": "de", "task": "transcribe"} if pair.speech.languages else {}
    samples = sound(0.9, 2)
    features = torch.from_numpy(pair.features(samples).values.T.copy())[None]
    expected = pair.theirs.generate(
        features, do_sample=False, num_beams=1, return_timestamps=False, **languages
    )[0].tolist()
    memory = torch.from_numpy(pair.encoder("torch").encode([pair.features(samples)])[0])
    start = (
        *pair.ours.description.languages.starts["de" if languages else "en"],
        *pair.speech.behind_language("transcribe", False),
    )
    ours, end = greedy(pair, memory, start, False), pair.ours.description.eos_id
    # Theirs ends a token early, before one that no position would be left to go on from.
    assert expected == [token for token in ours if token != end][: len(expected)]
    assert len(expected) >= len(ours) - 1


@torch.inference_mode()
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    ("language", "task", "timestamps", "num_beams"),
    [("", "transcribe", True, 1), ("de", "translate", False, 1), ("", "transcribe", True, BEAMS)],
)
def test_transcripts_over_the_wire(
    pair: Pair,
    servers: ServerThread,
    kernel: str,
    language: str,
    task: str,
    timestamps: bool,
    num_beams: int,
) -> None:
    if not pair.speech.languages:
        language, task = "", "transcribe"
    settings = {"kernels": kernel, "memory_dtype": "f32"}
    encoder = servers.start_encoder(pair.folder, **settings)
    decoder = servers.start_decoder(pair.folder, encoder, **settings)
    samples = sound(3.3, 5)
    reference = Transcribed(pair, language, task, timestamps, num_beams > 1)
    expected = reference.segments(samples)
    with connect(encoder.address, decoder.address, timeout=60) as client:
        transcript = client.transcribe(
            samples,
            sample_rate=RATE,
            language=language,
            task="translate" if task == "translate" else "transcribe",
            timestamps=timestamps,
            num_beams=num_beams,
        )
    assert len(transcript.segments) == len(expected) > 3
    for segment, (start, end, ids) in zip(transcript.segments, expected, strict=True):
        assert [token.id for token in segment.tokens] == ids
        assert segment.start == pytest.approx(start, abs=1e-6)
        assert segment.end == pytest.approx(end, abs=1e-6)
    assert transcript.language == (reference.language if pair.speech.languages else "")
    assert transcript.duration == pytest.approx(3.3)
    assert len(encoder.service.store) == len(decoder.service.sessions) == 0


@needs_native
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_memory_is_the_same_bits_on_any_number_of_threads(
    pair: Pair, precision: native.Precision
) -> None:
    weights, source = pair.ours.load_encoder(), pair.features(sound(1))
    memories = []
    for threads in (1, 2, 3):
        encoder = NativeEncoder(weights, precision, threads)
        memories.append(encoder.encode([source])[0])
        encoder.close()
    assert all(np.array_equal(memory, memories[0]) for memory in memories)
