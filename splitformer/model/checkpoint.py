"""Checkpoints on disk: what they hold, who they are, and loading one half of one.

A folder holds `config.json`, `model.safetensors` and a tokenizer. Tensors are named by their place
in `Transformer`; one that is tied to another is stored once. Families of published checkpoints
will map their own files to the same `Checkpoint`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from splitformer.errors import ConfigurationError
from splitformer.model.config import TransformerConfig
from splitformer.model.decoder import Decoder
from splitformer.model.encoder import Encoder
from splitformer.model.tokenizer import Tokenizer
from splitformer.model.transformer import Transformer

FAMILY = "splitformer"
SHARED_EMBEDDING = "encoder.embedding.tokens.weight"
_DECODER_EMBEDDING = "decoder.embedding.tokens.weight"
_OUTPUT_WEIGHT = "decoder.output.weight"

_Half = TypeVar("_Half", Encoder, Decoder)


@dataclass(frozen=True, slots=True)
class Description:
    """What config.json says.

    Attributes:
        name: Name under which requests ask for the model.
        architecture: Shape of the Transformer.
        eos_id: Ends sources and targets.
        pad_id: Fills batches; never generated.
        unk_id: Stands for what the vocabulary lacks; never generated.
        source_language: Language of the sources.
        target_languages: Language to the token that starts its targets.
        tokenizer_file: File name of the SentencePiece model.
    """

    name: str
    architecture: TransformerConfig
    eos_id: int
    pad_id: int
    unk_id: int
    source_language: str
    target_languages: Mapping[str, int] = field(default_factory=dict)
    tokenizer_file: str = "tokenizer.model"

    def __post_init__(self) -> None:
        size = self.architecture.target_vocabulary_size
        named = {"eos_id": self.eos_id, "pad_id": self.pad_id, "unk_id": self.unk_id}
        named |= {f"target_languages.{k}": v for k, v in self.target_languages.items()}
        for name, token in named.items():
            if type(token) is not int or not 0 <= token < size:
                raise ConfigurationError(f"{name}: must be an id below {size}, got {token!r}")
        if Path(self.tokenizer_file).name != self.tokenizer_file:
            raise ConfigurationError(
                f"tokenizer.file: must be a bare file name, got {self.tokenizer_file!r}"
            )

    @property
    def never_generated(self) -> tuple[int, ...]:
        """Ids that no target may contain."""
        return (self.pad_id, self.unk_id, *self.target_languages.values())

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Description:
        """Read parsed config.json; the error names what is missing or wrong."""
        if values.get("model_type") != FAMILY:
            raise ConfigurationError(
                f"model_type: must be {FAMILY!r}, got {values.get('model_type')!r}"
            )
        try:
            return cls(
                name=values["name"],
                architecture=TransformerConfig.from_dict(values["architecture"]),
                eos_id=values["eos_id"],
                pad_id=values["pad_id"],
                unk_id=values["unk_id"],
                source_language=values["source_language"],
                target_languages=dict(values["target_languages"]),
                tokenizer_file=values["tokenizer"]["file"],
            )
        except KeyError as error:
            raise ConfigurationError(f"config.json: missing field {error}") from error
        except (AttributeError, TypeError) as error:
            raise ConfigurationError(f"config.json: a field has the wrong type: {error}") from error

    def to_dict(self) -> dict[str, Any]:
        """Return config.json's contents; `from_dict` is the inverse."""
        return {
            "model_type": FAMILY,
            "name": self.name,
            "architecture": self.architecture.to_dict(),
            "tokenizer": {"type": "sentencepiece", "file": self.tokenizer_file},
            "eos_id": self.eos_id,
            "pad_id": self.pad_id,
            "unk_id": self.unk_id,
            "source_language": self.source_language,
            "target_languages": dict(self.target_languages),
        }


