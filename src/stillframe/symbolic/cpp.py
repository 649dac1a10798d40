"""Expressions as C++ text, with the values that Python gives.

Where C++ and Python agree the text is plain (``a + 2LL*b``). Where they do not (division, modulus,
powers, rounding, exact comparison of an integer with a double) it calls a small function of
:data:`CPP_PRELUDE`, which throws where Python would raise.

What the caller answers for: every sum, product and power of integers fits in 64 bits (Python's
have no bound), and the compiler keeps IEEE arithmetic: no ``-ffast-math``, and
``-ffp-contract=off`` where it would fuse a product and a sum. The sign of a floating zero is the
compiler's: g++ 12 turns ``0.0 - static_cast<double>(n)`` into a negation.
"""

from __future__ import annotations

import math

from stillframe.errors import NotSupported
from stillframe.symbolic.expr import Expr, Number
from stillframe.symbolic.printing import ATOM, COMPARE, IF, OR, PRODUCT, UNARY, InfixPrinter, Text

_LARGEST = 2**63 - 1

# Python computes these with algorithms of its own; the C++ library's last digits may differ.
_PYTHON_ONLY = frozenset(("gamma", "lgamma", "hypot", "degrees", "radians"))

_CPP_WORDS = frozenset(
    "alignas alignof asm auto bool case catch char char16_t char32_t char8_t compl concept const "
    "consteval constexpr constinit const_cast co_await co_return co_yield decltype default delete "
    "do double dynamic_cast enum explicit export extern float friend goto inline int long mutable "
    "namespace new noexcept nullptr operator private protected public register reinterpret_cast "
    "requires short signed sizeof static static_assert static_cast struct switch template this "
    "thread_local throw typedef typeid typename union unsigned using virtual void volatile wchar_t "
    "and_eq bitand bitor not_eq or_eq xor xor_eq NULL NAN INFINITY HUGE_VAL EOF true false "
    "int64_t if else for while return break continue and or not class try import".split()
)

