"""Python's operators on the SymInt, SymFloat and SymBool that carry our nodes.

torch puts operators on these classes that ask the node for one step each. Next to Python's numbers
some are missing (``divmod(n, 2)``, ``~n``, ``flag ^ flag``, ``pow(n, 2, 7)``) and some differ
(``round(n, -1)`` is ``n``, ``x // 0.1`` divides and then rounds, an integer is rounded before it is
compared with a float, ``str(n)`` is the name of a symbol). A program must equal its module, so
values with a node of ours are answered here, with the constructors of ``symbolic/``, which follow
Python; what they cannot express raises :class:`~stillframe.errors.NotSupported`. Values with
anybody else's node get torch's method, as if this module did not exist.
"""

from __future__ import annotations

import dis
import numbers
import os
import sys
from collections.abc import Callable
from types import CodeType
from typing import TYPE_CHECKING, Any, NoReturn

import torch

from stillframe import stack
from stillframe import symbolic as sym
from stillframe import torch_private as _  # noqa: F401  it leaves torch's frames out of stacks
from stillframe.errors import NotSupported
from stillframe.shapes import bits, ranges
from stillframe.shapes.node import SymNode
from stillframe.symbolic import Expr

if TYPE_CHECKING:
    from stillframe.shapes.env import ShapeEnv

_SYMBOLIC = (torch.SymInt, torch.SymFloat, torch.SymBool)
_STANDARD_LIBRARY = os.path.dirname(os.__file__) + os.sep
# The instructions of f-strings: the first up to Python 3.12, the others since 3.13.
_F_STRING = ("FORMAT_VALUE", "FORMAT_SIMPLE", "FORMAT_WITH_SPEC", "CONVERT_VALUE")

# What a rule gets (the environment, operands) and gives; NotImplemented lets Python go on.
Rule = Callable[..., Any]


class UnhashableSize(NotSupported, TypeError):
    """A size as a dictionary key or a set member. A TypeError too, which libraries catch."""


def _refuse(env: ShapeEnv, what: str, *hints: str) -> NoReturn:
    raise NotSupported(
        what, where=stack.summary(stack.raw_stack(env.stack_floor)), hints=list(hints)
    )


# -- binary operators -----------------------------------------------------------------------------


def _plain(function: Callable[[Any, Any], Expr]) -> Rule:
    return lambda env, a, b: function(a, b)


def _simplified(function: Callable[[Any, Any], Expr]) -> Rule:
    """For operations that facts can make simpler: ``(b*s)//b`` is ``s`` if ``b`` is not 0."""
    return lambda env, a, b: env.facts.simplify(function(a, b))


def _compared(function: Callable[[Any, Any], Expr]) -> Rule:
    def rule(env: ShapeEnv, a: Any, b: Any) -> Any:
        result = function(a, b)
        if env.decide_at_once and not env.is_unbacked(result):
            return sym.const(env.evaluate(sym.unwrap(result)))
        return result

    return rule


def _divided(function: Callable[[Any, Any], Expr]) -> Rule:
    """For divisions: Python raises where the divisor is 0, so an open range may leave 0 out."""

    def rule(env: ShapeEnv, a: Any, b: Any) -> Any:
        env.expect_divisor(b)
        return env.facts.simplify(function(a, b))

    return rule


def _divmod(env: ShapeEnv, a: Any, b: Any) -> Any:
    return tuple(_divided(f)(env, a, b) for f in (sym.floordiv, sym.mod))


def _power(env: ShapeEnv, a: Any, b: Any, modulus: Any = None) -> Any:
    base, exponent = sym.add(a, 0), sym.add(b, 0)  # booleans count 0 and 1
    whole = base.sort == "int" and exponent.sort == "int"
    if whole and env.evaluate(sym.unwrap(sym.ge(exponent, 0))):
        result = sym.power(base, exponent)
        return result if modulus is None else env.facts.simplify(sym.mod(result, modulus))
    if modulus is not None:
        _refuse(
            env,
            "pow(a, b, m) of symbolic values needs integers and an exponent from 0 on.",
            "compute an inverse modulo m outside of forward",
        )
    if not whole and exponent.is_constant and exponent.value == int(exponent.value):
        return sym.power(base, exponent)
    if not whole and not env.expect_true(sym.ge(base, 0)):
        _refuse(
            env,
            "A negative symbolic number to the power of a float is a complex number.",
            "take the absolute value first: abs(x) ** p",
        )
    return sym.power(sym.to_float(base), sym.to_float(exponent))


def _shift(combine: Callable[[Any, Any], Expr]) -> Rule:
    """``n << k`` is ``n * 2**k`` and ``n >> k`` is ``n // 2**k``."""

    def rule(env: ShapeEnv, a: Any, b: Any) -> Any:
        value, count = sym.add(a, 0), sym.add(b, 0)
        if value.sort == "float" or count.sort == "float":
            return NotImplemented
        if not env.evaluate(sym.unwrap(sym.ge(count, 0))):
            raise ValueError("negative shift count")
        return env.facts.simplify(combine(value, sym.power(2, count)))

    return rule


