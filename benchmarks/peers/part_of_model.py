"""Loads a part of a model, uses it once, and prints its peak of memory.

`python -m benchmarks.peers.part_of_model encoder|decoder|both|ctranslate2 FOLDER`

Our parts are loaded with everything that a service imports, as the services do.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

from benchmarks.processes import Usage


def main(part: str, folder: Path) -> int:
    """Load, use, print bytes."""
    if part == "ctranslate2":
        _translate(folder)
    else:
        _serve(("encoder", "decoder") if part == "both" else (part,), folder)
    print(Usage.of(os.getpid()).peak_bytes)
    return 0


def _translate(folder: Path) -> None:
    import ctranslate2  # noqa: PLC0415 (what is not used must not count)

    with (folder / "model.bin").open("rb") as file:
        if b"Whisper" in file.read(64):
            _hear(folder)
            return
    translator = ctranslate2.Translator(str(folder), compute_type="int8")
    translator.translate_batch([["w9"] * 24], beam_size=1, max_decoding_length=4)


def _hear(folder: Path) -> None:
    import ctranslate2  # noqa: PLC0415
    import numpy as np  # noqa: PLC0415

    model = ctranslate2.models.Whisper(str(folder), compute_type="int8")
    features = ctranslate2.StorageView.from_array(np.zeros((1, 80, 3000), np.float32))
    model.generate(features, [["<|startoftranscript|>"]], beam_size=1, max_length=8)


def _serve(halves: tuple[str, ...], folder: Path) -> None:
    import numpy as np  # noqa: PLC0415

    import splitformer.serving.server  # noqa: F401, PLC0415
    from splitformer.model.checkpoint import Checkpoint  # noqa: PLC0415
    from splitformer.model.encoding import Features, Source  # noqa: PLC0415
    from splitformer.serving import kernels  # noqa: PLC0415
    from splitformer.serving.arithmetic import Arithmetic  # noqa: PLC0415

    for half in halves:
        importlib.import_module(f"{half}_service.servicer")
    checkpoint, arithmetic = Checkpoint(folder), Arithmetic("int8")
    config, kept = checkpoint.description.architecture, []
    if "encoder" in halves:
        encoder = kernels.source_encoder(checkpoint, arithmetic)
        frames = np.zeros((2 * config.longest_source, config.mel_bins), np.float32)
        source: Source = Features(frames) if config.mel_bins else [9] * 24
        kept.append((encoder, encoder.encode([source])))
    if "decoder" in halves:
        decoder = kernels.step_decoder(checkpoint, arithmetic)
        state = decoder.begin(np.zeros((24, config.d_model), np.float32))
        decoder.advance([[0]], [state])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
