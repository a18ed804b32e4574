"""Whisper against Hugging Face Transformers, on small random configurations."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    GenerationMixin,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperTokenizer,
)
from transformers.modeling_outputs import BaseModelOutput

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
from splitformer.model.audio.features import LogMel, Samples
from splitformer.model.checkpoint import Checkpoint
from splitformer.model.encoding import Features, SourceEncoder
from splitformer.model.native_decoder import NativeDecoder
from splitformer.model.native_encoder import NativeEncoder
from splitformer.model.stepping import Asked, StepDecoder
from splitformer.model.torch_decoder import TorchDecoder
from splitformer.model.torch_encoder import TorchEncoder
from splitformer_client import connect
from tests.support.native import needs_native
from tests.support.servers import ServerThread
from tests.support.sounds import RATE, sound
from tests.support.whisper import MAX_TARGET, SECONDS, make_whisper, reference

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


class Pair:
    """One folder, opened by both."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.theirs: WhisperForConditionalGeneration = reference(folder)
        self.ours = Checkpoint(folder)
        speech = self.ours.description.speech
        assert speech is not None
        self.speech = speech

    def features(self, samples: Samples) -> Features:
        return Features(self.speech.features(samples))

    def encoder(self, kernel: str) -> SourceEncoder:
        weights = self.ours.load_encoder()
        return TorchEncoder(weights) if kernel == "torch" else NativeEncoder(weights, "fp32", 2)

    def decoder(self, kernel: str) -> StepDecoder:
        weights = self.ours.load_decoder()
        return TorchDecoder(weights) if kernel == "torch" else NativeDecoder(weights, "fp32", 2)


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
        answer = decoder.advance([[token]], [state], asked=Asked(logits={0}))
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


BEAMS, BEAM_LENGTH = 3, 16
STARTS = [("en", "transcribe", True), ("de", "translate", True), ("zh", "transcribe", False)]


def start_of(pair: Pair, language: str, task: str, timestamps: bool) -> tuple[int, ...]:
    """The decoder's first input; a model of one language knows no other and no tasks."""
    if not pair.speech.languages:
        language, task = "en", "transcribe"
    begun = pair.ours.description.languages.starts[language]
    return (*begun, *pair.speech.behind_language(task, timestamps))


def greedy(pair: Pair, memory: torch.Tensor, start: tuple[int, ...], timestamps: bool) -> list[int]:
    """What Transformers' own processors and logits give, end token included if there is one."""
    config = copy.deepcopy(pair.theirs.generation_config)
    config.return_timestamps, config.no_speech_threshold = timestamps, None
    processors = pair.theirs._retrieve_logit_processors(config, None, len(start), 1, "cpu")
    ids, cache, output = torch.tensor([start]), None, (memory[None],)
    while ids.shape[1] < MAX_TARGET + 1:
        new = ids if cache is None else ids[:, -1:]
        answer = pair.theirs(
            encoder_outputs=output, decoder_input_ids=new, past_key_values=cache, use_cache=True
        )
        scores, cache = answer.logits[:, -1], answer.past_key_values
        for processor in processors:
            scores = processor(ids, scores)
        ids = torch.cat([ids, scores.argmax(-1)[:, None]], dim=1)
        if ids[0, -1] == config.eos_token_id:
            break
    return ids[0, len(start) :].tolist()


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


def beams(
    pair: Pair, memory: torch.Tensor, start: tuple[int, ...], timestamps: bool, length: int
) -> list[tuple[list[int], float]]:
    """Transformers' beam search with the processors that it makes for speech: ids and scores."""
    config = copy.deepcopy(pair.theirs.generation_config)
    config.return_timestamps, config.no_speech_threshold = timestamps, None
    processors = pair.theirs._retrieve_logit_processors(config, None, len(start), BEAMS, "cpu")
    config.suppress_tokens = config.begin_suppress_tokens = None  # among the processors already
    config.update(num_beams=BEAMS, num_return_sequences=BEAMS, max_length=length)
    found = GenerationMixin.generate(
        pair.theirs,
        encoder_outputs=BaseModelOutput(last_hidden_state=memory[None]),
        decoder_input_ids=torch.tensor([start]),
        generation_config=config,
        logits_processor=processors,
        return_dict_in_generate=True,
        output_scores=True,
    )
    lengths = (found.beam_indices >= 0).sum(1).tolist()
    rows = [
        row[len(start) : len(start) + length]
        for row, length in zip(found.sequences.tolist(), lengths, strict=True)
    ]
    return list(zip(rows, found.sequences_scores.tolist(), strict=True))


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


