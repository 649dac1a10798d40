"""Guards on one value, checked for others."""

from __future__ import annotations

import functools
from typing import Any

from stillframe.guards.checks import Checks, compile_checks
from stillframe.guards.failure import GuardFailure
from stillframe.guards.kinds.registry import kind
from stillframe.source import Guard, LocalSource, Source

X = LocalSource("x")


def guard_on(source: Source, name: str, **parameters: Any) -> Guard:
    """A guard of a kind, with its parameters."""
    made = kind(name)
    return source.make_guard(functools.partial(made, **parameters) if parameters else made)


def checks_of(value: Any, name: str, **parameters: Any) -> Checks:
    """The check of one guard on ``L['x']``."""
    return compile_checks([guard_on(X, name, **parameters)], {"x": value}, {})


def holds(checks: Checks, **f_locals: Any) -> bool:
    """Whether the checks hold; the slow way must answer as the fast one."""
    fast = checks(f_locals, {})
    failure = checks.failure(f_locals, {})
    assert fast is (failure is None), (fast, failure)
    return fast


def failure(checks: Checks, **f_locals: Any) -> GuardFailure:
    """Why the checks do not hold."""
    assert not holds(checks, **f_locals)
    found = checks.failure(f_locals, {})
    assert found is not None
    return found
