"""Kinds about what an object is: its class, its identity, whether it is there. No torch."""

from __future__ import annotations

import types
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from stillframe.errors import InternalError
from stillframe.guards.kinds.registry import (
    Bind,
    Builder,
    Kind,
    class_name,
    describe,
    register,
)
from stillframe.source import Guard, Source


def _fails(kind: str, why: str) -> InternalError:
    return InternalError(f"{kind} does not hold where it is made: {why}")


# -- the same object -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reference:
    """An object to be met again.

    Attributes:
        target: a weak reference, or the object itself where there can be none: it is kept alive
            then, since its address could be another object's otherwise.
        is_weak: which of them.
        text: the object in words.
    """

    target: Any
    is_weak: bool
    text: str

    @staticmethod
    def to(value: Any) -> Reference:
        """A reference, weak where possible."""
        try:
            return Reference(weakref.ref(value), True, describe(value))
        except TypeError:
            return Reference(value, False, describe(value))

    def condition(self, variable: str, bind: Bind) -> str:
        """``variable`` is the object. After its death nothing is, not even None."""
        if self.target is None or self.target is True or self.target is False:
            return f"{variable} is {self.target}"
        if not self.is_weak:
            return f"{variable} is {bind('object', self.target)}"
        return f"{bind('reference', self.target)}() is {variable} is not None"


def _same_object(variable: str, memory: Reference, bind: Bind) -> list[str]:
    return [memory.condition(variable, bind)]


def _says_same(memory: Reference) -> str:
    return f"is the very object: {memory.text}"


def _sees_object(value: Any, memory: Any = None) -> str:
    return f"{describe(value)} at {id(value):#x}"


ID_MATCH = register(Kind("ID_MATCH", Reference.to, _same_object, _says_same, _sees_object))

# Made anew at every access, so that their identity means nothing.
_FLEETING = (types.MethodType, types.MethodWrapperType)


def _callable_reference(value: Any) -> Reference:
    fleeting = isinstance(value, _FLEETING) or (
        isinstance(value, types.BuiltinMethodType)
        and value.__self__ is not None
        and not isinstance(value.__self__, (types.ModuleType, type))
    )
    if fleeting:
        raise _fails("FUNCTION_MATCH", f"{describe(value)} is made anew at every access")
    return Reference.to(value)


FUNCTION_MATCH = register(
    Kind("FUNCTION_MATCH", _callable_reference, _same_object, _says_same, _sees_object)
)
BUILTIN_MATCH = register(
    Kind("BUILTIN_MATCH", _callable_reference, _same_object, _says_same, _sees_object)
)


@dataclass(frozen=True)
class Closure:
    """A local function: made anew each time from the same code, over the same globals."""

    code: Reference
    table: dict[str, Any]
    name: str


def _closure(value: Any) -> Closure | Reference:
    if type(value) is types.FunctionType and "<locals>" in value.__qualname__:
        return Closure(Reference.to(value.__code__), value.__globals__, value.__qualname__)
    return _callable_reference(value)


def _same_closure(variable: str, memory: Closure | Reference, bind: Bind) -> list[str]:
    if isinstance(memory, Reference):
        return _same_object(variable, memory, bind)
    return [
        f"type({variable}) is {bind('function', types.FunctionType)}",
        memory.code.condition(f"{variable}.__code__", bind),
        f"{variable}.__globals__ is {bind('globals', memory.table)}",
    ]


def _says_closure(memory: Closure | Reference) -> str:
    if isinstance(memory, Reference):
        return _says_same(memory)
    return f"is a function with the code of {memory.name}"


CLOSURE_MATCH = register(
    Kind("CLOSURE_MATCH", _closure, _same_closure, _says_closure, _sees_object)
)


def _module(value: Any) -> tuple[Reference, bool]:
    return Reference.to(value), bool(value.training)


def _same_module(variable: str, memory: tuple[Reference, bool], bind: Bind) -> list[str]:
    reference, training = memory
    return [reference.condition(variable, bind), f"{variable}.training is {training}"]


def _says_module(memory: tuple[Reference, bool]) -> str:
    mode = "training" if memory[1] else "evaluation"
    return f"is the very module in {mode} mode: {memory[0].text}"


