"""ShapeEnv: the symbols of one capture, what is known of them, and what was assumed.

A *backed* symbol has a hint, the size in the example input. A question about sizes is answered
from the facts (declared ranges, earlier assumptions) where they decide it. Where they do not, a
backed question is decided by the hints and the answer is recorded as a :class:`Guard` with the
user's lines; an *unbacked* one (a value that only the data can tell) raises
:class:`~stillframe.errors.DataDependentError`.

The policy of what a guard means is the caller's: ``export`` checks afterwards that no guard
narrowed what the user declared (``export/constraints.py``).
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import torch

import stillframe.shapes.operators  # noqa: F401  puts Python's operators on torch's classes
from stillframe import stack
from stillframe.errors import DataDependentError, InternalError, InvalidInput
from stillframe.shapes.node import SymNode
from stillframe.symbolic import (
    Contradiction,
    Expr,
    Facts,
    Range,
    and_,
    const,
    evaluate,
    ne,
    not_,
    symbol,
    to_python,
    unwrap,
)

# The user's lines are those outside of torch.
stack.hide_package(os.path.dirname(torch.__file__))

Size = int | Expr


@dataclass(frozen=True)
class Guard:
    """A condition on sizes that the capture relied on.

    Attributes:
        expr: boolean expression over the environment's symbols; true for the example.
        where: the user's source lines that asked, outermost first.
        kind: ``"backed"`` (decided by hints), ``"asserted"`` (``torch._check`` in user code),
            ``"declared"`` (a dim that is one of a set) or ``"assumed"`` (a relation that the user
            stated).
    """

    expr: Expr
    where: tuple[str, ...] = ()
    kind: str = "backed"

    def __str__(self) -> str:
        at = f"  # {self.where[-1]}" if self.where else ""
        return f"{to_python(self.expr)}{at}"


@dataclass(frozen=True)
class DeferredAssert:
    """A condition on unbacked symbols, to be checked when the program runs; ``stack`` asked it."""

    expr: Expr
    message: str
    stack: stack.RawStack = ()


@dataclass
class SymbolInfo:
    """What the environment knows of one symbol besides its facts.

    ``source`` is the argument path and dim for a person (``input_ids.size(1)``), ``dim_name`` the
    user's name of the dim, ``policy`` how guards on it are to be read: ``"declared"`` (may not be
    narrowed), ``"dynamic"`` (may be narrowed, but not to a constant), ``"auto"`` (may become
    constant), ``"unbacked"``; ``example`` its value in the example input, ``values`` the only
    values there are if it was declared as one of a set; ``stack`` where an unbacked one was read.
    """

    symbol: Expr
    dim_name: str
    policy: str
    source: str = ""
    example: float | None = None
    declared: Range = field(default_factory=lambda: Range(0, math.inf))
    values: tuple[int, ...] = ()
    stack: stack.RawStack = ()


#: The switch of the environment: ``0`` leaves run-time asserts out of all that is captured.
RUNTIME_ASSERTS = "STILLFRAME_RUNTIME_ASSERTS"


def runtime_asserts_wanted() -> bool:
    """What the environment says of run-time asserts; they are there unless it says ``0``.

    Raises:
        InvalidInput: the variable is neither 0 nor 1.
    """
    value = os.environ.get(RUNTIME_ASSERTS) or "1"
    if value not in ("0", "1"):
        raise InvalidInput(
            f"The environment variable {RUNTIME_ASSERTS} is {value!r}.", hints=["it is 0 or 1"]
        )
    return value == "1"


class ShapeEnv:
    """Symbols, facts, guards and deferred asserts of one capture."""

    def __init__(self) -> None:
        self.facts = Facts()
        self.symbols: dict[Expr, SymbolInfo] = {}
        self.hints: dict[Expr, float] = {}
        self.guards: list[Guard] = []
        self.supposed: list[Guard] = []
        self.deferred: list[DeferredAssert] = []
        #: Whether conditions on data become checks of the graph; else they are believed.
        self.emits_asserts = runtime_asserts_wanted()
        self.unchecked: list[DeferredAssert] = []
        self.texts: set[str] = set()  # what f-strings got in place of numbers
        self.fake_mode: Any = None  # answers operators on fakes of this environment
        #: Called with each fake that becomes a key of a dict or a member of a set.
        self.watches_hash: Callable[[Any], None] | None = None
        #: A text of a number makes it fixed: nobody looks afterwards which texts got out.
        self.fixes_texts = False
        self.frozen = False
        self.stack_floor: FrameType | None = None
        self._nodes: dict[Expr, SymNode] = {}
        self._wrapped: dict[Expr, Any] = {}
        self._fresh_unbacked: list[Expr] = []
        self.given_out: list[Expr] = []  # all unbacked symbols, in order
        #: Comparisons of sizes give plain booleans, for functions of torch that take nothing else.
        self.decide_at_once = False
        #: Set by a rule whose operator may raise at other sizes; reset by the recorder.
        self.may_raise = False

    # -- symbols ------------------------------------------------------------------------------

    def new_symbol(
        self,
        dim_name: str,
        hint: float,
        declared: Range,
        *,
        policy: str = "declared",
        source: str = "",
        example: float | None = None,
        values: tuple[int, ...] = (),
    ) -> Expr:
        """A new backed symbol: an int ``s0, s1, ...`` with a range, or a float ``f0, f1, ...``.

        Args:
            dim_name: the user's name.
            hint: decides what the facts leave open; a float makes a float symbol.
            declared: its range, for ints.
            policy, source: see :class:`SymbolInfo`.
            example: its value in the example input, if that is not the hint.
            values: the only values there are.
        """
        self._check_open()
        sort = "float" if isinstance(hint, float) else "int"
        count = sum(1 for s, i in self.symbols.items() if s.sort == sort and i.policy != "unbacked")
        sym = symbol(f"{'s' if sort == 'int' else 'f'}{count}", sort)
        value = hint if example is None else example
        self.symbols[sym] = SymbolInfo(sym, dim_name, policy, source, value, declared, values)
        self.hints[sym] = hint
        if sort == "int":
            self.facts.set_range(sym, declared)
        return sym

    def suppose(self, condition: Guard) -> None:
        """A condition that the user declared: a fact, and checked when the program is called.

        Raises:
            Contradiction: it contradicts what is known.
        """
        self._check_open()
        self.facts.assume(condition.expr)
        self.supposed.append(condition)

    def new_unbacked(self, lower: float = 0, upper: float = math.inf, *, sort: str = "int") -> Expr:
        """A new symbol ``u0, u1, ...`` without hint, as data-dependent operators return."""
        self._check_open()
        count = sum(1 for i in self.symbols.values() if i.policy == "unbacked")
        sym = symbol(f"u{count}" if sort == "int" else f"zf{count}", sort)
        bounds = Range(lower, upper)
        read = stack.raw_stack(self.stack_floor)
        self.symbols[sym] = SymbolInfo(sym, str(sym), "unbacked", declared=bounds, stack=read)
        if sort == "int":
            self.facts.set_range(sym, bounds)
        self._fresh_unbacked.append(sym)
        self.given_out.append(sym)
        return sym

    def take_fresh_unbacked(self) -> list[Expr]:
        """The unbacked symbols made since the last call; the recorder binds them to their node."""
        fresh, self._fresh_unbacked = self._fresh_unbacked, []
        return fresh

    def keep_fresh_unbacked(self, symbols: Sequence[Expr]) -> None:
        """Of what :meth:`take_fresh_unbacked` gave, the symbols that are still to be bound."""
        self._fresh_unbacked.extend(symbols)

    def is_unbacked(self, expr: Expr) -> bool:
        """Whether the value of ``expr`` depends on data."""
        return any(s not in self.hints for s in expr.free_symbols)

    def freeze(self) -> None:
        """After the solver has run, nothing may be assumed any more."""
        self.frozen = True

    def drop_caches(self) -> None:
        """Forget what can be made again, and the reference cycles in it: the capture is over."""
        self._nodes.clear()
        self._wrapped.clear()

    def _check_open(self) -> None:
        if self.frozen:
            raise InternalError("the shape environment is frozen: no symbol or guard may be added")

    # -- wrapping -----------------------------------------------------------------------------

    def node(self, expr: Expr) -> SymNode:
        """The (memoised) node that carries ``expr`` inside torch's SymInt/SymFloat/SymBool."""
        node = self._nodes.get(expr)
        if node is None:
            node = self._nodes[expr] = SymNode(expr, self)
        return node

    def wrap(self, value: Any) -> Any:
        """Expr -> SymInt/SymFloat/SymBool (constants unwrapped); anything else unchanged."""
        if not isinstance(value, Expr):
            return value
        wrapped = self._wrapped.get(value)
        if wrapped is None:
            if value.is_constant:
                wrapped = value.value
            else:
                cls = {"int": torch.SymInt, "float": torch.SymFloat, "bool": torch.SymBool}
                wrapped = cls[value.sort](self.node(value))  # type: ignore[no-untyped-call]
            self._wrapped[value] = wrapped
        return wrapped

    def wrap_sizes(self, sizes: Sequence[Size]) -> list[Any]:
        """Sizes as torch takes them: ints and SymInts."""
        return [s if type(s) is int else self.wrap(s) for s in sizes]

    # -- questions ----------------------------------------------------------------------------

    def hint_of(self, expr: Expr) -> Any:
        """The value of ``expr`` for the example input, or None if it depends on data."""
        if self.is_unbacked(expr):
            return None
        return evaluate(expr, self.hints)

    def evaluate(self, cond: Expr | bool, default: bool | None = None) -> bool:
        """Decide ``cond``: by facts, else ``default`` if given, else by hints with a guard.

        Raises:
            DataDependentError: nothing decides it and it depends on data.
        """
        if not isinstance(cond, Expr):
            return bool(cond)
        known = self.facts.decide(cond)
        if known is not None:
            return known
        if default is not None:
            return default
        if self.is_unbacked(cond):
            raise self._data_dependent(cond)
        answer = bool(evaluate(cond, self.hints))
        self._record(cond if answer else not_(cond), "backed")
        return answer

    def specialise(self, expr: Expr) -> Any:
        """The hint of ``expr`` as a plain number; records that it must be so."""
        known = self.facts.simplify(expr)
        if known.is_constant:
            return known.value
        if self.is_unbacked(expr):
            raise self._data_dependent(expr)
        value = evaluate(expr, self.hints)
        self.evaluate(unwrap(not_(ne(expr, const(value)))))
        return value

    def expect_true(self, cond: Expr, message: str = "") -> bool:
        """``torch._check``: must hold. Known, guarded, or deferred to run time.

        Returns False if it is known not to hold (the caller raises the program's own error).
        """
        known = self.facts.decide(cond)
        if known is not None:
            return known
        if not self.is_unbacked(cond):
            return self.evaluate(cond)
        self._check_open()
        raw = stack.raw_stack(self.stack_floor)
        try:
            self.facts.assume(cond)
        except Contradiction:
            return False
        text = message or f"Runtime assertion failed for expression {to_python(cond)}"
        found = self.deferred if self.emits_asserts else self.unchecked
        found.append(DeferredAssert(cond, text, raw))
        return True

    def may_be_negative(self, sizes: Sequence[Size]) -> bool:
        """Whether the facts do not exclude that one of the sizes is negative."""
        return any(
            type(size) is Expr and size.op != "symbol" and self.facts.range_of(size).lower < 0
            for size in sizes
        )

    def expect_divisor(self, divisor: Any) -> None:
        """Python divides by it: where the range was left open, 0 is left out of it.

        A declared range means what it says; there the program divides, and raises, as Python does.
        """
        if not isinstance(divisor, Expr) or divisor.sort != "int" or self.is_unbacked(divisor):
            return
        policies = {self.symbols[s].policy for s in divisor.free_symbols}
        bounds = self.facts.range_of(divisor)
        if "declared" not in policies and 0 in bounds and self.hint_of(divisor) != 0:
            self.evaluate(unwrap(ne(divisor, 0)))

    @contextlib.contextmanager
    def forgetting(self, assumed: Expr | None = None) -> Iterator[None]:
        """What is learnt inside is forgotten afterwards, but for guards: they hold everywhere.

        For a part of the program that does not run in every call.

        Args:
            assumed: a condition that holds inside.
        """
        facts, known = self.facts, len(self.guards)
        self.facts = facts.copy()
        if assumed is not None:
            try:
                self.facts.assume(assumed)
            except Contradiction:  # the part never runs: nothing needs to be known in it
                self.facts = facts.copy()
        try:
            yield
        finally:
            self.facts = facts
            for guard in self.guards[known:]:
                facts.assume(guard.expr)

    def _record(self, cond: Expr, kind: str) -> None:
        self._check_open()
        if cond.op == "and":  # what is known already asks nothing of a call
            cond = unwrap(and_(*[c for c in cond.args if self.facts.decide(c) is not True]))
        where = stack.summary(stack.raw_stack(self.stack_floor))
        self.guards.append(Guard(cond, where, kind))
        try:
            self.facts.assume(cond)
        except Contradiction as e:
            raise InternalError(f"the example contradicts the facts: {cond}") from e

    def _data_dependent(self, expr: Expr) -> DataDependentError:
        text = to_python(expr)
        names = ", ".join(sorted(str(s) for s in expr.free_symbols if s not in self.hints))
        check = f"torch._check({text})" if expr.sort == "bool" else f"torch._check(... {text} ...)"
        return DataDependentError(
            f"Python needs the value of `{text}`, which depends on the data ({names}).",
            why="; ".join(self._origins(expr))
            or "values read from tensors (item, nonzero, masks) are unknown while capturing",
            where=stack.summary(stack.raw_stack(self.stack_floor)),
            hints=[
                f"if it always holds, say so before this line: {check}",
                "or choose with torch.where, or torch.cond for whole branches",
            ],
        )

    def _origins(self, expr: Expr) -> list[str]:
        """Where each number was read from the data: ``u0 is read from data at file:line ...``."""
        found = []
        for sym in sorted(expr.free_symbols, key=str):
            info = self.symbols.get(sym)
            lines = stack.summary(info.stack, 1) if info is not None and info.stack else ()
            found += [f"{sym} is read from data at {line}" for line in lines]
        return found

    # -- what torch's own Python shape functions ask of an environment --------------------------

    def evaluate_sym_node(
        self, node: SymNode, size_oblivious: bool = False, fallback_value: bool | None = None
    ) -> bool:
        """``guard_or_false`` / ``guard_or_true``: the default where facts do not decide.

        Taking the default without a guard is what the callers are written for: their default
        branch is the general one.
        """
        return self.evaluate(node.expr, fallback_value)

    def _maybe_evaluate_static(self, expr: Expr, **_: Any) -> Expr | bool | None:
        """``statically_known_true``: facts only."""
        return self.facts.decide(expr) if expr.sort == "bool" else None

    def optimization_hint(self, expr: Expr, fallback: Any = None) -> Any:
        """The example's value, for choices that only affect speed."""
        hint = self.hint_of(expr)
        return fallback if hint is None else hint


def to_size(value: Any) -> Any:
    """SymInt/SymFloat/SymBool of ours -> Expr; anything else unchanged."""
    if isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool)):
        node = value.node
        if isinstance(node, SymNode):
            return unwrap(node.expr)
    return value
