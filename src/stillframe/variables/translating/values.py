"""Values and what goes with them: trackers, sources, what the program sees."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from stillframe.context import TracingContext
from stillframe.errors import FrameError
from stillframe.fake.tensor import FakeTensor
from stillframe.source import Source, TypeSource
from stillframe.variables.base import LazyVariableTracker, VariableTracker
from stillframe.variables.behaviour import is_library_class
from stillframe.variables.numpy_link import array_class
from stillframe.variables.paths import CONSTANTS
from stillframe.variables.stand_ins import NUMBERS
from stillframe.variables.translating.state import State

if TYPE_CHECKING:
    from stillframe.variables.builder import VariableBuilder

_ARRAY: Any = array_class()


class Values(State):
    """What goes with a value, where it came from, and what it is inside and outside."""

    def build(self, value: Any, source: Source) -> VariableTracker:
        """What goes with a value read at a source; installs its guards."""
        return self.builder(source)(value)

    def builder(self, source: Source) -> VariableBuilder:
        """The builder for what is read at a source."""
        from stillframe.variables.builder import VariableBuilder

        return VariableBuilder(self.tx, source)

    def wrap(self, value: Any, source: Source) -> Any:
        """What the program gets for a value that it reads at a source."""
        return self.build(value, source).value

    def variable(self, value: Any) -> VariableTracker | None:
        """What goes with a value from outside; None for a constant, or one of the program's own."""
        if type(value) in CONSTANTS:
            return None
        found = self.effects.tracker(value)
        return found.realize(self.tx) if isinstance(found, LazyVariableTracker) else found

    def tracker(self, value: Any) -> VariableTracker:
        """What goes with any value."""
        from stillframe.variables.sourceless import SourcelessBuilder

        return self.variable(value) or SourcelessBuilder.create(self.tx, value)

    def tracker_as_it_is(self, value: Any) -> VariableTracker:
        """What goes with a value that is only handed on: a lazy one stays lazy."""
        found = None if type(value) in CONSTANTS else self.effects.tracker(value)
        if isinstance(found, LazyVariableTracker) and not found.is_realized:
            return found
        return self.tracker(value)

    def here(self, value: Any) -> Any:
        """The value as the program sees it; C code may have handed out the real thing."""
        found = self.variable(value)
        return value if found is None else found.value

    def there(self, value: Any) -> Any:
        """What a value is outside: the real tensor for which a fake stands."""
        if not isinstance(value, FakeTensor):
            return value
        real = getattr(self.effects.tracker(value), "real", None)
        return value if real is None else real

    def source(self, value: Any) -> Source | None:
        """Where a value came from; None for one of the program's own."""
        found = self.variable(value)
        return None if found is None else found.source

    def class_of(self, value: Any) -> type:
        """The class that a value has when the frame runs."""
        if isinstance(value, _ARRAY):
            return value.numpy_class  # type: ignore[no-any-return]
        if isinstance(value, FakeTensor):
            subclass = self.tensors.subclass_of(value)
            if subclass is not None:
                return subclass
            return torch.nn.Parameter if isinstance(value, torch.nn.Parameter) else torch.Tensor
        cls: type = NUMBERS.get(type(value), type(value))
        source = None if is_library_class(cls) else self.source(value)
        if source is not None:
            self.wrap(cls, TypeSource(source))
        return cls

    def graph_break(self, what: str, why: str = "", hints: Sequence[str] = ()) -> FrameError:
        """The error for what the graph of one frame cannot hold."""
        return self.machine.refuse(what, why, hints)

    def tell_place(self) -> None:
        """Tell the tracing context where in the program the machine is."""
        context, frame = TracingContext.get(), self.machine.current
        frames: list[traceback.FrameSummary] = []
        while frame is not None:
            code = frame.decoded.code
            line = frame.decoded.line(frame.pc)
            summary = traceback.FrameSummary(
                code.co_filename, line, code.co_name, lookup_line=False
            )
            frames.append(summary)
            frame = frame.back
        context.frame_summary_stack = frames[::-1]
