"""capture_frame: a function and example arguments to a graph, guards, and the rest of the frame."""

from __future__ import annotations

import builtins
import contextlib
import functools
import inspect
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from types import CellType, FunctionType, MethodType
from typing import Any

import torch

from stillframe import stack, torch_private
from stillframe.context import TracingContext, tracing
from stillframe.errors import CallError, InvalidInput, NotSupported
from stillframe.fake.tensor import FakeTensor
from stillframe.frames import Machine
from stillframe.frames.binding import bind
from stillframe.frames.decode import decode
from stillframe.frames.frame import Frame
from stillframe.frames.machine import deep_recursion
from stillframe.guards import GuardsContext, GuardsSet, install_guard
from stillframe.guards.checks import Checks, compile_checks
from stillframe.guards.failure import GuardFailure
from stillframe.guards.kinds.ambient import ambient_guards
from stillframe.guards.kinds.registry import kind as guard_kind
from stillframe.source import AttrSource, Guard, ShapeEnvSource, Source, is_constant_source
from stillframe.trace.grad_regions import OF_CALLER
from stillframe.variables import kinds as _kinds  # noqa: F401  (they register themselves)
from stillframe.variables.base import LazyVariableTracker
from stillframe.variables.constraints import check_constraints
from stillframe.variables.dynamism import FrameState
from stillframe.variables.graph_inputs import GraphArg
from stillframe.variables.inlined import call_of_module
from stillframe.variables.options import Options
from stillframe.variables.paths import instance_dict, is_library, is_pinned
from stillframe.variables.residue import Residue
from stillframe.variables.side_effects import Effect
from stillframe.variables.texts import check_shown
from stillframe.variables.translator import Translator


