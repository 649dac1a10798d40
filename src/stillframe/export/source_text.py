"""Pieces of generated Python: unique names, bound objects, constants as text.

Generated text is compiled, and the names and values in it may come from a file that nobody checked.
So every name goes through :meth:`Namespace.local` or :meth:`Namespace.bind`, which only give out
identifiers, and values are written by :meth:`Namespace.constant`, which writes literals of plain
types and binds everything else as a global.
"""

from __future__ import annotations

import itertools
import keyword
import math
import re
from typing import Any

# Names that printed expressions use. Locals keep clear of them where they can.
EXPRESSION_NAMES = frozenset({"max", "min", "abs", "float", "int", "round", "math"})


class Namespace:
    """The names of one generated function.

    Attributes:
        values: what the globals are bound to.
        origins: global name -> how a person would write its value.
    """

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.origins: dict[str, str] = {}
        self._taken: set[str] = set(keyword.kwlist)
        self._bound: dict[tuple[type, int], str] = {}

    def reserve(self, name: str) -> str:
        """Take exactly ``name`` (a parameter: it cannot be called otherwise)."""
        if not name.isidentifier() or keyword.iskeyword(name):
            raise ValueError(f"{name!r} is not a name")
        self._taken.add(name)
        return name

    def is_taken(self, name: str) -> bool:
        """Whether ``name`` is in use."""
        return name in self._taken

    def local(self, wanted: str) -> str:
        """A name not used so far, ``wanted`` if possible."""
        text = re.sub(r"[^A-Za-z0-9_]", "_", wanted) or "_"
        if text[0].isdigit():
            text = f"_{text}"
        name = text
        for count in itertools.count(1):
            if name not in self._taken and name not in EXPRESSION_NAMES:
                break
            name = f"{text}_{count}"
        self._taken.add(name)
        return name

    def bind(self, wanted: str, value: Any, origin: str = "") -> str:
        """The global that is bound to ``value``; one for each object."""
        key = (type(value), id(value))
        name = self._bound.get(key)
        if name is None:
            name = self._bound[key] = self.local(wanted)
            self.values[name] = value  # also keeps the object alive, and so its id
            self.origins[name] = origin or one_line(repr(value))
        return name

    def builtin(self, function: Any) -> str:
        """The name of a builtin function, which a parameter may have taken."""
        name = function.__name__
        return name if not self.is_taken(name) else self.bind(f"builtin_{name}", function)

    def constant(self, value: Any) -> str:
        """``value`` as text: a literal of a plain type, else a bound global."""
        kind = type(value)
        if value is None or kind in (bool, int, str):
            return repr(value)
        if kind is float and math.isfinite(value):
            return repr(value)
        if kind in (tuple, list):
            items = ", ".join(self.constant(v) for v in value)
            if kind is list:
                return f"[{items}]"
            return f"({items},)" if len(value) == 1 else f"({items})"
        return self.bind(_name_for(value), value)


def _name_for(value: Any) -> str:
    if isinstance(value, float):
        return "nan" if math.isnan(value) else "inf" if value > 0 else "minus_inf"
    text = str(value).removeprefix("torch.")
    return text if text.isidentifier() else f"constant_{type(value).__name__}"


def one_line(text: str, limit: int = 100) -> str:
    """``text`` fit for a comment: printable, one line, not too long."""
    text = "".join(c if c.isprintable() else " " for c in text)
    return text if len(text) <= limit else text[: limit - 3] + "..."
