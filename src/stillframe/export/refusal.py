"""Why a call does not fit, in words: the slow twin of the checks in generated code.

Every message names the argument as the caller writes it, says what was found, and what the program
takes. The first thing that does not fit is reported, in the order of the arguments.
"""

from __future__ import annotations

import collections
from typing import Any

import torch
from torch.utils import _pytree as pytree

from stillframe.errors import CallError
from stillframe.export import call_spec as calls
from stillframe.export.assumptions import Assumption
from stillframe.export.containers import class_name
from stillframe.export.door import (
    CONSTANT,
    OBJECT,
    SYMBOL,
    Condition,
    Door,
    LeafRule,
    is_object_of,
    same_constant,
)
from stillframe.export.memory import any_shared, share_memory
from stillframe.shapes.containers import children_of, describe, key_text
from stillframe.symbolic import Expr, evaluate, substitute, symbol, to_python
from stillframe.trace.reads import of_tensor


class Refusal:
    """Explains refused calls of one program. Calling it with the values of all parameters raises.

    It returns without raising if the call fits after all (then the exception that led here is the
    one to report).
    """

    def __init__(self, door: Door, program_name: str) -> None:
        self.door = door
        self.program_name = program_name

    def __call__(self, values: tuple[Any, ...]) -> None:
        spec = self.door.call_spec
        by_name = {p.name: v for p, v in zip(spec.parameters, values, strict=True)}
        for parameter in spec.parameters:
            self._check_parameter(parameter, by_name[parameter.name])
        leaves: list[Any] = []
        for given in spec.given:
            value = by_name[given.parameter]
            if given.key is not None:
                value = value[given.key]
            self._check_structure(given.path, value, given.spec)
            leaves += pytree.tree_leaves(value)
        for rule, leaf in zip(self.door.leaves, leaves, strict=True):
            self._check_leaf(rule, leaf)
        sizes = self._check_sizes(leaves)
        for index, assumption in self.door.asked:
            self._check_answer(index, leaves[index], assumption, sizes)
        for i, j, assumption in self.door.compared:
            if (leaves[i] is leaves[j]) is not assumption.value[1]:
                raise self._other_identity(i, j, assumption)
        for i, j in self.door.separate:
            if share_memory(leaves[i], leaves[j]):
                raise CallError(
                    f"{self.door.leaves[i].path} and {self.door.leaves[j].path} share memory.",
                    why="the program writes one in place, and was captured with separate tensors",
                    hints=["pass a clone of one of them"],
                ) from None

    # -- arguments ----------------------------------------------------------------------------

    def _check_parameter(self, parameter: calls.CallParameter, value: Any) -> None:
        spec = self.door.call_spec
        given = [g for g in spec.given if g.parameter == parameter.name]
        if parameter.kind == calls.VAR_POSITIONAL:
            if len(value) != len(given):
                raise CallError(
                    f"*{parameter.name}: {len(value)} values, the program takes {len(given)}.",
                    why="their number is fixed when the program is captured",
                ) from None
        elif parameter.kind == calls.VAR_KEYWORD:
            self._check_keys(f"**{parameter.name}", list(value), [g.key for g in given])
        elif not given and not same_constant(value, parameter.default):
            raise CallError(
                f"{parameter.name}: is {describe(value)}, and the program was captured without it.",
                why=f"its default, {parameter.default!r}, was captured, and no other value",
                hints=[f"leave {parameter.name} out, or export again with an example of it"],
            ) from None

    def _check_keys(self, path: str, found: list[Any], keys: list[Any]) -> None:
        if found == keys:
            return
        missing = [k for k in keys if k not in found]
        surplus = [k for k in found if k not in keys]
        if missing or surplus:
            parts = [f"without {missing}" if missing else "", f"with {surplus}" if surplus else ""]
            text = " and ".join(p for p in parts if p)
            raise CallError(f"{path}: called {text}; the program takes the keys {keys}.") from None
        raise CallError(
            f"{path}: the keys come as {found}, the program takes them as {keys}.",
            why="what a module does with a dict may depend on its order",
            hints=["pass the keys in this order"],
        ) from None

    def _check_structure(self, path: str, value: Any, spec: pytree.TreeSpec) -> None:
        found = pytree.tree_structure(value, is_leaf=lambda v: v is not value)
        if spec.is_leaf():
            if not found.is_leaf():
                raise CallError(
                    f"{path}: is {describe(value)}, the program takes one value there.",
                    hints=["a program takes the same containers as the example of its export"],
                ) from None
            return
        wanted = _container_name(spec)
        if found.type is not spec.type or (
            spec.type is collections.namedtuple and found.context is not spec.context
        ):
            raise CallError(
                f"{path}: is {describe(value)}, the program takes a {wanted}."
            ) from None
        if spec.type in (dict, collections.OrderedDict, collections.defaultdict):
            self._check_keys(path, list(value), _dict_keys(spec))
        if found.num_children != spec.num_children:
            raise CallError(
                f"{path}: a {wanted} of {found.num_children}, the program takes "
                f"{spec.num_children}.",
                why="the number of elements is fixed when the program is captured",
            ) from None
        if found.context != spec.context:
            raise CallError(
                f"{path}: a {wanted} with {found.context!r}, the program takes {spec.context!r}."
            ) from None
        children = children_of(value) or []
        for (key, child), child_spec in zip(children, spec.children(), strict=True):
            self._check_structure(path + key_text(key), child, child_spec)

    # -- leaves -------------------------------------------------------------------------------

    def _check_leaf(self, rule: LeafRule, leaf: Any) -> None:
        if rule.kind == CONSTANT:
            if not same_constant(leaf, rule.value):
                raise CallError(
                    f"{rule.path}: is {describe(leaf)}, the program was captured with "
                    f"{rule.value!r}.",
                    why="values other than tensors are fixed when the program is captured",
                    hints=[
                        f"export again with {rule.path}={leaf!r}"
                        if _is_plain(leaf)
                        else "export again with an example of it"
                    ],
                ) from None
            return
        if rule.kind == OBJECT:
            if not is_object_of(leaf, rule.value):
                raise CallError(
                    f"{rule.path}: is {describe(leaf)}, the program takes a script object of the "
                    f"class {rule.value}."
                ) from None
            return
        if rule.kind == SYMBOL:
            if type(leaf) is not rule.number:
                raise CallError(
                    f"{rule.path}: is {describe(leaf)}, the program takes {_article(rule.number)}."
                ) from None
            return
        wanted = f"a {_dtype(rule.dtype)} tensor of shape {self._shape(rule)}"
        if not isinstance(leaf, torch.Tensor):
            raise CallError(
                f"{rule.path}: is {describe(leaf)}, the program takes {wanted}."
            ) from None
        for what, found, takes in (
            ("dtype", leaf.dtype, rule.dtype),
            ("device", leaf.device, rule.device),
            ("layout", leaf.layout, rule.layout),
        ):
            if found != takes:
                raise CallError(
                    f"{rule.path}: {what} is {_dtype(found)}, the program takes {_dtype(takes)}.",
                    why=f"it was captured with {wanted}",
                ) from None
        if leaf.dim() != len(rule.sizes):
            raise CallError(
                f"{rule.path}: has {leaf.dim()} dims, shape {tuple(leaf.shape)}; the program takes "
                f"{len(rule.sizes)}, shape {self._shape(rule)}."
            ) from None

    def _shape(self, rule: LeafRule) -> str:
        sizes = [self._text(s) if isinstance(s, Expr) else str(s) for s in rule.sizes]
        return f"({sizes[0]},)" if len(sizes) == 1 else f"({', '.join(sizes)})"

    def _check_answer(
        self, index: int, leaf: torch.Tensor, assumption: Assumption, values: dict[Expr, int]
    ) -> None:
        def number(value: Any) -> Any:
            return evaluate(value, values) if isinstance(value, Expr) else value

        found, wanted = of_tensor(assumption.what)(leaf), assumption.value
        wanted = tuple(map(number, wanted)) if isinstance(wanted, tuple) else number(wanted)
        if found != wanted:
            raise _other_answer(self.door.leaves[index].path, assumption, found, wanted) from None

    def _other_identity(self, i: int, j: int, assumption: Assumption) -> CallError:
        one, two = "are one tensor", "are two tensors"
        found, wanted = (two, one) if assumption.value[1] else (one, two)
        return CallError(
            f"{self.door.leaves[i].path} and {self.door.leaves[j].path} {found}, and {wanted} in "
            "the capture.",
            why="forward asks which tensor it has (`is`, a tensor as a key, an attribute that it "
            "sets), and the answer is part of the program",
            where=assumption.where,
            hints=["export again with an example that is like this call"],
        )

    # -- sizes --------------------------------------------------------------------------------

    def _check_sizes(self, leaves: list[Any]) -> dict[Expr, int]:
        values: dict[Expr, int] = {}
        for expr, (index, dim) in self.door.bare.items():
            values[expr] = leaves[index] if dim < 0 else leaves[index].shape[dim]
        for (index, dim), solution in self.door.solved.items():
            found = leaves[index].shape[dim] - solution.offset
            if found % solution.scale and solution.symbol not in values:
                raise self._misfit(
                    index,
                    dim,
                    leaves,
                    f"is not {self._text(solution.symbol * solution.scale + solution.offset)}",
                )
            values.setdefault(solution.symbol, found // solution.scale)
        for index, rule in enumerate(self.door.leaves):
            for dim, size in enumerate(rule.sizes):
                self._check_size(index, dim, size, leaves, values)
        for condition in self.door.conditions:
            self._check_condition(condition, leaves, values)
        return values

    def _check_size(
        self, index: int, dim: int, size: Any, leaves: list[Any], values: dict[Expr, int]
    ) -> None:
        found = leaves[index].shape[dim]
        if not isinstance(size, Expr):
            if found != size:
                path = self.door.leaves[index].path
                raise CallError(
                    f"{path}: dim {dim} is {found}, the program takes {size}.",
                    why="this dim was captured as static",
                    hints=[
                        f"for other sizes, export with dynamic_shapes naming dim {dim} of {path}"
                    ],
                ) from None
            return
        wanted = evaluate(size, values)
        if found != wanted:
            origin = ", ".join(self._origin(s) for s in sorted(size.free_symbols, key=str))
            raise self._misfit(
                index, dim, leaves, f"must be {self._text(size)} = {wanted} ({origin})", named=False
            )

    def _check_condition(
        self, condition: Condition, leaves: list[Any], values: dict[Expr, int]
    ) -> None:
        value = evaluate(condition.expr, values)
        if condition.bounds is not None:
            lower, upper = condition.bounds.lower, condition.bounds.upper
            if lower <= value <= upper:
                return
            text = f"{_bound(lower)}..{_bound(upper)}"
            if condition.expr in self.door.bare:
                index, dim = self.door.bare[condition.expr]
                if dim < 0:
                    raise CallError(
                        f"{self.door.leaves[index].path}: is {value}, outside {text}."
                    ) from None
                raise self._misfit(index, dim, leaves, f"outside {text}")
            raise CallError(
                f"{self._text(condition.expr)} is {value}, outside {text}, with "
                f"{self._values(condition.expr, values)}."
            ) from None
        if value:
            return
        where = condition.guard.where if condition.guard is not None else ()
        raise CallError(
            f"The program takes only sizes with {self._text(condition.expr)}; this call has "
            f"{self._values(condition.expr, values)}.",
            why=_RELIED_ON[condition.guard.kind if condition.guard is not None else "backed"],
            where=where[-1:],
        ) from None

    def _misfit(
        self, index: int, dim: int, leaves: list[Any], text: str, named: bool = True
    ) -> CallError:
        rule = self.door.leaves[index]
        size = rule.sizes[dim]
        name = f" ({self._text(size)})" if named and isinstance(size, Expr) else ""
        error = CallError(f"{rule.path}: dim {dim}{name} is {leaves[index].shape[dim]}, {text}.")
        error.__suppress_context__ = True
        return error

    def _values(self, expr: Expr, values: dict[Expr, int]) -> str:
        parts = []
        for s in sorted(expr.free_symbols, key=str):
            parts.append(f"{self._text(s)}={values[s]} ({self._origin(s)})")
        return ", ".join(parts)

    def _origin(self, expr: Expr) -> str:
        """Where a symbol's value comes from: ``dim 0 of x``."""
        place = self.door.bare.get(expr)
        if place is None:
            place = next(p for p, s in self.door.solved.items() if s.symbol is expr)
        index, dim = place
        path = self.door.leaves[index].path
        return path if dim < 0 else f"{self._text(expr)} is from dim {dim} of {path}"

    def _text(self, expr: Any) -> str:
        """An expression in the user's names of the dims."""
        names = {
            s: symbol(self.door.dim_names.get(str(s), str(s)), s.sort) for s in expr.free_symbols
        }
        return to_python(substitute(expr, names))


def refuse_state(name: str, assumption: Assumption, found: Any) -> None:
    """Refuse a call because state or a mode of torch is not as it was for the captured run.

    Raises:
        CallError: always.
    """
    raise _other_answer(name, assumption, found, assumption.value)


def check_state(inputs: tuple[torch.Tensor, ...], written: tuple[torch.Tensor, ...]) -> None:
    """Refuse an input that shares memory with state that the program writes.

    Raises:
        CallError: one does.
    """
    if any_shared(inputs, written):
        raise CallError(
            "An input shares memory with state that this program writes.",
            why="a functional program copies new values back when it is done",
            hints=["pass a clone of it"],
        )


def refuse_mode(training: bool) -> None:
    """Refuse a call because the module is not in the mode of the capture.

    Raises:
        CallError: always.
    """
    captured, found = ("train", "eval") if training else ("eval", "train")
    raise CallError(f"it was captured in {captured} mode, and the module is in {found} mode.")


def _other_answer(name: str, assumption: Assumption, found: Any, wanted: Any) -> CallError:
    return CallError(
        f"{name}: {assumption.what} is {found}, the program was captured with {wanted}.",
        why="forward asks for it, and the answer is part of the program",
        where=assumption.where,
        hints=_HINTS.get(assumption.what, ()),
    )


_HINTS = {
    "autocast": ["call it outside of torch.autocast; an autocast around export, or a region in "
                 "forward, becomes part of the program"],
    "default dtype": ["set the default dtype for the call, or give the dtype in forward"],
    "grad mode": ["export under the grad mode that it is called in"],
}  # fmt: skip


_RELIED_ON = {
    "backed": "the captured run relied on it",
    "asserted": "forward checks it",
    "declared": "the dim was declared as one of these",
    "assumed": "export was told to assume it",
}


def _article(kind: type) -> str:
    return "an int" if kind is int else "a float"


def _container_name(spec: pytree.TreeSpec) -> str:
    if spec.type is collections.namedtuple:
        return class_name(spec.context).rpartition(".")[2]
    return str(spec.type.__name__)


def _dict_keys(spec: pytree.TreeSpec) -> list[Any]:
    return list(spec.context[1] if spec.type is collections.defaultdict else spec.context)


def _dtype(value: Any) -> str:
    return str(value).removeprefix("torch.")


def _bound(value: float) -> str:
    return "" if value in (float("inf"), float("-inf")) else str(int(value))


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, (bool, int, float, str))