def _bitwise(sign: str, logical: Callable[..., Expr], by_mask: Callable[..., Expr]) -> Rule:
    """``&``, ``|``, ``^``: logic of two booleans; bits of integers if one of them is known."""

    def rule(env: ShapeEnv, a: Any, b: Any) -> Any:
        left, right = sym.const(a), sym.const(b)
        if left.sort == "bool" and right.sort == "bool":
            return logical(left, right)
        left, right = sym.add(left, 0), sym.add(right, 0)
        if left.sort == "float" or right.sort == "float":
            return NotImplemented
        value, mask = (right, left) if left.is_constant else (left, right)
        if not mask.is_constant:
            _refuse(
                env,
                f"`{a} {sign} {b}`: the bits of two symbolic integers have no symbolic form.",
                "with a constant on one side it is supported: n & 7",
                "for powers of two, write it with // and %",
                "or compute it on tensors: torch.bitwise_and(torch.tensor(n), ...)",
            )
        return env.facts.simplify(by_mask(value, mask.value))

    return rule


_ARITHMETIC: dict[str, Rule] = {
    "add": _plain(sym.add),
    "sub": _plain(sym.sub),
    "mul": _plain(sym.mul),
    "truediv": _divided(sym.truediv),
    "floordiv": _divided(sym.floordiv),
    "mod": _divided(sym.mod),
    "divmod": _divmod,
    "pow": _power,
    "lshift": _shift(sym.mul),
    "rshift": _shift(sym.floordiv),
    "and": _bitwise("&", sym.and_, bits.and_mask),
    "or": _bitwise("|", sym.or_, bits.or_mask),
    "xor": _bitwise("^", sym.ne, bits.xor_mask),
}
_COMPARISONS: dict[str, Rule] = {
    name: _compared(getattr(sym, name)) for name in ("eq", "ne", "lt", "le", "gt", "ge")
}


def _operand(env: ShapeEnv, value: Any) -> Any:
    """``value`` as a number or an expression, or NotImplemented."""
    cls = value.__class__
    if cls is int or cls is float or cls is bool:
        return value
    if isinstance(value, _SYMBOLIC):
        return value.node.expr if value.node.__class__ is SymNode else NotImplemented
    if isinstance(value, (int, float)):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, complex):
        _refuse(
            env,
            f"A symbolic value beside the complex number {value!r} has no symbolic form.",
            "compute it on tensors: torch.tensor(n) is a tensor in the program",
        )
    return NotImplemented


def _answer(env: ShapeEnv, result: Any) -> Any:
    if isinstance(result, tuple):
        return tuple(env.wrap(r) for r in result)
    return env.wrap(result)


def _binary(rule: Rule, theirs: Any) -> Callable[..., Any]:
    def method(self: Any, other: Any, *modulus: Any) -> Any:
        node = self.node
        if node.__class__ is not SymNode:
            return NotImplemented if theirs is None else theirs(self, other, *modulus)
        operands = [_operand(node.env, v) for v in (other, *modulus)]
        if any(v is NotImplemented for v in operands):
            return NotImplemented
        return _answer(node.env, rule(node.env, node.expr, *operands))

    return method


def _reflected(rule: Rule, theirs: Any) -> Callable[..., Any]:
    def method(self: Any, other: Any) -> Any:
        node = self.node
        if node.__class__ is not SymNode:
            return NotImplemented if theirs is None else theirs(self, other)
        operand = _operand(node.env, other)
        if operand is NotImplemented:
            return NotImplemented
        return _answer(node.env, rule(node.env, operand, node.expr))

    return method


# -- unary operators and conversions --------------------------------------------------------------


def _invert(env: ShapeEnv, value: Expr) -> Any:
    """``~n`` is ``-n - 1``, of booleans too."""
    if value.sort == "float":
        raise TypeError("bad operand type for unary ~: 'float'")
    return sym.sub(-1, value)


def _absolute(env: ShapeEnv, value: Expr) -> Any:
    """``max(n, -n, 0)``, which shows that it is not negative."""
    if value.sort == "float":
        return sym.absolute(value)
    return env.facts.simplify(sym.max_(value, sym.neg(value), 0))


def _round(env: ShapeEnv, value: Expr, ndigits: Any = None) -> Any:
    number = sym.add(value, 0)
    if number.sort == "int":
        digits = 0 if ndigits is None else int(ndigits)
        return env.facts.simplify(bits.round_to_even(number, 10**-digits) if digits < 0 else number)
    if ndigits is None:
        return sym.round_(number)
    return _refuse(
        env,
        "round(x, ndigits) of a symbolic float has no symbolic form.",
        "round to an integer: round(x)",
        "or to multiples: round(x * 10**n) / 10**n, whose last digit may differ",
    )


def _fixed(env: ShapeEnv, value: Expr) -> Any:
    """The example's value as a plain number, with a guard."""
    return env.evaluate(value) if value.sort == "bool" else env.specialise(value)


def _truth_as_index(env: ShapeEnv, value: Expr) -> int:
    return int(_fixed(env, value))


