"""What a capture carries around with it: which compilation, which attempt, where in user code.

Two contexts, each in dynamic scope and each of one thread. A :class:`CompileContext` spans a whole
compilation. A :class:`TracingContext` spans one attempt at analysing a frame; a restart makes a new
one, so what the first attempt assumed cannot leak into the second. Both spare the floors above from
handing the same object through every call; they are not a place for anything else.

State that can be put back (:class:`Checkpointable`) is here, too. This file knows no torch: the
values in it are made by upper floors.
"""

from __future__ import annotations

import contextlib
import threading
import traceback
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from stillframe.errors import InternalError

S = TypeVar("S")
T = TypeVar("T")

# -- identifiers -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class CompileId:
    """One compilation of one frame.

    Attributes:
        frame_id: counts frames.
        frame_compile_id: counts compilations of that frame, so a recompilation shows as ``3/1``.
    """

    frame_id: int
    frame_compile_id: int

    def __str__(self) -> str:
        return f"{self.frame_id}/{self.frame_compile_id}"


@dataclass(frozen=True)
class TraceId:
    """One attempt of a compilation; ``attempt`` is 0 at first and grows with every restart."""

    compile_id: CompileId
    attempt: int

    def __str__(self) -> str:
        return f"{self.compile_id}_{self.attempt}" if self.attempt else str(self.compile_id)


# -- state that can be put back --------------------------------------------------------------------


class Checkpointable(ABC, Generic[T]):
    """State of which a snapshot can be taken and restored; when to do so is the caller's business.

    A snapshot is independent of the state: what happens to one does not show in the other, before
    and after it is restored, however often.
    """

    @abstractmethod
    def copy_graphstate(self) -> T:
        """A snapshot of the state as it is."""

    @abstractmethod
    def restore_graphstate(self, state: T) -> None:
        """Make the state what it was when ``state`` was taken.

        Raises:
            InternalError: ``state`` is a snapshot of something else.
        """


def check_snapshot(state: object, cls: type) -> None:
    """Raise an InternalError if ``state`` is not a snapshot of class ``cls``."""
    if type(state) is not cls:
        raise InternalError(f"a {cls.__name__} was expected, not a {type(state).__name__}")


@dataclass(frozen=True, eq=False)
class ModuleContextCheckpointState:
    """The modules that were registered at some moment."""

    nn_modules: Mapping[str, Any]

    def diff(self, other: ModuleContextCheckpointState) -> set[str] | None:
        """The names here and not in ``other``; None if there is none. One-sided."""
        return set(self.nn_modules) - set(other.nn_modules) or None

    def __eq__(self, other: object) -> bool:
        """The same names, each for the same module."""
        if not isinstance(other, ModuleContextCheckpointState):
            return NotImplemented
        if self.diff(other) or other.diff(self):
            return False
        return all(m is other.nn_modules[name] for name, m in self.nn_modules.items())

    __hash__ = None  # type: ignore[assignment]


class ModuleContext(Checkpointable[ModuleContextCheckpointState]):
    """The modules that the capture registered, by name."""

    def __init__(self) -> None:
        self.nn_modules: dict[str, Any] = {}

    def copy_graphstate(self) -> ModuleContextCheckpointState:
        """The modules as they are now."""
        return ModuleContextCheckpointState(dict(self.nn_modules))

    def restore_graphstate(self, state: ModuleContextCheckpointState) -> None:
        """The modules as they were."""
        check_snapshot(state, ModuleContextCheckpointState)
        self.nn_modules = dict(state.nn_modules)


#: The parts of the global state that a capture puts back, all of them or none.
GLOBAL_STATE_KEYS = frozenset({
    "grad_enabled", "torch_function_enabled", "autocast_enabled", "autocast_cpu_enabled",
    "autocast_gpu_dtype", "autocast_cpu_dtype", "autocast_cache_enabled",
})  # fmt: skip

# A function that sets a part of the global state, and the argument that it takes.
Setting = tuple[Callable[[Any], Any], Any]


@dataclass(frozen=True)
class GlobalContextCheckpointState:
    """The global state at some moment: name -> how to set it, and to what."""

    global_state: Mapping[str, Setting]

    def diff(self, other: GlobalContextCheckpointState) -> set[str] | None:
        """The names here and not in ``other``; None if there is none. One-sided.

        ``==`` compares both directions, and the settings, too.
        """
        return set(self.global_state) - set(other.global_state) or None


class GlobalContext(Checkpointable[GlobalContextCheckpointState]):
    """The global state to return to; ``stillframe.guards.ambient`` reads torch's."""

    def __init__(self) -> None:
        self.global_state: dict[str, Setting] = {}

    def copy_graphstate(self) -> GlobalContextCheckpointState:
        """The settings as they are now."""
        return GlobalContextCheckpointState(dict(self.global_state))

    def restore_graphstate(self, state: GlobalContextCheckpointState) -> None:
        """Take the settings over and call every setter.

        Raises:
            InternalError: ``state`` does not have exactly the keys of ``GLOBAL_STATE_KEYS``;
                nothing has been set then.
        """
        check_snapshot(state, GlobalContextCheckpointState)
        wrong = GLOBAL_STATE_KEYS ^ set(state.global_state)
        if wrong:
            raise InternalError(f"global state mismatch: {', '.join(sorted(wrong))}")
        self.global_state = dict(state.global_state)
        for setter, argument in self.global_state.values():
            setter(argument)


