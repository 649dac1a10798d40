"""The inputs of a captured frame's graph, as they are made: symbols for sizes, a fake, guards."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Iterator
from typing import Any

import torch

from stillframe import torch_private
from stillframe.fake.tensor import FakeTensor
from stillframe.guards import install_guard
from stillframe.guards.kinds.registry import kind as guard_kind
from stillframe.shapes.env import ShapeEnv
from stillframe.source import (
    FloatTensorSource,
    Source,
    TensorProperty,
    TensorPropertySource,
    placeholder_name,
)
from stillframe.symbolic import Expr, Range
from stillframe.trace.recorder import Recorder
from stillframe.variables.dynamism import (
    DimDynamic,
    FrameState,
    StatelessSymbolicContext,
    is_always_static,
    symbolic_context,
)
from stillframe.variables.graph_inputs import GraphArg, TrackedFake
from stillframe.variables.options import Options


class GraphInputs:
    """The inputs of one graph.

    Args:
        env: gets the symbols.
        recorder: makes the placeholders.
        frame_state: what the frame's inputs were in earlier compilations.
        options: what is specialised.

    Attributes:
        arguments: the inputs, in the order of the placeholders.
        tracked_fakes: the fakes whose sizes the guards speak of.
    """

    def __init__(
        self, env: ShapeEnv, recorder: Recorder, frame_state: FrameState, options: Options
    ) -> None:
        self.env = env
        self.recorder = recorder
        self.frame_state = frame_state
        self.options = options
        self.arguments: list[GraphArg] = []
        self.tracked_fakes: list[TrackedFake] = []
        self._number_places: list[tuple[Source, Expr]] = []
        self._duck: dict[int, Expr] = {}
        self._names: set[str] = set()

    def tensor(self, source: Source, real: torch.Tensor, keep: bool = False) -> FakeTensor:
        """The fake for a tensor from outside, an input of the graph, and its guards.

        Args:
            keep: the tensor was made for the capture, so nobody else keeps it.
        """
        context = symbolic_context(
            real, source, self.frame_state, self.options,
            is_always_static(real, source.is_nn_module(), self.options),
        )  # fmt: skip
        sizes = [self._size(source, dim, real, context) for dim in range(real.dim())]
        fake = FakeTensor.like_real(self.env, real, sizes)
        self.recorder.fake_mode.stand_in(real, fake)
        self.add(GraphArg(source, real, fake, keep=keep), fake)
        self.tracked_fakes.append(TrackedFake(fake, source, context))
        match = functools.partial(
            guard_kind("TENSOR_MATCH"),
            sizes=[s if type(s) is int else None for s in fake.sizes],
            strides=[s if type(s) is int else None for s in fake.strides],
        )
        install_guard(source.make_guard(match))
        return fake

    def _size(
        self, source: Source, dim: int, real: torch.Tensor, context: StatelessSymbolicContext
    ) -> int | Expr:
        how, size = context.dynamic_sizes[dim], int(real.shape[dim])
        if how is DimDynamic.STATIC or (size in (0, 1) and how is DimDynamic.DUCK):
            return size
        name = TensorPropertySource(source, TensorProperty.SIZE, dim).name()
        if how is DimDynamic.DUCK and size in self._duck:
            return self._duck[size]
        lower = 2 if size >= 2 else 0
        made = self.env.new_symbol(name, size, Range(lower, math.inf), policy="auto", source=name)
        if how is DimDynamic.DUCK:
            self._duck[size] = made
        return made

    def float(self, source: Source, value: float) -> Any:
        """A float as an input: a 0-dim tensor, of which the graph reads the number."""
        place = FloatTensorSource(source)
        fake = self.recorder.fake_mode.ctx.empty((), dtype=torch.float64)
        self.add(GraphArg(place, value, fake, is_tensor=False), fake)
        return torch.ops.aten.item.default(fake)

    def add(self, argument: GraphArg, value: Any) -> torch.fx.Node:
        """The placeholder of a new input of the graph, after those that there are."""
        self.arguments.append(argument)
        assert argument.source is not None
        name = self._free_name(placeholder_name(argument.source).strip("_"))
        with self._after_inputs():
            return self.recorder.placeholder(name, value)

    @contextlib.contextmanager
    def _after_inputs(self) -> Iterator[None]:
        """Nodes are made in the outermost graph inside, before everything that is computed."""
        recorder = self.recorder
        with recorder.at_root():
            first = next((n for n in recorder.graph.nodes if n.op != "placeholder"), None)
            if first is None:
                yield
                return
            with recorder.graph.inserting_before(first):
                yield

    def constant(self, real: torch.Tensor, fake: FakeTensor) -> torch.fx.Node:
        """A tensor that the graph holds itself; programs get copies of it."""
        with self._after_inputs():
            root = self.recorder.root
            name = self._free_name("_tensor_constant")
            with torch_private.ambient_modes_off():
                root.register_buffer(name, real.detach().clone())
            node = self.recorder.graph.get_attr(name)
            node.meta["val"] = fake
        return node

    def held(self, name: str, value: Any) -> torch.fx.Node:
        """An object that lasts, as an attribute of the graph."""
        with self._after_inputs():
            name = self._free_name(f"_{name}")
            setattr(self.recorder.root, name, value)
            node = self.recorder.graph.get_attr(name)
            node.meta["val"] = value
        return node

    def _free_name(self, wanted: str) -> str:
        name, count = wanted, 0
        while name in self._names:
            count += 1
            name = f"{wanted}_{count}"
        self._names.add(name)
        return name

    def note_number(self, source: Source, number: Expr) -> None:
        """A symbolic number is read at a source."""
        self._number_places.append((source, number))

    def number_places(self) -> list[tuple[Source, Any]]:
        """Each place that tells a size, a stride or a number, and what it was."""
        places: list[tuple[Source, Any]] = list(self._number_places)
        for tracked in self.tracked_fakes:
            fake = tracked.fake
            for kind, numbers in (
                (TensorProperty.SIZE, fake.sizes), (TensorProperty.STRIDE, fake.strides),
            ):  # fmt: skip
                places += [
                    (TensorPropertySource(tracked.source, kind, i), n)
                    for i, n in enumerate(numbers)
                    if type(n) is not int
                ]
        return places
