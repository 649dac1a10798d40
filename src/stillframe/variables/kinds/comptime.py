"""``stillframe.comptime``: code of the user's that looks at the capture."""

from __future__ import annotations

from typing import Any

from stillframe.capture_time import Comptime
from stillframe.context import TracingContext
from stillframe.frames.frame import NULL, Frame
from stillframe.guards import GuardsContext
from stillframe.variables.base import VariableTracker
from stillframe.variables.builder import VariableBuilder
from stillframe.variables.registry import wraps_type
from stillframe.variables.residue import Residue
from stillframe.variables.sourceless import makes_type
from stillframe.variables.translator import Translator


class CaptureContext:
    """See :class:`stillframe.capture_time.ComptimeContext`."""

    def __init__(self, tx: Translator) -> None:
        self._tx = tx

    def graph(self) -> str:
        return str(self._tx.recorder.graph)

    def guards(self) -> list[str]:
        guards = TracingContext.get().part(GuardsContext).dynamo_guards
        return [f"{guard.kind} {guard.name}".rstrip() for guard in guards]

    def locals(self) -> dict[str, str]:
        frame = self._tx.machine.current
        assert frame is not None
        names = frame.decoded.local_names
        found = {name: self._local(frame, index) for index, name in enumerate(names)}
        return {name: text for name, text in found.items() if text}

    def _local(self, frame: Frame, index: int) -> str:
        value = frame.locals[index]
        lazy = self._tx.unused_local(frame, index)
        if lazy is not None:
            return repr(lazy)
        if value is NULL:
            return ""
        known = self._tx.effects.tracker(value)
        return repr(value) if known is None else repr(known)

    def stack(self) -> list[str]:
        frames, frame = [], self._tx.machine.current
        while frame is not None:
            code = frame.decoded.code
            line = frame.decoded.line(frame.pc)
            frames.append(f"{code.co_filename}:{line} in {code.co_name}")
            frame = frame.back
        return frames[::-1]

    def print_graph(self) -> None:
        print(self.graph())

    def print_guards(self) -> None:
        print("\n".join(self.guards()))

    def print_locals(self) -> None:
        print("\n".join(f"{name}: {text}" for name, text in self.locals().items()))

    def print_stack(self) -> None:
        print("\n".join(self.stack()))


class ComptimeVariable(VariableTracker):
    """``comptime``: its calls are done now, and never again."""

    handles_calls = True

    def call_function(self, tx: Translator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Run the user's function beside the capture."""
        action = args[0] if args else self.value.action
        if action is not None:
            action(CaptureContext(tx))

    def var_getattr(self, tx: Translator, name: str) -> Any:
        found = getattr(self.value, name)
        if type(found) is Comptime:
            tx.effects.track(found, ComptimeVariable(found))
        return found

    def reconstruct(self, residue: Residue) -> None:
        residue.load_object(self.value)


@wraps_type(Comptime)
def wrap_comptime(builder: VariableBuilder, value: Any) -> VariableTracker:
    """``comptime``; nothing is relied on."""
    made = ComptimeVariable(value, source=builder.source)
    builder.tx.effects.track(value, made)
    return made


@makes_type(Comptime)
def make_comptime(tx: Translator, value: Any) -> VariableTracker:
    """One of the attributes of ``comptime``."""
    return ComptimeVariable(value)