CPP_PRELUDE = r"""
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <stdexcept>

namespace stillframe {

inline void require_divisor(bool nonzero) {
  if (!nonzero) throw std::domain_error("division by zero");
}

// Division rounded down, and the remainder that has the sign of the divisor.
inline int64_t floordiv(int64_t a, int64_t b) {
  require_divisor(b != 0);
  if (b == -1) {
    if (a == std::numeric_limits<int64_t>::min()) throw std::overflow_error("floordiv");
    return -a;
  }
  return a / b - (a % b != 0 && (a < 0) != (b < 0));
}

inline int64_t mod(int64_t a, int64_t b) {
  require_divisor(b != 0);
  if (b == -1) return 0;
  int64_t rest = a % b;
  return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
}

inline double float_mod(double a, double b) {
  require_divisor(b != 0);
  double rest = std::fmod(a, b);
  if (rest == 0) return std::copysign(0.0, b);
  return (rest < 0) != (b < 0) ? rest + b : rest;
}

// The quotient of two integers as the nearest double (halves to even): bit by bit until there are
// two bits more than a double holds; the last one also says whether anything is left over.
inline double truediv(int64_t a, int64_t b) {
  require_divisor(b != 0);
  uint64_t n = a < 0 ? 0 - static_cast<uint64_t>(a) : static_cast<uint64_t>(a);
  uint64_t d = b < 0 ? 0 - static_cast<uint64_t>(b) : static_cast<uint64_t>(b);
  uint64_t quotient = n / d, rest = n % d;
  int shift = 0;
  while (rest != 0 && quotient < (uint64_t(1) << 55)) {
    rest *= 2;
    quotient = 2 * quotient + (rest >= d);
    rest -= rest >= d ? d : 0;
    ++shift;
  }
  double size = std::ldexp(static_cast<double>(quotient | (rest != 0)), -shift);
  return (a < 0) != (b < 0) ? -size : size;
}

inline double float_truediv(double a, double b) {
  require_divisor(b != 0);
  return a / b;
}

inline int64_t pow(int64_t base, int64_t exponent) {
  if (exponent < 0) throw std::domain_error("negative exponent of an integer");
  if (base == 0 || base == 1) return exponent == 0 ? 1 : base;
  if (base == -1) return exponent % 2 == 0 ? 1 : -1;
  int64_t result = 1;
  for (; exponent > 0; --exponent) {
    int64_t bound = std::numeric_limits<int64_t>::max() / (base < 0 ? -(base + 1) + 1 : base);
    if (result > bound || result < -bound) throw std::overflow_error("pow");
    result *= base;
  }
  return result;
}

// A result that Python refuses: not a number, or infinite, where the operands were neither.
inline double checked(double result, double a, double b = 0) {
  if (std::isnan(result) && !std::isnan(a) && !std::isnan(b)) throw std::domain_error("math");
  if (std::isinf(result) && std::isfinite(a) && std::isfinite(b)) throw std::overflow_error("math");
  return result;
}

inline double call(double (*function)(double), double x) { return checked(function(x), x); }

inline double call(double (*function)(double, double), double x, double y) {
  return checked(function(x, y), x, y);
}

inline int64_t to_integer(double whole) {
  if (!(whole >= -9223372036854775808.0 && whole < 9223372036854775808.0))
    throw std::overflow_error("a double outside the integers");
  return static_cast<int64_t>(whole);
}

inline int64_t floor(double x) { return to_integer(std::floor(x)); }
inline int64_t ceil(double x) { return to_integer(std::ceil(x)); }
inline int64_t trunc(double x) { return to_integer(std::trunc(x)); }
inline int64_t round(double x) { return to_integer(std::nearbyint(x)); }  // halves to even

// Exact order of an integer and a double: -1, 0 or 1, and 2 if the double is not a number.
inline int order(int64_t a, double x) {
  if (std::isnan(x)) return 2;
  if (x >= 9223372036854775808.0) return -1;
  if (x < -9223372036854775808.0) return 1;
  int64_t whole = static_cast<int64_t>(std::floor(x));
  if (a != whole) return a < whole ? -1 : 1;
  return std::floor(x) == x ? 0 : -1;
}

inline bool equal(int64_t a, double x) { return order(a, x) == 0; }
inline bool less(int64_t a, double x) { return order(a, x) == -1; }
inline bool less(double x, int64_t a) { return order(a, x) == 1; }
inline bool less_equal(int64_t a, double x) { return order(a, x) <= 0; }
inline bool less_equal(double x, int64_t a) { int o = order(a, x); return o == 0 || o == 1; }

}  // namespace stillframe
""".lstrip()


def to_cpp(expr: Expr | Number) -> str:
    """``expr`` as a C++ expression over its symbols (``int64_t``, ``double``, ``bool`` variables).

    :data:`CPP_PRELUDE` must stand before it. The value is that of
    :func:`~stillframe.symbolic.evaluate`; where that raises, the C++ throws. The operands of
    ``&&`` and ``||`` are computed from left to right: one may throw though another one decides.

    Raises:
        NotSupported: an integer constant outside 64 bits, a name that C++ does not allow, or a
            function that the C++ library computes differently.
    """
    return _PRINTER.text(expr)


