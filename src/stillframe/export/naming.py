"""Names of placeholders: user inputs by their path, lifted ones by prefix and FQN.

Names are worked out before anything is traced, user inputs first, so that a user's name always
wins and no renaming pass is needed: an operator node that wants the name ``mul`` of a user's
argument becomes ``mul_1`` when it is made.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from stillframe.export.signature import InputKind

PREFIXES: dict[InputKind, str] = {
    InputKind.USER_INPUT: "",
    InputKind.PARAMETER: "p_",
    InputKind.BUFFER: "b_",
    InputKind.CONSTANT_TENSOR: "c_",
    InputKind.CUSTOM_OBJ: "obj_",
    InputKind.TOKEN: "token",
}


class Names:
    """Hands out unique placeholder names."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def claim(self, wanted: str) -> str:
        """``wanted``, or with ``_1``, ``_2``, ... where it is taken."""
        name = wanted
        count = 0
        while name in self._taken:
            count += 1
            name = f"{wanted}_{count}"
        self._taken.add(name)
        return name

    def claim_all(self, wanted: Iterable[str]) -> list[str]:
        """:meth:`claim` for each, in order."""
        return [self.claim(name) for name in wanted]

    def lifted(self, kind: InputKind, fqn: str) -> str:
        """A name for lifted state: prefix and FQN, lower-cased, other characters as ``_``."""
        text = re.sub(r"[^a-z0-9]", "_", fqn.lower())
        return self.claim(PREFIXES[kind] + text)
