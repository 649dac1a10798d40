"""Guards as one generated Python function over a frame's locals and globals.

The function is made for frames that fit: each place is read once into a variable, each condition is
an attribute read, an identity test or a comparison. It answers True or False and nothing else.
Why it is False is found out afterwards and slowly (:meth:`Checks.failure`), step by step, and said
with the user's expression and line.

A check has no effects of its own, but reading an attribute may run a property of the user's. No
function mode and no override of a tensor subclass sees the reads.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stillframe import torch_private
from stillframe.errors import InternalError
from stillframe.guards.failure import GuardFailure
from stillframe.guards.helpers import HELPERS
from stillframe.guards.kinds.registry import describe
from stillframe.guards.kinds.tensors import alias_conditions
from stillframe.source import (
    ChainedSource,
    DuplicateInputs,
    Guard,
    GuardBuilderBase,
    GuardEnvExpr,
    GuardSource,
    Source,
    placeholder_name,
)
from stillframe.source.base import shown

# Places that are gone, or not made yet, when a check runs.
_UNREADABLE = (GuardSource.RANDOM_VALUE, GuardSource.SYNTHETIC_LOCAL, GuardSource.CONSTANT)

_PLAIN_KEYS = (bool, int, str, type(None))


@dataclass(frozen=True)
class Step:
    """A line of the check.

    Attributes:
        guard: for which guard it was first needed; None for conditions of later stages.
        variable: for a read, where the value goes; empty for a condition.
        text: the expression that is read, or that must be true.
        source: what a read reads.
        expected, sees, seen: for a condition: how it was, and what makes words of what the
            variables ``seen`` hold instead.
    """

    guard: Guard | None
    text: str
    variable: str = ""
    source: Source | None = None
    expected: str = ""
    sees: Callable[..., str] | None = None
    seen: tuple[str, ...] = ()


class GuardBuilder(GuardBuilderBase):
    """The scope in which guards become checks: a frame for which they hold.

    Attributes:
        guards: all of them, in the order of the checks.
    """

    def __init__(
        self, guards: Iterable[Guard], f_locals: Mapping[str, Any], f_globals: Mapping[str, Any]
    ) -> None:
        self.guards: Sequence[Guard] = sorted(guards, key=Guard.sort_key)
        self.ambient: list[Step] = []
        self.steps: list[Step] = []
        self.names: dict[str, Any] = dict(HELPERS)
        self._scope: dict[str, Any] = {"L": f_locals, "G": f_globals}
        self._variables: dict[Source, str] = {}
        self._bound: dict[int, str] = {}
        self._counts: dict[str, int] = {}  # how often a name was wanted and taken
        self._current: Guard | None = None
        self._tensors: list[Guard] = []

    def build(self, env_exprs: Iterable[GuardEnvExpr] = ()) -> Checks:
        """Make the checks of all guards, and of what later stages recorded."""
        for guard in self.guards:
            self._current = guard
            guard.create(self)
        alias_conditions(self, self._tensors)
        for expr in env_exprs:
            self._env_expr(expr)
        untouched = self.bind("no_torch_function", torch_private.no_torch_function)
        return Checks(self.ambient, self.steps, self.names, untouched)

    def _env_expr(self, expr: GuardEnvExpr) -> None:
        if not isinstance(expr, DuplicateInputs):
            raise InternalError(f"no check is known for a {type(expr).__name__}")
        a, b = expr.input_source_a, expr.input_source_b
        self._current = None
        self._conditions(
            None,
            [f"{self.read(a)} is {self.read(b)}"],
            f"{a.name()} is the same object as {b.name()}",
            None,
            (a,),
        )

    # -- what kinds ask for -------------------------------------------------------------------

    def value(self, source: Source) -> Any:
        """What the source reads in the frame for which the checks are made."""
        return self._scope[self.read(source)]

    def read(self, source: Source) -> str:
        """The variable that holds what the source reads, in the check.

        Raises:
            InternalError: no check can read it; or it cannot be read now.
        """
        known = self._variables.get(source)
        if known is None:
            known = self._variables[source] = self._new_read(source)
        return known

    def _new_read(self, source: Source) -> str:
        if source.guard_source() in _UNREADABLE or source.is_ephemeral():
            raise InternalError(f"no check can read {source.name()}")
        base = self.read(source.base) if isinstance(source, ChainedSource) else ""
        text = source.expression(base, self._key)
        if text == base:  # a mark on the path
            return base
        variable = self._fresh(placeholder_name(source).strip("_") or "value")
        try:
            value = eval(text, self.names, self._scope)
        except Exception as e:
            raise InternalError(f"{source.name()} cannot be read: {e}") from e
        self._scope[variable] = value
        self.steps.append(Step(self._current, text, variable, source))
        return variable

    def _key(self, key: Any) -> str:
        if isinstance(key, Source):
            return self.read(key)
        return repr(key) if type(key) in _PLAIN_KEYS else self.bind("key", key)

    def bind(self, wanted: str, value: Any) -> str:
        """The name under which the check finds an object."""
        name = self._bound.get(id(value))
        if name is None:
            cleaned = "".join(c if c.isascii() and c.isalnum() else "_" for c in wanted)
            plain = cleaned == "math" and wanted not in self.names
            name = self._bound[id(value)] = wanted if plain else self._fresh(f"_{cleaned}")
            self.names[name] = value
        return name

    def _fresh(self, wanted: str) -> str:
        name = wanted
        while name in self._scope or name in self.names:
            count = self._counts[wanted] = self._counts.get(wanted, 0) + 1
            name = f"{wanted}_{count}"
        return name

    def require(
        self,
        guard: Guard,
        conditions: Sequence[str],
        expected: str,
        sees: Callable[..., str] | None = None,
        sources: Sequence[Source] = (),
    ) -> None:
        """Add conditions, which must hold from here on; see :class:`Builder`."""
        self._conditions(guard, conditions, expected, sees, sources)
        cls = obj = None
        if guard.originating_source in sources:
            value = self.value(guard.originating_source)
            cls, obj = type(value), weak_reference(value)
        guard.set_export_info(guard.kind, cls, list(conditions), obj)

    def _conditions(
        self,
        guard: Guard | None,
        conditions: Sequence[str],
        expected: str,
        sees: Callable[..., str] | None,
        sources: Sequence[Source],
    ) -> None:
        seen = tuple(self.read(source) for source in sources)
        self.steps += [
            Step(guard, text, expected=expected, sees=sees, seen=seen) for text in conditions
        ]

    def require_globally(self, guard: Guard, probe: Callable[[], Any], memory: Any) -> None:
        """The probe must give the same again; asked before anything is read."""
        name = guard.kind.lower()
        text = f"{self.bind(name, probe)}() == {self.bind(f'known_{name}', [memory])}[0]"
        guard.set_export_info(guard.kind, None, [text], None)
        expected = f"{guard.kind} is {shown(memory)}"
        self.ambient.append(Step(guard, text, expected=expected, sees=lambda: shown(probe())))

    def tensor(self, guard: Guard) -> None:
        """The guard is on a tensor: it aliases the others as it did."""
        self._tensors.append(guard)


class Checks:
    """The checks of one capture.

    Attributes:
        text: the generated function, for a person to read.
        holds: ``(L, G) -> bool``: whether all guards hold for a frame's locals and globals.
    """

    def __init__(
        self,
        ambient: Sequence[Step],
        steps: Sequence[Step],
        names: Mapping[str, Any],
        untouched: str,
    ) -> None:
        """Compile the steps.

        Args:
            ambient, steps: on global state, and all others.
            names: the objects that the steps use.
            untouched: the name of the context in which no function mode sees what is read.
        """
        self._ambient, self._steps = tuple(ambient), tuple(steps)
        self._names = dict(names)
        self.text = _function_text(self._ambient, self._steps, untouched)
        self.holds: Callable[[Mapping[str, Any], Mapping[str, Any]], bool] = self._compiled()

    def _compiled(self) -> Any:
        file = f"<stillframe guards {id(self):#x}>"
        namespace = dict(self._names)
        exec(compile(self.text, file, "exec"), namespace)
        return namespace["holds"]

    def __call__(self, f_locals: Mapping[str, Any], f_globals: Mapping[str, Any]) -> bool:
        """Whether all guards hold."""
        return self.holds(f_locals, f_globals)

    def failure(
        self, f_locals: Mapping[str, Any], f_globals: Mapping[str, Any]
    ) -> GuardFailure | None:
        """The first guard that does not hold, and why; None if all do."""
        scope = {"L": f_locals, "G": f_globals}
        for step in self._ambient:
            found = self._step_failure(step, scope)
            if found is not None:
                return found
        with torch_private.no_torch_function():
            for step in self._steps:
                found = self._step_failure(step, scope)
                if found is not None:
                    return found
        return None

    def _step_failure(self, step: Step, scope: dict[str, Any]) -> GuardFailure | None:
        try:
            value = eval(step.text, self._names, scope)
        except Exception as e:
            name = step.source.name() if step.source is not None else step.text
            reason = f"reading {name} raised {type(e).__name__}: {shown_error(e)}"
            return GuardFailure(step.guard, step.expected or "can be read", reason)
        if step.variable:
            scope[step.variable] = value
            return None
        if value:
            return None
        return GuardFailure(step.guard, step.expected, self._found(step, scope))

    def _found(self, step: Step, scope: Mapping[str, Any]) -> str:
        values = [scope[variable] for variable in step.seen]
        try:
            if step.sees is not None:
                return step.sees(*values)
            return ", ".join(describe(value) for value in values)
        except Exception as e:
            return f"a value that cannot be described ({type(e).__name__})"


def weak_reference(value: Any) -> weakref.ref[Any] | None:
    """A weak reference, None where there can be none."""
    try:
        return weakref.ref(value)
    except TypeError:
        return None


def shown_error(error: Exception) -> str:
    """The text of an exception of any class."""
    try:
        return str(error)
    except Exception:
        return "..."


def _function_text(ambient: Sequence[Step], steps: Sequence[Step], untouched: str) -> str:
    lines = ["def holds(L, G):", "    try:"]
    lines += _tests([step.text for step in ambient], 8)
    if steps:
        lines.append(f"        with {untouched}():")
        pending: list[str] = []
        for step in steps:
            if step.variable:
                lines += _tests(pending, 12)
                pending = []
                lines.append(f"            {step.variable} = {step.text}")
            else:
                pending.append(step.text)
        lines += _tests(pending, 12)
    lines += ["        return True", "    except Exception:", "        return False", ""]
    return "\n".join(lines)


def _tests(conditions: Sequence[str], indent: int) -> list[str]:
    if not conditions:
        return []
    space = " " * indent
    lines = [f"{space}if not ("]
    lines += [f"{space}    {'and ' if i else ''}({c})" for i, c in enumerate(conditions)]
    return [*lines, f"{space}):", f"{space}    return False"]


def compile_checks(
    guards: Iterable[Guard],
    f_locals: Mapping[str, Any],
    f_globals: Mapping[str, Any],
    env_exprs: Iterable[GuardEnvExpr] = (),
) -> Checks:
    """One function that checks all guards.

    Args:
        guards: of a capture.
        f_locals, f_globals: the frame that was captured, from which the guards take what they
            remember.
        env_exprs: what later stages recorded.

    Raises:
        InternalError: a guard does not hold for that very frame, or cannot be checked.
    """
    checks = GuardBuilder(guards, f_locals, f_globals).build(env_exprs)
    if not checks(f_locals, f_globals):
        failure = checks.failure(f_locals, f_globals) or "the checks of guards that hold do not"
        raise InternalError(f"a guard does not hold where it was made: {failure}")
    return checks