class WeakByIdentity(Generic[T]):
    """A dictionary whose keys are objects by identity, and which does not keep them alive.

    For tensors, whose ``==`` is not a comparison.
    """

    def __init__(self) -> None:
        self._entries: dict[int, tuple[weakref.ref[Any], T]] = {}

    def __setitem__(self, key: Any, value: T) -> None:
        address, entries = id(key), self._entries

        def forget(dead: weakref.ref[Any]) -> None:
            if address in entries and entries[address][0] is dead:
                del entries[address]

        entries[address] = weakref.ref(key, forget), value

    def __contains__(self, key: Any) -> bool:
        entry = self._entries.get(id(key))
        return entry is not None and entry[0]() is key

    def __getitem__(self, key: Any) -> T:
        if key not in self:
            raise KeyError(key)
        return self._entries[id(key)][1]

    def get(self, key: Any) -> T | None:
        """The value of ``key``, or None."""
        return self[key] if key in self else None

    def __len__(self) -> int:
        return len(self._entries)


# -- the contexts ----------------------------------------------------------------------------------


class _Current(threading.local):
    """The innermost contexts of this thread."""

    def __init__(self) -> None:
        self.compiling: CompileContext | None = None
        self.tracing: TracingContext | None = None


_current = _Current()


class CompileContext:
    """One compilation, restarts of its analysis included.

    Attributes:
        compile_id: which one, or None for a capture that is no compilation of a frame.
        attempt: 0, and one more with every restart.
    """

    def __init__(self, compile_id: CompileId | None) -> None:
        if compile_id is not None and not isinstance(compile_id, CompileId):
            raise InternalError(f"not a compile id: {compile_id!r}")
        self.compile_id = compile_id
        self.attempt = 0

    @staticmethod
    def try_get() -> CompileContext | None:
        """The current one, or None."""
        return _current.compiling

    @staticmethod
    def get() -> CompileContext:
        """The current one.

        Raises:
            RuntimeError: there is none.
        """
        if _current.compiling is None:
            raise RuntimeError("CompileContext.get() must be called within an ongoing compilation")
        return _current.compiling

    @staticmethod
    def current_compile_id() -> CompileId | None:
        """The id of the current compilation; None without one."""
        context = _current.compiling
        return context.compile_id if context is not None else None

    @staticmethod
    def current_trace_id() -> TraceId | None:
        """The current attempt; None without a compilation or if that has no id."""
        context = _current.compiling
        if context is None or context.compile_id is None:
            return None
        return TraceId(context.compile_id, context.attempt)


@contextlib.contextmanager
def compile_context(context: CompileContext | None) -> Iterator[CompileContext | None]:
    """``context`` is the current compilation inside."""
    old = _current.compiling
    _current.compiling = context
    try:
        yield context
    finally:
        _current.compiling = old


