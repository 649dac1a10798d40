"""``with_state_dict``: other weights for a program.

What fits is that which ``load_state_dict`` of the module would take. Tensors are taken over as they
are where they can be, so that a program may share its weights with a module: they are copied where
the program writes them, where their strides are others than the program's, and where two names
that are separate in the program show one memory.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from stillframe.errors import InvalidInput
from stillframe.export.memory import any_shared, overlaps
from stillframe.export.sharing import is_equal, is_same_tensor, tensors_of, written_state
from stillframe.export.state import memory_of

if TYPE_CHECKING:
    from stillframe.export.program import ExportedProgram

Tensors = Mapping[str, Any]


def with_state_dict(
    programs: Sequence[ExportedProgram], given: Any, strict: bool
) -> list[ExportedProgram]:
    """The programs, which share their state, with the tensors of ``given``.

    Raises:
        InvalidInput: tells all that does not fit.
    """
    if not isinstance(given, Mapping):
        raise InvalidInput(f"state_dict must be a dict by name, got {type(given).__name__}.")
    everything: dict[str, Any] = {}
    for program in programs:
        everything |= tensors_of(program)
    old = {fqn: everything[fqn] for program in programs for fqn in program.state_dict}
    _check_fits(old, given, strict)
    _refuse_views(old, everything, given)
    written = {fqn for program in programs for fqn in written_state(program)}
    replaced = {id(old[fqn]) for fqn in given if fqn in old}
    kept = [v for v in everything.values() if isinstance(v, torch.Tensor) and id(v) not in replaced]
    new = _new_tensors(old, given, kept, written)
    return [
        program._replaced(state_dict={fqn: new[fqn] for fqn in program.state_dict})
        for program in programs
    ]


# -- what does not fit ----------------------------------------------------------------------------


def _check_fits(old: Tensors, given: Tensors, strict: bool) -> None:
    names = [f"{fqn}: is missing" for fqn in old if fqn not in given]
    names += [f"{fqn}: the program has no such tensor" for fqn in given if fqn not in old]
    wrong_names = names if strict else []
    wrong_tensors = [
        f"{fqn}: {text}"
        for fqn, value in given.items()
        if fqn in old
        for text in _misfits(old[fqn], value)
    ]
    problems = [*wrong_names, *wrong_tensors] or [
        f"{', '.join(tied)}: tied in the program, and different tensors here"
        for tied in _ties(old)
        if not _agree([given[fqn] for fqn in tied if fqn in given])
    ]
    if problems:
        hint = "strict=False leaves missing tensors as they are, and ignores unknown ones"
        raise InvalidInput(
            "The state_dict does not fit the program.",
            why="\n    ".join(["in these places", *problems]),
            hints=[hint] if wrong_names else [],
        )


def _misfits(old: torch.Tensor, value: Any) -> Iterator[str]:
    if not isinstance(value, torch.Tensor):
        yield f"is a {type(value).__name__}, not a tensor"
        return
    for what, found, wanted in (
        ("shape", tuple(value.shape), tuple(old.shape)),
        ("dtype", value.dtype, old.dtype),
        ("device", value.device, old.device),
        ("layout", value.layout, old.layout),
    ):
        if found != wanted:
            yield f"{what} is {found}, the program has {wanted}"


def _agree(values: Sequence[torch.Tensor]) -> bool:
    """Whether tensors that are given for one tensor are the same, or equal."""
    pairs = itertools.pairwise(v.detach() for v in values)
    return all(is_same_tensor(a, b) or is_equal(*map(_dense, (a, b))) for a, b in pairs)


def _dense(tensor: torch.Tensor) -> torch.Tensor:
    return tensor if tensor.layout is not torch.strided else tensor.contiguous()


def _refuse_views(old: Tensors, everything: Tensors, given: Tensors) -> None:
    """Tensors that overlap without being one cannot be replaced one by one."""
    replaced = {id(old[fqn]): fqn for fqn in given if fqn in old}
    names = {id(value): fqn for fqn, value in everything.items()} | replaced
    tensors = {id(v): v for v in everything.values() if isinstance(v, torch.Tensor)}
    for pair in overlaps(tensors.values()):
        if any(id(tensor) in replaced for tensor in pair):
            a, b = (names[id(tensor)] for tensor in pair)
            raise InvalidInput(
                f"{a} and {b} show the same memory in the program, and cannot be replaced "
                "one by one.",
                hints=["load the state_dict into the module, and export it again"],
            )


# -- the new tensors ------------------------------------------------------------------------------


def _ties(old: Tensors) -> list[list[str]]:
    """The names, those of one tensor together."""
    groups: dict[int, list[str]] = {}
    for fqn, value in old.items():
        groups.setdefault(id(value), []).append(fqn)
    return list(groups.values())


def _new_tensors(
    old: Tensors, given: Tensors, kept: Iterable[torch.Tensor], written: set[str]
) -> dict[str, Any]:
    """The tensor of each name; tied names get one.

    Args:
        old: what the program has.
        given: what is to be in its place.
        kept: all tensors of the program that are not replaced.
        written: the names of those that the program writes.
    """
    new: dict[str, Any] = {}
    places = _Places(kept)
    for names in _ties(old):
        source = next((given[fqn] for fqn in names if fqn in given), None)
        value = old[names[0]]
        if source is not None:
            value = _fitted(value, source, places.is_taken(source) or written.intersection(names))
            places.take(value)
        new |= dict.fromkeys(names, value)
    return new


class _Places:
    """Memory that tensors of the program have."""

    def __init__(self, tensors: Iterable[torch.Tensor]) -> None:
        self._tensors: dict[int, list[torch.Tensor]] = {}
        for tensor in tensors:
            self.take(tensor)

    def take(self, tensor: torch.Tensor) -> None:
        """From now on this is the memory of ``tensor``."""
        if tensor.layout is torch.strided:
            self._tensors.setdefault(memory_of(tensor), []).append(tensor)

    def is_taken(self, tensor: torch.Tensor) -> bool:
        """Whether another tensor has some of this one's memory."""
        if tensor.layout is not torch.strided:
            return False
        return any_shared(self._tensors.get(memory_of(tensor), ()), (tensor,))


def _fitted(old: torch.Tensor, source: torch.Tensor, copied: Any) -> torch.Tensor:
    """``source`` in the form of ``old``: itself, or a copy where it has to be one."""
    value = source.detach().resolve_conj().resolve_neg()
    if old.layout is torch.strided:
        if copied or value.stride() != old.stride():
            value = torch.empty_strided(
                old.shape, old.stride(), dtype=old.dtype, device=old.device
            ).copy_(value)
    if not isinstance(old, torch.nn.Parameter):
        return value.requires_grad_(old.requires_grad)
    if isinstance(source, torch.nn.Parameter) and value.data_ptr() == source.data_ptr():
        return source
    return torch.nn.Parameter(value, requires_grad=old.requires_grad)
