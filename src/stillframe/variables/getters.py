"""``operator.attrgetter``, ``itemgetter`` and ``methodcaller``: C code that reads objects.

What they read is read by the translator instead, so that it is guarded.
"""

from __future__ import annotations

import functools
import operator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stillframe.variables.translator import Translator

GETTERS = frozenset({operator.attrgetter, operator.itemgetter, operator.methodcaller})


def call_getter(tx: Translator, getter: Any, *values: Any) -> Any:
    """``getter(value)``."""
    if len(values) != 1:
        return getter(*values)  # says what is wrong
    (value,) = values
    made_by, arguments = getter.__reduce__()
    if type(getter) is operator.methodcaller:
        named = made_by.keywords if type(made_by) is functools.partial else {}
        name, *given = arguments if type(made_by) is not functools.partial else (
            *made_by.args, *arguments
        )  # fmt: skip
        return tx.call(tx.load_attr(value, name), tuple(given), named)
    is_path = type(getter) is operator.attrgetter
    found = tuple(
        _attribute(tx, value, key) if is_path else tx.load_item(value, key) for key in arguments
    )
    return found if len(found) > 1 else found[0]


def _attribute(tx: Translator, value: Any, path: str) -> Any:
    for name in path.split("."):
        value = tx.load_attr(value, name)
    return value
