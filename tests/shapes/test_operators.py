"""Python's operators on sizes: exported, run at other sizes, and compared with eager Python."""

from __future__ import annotations

import copy
import math
import operator
from collections.abc import Callable
from typing import Any

import pytest
import torch

import stillframe as sf
from stillframe.errors import ConstraintViolationError, DataDependentError, NotSupported
from stillframe.shapes import bits
from stillframe.shapes.env import ShapeEnv, to_size
from stillframe.symbolic import Range, evaluate, parse, symbol

SIZES = (0, 1, 2, 3, 5, 7, 8, 12, 31, 64, 100)

# Operations with the value that eager Python gives, for every size.
EQUAL: dict[str, Callable[[Any], Any]] = {
    "n << 1": lambda n: n << 1,
    "n << 0": lambda n: n << 0,
    "n >> 2": lambda n: n >> 2,
    "-n >> 1": lambda n: -n >> 1,
    "1 << n": lambda n: 1 << n,
    "1000 >> n": lambda n: 1000 >> n,
    "n << n": lambda n: n << n,
    "n & 3": lambda n: n & 3,
    "7 & n": lambda n: 7 & n,
    "n & 0b1011010": lambda n: n & 0b1011010,
    "-n & 6": lambda n: -n & 6,
    "n & -4": lambda n: n & -4,
    "n | 5": lambda n: n | 5,
    "n | -3": lambda n: n | -3,
    "n ^ 1": lambda n: n ^ 1,
    "6 ^ -n": lambda n: 6 ^ -n,
    "n & True": lambda n: n & True,
    "~n": lambda n: ~n,
    "-n, +n": lambda n: (-n, +n),
    "abs": lambda n: abs(n - 8),
    "divmod(n, 3)": lambda n: divmod(n, 3),
    "divmod(n, -3)": lambda n: divmod(n, -3),
    "divmod(100, n + 1)": lambda n: divmod(100, n + 1),
    "divmod(n, 1.5)": lambda n: divmod(n, 1.5),
    "n // 0.1": lambda n: n // 0.1,
    "n % 0.7": lambda n: n % 0.7,
    "-n // 2.5": lambda n: -n // 2.5,
    "7.5 // (n + 1)": lambda n: 7.5 // (n + 1),
    "n / 3": lambda n: n / 3,
    "1 / (n + 1)": lambda n: 1 / (n + 1),
    "n / 2.0": lambda n: n / 2.0,
    "n**2": lambda n: n**2,
    "2**n": lambda n: 2**n,
    "n**0.5": lambda n: n**0.5,
    "(n + 1)**-1": lambda n: (n + 1) ** -1,
    "(n + 1)**-0.5": lambda n: (n + 1) ** -0.5,
    "0.5**n": lambda n: 0.5**n,
    "(n - 8.5)**2": lambda n: (n - 8.5) ** 2,
    "(n - 8.5)**2.0": lambda n: (n - 8.5) ** 2.0,
    "True**n": lambda n: True**n,
    "pow(n, 2, 7)": lambda n: pow(n, 2, 7),
    "pow(n, n, 11)": lambda n: pow(n, n, 11),
    "round(n)": lambda n: round(n),
    "round(n, 2)": lambda n: round(n, 2),
    "round(n, -1)": lambda n: round(n, -1),
    "round(5 * n, -2)": lambda n: round(5 * n, -2),
    "round(-n, -1)": lambda n: round(-n, -1),
    "round(n / 2)": lambda n: round(n / 2),
    "math.ceil(n / 3)": lambda n: math.ceil(n / 3),
    "math.floor(-n / 3)": lambda n: math.floor(-n / 3),
    "math.trunc(-n / 3)": lambda n: math.trunc(-n / 3),
    "math.ceil(n)": lambda n: math.ceil(n),
    "int of a product": lambda n: torch.sym_int(n * 1.3),
    "torch.sym_float": lambda n: torch.sym_float(n),
    "torch.sym_max": lambda n: torch.sym_max(n, 7),
    "torch.sym_max of a float": lambda n: torch.sym_max(n, 7.5),
    "torch.sym_min": lambda n: torch.sym_min(5, n),
    "torch.sym_ite": lambda n: torch.sym_ite(n > 5, n, n * 2),
    "torch.sym_sum": lambda n: torch.sym_sum([n, 1, n * n]),
    "torch.sym_sqrt": lambda n: torch.sym_sqrt(n),
    "sum": lambda n: sum([n, n, 2]),
    "n + 0.5": lambda n: n + 0.5,
    "2.5 - n": lambda n: 2.5 - n,
    "n * 1.5 + n": lambda n: n * 1.5 + n,
    "n + True": lambda n: n + True,
    "abs of a float": lambda n: abs(2.5 - n),
    "-x of a float": lambda n: -(n * 0.5),
    "is_integer": lambda n: torch.sym_ite((n / 2).is_integer(), n, n + 1),
    "n.real, n.imag": lambda n: (n.real, n.imag),
    "n.numerator, n.denominator": lambda n: (n.numerator, n.denominator),
    "as_integer_ratio": lambda n: n.as_integer_ratio(),
    "conjugate": lambda n: n.conjugate(),
    "a comparison as a number": lambda n: (n > 5) + 1,
    "a product of comparisons": lambda n: (n > 2) * (n < 9),
    "a count": lambda n: sum([n > 1, n > 5, n > 9]),
    "~(n > 5)": lambda n: ~(n > 5) + 0,
    "-(n > 5)": lambda n: -(n > 5),
    "flag & flag": lambda n: torch.sym_ite((n > 2) & (n < 9), n, n + 1),
    "flag | flag": lambda n: torch.sym_ite((n < 2) | (n > 9), n, n + 1),
    "flag ^ flag": lambda n: torch.sym_ite((n > 2) ^ (n < 9), n, n + 1),
    "flag ^ True": lambda n: torch.sym_ite((n > 2) ^ True, n, n + 1),
    "flag == flag": lambda n: torch.sym_ite((n > 2) == (n < 9), n, n + 1),
    "flag != flag": lambda n: torch.sym_ite((n > 2) != (n < 9), n, n + 1),
    "flag < flag": lambda n: torch.sym_ite((n > 2) < (n < 9), n, n + 1),
    "torch.sym_not": lambda n: torch.sym_ite(torch.sym_not(n > 2), n, n + 1),
    "n == 7.0": lambda n: torch.sym_ite(n == 7.0, n, n + 1),
    "n < 7.5": lambda n: torch.sym_ite(n < 7.5, n, n + 1),
    "exact beside a float": lambda n: torch.sym_ite(n + 2**53 + 1 == 2.0**53, n, n + 1),
    "n in place": lambda n: operator.ixor(operator.ilshift(n, 2), 1),
    "a copy": lambda n: copy.deepcopy(n) + copy.copy(n),
    "an f-string": lambda n: (f"{n}", n)[1],
    "None": lambda n: (n == None) + (n != "a"),  # noqa: E711
}

