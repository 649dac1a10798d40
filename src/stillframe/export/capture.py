"""``capture``: from a module to a plain ``torch.fx.GraphModule`` that calls what the user called.

The run is that of ``export``, with the same checks: sizes against what is declared, changes that a
graph cannot express, data that Python would need. What comes out is another graph of the same run
(:mod:`stillframe.trace.torch_level`): torch functions, methods and operators of Python, state read
by its own names, and the signature of the original.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils import _pytree as pytree

from stillframe import torch_private
from stillframe.errors import InvalidInput
from stillframe.export.assumptions import Assumption
from stillframe.export.building import Finished
from stillframe.export.call_spec import GivenArgument
from stillframe.export.door import Door
from stillframe.export.pipeline import most_general
from stillframe.export.program import ExportedProgram
from stillframe.export.recorded_run import Capture, Returned
from stillframe.export.refusal import Refusal, refuse_state
from stillframe.export.request import make_request
from stillframe.export.signature import OutputSpec
from stillframe.export.state import non_persistent
from stillframe.fake.tensor import FakeTensor
from stillframe.trace.make_fx import has_only_fx_containers
from stillframe.trace.reads import OF_MODES, OF_TENSORS
from stillframe.trace.recorder import Recorder
from stillframe.trace.scope import ModuleScope
from stillframe.trace.torch_calls import names_used_by_code
from stillframe.trace.torch_level import TorchLevelRecorder

LEVELS = ("torch", "aten")

_RESULT = "captured"


def capture(
    mod: torch.nn.Module | Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any] | None = None,
    *,
    dynamic_shapes: Any = None,
    level: str = "torch",
    strict: bool = False,
    preserve_module_call_signature: tuple[str, ...] = (),
) -> torch.fx.GraphModule:
    """The work behind :func:`stillframe.capture`; arguments and errors are described there."""
    if level not in LEVELS:
        raise InvalidInput(f"level is one of {', '.join(LEVELS)}; got {level!r}.")
    request = make_request(
        mod,
        args,
        kwargs,
        sys._getframe(1),
        dynamic_shapes=dynamic_shapes,
        strict=strict,
        preserved=preserve_module_call_signature,
    )
    kind = TorchCapture if level == "torch" else OperatorCapture
    with torch_private.ambient_modes_off():
        program = most_general(request, kind)
    graph: torch.fx.GraphModule = program.graph_module.meta.pop(_RESULT)
    return graph


class TorchCapture(Capture):
    """A capture that keeps the graph of torch functions."""

    whole = True
    recorder: TorchLevelRecorder

    def _make_recorder(self) -> Recorder:
        scope = ModuleScope(self.original.modules)
        recorder = TorchLevelRecorder(
            self.env, scope, self._lift_constant, self.request.floor, whole=self.whole
        )
        recorder.calls.name_constant = self._name_of_constant  # type: ignore[method-assign]
        return recorder

    def _name_of_constant(self, real: torch.Tensor) -> str:
        """The attribute that holds a constant, or a name that is free."""
        name = self.placeholders.constant_names(real)[0]
        taken = self.recorder.calls.constants
        if "lifted_tensor_" in name or name in taken:
            name = f"_tensor_constant{len(taken)}"
        return name

    def _make_placeholders(self, fakes: dict[int, FakeTensor]) -> None:
        super()._make_placeholders(fakes)
        calls = self.recorder.calls
        for fqn, real in self.original.state.items():
            calls.state.setdefault(id(real), fqn)
            calls.state.setdefault(id(fakes[id(real)]), fqn)
        for name, leaf in zip(self.placeholders.user_names, self.inputs.leaves, strict=True):
            calls.placeholder(name, leaf)
        for symbol, size, scale, offset in self.inputs.derived:
            calls.symbols.bind_derived(symbol, size, scale, offset)

    def _make_output(self, returned: Returned) -> list[OutputSpec]:
        for store in returned.stores:
            raise store.refusal()
        specs = super()._make_output(returned)
        self.operands = self.recorder.calls.output(returned.outputs)
        self.recorder.calls.check_values()
        return specs

    def _build(self, run: Finished) -> ExportedProgram:
        program = super()._build(run)
        program.graph_module.meta[_RESULT] = self._graph_module(program)
        return program

    # -- the result ---------------------------------------------------------------------------

    def _graph_module(self, program: ExportedProgram) -> CapturedModule:
        calls = self.recorder.calls
        self._finish_graph(calls.graph, program)
        calls.remove_unused()
        for fqn, real in (*self._state(), *calls.constants.items()):
            _place(calls.root, fqn, real)
        module = CapturedModule(calls.root, calls.graph, type(self.original.root).__name__)
        self._put_state(module, calls.subgraphs)
        for part in module.modules():
            part.training = self.original.root.training
        module.meta.update(self._meta(program))
        return module

    def _state(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Parameters and buffers in the order of ``state_dict``, every name of a tie included."""
        for path, module in self.original.modules:
            prefix = f"{path}." if path else ""
            for name, tensor in (*module._parameters.items(), *module._buffers.items()):
                if tensor is not None:
                    yield prefix + name, tensor

    def _put_state(self, module: CapturedModule, subgraphs: list[str]) -> None:
        """All state of the original, in its order, and constants; fx took what the graph reads."""
        constants = self.recorder.calls.constants
        kept = {name: module._modules[name] for name in subgraphs}
        for table in (module._parameters, module._buffers, module._modules):
            table.clear()
        for fqn, real in self._state():
            _place(module, fqn, real)
        for fqn, real in constants.items():  # no buffers of the original
            path, _, name = fqn.rpartition(".")
            _holder(module, path).__dict__[name] = real
        module._modules.update(kept)
        for fqn in non_persistent(self.original.modules):
            path, _, name = fqn.rpartition(".")
            _holder(module, path)._non_persistent_buffers_set.add(name)

    def _finish_graph(self, graph: torch.fx.Graph, program: ExportedProgram) -> None:
        """The output node, and the code by which containers go in and out."""
        out_spec = program.out_spec
        placeholders = [node.target for node in graph.nodes if node.op == "placeholder"]
        names = [_parameter_name(argument) for argument in self.original.call_spec.given]
        if names == placeholders and has_only_fx_containers(out_spec):
            graph.output(pytree.tree_unflatten(self.operands, out_spec))
        else:
            graph.output(self.operands)
            graph.set_codegen(torch_private.container_code(names, self.original.in_spec, out_spec))

    def _meta(self, program: ExportedProgram) -> dict[str, Any]:
        door = Door.of(program)
        door.separate = []  # tensors are shared and written as the original does
        known = door.symbols
        targets = {spec.arg.name: spec.target for spec in self.placeholders.lifted}
        specs = {
            entry.fqn: {"in_spec": entry.signature.in_spec, "out_spec": entry.signature.out_spec}
            for entry in program.module_call_graph
            if entry.fqn and entry.signature is not None
        }
        return {
            "forward_arg_names": [_argument_name(a) for a in self.original.call_spec.given],
            "module_call_specs": specs,
            "range_constraints": program.range_constraints,
            "runtime_asserts": program.runtime_asserts,
            "inline_constraints": {
                expr: bounds
                for expr, bounds in program.range_constraints.items()
                if not expr.free_symbols <= known
            },
            "door": door,
            "asked": [(targets.get(a.about), a) for a in door.asked_elsewhere],
        }


