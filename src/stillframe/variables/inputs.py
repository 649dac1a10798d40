"""The inputs of a captured frame's graph, as they are made: symbols for sizes, a fake, guards."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from stillframe import torch_private
from stillframe.context import TracingContext
from stillframe.errors import NotSupported
from stillframe.fake.tensor import FakeTensor
from stillframe.guards import install_guard
from stillframe.guards.kinds.registry import kind as guard_kind
from stillframe.shapes.env import ShapeEnv, to_size
from stillframe.source import (
    FloatTensorSource,
    Source,
    TensorProperty,
    TensorPropertySource,
    is_constant_source,
    placeholder_name,
)
from stillframe.symbolic import Expr, Range
from stillframe.trace.recorder import Recorder
from stillframe.variables.dynamism import (
    Constraint,
    DimDynamic,
    FrameState,
    StatefulSymbolicContext,
    StatelessSymbolicContext,
    StrictMinMaxConstraint,
    hint_of_size,
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
        tracked_fakes: the fakes whose sizes the guards speak of, and the symbolic numbers.
        dim_names: the user's names of sizes, by the name of the size's source.
        real_values: in export: copies of the examples of tensors, by the node.
        sources_of: where a tensor is read, by its identity.
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
        self.dim_names: dict[str, str] = {}
        self.real_values: dict[torch.fx.Node, torch.Tensor] = {}
        self.sources_of: dict[int, list[Source]] = {}
        self._given_contexts: dict[Source, StatelessSymbolicContext] = {}
        self._duck: dict[int, Expr] = {}
        self._names: set[str] = set()
        self._other_places: list[tuple[Source, Any]] = []

    # -- tensors ------------------------------------------------------------------------------

    def placeholder(self, source: Source) -> torch.fx.Node:
        """A new input of the graph, after those that there are; its value is not known yet."""
        name = self._free_name(placeholder_name(source).strip("_"))
        with self._after_inputs():
            return self.recorder.placeholder(name, None)

    def attribute(self, source: Source, value: torch.Tensor) -> torch.fx.Node:
        """A tensor that cannot change, as an attribute of the graph's module."""
        name = self._free_name(placeholder_name(source).strip("_"))
        recorder = self.recorder
        with recorder.at_root():
            setattr(recorder.root, name, value)
            return recorder.graph.get_attr(name)

    def tensor(self, source: Source, real: torch.Tensor) -> FakeTensor:
        """The fake for a tensor that was made for the capture, from what is read at a source."""
        fake: FakeTensor = self.fake_and_record(source, real, self.placeholder(source), keep=True)
        match = functools.partial(
            guard_kind("TENSOR_MATCH"),
            sizes=[s if type(s) is int else None for s in fake.sizes],
            strides=[s if type(s) is int else None for s in fake.strides],
        )
        install_guard(source.make_guard(match))
        return fake

    def fake_and_record(
        self, source: Source, real: Any, node: torch.fx.Node, keep: bool = False
    ) -> Any:
        """The fake for a tensor from outside, and a note of it; other values pass.

        Args:
            source: where it is read.
            real: the tensor.
            node: the input that it becomes, or the attribute.
            keep: nobody else keeps the tensor.

        Raises:
            NotSupported: there are no fakes of such tensors.
        """
        if not isinstance(real, torch.Tensor):
            return real
        context = self.context(source, real)
        fake = self._fake(source, real, context)
        self.recorder.fake_mode.stand_in(real, fake)
        self.sources_of.setdefault(id(real), []).append(source)
        if node.op == "get_attr":
            node.meta["val"], fake.fx_node = fake, node
            return fake
        fake.storage_.given = True
        argument = GraphArg(source, real, fake, keep=keep)
        argument.made_plain = not torch_private.ignores_torch_function(type(real)) and (
            type(real) is not torch.Tensor
        )
        self._add(argument, fake, node)
        node.meta["tensor_dict"] = dict(vars(real))
        self.tracked_fakes.append(TrackedFake(fake, source, context))
        return fake

    def context(self, source: Source, real: torch.Tensor) -> StatelessSymbolicContext:
        """How the sizes of an input are made symbols: as its parent says, as at the last attempt,
        or as what was marked and seen says."""
        if source in self._given_contexts:
            return self._given_contexts[source]
        contexts = TracingContext.get().tensor_to_context
        known = contexts.get(real)
        if known is not None and known.tensor_source == source:
            return known  # type: ignore[no-any-return]
        static = is_always_static(real, source.is_nn_module(), self.options)
        static = static or is_constant_source(source)
        made = symbolic_context(
            real, source, self.frame_state, self.options, static, self.dim_names
        )
        contexts[real] = made
        return made

    def give_context(self, source: Source, context: StatelessSymbolicContext) -> None:
        """The tensor at a source is a part of another one, which says how its sizes are made."""
        self._given_contexts[source] = context

    def _fake(
        self, source: Source, real: torch.Tensor, context: StatelessSymbolicContext
    ) -> FakeTensor:
        sizes = [self._size(source, dim, real, context) for dim in range(real.dim())]
        is_parameter = isinstance(real, torch.nn.Parameter)
        if type(real) not in (torch.Tensor, torch.nn.Parameter, FakeTensor):
            with torch_private.no_torch_dispatch(), torch_private.no_torch_function():
                real = real.as_subclass(torch.Tensor)
        fake = self._like(real, sizes, context)
        if is_parameter:
            fake._is_param = True
        return fake

    def _like(
        self,
        real: torch.Tensor,
        sizes: Sequence[int | Expr],
        context: StatelessSymbolicContext,
    ) -> FakeTensor:
        if all(type(size) is int for size in sizes):
            return FakeTensor.like_real(self.env, real, sizes)
        try:
            return FakeTensor.like_real(self.env, real, sizes)
        except NotSupported:  # its memory has gaps: with static sizes that is no matter
            if any(constraint is not None and not constraint.warn_only
                   for constraint in context.constraint_sizes):  # fmt: skip
                raise
            return FakeTensor.like_real(self.env, real, tuple(map(int, real.shape)))

    def _size(
        self, source: Source, dim: int, real: torch.Tensor, context: StatelessSymbolicContext
    ) -> int | Expr:
        how, constraint = context.dynamic_sizes[dim], context.constraint_sizes[dim]
        size = hint_of_size(real, dim)
        if how is DimDynamic.STATIC:
            return int(real.shape[dim])
        name = TensorPropertySource(source, TensorProperty.SIZE, dim).name()
        known = self._symbols_of(context)
        if name not in known:
            kept = constraint is not None and not constraint.warn_only
            kept = kept or type(real.shape[dim]) is not int  # it is a symbol of the caller
            known[name] = self._new_size(name, size, how, constraint, kept)
        return known[name]

    def _symbols_of(self, context: StatelessSymbolicContext) -> dict[str, int | Expr]:
        if not isinstance(context, StatefulSymbolicContext):
            return {}
        return context.symbols.setdefault(self.env, {})

    def _new_size(
        self, name: str, size: int | None, how: DimDynamic, constraint: Constraint, kept: bool
    ) -> int | Expr:
        """A size as a symbol; 0 and 1 stay numbers unless ``kept``."""
        if how is DimDynamic.SIZE_LIKE_UNBACKED or size is None:
            made = self.env.new_unbacked()
            self.env.take_fresh_unbacked()  # the input binds it
            return made
        if size in (0, 1) and not kept:
            return size
        if how is DimDynamic.DUCK and size in self._duck:
            return self._duck[size]
        bounds = Range(2 if size >= 2 else 0, math.inf)
        policy = "dynamic" if kept else "auto"
        if isinstance(constraint, StrictMinMaxConstraint):
            bounds, policy = constraint.range, "declared"
        made = self.env.new_symbol(name, size, bounds, policy=policy, source=name)
        if how is DimDynamic.DUCK:
            self._duck[size] = made
        return made

    # -- numbers ------------------------------------------------------------------------------

    def float(self, source: Source, value: float) -> Any:
        """A float as an input: a 0-dim tensor, of which the graph reads the number."""
        place = FloatTensorSource(source)
        fake = self.recorder.fake_mode.ctx.empty((), dtype=torch.float64)
        self.add(GraphArg(place, value, fake, is_tensor=False), fake)
        with self.recorder.at_root():  # also where a body of a higher-order call reads it first
            return torch.ops.aten.item.default(fake)

    def add(self, argument: GraphArg, value: Any) -> torch.fx.Node:
        """A new input of the graph that is no tensor from outside."""
        assert argument.source is not None
        node = self.placeholder(argument.source)
        self._add(argument, value, node)
        return node

    def _add(self, argument: GraphArg, value: Any, node: torch.fx.Node) -> None:
        self.arguments.append(argument)
        node.meta["grapharg"] = argument
        with self.recorder.at_root():
            self.recorder.stands_for(node, value)

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

    def number(self, source: Source, symbol: Any) -> None:
        """A symbolic number that is read at a source becomes an input."""
        self.add(GraphArg(source, None, symbol, is_tensor=False), symbol)
        self.tracked_fakes.append(TrackedFake(symbol, source, None))

    def note_sizes(self, source: Source, tensor: torch.Tensor) -> None:
        """A tensor that is no input itself is read at a source, and has sizes of inputs."""
        numbers = [(TensorProperty.SIZE, i, n) for i, n in enumerate(tensor.shape)]
        numbers += [(TensorProperty.STRIDE, i, n) for i, n in enumerate(tensor.stride())]
        self._other_places += [
            (TensorPropertySource(source, kind, i), to_size(number))
            for kind, i, number in numbers
            if type(number) is not int
        ]

    def number_places(self) -> list[tuple[Source, Any]]:
        """Each place that tells a size, a stride or a number, and what it was."""
        places = list(self._other_places)
        for tracked in self.tracked_fakes:
            fake = tracked.fake
            if tracked.symbolic_context is None:
                places.append((tracked.source, to_size(fake)))
                continue
            for kind, numbers in (
                (TensorProperty.SIZE, fake.sizes), (TensorProperty.STRIDE, fake.strides),
            ):  # fmt: skip
                places += [
                    (TensorPropertySource(tracked.source, kind, i), n)
                    for i, n in enumerate(numbers)
                    if type(n) is not int
                ]
        return places
