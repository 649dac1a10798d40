"""Translator: the policy under which a frame is captured with guards.

Every value from outside is reached by a read, and every read has a source: a local or global of the
frame, an attribute or an item of another value. The translator hands the value and its source to
:class:`VariableBuilder`, which notes what is relied on there, and gives the program what stands for
the value: a fake for a tensor, a symbol for a number that varies, else the value itself. Writes to
what was there before go through :class:`SideEffects`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from stillframe.fake.tensor import FakeTensor
from stillframe.variables.translating.calls import Calls


class Translator(Calls):
    """Runs one frame.

    Each layer below overrides the part of the policy that it is named for. What they know of the
    frame is in :class:`~stillframe.variables.translating.state.State`.
    """

    # -- tensors that operators meet --------------------------------------------------------------

    def realize_tensor(self, value: Any) -> None:
        self.variable(value)

    def refuse_constant(self, real: torch.Tensor, fake: FakeTensor) -> torch.fx.Node:
        known = self.variable(real)
        if known is not None:
            return known.value.fx_node  # type: ignore[no-any-return]
        if self.arrays.is_computing:
            return self.arrays.hold(real, fake)  # type: ignore[no-any-return]
        if self._makes_constants:
            return self.inputs.constant(real, fake)
        raise self.graph_break(
            "An operator got a tensor from an unknown place.",
            why="code that was not watched has kept it, and no guard could name it",
            hints=["pass it as an argument, or keep it in a global or an attribute"],
        )

    @contextlib.contextmanager
    def fresh_constants(self) -> Iterator[None]:
        """Real tensors that operators meet inside were made from numbers that are known."""
        before, self._makes_constants = self._makes_constants, True
        try:
            yield
        finally:
            self._makes_constants = before