class FrameCapture:
    """A captured frame. Calling it does what the function does, if the guards hold.

    Attributes:
        function: whose frame it is.
        graph_module: what torch computes; its inputs are ``inputs``, its result is a tuple.
        inputs: where each input is read.
        guards: what the capture relied on.
        checks: one function that checks it.
        text: the rest of the frame, for a person to read.
    """

    def __init__(
        self,
        function: FunctionType,
        owner: tuple[Any, ...],
        graph_module: torch.fx.GraphModule,
        inputs: list[GraphArg],
        guards: GuardsSet,
        checks: Checks,
        residue: Residue,
    ) -> None:
        self.function = function
        self._owner = owner
        self.graph_module = graph_module
        self.inputs = inputs
        self.guards = guards
        self.checks = checks
        # a call of the graph module itself would run the hooks that users have for all modules
        self.text, self._run = residue.finish(_outside_of_autocast(graph_module.forward))

    def failure(self, *args: Any, **kwargs: Any) -> GuardFailure | None:
        """The first guard that does not hold for a call, and why; None if all do."""
        found = _locals(self.function, (*self._owner, *args), kwargs)
        return self.checks.failure(found, self.function.__globals__)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the function gives for these arguments.

        Raises:
            CallError: a guard does not hold; says which, and why.
        """
        found = _locals(self.function, (*self._owner, *args), kwargs)
        globals_ = self.function.__globals__
        if not self.checks.holds(found, globals_):
            failure = self.checks.failure(found, globals_)
            raise CallError(
                f"{self.function.__qualname__} was captured for other calls.", why=str(failure)
            )
        return self._run(found, globals_)


def capture_frame(
    function: Callable[..., Any],
    args: tuple[Any, ...] = (),
    kwargs: dict[str, Any] | None = None,
    *,
    frame_state: FrameState | None = None,
    options: Options | None = None,
) -> FrameCapture:
    """Run a function on the frame machine, and keep what it did with torch as a graph.

    Args:
        function: a function in Python, a method, or a module.
        args, kwargs: the example. Nothing of it is changed.
        frame_state: what the inputs were in earlier captures; a size or integer that was another
            one becomes a symbol. It sees this example.
        options: what is specialised.

    Raises:
        InvalidInput: ``function`` is not in Python, or the arguments do not fit it.
        FrameError: the frame does what one graph cannot hold; names it, with the line.
    """
    root, owner = _root(function)
    if not isinstance(args, tuple):
        raise InvalidInput(f"args must be a tuple, got {type(args).__name__}.")
    args, kwargs = (*owner, *args), kwargs or {}
    tx = Translator(root, frame_state or FrameState(), options or Options())
    try:
        f_locals = _locals(root, args, kwargs)
    except TypeError as e:
        raise InvalidInput(f"The arguments do not fit {root.__qualname__}: {e}.") from None
    context = TracingContext(tx.recorder.fake_mode)
    with tracing(context):
        install_guard(*ambient_guards())
        result, effects = _run(tx, root, args, kwargs, f_locals)
        install_guard(*distinct_guards(tx))
        residue = _residue(tx, result, effects)
        tx.behaviour.install()
        graph = _graph(tx, residue)
        check_constraints(tx.env, tx.inputs.tracked_fakes, tx.inputs.dim_names)
        numbers = tuple(tx.inputs.number_places())
        if numbers:
            shapes = functools.partial(guard_kind("SHAPE_ENV"), env=tx.env, numbers=numbers)
            install_guard(ShapeEnvSource().make_guard(shapes))
        guards = context.part(GuardsContext)
        checks = compile_checks(
            guards.dynamo_guards, f_locals, root.__globals__, guards.aotautograd_guards
        )
    tx.env.watches_hash = None
    tx.recorder.fake_mode.forget_real_tensors()
    for argument in tx.inputs.arguments:
        argument.erase()
    return FrameCapture(
        root, owner, graph, tx.inputs.arguments, guards.dynamo_guards, checks, residue
    )


def distinct_guards(tx: Translator) -> Iterator[Guard]:
    """Objects from outside that were met as different ones are different in every call: what is
    written to one is not read from another, and neither identity nor hashing changes."""
    groups: dict[type, dict[int, Source]] = {}
    for value, variable in tx.effects:
        source = variable.source
        if isinstance(variable, LazyVariableTracker) or source is None:
            continue
        if isinstance(value, torch.Tensor) or is_pinned(value) or value is not variable.value:
            continue
        if not is_library(source) and not is_constant_source(source):
            groups.setdefault(type(value), {})[id(value)] = source
    _add_hidden(tx, groups)
    for places in groups.values():
        if len(places) > 1:
            first, *_ = sources = tuple(places.values())
            yield first.make_guard(functools.partial(guard_kind("DISTINCT"), sources=sources))


def _add_hidden(tx: Translator, groups: dict[type, dict[int, Source]]) -> None:
    """What is written unseen: the dict of an object by its attributes, a cell by its variable."""
    for owner in tx.written_objects if dict in groups else ():
        source = tx.source(owner)
        if source is not None and type(owner).__dictoffset__ and not isinstance(owner, type):
            groups[dict].setdefault(id(instance_dict(owner)), AttrSource(source, "__dict__"))
    if any(type(value) is dict for value in tx.effects.written()):
        for value, variable in tx.effects:
            has_dict = type(value).__dictoffset__ != 0
            if variable.is_plain_object and variable.source is not None and has_dict:
                place = AttrSource(variable.source, "__dict__")
                groups.setdefault(dict, {}).setdefault(id(instance_dict(value)), place)
    cells = tx.cells_from_outside() if tx.wrote_cells else {}
    if cells:
        groups[CellType] = cells


def _root(function: Any) -> tuple[FunctionType, tuple[Any, ...]]:
    """The function whose code is run, and the object of which it is a method, if it is one."""
    if isinstance(function, torch.nn.Module):
        return _root(MethodType(call_of_module(type(function)), function))
    if isinstance(function, MethodType):
        root, owner = _root(function.__func__)
        return root, (*owner, function.__self__)
    if not isinstance(function, FunctionType):
        raise InvalidInput(
            f"function must be written in Python, got {type(function).__name__}.",
            hints=["wrap it: lambda x: f(x)"],
        )
    if inspect.isgeneratorfunction(function) or inspect.iscoroutinefunction(function):
        raise NotSupported(f"{function.__qualname__} is a generator or a coroutine.")
    return function, ()


def _locals(
    function: FunctionType, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    """The locals of the frame when it begins, variables of enclosing functions included."""
    decoded = decode(function.__code__)
    variables = bind(function, decoded, args, dict(kwargs))
    count = decoded.positional + decoded.keyword_only + decoded.has_varargs + decoded.has_varkw
    found = dict(zip(decoded.local_names[:count], variables, strict=False))
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):  # not assigned yet
            found[name] = cell.cell_contents
    return found


def _run(
    tx: Translator,
    function: FunctionType,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    f_locals: dict[str, Any],
) -> tuple[Any, list[Effect]]:
    """The result, and the side effects; everything outside is as it was before."""
    machine = Machine(tx)
    decoded = decode(function.__code__)
    frame = Frame(
        machine,
        decoded,
        bind(function, decoded, args, kwargs),
        function.__globals__,
        vars(builtins),
        None,
        function.__closure__,
    )
    tx.note_cells(function)
    tx.keep_back(frame, f_locals)
    tx.recorder.floor = sys._getframe(2)
    with _modes_kept(tx), torch_private.ambient_modes_off(), tx.recorder.recording():
        owner = args[0] if args else None
        if isinstance(owner, torch.nn.Module) and function is call_of_module(type(owner)):
            tx.scope.enter_at("L['self']", owner)
        try:
            with deep_recursion(machine):
                result = machine.run(frame)
            check_shown(tx)
        except BaseException:
            tx.leave_regions()
            tx.effects.undo()
            raise
        return result, tx.effects.undo()


@contextlib.contextmanager
def _modes_kept(tx: Translator) -> Iterator[None]:
    """What the program switches in torch and does not switch back is an effect of no graph. An
    error of the capture passes the program's own blocks by, so all is put back here."""
    before = [read() for read, _ in _MODES]
    try:
        yield
        if [read() for read, _ in _MODES] != before:
            raise tx.graph_break("The frame switches a mode of torch and does not switch it back.")
    finally:
        for (_, write), value in zip(_MODES, before, strict=True):
            write(value)


