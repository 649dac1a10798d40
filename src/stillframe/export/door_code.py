"""The door as Python text: unpack the arguments, read the sizes, check everything in one condition.

The text is made for speed on calls that fit: attribute reads, identity tests and integer
comparisons. Anything that does not fit, an exception included, ends in one call of the explaining
function (:mod:`~stillframe.export.refusal`).
"""

from __future__ import annotations

import collections
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch.utils import _pytree as pytree

from stillframe.export import call_spec as calls
from stillframe.export.call_spec import CallParameter, GivenArgument
from stillframe.export.door import (
    CONSTANT,
    OBJECT,
    SYMBOL,
    TENSOR,
    Condition,
    Door,
    LeafRule,
    is_object_of,
    same_constant,
)
from stillframe.export.memory import share_memory
from stillframe.export.source_text import EXPRESSION_NAMES, Namespace
from stillframe.symbolic import Expr, evaluate, substitute, symbol, to_python
from stillframe.trace.reads import of_tensor

_SHORT_DEVICES = {torch.device("cpu"): "is_cpu", torch.device("meta"): "is_meta"}


class DoorCode:
    """Writes the door of one program.

    Attributes:
        leaves: the local that holds each leaf, in flatten order.
        sizes: symbol -> the local that holds its value.
        receiver: the name of ``self``.
    """

    def __init__(self, door: Door, names: Namespace) -> None:
        self.door = door
        self.names = names
        parameters = door.call_spec.parameters
        for parameter in parameters:
            names.reserve(parameter.name)
        self.receiver = names.local("self")
        self.leaves: list[str] = []
        self.sizes: dict[Expr, str] = {}
        self._statements: list[str] = []
        self._conditions: list[str] = []
        self._read: dict[tuple[int, int], str] = {}
        self._shadowed = [p.name for p in parameters if p.name in EXPRESSION_NAMES]

    # -- the signature ------------------------------------------------------------------------

    def signature(self) -> str:
        """``self, x, y=None, *, z``: the parameters of the original forward."""
        parts = [self.receiver]
        parameters = self.door.call_spec.parameters
        kinds = [p.kind for p in parameters]
        last_positional = kinds.count(calls.POSITIONAL_ONLY)
        for i, parameter in enumerate(parameters):
            if parameter.kind == calls.KEYWORD_ONLY and calls.VAR_POSITIONAL not in kinds:
                if "*" not in parts:
                    parts.append("*")
            parts.append(self._parameter(parameter))
            if parameter.kind == calls.POSITIONAL_ONLY and i + 1 == last_positional:
                parts.append("/")
        return ", ".join(parts)

    def _parameter(self, parameter: CallParameter) -> str:
        stars = {calls.VAR_POSITIONAL: "*", calls.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        if not parameter.has_default:
            return stars + parameter.name
        return f"{parameter.name}={self.names.constant(parameter.default)}"

    def forwarded(self) -> str:
        """The arguments that pass a call on as it is: ``self, x, y, z=z``."""
        parts = [self.receiver]
        for p in self.door.call_spec.parameters:
            stars = {calls.VAR_POSITIONAL: "*", calls.VAR_KEYWORD: "**"}.get(p.kind, "")
            keyword = f"{p.name}=" if p.kind == calls.KEYWORD_ONLY else stars
            parts.append(keyword + p.name)
        return ", ".join(parts)

    def values(self) -> str:
        """The values of all parameters as a tuple."""
        return f"({''.join(f'{p.name}, ' for p in self.door.call_spec.parameters)})"

    # -- the checks ---------------------------------------------------------------------------

    def check(self) -> None:
        """Work out what is checked; :attr:`leaves` and :attr:`sizes` are known afterwards."""
        self._stars()
        self._open_arguments()
        for index, leaf in enumerate(self.door.leaves):
            self._read_leaf(index, leaf)
        self._solve_sizes()
        self._compare_sizes()
        self._conditions += [self._condition(c) for c in self.door.conditions]
        for index, assumption in self.door.asked:
            ask = self.names.bind("ask", of_tensor(assumption.what))
            answer = self._answer(assumption.value)
            self._conditions.append(f"{ask}({self.leaves[index]}) == {answer}")
        for i, j, assumption in self.door.compared:
            relation = "is" if assumption.value[1] else "is not"
            self._conditions.append(f"{self.leaves[i]} {relation} {self.leaves[j]}")
        for i, j in self.door.separate:
            share = self.names.bind("share_memory", share_memory)
            self._conditions.append(f"not {share}({self.leaves[i]}, {self.leaves[j]})")

    def refusing(self, refuse: Any) -> list[str]:
        """The lines that refuse a call that does not fit: ``refuse`` gets its values."""
        name = self.names.bind("refuse", refuse, "explains why a call does not fit")
        if not self._statements and not self._conditions:
            return []
        lines = ["try:", *(f"    {s}" for s in self._statements)]
        if self._conditions:
            lines.append("    if not (")
            lines += self._conjunction(self._conditions, "        ")
            lines.append("    ):")
            lines.append(f"        raise {self.names.builtin(ValueError)}")
        exception = self.names.builtin(Exception)
        lines += [f"except {exception}:", f"    {name}({self.values()})", "    raise"]
        return lines

    def choosing(self, otherwise: str, more: list[str]) -> list[str]:
        """The lines that pass a call that does not fit on to the function ``otherwise``.

        Args:
            otherwise: takes what this function takes.
            more: further conditions of a call, as text.
        """
        conditions = [*self._conditions, *more]
        if not self._statements and not conditions:
            return []
        fits = self.names.local("fits")
        return [
            "try:",
            *(f"    {s}" for s in self._statements),
            f"    {fits} = (",
            *self._conjunction(conditions or ["True"], "        "),
            "    )",
            f"except {self.names.builtin(Exception)}:",
            f"    {fits} = False",
            f"if not {fits}:",
            f"    return {otherwise}({self.forwarded()})",
        ]

    def _conjunction(self, conditions: list[str], indent: str) -> list[str]:
        return [indent + conditions[0], *(f"{indent}and {c}" for c in conditions[1:])]

    def _stars(self) -> None:
        """How many values and which keywords; defaults that the export left alone."""
        spec = self.door.call_spec
        for parameter in spec.parameters:
            given = [g for g in spec.given if g.parameter == parameter.name]
            if parameter.kind == calls.VAR_POSITIONAL:
                length = self.names.builtin(len)
                self._conditions.append(f"{length}({parameter.name}) == {len(given)}")
            elif parameter.kind == calls.VAR_KEYWORD:
                keys = self.names.constant([g.key for g in given])
                self._conditions.append(f"[*{parameter.name}] == {keys}")
            elif not given:
                self._conditions.append(self._equals(parameter.name, parameter.default))

    def _equals(self, local: str, value: Any) -> str:
        if value is None or value is True or value is False:
            return f"{local} is {value}"
        text = self.names.bind(f"fixed_{local}", value)
        same = self.names.bind("same_constant", same_constant)
        return f"({local} is {text} or {same}({local}, {text}))"

    # -- containers ---------------------------------------------------------------------------

    def _open_arguments(self) -> None:
        leaves = iter(self.door.leaves)
        for given in self.door.call_spec.given:
            self._open(self._argument(given), given.spec, leaves)

    def _argument(self, given: GivenArgument) -> str:
        if given.key is None:
            return given.parameter
        local = self.names.local(given.path)
        self._statements.append(f"{local} = {given.parameter}[{self.names.constant(given.key)}]")
        return local

    def _open(self, value: str, spec: pytree.TreeSpec, leaves: Iterator[LeafRule]) -> None:
        if spec.is_leaf():
            next(leaves)
            self.leaves.append(value)
            return
        children = [self.names.local(f"{value}_{i}") for i in range(spec.num_children)]
        targets = "".join(f"{c}, " for c in children)
        cls, context = spec.type, spec.context
        if cls in (tuple, list):
            self._is_a(value, cls)
            self._statements.append(
                f"{targets.rstrip(' ')} = {value}" if children else f"() = {value}"
            )
        elif cls in (dict, collections.OrderedDict, collections.defaultdict):
            self._is_a(value, cls)
            keys = context
            if cls is collections.defaultdict:
                self._conditions.append(f"{value}.default_factory is {self._object(context[0])}")
                keys = context[1]
            self._conditions.append(f"[*{value}] == {self.names.constant(list(keys))}")
            for child, key in zip(children, keys, strict=True):
                self._statements.append(f"{child} = {value}[{self.names.constant(key)}]")
        elif cls is collections.namedtuple:
            self._is_a(value, context)
            self._statements.append(f"{targets} = {value}")
        else:
            self._open_registered(value, cls, context, targets)
        for child, child_spec in zip(children, spec.children(), strict=True):
            self._open(child, child_spec, leaves)

    def _open_registered(self, value: str, cls: Any, context: Any, targets: str) -> None:
        """A class of pytree's registry, by its own flatten function."""
        flatten = self.names.bind(f"flatten_{cls.__name__}", pytree.SUPPORTED_NODES[cls].flatten_fn)
        found = self.names.local(f"{value}_context")
        known = self.names.bind(f"context_{cls.__name__}", [context])
        error = self.names.builtin(ValueError)
        self._statements += [
            f"if {value}.__class__ is not {self._object(cls)}: raise {error}",
            f"({targets}), {found} = {flatten}({value})",
        ]
        self._conditions.append(f"{found} == {known}[0]")

    def _is_a(self, value: str, cls: Any) -> None:
        self._conditions.append(f"{value}.__class__ is {self._object(cls)}")

    def _object(self, cls: Any) -> str:
        if cls in (tuple, list, dict):
            return self.names.builtin(cls)
        return self.names.bind(getattr(cls, "__name__", "factory"), cls)

    # -- leaves -------------------------------------------------------------------------------

    def _read_leaf(self, index: int, leaf: LeafRule) -> None:
        local = self.leaves[index]
        if leaf.kind == CONSTANT:
            self._conditions.append(self._equals(local, leaf.value))
        elif leaf.kind == SYMBOL:
            self._conditions.append(f"{local}.__class__ is {self.names.builtin(leaf.number)}")
            self.sizes.setdefault(leaf.value, local)
        elif leaf.kind == OBJECT:
            check = self.names.bind("is_object_of", is_object_of)
            self._conditions.append(f"{check}({local}, {self.names.constant(leaf.value)})")
        elif leaf.kind == TENSOR:
            self._read_tensor(index, leaf, local)

    def _read_tensor(self, index: int, leaf: LeafRule, local: str) -> None:
        dtype = self.names.constant(leaf.dtype)
        short = _SHORT_DEVICES.get(leaf.device) if leaf.device is not None else None
        device = (
            f"{local}.{short}" if short else f"{local}.device == {self.names.constant(leaf.device)}"
        )
        layout = self.names.constant(leaf.layout)
        self._conditions.append(
            f"{local}.dtype is {dtype} and {device} and {local}.layout is {layout}"
        )
        if all(type(s) is int for s in leaf.sizes):
            self._conditions.append(f"{local}.shape == {self.names.constant(leaf.sizes)}")
            return
        targets = []
        for dim, size in enumerate(leaf.sizes):
            if isinstance(size, Expr) and self.door.bare.get(size) == (index, dim):
                name = self.names.local(self.door.dim_names.get(str(size), str(size)))
                self.sizes[size] = name
            else:
                name = self.names.local(f"{local}_dim{dim}")
                self._read[index, dim] = name
            targets.append(name)
        comma = "," if len(targets) == 1 else ""
        self._statements.append(f"{', '.join(targets)}{comma} = {local}.shape")

    def _solve_sizes(self) -> None:
        for place, solution in self.door.solved.items():
            if solution.symbol in self.sizes:
                continue
            wanted = self.door.dim_names.get(str(solution.symbol), str(solution.symbol))
            name = self.sizes[solution.symbol] = self.names.local(wanted)
            value = self._read[place]
            if solution.offset:
                value = f"{value} {'-' if solution.offset > 0 else '+'} {abs(solution.offset)}"
            if solution.scale == 1:
                self._statements.append(f"{name} = {value}")
            else:
                # the remainder is refused by the comparison of the size itself
                value = f"({value})" if solution.offset else value
                self._statements.append(f"{name} = {value} // {solution.scale}")

    def _compare_sizes(self) -> None:
        for (index, dim), local in self._read.items():
            size = self.door.leaves[index].sizes[dim]
            text = self.text(size) if isinstance(size, Expr) else str(size)
            self._conditions.append(f"{local} == {text}")

    def _answer(self, value: Any) -> str:
        if not isinstance(value, tuple):
            return self.names.constant(value)
        return f"({''.join(f'{self.text(v) if isinstance(v, Expr) else v}, ' for v in value)})"

    # -- expressions --------------------------------------------------------------------------

    def _condition(self, condition: Condition) -> str:
        text = self.text(condition.expr)
        if condition.bounds is None:
            return f"({text})"
        lower, upper = condition.bounds.lower, condition.bounds.upper
        before = f"{int(lower)} <= " if lower > float("-inf") else ""
        after = f" <= {int(upper)}" if upper < float("inf") else ""
        return f"{before}{text if condition.expr.op == 'symbol' else f'({text})'}{after}"

    def text(self, expr: Expr) -> str:
        """``expr`` over the locals that hold the symbols."""
        if self._shadowed and expr.op != "symbol":
            # a parameter is called max or the like, and printed expressions need the builtin
            value = self.names.bind("value_of", partial(evaluate, expr))
            known = ", ".join(
                f"{self.names.bind(f'symbol_{s}', s)}: {self.sizes[s]}"
                for s in sorted(expr.free_symbols, key=str)
            )
            return f"{value}({{{known}}})"
        locals_ = {s: symbol(self.sizes[s], s.sort) for s in expr.free_symbols}
        text = to_python(substitute(expr, locals_))
        if "math." in text:
            import math

            self.names.values["math"] = math
        return text
