"""The machine: runs frames, calls functions, unwinds exceptions.

Python functions are run here, however deep; C functions are called, through :mod:`natives` where
they would call back into Python. What operations mean is the policy's business.
"""

from __future__ import annotations

import builtins
import functools
import operator
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import CodeType, FrameType, FunctionType, MethodType
from typing import Any

from stillframe import stack
from stillframe.errors import FrameError, InternalError, StillframeError
from stillframe.frames import calling, places
from stillframe.frames.binding import bind
from stillframe.frames.decode import decode
from stillframe.frames.frame import NULL, Frame, Handled
from stillframe.frames.opcodes.exceptions import chain
from stillframe.frames.policy import Policy
from stillframe.frames.traceback import add_entry

#: Frames of the machine for one frame of the program, with room to spare.
_FRAMES_PER_CALL = 12

# typeshed knows the attribute of some versions only
_builtins_of = operator.attrgetter("__builtins__")


class Machine:
    """Runs code objects under a policy.

    Args:
        policy: what values are and what may be called; plain Python if None.

    Attributes:
        current: the frame that runs; None outside of :meth:`run`.
        handled: the exception level of code that starts now.
        depth: how many frames are running.
        shown: ids of the containers whose text is being made, as for ``reprlib``.
    """

    #: Up to 3.11 the interpreter itself takes a delegate off when ``throw`` ends it.
    pops_delegate = sys.version_info < (3, 12)

    def __init__(self, policy: Policy | None = None) -> None:
        self.policy = policy or Policy()
        self.policy.machine = self
        self.current: Frame | None = None
        self.handled = Handled()
        self.depth = 0
        self.limit = sys.getrecursionlimit()
        self.shown: set[int] = set()

    # -- calls --------------------------------------------------------------------------------

    def call(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call anything callable."""
        kind = type(function)
        if kind is FunctionType:
            return self.call_function(function, args, kwargs)
        if kind is MethodType:
            return self.policy.call(function.__func__, (function.__self__, *args), kwargs)
        return calling.call(self, function, args, kwargs)

    def call_function(
        self, function: FunctionType, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Run a Python function in a frame of its own."""
        if not self.policy.inline(function):
            return function(*args, **kwargs)
        decoded = decode(function.__code__)
        variables = bind(function, decoded, args, kwargs)
        frame = Frame(
            self,
            decoded,
            variables,
            function.__globals__,
            _builtins_of(function),
            None,
            function.__closure__,
        )
        if decoded.is_generator:
            frame.label = (function.__name__, function.__qualname__)
        return self.run(frame)

    def run_code(
        self, code: CodeType, globals_: dict[str, Any], names: Any, closure: Any = None
    ) -> Any:
        """Run the code of a module, a class body, or a text for ``exec``."""
        found = globals_.get("__builtins__", builtins)
        table = found if isinstance(found, dict) else vars(found)
        decoded = decode(code)
        frame = Frame(self, decoded, [NULL] * decoded.size, globals_, table, names, closure)
        return self.run(frame)

    # -- running ------------------------------------------------------------------------------

    def run(self, frame: Frame) -> Any:
        """Run a frame until it returns (its value) or yields (what it yields)."""
        outer = frame.back = self.current
        if self.depth >= self.limit:
            raise RecursionError("maximum recursion depth exceeded")
        self.depth += 1
        self.current = frame
        handled, self.handled = self.handled, frame.handled
        try:
            return _loop(frame)
        finally:
            self.depth -= 1
            self.current = outer
            self.handled = handled

    def resume(self, frame: Frame) -> Any:
        """Run a suspended generator on."""
        frame.handled.outer = self.handled
        try:
            return self.run(frame)
        finally:
            frame.handled.outer = None

    # -- refusing -----------------------------------------------------------------------------

    def refuse(self, what: str, why: str = "", hints: Sequence[str] = ()) -> FrameError:
        """The error for a construct that is not run, with the user's line and the calls to it."""
        return FrameError(what, why=why, where=places.describe(self.current), hints=hints)

    def callback(self, function: Any) -> Any:
        """A callable for C code, that runs ``function`` on this machine."""
        if not callable(function) or calling.is_native(function):
            return function
        return functools.partial(_called_back, self, function)


def _called_back(machine: Machine, function: Any, /, *args: Any, **kwargs: Any) -> Any:
    with deep_recursion(machine):
        return machine.policy.call(function, args, kwargs)


def _loop(frame: Frame) -> Any:
    instructions = frame.decoded.instructions
    pc = frame.pc
    if frame.thrown is not None:
        error, frame.thrown = frame.thrown, None
        frame.pc = pc - 1
        chain(error, frame.handled.topmost())
        pc = _unwind(frame, error)
        del error
    while True:
        try:
            while True:
                handler, argument = instructions[pc]
                frame.pc = pc
                target = handler(frame, argument)
                if target is None:
                    pc += 1
                elif target >= 0:
                    pc = target
                else:
                    frame.pc = pc + 1
                    return frame.stack.pop()
        except BaseException as e:
            error = e
        # Outside of the except block, so that nothing that is raised from here on gets the
        # exception as its context: contexts are the program's business.
        pc = _unwind(frame, error)
        del error


def _unwind(frame: Frame, error: BaseException) -> int:
    """Where the frame goes on after an exception; raises it if the frame has no handler."""
    if isinstance(error, StillframeError | InternalError):
        raise error  # not the program's: it cannot be caught by it
    if error.__context__ is None:
        chain(error, frame.handled.topmost())
    add_entry(frame, error)
    target = frame.decoded.targets[frame.pc]
    if target is None:
        frame.is_finished = True
        raise error
    stack = frame.stack
    del stack[target.depth :]
    if target.push_position:
        stack.append(frame.pc)
    stack.append(error)
    frame.keywords = ()
    return target.instruction


def _place(native: FrameType) -> tuple[CodeType, int]:
    """The program's code and position, from the native frame of the loop that runs it."""
    frame: Frame = native.f_locals["frame"]
    return frame.decoded.code, frame.decoded.offsets[frame.pc]


# Folders with policies add themselves: stack.add_to_interpreter.
stack.show_interpreted(_loop.__code__, _place, os.path.dirname(__file__))


@contextmanager
def deep_recursion(machine: Machine) -> Iterator[None]:
    """One call of the program is several of ours: the interpreter's limit is raised meanwhile."""
    before = sys.getrecursionlimit()
    wanted = machine.limit * _FRAMES_PER_CALL + 1000
    if before >= wanted:
        yield
        return
    sys.setrecursionlimit(wanted)
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


def interpret(
    function: Callable[..., Any], *, allow: Sequence[str] = (), policy: Policy | None = None
) -> Callable[..., Any]:
    """A callable that runs ``function`` on the machine, as plain Python.

    Args:
        function: any callable.
        allow: names of C extension modules whose functions may be called, beyond those that are
            known to be harmless.
        policy: what operations mean; plain Python if None.

    Raises:
        FrameError: (when called) the program uses something that the machine does not run.
    """

    @functools.wraps(function)
    def interpreted(*args: Any, **kwargs: Any) -> Any:
        machine = Machine(policy)  # one for each call: threads and recursion share nothing
        machine.policy.allowed |= frozenset(allow)
        with deep_recursion(machine):
            return machine.policy.call(function, args, kwargs)

    return interpreted


__all__ = ["Machine", "interpret"]