class _CppPrinter(InfixPrinter):
    not_sign, not_strength, not_operand = "!", UNARY, ATOM
    words = {"and": "&&", "or": "||"}
    connective_operand = COMPARE

    def name(self, name: str) -> str:
        if name in _CPP_WORDS or not name.isascii() or "__" in name:
            raise NotSupported(
                f"The symbol `{name}` cannot be the name of a C++ variable.",
                hints=["substitute another symbol for it first"],
            )
        return name

    def integer(self, value: int) -> str:
        if value > _LARGEST:
            raise NotSupported(
                f"The constant {value} does not fit in a 64-bit integer of C++.",
                hints=["print it with to_python, whose integers have no bound"],
            )
        return f"{value}LL"

    def powers(self, atom: Expr, n: int) -> list[str]:
        return [f"stillframe::pow({self.render(atom)[0]}, {n}LL)"]

    def print_const(self, node: Expr) -> Text:
        value = node.value
        if node.sort == "bool":
            return ("true" if value else "false"), ATOM
        if node.sort == "int":
            return (f"-{self.integer(-value)}", UNARY) if value < 0 else (self.integer(value), ATOM)
        if math.isnan(value):
            return "std::numeric_limits<double>::quiet_NaN()", ATOM
        text = "std::numeric_limits<double>::infinity()" if math.isinf(value) else repr(abs(value))
        return (f"-{text}", UNARY) if math.copysign(1.0, value) < 0 else (text, ATOM)

    def print_floordiv(self, node: Expr) -> Text:
        if node.sort == "float":
            raise NotSupported(
                f"The floor division of floats `{node}` has no C++ form.",
                hints=["write math.floor(a / b), which gives an integer"],
            )
        return self._helper(node)

    def _helper(self, node: Expr) -> Text:
        prefix = "float_" if node.args[0].sort == "float" else ""
        return self.function(f"stillframe::{prefix}{node.op}", node.args)

    print_mod = _helper

    def print_truediv(self, node: Expr) -> Text:
        if node.args[0].sort == "float" and node.args[1].is_constant:  # never 0
            return self.infix(node, "/", PRODUCT)
        return self._helper(node)

    def print_pow(self, node: Expr) -> Text:
        if node.sort == "float":
            return self._checked("pow", node.args)
        return self._helper(node)

    def _rounding(self, node: Expr) -> Text:
        return self.function(f"stillframe::{node.op}", node.args)

    print_floor = print_ceil = print_round = print_trunc = _rounding

    def print_float(self, node: Expr) -> Text:
        return self.function("static_cast<double>", node.args)

    def _extremum(self, node: Expr) -> Text:
        kind = "double" if node.sort == "float" else "int64_t"
        operands = ", ".join(self.render(a)[0] for a in node.args)
        return f"std::{node.op}<{kind}>({{{operands}}})", ATOM

    print_max = print_min = _extremum

    def print_call(self, node: Expr) -> Text:
        name, *operands = node.args
        if name in _PYTHON_ONLY:
            raise NotSupported(
                f"math.{name} in `{node}` has no C++ form: Python computes it in a way of its own.",
                hints=["compute it in Python and pass the result as a variable"],
            )
        return self._checked(name, tuple(operands))

    def _checked(self, name: str, operands: tuple[Expr, ...]) -> Text:
        texts = ", ".join(self.render(a)[0] for a in operands)
        return f"stillframe::call(std::{name}, {texts})", ATOM

    def print_eq(self, node: Expr) -> Text:
        if not _mixed(node):
            return self._comparison(node)
        operands = sorted(node.args, key=lambda a: a.sort == "float")
        return self.function("stillframe::equal", tuple(operands))

    def print_ne(self, node: Expr) -> Text:
        if not _mixed(node):
            return self._comparison(node)
        return f"!{self.print_eq(node)[0]}", UNARY

    def _order(self, node: Expr) -> Text:
        if not _mixed(node):
            return self._comparison(node)
        return self.function(f"stillframe::{_ORDERS[node.op]}", node.args)

    print_lt = print_le = _order

    def print_ite(self, node: Expr) -> Text:
        test, then, other = node.args
        return f"{self.at(test, OR)} ? {self.at(then, OR)} : {self.at(other, OR)}", IF


def _mixed(node: Expr) -> bool:
    """Whether ``node`` compares an integer with a float, which C++ would round first."""
    left, right = node.args
    return bool(left.sort != right.sort)


_ORDERS = {"lt": "less", "le": "less_equal"}
_PRINTER = _CppPrinter()
