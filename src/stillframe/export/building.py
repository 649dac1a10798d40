"""From a finished run to its program: what it returns, what it holds, and what it says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils import _pytree as pytree

from stillframe import torch_private
from stillframe.errors import NotSupported
from stillframe.export import constraints, effects, passes
from stillframe.export.assumptions import assumptions
from stillframe.export.attribute_stores import AttributeStore
from stillframe.export.conditions import Conditions
from stillframe.export.inputs import FakeInputs
from stillframe.export.module_calls import SYMBOLIC_ARGUMENTS, SignatureCollector
from stillframe.export.ownership import own_tensors
from stillframe.export.placeholders import Placeholders
from stillframe.export.program import ExportedProgram
from stillframe.export.request import Original, Request
from stillframe.export.signature import (
    ConstantArgument,
    ExportGraphSignature,
    ModuleCallEntry,
    ModuleCallSignature,
    OutputKind,
    OutputSpec,
    TensorArgument,
)
from stillframe.export.verdicts import static_dims
from stillframe.fake.tensor import FakeTensor
from stillframe.shapes.env import ShapeEnv, to_size
from stillframe.symbolic import Expr
from stillframe.trace.recorder import Recorder


def make_output(
    recorder: Recorder,
    stores: Sequence[AttributeStore],
    names: Mapping[int, str],
    outputs: Sequence[Any],
) -> list[OutputSpec]:
    """End the graph with what it returns.

    Args:
        recorder: has the graph.
        stores: the attributes that forward sets on inputs.
        names: identity of each input -> name of its placeholder.
        outputs: what forward returned, flat.

    Returns:
        What each result of the graph is.

    Raises:
        NotSupported: a value that a graph cannot return.
    """
    specs = []
    operands = []
    for store in stores:
        operand, argument = _result(recorder, store.value)
        operands.append(operand)
        target = names[id(store.tensor)]
        specs.append(OutputSpec(OutputKind.USER_INPUT_ATTRIBUTE, argument, target, store.name))
    for i, value in enumerate(outputs):
        operand, argument = _result(recorder, value)
        if argument is None:
            raise NotSupported(
                f"Output {i} of forward is of {type(value)}, which a program cannot return.",
                why="programs return tensors, numbers, strings, None and containers of these",
                hints=[
                    "register its class as a container: torch.utils._pytree.register_pytree_node"
                ],
            )
        operands.append(operand)
        specs.append(OutputSpec(OutputKind.USER_OUTPUT, argument, None))
    recorder.flush_asserts()
    node = recorder.graph.output(tuple(operands))
    node.meta["val"] = (*(store.value for store in stores), *outputs)
    return specs


def _result(recorder: Recorder, value: Any) -> tuple[Any, Any]:
    """What the graph returns for a value, and its argument; None for that if it cannot."""
    if isinstance(value, torch.Tensor):
        node = recorder.operand(value)
        return node, TensorArgument(node.name)
    size = to_size(value)
    if isinstance(size, Expr):
        node = recorder.operand(value)
        return node, SYMBOLIC_ARGUMENTS[size.sort](node.name)
    if value is None or isinstance(value, (int, float, bool, str)):
        return value, ConstantArgument("", value)
    return None, None


@dataclass(frozen=True, eq=False)
class Finished:
    """A run that is over.

    Attributes:
        request, original: what was asked for.
        env, recorder: what was assumed, and the graph with its output.
        placeholders, inputs: of the graph, and what stood for the example.
        fakes: identity of each parameter and buffer -> what stood for it.
        calls: the calls of submodules whose signatures are kept.
        conditions: what holds in every call.
        output_specs, out_spec: what the graph returns, and the structure of the result.
        notes: sentences about what forward did.
    """

    request: Request
    original: Original
    env: ShapeEnv
    recorder: Recorder
    placeholders: Placeholders
    inputs: FakeInputs
    fakes: dict[int, FakeTensor]
    calls: SignatureCollector
    conditions: Conditions
    output_specs: list[OutputSpec]
    out_spec: pytree.TreeSpec
    notes: list[str]


def build(run: Finished) -> ExportedProgram:
    """The program of a run."""
    original, recorder, found = run.original, run.recorder, run.conditions
    root, lifted, inputs = original.root, run.placeholders.lifted, run.inputs
    graph_module = _graph_module(run)
    _set_requires_grad(original.leaves, inputs.leaves)
    state_dict, tensors = _own_tensors(run)
    constants = {**tensors, **run.placeholders.objects}
    specs = run.placeholders.specs(inputs.leaves)
    return ExportedProgram(
        graph_module=graph_module,
        graph_signature=ExportGraphSignature(specs, run.output_specs),
        state_dict=state_dict,
        constants=constants,
        range_constraints=constraints.range_constraints(run.env, _input_sizes(inputs.leaves)),
        guards=found.guards,
        module_call_graph=_module_call_graph(run),
        example_inputs=(run.request.args, run.request.kwargs),
        call_spec=original.call_spec,
        out_spec=run.out_spec,
        training=root.training,
        root_class=type(root).__name__,
        dim_names=inputs.dim_names,
        verdicts=found.verdicts,
        proposed_spec=found.proposed_spec,
        assumptions=assumptions(
            recorder.reads.found.values(),
            dict(zip(run.placeholders.user_names, inputs.leaves, strict=True)),
            run.placeholders.state_fakes(run.fakes),
        ),
        notes=[
            *run.notes,
            *recorder.notes,
            *run.calls.notes(recorder.graph),
            *static_dims(found.verdicts),
            *effects.notes(constants, lifted),
        ],
        fallbacks=recorder.fake_mode.fallbacks,
        runtime_asserts=run.request.runtime_asserts,
    )


def _graph_module(run: Finished) -> torch.fx.GraphModule:
    recorder, root = run.recorder, run.original.root
    for graph in (*recorder.subgraphs, recorder.graph):
        passes.run(graph)
    graph_module = torch_private.lazy_graph_module(recorder.graph, recorder.root)
    if isinstance(root, torch.fx.GraphModule):
        graph_module.meta.update(root.meta)
    return graph_module


def _set_requires_grad(leaves: Sequence[Any], fakes: Sequence[Any]) -> None:
    """Placeholders say whether the user's tensors require grad, whatever the run changed."""
    for leaf, fake in zip(leaves, fakes, strict=True):
        if isinstance(leaf, torch.Tensor) and fake.requires_grad != leaf.requires_grad:
            fake.requires_grad_(leaf.requires_grad)


