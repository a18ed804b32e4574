"""A model of text, opened by us and by Transformers; see `splitformer.serving.comparing`."""

from __future__ import annotations

from typing import Any

import torch

from splitformer.errors import ConfigurationError
from splitformer.model.checkpoint import Checkpoint
from splitformer.serving.comparing import NEW_TOKENS, Pair, check_languages, opened

SENTENCES = (
    "Open the file.",
    "The weather is fine today.",
    "Where is the nearest railway station?",
    "She has lived in this town for twenty years.",
    "Please save your work before you close the window.",
    "The committee will meet again on Monday at 9:30.",
    "I would like a cup of tea, please.",
    "The price rose by 12.5 % within a single month.",
    "Nobody knows why the ship sank.",
    "We were not able to find the page you asked for.",
    "He said: “It was not my fault.”",
    "Water boils at 100 degrees Celsius.",
    "The old bridge across the river was rebuilt in 1987.",
    "Can you tell me how this machine works?",
    "My brother's dog is afraid of thunder.",
    "Two plus two is four.",
    "The patient was given antibiotics and soon recovered.",
    "A small group of people waited in the rain.",
    "Choose a name for the new folder.",
    "Thank you very much for your help!",
)


class TextPair(Pair):
    """A model of text.

    Args:
        checkpoint: The folder.
        source_language: Language of the sources, as the model names it.
        target_language: Target language, as the model names it.

    Raises:
        ConfigurationError: It cannot be opened or compared, or does not know a language.
    """

    def __init__(self, checkpoint: Checkpoint, source_language: str, target_language: str) -> None:
        description = checkpoint.description
        if description.family == "splitformer":
            raise ConfigurationError(
                f"verify: has nothing to compare text of family {description.family!r} with"
            )
        self.languages = (source_language, target_language)
        check_languages(checkpoint, *self.languages)
        language = target_language if description.languages.on_decoder else ""
        theirs = opened(checkpoint.folder, "AutoModelForSeq2SeqLM")
        super().__init__(checkpoint, theirs, description.languages.starts[language])
        self.sources = {text: self._ids(text) for text in SENTENCES}
        self.theirs.generation_config = self._settings()  # in place of what they suggest

    def _encoded(self, source: list[int]) -> Any:
        return self.theirs.get_encoder()(input_ids=torch.tensor([source]))

    def _ids(self, text: str) -> list[int]:
        return [piece.id for piece in self.checkpoint.encode_source(text, *self.languages)]

    def _their_target(self, source: list[int]) -> list[int]:
        output = self.theirs.generate(
            torch.tensor([source]),
            attention_mask=torch.ones(1, len(source), dtype=torch.long),
        )
        return [int(token) for token in output[0]]

    def _settings(self) -> Any:
        import transformers  # noqa: PLC0415 (not needed to serve)

        first, *forced = self.start
        return transformers.GenerationConfig(
            max_new_tokens=NEW_TOKENS,
            do_sample=False,
            num_beams=1,
            decoder_start_token_id=first,
            forced_bos_token_id=forced[0] if forced else None,
            eos_token_id=self.vocabulary.eos_id,
            pad_token_id=self.theirs.config.pad_token_id,
            bad_words_ids=[[token] for token in self.vocabulary.never] or None,
        )

    def _tokenized_alike(self) -> int | None:
        import transformers  # noqa: PLC0415

        languages, (source, target) = self.checkpoint.description.languages, self.languages
        try:
            theirs = transformers.AutoTokenizer.from_pretrained(
                self.checkpoint.folder, local_files_only=True
            )
            if source:
                theirs.src_lang = source
            before = "" if languages.on_decoder else languages.bindings[target].text
            marked = languages.marker.format(target) if languages.marker and target else ""
            cut = [theirs(marked + before + text).input_ids for text in SENTENCES]
        except Exception:  # whatever a tokenizer of theirs needs that is not here
            return None
        pairs = zip(cut, SENTENCES, strict=True)
        return sum(bool(ids == self._ids(text)) for ids, text in pairs)
