"""How close the native step comes to its own matrix products: `python -m benchmarks.gemm_floor`.

The floor is the step's matrix products alone, with the same kernels, threads and barriers, looped
without Python. The step is everything: embedding, norms, attention over `--source` and `--target`
positions, the vocabulary with its log-probabilities, and the Python around the call. Rounds of both
alternate; the fastest says what the code costs, the median what the machine was up to.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from benchmarks.shapes import SHAPES
from splitformer.model.cache import DecoderState
from splitformer.model.decoder import Decoder
from splitformer.model.native_decoder import NativeDecoder
from splitformer.native import Precision, instruction_set


def main() -> None:
    """Measure and print one line per batch size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8, 32, 64])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--source", type=int, default=32, help="rows of each memory")
    parser.add_argument("--target", type=int, default=32, help="position of the step")
    parser.add_argument("--precision", choices=["int8", "fp32"], default="int8")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--profile", action="store_true", help="where the first thread's time goes")
    options = parser.parse_args()
    torch.manual_seed(0)
    decoder = NativeDecoder(
        Decoder(SHAPES["marian-base"]).eval(), options.precision, options.threads
    )
    states = [_state(decoder, options.source, options.target) for _ in range(max(options.batch))]
    precision: Precision = options.precision
    print(f"{precision}, {instruction_set().name}, {options.threads} threads")
    print("batch  step ms  floor ms  floor/step  median: step  floor")
    for batch in options.batch:
        steps, floors = _measure(decoder, states[:batch], options.target, options.rounds)
        step, floor = min(steps) * 1e3, min(floors) * 1e3
        usual = [statistics.median(times) * 1e3 for times in (steps, floors)]
        print(
            f"{batch:5}  {step:7.3f}  {floor:8.3f}  {floor / step:10.2f}"
            f"  {usual[0]:12.3f}  {usual[1]:5.3f}"
        )
        if options.profile:
            _print_profile(decoder, states[:batch], options.target)
    decoder.close()


@torch.inference_mode()
def _state(decoder: NativeDecoder, source: int, target: int) -> DecoderState:
    state = decoder.begin(torch.randn(source, decoder.config.d_model))
    tokens = torch.randint(decoder.config.target_vocabulary_size, (target,)).tolist()
    decoder.advance([tokens], [state])
    return state


def _measure(
    decoder: NativeDecoder, states: list[DecoderState], target: int, rounds: int
) -> tuple[list[float], list[float]]:
    """Return each round's seconds per step and per run of its products."""
    repeats = max(1, 16 // len(states))
    steps, floors = [], []
    for _ in range(rounds):
        steps.append(_time(lambda: _step(decoder, states, target, repeats)) / repeats)
        floors.append(_time(lambda: decoder.plan.products(len(states), repeats)) / repeats)
    return steps, floors


def _step(decoder: NativeDecoder, states: list[DecoderState], target: int, repeats: int) -> None:
    tokens = [[7]] * len(states)
    for _ in range(repeats):
        for state in states:
            state.truncate(target - 1)
        decoder.advance(tokens, states)


def _time(run: Callable[[], None]) -> float:
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun


def _print_profile(decoder: NativeDecoder, states: list[DecoderState], target: int) -> None:
    decoder.plan.profile(True)
    seconds = _time(lambda: _step(decoder, states, target, 32)) / 32
    cycles = decoder.plan.profile(False)
    total = sum(cycles.values())
    parts = (f"{name} {seconds * c / total * 1e3:.3f}" for name, c in cycles.items())
    print("       " + ", ".join(parts))


if __name__ == "__main__":
    main()
