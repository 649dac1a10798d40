"""The inputs of the graph: the module's state, what forward turns out to use, the user's inputs."""

from __future__ import annotations

import contextlib
from typing import Any

import torch

from stillframe.export import script_objects
from stillframe.export.inputs import FakeInputs
from stillframe.export.module_calls import SYMBOLIC_ARGUMENTS
from stillframe.export.naming import Names
from stillframe.export.request import Original
from stillframe.export.signature import (
    ArgumentSpec,
    ConstantArgument,
    InputKind,
    InputSpec,
    TensorArgument,
)
from stillframe.export.state import non_persistent
from stillframe.fake.script_objects import FakeScriptObject
from stillframe.fake.tensor import FakeTensor
from stillframe.shapes.env import to_size
from stillframe.symbolic import Expr
from stillframe.trace.recorder import Recorder, new_placeholder


class Placeholders:
    """Makes the placeholders of one run.

    Parameters and buffers come first, then constants and script objects in the order in which
    forward uses them, then the user's inputs.

    Args:
        original: the module and the example.
        recorder: has the graph.
        notes: gets a sentence for each constant that may surprise.

    Attributes:
        user_names: of the user's inputs.
        lifted: what the placeholders before those are.
        constants: FQN -> tensor that forward used, and that is neither parameter nor buffer.
        constant_fakes: FQN -> what stands for it in the run.
        objects: FQN -> script object that forward used.
    """

    def __init__(self, original: Original, recorder: Recorder, notes: list[str]) -> None:
        self._original = original
        self._recorder = recorder
        self._notes = notes
        self._names = Names()
        self._object_names = script_objects.names_of(original.objects)
        self._first_user_node: torch.fx.Node | None = None
        self.user_names = self._names.claim_all(original.call_spec.leaf_names)
        self.lifted: list[InputSpec] = []
        self.constants: dict[str, torch.Tensor] = {}
        self.constant_fakes: dict[str, FakeTensor] = {}
        self.objects: dict[str, torch.ScriptObject] = {}

    # -- what is known before the run ---------------------------------------------------------

    def make(self, inputs: FakeInputs, fakes: dict[int, FakeTensor]) -> None:
        """Those of the state and of the user's inputs.

        Args:
            fakes: identity of each parameter and buffer -> what stands for it.
        """
        self._make_state(fakes)
        for name, leaf in zip(self.user_names, inputs.leaves, strict=True):
            node = self._of_user(name, leaf)
            self._first_user_node = self._first_user_node or node
        for symbol, size, scale, offset in inputs.derived:
            self._recorder.symbols.bind_derived(symbol, size, scale, offset)

    def _make_state(self, fakes: dict[int, FakeTensor]) -> None:
        recorder = self._recorder
        left_out = non_persistent(self._original.modules)
        for kind, table in (
            (InputKind.PARAMETER, self._original.parameters),
            (InputKind.BUFFER, self._original.buffers),
        ):
            for fqn, real in table.items():
                name = self._names.lifted(kind, fqn)
                fake = fakes[id(real)]
                recorder.fake_mode.stand_in(real, fake)
                if kind is InputKind.BUFFER:
                    recorder.state_values[id(fake)] = real
                if fake.fx_node is None:
                    recorder.placeholder(name, fake)
                else:  # a tie: its first placeholder is the one that is used
                    new_placeholder(recorder.graph, name).meta["val"] = fake
                keep = None if kind is InputKind.PARAMETER else fqn not in left_out
                self.lifted.append(InputSpec(kind, TensorArgument(name), fqn, keep))

    def _of_user(self, name: str, leaf: Any) -> torch.fx.Node:
        if not isinstance(leaf, FakeScriptObject):
            return self._recorder.placeholder(name, leaf)
        node = self._recorder.placeholder(name, script_objects.argument(name, leaf))
        self._recorder.objects.bind(leaf, node)
        return node

    # -- what forward turns out to use --------------------------------------------------------

    def lift_constant(self, real: torch.Tensor, fake: FakeTensor) -> torch.fx.Node:
        """A real tensor that forward used becomes an input of its own, before the user's."""
        fqns = self.constant_names(real)
        fqn = fqns[0]
        name = self._names.lifted(InputKind.CONSTANT_TENSOR, fqn)
        node = self._new(name)
        node.meta["val"] = fake
        self._recorder.state_values[id(fake)] = real
        self.lifted.append(InputSpec(InputKind.CONSTANT_TENSOR, TensorArgument(name), fqn, None))
        # a leaf that requires grad is the module's own, as parameters are: gradients reach it
        kept = real if real.is_leaf and real.requires_grad else real.detach()
        self.constants.update(dict.fromkeys(fqns, kept))
        self.constant_fakes[fqn] = fake
        if real.requires_grad and not real.is_leaf:
            self._notes.append(
                f"{fqn} was computed from tensors that require grad: its value is a constant of "
                "the program, and no gradient goes on to them"
            )
        if isinstance(real, torch.nn.Parameter):
            self._notes.append(
                f"{fqn} is a Parameter that no module has registered: its value is a constant of "
                "the program, and it is not trained"
            )
        return node

    def lift_object(self, fake: FakeScriptObject) -> torch.fx.Node:
        """A script object that forward used becomes an input; the program has the real one."""
        made_up = f"lifted_custom_{len(self.objects)}"
        fqns = self._object_names.get(hash(fake.real_obj), [made_up])
        name = self._names.lifted(InputKind.CUSTOM_OBJ, fqns[0])
        node = self._new(name)
        stated = script_objects.argument(name, fake)
        node.meta["val"] = stated
        self.lifted.append(InputSpec(InputKind.CUSTOM_OBJ, stated, fqns[0], None))
        self.objects.update(dict.fromkeys(fqns, fake.real_obj))
        self._notes.append(
            f"{fqns[0]} is a script object ({fake.script_class_name}): the program and the module "
            "share it, so what one changes in it the other sees"
        )
        return node

    def _new(self, name: str) -> torch.fx.Node:
        """A placeholder before those of the user's inputs."""
        graph = self._recorder.graph
        place = self._first_user_node or next(
            (n for n in graph.nodes if n.op != "placeholder"), None
        )
        with graph.inserting_before(place) if place is not None else contextlib.nullcontext():
            return new_placeholder(graph, name)

    def constant_names(self, real: torch.Tensor) -> list[str]:
        """All attribute names of a constant, the first of them its own; else one made up."""
        found = [
            f"{path}.{name}" if path else name
            for path, module in self._original.modules
            for name, value in module.__dict__.items()
            if value is real
        ]
        if found:
            return found
        count = sum(1 for fqn in self.constants if "lifted_tensor_" in fqn)
        path = self._recorder.scope.path
        return [f"{path}.lifted_tensor_{count}" if path else f"lifted_tensor_{count}"]

    # -- after the run ------------------------------------------------------------------------

    def specs(self, leaves: list[Any]) -> list[InputSpec]:
        """What all placeholders are, in order.

        Args:
            leaves: what stands for each input of the user's.
        """
        users = [
            InputSpec(InputKind.USER_INPUT, _argument(name, leaf), None)
            for name, leaf in zip(self.user_names, leaves, strict=True)
        ]
        return [*self.lifted, *users]

    def leaves_that_require_grad(self) -> dict[str, str]:
        """Placeholder name -> how a person names it, for parameters and inputs autograd watches."""
        original = self._original
        named = {
            spec.arg.name: (f"the parameter self.{spec.target}", original.parameters[spec.target])
            for spec in self.lifted
            if spec.target in original.parameters
        }
        users = zip(self.user_names, original.paths, original.leaves, strict=True)
        named |= {name: (f"the input {path}", leaf) for name, path, leaf in users}
        return {
            name: text
            for name, (text, real) in named.items()
            if isinstance(real, torch.Tensor) and real.requires_grad and real.is_leaf
        }

    def state_fakes(self, fakes: dict[int, FakeTensor]) -> dict[str, FakeTensor]:
        """Placeholder name -> fake, for parameters and buffers."""
        state = self._original.state
        return {
            spec.arg.name: fakes[id(real)]
            for spec in self.lifted
            if (real := state.get(spec.target or "")) is not None
        }


def _argument(name: str, leaf: Any) -> ArgumentSpec:
    if isinstance(leaf, FakeTensor):
        return TensorArgument(name)
    if isinstance(leaf, FakeScriptObject):
        return script_objects.argument(name, leaf)
    size = to_size(leaf)
    if isinstance(size, Expr):
        argument: ArgumentSpec = SYMBOLIC_ARGUMENTS[size.sort](name)
        return argument
    return ConstantArgument(name, leaf)