class OperatorCapture(TorchCapture):
    """The same with the operators that the functions call."""

    whole = False


class CapturedModule(torch.fx.GraphModule):
    """A graph module that takes what the original took, and refuses what the capture excludes.

    ``forward`` has one parameter for each argument that the capture was given, and checks nothing;
    interpreters and tracers see it. A call checks first, when its tensors are real.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the graph with the arguments of the original.

        Raises:
            CallError: the graph does not hold for them.
        """
        door: Door | None = self.meta.get("door")
        if door is None:
            return super().__call__(*args, **kwargs)
        values = self._values(door, args, kwargs)
        given = [_given_value(values, argument) for argument in door.call_spec.given]
        if not torch.compiler.is_compiling() and _are_real(given):
            Refusal(door, type(self).__name__)(tuple(values.values()))
            for fqn, assumption in self.meta["asked"]:
                self._check_elsewhere(fqn, assumption)
        return super().__call__(*given)

    def _values(self, door: Door, args: Any, kwargs: Any) -> dict[str, Any]:
        kinds = {kind.name.lower(): kind for kind in inspect._ParameterKind}
        parameters = [
            inspect.Parameter(
                p.name, kinds[p.kind], default=p.default if p.has_default else inspect._empty
            )
            for p in door.call_spec.parameters
        ]
        bound = inspect.Signature(parameters).bind(*args, **kwargs)
        bound.apply_defaults()
        return {p.name: bound.arguments[p.name] for p in parameters}

    def _check_elsewhere(self, fqn: str | None, assumption: Assumption) -> None:
        """What forward asked of state, or of torch's modes, has the same answer now."""
        if fqn is None:
            name, found = "torch", OF_MODES[assumption.what]()
        else:
            path, _, attribute = fqn.rpartition(".")
            tensor = getattr(self.get_submodule(path), attribute)
            name, found = f"self.{fqn}", OF_TENSORS[assumption.what](tensor)
        if found != assumption.value:
            refuse_state(name, assumption, found)


def _given_value(values: dict[str, Any], given: GivenArgument) -> Any:
    value = values[given.parameter]
    return value if given.key is None else value[given.key]


def _are_real(values: list[Any]) -> bool:
    """Whether no tensor is a stand-in of a trace."""
    leaves = pytree.tree_leaves(values)
    plain = (torch.Tensor, torch.nn.Parameter)
    tensors = [v for v in leaves if isinstance(v, (torch.Tensor, torch.fx.Proxy))]
    return all(type(t) in plain for t in tensors)


def _argument_name(given: GivenArgument) -> str:
    if isinstance(given.key, int):
        return f"{given.parameter}_{given.key}"
    return given.parameter if given.key is None else given.key


def _parameter_name(given: GivenArgument) -> str:
    """The parameter of the graph's ``forward``: of the same name, if its code has no other use."""
    name = _argument_name(given)
    return f"{name}_" if name in names_used_by_code() else name


def _holder(root: torch.nn.Module, path: str) -> torch.nn.Module:
    """The submodule at a path, made with all above it where it is not there."""
    for name in path.split(".") if path else ():
        child = root._modules.get(name)
        if child is None:
            child = root._modules[name] = torch.nn.Module()
        root = child
    return root


def _place(root: torch.nn.Module, fqn: str, tensor: torch.Tensor) -> None:
    """Put a tensor of the original where the original has it."""
    path, _, name = fqn.rpartition(".")
    holder = _holder(root, path)
    if isinstance(tensor, torch.nn.Parameter):
        holder._parameters[name] = tensor
    else:
        holder._buffers[name] = tensor
