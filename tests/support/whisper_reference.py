"""What Transformers makes of audio with a Whisper model: targets, candidates and transcripts."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from transformers import (
    GenerationMixin,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)
from transformers.modeling_outputs import BaseModelOutput

from splitformer.model.audio.features import Samples
from splitformer.model.checkpoint import Checkpoint
from splitformer.model.encoding import Features, SourceEncoder
from splitformer.model.native_decoder import NativeDecoder
from splitformer.model.native_encoder import NativeEncoder
from splitformer.model.stepping import StepDecoder
from splitformer.model.torch_decoder import TorchDecoder
from splitformer.model.torch_encoder import TorchEncoder
from tests.support.sounds import RATE
from tests.support.whisper import MAX_TARGET, SECONDS, reference

BEAMS = 3


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


class Transcribed:
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
