"""What C code may be given: it reads and changes what it gets, and no guard sees that.

A built-in container is known to the last item, a tensor by its fake. Of an object from outside,
compiled code could read or write anything; so only functions are let near one that treat it as
a thing (put it into a list, ask for its class). A value whose class keeps state in C, such as a
lock or a text buffer, is not even asked.
"""

from __future__ import annotations

import datetime
import decimal
import functools
import operator
import random
import re
import sys
import threading
import types
import weakref
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch

from stillframe.fake.tensor import FakeTensor
from stillframe.frames.calling import is_handled
from stillframe.frames.lookup import BuiltinMethod, python_special
from stillframe.frames.unrepeatable import unrepeatable
from stillframe.guards import install_guard
from stillframe.guards.kinds.registry import kind as guard_kind
from stillframe.variables.base import LazyVariableTracker
from stillframe.variables.c_code import COMPARED, COPIES_STATE
from stillframe.variables.paths import (
    HEAP_TYPE,
    instance_dict,
    is_library,
    is_library_name,
    is_torch,
    name_of,
)

if TYPE_CHECKING:
    from stillframe.source import Source
    from stillframe.variables.translator import Translator

# -- state that only C code sees ------------------------------------------------------------------

#: Classes of C whose values never change: what a value is, its identity tells.
_IMMUTABLE = (
    int, float, complex, str, bytes, datetime.date, datetime.time, datetime.timedelta,
    datetime.tzinfo, decimal.Decimal, re.Pattern, property, staticmethod, classmethod,
    operator.itemgetter, operator.attrgetter, operator.methodcaller,
)  # fmt: skip

_POINTER = object.__basicsize__ // 2


def has_hidden_state(cls: type) -> bool:
    """Whether values of a class have state that is no attribute: it derives from a static class of
    C other than ``object``, or takes more memory than its slots need."""
    if cls.__itemsize__ or not all(base.__flags__ & HEAP_TYPE for base in cls.__mro__[:-1]):
        return True
    slots = sum(
        isinstance(entry, types.MemberDescriptorType) and not name.startswith("__")
        for base in cls.__mro__
        for name, entry in vars(base).items()
    )
    extra = (cls.__dictoffset__ > 0) + (cls.__weakrefoffset__ > 0)
    return cls.__basicsize__ > object.__basicsize__ + _POINTER * (slots + extra)


def is_immutable(value: Any) -> bool:
    """Whether a value of a class of C is the same for good."""
    return isinstance(value, _IMMUTABLE)


# -- calls of compiled code -----------------------------------------------------------------------

#: Functions that take an argument for a thing: its class and identity, nothing inside.
_TAKES_THINGS = frozenset(
    map(id, (
        isinstance, issubclass, callable, type, super, operator.is_, operator.is_not, object,
        torch.is_tensor, torch.overrides.is_tensor_like, types.MethodType,
    ))
)  # fmt: skip

#: Built-ins whose handlers read and write attributes one by one.
_ATTRIBUTES = COPIES_STATE.union(
    """getattr hasattr setattr delattr vars __getattribute__ __setattr__ __delattr__ __get__
    __set__""".split()
)

#: Modules of C whose functions look at the arguments as iterables of things, or as constants.
_OF_THINGS = frozenset("itertools functools _functools collections _collections _abc".split())

#: Methods of built-in containers that compare what is in them.
_COMPARES = frozenset("index count remove __contains__ __eq__ __ne__ __lt__ sort".split())

_VIEWS: tuple[type, ...] = (type({}.keys()), type({}.values()), type({}.items()))
_THINGS = (
    types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.ModuleType, type,
    torch.Tensor, torch.SymInt, torch.SymFloat, torch.SymBool, types.CodeType,
)  # fmt: skip

#: Functions of C modules that read or change what belongs to the process.
_OF_THE_PROCESS = frozenset(
    """posix nt _io _thread gc locale _locale _contextvars _imp _socket signal faulthandler
    _tracemalloc""".split()
)
_HARMLESS_OF_THE_PROCESS = frozenset({"fspath", "allocate_lock", "RLock", "getpid"})
_ASKS_SYS = frozenset(
    """getrecursionlimit setrecursionlimit getrefcount gettrace settrace getprofile setprofile
    _current_frames getswitchinterval setswitchinterval intern_count getallocatedblocks""".split()
)

#: Functions of torch that change what belongs to the process.
_TORCH_STATE = frozenset(
    """manual_seed seed set_rng_state set_num_threads set_num_interop_threads set_default_device
    set_default_tensor_type set_default_dtype set_flush_denormal set_printoptions
    set_float32_matmul_precision use_deterministic_algorithms""".split()
)


