"""Streams and events of devices: what runs where and waits for what, as nodes of the graph.

A device's module (``torch.cuda``, ``torch.cpu``, ...) has a class ``Stream``, a class ``Event``,
and a class ``StreamContext`` that makes a stream current. Their methods are no operators: the calls
are recorded themselves. They are done during the capture too, so that what the program holds is
what it would hold.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import torch

from stillframe.guards import install_guard
from stillframe.guards.kinds.registry import kind as guard_kind
from stillframe.source import AttrSource, GlobalStateSource
from stillframe.variables.base import MutableLocal, VariableTracker
from stillframe.variables.builder import VariableBuilder
from stillframe.variables.registry import wraps_if, wraps_object
from stillframe.variables.residue import Residue
from stillframe.variables.translator import Translator


def _modules_of_devices() -> list[ModuleType]:
    """The modules of devices that this build of torch has, or that somebody has loaded."""
    names = ("cpu", "cuda", "xpu", "mtia", "mps", torch._C._get_privateuse1_backend_name())
    found = (sys.modules.get(f"torch.{name}") for name in names)
    return [module for module in found if module is not None]


def _classes(name: str, general: type) -> tuple[type, ...]:
    """The classes of a name in the modules of devices, and the one for all devices."""
    found = (getattr(module, name, None) for module in _modules_of_devices())
    return general, *(cls for cls in found if isinstance(cls, type))


STREAMS = _classes("Stream", torch.Stream)
EVENTS = _classes("Event", torch.Event)
CONTEXTS = _classes("StreamContext", torch.cpu.StreamContext)

#: Methods that order work; what they give is None, or an event.
_ORDERING = frozenset("wait_stream wait_event record_event record wait synchronize".split())


class DeviceObjectVariable(VariableTracker):
    """A stream or an event.

    Attributes:
        node: what gives it in the graph; None until the graph needs it.
    """

    node: torch.fx.Node | None = None

    def as_proxy(self) -> Any:
        return self.node

    def var_getattr(self, tx: Translator, name: str) -> Any:
        found = tx.read_attribute(self, name)
        if name in _ORDERING or name == "query":
            tx.effects.track(found, DeviceMethodVariable(found, self, name))
        return found

    def place(self, tx: Translator) -> torch.fx.Node:
        """The node that gives the object."""
        if self.node is None:
            self.node = tx.inputs.held(type(self.value).__name__.lower(), self.value)
        return self.node

    def reconstruct(self, residue: Residue) -> None:
        residue.graph_output(self.node)


class StreamVariable(DeviceObjectVariable):
    """A stream: a queue of work.

    Attributes:
        device: the device whose work it queues.
    """

    def place(self, tx: Translator) -> torch.fx.Node:
        if self.node is None and isinstance(self.value, torch.Stream):
            ids = self.value.stream_id, self.value.device_index, self.value.device_type
            given = (*_name_of(type(self.value)), *ids)
            self.node = tx.recorder.create(stream_from_ids, given, {})
        return super().place(tx)

    @property
    def device(self) -> torch.device:
        """The device whose work it queues."""
        return getattr(self.value, "device", torch.device("cpu"))


class EventVariable(DeviceObjectVariable):
    """An event: a point in a stream."""


def stream_from_ids(
    module: str, name: str, stream_id: int, device_index: int, device_type: int
) -> torch.Stream:
    """The stream of a class with these numbers; a function of graphs."""
    cls: type[torch.Stream] = getattr(sys.modules[module], name)
    return cls(stream_id=stream_id, device_index=device_index, device_type=device_type)


def _name_of(cls: type) -> tuple[str, str]:
    """A class as a graph can hold it."""
    return cls.__module__, cls.__qualname__


@wraps_if(70, "stream", lambda value: isinstance(value, STREAMS))
def wrap_stream(builder: VariableBuilder, value: Any) -> VariableTracker:
    """A stream that was there before."""
    builder.install_guards("ID_MATCH")
    return builder.track_object(value, StreamVariable(value))


@wraps_if(71, "event", lambda value: isinstance(value, EVENTS))
def wrap_event(builder: VariableBuilder, value: Any) -> VariableTracker:
    """An event that was there before."""
    builder.install_guards("ID_MATCH")
    return builder.track_object(value, EventVariable(value))


# -- calls -----------------------------------------------------------------------------------------


def _result(tx: Translator, value: Any, node: torch.fx.Node) -> Any:
    """A stream or an event that a node of the graph gives."""
    node.meta["val"] = value
    if not isinstance(value, (*STREAMS, *EVENTS)):
        return value
    known = tx.effects.tracker(value)
    if known is None:
        kind = StreamVariable if isinstance(value, STREAMS) else EventVariable
        known = kind(value, mutable=MutableLocal())
        tx.effects.track(value, known)
    if isinstance(known, DeviceObjectVariable) and known.source is None:
        known.node = node
    return value


def _operands(tx: Translator, values: Any) -> Any:
    """Arguments as a node holds them."""
    if isinstance(values, dict):
        return {key: _operand(tx, value) for key, value in values.items()}
    return tuple(_operand(tx, value) for value in values)


def _operand(tx: Translator, value: Any) -> Any:
    value = tx.here(value)
    known = tx.effects.tracker(value)
    return known.place(tx) if isinstance(known, DeviceObjectVariable) else value


class DeviceMethodVariable(VariableTracker):
    """A method of a stream or an event."""

    handles_calls = True

    def __init__(self, value: Any, owner: DeviceObjectVariable, name: str) -> None:
        super().__init__(value)
        self.owner = owner
        self.name = name

    def call_function(self, tx: Translator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self.name == "query":
            return self._query(tx)
        node = tx.recorder.graph.call_method(
            self.name, (self.owner.place(tx), *_operands(tx, args)), _operands(tx, kwargs)
        )
        tx.recorder.locate(node)
        return _result(tx, tx.call_plainly(self.value, args, kwargs), node)

    def _query(self, tx: Translator) -> bool:
        """On the CPU all work is done when a call returns; elsewhere it is a matter of time."""
        device = getattr(self.owner.value, "device", None)
        if type(self.owner.value).__module__ == "torch.cpu" or device == torch.device("cpu"):
            return True
        raise tx.graph_break(
            "The frame asks whether the work before an event is done.",
            why="the answer is another one at each call",
            hints=["wait for it: event.synchronize()"],
        )


class DeviceCallVariable(VariableTracker):
    """A function or class that gives a stream or an event."""

    handles_calls = True

    def is_python_constant(self) -> bool:
        return True

    def reconstruct(self, residue: Residue) -> None:
        residue.load_object(self.value)

    def call_function(self, tx: Translator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self.value.__name__ == "current_stream":  # the program may compare it
            install_guard(GlobalStateSource().make_guard(guard_kind("CURRENT_STREAM")))
        node = tx.recorder.create(self.value, _operands(tx, args), _operands(tx, kwargs))
        return _result(tx, tx.call_plainly(self.value, args, kwargs), node)


def _givers() -> list[Any]:
    """What gives streams and events, in all modules of devices."""
    names = ("current_stream", "default_stream")
    functions = [getattr(module, name, None) for module in _modules_of_devices() for name in names]
    found = dict.fromkeys([*STREAMS, *EVENTS, *functions, torch.accelerator.current_stream])
    return [giver for giver in found if giver is not None]


@wraps_object(*_givers())
def wrap_giver(builder: VariableBuilder, value: Any) -> VariableTracker:
    """A function or class that gives a stream or an event."""
    return DeviceCallVariable(value)


# -- contexts --------------------------------------------------------------------------------------


class StreamContextVariable(VariableTracker):
    """A block whose work goes to a stream, made before the capture."""


@wraps_if(69, "stream context", lambda value: isinstance(value, CONTEXTS))
def wrap_stream_context(builder: VariableBuilder, value: Any) -> VariableTracker:
    """A block that was made before: itself, and its stream."""
    builder.install_guards("ID_MATCH")
    made = builder.track_object(value, StreamContextVariable(value))
    builder.at(AttrSource(builder.source, "stream"))(value.stream)
    return made


def enter_stream(module: str, name: str, stream: Any) -> Any:
    """Work goes to a stream from here on; a function of graphs. The result is for leaving."""
    context = getattr(sys.modules[module], name)(stream)
    context.__enter__()
    return context


def leave_stream(context: Any) -> None:
    """Work goes where it went before; a function of graphs."""
    context.__exit__(None, None, None)


class StreamSwitchVariable(VariableTracker):
    """``__enter__`` or ``__exit__`` of a stream's block."""

    handles_calls = True

    def call_function(self, tx: Translator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        context = tx.here(args[0])
        if context.stream is not None:
            open_blocks = tx.open_streams
            if self.value.__name__ == "__enter__":
                stream = _operand(tx, context.stream)
                given = (*_name_of(type(context)), stream)
                open_blocks.append(tx.recorder.create(enter_stream, given, {}))
            else:
                tx.recorder.create(leave_stream, (open_blocks.pop(),), {})
        return tx.call_plainly(self.value, args, kwargs)


@wraps_object(*{vars(cls)[name] for cls in CONTEXTS for name in ("__enter__", "__exit__")})
def wrap_switch(builder: VariableBuilder, value: Any) -> VariableTracker:
    """What makes a stream the current one, or does so no more."""
    return StreamSwitchVariable(value)