class Checkpoint:
    """A model folder, opened: described and fingerprinted, weights not loaded yet.

    Args:
        folder: Where the files are.

    Raises:
        ConfigurationError: A file is missing, unreadable or contradicts another one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.description = Description.from_dict(_read_json(folder / "config.json"))
        self._weights = folder / "model.safetensors"
        self.tokenizer = Tokenizer(
            folder / self.description.tokenizer_file, self.description.eos_id
        )
        expected = self.description.architecture.source_vocabulary_size
        if self.tokenizer.vocabulary_size > expected:
            raise ConfigurationError(
                f"tokenizer: has {self.tokenizer.vocabulary_size} pieces, more than the"
                f" vocabulary of {expected}"
            )
        self.fingerprint = self._fingerprint()

    def load_encoder(self) -> Encoder:
        """Load the encoder's weights only, as float32, in evaluation mode."""
        return self._load(Encoder(self.description.architecture), "encoder.")

    def load_decoder(self) -> Decoder:
        """Load the decoder's weights only, as float32, in evaluation mode."""
        return self._load(Decoder(self.description.architecture), "decoder.")

    def load(self) -> Transformer:
        """Load both halves, as float32, in evaluation mode."""
        config = self.description.architecture
        model = Transformer(config)
        model.encoder.load_state_dict(self.load_encoder().state_dict())
        model.decoder.load_state_dict(self.load_decoder().state_dict())
        return model.eval()

    def _load(self, half: _Half, prefix: str) -> _Half:
        config = self.description.architecture
        names = {name: _stored_name(prefix + name, config) for name in half.state_dict()}
        stored = self._read_tensors(names.values())
        tensors = {name: stored[stored_name].float() for name, stored_name in names.items()}
        _check_shapes(half, tensors)
        half.load_state_dict(tensors)
        return half.eval().requires_grad_(False)

    def _read_tensors(self, wanted: Iterable[str] | None = None) -> dict[str, Tensor]:
        """Read the tensors of these names; None: all there are."""
        try:
            with safe_open(self._weights, framework="pt") as file:
                present = set(file.keys())
                names = present if wanted is None else set(wanted)
                if missing := sorted(names - present):
                    raise ConfigurationError(f"model.safetensors: missing tensor {missing[0]!r}")
                return {name: file.get_tensor(name) for name in names}
        except (OSError, SafetensorError) as error:
            raise ConfigurationError(f"model.safetensors: cannot be read: {error}") from error

    def _fingerprint(self) -> str:
        """SHA-256 over configuration, tokenizer and every tensor's name, dtype and bytes."""
        digest = hashlib.sha256()
        digest.update(json.dumps(self.description.to_dict(), sort_keys=True).encode())
        digest.update((self.folder / self.description.tokenizer_file).read_bytes())
        for name, tensor in sorted(self._read_tensors().items()):
            digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
            digest.update(tensor.contiguous().view(torch.uint8).numpy().data)
        return digest.hexdigest()


def save_checkpoint(
    folder: Path,
    model: Transformer,
    description: Description,
    tokenizer: Path,
    dtype: torch.dtype = torch.float16,
) -> None:
    """Write a model as a checkpoint folder; tied tensors are stored once."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        name: tensor.detach().to(dtype).contiguous()
        for name, tensor in model.state_dict().items()
        if _stored_name(name, description.architecture) == name
    }
    save_file(tensors, folder / "model.safetensors")
    text = json.dumps(description.to_dict(), indent=2, ensure_ascii=False)
    (folder / "config.json").write_text(text + "\n", encoding="utf-8")
    (folder / description.tokenizer_file).write_bytes(tokenizer.read_bytes())


def _stored_name(name: str, config: TransformerConfig) -> str:
    """Name under which a tensor is stored: its own, or that of the one it is tied to."""
    if name == _OUTPUT_WEIGHT and config.tie_output:
        name = _DECODER_EMBEDDING
    if name == _DECODER_EMBEDDING and config.share_embeddings:
        name = SHARED_EMBEDDING
    return name


def _check_shapes(half: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    for name, parameter in half.state_dict().items():
        if tensors[name].shape != parameter.shape:
            raise ConfigurationError(
                f"model.safetensors: tensor {name!r} must have shape {list(parameter.shape)},"
                f" got {list(tensors[name].shape)}"
            )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{path.name}: cannot be read: {error}") from error
    except ValueError as error:
        raise ConfigurationError(f"{path.name}: is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise ConfigurationError(f"{path.name}: must hold an object, got {type(values).__name__}")
    return values
