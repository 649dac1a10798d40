"""One set of tensors for several captures of one module.

Captures hold the module's own parameters, so these are the same tensors already. Buffers that a
program writes are copies of its own (:mod:`~stillframe.export.ownership`), and constants are new
tensors in each capture. :func:`shared_state` gives all programs one tensor for each name, if they
were equal so far; otherwise the programs do not belong together, and the error names the tensor.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from stillframe.errors import InvalidInput
from stillframe.export.signature import InputKind, OutputKind
from stillframe.export.state import memory_of
from stillframe.fake.tensor import FakeTensor

if TYPE_CHECKING:
    from stillframe.export.program import ExportedProgram

_MADE_UP = re.compile(r"(?:^|\.)lifted_tensor_\d+$")  # constants that have no name in the module
_WRITES = (OutputKind.BUFFER_MUTATION, OutputKind.PARAMETER_MUTATION)


def shared_state(programs: Sequence[ExportedProgram]) -> list[ExportedProgram]:
    """The same programs, with one tensor for each name.

    Raises:
        InvalidInput: two programs hold different tensors under one name, or memory that one of
            them writes is known to the other under names that cannot be shared.
    """
    programs = _with_constants_apart(programs)
    kept: dict[str, Any] = {}
    owners: dict[str, bool] = {}  # whether a program that writes the tensor gave it
    for program in programs:
        written = written_state(program)
        for fqn, value in tensors_of(program).items():
            if fqn in kept:
                _check_same(fqn, kept[fqn], value)
            if fqn not in kept or (fqn in written and not owners[fqn]):
                kept[fqn], owners[fqn] = value, fqn in written
    return [_holding(program, kept) for program in programs]


def tensors_of(program: ExportedProgram) -> dict[str, Any]:
    """State and constants by FQN."""
    return {**program.constants, **program.state_dict}


def written_state(program: ExportedProgram) -> set[str]:
    """The names of state and constants whose memory the program writes."""
    signature = program.graph_signature
    copied_back = {s.target for s in signature.output_specs if s.kind in _WRITES}
    placeholders = [n for n in program.graph.nodes if n.op == "placeholder"]
    in_place = {
        spec.target
        for spec, node in zip(signature.input_specs, placeholders, strict=True)
        if isinstance(value := node.meta["val"], FakeTensor) and value.storage_.written
    }
    memories = {
        fqn: memory_of(value)
        for fqn, value in tensors_of(program).items()
        if isinstance(value, torch.Tensor) and value.layout is torch.strided
    }
    written = {memories.get(fqn) for fqn in copied_back | in_place if fqn is not None}
    return {fqn for fqn, memory in memories.items() if memory in written}


# -- comparing ------------------------------------------------------------------------------------


def is_same_tensor(a: Any, b: Any) -> bool:
    """Whether two tensors are one object, or show one memory in the same way."""
    if a is b:
        return True
    if not isinstance(a, torch.Tensor) or not isinstance(b, torch.Tensor):
        return False
    if a.layout is not torch.strided or b.layout is not torch.strided:
        return False
    return _form(a) == _form(b) and memory_of(a) == memory_of(b)


def is_equal(a: Any, b: Any) -> bool:
    """Whether two tensors are of one form and equal, NaNs included."""
    if not isinstance(a, torch.Tensor) or not isinstance(b, torch.Tensor):
        return bool(a is b)
    if a.layout is not torch.strided or b.layout is not torch.strided or a.is_meta or b.is_meta:
        return False
    if _form(a)[:-1] != _form(b)[:-1] or a.requires_grad != b.requires_grad:
        return False
    bits_a, bits_b = (
        t.detach().resolve_conj().resolve_neg().contiguous().reshape(-1).view(torch.uint8)
        for t in (a, b)
    )
    return torch.equal(bits_a, bits_b)


def _form(tensor: torch.Tensor) -> tuple[Any, ...]:
    return (
        tensor.dtype, tensor.device, tensor.shape, tensor.stride(), tensor.storage_offset(),
    )  # fmt: skip


def _check_same(fqn: str, one: Any, other: Any) -> None:
    if is_same_tensor(one, other):
        return
    is_parameter = isinstance(one, torch.nn.Parameter) or isinstance(other, torch.nn.Parameter)
    if not is_parameter and is_equal(one, other):
        return
    raise InvalidInput(
        f"{fqn} is not the same tensor in all programs.",
        why="programs are combined to share their state; these were made from different modules, "
        "or the state was changed between the exports, or the file they come from is another",
        hints=["program = program.with_state_dict(other.state_dict)", "export both again"],
    )


# -- replacing ------------------------------------------------------------------------------------


def _holding(program: ExportedProgram, kept: Mapping[str, Any]) -> ExportedProgram:
    """The program with the tensors that all programs hold."""
    own = tensors_of(program)
    changed = {fqn for fqn, value in own.items() if kept[fqn] is not value}
    if not changed:
        return program
    _refuse_split_memory(own, kept)
    return program._replaced(
        state_dict={fqn: kept[fqn] for fqn in program.state_dict},
        constants={fqn: kept[fqn] for fqn in program.constants},
    )


def _refuse_split_memory(own: Mapping[str, Any], kept: Mapping[str, Any]) -> None:
    """What was one memory must be one memory afterwards: the program may write it."""
    by_memory: dict[int, list[str]] = {}
    for fqn, value in own.items():
        if isinstance(value, torch.Tensor) and value.layout is torch.strided:
            by_memory.setdefault(memory_of(value), []).append(fqn)
    for names in by_memory.values():
        if len({memory_of(kept[fqn]) for fqn in names}) > 1:
            raise InvalidInput(
                f"{', '.join(names)} are views of one memory in one program, and not in another.",
                why="one of the programs writes it, and the others would not see all changes",
                hints=["export all programs from the module in the same state"],
            )


# -- constants without a name ---------------------------------------------------------------------


def _with_constants_apart(programs: Sequence[ExportedProgram]) -> list[ExportedProgram]:
    """Constants that have no name in the module get names that differ between the programs."""
    seen: dict[str, Any] = {}
    result = []
    for program in programs:
        taken = {*seen, *tensors_of(program)}
        names = {
            fqn: _new_name(fqn, taken)
            for fqn, value in program.constants.items()
            if fqn in seen and _MADE_UP.search(fqn) and not is_same_tensor(seen[fqn], value)
        }
        program = _renamed(program, names) if names else program
        seen |= program.constants
        result.append(program)
    return result


def _new_name(fqn: str, taken: set[str]) -> str:
    head = fqn.rpartition("_")[0]
    name = next(n for i in itertools.count() if (n := f"{head}_{i}") not in taken)
    taken.add(name)
    return name


def _renamed(program: ExportedProgram, names: Mapping[str, str]) -> ExportedProgram:
    signature = program.graph_signature
    specs = [
        replace(spec, target=names.get(spec.target or "", spec.target))
        if spec.kind is InputKind.CONSTANT_TENSOR
        else spec
        for spec in signature.input_specs
    ]
    return program._replaced(
        graph_signature=replace(signature, input_specs=specs),
        constants={names.get(fqn, fqn): value for fqn, value in program.constants.items()},
        notes=[_with_new_names(note, names) for note in program.notes],
    )


def _with_new_names(note: str, names: Mapping[str, str]) -> str:
    for old, new in names.items():
        if note.startswith(f"constant {old}:"):
            return note.replace(old, new, 1)
    return note
