"""The kind SHAPE_ENV: all conditions of a shape environment as one guard."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from stillframe.errors import InternalError
from stillframe.guards.kinds.registry import Builder, register
from stillframe.shapes.env import ShapeEnv
from stillframe.source import ConvertIntSource, Guard, Source, TensorPropertySource
from stillframe.symbolic import Expr, Facts, Range, substitute, symbol, to_python

Number = int | float | Expr


@dataclass(frozen=True)
class _Places:
    """Where numbers are read.

    Attributes:
        bare: symbol -> the first place that holds just it.
        others: the other places, with what they must hold.
    """

    bare: dict[Expr, Source]
    others: list[tuple[Source, Number]]

    @staticmethod
    def among(numbers: Iterable[tuple[Source, Number]]) -> _Places:
        places = _Places({}, [])
        for source, number in numbers:
            is_symbol = isinstance(number, Expr) and number.op == "symbol"
            if is_symbol and number not in places.bare:
                places.bare[number] = source  # type: ignore[index]
            else:
                places.others.append((source, number))
        return places


def SHAPE_ENV(
    builder: Builder, guard: Guard, env: ShapeEnv, numbers: Sequence[tuple[Source, Number]]
) -> None:
    """Everything that the capture assumed of sizes, strides, offsets and symbolic numbers.

    Args:
        env: the environment: its guards, and the ranges of its symbols.
        numbers: each place that holds such a number, and what it was to the capture: a symbol, an
            expression over symbols, or a plain number, which must stay.

    Raises:
        InternalError: a condition is about a symbol that no place tells.
    """
    places = _Places.among(numbers)
    used = {s for _, n in places.others if isinstance(n, Expr) for s in n.free_symbols}
    used |= {s for condition, _ in _conditions(env, places) for s in condition.free_symbols}
    missing = sorted(str(s) for s in used - set(places.bare))
    if missing:
        raise InternalError(f"no place tells the value of {', '.join(missing)}")
    _numbers_are_numbers(builder, guard, places)
    _ranges(builder, guard, env, places)
    _equal_places(builder, guard, places)
    for condition, where in _conditions(env, places):
        _require(builder, guard, condition, places, where)


register(SHAPE_ENV)


def _numbers_are_numbers(builder: Builder, guard: Guard, places: _Places) -> None:
    """A number that is no tensor's property has the class of its symbol: True is no 1."""
    for sym, source in places.bare.items():
        if not isinstance(source, (TensorPropertySource, ConvertIntSource)):
            variable = builder.read(source)
            builder.require(
                guard,
                [f"type({variable}) is {sym.sort}"],
                f"{source.name()} is of class {sym.sort}",
                None,
                (source,),
            )


def _ranges(builder: Builder, guard: Guard, env: ShapeEnv, places: _Places) -> None:
    for sym, source in places.bare.items():
        declared = env.symbols[sym].declared if sym in env.symbols else Range(-math.inf, math.inf)
        is_size = isinstance(source, TensorPropertySource)
        if sym.sort != "int":
            continue
        lower = declared.lower if declared.lower > (0 if is_size else -math.inf) else None
        upper = declared.upper if declared.upper < math.inf else None
        if lower is None and upper is None:
            continue
        before = "" if lower is None else f"{int(lower)} <= "
        after = "" if upper is None else f" <= {int(upper)}"
        text = f"{before}{builder.read(source)}{after}"
        builder.require(guard, [text], f"{before}{source.name()}{after}", None, (source,))


def _equal_places(builder: Builder, guard: Guard, places: _Places) -> None:
    for source, number in places.others:
        variable = builder.read(source)
        if isinstance(number, Expr):
            text, shown = _text(builder, number, places), _named(number, places)
            involved = tuple(places.bare[s] for s in sorted(number.free_symbols, key=str))
        else:
            text = shown = builder.bind("number", number) if number != number else repr(number)
            involved = ()
        conditions = [f"{variable} == {text}"]
        if not isinstance(source, TensorPropertySource):
            sort = number.sort if isinstance(number, Expr) else type(number).__name__
            conditions.insert(0, f"type({variable}) is {sort}")
        builder.require(
            guard, conditions, f"{source.name()} equals {shown}", _sees_numbers, (source, *involved)
        )


def _conditions(env: ShapeEnv, places: _Places) -> Iterator[tuple[Expr, tuple[str, ...]]]:
    """The guards, but for those that follow from the ranges, and from the ones before."""
    facts = Facts()
    for sym in places.bare:
        if sym.sort == "int" and sym in env.symbols:
            facts.set_range(sym, env.symbols[sym].declared)
    for known in (*env.supposed, *env.guards):
        if any(env.is_unbacked(s) for s in known.expr.free_symbols):
            continue  # of the data: checked while the program runs
        if facts.decide(known.expr) is not True:
            yield known.expr, known.where
            facts.assume(known.expr)


def _require(
    builder: Builder, guard: Guard, condition: Expr, places: _Places, where: tuple[str, ...]
) -> None:
    involved = tuple(places.bare[s] for s in sorted(condition.free_symbols, key=str))
    asked = f" (asked at {where[-1]})" if where else ""
    builder.require(
        guard,
        [f"({_text(builder, condition, places)})"],
        f"{_named(condition, places)}{asked}",
        lambda *values: ", ".join(
            f"{source.name()} = {value}" for source, value in zip(involved, values, strict=True)
        ),
        involved,
    )


def _sees_numbers(found: Any, *involved: Any) -> str:
    beside = f" beside {', '.join(map(str, involved))}" if involved else ""
    return f"{found}{beside}"


def _text(builder: Builder, expr: Expr, places: _Places) -> str:
    """The expression over the variables of the check."""
    variables = {s: symbol(builder.read(places.bare[s]), s.sort) for s in expr.free_symbols}
    text = to_python(substitute(expr, variables))
    if "math." in text:
        builder.bind("math", math)
    return text


def _named(expr: Expr, places: _Places) -> str:
    """The expression over the names of the places, for a person."""
    symbols = sorted(expr.free_symbols, key=str)
    marks = {s: symbol(f"place_{i}_", s.sort) for i, s in enumerate(symbols)}
    names = [places.bare[s].name() for s in symbols]
    text = to_python(substitute(expr, marks))
    return re.sub(r"\bplace_(\d+)_\b", lambda found: names[int(found[1])], text)
