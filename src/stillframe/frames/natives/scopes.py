"""Built-ins that look at the frame that called them: ``globals``, ``super``, ``exec`` and so on."""

from __future__ import annotations

import builtins
import sys
import warnings
from types import CodeType
from typing import TYPE_CHECKING, Any

from stillframe.errors import InternalError
from stillframe.frames.frame import NULL
from stillframe.frames.natives.registry import native
from stillframe.frames.traceback import stub_frame

if TYPE_CHECKING:
    from stillframe.frames.frame import Frame
    from stillframe.frames.machine import Machine


def _current(machine: Machine) -> Frame:
    if machine.current is None:
        raise InternalError("no frame is running")
    return machine.current


@native(globals)
def _globals(machine: Machine) -> dict[str, Any]:
    return _current(machine).globals


@native(locals)
def current_locals(machine: Machine) -> Any:
    """The names of a class body or a module; for a function a new dict of its variables."""
    return frame_locals(_current(machine))


def frame_locals(frame: Frame) -> Any:
    if frame.names is not None:
        return frame.names
    code = frame.decoded.code
    own = len(code.co_varnames)
    found = {}
    for index, name in enumerate(frame.decoded.local_names):
        value = frame.locals[index]
        if value is NULL:
            value = frame.locals[index] = frame.policy.kept_back(frame, index)
        if value is not NULL and (index >= own or name in code.co_cellvars):
            value = frame.policy.load_cell(frame, value, name)
        if value is not NULL:
            found[name] = value
    return found


@native(super)
def _super(machine: Machine, *args: Any) -> Any:
    if args:
        return super(*args)
    frame = _current(machine)
    code = frame.decoded.code
    if "__class__" not in frame.decoded.local_names:
        raise RuntimeError("super(): __class__ cell not found")
    if not code.co_argcount:
        raise RuntimeError("super(): no arguments")
    cell = frame.locals[frame.decoded.local_names.index("__class__")]
    cls = frame.policy.load_cell(frame, cell, "__class__")
    if cls is NULL:
        raise RuntimeError("super(): empty __class__ cell")
    first = frame.locals[0]
    if first is NULL:
        first = frame.locals[0] = frame.policy.kept_back(frame, 0)
    if code.co_varnames[0] in code.co_cellvars:
        first = frame.policy.load_cell(frame, first, code.co_varnames[0])
    if first is NULL:
        raise RuntimeError("super(): arg[0] deleted")
    return super(cls, first)


@native(exec)
def _exec(
    machine: Machine, source: Any, globals: Any = None, locals: Any = None, /, **options: Any
) -> None:
    _run_text(machine, source, "exec", globals, locals, options.get("closure"))


@native(eval)
def _eval(machine: Machine, source: Any, globals: Any = None, locals: Any = None, /) -> Any:
    if isinstance(source, str):
        source = source.lstrip(" \t")
    return _run_text(machine, source, "eval", globals, locals, None)


def _run_text(
    machine: Machine, source: Any, mode: str, globals_: Any, locals_: Any, closure: Any
) -> Any:
    frame = _current(machine)
    if globals_ is None:
        globals_ = frame.globals
        if locals_ is None:
            locals_ = frame_locals(frame)
    elif type(globals_) is not dict:
        kind = type(globals_).__name__
        raise TypeError(f"{mode}() globals must be a dict, not {kind}")
    if locals_ is None:
        locals_ = globals_
    globals_.setdefault("__builtins__", frame.builtins)
    if not isinstance(source, CodeType):
        source = compile(source, "<string>", mode, _future_flags(frame), dont_inherit=True)
    return machine.run_code(source, globals_, locals_, closure)


def _future_flags(frame: Frame) -> int:
    return frame.decoded.code.co_flags & 0x1FF0000  # the flags of "from __future__ import ..."


@native(compile)
def _compile(machine: Machine, source: Any, filename: Any, mode: str, *args: Any, **kw: Any) -> Any:
    if len(args) < 2 and not kw.get("dont_inherit"):
        flags = args[0] if args else kw.pop("flags", 0)
        return compile(source, filename, mode, flags | _future_flags(_current(machine)), True, **kw)
    return compile(source, filename, mode, *args, **kw)


@native(builtins.__import__)
def _import(machine: Machine, name: str, *args: Any, **kwargs: Any) -> Any:
    return __import__(name, *args, **kwargs)


@native(sys._getframe)
def _getframe(machine: Machine, depth: int = 0) -> Any:
    """A frame object that stands for the program's frame: its code's names and its globals."""
    frame: Frame | None = machine.current
    for _ in range(depth):
        frame = frame.back if frame is not None else None
    if frame is None:
        raise ValueError("call stack is not deep enough")
    return stub_frame(frame)


@native(sys.exc_info)
def _exc_info(machine: Machine) -> Any:
    error = _current(machine).handled.topmost()
    if error is None:
        return (None, None, None)
    return (type(error), error, error.__traceback__)


@native(sys.exception)
def _exception(machine: Machine) -> BaseException | None:
    return _current(machine).handled.topmost()


if hasattr(sys, "_getframemodulename"):

    @native(sys._getframemodulename)
    def _getframemodulename(machine: Machine, depth: int = 0) -> Any:
        frame: Frame | None = machine.current
        for _ in range(depth):
            frame = frame.back if frame is not None else None
        return None if frame is None else frame.globals.get("__name__")


@native(warnings.warn)
def _warn(
    machine: Machine,
    message: Any,
    category: Any = None,
    stacklevel: int = 1,
    source: Any = None,
    **options: Any,
) -> None:
    """The line that is blamed is the program's."""
    frame: Frame | None = _current(machine)
    for _ in range(stacklevel - 1):
        frame = frame.back if frame is not None and frame.back is not None else frame
    assert frame is not None
    if isinstance(message, Warning):
        category = type(message)
    warnings.warn_explicit(
        message,
        category or UserWarning,
        frame.decoded.code.co_filename,
        frame.decoded.line(frame.pc),
        module=frame.globals.get("__name__", "<string>"),
        registry=frame.globals.setdefault("__warningregistry__", {}),
        source=source,
    )
