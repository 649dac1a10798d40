"""Where tensors lie: which of them overlap, and bringing one into a memory order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch


def share_memory(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether the memory of two tensors may overlap, by their first and last elements."""
    if a.layout is not torch.strided or b.layout is not torch.strided:
        return any(share_memory(p, q) for p in _parts(a) for q in _parts(b))
    if a.numel() == 0 or b.numel() == 0:
        return False
    (first_a, last_a), (first_b, last_b) = _extent(a), _extent(b)
    return first_a <= last_b and first_b <= last_a


def _parts(tensor: torch.Tensor) -> list[torch.Tensor]:
    """The strided tensors that a tensor is made of."""
    if tensor.layout is torch.sparse_coo:
        return [tensor._indices(), tensor._values()]
    if tensor.layout is torch.sparse_csr:
        return [tensor.crow_indices(), tensor.col_indices(), tensor.values()]
    return [tensor]


def any_shared(inputs: Iterable[torch.Tensor], written: tuple[torch.Tensor, ...]) -> bool:
    """Whether one of ``inputs`` overlaps one of ``written``."""
    return any(share_memory(tensor, state) for tensor in inputs for state in written)


def overlaps(tensors: Iterable[torch.Tensor]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Pairs of different tensors that overlap.

    Not all such pairs, but each tensor that overlaps another one is in a pair: in the order of
    their first elements, a tensor is compared with that one before it which reaches furthest.
    """
    places = [
        (str(t.device), *_extent(t), t)
        for t in tensors
        if t.layout is torch.strided and t.numel() and not t.is_meta
    ]
    furthest: tuple[str, int, int, torch.Tensor] | None = None
    for place in sorted(places, key=lambda p: p[:2]):
        device, first, last, tensor = place
        if furthest is None or device != furthest[0] or first > furthest[2]:
            furthest = place
            continue
        yield furthest[3], tensor
        if last > furthest[2]:
            furthest = place


def laid_out(tensor: torch.Tensor, order: tuple[int, ...]) -> torch.Tensor:
    """``tensor``, or a copy of it, with its dims dense in memory in that order, fastest first."""
    outward = [*reversed(order)]
    permuted = tensor.permute(outward)
    if permuted.is_contiguous():
        return tensor
    return permuted.contiguous().permute([outward.index(d) for d in range(len(outward))])


def _extent(tensor: torch.Tensor) -> tuple[int, int]:
    """The addresses of the first and the last byte."""
    steps = zip(tensor.shape, tensor.stride(), strict=True)
    count = 1 + sum((size - 1) * stride for size, stride in steps)
    first = tensor.data_ptr()
    return first, first + count * tensor.element_size() - 1
