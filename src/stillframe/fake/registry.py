"""The table of shape rules: operator overload -> function of (context, arguments).

A rule answers with fakes what the operator would return: dtype, sizes, strides, aliasing. Rules
are grouped in files by operator family under ``fake/rules``; importing the folder fills the table.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from stillframe.errors import InternalError

Rule = Callable[..., Any]
R = TypeVar("R", bound=Rule)

RULES: dict[Any, Rule] = {}


def rule(*operators: Any) -> Callable[[R], R]:
    """Register the decorated function for these overloads. A second rule for one is refused."""

    def register(function: R) -> R:
        for operator in operators:
            if operator in RULES:
                raise InternalError(f"two shape rules for {operator}")
            RULES[operator] = function
        return function

    return register


def load_rules() -> None:
    """Import all rule files (once)."""
    import stillframe.fake.rules  # noqa: F401
