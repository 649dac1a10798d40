"""Tensors that a function brings into a program: a module's state, and constants.

They become placeholders before the user's inputs, entries of the signature, and tensors of the new
program's ``state_dict`` or ``constants``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from stillframe.errors import NotSupported
from stillframe.export import effects
from stillframe.export.naming import PREFIXES, Names
from stillframe.export.ownership import own_tensors
from stillframe.export.program import ExportedProgram
from stillframe.export.rebinding import Rebinding
from stillframe.export.signature import InputKind, InputSpec, TensorArgument
from stillframe.export.state import (
    Modules,
    fake_state,
    memory_of,
    named_state,
    non_persistent,
    swapped_state,
)
from stillframe.export.surgery.recorders import EditRecorder, FunctionalEditRecorder
from stillframe.fake.tensor import FakeStorage, FakeTensor
from stillframe.trace.recorder import new_placeholder
from stillframe.trace.scope import module_paths


@dataclass(frozen=True)
class Brought:
    """One tensor that came with a function."""

    spec: InputSpec
    node: torch.fx.Node
    fake: FakeTensor
    real: torch.Tensor


class _BroughtModule:
    """A module that came along: where its state is in the program."""

    def __init__(self, module: torch.nn.Module, prefix: str) -> None:
        self.prefix = prefix
        self.modules: Modules = module_paths(module)
        self.parameters, self.buffers = named_state(self.modules)
        self.left_out = non_persistent(self.modules)
        self.fakes: dict[int, FakeTensor] = {}
        self.module = module  # kept alive: it is known by its identity


class BroughtState:
    """The placeholders of a program that is being edited, and what is added to them.

    Attributes:
        input_specs: of all placeholders, in order.
        brought: the new ones.
    """

    def __init__(
        self, program: ExportedProgram, recorder: EditRecorder | FunctionalEditRecorder
    ) -> None:
        self.program = program
        self.recorder = recorder
        self.input_specs: list[InputSpec] = []
        self.brought: list[Brought] = []
        self.notes: list[str] = []
        self._modules: dict[int, _BroughtModule] = {}
        self._fqns = {*program.state_dict, *program.constants}

    # -- placeholders -----------------------------------------------------------------------------

    def placeholder(
        self, name: str, value: Any, spec: InputSpec, *, again: bool = False
    ) -> torch.fx.Node:
        """A placeholder that the program has already; ``again``: its tensor has one."""
        self.input_specs.append(spec)
        if not again:
            return self.recorder.placeholder(name, value)
        node = new_placeholder(self.recorder.graph, name)
        node.meta["val"] = value
        return node

    def _new_placeholder(self, spec: InputSpec, fake: FakeTensor) -> torch.fx.Node:
        """Before the user's inputs."""
        specs = self.input_specs
        kinds = [s.kind is InputKind.USER_INPUT for s in specs]
        at = kinds.index(True) if True in kinds else len(specs)
        graph = self.recorder.graph
        nodes = list(graph.nodes)
        place = graph.inserting_before(nodes[at]) if at < len(nodes) else contextlib.nullcontext()
        with place:
            node = new_placeholder(graph, spec.arg.name)
        node.meta["val"] = fake
        fake.fx_node = fake.fx_node or node
        specs.insert(at, spec)
        return node

    def _spec(self, kind: InputKind, fqn: str, persistent: bool | None = None) -> InputSpec:
        wanted = PREFIXES[kind] + Names().lifted(kind, fqn).removeprefix(PREFIXES[kind])
        name = self.recorder.free_name(wanted)
        return InputSpec(kind, TensorArgument(name), fqn, persistent)

    # -- constants --------------------------------------------------------------------------------

    def know_program_state(self, fakes: dict[str, FakeTensor]) -> None:
        """Functions may use the program's own tensors; they are what they were."""
        for fqn, fake in fakes.items():
            table = self.program.state_dict
            real = table[fqn] if fqn in table else self.program.constants[fqn]
            if isinstance(real, torch.Tensor):
                self.recorder.fake_mode.stand_in(real, fake)

    def lift(self, real: torch.Tensor, fake: FakeTensor) -> torch.fx.Node:
        """A tensor that a function uses becomes a constant."""
        number = 0
        while (fqn := f"lifted_tensor_{number}") in self._fqns:
            number += 1
        self._fqns.add(fqn)
        spec = self._spec(InputKind.CONSTANT_TENSOR, fqn)
        node = self._new_placeholder(spec, fake)
        is_own = real.is_leaf and real.requires_grad
        kept = real if is_own else real.detach().clone()
        self.brought.append(Brought(spec, node, fake, kept))
        self.recorder.foreign[id(fake.storage_)] = "a tensor that it brings along"
        if isinstance(real, torch.nn.Parameter):
            self.notes.append(
                f"{fqn} is a Parameter that came with a function: its value is a constant of the "
                "program, and it is not trained"
            )
        return node

    # -- modules ----------------------------------------------------------------------------------

    def add_module(self, module: torch.nn.Module, wanted: str) -> None:
        """Have the state of ``module`` in the program, under ``wanted`` or the next free name."""
        if id(module) in self._modules:
            return
        if isinstance(module, torch.jit.ScriptModule):
            raise NotSupported("A TorchScript module cannot be brought into a program.")
        known = self._modules[id(module)] = _BroughtModule(module, self._free_prefix(wanted))
        known.fakes = fake_state(self.recorder.env, known.parameters, known.buffers)
        for kind, table in (
            (InputKind.PARAMETER, known.parameters),
            (InputKind.BUFFER, known.buffers),
        ):
            for name, real in table.items():
                self._add_tensor(known, kind, name, real)

    def _free_prefix(self, wanted: str) -> str:
        prefix, number = wanted, 0
        while any(f == prefix or f.startswith(f"{prefix}.") for f in self._fqns):
            number += 1
            prefix = f"{wanted}_{number}"
        return prefix

    def _add_tensor(
        self, known: _BroughtModule, kind: InputKind, name: str, real: torch.Tensor
    ) -> None:
        fqn, fake = f"{known.prefix}.{name}", known.fakes[id(real)]
        persistent = None if kind is InputKind.PARAMETER else name not in known.left_out
        spec = self._spec(kind, fqn, persistent)
        self._fqns.add(fqn)
        node = self._new_placeholder(spec, fake)
        self.recorder.fake_mode.stand_in(real, fake)
        if kind is InputKind.BUFFER:
            self.recorder.state_values[id(fake)] = real
        self.brought.append(Brought(spec, node, fake, real))

    @contextlib.contextmanager
    def swapped(self, function: Any, inputs: list[Any], outputs: list[Any]) -> Iterator[None]:
        """Run a function inside; if it is a module that came along, on fakes of its state.

        Args:
            function: what is run.
            inputs: what it is given.
            outputs: is filled inside with what it returns.

        Raises:
            SideEffectError: the module changes something that a program cannot express.
        """
        known = self._modules.get(id(function))
        if known is None:
            yield
            return
        with swapped_state(known.modules, known.fakes) as watch:
            yield
            changes = effects.refuse_changes(watch.changes())
            if changes:
                state = {**known.parameters, **known.buffers}
                rebinding = Rebinding(known.modules, state, known.fakes, {}, changes)
                rebinding.check(((f"its input {i}", v) for i, v in enumerate(inputs)), outputs)
                with self.recorder.recording():
                    rebinding.record()

    def holds(self, storage: FakeStorage) -> bool:
        """Whether a piece of memory came along."""
        return any(b.fake.storage_ is storage for b in self.brought)

    # -- the new tables ---------------------------------------------------------------------------

    def written(self) -> list[Brought]:
        """Of what came along, the tensors that a functional program computes anew."""
        return [b for b in self.brought if b.fake.fx_node is not b.node and self._is_first(b)]

    def _is_first(self, brought: Brought) -> bool:
        return all(b is brought or b.fake is not brought.fake for b in self._before(brought))

    def _before(self, brought: Brought) -> Iterator[Brought]:
        for other in self.brought:
            yield other
            if other is brought:
                return

    def tables(self) -> tuple[Any, Any]:
        """``(state_dict, constants)`` of the new program."""
        if not self.brought:
            return self.program.state_dict, self.program.constants
        mine = {str(b.spec.target): b.real for b in self.brought}
        written = [str(b.spec.target) for b in self.brought if b.fake.storage_.written]
        self._refuse_shared(written, mine)
        owned, _ = own_tensors(mine, {}, written)
        state, constants = dict(self.program.state_dict), dict(self.program.constants)
        for b in self.brought:
            kept = b.spec.kind is InputKind.PARAMETER or b.spec.persistent
            fqn = str(b.spec.target)
            (state if kept else constants)[fqn] = owned[fqn]
        return state, constants

    def _refuse_shared(self, written: list[str], mine: dict[str, torch.Tensor]) -> None:
        """A tensor that is written gets memory of its own; nothing of the program may be in it."""
        if not written:
            return
        tables = {**self.program.state_dict, **self.program.constants}
        memories = {
            memory_of(real): fqn
            for fqn, real in tables.items()
            if isinstance(real, torch.Tensor) and real.layout is torch.strided
        }
        for fqn in written:
            shared = memories.get(memory_of(mine[fqn]))
            if shared is not None:
                raise NotSupported(
                    f"{fqn} is written and shares memory with {shared} of the program.",
                    hints=["give it memory of its own (clone it)"],
                )
