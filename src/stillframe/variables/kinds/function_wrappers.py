"""Callables around a function: partials, caches, functions that carry another to run instead."""

from __future__ import annotations

import functools
from types import FunctionType, GeneratorType
from typing import Any

from stillframe.source import AttrSource
from stillframe.variables.base import VariableTracker
from stillframe.variables.builder import VariableBuilder
from stillframe.variables.kinds.wrappers import WrapperUserFunctionVariable
from stillframe.variables.registry import wraps_if, wraps_type
from stillframe.variables.residue import Residue
from stillframe.variables.side_effects import CONTAINERS
from stillframe.variables.sourceless import makes_type
from stillframe.variables.translator import Translator

_Cached: type = type(functools.lru_cache(maxsize=None)(len))

#: The attribute under which a function carries what is to be run in its place.
REPLACEMENT = "_torchdynamo_inline"

#: Attributes of a wrapper that torch.jit makes: that it is one, and the function around which.
_SCRIPTING, _ORIGINAL = "__script_if_tracing_wrapper", "__original_fn"


class CachedFunctionVariable(WrapperUserFunctionVariable):
    """A function with a cache, which is neither asked nor filled: the function itself is run."""

    def call_function(self, tx: Translator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        before = tx.effects.count
        result = super().call_function(tx, args, kwargs)
        if tx.effects.count != before or isinstance(result, (*CONTAINERS, GeneratorType)):
            raise tx.graph_break(
                f"The function behind the cache {self.value.__qualname__} changes something, or "
                "gives what can be changed.",
                why="whether it is run at all depends on what the cache holds",
                hints=["call the function without the cache: function.__wrapped__"],
            )
        return result

    def var_getattr(self, tx: Translator, name: str) -> Any:
        if name in ("cache_info", "cache_clear"):
            raise tx.graph_break(
                f"The frame asks a cache for {name}.",
                why="the frame neither asks nor fills the cache when it is captured",
            )
        return super().var_getattr(tx, name)


class FunctoolsPartialVariable(VariableTracker):
    """A ``functools.partial``."""

    handles_calls = True

    def call_function(self, tx: Translator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The function with both arguments; those that the partial has are read now."""
        function = tx.load_attr(self.value, "func")
        first = tx.load_attr(self.value, "args")
        named = tx.load_attr(self.value, "keywords")
        given = {name: tx.load_item(named, name) for name in named}
        return tx.call(function, (*tx.elements(first), *args), {**given, **kwargs})

    def reconstruct(self, residue: Residue) -> None:
        value: functools.partial[Any] = self.value
        residue.load_object(_make_partial)
        for part in (value.func, value.args, value.keywords):
            residue.value(part)
        residue.call(3)
        residue.keep(value)
        for name, held in vars(value).items():
            residue.dup()
            residue.value(held)
            residue.do(f"setattr({{0}}, {name!r}, {{1}})", 2)


def _make_partial(function: Any, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    return functools.partial(function, *args, **keywords)


def _replacement(value: Any) -> str:
    """The attribute under which a function carries what is run in its place; or nothing."""
    names = value.__dict__ if type(value) is FunctionType else {}
    if REPLACEMENT in names:
        return REPLACEMENT
    return _ORIGINAL if names.get(_SCRIPTING) and _ORIGINAL in names else ""


@wraps_if(37, "function with a replacement", lambda value: bool(_replacement(value)))
def wrap_with_replacement(builder: VariableBuilder, value: Any) -> VariableTracker:
    """A function that carries the one to run: the attribute joins the source."""
    builder.install_guards("CLOSURE_MATCH")
    made = WrapperUserFunctionVariable(value, _replacement(value), source=builder.source)
    builder.tx.effects.track(value, made)
    return made


@wraps_type(_Cached)
def wrap_cached(builder: VariableBuilder, value: Any) -> VariableTracker:
    """A function with a cache, which would keep tensors without data."""
    builder.install_guards("TYPE_MATCH")
    made = CachedFunctionVariable(value, "__wrapped__", source=builder.source)
    builder.tx.effects.track(value, made)
    return made


@wraps_type(functools.partial)
def wrap_partial(builder: VariableBuilder, value: Any) -> VariableTracker:
    """A partial: how many arguments it has, and which by name."""
    tx, source = builder.tx, builder.source
    if not all(type(name) is str for name in value.keywords):
        raise tx.graph_break("A functools.partial with a keyword that is no string.")
    builder.install_guards("TYPE_MATCH")
    made = builder.track_object(value, FunctoolsPartialVariable(value))
    builder.at(AttrSource(source, "keywords")).install_guards("DICT_KEYS", ordered=True)
    builder.at(AttrSource(source, "args")).install_guards("SEQUENCE_LENGTH")
    return made


@makes_type(functools.partial)
def make_partial(tx: Translator, value: Any) -> VariableTracker:
    """A partial that the program has made."""
    return FunctoolsPartialVariable(value)
