"""One run of the module under the recorder, and the checks around it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils import _pytree as pytree

from stillframe.export import effects, leftovers, script_objects, strict
from stillframe.export.attribute_stores import AttributeStore, AttributeStores
from stillframe.export.building import Finished, build, make_output
from stillframe.export.conditions import conditions
from stillframe.export.converting import ConvertingPolicy
from stillframe.export.identity import Identities
from stillframe.export.inputs import InputMaker
from stillframe.export.left_constants import Kept
from stillframe.export.module_calls import SignatureCollector
from stillframe.export.placeholders import Placeholders
from stillframe.export.program import ExportedProgram
from stillframe.export.request import Original, Request
from stillframe.export.rerun import run_graph, says_where_from
from stillframe.export.signature import OutputSpec
from stillframe.export.state import Change, RandomState, fake_state, swapped_state
from stillframe.export.state_changes import StateChanges
from stillframe.export.tensor_attributes import TensorAttributes, lost_attributes
from stillframe.export.texts import check_texts
from stillframe.fake.tensor import FakeTensor
from stillframe.shapes.env import ShapeEnv
from stillframe.symbolic import evaluate
from stillframe.trace.recorder import Recorder
from stillframe.trace.scope import ModuleScope


@dataclass(frozen=True, eq=False)
class Returned:
    """What forward gave.

    Attributes:
        outputs, out_spec: its result.
        stores: the attributes that it sets on inputs.
        trees: the arguments, the result and what it stores, as they were.
    """

    outputs: list[Any]
    out_spec: pytree.TreeSpec
    stores: list[AttributeStore]
    trees: tuple[Any, ...]

    @property
    def values(self) -> list[Any]:
        """All values that the program gives away."""
        return [*self.outputs, *(store.value for store in self.stores)]


class Capture:
    """One capture in progress.

    Args:
        request: what was asked for.
        moved: the sizes whose hints may be others than the example's; None for all.
        stale: what an earlier run left on the modules, which this one starts from.
        kept: the constants in it.

    Attributes:
        original: the module and the example.
        env, recorder: what is assumed, and the graph.
        placeholders, inputs: of the graph, and what stands for the example.
        notes: sentences about what forward does.
        left: what forward left on the modules.
        made: the constants in it.
    """

    def __init__(
        self,
        request: Request,
        moved: frozenset[str] | None,
        stale: Sequence[Change] = (),
        kept: Sequence[Kept] = (),
    ) -> None:
        self.request = request
        self.moved = moved
        self.stale = stale
        self.kept = kept
        self.restart()

    def restart(self) -> None:
        """Everything as before the run."""
        request = self.request
        self.original = Original(request)
        self.env = ShapeEnv()
        self.env.emits_asserts = request.runtime_asserts
        self.notes: list[str] = []
        self.left: list[Change] = []
        self.made: list[Kept] = []
        self.recorder = self._make_recorder()
        self.placeholders = Placeholders(self.original, self.recorder, self.notes)
        self.recorder.objects.lift = self.placeholders.lift_object
        self.calls = SignatureCollector(self.original.modules, request.preserved, self.recorder)
        if request.preserved:
            self.recorder.scope.observer = self.calls
        self.inputs = InputMaker(self.env, request.leaf_specs, request.assume, self.moved).make()
        self.inputs.leaves = script_objects.fake_inputs(
            self.inputs.leaves, self.original.paths, self.original.objects, self.recorder.objects
        )
        self.baseline = self.env.facts.copy()

    def _make_recorder(self) -> Recorder:
        scope = ModuleScope(self.original.modules)
        return Recorder(self.env, scope, self._lift_constant, self.request.floor)

    def _lift_constant(self, real: torch.Tensor, fake: FakeTensor) -> torch.fx.Node:
        """The recorder meets a tensor that it does not know."""
        return self.placeholders.lift_constant(real, fake)

    def admits_example(self) -> bool:
        """Whether the conditions that the run relied on hold for the example itself."""
        examples = {s: i.example for s, i in self.env.symbols.items() if i.example is not None}
        return all(evaluate(guard.expr, examples) for guard in self.env.guards)

    # -- the steps ----------------------------------------------------------------------------

    def run(self) -> ExportedProgram:
        """Run the module once under the recorder, and build the program."""
        fakes = fake_state(self.env, self.original.parameters, self.original.buffers)
        self._make_placeholders(fakes)
        returned = self._run_and_restore(fakes)
        names = [store.name for store in returned.stores]
        check_texts(self.env, [*returned.values, *names], returned.out_spec)
        self.notes += lost_attributes(returned.outputs)
        watched = self.placeholders.leaves_that_require_grad()
        effects.refuse_written_leaves(self.recorder.graph, watched)
        output_specs = self._make_output(returned)
        self.recorder.finish()
        found = conditions(self.request, self.env, self.baseline, self.inputs)
        self.notes += found.notes
        self.env.freeze()
        return self._build(
            Finished(
                request=self.request,
                original=self.original,
                env=self.env,
                recorder=self.recorder,
                placeholders=self.placeholders,
                inputs=self.inputs,
                fakes=fakes,
                calls=self.calls,
                conditions=found,
                output_specs=output_specs,
                out_spec=returned.out_spec,
                notes=self.notes,
            )
        )

    def _make_placeholders(self, fakes: dict[int, FakeTensor]) -> None:
        self.placeholders.make(self.inputs, fakes)

    def _make_output(self, returned: Returned) -> list[OutputSpec]:
        names = zip(self.inputs.leaves, self.placeholders.user_names, strict=True)
        by_identity = {id(leaf): name for leaf, name in names}
        return make_output(self.recorder, returned.stores, by_identity, returned.outputs)

    def _build(self, run: Finished) -> ExportedProgram:
        return build(run)

    def _run_and_restore(self, fakes: dict[int, FakeTensor]) -> Returned:
        """Run with fakes in the module, judge what it did there, and take that back."""
        random_state = RandomState()
        with (
            script_objects.swapped_objects(self.original.objects, self.recorder.objects),
            swapped_state(self.original.modules, fakes, self.request.method) as watch,
        ):
            try:
                stale = leftovers.leave_again(self.stale, self.kept)
                self.recorder.fake_mode.untouchable = {id(tensor): tensor for tensor in stale}
                attributes = self._tensor_attributes(fakes)
                returned = self._run_module()
                effects.check_random(random_state)
                attributes.check()
                changes = StateChanges(
                    self.original, self.recorder, self.placeholders, fakes, self.notes
                )
                changes.judge(
                    watch, self.inputs.leaves, returned.values, returned.trees,
                    kept=self.kept, sees_identity=self.request.strict,
                )  # fmt: skip
            finally:
                random_state.restore()
        self.left, self.made = changes.left, changes.made
        return returned

    def _tensor_attributes(self, fakes: dict[int, FakeTensor]) -> TensorAttributes:
        state = self.original.state.items()
        held = [(f"self.{fqn}", fakes[id(real)], real) for fqn, real in state]
        tensors = self.original.tensors(self.inputs.leaves)
        given = [(f"the input {path}", fake, real) for path, fake, real in tensors]
        return TensorAttributes([*held, *given])

    # -- the run itself -----------------------------------------------------------------------

    def _run_module(self) -> Returned:
        with effects.needed_data_told():
            settings = effects.Settings()
            try:
                return self._watched_run(settings)
            finally:
                settings.restore()

    def _watched_run(self, settings: effects.Settings) -> Returned:
        # containers of the user's own classes may run operators when they are taken apart
        with self.recorder.recording(), effects.seeds_refused(self.request.floor):
            args, kwargs = pytree.tree_unflatten(self.inputs.leaves, self.original.in_spec)
            watched = effects.InputWatch(args, kwargs)
            result, stores = self._call(args, kwargs)
            trees = (args, kwargs, result, [store.value for store in stores])
            self.notes += watched.check(result)
            settings.check()
            outputs, out_spec = pytree.tree_flatten(result)
            return Returned(outputs, out_spec, stores, trees)

    def _call(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Any, list[AttributeStore]]:
        """The result of forward on fakes, and the attributes that it sets on inputs."""
        root, callee = self.original.root, self.request.callee
        if callee is root and not kwargs and says_where_from(root):
            return run_graph(root, self.recorder, args), []
        if not self.request.strict:
            return callee(*args, **kwargs), []
        policy = self._policy()
        result, notes = strict.run(policy, callee, args, kwargs)
        self.notes += notes
        return result, policy.stored

    def _policy(self) -> strict.StrictPolicy:
        root = self.original.root
        modules = [module for _, module in self.original.modules]
        identities = Identities(self.original.tensors(self.inputs.leaves), self.recorder.reads)
        stores = AttributeStores(identities, self._runs_always)
        if self.request.converts:
            return ConvertingPolicy(root, modules, identities, stores, self.recorder)
        return strict.StrictPolicy(root, modules, identities, stores)

    def _runs_always(self) -> bool:
        """Whether what is recorded now is in no subgraph."""
        return self.recorder.subgraph is None and not self.recorder.inside_function