class TracingContext:
    """One attempt at analysing a frame.

    Attributes:
        module_context, global_context: state that can be put back; for that of upper floors
            (the guards) see :meth:`part`.
        fake_mode: makes the fakes of this attempt, or None.
        frame_summary_stack: the calls in user code that lead to what is being analysed.
        loc_in_frame: file, line and function name in the innermost frame, if known.
        fw_metadata, aot_graph_name, params_flat, output_strides: of later stages.
        force_unspec_int_unbacked_size_like: integers that are wrapped now are sizes that only the
            data can tell.
        tensor_to_context: tensor -> how its sizes were made symbols, so that a restart makes the
            same ones.
        fakify_first_call: the first call runs on fakes, too.
    """

    def __init__(self, fake_mode: Any) -> None:
        self.module_context = ModuleContext()
        self.global_context = GlobalContext()
        self.fake_mode = fake_mode
        self.frame_summary_stack: list[traceback.FrameSummary] = []
        self.loc_in_frame: tuple[str, int, str] | None = None
        self.fw_metadata: Any = None
        self.aot_graph_name: str | None = None
        self.params_flat: list[Any] | None = None
        self.output_strides: list[tuple[int, ...] | None] | None = None
        self.force_unspec_int_unbacked_size_like = False
        self.tensor_to_context: WeakByIdentity[Any] = WeakByIdentity()
        self.fakify_first_call = False
        self._parts: dict[type, Any] = {}

    def part(self, cls: type[S]) -> S:
        """The state of class ``cls`` in this context, made when it is first asked for.

        Upper floors keep theirs here, such as the guards that were installed.
        """
        if cls not in self._parts:
            self._parts[cls] = cls()
        found: S = self._parts[cls]
        return found

    def clear(self) -> None:
        """Forget the global state to return to."""
        self.global_context.global_state = {}

    # -- the current one ----------------------------------------------------------------------

    @staticmethod
    def try_get() -> TracingContext | None:
        """The current one, or None."""
        return _current.tracing

    @staticmethod
    def get() -> TracingContext:
        """The current one.

        Raises:
            RuntimeError: there is none.
        """
        if _current.tracing is None:
            raise RuntimeError("TracingContext.get() must be called within an ongoing trace")
        return _current.tracing

    @staticmethod
    @contextlib.contextmanager
    def patch(**fields: Any) -> Iterator[None]:
        """Fields of the current context have other values inside.

        Raises:
            AttributeError: there is no such field; nothing has been changed.
        """
        context = TracingContext.get()
        unknown = [name for name in fields if name not in vars(context)]
        if unknown:
            raise AttributeError(f"a tracing context has no field {', '.join(unknown)}")
        old = {name: getattr(context, name) for name in fields}
        vars(context).update(fields)
        try:
            yield
        finally:
            vars(context).update(old)

    @staticmethod
    @contextlib.contextmanager
    def report_output_strides() -> Iterator[list[tuple[int, ...] | None] | None]:
        """A fresh list for a backend to append to: the strides of each output.

        They are hints, plain ints; None for an output without known strides. Without a context
        there is no list: None.
        """
        context = TracingContext.try_get()
        if context is None:
            yield None
            return
        old = context.output_strides
        fresh = context.output_strides = []
        try:
            yield fresh
        finally:
            context.output_strides = old

    # -- where in user code -------------------------------------------------------------------

    @staticmethod
    def extract_stack() -> traceback.StackSummary:
        """The user's frames, outermost first; empty without a context."""
        context = TracingContext.try_get()
        if context is None:
            return traceback.StackSummary()
        return context._stack()

    def _stack(self) -> traceback.StackSummary:
        frames = list(self.frame_summary_stack)
        if self.loc_in_frame is not None:
            file, line, name = self.loc_in_frame
            frames.append(traceback.FrameSummary(file, line, name, lookup_line=False))
        return traceback.StackSummary.from_list(frames)

    @staticmethod
    def set_current_loc(file: str, line: int, name: str) -> None:
        """The analysis is at this line; its text is read when somebody prints it."""
        TracingContext.get().loc_in_frame = file, line, name

    @staticmethod
    @contextlib.contextmanager
    def current_frame(summary: traceback.FrameSummary | None) -> Iterator[None]:
        """A call is analysed inside; ``summary`` is where the caller stands, None if unknown."""
        context = TracingContext.get()
        frames, location = context.frame_summary_stack, context.loc_in_frame
        context.frame_summary_stack = [*frames, summary] if summary is not None else frames
        context.loc_in_frame = None
        try:
            yield
        except Exception as e:
            _tell_stack(e, context._stack())
            raise
        finally:
            context.frame_summary_stack, context.loc_in_frame = frames, location

    @staticmethod
    @contextlib.contextmanager
    def clear_frame() -> Iterator[None]:
        """What runs inside (a backend) has nothing to do with the user's frames.

        An exception from it gets ``real_stack=None``, so that no scope outside gives it a stack.
        """
        context = TracingContext.get()
        frames, location = context.frame_summary_stack, context.loc_in_frame
        context.frame_summary_stack, context.loc_in_frame = [], None
        try:
            yield
        except Exception as e:
            _tell_stack(e, None)
            raise
        finally:
            context.frame_summary_stack, context.loc_in_frame = frames, location


def real_stack(error: BaseException) -> traceback.StackSummary | None:
    """The user's frames that a context noted on an exception, or None."""
    found: traceback.StackSummary | None = _own_dict(error).get("real_stack")
    return found


def _tell_stack(error: BaseException, frames: traceback.StackSummary | None) -> None:
    """Set ``error.real_stack`` once: the innermost scope knows best.

    The exception may be of a class of the user's, whose attribute methods are left alone.
    """
    _own_dict(error).setdefault("real_stack", frames)


def _own_dict(error: BaseException) -> dict[str, Any]:
    attributes: dict[str, Any] = BaseException.__getattribute__(error, "__dict__")
    return attributes


@contextlib.contextmanager
def tracing(context: TracingContext | None) -> Iterator[TracingContext | None]:
    """``context`` is the current one inside; None hides the one outside.

    An exception gets the user's stack of that moment. At the end, caches and reference cycles of
    the shape environment of the context's fake mode are dropped.
    """
    old = _current.tracing
    _current.tracing = context
    try:
        yield context
    except Exception as e:
        if context is not None:
            _tell_stack(e, context._stack())
        raise
    finally:
        _current.tracing = old
        if context is not None and context.fake_mode is not None:
            context.fake_mode.env.drop_caches()