# Operations that need the number itself: they fix the size, which is refused for a declared dim.
FIXES: dict[str, Callable[[Any], Any]] = {
    "int": int,
    "float": float,
    "operator.index": operator.index,
    "__index__": lambda n: n.__index__(),
    "__int__": lambda n: n.__int__(),
    "math.sqrt": math.sqrt,
    "math.log2": lambda n: math.log2(n + 1),
    "math.isqrt": math.isqrt,
    "math.gcd": lambda n: math.gcd(n, 12),
    "math.factorial": math.factorial,
    "bit_length": lambda n: n.bit_length(),
    "hex": hex,
    "complex": lambda n: complex(n).real,
    "int of a float": lambda n: int(n * 1.5),
    "float of a float": lambda n: float(n * 1.5),
    "hash of a float": lambda n: hash(n * 1.5),
    "str": str,
    "str of a float": lambda n: str(n * 0.5),
    "str.format": lambda n: format(n, "03d"),
    "%": lambda n: "%d" % n,
    "a list times": lambda n: [0] * n,
    "a list item": lambda n: list(range(200))[n],
}
# The same of a condition: it is decided, which narrows the dim.
DECIDES: dict[str, Callable[[Any], Any]] = {
    "bool": lambda n: bool(n > 5),
    "not": lambda n: not n,
    "int of a flag": lambda n: int(n > 5),
    "float of a flag": lambda n: float(n > 5),
    "hash of a flag": lambda n: {n > 5: 1},
    "index of a flag": lambda n: "ab"[n > 5],
    "str of a flag": lambda n: str(n > 5),
    "max": lambda n: max(n, 5),
    "a chain": lambda n: 2 < n < 9,
    "in": lambda n: n in (1, 2),
}
REFUSED: dict[str, tuple[Callable[[Any], Any], str]] = {
    "n & n": (lambda n: n & (n + 1), "bits of two symbolic integers"),
    "n | n": (lambda n: n | (n + 1), "bits of two symbolic integers"),
    "n ^ n": (lambda n: n ^ (n + 1), "bits of two symbolic integers"),
    "n & flag": (lambda n: n & (n > 5), "bits of two symbolic integers"),
    "round(x, 1)": (lambda n: round(n * 0.3, 1), r"round\(x, ndigits\)"),
    "n * 1j": (lambda n: n * 1j, "complex number 1j"),
    "1j * n": (lambda n: 1j * n, "complex number 1j"),
    "pow(n, -1, 7)": (lambda n: pow(n, -1, 7), r"pow\(a, b, m\)"),
    "hash": (lambda n: {n: 1}, "dictionary key"),
    "a set": (lambda n: n in {1, 2}, "dictionary key"),
}


