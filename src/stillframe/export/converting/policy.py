"""The policy of strict capture that runs both ways of a branch on data."""

from __future__ import annotations

from collections.abc import Iterable
from types import CellType, CodeType
from typing import TYPE_CHECKING, Any

import torch

from stillframe import stack
from stillframe.export.attribute_stores import AttributeStores
from stillframe.export.converting.aliases import Aliases
from stillframe.export.converting.branches import Branch
from stillframe.export.converting.counted import Counted
from stillframe.export.converting.loops import for_loop
from stillframe.export.converting.outside import reachable
from stillframe.export.converting.predicates import as_boolean, predicate
from stillframe.export.converting.refusals import refusal
from stillframe.export.converting.ways import Way
from stillframe.export.identity import Identities
from stillframe.export.strict.calls import CHANGE_ARGUMENTS, MUTATORS
from stillframe.export.strict.policy import StrictPolicy
from stillframe.fake.tensor import FakeTensor
from stillframe.frames.decode import Decoded, decode
from stillframe.frames.flow import Flow
from stillframe.frames.frame import Frame
from stillframe.frames.opcodes.registry import PLAIN

if TYPE_CHECKING:
    from stillframe.trace.recorder import Recorder


class ConvertingPolicy(StrictPolicy):
    """Branches on data become ``cond`` and ``while_loop``.

    Attributes:
        recorder: makes the nodes.
        aliases: results that may be tensors from before a branch.
        ways: what is being run, innermost last.
        count: how many were run.
        written: place of a branch -> the tensors that its ways were found to write, while the
            outermost branch is recorded.
    """

    def __init__(
        self,
        root: torch.nn.Module,
        modules: Iterable[Any],
        identities: Identities,
        stores: AttributeStores,
        recorder: Recorder,
    ) -> None:
        super().__init__(root, modules, identities, stores)
        self.recorder = recorder
        self.aliases = Aliases()
        self.ways: list[Way] = []
        self.count = 0
        self.written: dict[tuple[CodeType, int], list[FakeTensor]] = {}
        self._flows: dict[int, Flow] = {}

    def flow(self, frame: Frame) -> Flow:
        """The ways through the code of a frame."""
        decoded: Decoded = decode(frame.decoded.code)
        found = self._flows.get(id(decoded))
        if found is None:
            found = self._flows[id(decoded)] = Flow(decoded)
        return found

    def finish(self) -> None:
        super().finish()
        self.aliases.check()

    # -- branches -----------------------------------------------------------------------------

    def branch(
        self, frame: Frame, value: Any, if_true: int, if_false: int, keeps: bool | None = None
    ) -> int:
        condition = predicate(value)
        if condition is None:
            return super().branch(frame, value, if_true, if_false, keeps)
        return Branch(self, frame, value, condition, if_true, if_false, keeps).go_on()

    def same(self, left: Any, right: Any) -> bool:
        if left is not right and isinstance(left, torch.Tensor) and isinstance(right, torch.Tensor):
            adopt = self.recorder.fake_mode.adopt
            if self.aliases.may_be_one(adopt(left), adopt(right)):
                raise refusal(
                    self.machine.current,
                    "alias",
                    "Whether two tensors are one depends on a branch on data (rule: alias).",
                    hint="keep in a variable which way was taken",
                )
        return super().same(left, right)

    def boolean(self, value: Any) -> Any:
        condition = predicate(value)
        return super().boolean(value) if condition is None else as_boolean(condition)

    def negated(self, value: Any) -> Any:
        condition = predicate(value)
        if condition is None:
            return super().negated(value)
        return torch.sym_not(as_boolean(condition))

    def step(self, frame: Frame, target: int) -> int | None:
        if isinstance(frame.stack[-1], Counted):
            return for_loop(self, frame, target)
        return super().step(frame, target)

    # -- effects on a way ---------------------------------------------------------------------

    def is_outside(self, value: Any) -> bool:
        """Whether an object was there before the present way began."""
        if not self.ways:
            return False
        if self.source(value) is not None:
            return True
        way = self.ways[-1]
        if way.before is None:
            way.before = reachable(way.frame, self._own_modules)
        return id(value) in way.before

    def _check_effect(self, target: Any, what: str) -> None:
        if self.ways and self.is_outside(target):
            name = self.source(target) or f"a {type(target).__name__} from before the branch"
            self._refuse_effect(f"{what} {name}")

    def _refuse_effect(self, what: str) -> None:
        raise refusal(
            self.machine.current,
            "effect",
            f"A branch or loop on data {what} (rule: effect).",
            why="both ways are captured, and one of them runs: only what they return can differ",
            hint="assign a variable on every way, and do this behind the branch",
        )

    def note_change(self, target: Any, what: str = "changes") -> None:
        self._check_effect(target, what)
        super().note_change(target, what)

    def _note_item(self, container: Any, method: str) -> None:
        self._check_effect(container, "changes")
        super()._note_item(container, method)

    def _note_attribute(self, target: Any, name: str) -> None:
        if id(target) in self._own_modules or isinstance(target, type):
            path = self.source(target) or f"a {type(target).__name__}"
            if self.ways:
                self._refuse_effect(f"sets {path}.{name}")
        self._check_effect(target, f"sets .{name} of")
        super()._note_attribute(target, name)

    def _note_global(self, frame: Frame, name: str) -> None:
        if self.ways:
            self._refuse_effect(f"sets the global {name}")
        super()._note_global(frame, name)

    def store_attr(self, target: Any, name: str, value: Any) -> None:
        if self.ways and isinstance(target, torch.Tensor) and self.is_outside(target):
            self._refuse_effect(f"sets .{name} of a tensor from before the branch")
        if self.ways and _is_buffer(target, name, value):
            return  # ``self.steps += 1`` sets the tensor that it has changed
        super().store_attr(target, name, value)

    def new_cell(self, cell: CellType) -> None:
        super().new_cell(cell)
        if self.ways:
            self.ways[-1].cells[id(cell)] = cell

    def store_cell(self, frame: Frame, cell: CellType, name: str, value: Any) -> None:
        if self.ways:
            way = self.ways[-1]
            if frame is not way.fork and id(cell) not in way.cells:
                self._refuse_effect(f"sets the variable {name} of an enclosing function")
        super().store_cell(frame, cell, name, value)

    def _call_c(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self.ways:
            owner = getattr(function, "__self__", None)
            if hasattr(function, "__objclass__") and args:
                owner = args[0]
            if function.__name__ in _CHANGING:
                self._check_effect(owner, f"calls .{function.__name__}() of")
            if getattr(function, "__module__", None) in CHANGE_ARGUMENTS:
                for value in args:
                    if type(value) not in PLAIN or type(value) in (list, dict, set, bytearray):
                        self._check_effect(value, f"calls {function.__name__}() on")
        return super()._call_c(function, args, kwargs)

    # -- iterators ----------------------------------------------------------------------------

    def iterate(self, value: Any) -> Any:
        if isinstance(value, Counted):
            return value
        if hasattr(type(value), "__next__"):
            self._check_effect(value, "goes through")
        return super().iterate(value)

    def advance(self, iterator: Any, default: Any) -> Any:
        self._check_effect(iterator, "advances")
        return super().advance(iterator, default)

    def next(self, iterator: Any) -> Any:
        self._check_effect(iterator, "advances")
        return super().next(iterator)

    # -- calls --------------------------------------------------------------------------------

    def call(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if function is range:
            counted = Counted.of(args)
            if counted is not None:
                return counted
        if self.ways and any(function is held for held in self.ways[-1].frame.stack):
            raise refusal(
                self.machine.current,
                "with",
                "A way of a branch on data leaves a with block that began before the branch "
                "(rule: with).",
                why="the block can end once only, and both ways are captured",
                hint="put the with block on the ways, or return behind it",
            )
        return super().call(function, args, kwargs)


def _is_buffer(target: Any, name: str, value: Any) -> bool:
    """Whether a module has this very tensor as a buffer of this name."""
    return (
        isinstance(target, torch.nn.Module)
        and type(target).__setattr__ is torch.nn.Module.__setattr__
        and isinstance(value, torch.Tensor)
        and target._buffers.get(name) is value
    )


stack.add_to_interpreter(__file__)  # the other files here ask torch questions of their own

#: Methods of C that change what they belong to, of any class.
_CHANGING = MUTATORS | frozenset(
    """subtract __setattr__ __next__ send throw close write seek seed shuffle fromlist frombytes
    byteswap""".split()
)
