"""A sequence's own keys and values: pages that forks share until one of them is written."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor

from splitformer.model.cache import SelfCache
from splitformer.model.tensors import Tensors
from splitformer.native import PAGE_POSITIONS as PAGE

LAYERS, HEADS, WIDTH = 2, 3, 4


def new_cache() -> SelfCache:
    return SelfCache(LAYERS, HEADS, WIDTH, Tensors(torch.empty(0)))


def write(cache: SelfCache, rows: Tensor) -> None:
    """Append rows (L, 2, H, n, K) as a step would."""
    for layer in range(LAYERS):
        cache.append(layer, rows[layer, 0], rows[layer, 1])
    cache.commit(rows.shape[3])


def numbers(count: int) -> Tensor:
    return torch.randn(LAYERS, 2, HEADS, count, WIDTH)


def content(cache: SelfCache) -> Tensor:
    return torch.stack([cache.keys, cache.values], dim=1)  # (L, 2, H, length, K)


@pytest.mark.parametrize("counts", [(1,), (PAGE,), (PAGE - 1, 2), (3 * PAGE + 5, 1, PAGE)])
def test_holds_what_was_appended(counts: tuple[int, ...]) -> None:
    cache, parts = new_cache(), [numbers(count) for count in counts]
    for part in parts:
        write(cache, part)
    assert torch.equal(content(cache), torch.cat(parts, dim=3))
    assert cache.length == sum(counts)
    assert cache.capacity == -(-cache.length // PAGE) * PAGE
    assert cache.size_bytes == SelfCache.bytes_for(cache.length, LAYERS, HEADS * WIDTH, 4)


def test_growing_moves_nothing() -> None:
    cache = new_cache()
    write(cache, numbers(PAGE + 1))
    before = list(cache.addresses)
    write(cache, numbers(5 * PAGE))
    assert list(cache.addresses)[:2] == before


def test_what_a_step_is_told_follows_pages_that_come_and_go() -> None:
    cache, other = new_cache(), new_cache()

    def told() -> bool:
        addresses = [each.addresses.buffer_info()[0] for each in (cache, other)]
        sizes = [len(each.addresses) * PAGE for each in (cache, other)]
        said = [each.sequence[:2].tolist() for each in (cache, other)]
        return said == [list(each) for each in zip(addresses, sizes, strict=True)]

    for count in (1, PAGE, 9 * PAGE):
        write(cache, numbers(count))
        assert told()
    cache.truncate(PAGE + 1)
    assert told()
    other.adopt(cache, 0)
    assert told()
    other = other.fork()
    write(other, numbers(40 * PAGE))
    assert told()


def test_a_fork_shares_full_pages_by_reference() -> None:
    cache = new_cache()
    write(cache, numbers(2 * PAGE + 3))
    fork = cache.fork()
    assert list(fork.addresses)[:2] == list(cache.addresses)[:2]
    assert fork.addresses[2] != cache.addresses[2]
    assert torch.equal(content(fork), content(cache))


def test_writing_behind_a_fork_copies_no_shared_page() -> None:
    cache = new_cache()
    write(cache, numbers(2 * PAGE))
    cache.fork()
    before = list(cache.addresses)
    write(cache, numbers(1))
    assert list(cache.addresses)[:2] == before


def test_a_shared_page_is_copied_before_it_is_written() -> None:
    cache = new_cache()
    write(cache, numbers(2 * PAGE))
    first = cache.fork()
    said = content(first)
    cache.truncate(PAGE + 8)
    second = cache.fork()  # does not make the page ours again
    write(cache, numbers(4))
    write(second, numbers(2))
    assert torch.equal(content(first), said)
    assert torch.equal(content(second)[:, :, :, : PAGE + 8], said[:, :, :, : PAGE + 8])
    assert first.addresses[0] == cache.addresses[0] == second.addresses[0]
    assert len({first.addresses[1], cache.addresses[1], second.addresses[1]}) == 3


def test_truncating_lets_pages_go() -> None:
    cache = new_cache()
    write(cache, numbers(3 * PAGE))
    cache.truncate(PAGE)
    assert cache.capacity == PAGE
    cache.truncate(0)
    assert cache.size_bytes == 0
    assert cache.keys.shape == (LAYERS, HEADS, 0, WIDTH)


def same(first: Tensor, second: Tensor) -> int:
    """How many positions of (L, 2, H, n, K) are the same at the beginning."""
    most = min(first.shape[3], second.shape[3])
    unequal = (first[:, :, :, :most] != second[:, :, :, :most]).any(-1).any(0).any(0).any(0)
    return int(unequal.int().argmax()) if unequal.any() else most


def test_adopting_copies_what_is_different_and_shares_nothing() -> None:
    first = new_cache()
    write(first, numbers(PAGE + 4))
    second = first.fork()
    write(first, numbers(3))
    write(second, numbers(2))
    page = second.addresses[1]
    second.adopt(first, PAGE + 4)
    assert torch.equal(content(second), content(first))
    assert second.addresses[1] == page
    assert second.addresses[0] == first.addresses[0]
    before = content(first)
    write(second, numbers(PAGE))
    assert torch.equal(content(first), before)


def test_random_families_of_forks_keep_their_own() -> None:
    chance = random.Random(0)
    family = [(new_cache(), numbers(0))]
    for _ in range(400):
        index = chance.randrange(len(family))
        cache, expected = family[index]
        match chance.choice(("write", "write", "fork", "rewind", "adopt", "leave")):
            case "write":
                rows = numbers(chance.randint(1, PAGE + 3))
                write(cache, rows)
                family[index] = (cache, torch.cat([expected, rows], dim=3))
            case "fork" if len(family) < 12:
                family.append((cache.fork(), expected))
            case "rewind":
                length = chance.randint(0, cache.length)
                cache.truncate(length)
                family[index] = (cache, expected[:, :, :, :length])
            case "adopt" if len(family) > 1:
                other, its = family[index - 1]
                cache.adopt(other, chance.randint(0, same(expected, its)))
                family[index] = (cache, its)
            case "leave" if len(family) > 1:
                del family[index]
        for each, its in family:
            assert torch.equal(content(each), its)
