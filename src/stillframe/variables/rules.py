"""What a call of a function becomes: the rules that users set, and those that follow from its kind.

A function that is allowed in the graph becomes one node, which calls it when the graph runs; one
that is disallowed is not captured at all.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from types import FunctionType, MethodType, ModuleType
from typing import Any, TypeVar

from stillframe.errors import InvalidInput
from stillframe.frames.lookup import (
    Builtin,
    BuiltinMethod,
    ClassMethodDescriptor,
    MethodDescriptor,
    WrapperDescriptor,
)
from stillframe.variables.paths import is_torch

F = TypeVar("F", bound=Callable[..., Any])


class Rule(enum.Enum):
    """What becomes of a call."""

    ALLOWED = "the user allows it in the graph: one node"
    DISALLOWED = "it is not captured"
    TORCH = "a function of torch: the operators that it calls are nodes"
    BUILT_IN = "a function of C: it is called"


_SET_BY_USERS: dict[int, tuple[Any, Rule]] = {}


def allow_in_graph(function: F) -> F:
    """Calls of ``function`` become one node of the graph, which calls it.

    It is run once while a frame is captured, on tensors without data, so it must work on tensors
    only, and must not depend on anything else that changes. Usable as a decorator.

    Raises:
        InvalidInput: it is no function.
    """
    return _set(function, Rule.ALLOWED)


def disallow_in_graph(function: F) -> F:
    """A frame that calls ``function`` is refused. Usable as a decorator."""
    return _set(function, Rule.DISALLOWED)


def _set(function: F, rule: Rule) -> F:
    if not callable(function) or isinstance(function, MethodType):
        raise InvalidInput(f"A rule is for a function, not for {type(function).__name__}.")
    _SET_BY_USERS[id(function)] = function, rule
    return function


def forget_rule(function: Any) -> None:
    """Take back what was set for a function."""
    _SET_BY_USERS.pop(id(function), None)


def rule_of(value: Any) -> Rule | None:
    """The rule for calls of a value; None: it is no function, or one that the machine runs."""
    entry = _SET_BY_USERS.get(id(value))
    if entry is not None:
        return entry[1]
    if type(value) is FunctionType:
        # what torch.compiler.disable leaves on a function
        if value.__dict__.get("_torchdynamo_disable") is True:
            return Rule.DISALLOWED
        return Rule.TORCH if _is_in_torch(value) else None
    if type(value) is Builtin and owner_of(value) is None and is_torch(value):
        return Rule.TORCH
    return Rule.BUILT_IN if type(value) in _FUNCTIONS_OF_C else None


_FUNCTIONS_OF_C = (
    Builtin, BuiltinMethod, MethodDescriptor, WrapperDescriptor, ClassMethodDescriptor,
)  # fmt: skip


def owner_of(function: Any) -> Any:
    """The object of which a function of C is a method, bound; None for all others."""
    owner = getattr(function, "__self__", None)
    return None if isinstance(owner, ModuleType | type) else owner


def _is_in_torch(function: FunctionType) -> bool:
    module = function.__globals__.get("__name__")
    return isinstance(module, str) and module.partition(".")[0] == "torch"
