"""A model of speech, opened by us and by Transformers; see `splitformer.serving.comparing`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from splitformer.model.checkpoint import Checkpoint
from splitformer.model.encoding import Features
from splitformer.serving.comparing import Pair, check_languages, opened

_SOUNDS, _RATE = 20, 16000


class SpeechPair(Pair):
    """A model of speech, on sounds that are made up: no words, but the same for both.

    Args:
        checkpoint: The folder.
        source_language: Must be empty.
        target_language: The language that is spoken; empty: English.

    Raises:
        ConfigurationError: It cannot be opened, or does not know the language.
    """

    def __init__(self, checkpoint: Checkpoint, source_language: str, target_language: str) -> None:
        speech, language = checkpoint.description.speech, target_language or "en"
        assert speech is not None
        check_languages(checkpoint, source_language, language)
        start = checkpoint.description.languages.starts[language]
        theirs = opened(checkpoint.folder, "AutoModelForSpeechSeq2Seq")
        super().__init__(checkpoint, theirs, (*start, *speech.behind_language("transcribe", False)))
        self.sources = {
            f"{seconds:.3f} s of tones": Features(speech.features(_sound(seconds)))
            for seconds in np.linspace(0.05, 1, _SOUNDS) * speech.features.window_seconds
        }

    def _encoded(self, source: Features) -> Any:
        features = torch.from_numpy(source.values.T.copy())
        return self.theirs.get_encoder()(features[None])

    def _their_target(self, source: Features) -> list[int]:
        ids, cache, encoded = torch.tensor([self.start]), None, self._encoded(source)
        never = list(self.vocabulary.never)
        while ids.shape[1] < len(self.start) + self.most and ids[0, -1] != self.vocabulary.eos_id:
            answer = self.theirs(
                encoder_outputs=encoded,
                decoder_input_ids=ids if cache is None else ids[:, -1:],
                past_key_values=cache,
                use_cache=True,
            )
            logits, cache = answer.logits[:, -1], answer.past_key_values
            logits[:, never] = float("-inf")
            ids = torch.cat([ids, logits.argmax(-1)[:, None]], dim=1)
        return [int(token) for token in ids[0]]


def _sound(seconds: float) -> NDArray[np.float32]:
    """Tones that change ten times a second, under noise, at 16 kHz."""
    rng = np.random.default_rng(0)
    count, every = round(seconds * _RATE), _RATE // 10
    tones = np.repeat(rng.uniform(100, 3000, count // every + 1), every)[:count]
    wave = 0.4 * np.sin(2 * np.pi * np.cumsum(tones) / _RATE)
    return (wave + 0.05 * rng.standard_normal(count)).astype(np.float32)