def _sees_module(value: Any, memory: Any) -> str:
    training = getattr(value, "training", None)
    return f"{_sees_object(value)}, training={describe(training)}"


NN_MODULE = register(Kind("NN_MODULE", _module, _same_module, _says_module, _sees_module))


def DUPLICATE_INPUT(builder: Builder, guard: Guard, source_b: Source) -> None:
    """Two places hold one object."""
    a, b = guard.originating_source, source_b
    if builder.value(a) is not builder.value(b):
        raise _fails("DUPLICATE_INPUT", f"{a.name()} and {b.name()} are two objects")
    builder.require(
        guard,
        [f"{builder.read(a)} is {builder.read(b)}"],
        f"is the same object as {b.name()}",
        lambda x, y: f"{_sees_object(x)} and {_sees_object(y)}",
        (a, b),
    )


register(DUPLICATE_INPUT)


def DISTINCT(builder: Builder, guard: Guard, sources: tuple[Source, ...]) -> None:
    """No two of these places hold one object."""
    values = [builder.value(source) for source in sources]
    if len({*map(id, values)}) != len(values):
        raise _fails("DISTINCT", "two places hold one object")
    variables = ", ".join(f"id({builder.read(source)})" for source in sources)
    builder.require(
        guard,
        [f"len({{{variables}}}) == {len(sources)}"],
        f"and {len(sources) - 1} more places hold different objects",
        lambda *found: "two of them are one object",
        sources,
    )


register(DISTINCT)

# -- the class, the name ---------------------------------------------------------------------------

TYPE_MATCH = register(
    Kind(
        "TYPE_MATCH",
        lambda value: type(value),
        lambda variable, cls, bind: [f"type({variable}) is {bind(cls.__name__, cls)}"],
        lambda cls: f"is of class {class_name(cls)}",
    )
)


def _name(value: Any) -> str:
    name = value.__name__
    if type(name) is not str:
        raise _fails("NAME_MATCH", f"{describe(name)} is not a name")
    return name


NAME_MATCH = register(
    Kind(
        "NAME_MATCH",
        _name,
        lambda variable, name, bind: [f"{variable}.__name__ == {name!r}"],
        lambda name: f"is called {name!r}",
        lambda value, memory: describe(getattr(value, "__name__", None)),
    )
)


def _attribute(value: Any, attr: str) -> tuple[str, bool]:
    return attr, hasattr(value, attr)


def _same_presence(variable: str, memory: tuple[str, bool], bind: Bind) -> list[str]:
    attr, present = memory
    return [f"{'' if present else 'not '}hasattr({variable}, {attr!r})"]


HASATTR = register(
    Kind(
        "HASATTR",
        _attribute,
        _same_presence,
        lambda memory: f"has {'an' if memory[1] else 'no'} attribute {memory[0]}",
    )
)

# -- there or not ----------------------------------------------------------------------------------


def _constant_condition(name: str, condition: str, holds: Callable[[Any], bool], says: str) -> Kind:
    """A kind that remembers nothing: the condition is about ``{}``, the value."""

    def remember(value: Any) -> None:
        if not holds(value):
            raise _fails(name, f"found {describe(value)}")

    return Kind(
        name, remember, lambda variable, _, bind: [condition.format(variable)], lambda _: says
    )


NONE_MATCH = register(
    _constant_condition("NONE_MATCH", "{} is None", lambda v: v is None, "is None")
)
NOT_NONE_MATCH = register(
    _constant_condition("NOT_NONE_MATCH", "{} is not None", lambda v: v is not None, "is not None")
)
BOOL_FALSE = register(
    _constant_condition("BOOL_FALSE", "not {}", lambda v: not v, "is empty or false")
)
EMPTY_NN_MODULE_HOOKS_DICT = register(
    _constant_condition(
        "EMPTY_NN_MODULE_HOOKS_DICT", "not {}", lambda v: not v, "is a table without hooks"
    )
)
WEAKREF_ALIVE = register(
    _constant_condition(
        "WEAKREF_ALIVE",
        "{}() is not None",
        lambda v: v() is not None,
        "refers to an object that is alive",
    )
)