def _index(env: ShapeEnv, value: Expr) -> int:
    """The example's value with a guard, unless a loop takes it that needs none."""
    arguments = ranges.arguments_of_loop(sys._getframe(2))  # this function, the method
    if arguments is not None and ranges.numbers_for_loop(arguments) is not None:
        return int(env.hint_of(value))
    return int(_fixed(env, value))


def _hash(env: ShapeEnv, value: Expr) -> int:
    if value.sort != "int":
        return hash(_fixed(env, value))
    raise UnhashableSize(
        f"The size `{value}` cannot be a dictionary key or a set member.",
        why="it is another number at each call, so which entry is meant is not known",
        where=stack.summary(stack.raw_stack(env.stack_floor)),
        hints=["compare it (`n == 8`) or choose with torch.sym_ite", "or make the dim static"],
    )


def _text(env: ShapeEnv, value: Expr) -> str:
    """``str(n)``: a program cannot make text, so the value becomes fixed if the user's line asks.

    Libraries and everybody after the capture want a message: they get the expression.
    """
    if env.fixes_texts and not env.frozen:
        return str(_fixed(env, value))
    code, position = stack.place_of(sys._getframe(2))  # this function, the method
    if env.frozen or not _is_user(code):
        return sym.to_python(value)
    if dis.opname[code.co_code[position]] in _F_STRING:
        return _placeholder(env, value)  # `f"{x.shape}"` asks each size
    return str(_fixed(env, value))


def _format(env: ShapeEnv, value: Expr, spec: str) -> str:
    """In an f-string, the argument of nearly every assertion in a model: no number is needed."""
    if spec or (env.fixes_texts and not env.frozen):
        return format(_fixed(env, value), spec)
    return sym.to_python(value) if env.frozen else _placeholder(env, value)


def _placeholder(env: ShapeEnv, value: Expr) -> str:
    """A text in place of the number; the end of the capture looks whether it got out."""
    text = f"<{sym.to_python(value)}>"
    env.texts.add(text)
    return text


def _is_user(code: CodeType) -> bool:
    """Whether it is the user's code that runs: not torch, stillframe or the standard library."""
    innermost = stack.raw_stack()
    if not innermost or innermost[0] is not code:
        return False
    name = code.co_filename
    return not name.startswith(_STANDARD_LIBRARY) or "site-packages" in name


def _choice(env: ShapeEnv, test: Expr, then: Any, other: Any) -> Any:
    return sym.ite(test, *(_operand(env, v) for v in (then, other)))


_UNARY: dict[str, Rule] = {
    "neg": lambda env, value: sym.neg(value),
    "pos": lambda env, value: sym.add(value, 0),
    "abs": _absolute,
    "invert": _invert,
    "round": _round,
}
_CONVERSIONS: dict[str, Rule] = {"hash": _hash, "str": _text, "format": _format}
_INDEX: dict[type, dict[str, Rule]] = {
    torch.SymInt: {"index": _index},
    torch.SymBool: {"index": _truth_as_index},
}


def _unary(name: str, rule: Rule, theirs: Any) -> Callable[..., Any]:
    def method(self: Any, *args: Any) -> Any:
        node = self.node
        if node.__class__ is SymNode:
            return _answer(node.env, rule(node.env, node.expr, *args))
        if theirs is None:
            raise TypeError(f"{name} is not defined for {type(self).__name__}")
        return theirs(self, *args)

    return method


def _part(value: Callable[[Any], Any]) -> property:
    """An attribute that Python's numbers have and torch's symbolic ones have not."""

    def get(self: Any) -> Any:
        if self.node.__class__ is SymNode:
            return value(self)
        raise AttributeError(f"{type(self).__name__} has no such attribute")

    return property(get)


# -- putting them in place ------------------------------------------------------------------------


def _install(cls: type) -> None:
    """Add or replace the operators of one of torch's three classes."""
    theirs = {name: getattr(cls, name, None) for name in dir(cls)}
    for name, rule in {**_ARITHMETIC, **_COMPARISONS}.items():
        setattr(cls, f"__{name}__", _binary(rule, theirs.get(f"__{name}__")))
    for name, rule in _ARITHMETIC.items():
        setattr(cls, f"__r{name}__", _reflected(rule, theirs.get(f"__r{name}__")))
    conversions = {**_CONVERSIONS, **_INDEX.get(cls, {})}
    for name, rule in {**_UNARY, **conversions}.items():
        setattr(cls, f"__{name}__", _unary(name, rule, theirs.get(f"__{name}__")))
    if cls is torch.SymBool:
        setattr(cls, "__sym_ite__", _unary("sym_ite", _choice, theirs["__sym_ite__"]))
    setattr(cls, "real", _part(lambda value: +value))
    setattr(cls, "imag", _part(lambda value: 0.0 if isinstance(value, torch.SymFloat) else 0))
    if cls is not torch.SymFloat:
        setattr(cls, "numerator", _part(lambda value: +value))
        setattr(cls, "denominator", _part(lambda value: 1))


for _class in _SYMBOLIC:
    _install(_class)
