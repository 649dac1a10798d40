"""The recorders of an edit: what a function does becomes nodes of a graph that is being copied.

Names of the nodes that are copied are kept for them, new nodes take over where they come from of
the node that they stand for, and nothing may write the program's own values.
"""

from __future__ import annotations

import re
from typing import Any

import torch

from stillframe.errors import NotSupported
from stillframe.fake.tensor import FakeTensor
from stillframe.shapes.continued import ContinuedEnv
from stillframe.trace.functional import FunctionalRecorder
from stillframe.trace.operators import OperatorFacts, written_arguments
from stillframe.trace.recorder import LiftConstant, Recorder
from stillframe.trace.scope import ModuleScope

_META = ("nn_module_stack", "stack_trace", "torch_fn")


class _Editing(Recorder):
    """What both recorders share.

    Attributes:
        taken: names of nodes that nobody else may have.
        foreign: identities of the memory that functions may not write, with what it is for people.
    """

    def begin(self, taken: set[str]) -> None:
        """Keep these names for the nodes that are copied."""
        self.taken = taken
        self.foreign: dict[int, str] = {}

    def create(
        self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any], name: str | None = None
    ) -> torch.fx.Node:
        """As for every recorder, with a name that is not kept for another node."""
        node = super().create(target, args, kwargs, name)
        node.name = self.free_name(node.name)
        return node

    def free_name(self, wanted: str) -> str:
        """``wanted``, or with a number where it is taken."""
        name, count = wanted, 0
        base = re.sub(r"_\d+$", "", wanted)
        while name in self.taken:
            count += 1
            name = f"{base}_{count}"
        self.taken.add(name)
        return name

    def locate(self, node: torch.fx.Node) -> None:
        """A node comes from where the node that it stands for came from."""
        node.meta.update((k, self.origin[k]) for k in _META if k in self.origin)

    def check_write(self, tensor: Any) -> None:
        """Refuse to write a value that the function was given.

        Raises:
            NotSupported: names the value.
        """
        text = isinstance(tensor, FakeTensor) and self.foreign.get(id(tensor.storage_))
        if text:
            raise NotSupported(
                f"The function writes {text} in place.",
                why="what else the program does with that value would change with it",
                hints=["work on a copy (x.clone()), or return the new value"],
            )


class EditRecorder(_Editing):
    """For programs that may write: operators are recorded as they run."""

    def __init__(self, env: ContinuedEnv, lift_constant: LiftConstant) -> None:
        super().__init__(env, ModuleScope([]), lift_constant)

    def _note_writes(
        self, facts: OperatorFacts, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        for tensor in written_arguments(facts, args, kwargs):
            self.check_write(self.fake_mode.adopt(tensor))
        super()._note_writes(facts, args, kwargs)


class FunctionalEditRecorder(_Editing, FunctionalRecorder):
    """For functional programs: writes become values, and operators of the table are taken apart."""

    def write(self, target: FakeTensor, value: FakeTensor) -> None:
        """As for every functional recorder, for what the function itself made."""
        self.check_write(target)
        super().write(target, value)