class Reference:
    """A transcript as Transformers makes it, one window after the other.

    Features are those of each window alone, as a service that hears the audio for the first time
    has to compute them.
    """

    def __init__(
        self, pair: Pair, language: str, task: str, timestamps: bool, search: bool = False
    ) -> None:
        self.pair, self.language, self.task, self.timestamps = pair, language, task, timestamps
        self.search = search
        self.extractor = WhisperFeatureExtractor.from_pretrained(pair.folder)

    def memory(self, samples: Samples) -> torch.Tensor:
        features = self.extractor(samples, sampling_rate=RATE, return_tensors="pt")
        memory: torch.Tensor = self.pair.theirs.model.encoder(
            features["input_features"]
        ).last_hidden_state[0]
        return memory

    def start(self, memory: torch.Tensor) -> tuple[int, ...]:
        speech, starts = self.pair.speech, self.pair.ours.description.languages.starts
        if speech.detects and not self.language:
            output = BaseModelOutput(last_hidden_state=memory[None])
            found = int(self.pair.theirs.detect_language(encoder_outputs=output))
            self.language = next(k for k, v in speech.languages.items() if v == found)
        known = self.language if speech.languages else ""
        return (*starts[known], *speech.behind_language(self.task, self.timestamps))

    def target(self, memory: torch.Tensor) -> list[int]:
        start = self.start(memory)
        if not self.search:
            return greedy(self.pair, memory, start, self.timestamps)
        return beams(self.pair, memory, start, self.timestamps, MAX_TARGET + 1)[0][0]

    def segments(self, samples: Samples) -> list[tuple[float, float, list[int]]]:
        """Start, end and text tokens of every segment, cut as Transformers does."""
        found, at, window = [], 0, SECONDS * RATE
        first, eos = self.pair.speech.first_time_id, self.pair.ours.description.eos_id
        while at < len(samples):
            piece = samples[at : at + window]
            memory = self.memory(piece)
            ids = self.target(memory)
            ids = [token for token in ids if token != eos][:MAX_TARGET]
            seconds, duration = at / RATE, len(piece) / RATE
            if not self.timestamps:
                found.append((seconds, seconds + duration, ids))
                at += window
                continue
            segments, offset = self.pair.theirs._retrieve_segment(
                seek_sequence=torch.tensor(ids),
                seek_outputs=[None],
                time_offset=torch.tensor([seconds], dtype=torch.float64),
                timestamp_begin=first,
                seek_num_frames=torch.tensor([len(piece) // 160]),
                time_precision=0.02,
                time_precision_features=0.01,
                input_stride=2,
                prev_idx=0,
                idx=0,
                return_token_timestamps=False,
                decoder_input_ids=torch.tensor([[0]]),
            )
            for segment in segments:
                tokens = segment["tokens"].tolist()
                begin, end = float(segment["start"]), float(segment["end"])
                if len(segments) == 1 and int(offset) == len(piece) // 160:
                    # The only phrase: theirs counts it from the window's beginning, and lets one
                    # that is not closed end where it begins.
                    begin = seconds + (tokens[0] - first) * 0.02
                    end = end if tokens[-1] >= first else seconds + duration
                text = [token for token in tokens if token < first]
                found.append((begin, min(end, seconds + duration), text))
            at += int(offset) * 160
        return found


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
    reference = Reference(pair, language, task, timestamps, num_beams > 1)
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