_Mode = tuple[Callable[[], Any], Callable[[Any], Any]]


def _autocast_modes(device: str) -> list[_Mode]:
    return [
        (
            functools.partial(torch.is_autocast_enabled, device),
            functools.partial(torch.set_autocast_enabled, device),
        ),
        (
            functools.partial(torch.get_autocast_dtype, device),
            functools.partial(torch.set_autocast_dtype, device),
        ),
    ]


#: The modes of torch that a program can switch: how to read and to write them.
_MODES: list[_Mode] = [
    (torch.is_grad_enabled, torch.set_grad_enabled),
    (torch.get_default_dtype, torch.set_default_dtype),
    *_autocast_modes("cpu"),
    *_autocast_modes("cuda"),
]


def _outside_of_autocast(graph: Callable[..., Any]) -> Callable[..., Any]:
    """What a graph is called as. Casts of an autocast around the capture are operators of it."""
    devices = [device for device in ("cpu", "cuda") if torch.is_autocast_enabled(device)]
    if not devices:
        return graph

    def run(*args: Any) -> Any:
        with contextlib.ExitStack() as regions:
            for device in devices:
                regions.enter_context(torch.autocast(device, enabled=False))
            return graph(*args)

    return run


def _residue(tx: Translator, result: Any, effects: list[Effect]) -> Residue:
    """The rest of the frame. The graph's inputs are read first, then it is called."""
    residue = Residue(tx.tracker_as_it_is)
    _drop_unused(tx, result, effects)
    tx.tensors.check_untouched(one for one in _fakes(tx) if isinstance(one, FakeTensor))
    residue.run_graph(tx.inputs.arguments)
    residue.value(result)
    for effect in effects:
        residue.effect(effect)
    return residue


def _fakes(tx: Translator) -> Iterator[Any]:
    """What stood for inputs and results, as far as it is known."""
    yield from (argument.fake for argument in tx.inputs.arguments)
    yield from (node.meta.get("val") for node in tx.recorder.graph.nodes)


def _drop_unused(tx: Translator, result: Any, effects: list[Effect]) -> None:
    """Inputs that no operator used are no inputs; what tells a symbol may be used yet."""
    graph = tx.recorder.graph
    nodes = [node for node in graph.nodes if node.op == "placeholder"]
    kept = [bool(node.users) or _tells_symbol(node.meta["val"]) for node in nodes]
    for node, keep in zip(nodes, kept, strict=True):
        if not keep:
            graph.erase_node(node)
    arguments = tx.inputs.arguments
    arguments[:] = [one for one, keep in zip(arguments, kept, strict=True) if keep]


def _tells_symbol(value: Any) -> bool:
    """Whether an input is a symbol, or has one for a size; or is no value at all."""
    if isinstance(value, FakeTensor):
        return not all(type(size) is int for size in value.sizes)
    return value is None or isinstance(value, torch.SymInt)


stack.add_to_interpreter(os.path.dirname(__file__))


def _graph(tx: Translator, residue: Residue) -> torch.fx.GraphModule:
    recorder = tx.recorder
    with recorder.at_root():
        results = [recorder.operand(value) for _, value in residue.outputs.values()]
        recorder.finish()
        recorder.graph.output(tuple(results))
    for graph in (recorder.graph, *recorder.subgraphs):
        for node in graph.nodes:
            if OF_CALLER in node.meta:  # the guards know the caller's mode
                node.args = (torch.is_grad_enabled(),)
    return torch.fx.GraphModule(recorder.root, recorder.graph)