def _own_tensors(run: Finished) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """``(state_dict, constants)`` of the program."""
    placeholders, table = run.placeholders, run.original.state
    left_out = [s.target for s in placeholders.lifted if s.persistent is False]
    named = {fqn: run.fakes[id(real)] for fqn, real in table.items()}
    named |= placeholders.constant_fakes
    written = [fqn for fqn, fake in named.items() if fake.storage_.written]
    state, constants = own_tensors(table, placeholders.constants, written)
    constants |= {fqn: state.pop(fqn) for fqn in left_out if fqn is not None}
    return state, constants


def _module_call_graph(run: Finished) -> list[ModuleCallEntry]:
    signature = ModuleCallSignature([], [], run.original.in_spec, run.out_spec)
    paths = [path for path, _ in run.original.modules[1:]]
    return [ModuleCallEntry("", signature), *run.calls.entries(paths)]


def _input_sizes(leaves: Iterable[Any]) -> list[Expr]:
    """The distinct symbolic sizes of the inputs, in order."""
    sizes: dict[Expr, None] = {}
    for leaf in leaves:
        if isinstance(leaf, FakeTensor):
            for size in leaf.sizes:
                if isinstance(size, Expr):
                    sizes[size] = None
        elif isinstance(to_size(leaf), Expr) and to_size(leaf).sort == "int":
            sizes[to_size(leaf)] = None
    return list(sizes)
