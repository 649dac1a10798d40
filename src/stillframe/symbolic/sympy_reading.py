"""sympy's expressions, as objects or as text, to ours: the inverse of ``sympy_text.py``.

sympy itself is never imported: an object is walked by the names of its functions and their
arguments, and text by its syntax tree. torch's own function classes (``FloorDiv``, ``IntTrueDiv``,
``CeilToInt``...) are understood by name.

sympy keeps exact fractions (``floor(a/2 + b/3)``), and ours are integers or floats. So reading goes
through pairs of a numerator and a denominator, which must end in something that rounds or compares.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any, NamedTuple, TypeAlias

from stillframe.errors import InvalidInput, NotSupported
from stillframe.symbolic import compare, floats, operators
from stillframe.symbolic.arith import content, linear
from stillframe.symbolic.expr import ONE, ZERO, Expr, const, symbol
from stillframe.symbolic.parsing import MAX_LENGTH, bounded, bounded_power
from stillframe.symbolic.sympy_text import CONSTANT_NAMES, FLOAT_NAMES, FUNCTION_PREFIX


class Quotient(NamedTuple):
    """An exact fraction of two integer expressions; the lower one is not the constant 0 or 1."""

    above: Expr
    below: Expr


Value: TypeAlias = Expr | Quotient
Pair: TypeAlias = tuple[Value, Expr]  # a value and its condition, in Piecewise
Function: TypeAlias = Callable[..., Value]


def from_sympy(expression: Any, symbols: Mapping[str, Expr] | None = None) -> Expr:
    """The expression with the value of a sympy object, in normal form.

    Args:
        expression: a sympy object, or a plain number.
        symbols: what the names of symbols stand for; a name that is not there is an integer symbol.

    A sum or a product of floats, which has no order in sympy, is computed in the order of
    ``.args``.

    Raises:
        NotSupported: something in it has no counterpart here; the message names it.
        InvalidInput: a division by the constant 0, a number out of bounds, or not a sympy object.
    """
    return _whole(expression, lambda: _ObjectReader(symbols or {}).read(expression))


def parse_sympy(text: str, symbols: Mapping[str, Expr] | None = None) -> Expr:
    """The expression that ``text`` says in sympy's language: ``from_sympy(sympify(text))``.

    The text is never evaluated. It may be what :func:`~stillframe.symbolic.to_sympy` wrote, or
    ``str`` of a sympy object.

    Raises:
        NotSupported: something in it has no counterpart here; the message names it.
        InvalidInput: not an expression, a division by the constant 0, or a number out of bounds.
    """
    if len(text) > MAX_LENGTH:
        raise InvalidInput(f"The expression is longer than {MAX_LENGTH} characters.")
    return _whole(text, lambda: _TextReader(symbols or {}).read_text(text))


def _whole(source: Any, read: Callable[[], Any]) -> Expr:
    """What ``read`` gives, with the errors of this module."""
    try:
        return _expr(read())
    except (InvalidInput, NotSupported):
        raise
    except (SyntaxError, TypeError, ValueError, ArithmeticError, RecursionError, MemoryError) as e:
        raise InvalidInput(f"Not a sympy expression: {str(source)[:200]!r} ({e}).") from e


# -- fractions ------------------------------------------------------------------------------------


def _not_rounded(value: Quotient) -> NotSupported:
    return NotSupported(
        f"The fraction ({value.above})/({value.below}) is not an integer for all sizes.",
        hints=["round it: floor(a/b) or ceiling(a/b)", "or divide floats: IntTrueDiv(a, b)"],
    )


def _expr(value: Any) -> Expr:
    if isinstance(value, Quotient):
        raise _not_rounded(value)
    if not isinstance(value, Expr):
        raise TypeError(f"{value!r} is not a number or a condition")
    return value


def _parts(value: Value) -> tuple[Expr, Expr]:
    if isinstance(value, Quotient):
        return value
    node = floats.number(_expr(value))
    if node.sort != "int":
        raise TypeError(f"the float `{node}` is part of a fraction")
    return node, ONE


def _quotient(above: Expr, below: Expr) -> Value:
    """``above/below``, reduced where the denominator is a constant."""
    if below.is_constant:
        if below.value == 0:
            raise ZeroDivisionError("division by zero")
        divisor = math.gcd(below.value, content(above), linear(above)[1])
        divisor = -divisor if below.value < 0 else divisor
        above = operators.floordiv(above, divisor)
        below = operators.floordiv(below, divisor)
    return bounded(above) if below is ONE else Quotient(above, below)


def _common(values: tuple[Value, ...]) -> tuple[list[Expr], Expr]:
    """The numerators over one denominator, positive if it is a constant."""
    parts = [_parts(v) for v in values]
    below = ONE
    for _, each in parts:
        if each.is_constant and below.is_constant:
            below = const(math.lcm(each.value, below.value))
        elif each is not below:
            below = operators.mul(below, each)
    if all(each is below for _, each in parts):
        return [above for above, _ in parts], below
    if below.is_constant:
        return [operators.mul(a, below.value // b.value) for a, b in parts], below
    scaled = []
    for i, (above, _) in enumerate(parts):
        others = [b for j, (_, b) in enumerate(parts) if j != i]
        scaled.append(operators.mul(above, *others))
    return scaled, operators.mul(*(b for _, b in parts))


def _has_float(values: tuple[Value, ...]) -> bool:
    return any(isinstance(v, Expr) and v.sort == "float" for v in values)


def _as_float(value: Value) -> Expr:
    """``value`` beside a float: Python converts integers; a fraction must be exactly a float."""
    if not isinstance(value, Quotient):
        return floats.to_float(_expr(value))
    if value.above.is_constant and value.below.is_constant:
        exact = Fraction(value.above.value, value.below.value)
        if Fraction(float(exact)) == exact:
            return const(float(exact))
    raise _not_rounded(value)


# -- arithmetic -----------------------------------------------------------------------------------


def _add(*values: Value) -> Value:
    if _has_float(values):
        return operators.add(*map(_as_float, values))
    numerators, below = _common(values)
    return _quotient(operators.add(*numerators), below)


def _mul(*values: Value) -> Value:
    if _has_float(values):
        return _float_product([_as_float(v) for v in values])
    parts = [_parts(v) for v in values]
    return _quotient(operators.mul(*(a for a, _ in parts)), operators.mul(*(b for _, b in parts)))


def _float_product(values: list[Expr]) -> Expr:
    if values[0] is floats.MINUS_ONE:
        return operators.neg(operators.mul(1.0, *values[1:]) if len(values) > 2 else values[1])
    return operators.mul(*values)


def _pow(base: Value, exponent: Value) -> Value:
    power = _expr(exponent)
    if _has_float((base, exponent)):
        if power.is_constant and power.value < 0 and power.sort == "int":
            raise NotSupported(
                f"The reciprocal of the float `{base}` has no exact form.",
                hints=["write FloatTrueDiv(x, y)"],
            )
        return operators.power(_as_float(base), _as_float(power))
    above, below = _parts(base)
    if power.is_constant and power.value < 0:
        above, below, power = below, above, operators.neg(power)
    return _quotient(bounded_power(above, power), bounded_power(below, power))


def _floor(value: Value) -> Value:
    if _has_float((value,)):
        return floats.floor_(_expr(value))
    return operators.floordiv(*_parts(value))


def _ceiling(value: Value) -> Value:
    if _has_float((value,)):
        return floats.ceil_(_expr(value))
    above, below = _parts(value)
    return operators.neg(operators.floordiv(operators.neg(above), below))


def _floordiv(a: Value, b: Value) -> Value:
    if _has_float((a, b)):
        return operators.floordiv(_as_float(a), _as_float(b))
    above, _ = _common((a, b))
    return operators.floordiv(*above)


def _mod(a: Value, b: Value) -> Value:
    if _has_float((a, b)):
        return operators.mod(_as_float(a), _as_float(b))
    above, below = _common((a, b))
    return _quotient(operators.mod(*above), below)  # (k*a) % (k*b) = k * (a % b)


def _extremum(function: Callable[..., Expr]) -> Function:
    def read(*values: Value) -> Value:
        if _has_float(values):
            return function(*map(_as_float, values))
        numerators, below = _common(values)
        if not below.is_constant:
            raise NotSupported("Max and Min of fractions with unknown denominators have no form.")
        return _quotient(function(*numerators), below)

    return read


def _absolute(value: Value) -> Value:
    if _has_float((value,)):
        return operators.absolute(_expr(value))
    above, below = _parts(value)
    return _quotient(operators.absolute(above), operators.absolute(below))


def _sign(value: Value) -> Value:
    above, below = _parts(value)
    number = operators.mul(above, below)
    negative = operators.ite(operators.lt(number, ZERO), -1, 0)
    return operators.ite(operators.gt(number, ZERO), ONE, negative)


# -- conditions -----------------------------------------------------------------------------------


def _relation(function: Callable[[Any, Any], Expr]) -> Function:
    def read(a: Value, b: Value) -> Value:
        if not isinstance(a, Quotient) and not isinstance(b, Quotient):
            return function(_expr(a), _expr(b))
        if _has_float((a, b)):
            return function(_as_float(a), _as_float(b))
        (left, right), below = _common((a, b))
        if not below.is_constant:  # its square is positive
            left, right = operators.mul(left, below), operators.mul(right, below)
        return function(left, right)

    return read


def _xor(*values: Expr) -> Expr:
    result = const(False)
    for value in values:
        result = compare.not_(compare.eq(result, value))
    return result


def _equivalent(first: Expr, *others: Expr) -> Expr:
    return compare.and_(*(compare.eq(first, other) for other in others))


def _choice(test: Value, then: Value, other: Value) -> Value:
    condition = _expr(test)
    if not isinstance(then, Quotient) and not isinstance(other, Quotient):
        return operators.ite(condition, then, other)
    if _has_float((then, other)):
        return operators.ite(condition, _as_float(then), _as_float(other))
    (a, b), (c, d) = _parts(then), _parts(other)
    return _quotient(operators.ite(condition, a, c), operators.ite(condition, b, d))


def _piecewise(*pairs: Any) -> Value:
    if not pairs or not all(isinstance(p, tuple) and len(p) == 2 for p in pairs):
        raise TypeError("Piecewise takes pairs of a value and a condition")
    *first, (result, last) = pairs
    if last is not const(True):
        raise NotSupported(
            "A Piecewise without a last case that is always true has no value elsewhere.",
            hints=["end it with (value, True)"],
        )
    for value, condition in reversed(first):
        result = _choice(condition, value, result)
    return result  # type: ignore[no-any-return]


# -- functions by name ----------------------------------------------------------------------------


def _plain(function: Callable[..., Expr]) -> Function:
    """A function of expressions: no fractions."""
    return lambda *values: function(*map(_expr, values))


def _of_floats(function: Callable[..., Expr]) -> Function:
    return lambda *values: function(*map(_as_float, values))


def _shift_left(a: Expr, b: Expr) -> Expr:
    return operators.mul(a, bounded_power(const(2), b))


def _shift_right(a: Expr, b: Expr) -> Expr:
    return operators.floordiv(a, bounded_power(const(2), b))


_OF_FLOATS: dict[str, Callable[..., Expr]] = {
    FLOAT_NAMES["add"]: operators.add,
    FLOAT_NAMES["mul"]: operators.mul,
    FLOAT_NAMES["floordiv"]: operators.floordiv,
    FLOAT_NAMES["mod"]: operators.mod,
    FLOAT_NAMES["truediv"]: operators.truediv,
    FLOAT_NAMES["pow"]: operators.power,
    FLOAT_NAMES["max"]: operators.max_,
    FLOAT_NAMES["min"]: operators.min_,
}
_PLAIN: dict[str, Callable[..., Expr]] = {
    FLOAT_NAMES["float"]: floats.to_float,
    FLOAT_NAMES["floor"]: floats.floor_,
    FLOAT_NAMES["ceil"]: floats.ceil_,
    FLOAT_NAMES["round"]: floats.round_,
    FLOAT_NAMES["trunc"]: floats.trunc_,
    "IntTrueDiv": operators.truediv,
    "PowByNatural": bounded_power,
    "LShift": _shift_left,
    "RShift": _shift_right,
    "And": compare.and_,
    "Or": compare.or_,
    "Not": compare.not_,
    "Xor": _xor,
    "Implies": lambda a, b: compare.or_(compare.not_(a), b),
    "Equivalent": _equivalent,
}
_RELATIONS: dict[tuple[str, str], Callable[[Any, Any], Expr]] = {
    ("Eq", "Equality"): operators.eq,
    ("Ne", "Unequality"): operators.ne,
    ("Lt", "StrictLessThan"): operators.lt,
    ("Le", "LessThan"): operators.le,
    ("Gt", "StrictGreaterThan"): operators.gt,
    ("Ge", "GreaterThan"): operators.ge,
}
_FUNCTIONS: dict[str, Function] = {
    **{name: _plain(function) for name, function in _PLAIN.items()},
    **{name: _of_floats(function) for name, function in _OF_FLOATS.items()},
    **{name: _relation(f) for names, f in _RELATIONS.items() for name in names},
    "Add": _add,
    "Mul": _mul,
    "Pow": _pow,
    "floor": _floor,
    "ceiling": _ceiling,
    "FloorDiv": _floordiv,
    "CleanDiv": _floordiv,
    "Mod": _mod,
    "PythonMod": _mod,
    "Max": _extremum(operators.max_),
    "Min": _extremum(operators.min_),
    "Abs": _absolute,
    "sign": _sign,
    "ITE": _choice,
    "Where": _choice,
    "Piecewise": _piecewise,
    "Identity": lambda value: value,
}


def _apply(name: str, values: list[Any]) -> Value:
    if name.startswith(FUNCTION_PREFIX):
        return floats.call(name.removeprefix(FUNCTION_PREFIX), *map(_as_float, values))
    function = _FUNCTIONS.get(name)
    if function is None:
        raise NotSupported(
            f"The function `{name}` of sympy has no counterpart in symbolic expressions.",
            hints=[f"known functions: {', '.join(sorted(_FUNCTIONS))}"],
        )
    result = function(*values)
    return bounded(result) if isinstance(result, Expr) else result


# -- readers --------------------------------------------------------------------------------------


class _Reader:
    def __init__(self, symbols: Mapping[str, Expr]) -> None:
        self.symbols = symbols

    def symbol(self, name: str) -> Expr:
        known = self.symbols.get(name)
        if known is not None:
            return known
        if name in CONSTANT_NAMES:
            raise NotSupported(
                f"`{name}` is a constant of sympy that symbolic expressions do not have.",
                hints=["if it is one of your symbols, pass it in `symbols`"],
            )
        return symbol(name)


class _ObjectReader(_Reader):
    def __init__(self, symbols: Mapping[str, Expr]) -> None:
        super().__init__(symbols)
        self._done: dict[int, Any] = {}  # by identity: the object keeps its parts alive

    def read(self, obj: Any) -> Any:
        if isinstance(obj, (bool, int, float)):
            return const(obj)
        known = self._done.get(id(obj))
        if known is None:
            known = self._done[id(obj)] = self._read(obj)
        return known

    def _read(self, obj: Any) -> Any:
        if getattr(obj, "is_Symbol", False):
            return self._symbol(obj)
        if getattr(obj, "is_Rational", False):
            return _quotient(const(int(obj.p)), const(int(obj.q)))
        if getattr(obj, "is_Float", False):
            return const(float(obj))
        try:
            name, args = obj.func.__name__, obj.args
        except AttributeError:
            raise TypeError(f"a {type(obj).__name__} is not a sympy object") from None
        if name in ("BooleanTrue", "BooleanFalse"):
            return const(name == "BooleanTrue")
        values = [self.read(a) for a in args]
        return tuple(values) if name == "ExprCondPair" else _apply(name, values)

    def _symbol(self, obj: Any) -> Expr:
        if obj.is_integer is False and obj.name not in self.symbols:
            raise NotSupported(
                f"The symbol `{obj.name}` is declared not to be an integer.",
                hints=[f"pass symbols={{{obj.name!r}: symbol({obj.name!r}, 'float')}}"],
            )
        return self.symbol(obj.name)


_BINARY: dict[type[ast.operator], str] = {
    ast.Add: "Add",
    ast.Mult: "Mul",
    ast.Pow: "Pow",
    ast.Mod: "Mod",
    ast.FloorDiv: "FloorDiv",
    ast.BitAnd: "And",
    ast.BitOr: "Or",
    ast.BitXor: "Xor",
}
_COMPARE: dict[type[ast.cmpop], str] = {
    ast.Lt: "Lt",
    ast.LtE: "Le",
    ast.Gt: "Gt",
    ast.GtE: "Ge",
}


class _TextReader(_Reader):
    def read_text(self, text: str) -> Any:
        return self.read(ast.parse(text.strip(), mode="eval").body)

    def read(self, tree: ast.expr) -> Any:
        reader = self._READERS.get(type(tree))
        if reader is None:
            raise InvalidInput(f"{type(tree).__name__} is not part of a sympy expression.")
        return reader(self, tree)

    def _name(self, tree: ast.Name) -> Expr:
        return self.symbol(tree.id)

    def _constant(self, tree: ast.Constant) -> Expr:
        if type(tree.value) not in (int, float, bool):
            raise InvalidInput(f"{tree.value!r} is not a number.")
        return bounded(const(tree.value))  # type: ignore[arg-type]

    def _binary(self, tree: ast.BinOp) -> Value:
        left, right = self.read(tree.left), self.read(tree.right)
        if isinstance(tree.op, ast.Sub):
            return _apply("Add", [left, _apply("Mul", [const(-1), right])])
        if isinstance(tree.op, ast.Div):
            return _apply("Mul", [left, _apply("Pow", [right, const(-1)])])
        name = _BINARY.get(type(tree.op))
        if name is None:
            raise InvalidInput(f"The operator {type(tree.op).__name__} is not known.")
        return _apply(name, [left, right])

    def _unary(self, tree: ast.UnaryOp) -> Value:
        value = self.read(tree.operand)
        if isinstance(tree.op, ast.USub):
            return _apply("Mul", [const(-1), value])
        if isinstance(tree.op, ast.Invert):
            return _apply("Not", [value])
        raise InvalidInput(f"The operator {type(tree.op).__name__} is not known.")

    def _compare(self, tree: ast.Compare) -> Value:
        name = _COMPARE.get(type(tree.ops[0]))
        if name is None or len(tree.ops) != 1:
            raise InvalidInput(f"{ast.unparse(tree)[:80]!r} is not a comparison in sympy.")
        return _apply(name, [self.read(tree.left), self.read(tree.comparators[0])])

    def _tuple(self, tree: ast.Tuple) -> tuple[Any, ...]:
        return tuple(self.read(e) for e in tree.elts)

    def _call(self, tree: ast.Call) -> Value:
        if not isinstance(tree.func, ast.Name) or tree.keywords:
            raise InvalidInput(f"{ast.unparse(tree)[:80]!r} is not part of a sympy expression.")
        return _apply(tree.func.id, [self.read(a) for a in tree.args])

    _READERS: dict[type[ast.expr], Callable[..., Any]] = {
        ast.Name: _name,
        ast.Constant: _constant,
        ast.BinOp: _binary,
        ast.UnaryOp: _unary,
        ast.Compare: _compare,
        ast.Tuple: _tuple,
        ast.Call: _call,
    }
