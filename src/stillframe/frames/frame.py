"""One activation of a code object: locals, stack, names, and where it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stillframe.frames.decode import Decoded
    from stillframe.frames.machine import Machine


class Null:
    """The type of :data:`NULL`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "<NULL>"


#: No value: an unbound local, or the empty slot that CPython pushes beside a callable.
NULL = Null()


class Handled:
    """The exception that is being handled, on one level.

    Ordinary calls share the level of their caller; a generator has its own, on top of whoever
    resumes it.
    """

    __slots__ = ("value", "outer")

    def __init__(self, outer: Handled | None = None) -> None:
        self.value: BaseException | None = None
        self.outer = outer

    def topmost(self) -> BaseException | None:
        """What ``sys.exception()`` answers here."""
        level: Handled | None = self
        while level is not None:
            if level.value is not None:
                return level.value
            level = level.outer
        return None


class Frame:
    """A code object that runs.

    Attributes:
        locals: by index, as CPython numbers them: variables, then cells, then free variables.
            A cell is a real cell object.
        stack: the value stack.
        names: the namespace of a class body or a module; None in a function.
        pc: index of the instruction that runs; of the next one while suspended.
        back: the frame that called.
        handled: the exception being handled.
        keywords: names of keyword arguments of the call that comes next.
        thrown: an exception to raise where the frame was suspended.
        is_reraise: the exception on its way has been seen in this frame before, so its traceback
            gets no second entry.
        is_finished: the frame has returned.
    """

    __slots__ = (
        "machine",
        "policy",
        "decoded",
        "locals",
        "stack",
        "globals",
        "builtins",
        "names",
        "closure",
        "pc",
        "back",
        "handled",
        "keywords",
        "thrown",
        "is_reraise",
        "is_finished",
        "label",
    )

    def __init__(
        self,
        machine: Machine,
        decoded: Decoded,
        variables: list[Any],
        globals_: dict[str, Any],
        builtins_: dict[str, Any],
        names: Any = None,
        closure: tuple[Any, ...] | None = None,
    ) -> None:
        self.machine = machine
        self.policy = machine.policy
        self.decoded = decoded
        self.locals = variables
        self.stack: list[Any] = []
        self.globals = globals_
        self.builtins = builtins_
        self.names = names
        self.closure = closure
        self.pc = 0
        self.back: Frame | None = None
        self.handled = machine.handled
        self.keywords: tuple[str, ...] = ()
        self.thrown: BaseException | None = None
        self.is_reraise = False
        self.is_finished = False
        self.label: tuple[str, str] | None = None

    def __repr__(self) -> str:
        code = self.decoded.code
        place = f"{code.co_filename}:{self.decoded.line(self.pc)}"
        return f"<frame {code.co_qualname} at {place}, stack {len(self.stack)}>"