def check(
    tx: Translator, function: Any, owner: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    """Whether compiled code may be called with these arguments.

    Args:
        owner: the object of which ``function`` is a method, if it is one.

    Raises:
        FrameError: it could read or change what no guard sees.
    """
    _refuse_process(tx, function, owner, args)
    if is_torch(function) or _is_ours(function):
        return  # the recorder sees what it does with tensors; of the rest it is torch's own
    name = name_of(function)
    given = [value for value in (owner, *args, *kwargs.values()) if value is not None]
    if id(function) in _TAKES_THINGS:
        return
    if name in _ATTRIBUTES:
        return  # each attribute is guarded by itself
    if function is sys.exc_info:
        refuse_traceback(tx)
    if function is memoryview or name == "__subclasses__":
        raise tx.graph_break(
            f"The frame calls {_name(function)}().",
            why="what it gives shows changes that nobody sees",
        )
    if function is weakref.ref:
        if len(args) > 1:
            raise tx.graph_break("The frame asks to be called back when an object dies.")
        return
    for value in given:
        refuse_opaque(tx, value, _name(function))
    if id(function) in _TELLS_IDENTITY:
        _rely_on_identity(tx, args, set())
        return
    if is_handled(function) or _runs_on_the_machine(function):
        return
    if type(owner) in COMPARED and name not in _COMPARES:
        return
    if getattr(function, "__module__", None) in _OF_THINGS:
        return
    for value in given:
        _refuse_foreign(tx, value, _name(function), set())


def refuse_hidden_code(tx: Translator, function: Any, args: tuple[Any, ...]) -> None:
    """Python that C code runs at a moment of its own: when an object dies, or a class is made."""
    if isinstance(function, type) and python_special(function, "__del__") is not None:
        what = f"makes an object of {function.__qualname__}, which has a __del__"
    elif name_of(function) == "__build_class__" and any(
        python_special(base, "__init_subclass__") is not None
        for base in args[2:]
        if isinstance(base, type) and not is_library_name(base.__module__)
    ):
        what = "makes a class whose base has an __init_subclass__"
    elif function is functools.cmp_to_key:
        what = "calls functools.cmp_to_key"
    else:
        return
    raise tx.graph_break(
        f"The frame {what}.", why="C code runs Python there, of which the machine sees nothing"
    )


def _is_ours(function: Any) -> bool:
    """Whether a function stands for one of the program's during the capture."""
    module = getattr(function, "__module__", None)
    return isinstance(module, str) and module.startswith("stillframe.")


def _runs_on_the_machine(function: Any) -> bool:
    """A class in Python, whose making is run by the machine; or an exception, which only keeps its
    arguments; or a check of classes by torch."""
    if isinstance(function, type):
        return issubclass(function, BaseException) or not has_hidden_state(function)
    return name_of(function) in ("__instancecheck__", "__subclasscheck__")


#: Built-ins whose answer may be made of the address of an object.
_TELLS_IDENTITY = frozenset(map(id, (id, hash, repr, str, ascii, format)))


def _rely_on_identity(tx: Translator, values: Iterable[Any], met: set[int]) -> None:
    """``id(x)``, the default hash and the default text: of the very object."""
    for value in values:
        if id(value) in met:
            continue
        met.add(id(value))
        if isinstance(value, torch.Tensor):
            continue  # refused elsewhere
        if isinstance(value, COMPARED):
            _rely_on_identity(tx, _contents(value), met)
            continue
        known = tx.variable(value)
        if known is None or known.source is None or is_library(known.source):
            continue
        if not known.is_python_constant():
            install_guard(known.source.make_guard(guard_kind("ID_MATCH")))


def _refuse_process(tx: Translator, function: Any, owner: Any, args: tuple[Any, ...]) -> None:
    name, module = name_of(function), getattr(function, "__module__", None)
    what = unrepeatable(function, args) if isinstance(function, types.BuiltinFunctionType) else None
    if isinstance(owner, random.Random):
        what = "draws from a random generator of Python's"
    elif module in _OF_THE_PROCESS and name not in _HARMLESS_OF_THE_PROCESS:
        if what is None and _is_asked_by_a_library(tx):
            return
        what = "reads or changes what belongs to the process"
    elif module == "sys" and name in _ASKS_SYS and not _is_asked_by_a_library(tx):
        what = "asks how the program is run"
    elif name in _TORCH_STATE and str(module).startswith("torch"):
        what = "changes a setting of torch"
    elif name in _TORCH_STATE and isinstance(owner, torch.Generator):
        what = "changes a random generator of torch's"
    if what is not None:
        raise tx.graph_break(
            f"The frame calls {_name(function)}(), which {what}.",
            why="that happens once, at the capture, and not when the captured frame runs",
            hints=["call it outside of the frame, and pass the result in"],
        )


def _is_asked_by_a_library(tx: Translator) -> bool:
    current = tx.machine.current
    name = None if current is None else current.globals.get("__name__")
    return isinstance(name, str) and is_library_name(name)


def refuse_traceback(tx: Translator) -> None:
    """A traceback shows the lines of whoever runs the program. Libraries only hand it on."""
    if _is_asked_by_a_library(tx):
        return
    raise tx.graph_break(
        "The frame looks at a traceback.",
        why="it names the code that captures, and another frame in another run",
    )


def refuse_opaque(tx: Translator, value: Any, what: str) -> None:
    """A value from outside with state that only C code sees is not asked.

    Args:
        what: asks.
    """
    known = tx.effects.tracker(value)
    if known is None or known.source is None or type(value) in _KNOWN:
        return
    if isinstance(known, LazyVariableTracker):
        known = known.realize(tx)
    if not known.is_opaque:
        return
    source = known.source
    assert source is not None
    if _is_left_to_a_library(tx, value, source):
        return
    raise tx.graph_break(
        f"{what} looks into {source.name()}, of class {type(value).__qualname__}.",
        why="what such a value holds is kept in C, where no guard sees it",
        hints=["pass what is read of it as an argument"],
    )


#: Classes of values that a library has and nobody changes in ways that show.
_OF_LIBRARIES = (
    functools._lru_cache_wrapper, types.MappingProxyType, functools.partial, frozenset,
    BuiltinMethod,
    type(threading.Lock()), type(threading.RLock()),
)  # fmt: skip


def _is_left_to_a_library(tx: Translator, value: Any, source: Source) -> bool:
    """Whether a library has a value, or asks it, of a class that is no risk there."""
    return isinstance(value, _OF_LIBRARIES) and (is_library(source) or _is_asked_by_a_library(tx))


#: Exact classes that are never opaque: a cheap question first.
_KNOWN = (
    int, float, bool, str, type(None), list, tuple, dict, types.FunctionType, type,
    types.ModuleType, types.MethodType, FakeTensor, torch.Tensor, torch.nn.Parameter,
)  # fmt: skip


def _refuse_foreign(tx: Translator, value: Any, what: str, met: set[int]) -> None:
    """C code gets an object from outside, itself or in something else."""
    if id(value) in met or isinstance(value, _THINGS):
        return
    met.add(id(value))
    known = tx.effects.tracker(value)
    source = None if known is None else known.source
    if isinstance(value, (*COMPARED, *_VIEWS)):
        for item in _contents(value):
            _refuse_foreign(tx, item, what, met)
        return
    if source is None or known is None:
        for item in getattr(value, "__dict__", {}).values():
            _refuse_foreign(tx, item, what, met)
        return
    if known.is_python_constant() or is_immutable(value) or not known.is_plain_object:
        return
    if is_library(source) and not instance_dict(value):
        return
    if _is_left_to_a_library(tx, value, source):
        return
    if isinstance(known, LazyVariableTracker) and known.realize(tx).is_python_constant():
        return
    raise tx.graph_break(
        f"{what} gets {source.name()}, an object of class {type(value).__qualname__}.",
        why="it is not run by the machine: what it reads or changes of the object is not seen",
        hints=["pass what it needs of the object"],
    )


def _contents(container: Any) -> Iterable[Any]:
    if isinstance(container, dict):
        return [*dict.keys(container), *dict.values(container)]
    return list(container)


# -- what compiled code gives back ----------------------------------------------------------------

#: ``sys.getrefcount`` of a value to which one variable refers, and nobody else.
ALONE = 2

#: Results that have no identity, or that other means see to.
_NEEDS_NO_HISTORY = (
    *_THINGS, int, float, complex, str, bytes, type(None), torch.dtype, torch.device,
    torch.layout, torch.Size, type(...), type(NotImplemented), types.MappingProxyType,
)  # fmt: skip


def check_result(
    tx: Translator, function: Any, given: tuple[Any, ...], result: Any, is_alone: bool
) -> None:
    """A result of compiled code is new, or of the program, or known; it is no object from outside
    that nobody has seen.

    Args:
        given: the object of the method, and the arguments.
        is_alone: nobody else refers to the result: it was made just now.

    Raises:
        FrameError: it might be one.
    """
    if is_alone or isinstance(result, _NEEDS_NO_HISTORY) or _is_single(result):
        return
    if name_of(function) in _ATTRIBUTES or is_torch(function):
        return
    if _is_ours(function) or (isinstance(function, type) and _runs_on_the_machine(function)):
        return
    if name_of(function) == "__new__" and not isinstance(result, type):
        return  # made just now
    if any(result is value for value in given) or tx.effects.tracker(result) is not None:
        return
    if given and not any(tx.effects.tracker(value) is not None for value in given):
        return  # of the program's own things
    raise tx.graph_break(
        f"{_name(function)}() gives an object of class {type(result).__qualname__}.",
        why="it may have been there before, and no guard could name it",
    )


def _is_single(value: Any) -> bool:
    """Whether there is one of a value, such as the empty tuple."""
    return type(value) in (tuple, frozenset) and not value


def _name(function: Any) -> str:
    found = getattr(function, "__qualname__", None) or type(function).__qualname__
    return str(found)
