"""Calls that strict capture treats in its own way: of C functions, of caches, of modules."""

from __future__ import annotations

import collections
import operator
import sys
from types import (
    BuiltinFunctionType,
    FunctionType,
    MethodDescriptorType,
    MethodWrapperType,
    ModuleType,
    WrapperDescriptorType,
)
from typing import TYPE_CHECKING, Any

import torch

from stillframe import stack
from stillframe.errors import NotSupported
from stillframe.export.outside import is_library, is_warm
from stillframe.export.strict.tensors import NUMBERS
from stillframe.export.strict.users import has_hooks, is_users
from stillframe.frames import Policy, places
from stillframe.frames.frame import NULL
from stillframe.frames.unrepeatable import unrepeatable
from stillframe.shapes import ranges
from stillframe.trace.scope import in_scope

if TYPE_CHECKING:
    from stillframe.export.strict.policy import StrictPolicy

C_FUNCTIONS = (
    BuiltinFunctionType, MethodDescriptorType, WrapperDescriptorType, MethodWrapperType,
)  # fmt: skip

#: Built-in containers that a program can change.
CONTAINERS = (list, dict, set, bytearray, collections.deque)

#: Methods of built-in containers that change them.
MUTATORS = frozenset(
    """append extend insert pop remove clear sort reverse update setdefault popitem add discard
    appendleft extendleft popleft rotate move_to_end difference_update intersection_update
    symmetric_difference_update __setitem__ __delitem__ __iadd__ __ior__""".split()
)

#: C modules with functions that change a container they are given.
CHANGE_ARGUMENTS = frozenset({"_heapq", "_bisect", "_random", "_struct", "_collections"})

#: Classes and functions of C for which an iterator from outside is an object like any other.
_HARMLESS_TO_ITERATORS = (isinstance, type, id, callable, repr, hasattr, getattr)

#: ``is`` as functions.
_IDENTITY = (operator.is_, operator.is_not)


class CCalls:
    """The rules for functions of C, which the machine cannot look into.

    Args:
        policy: of the run.
    """

    def __init__(self, policy: StrictPolicy) -> None:
        self._policy = policy

    def answer(self, function: Any, args: tuple[Any, ...]) -> Any:
        """The answer of the capture itself, or NULL where the function is to be called."""
        policy = self._policy
        if function in _IDENTITY and len(args) == 2:
            return policy.same(*args) is (function is operator.is_)
        if function is id and isinstance(args[0], torch.Tensor):
            policy.identities.ask_all(args[0])
        elif function is isinstance and len(args) == 2:
            if _is_finer_than_tensor(args[1]):
                policy.identities.ask_class(args[0])
            if type(args[0]) in NUMBERS and issubclass(NUMBERS[type(args[0])], args[1]):
                return True  # a size is an int for whoever asks
        return NULL

    def prepare(self, function: Any, args: tuple[Any, ...]) -> str | None:
        """A C function may change a container from outside: its own, or one that it is given.

        Returns:
            The source of the object from outside that it is about, if there is one.

        Raises:
            NotSupported: it does what no program repeats.
            SideEffectError: it takes items from an iterator from outside.
        """
        what = unrepeatable(function, args)
        if what is not None:
            self._refuse_unrepeatable(function, what)
        owner = getattr(function, "__self__", None)
        if owner is None or type(owner) is ModuleType:
            if hasattr(function, "__objclass__"):
                owner = args[0] if args else None
            else:
                return self._prepare_function(function, args)
        policy = self._policy
        source = policy.source(owner)
        if source is None:
            return None
        if isinstance(owner, CONTAINERS) and function.__name__ in MUTATORS:
            policy.note_change(owner, f"calls .{function.__name__}() of")
        policy.spare(owner, source)
        policy.outside.mark_items(owner, source)
        return source

    def _refuse_unrepeatable(self, function: Any, what: str) -> None:
        raise NotSupported(
            f"forward calls {function.__qualname__}(), which {what}.",
            why="what it gave or did at export would be fixed in the program",
            where=places.describe(self._policy.machine.current),
            hints=["call it outside of forward, and pass the result as an input"],
        )

    def _prepare_function(self, function: Any, args: tuple[Any, ...]) -> str | None:
        policy = self._policy
        changes = getattr(function, "__module__", None) in CHANGE_ARGUMENTS
        found = None
        for value in args:
            source = policy.source(value)
            if source is None:
                continue
            if changes and isinstance(value, CONTAINERS):
                policy.note_change(value, f"calls {function.__name__}() on")
            if function not in _HARMLESS_TO_ITERATORS:
                policy.spare(value, source)
            found = source if isinstance(value, CONTAINERS) else found
        return found if function is len else None

    def note(self, function: Any, source: str | None, result: Any) -> None:
        """What it returned may be something from outside, or a fact about it.

        Args:
            source: what :meth:`prepare` returned.
        """
        outside = self._policy.outside
        if function is globals:
            outside.mark(result, f"the globals of {result.get('__name__', '?')}")
        elif source is not None:
            outside.note_answer(f"{function.__name__}() of", source, result)


def _is_finer_than_tensor(classes: Any) -> bool:
    """Whether ``isinstance`` with these classes may tell a parameter from another tensor."""
    if isinstance(classes, tuple):
        return any(map(_is_finer_than_tensor, classes))
    return (
        isinstance(classes, type)
        and issubclass(classes, torch.Tensor)
        and classes is not torch.Tensor
    )


class Caches:
    """Functions behind ``lru_cache``: what they know they say, else they are run, and not kept.

    Kept results of a capture would be fakes, and the function's side effects would be hidden.

    Args:
        policy: of the run.
    """

    def __init__(self, policy: StrictPolicy) -> None:
        self._policy = policy
        self._answers: dict[Any, Any] = {}

    def call(self, cached: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The result of a call; functions of libraries, and those that forward made, as ever."""
        policy = self._policy
        function = cached.__wrapped__
        if not isinstance(function, FunctionType) or policy.source(cached) is None:
            return Policy.call(policy, cached, args, kwargs)
        if is_library(function.__module__):
            return Policy.call(policy, cached, args, kwargs)
        if not kwargs and is_warm(cached, args):
            result = cached(*args)
        else:
            key = (id(cached), args, tuple(kwargs.items()))
            try:
                if key not in self._answers:
                    self._answers[key] = policy.call(function, args, kwargs)
            except TypeError:  # not to be hashed: a symbolic size
                return policy.call(function, args, kwargs)
            result = self._answers[key]
        policy.outside.read(f"what {function.__qualname__}() keeps", result)
        return result


def call_module(
    policy: StrictPolicy, module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Layers of torch are run by torch; a forward or a hook of the user's by the machine."""
    if has_hooks(module):
        run = type(module)._call_impl
        return in_scope(module, lambda *a, **k: policy.call(run, (module, *a), k), args, kwargs)
    forward = policy.load_attr(module, "forward")
    code = getattr(getattr(forward, "__func__", forward), "__code__", None)
    if code is None or not is_users(code):
        return module(*args, **kwargs)
    return in_scope(module, lambda *a, **k: policy.call(forward, a, k), args, kwargs)


def range_arguments(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Arguments of ``range``: plain numbers, where a loop over them is one over the sizes."""
    code, position = stack.place_of(sys._getframe())
    if ranges.operands_of_loop(code, position) is None:
        return args
    return tuple(ranges.numbers_for_loop(args) or args)
