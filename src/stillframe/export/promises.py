"""What the fake of a custom operator promised, checked when a program runs.

A program is made from what fakes say. Of torch's own operators we know that they keep to it; the
fake of a custom operator was written by somebody who may have been wrong, and then sizes in the
program would be wrong without a word. So each call of a custom operator in a program is followed
by a comparison of its result with the ``val`` of its node. Strides are not compared: fakes of
custom operators rarely say them right, and programs do not read them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from stillframe import torch_private
from stillframe.errors import CustomOperatorError
from stillframe.fake.custom import is_custom
from stillframe.fake.tensor import FakeTensor
from stillframe.shapes.env import to_size
from stillframe.symbolic import Expr, evaluate

Path = tuple[int, ...]


@dataclass(frozen=True)
class TensorPromise:
    """A tensor in a result: where it is, its dtype and its sizes (ints and expressions)."""

    path: Path
    dtype: torch.dtype
    sizes: tuple[Any, ...]


@dataclass(frozen=True)
class NumberPromise:
    """A number in a result: where it is, and its value, which may be an expression."""

    path: Path
    value: Any


@dataclass(frozen=True)
class Promise:
    """What the result of one call will be.

    Attributes:
        operator: the qualified name.
        tensors, numbers: the parts.
        symbols: what the sizes depend on; those that only the result tells are not among them.
    """

    operator: str
    tensors: tuple[TensorPromise, ...]
    numbers: tuple[NumberPromise, ...]
    symbols: tuple[Expr, ...]


def promise_of(node: torch.fx.Node, known: Any) -> Promise | None:
    """The promise behind a node, or None if it calls no custom operator or returns nothing.

    Args:
        node: a node of a program.
        known: the symbols whose values the program has at hand.
    """
    target: Any = node.target
    val, first = node.meta.get("val"), 0
    if target is torch_private.with_effects():
        target, first = node.args[1], 1  # behind the token
    method = target is torch_private.call_torchbind()
    if not method and (not isinstance(target, torch._ops.OpOverload) or not is_custom(target)):
        return None
    parts = list(_parts(val, ()) if not first else _behind_token(val))
    tensors = tuple(p for p in parts if isinstance(p, TensorPromise))
    numbers = tuple(p for p in parts if isinstance(p, NumberPromise))
    if not parts:
        return None
    used: dict[Expr, None] = {}
    for value in (*(s for t in tensors for s in t.sizes), *(n.value for n in numbers)):
        if isinstance(value, Expr):
            used |= dict.fromkeys(sorted(value.free_symbols, key=str))
    name = f"method {node.args[2 * first + 1]}" if method else target.name()
    return Promise(name, tensors, numbers, tuple(s for s in used if s in known))


def _behind_token(results: Any) -> Iterator[TensorPromise | NumberPromise]:
    for i, item in enumerate(results[1:], 1):
        yield from _parts(item, (i,))


def _parts(value: Any, path: Path) -> Iterator[TensorPromise | NumberPromise]:
    if isinstance(value, FakeTensor):
        yield TensorPromise(path, value.dtype, value.sizes)
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            yield from _parts(item, (*path, i))
    elif isinstance(value, (int, float, torch.SymInt, torch.SymFloat, torch.SymBool)):
        yield NumberPromise(path, to_size(value))


def check_result(promise: Promise, result: Any, values: tuple[Any, ...]) -> None:
    """Raise if a result is not what was promised.

    Args:
        promise: from :func:`promise_of`.
        result: what the operator returned.
        values: of ``promise.symbols``.

    Raises:
        CustomOperatorError: names the operator, what it returned and what its fake said.
    """
    known = dict(zip(promise.symbols, values, strict=True))
    for tensor in promise.tensors:
        found = _at(promise, result, tensor.path)
        sizes = tuple(found.shape) if isinstance(found, torch.Tensor) else None
        if sizes is None or found.dtype is not tensor.dtype or len(sizes) != len(tensor.sizes):
            raise _broken(promise, tensor, found)
        if not all(_agrees(s, p, known) for s, p in zip(sizes, tensor.sizes, strict=True)):
            raise _broken(promise, tensor, found)
    for number in promise.numbers:
        found = _at(promise, result, number.path)
        if not _agrees(found, number.value, known):
            raise _broken(promise, number, found)


def _at(promise: Promise, result: Any, path: Path) -> Any:
    for step in path:
        if not isinstance(result, (list, tuple)) or step >= len(result):
            raise CustomOperatorError(
                f"The operator {promise.operator} returned {len(result)} values.",
                operator=promise.operator,
                why=f"its fake said that there is one at position {step}",
            )
        result = result[step]
    return result


def _agrees(found: Any, promised: Any, known: dict[Expr, Any]) -> bool:
    """Whether a number is the promised one; one that only the result tells is learned here."""
    if not isinstance(promised, Expr):
        return bool(found == promised) or (found != found and promised != promised)
    if promised.op == "symbol" and promised not in known:
        known[promised] = found
        return True
    if not promised.free_symbols <= known.keys():
        return True
    return bool(found == evaluate(promised, known))


def _broken(
    promise: Promise, part: TensorPromise | NumberPromise, found: Any
) -> CustomOperatorError:
    if isinstance(part, TensorPromise):
        said = _tensor_text(part.dtype, part.sizes)
    else:
        said = str(part.value)
    was = _tensor_text(found.dtype, found.shape) if isinstance(found, torch.Tensor) else repr(found)
    place = "".join(f"[{i}]" for i in part.path)
    return CustomOperatorError(
        f"The operator {promise.operator} returned {was}{place and f' for result{place}'}.",
        operator=promise.operator,
        why=f"its fake said {said}, and the program was made for that",
        hints=["correct the fake, and export again; torch.library.opcheck compares the two"],
    )


def _tensor_text(dtype: torch.dtype, sizes: Any) -> str:
    return f"{str(dtype).removeprefix('torch.')}[{', '.join(str(s) for s in sizes)}]"