class OfSize(torch.nn.Module):
    def __init__(self, function: Callable[[Any], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> Any:
        return x + 1, self.function(x.shape[0])


class OfItem(OfSize):
    def forward(self, x: torch.Tensor) -> Any:
        n = x.item()
        torch._check(n >= 0)
        torch._check(n <= 100)
        return x + 1, self.function(n)


def by_size(function: Callable[[Any], Any]) -> Any:
    dims = {"x": {0: sf.Dim("n", min=0, max=100)}}
    return sf.export(OfSize(function), (torch.zeros(7),), dynamic_shapes=dims)


def by_item(function: Callable[[Any], Any]) -> Any:
    return sf.export(OfItem(function), (torch.tensor(7),))


def outcome(function: Callable[[], Any]) -> tuple[Any, type]:
    """The value and its type; an error of arithmetic counts as a value."""
    try:
        result = function()[1]
    except (ArithmeticError, ValueError) as error:
        return type(error).__name__, type(error)
    return result, type(result)


@pytest.mark.parametrize("name", EQUAL)
def test_equals_python_at_every_size(name: str) -> None:
    module = OfSize(EQUAL[name])
    program = by_size(EQUAL[name])
    for n in SIZES:
        x = torch.zeros(n)
        expected = outcome(lambda x=x: module(x))
        assert outcome(lambda x=x: program.module()(x)) == expected, n


@pytest.mark.parametrize("name", EQUAL)
def test_equals_python_for_values_read_from_tensors(name: str) -> None:
    module = OfItem(EQUAL[name])
    program = by_item(EQUAL[name])
    for n in SIZES:
        x = torch.tensor(n)
        expected = outcome(lambda x=x: module(x))
        assert outcome(lambda x=x: program.module()(x)) == expected, n


@pytest.mark.parametrize(
    "name", ["n << 1", "n >> 2", "n & 3", "n | 5", "n ^ 1", "round(n, -1)", "pow(n, 2, 7)", "abs"]
)
def test_a_tensor_of_that_size(name: str) -> None:
    function = EQUAL[name]
    program = by_size(lambda n: torch.arange(function(n)) * 2)
    for n in SIZES:
        _, made = program.module()(torch.zeros(n))
        assert made.tolist() == [2 * i for i in range(function(n))]


@pytest.mark.parametrize("name", {**FIXES, **DECIDES})
def test_what_needs_the_number_is_refused_for_a_declared_dim(name: str) -> None:
    with pytest.raises(ConstraintViolationError, match=r"(?s)sizes of n.*test_operators\.py"):
        by_size({**FIXES, **DECIDES}[name])


@pytest.mark.parametrize("name", {**FIXES, **DECIDES})
def test_what_needs_the_number_is_refused_for_a_value_from_a_tensor(name: str) -> None:
    with pytest.raises(DataDependentError, match="depends on the data"):
        by_item({**FIXES, **DECIDES}[name])


@pytest.mark.parametrize("name", FIXES)
def test_what_needs_the_number_fixes_an_automatic_dim(name: str) -> None:
    module = OfSize(FIXES[name])
    x = torch.zeros(7)
    program = sf.export(module, (x,), dynamic_shapes={"x": {0: sf.Dim.AUTO}})
    assert outcome(lambda: program.module()(x)) == outcome(lambda: module(x))


@pytest.mark.parametrize("make", [by_size, by_item])
@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_form_is_refused_by_name(name: str, make: Callable[..., Any]) -> None:
    function, message = REFUSED[name]
    with pytest.raises(NotSupported, match=message) as caught:
        make(function)
    assert caught.value.hints and "test_operators.py" in str(caught.value)


def test_an_unhashable_size_is_a_type_error_too() -> None:
    """Libraries (einops) try to look a size up in a cache and go on without it."""
    env = ShapeEnv()
    n = env.wrap(env.new_symbol("n", 7, Range(0, 100)))
    with pytest.raises(TypeError):
        hash(n)


def test_python_errors_stay_pythons() -> None:
    env = ShapeEnv()
    n = env.wrap(env.new_symbol("n", 7, Range(0, 100)))
    for operation in (
        lambda: n << 1.0,
        lambda: n & 1.5,
        lambda: n + "a",
        lambda: n < "a",
        lambda: ~(n * 0.5),
        lambda: divmod(n, None),
    ):
        with pytest.raises(TypeError):
            operation()
    with pytest.raises(ValueError, match="negative shift count"):
        n << -1
    with pytest.raises(ZeroDivisionError):
        n // 0


def test_text_outside_of_a_capture_is_the_expression() -> None:
    env = ShapeEnv()
    n = env.wrap(env.new_symbol("n", 7, Range(0, 100)))
    assert repr(n + 1) == "s0 + 1" and f"{n + 1}" == "<s0 + 1>" and env.guards == []
    env.freeze()
    assert str(n + 1) == f"{n + 1}" == "s0 + 1"


def test_other_libraries_symbols_keep_torchs_operators() -> None:
    from torch._dynamo.source import ConstantSource
    from torch.fx.experimental.symbolic_shapes import DimDynamic
    from torch.fx.experimental.symbolic_shapes import ShapeEnv as TorchEnv

    env = TorchEnv()
    size = env.create_unspecified_symbol(12, ConstantSource("n"), DimDynamic.DYNAMIC)
    n = env.create_symintnode(size, hint=12)
    assert str(n) == str(size) and str(n << 1) == f"2*{size}"
    assert (n + 1).node.hint == 13 and (2 * n).node.hint == 24
    with pytest.raises(TypeError, match="unhashable"):
        hash(n)
    for operation in (lambda: divmod(n, 2), lambda: ~n):
        with pytest.raises(TypeError):
            operation()
    assert not hasattr(n, "numerator")
    assert not hasattr(n > 3, "real")


@pytest.mark.parametrize("mask", [0, 1, 2, 3, 6, 8, 0b1011010, 255, -1, -2, -4, -7])
def test_bits(mask: int) -> None:
    a = symbol("a")
    forms = {
        operator.and_: bits.and_mask(a, mask),
        operator.or_: bits.or_mask(a, mask),
        operator.xor: bits.xor_mask(a, mask),
    }
    for function, form in forms.items():
        for value in (*range(-20, 20), 12345, -98765):
            assert evaluate(form, {a: value}) == function(value, mask)


def test_short_forms() -> None:
    env = ShapeEnv()
    n = env.wrap(env.new_symbol("n", 7, Range(0, 100)))
    for made, text in (
        (n & 7, "s0 % 8"),
        (n << 3, "8*s0"),
        (n >> 1, "s0//2"),
        (abs(n), "s0"),
        (n & -1, "s0"),
    ):
        assert to_size(made) is parse(text)
