"""Tensors from before a branch that its ways write: ``if c: y.add_(1)``.

The operator takes functions that change nothing. So each way works on a copy of such a tensor and
returns it as one more result, and behind the branch that is copied into the tensor, whose views see
it. Which tensors these are is found out by running the ways: a write to another one ends the run,
and the ways are run again with that one copied. Where branches are nested, the inner ones remember
it, so that no branch is given up twice for one tensor.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from stillframe.errors import ConversionError
from stillframe.export.converting.refusals import refusal
from stillframe.export.converting.results import Packed
from stillframe.export.converting.ways import modes_of_torch
from stillframe.export.strict.running import set_modes, switched_modes
from stillframe.fake.tensor import FakeTensor
from stillframe.frames.frame import Frame
from stillframe.shapes.env import to_size
from stillframe.shapes.layout import is_non_overlapping_and_dense
from stillframe.trace.subgraphs import Subgraph, WritesOutside, graph_of

if TYPE_CHECKING:
    from stillframe.export.converting.policy import ConvertingPolicy

#: So many tensors may be written on the ways of one branch.
MOST = 16


class Written:
    """The tensors that the ways of one branch write.

    Args:
        policy: the policy of the machine.
        frame: the frame that branches.
    """

    def __init__(self, policy: ConvertingPolicy, frame: Frame) -> None:
        self.policy, self.frame = policy, frame
        self._known = policy.written.setdefault((frame.decoded.code, frame.pc), [])
        self.tensors = [t for t in self._known if self._is_there(t)]
        self._ways: list[Subgraph] = []

    def found_by(self, run: Callable[[], Any]) -> Any:
        """What ``run`` gives, once all tensors that the ways write are known.

        Raises:
            ConversionError: the ways write what cannot be copied.
        """
        recorder, aliases = self.policy.recorder, self.policy.aliases
        env = recorder.env
        before = list(env.deferred), len(env.unchecked), len(recorder.subgraphs), aliases.count
        modes, all_modes = switched_modes(), modes_of_torch()
        while True:
            try:
                found = run()
                if not self.policy.ways:
                    self.policy.written.clear()
                return found
            except ConversionError as error:
                write = error.__cause__
                if not isinstance(write, WritesOutside) or write.subgraph not in self._ways:
                    raise  # of a loop on a way, which has no copies
                if not self._can_be_copied(write.tensor):
                    raise
                self.tensors.append(write.tensor)
                self._known.append(write.tensor)
                why = error
            env.deferred[:] = before[0]
            del env.unchecked[before[1] :]
            set_modes(*modes)  # the error passed the blocks of the program by
            del recorder.subgraphs[before[2] :]
            aliases.forget(before[3])
            if modes_of_torch() != all_modes:
                raise why

    def _is_there(self, tensor: FakeTensor) -> bool:
        """Whether a tensor was not made on another way, or in a run that was given up."""
        node = tensor.fx_node
        return node is None or self.policy.recorder.place.reaches(graph_of(node))

    def _can_be_copied(self, tensor: FakeTensor) -> bool:
        """Whether a copy has the same layout, and nobody else here has the same memory."""
        known = any(tensor.storage_ is other.storage_ for other in self.tensors)
        is_number = tensor.constant is not None or tensor.symbolic_value is not None
        plain = tensor.sparse is None and to_size(tensor.offset) == 0
        return (
            not known
            and not is_number
            and plain
            and len(self.tensors) < MOST
            and is_non_overlapping_and_dense(tensor.sizes, tensor.strides)
        )

    @contextlib.contextmanager
    def copied(self) -> Iterator[None]:
        """Inside, which is a way, the tensors are copies."""
        subgraph = self.policy.recorder.subgraph
        assert subgraph is not None
        self._ways.append(subgraph)
        before = [(t, t.requires_grad, t.sizes, t.strides) for t in self.tensors]
        for tensor in self.tensors:
            subgraph.copy_in(tensor)
        yield
        for tensor, requires_grad, sizes, strides in before:
            if (tensor.sizes, tensor.strides) != (sizes, strides):
                raise refusal(
                    self.frame, "effect", "A branch on data changes the sizes of a tensor in place "
                    "(rule: effect).",
                    hint="make a new tensor",
                )  # fmt: skip
            if tensor.requires_grad != requires_grad:
                tensor.requires_grad_(requires_grad)

    def values(self) -> dict[str, Any]:
        """What a way returns for them."""
        return {_name(i): tensor for i, tensor in enumerate(self.tensors)}

    def write_back(self, packed: Packed, results: list[Any]) -> None:
        """Copy the results into the tensors.

        To who counts writes this is none: those on the ways were counted, and the tensors have now
        the values that they have had since.
        """
        by_name = {packed.name_of(p): r for p, r in zip(packed.places(), results, strict=True)}
        for i, tensor in enumerate(self.tensors):
            count = tensor.storage_.written
            tensor.copy_(by_name[_name(i)])
            tensor.storage_.written = count


def _name(index: int) -> str:
    return f"what is written ({index})"
