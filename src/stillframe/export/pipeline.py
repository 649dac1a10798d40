"""``export``: from a module and example inputs to an ExportedProgram.

The order, each step a function below: check the arguments; read the dims spec; make fake inputs
and fake state; run the module once under the recorder; compare the module with what it was before;
check the guards against the declared dims; clean the graph; build the program.
"""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import FrameType, MethodType
from typing import Any, TypeGuard

import torch
from torch.utils import _pytree as pytree

from stillframe import torch_private, usage
from stillframe.errors import InvalidInput, NotSupported
from stillframe.export import (
    constraints,
    effects,
    left_constants,
    leftovers,
    passes,
    script_objects,
)
from stillframe.export import strict as strict_capture
from stillframe.export.assumptions import Assumption, assumptions
from stillframe.export.attribute_stores import AttributeStore, AttributeStores
from stillframe.export.call_spec import CallSpec
from stillframe.export.converting import ConvertingPolicy
from stillframe.export.identity import Identities
from stillframe.export.inputs import FakeInputs, InputMaker
from stillframe.export.module_calls import SYMBOLIC_ARGUMENTS, SignatureCollector, check_paths
from stillframe.export.naming import Names
from stillframe.export.ownership import own_tensors
from stillframe.export.program import ExportedProgram
from stillframe.export.rebinding import Rebinding
from stillframe.export.rerun import finish_code, run_graph, says_where_from
from stillframe.export.signature import (
    ConstantArgument,
    ExportGraphSignature,
    InputKind,
    InputSpec,
    ModuleCallEntry,
    ModuleCallSignature,
    OutputKind,
    OutputSpec,
    TensorArgument,
)
from stillframe.export.state import (
    Change,
    RandomState,
    Watch,
    fake_state,
    named_state,
    non_persistent,
    swapped_state,
)
from stillframe.export.tensor_attributes import TensorAttributes, lost_attributes
from stillframe.export.texts import check_texts
from stillframe.export.verdicts import Verdict, static_dims, verdicts
from stillframe.fake.script_objects import FakeScriptObject
from stillframe.fake.tensor import FakeTensor
from stillframe.shapes.dims import LeafSpec, resolve_spec, spec_from_leaves
from stillframe.shapes.env import Guard, ShapeEnv, runtime_asserts_wanted, to_size
from stillframe.shapes.solve import solve
from stillframe.symbolic import Expr, evaluate
from stillframe.trace.recorder import Recorder, new_placeholder
from stillframe.trace.scope import ModuleScope, module_paths


def _flags(*, strict: bool = False, **_: Any) -> tuple[str, ...]:
    return ("strict" if strict else "non_strict", "pre_dispatch")


def _operators(program: ExportedProgram) -> dict[str, int]:
    """How many nodes call each function, subgraphs included."""
    graphs = [g for g in program.graph_module.modules() if isinstance(g, torch.fx.GraphModule)]
    nodes = (node for graph in graphs for node in graph.graph.nodes if node.op == "call_function")
    return dict(Counter(_name(node.target) for node in nodes))


def _name(target: Any) -> str:
    if isinstance(target, (torch._ops.OpOverload, torch._ops.HigherOrderOperator)):
        return str(target)
    return f"{target.__module__}.{target.__qualname__}"


@usage.reported("export", _flags, _operators)
def export(
    mod: torch.nn.Module | Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any] | None = None,
    *,
    dynamic_shapes: Any = None,
    strict: bool = False,
    control_flow: str = "refuse",
    preserve_module_call_signature: tuple[str, ...] = (),
    assume: Sequence[Any] = (),
    prefer_deferred_runtime_asserts_over_guards: bool = False,
    runtime_asserts: bool | None = None,
    verify: bool | int = False,
) -> ExportedProgram:
    """The work behind :func:`stillframe.export`; arguments and errors are described there."""
    request = make_request(
        mod,
        args,
        kwargs,
        sys._getframe(1),
        dynamic_shapes=dynamic_shapes,
        strict=strict,
        preserved=preserve_module_call_signature,
        assume=assume,
        prefer_asserts=prefer_deferred_runtime_asserts_over_guards,
        control_flow=control_flow,
        runtime_asserts=runtime_asserts,
    )
    with torch_private.ambient_modes_off():
        program = most_general(request, Capture)
    if verify:
        program.verify(request.callee, samples=3 if verify is True else int(verify))
    return program


def make_request(
    mod: torch.nn.Module | Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any] | None,
    floor: FrameType,
    *,
    dynamic_shapes: Any = None,
    strict: bool = False,
    preserved: tuple[str, ...] = (),
    assume: Sequence[Any] = (),
    prefer_asserts: bool = False,
    control_flow: str = "refuse",
    runtime_asserts: bool | None = None,
) -> Request:
    """Check the arguments of a capture.

    Raises:
        InvalidInput: they do not fit the module, or the spec does not fit them.
    """
    if not isinstance(args, tuple):
        raise InvalidInput(
            f"args must be a tuple of the positional inputs, got {type(args).__name__}.",
            hints=["for one input write export(mod, (x,))"],
        )
    if kwargs is not None and not isinstance(kwargs, dict):
        raise InvalidInput(f"kwargs must be a dict by name, got {type(kwargs).__name__}.")
    method = mod if _is_method(mod) else None
    owner: Any = mod if method is None else method.__self__
    root = owner if isinstance(owner, torch.nn.Module) else _FunctionModule(owner)
    _refuse_script_modules(root)
    finish_code(root)
    return Request(
        root,
        args,
        kwargs or {},
        resolve_spec(method or root, args, kwargs, dynamic_shapes),
        tuple(assume) if isinstance(assume, list) else assume,
        prefer_asserts,
        floor,
        strict,
        check_paths(preserved, module_paths(root)),
        method,
        converts=_converts(control_flow, strict),
        runtime_asserts=runtime_asserts_wanted() if runtime_asserts is None else runtime_asserts,
    )


def _converts(control_flow: str, strict: bool) -> bool:
    """Whether control flow on data becomes operators.

    Raises:
        InvalidInput: an unknown word, or a capture that does not run the Python itself.
    """
    if control_flow not in ("refuse", "convert"):
        raise InvalidInput(
            f"control_flow is {control_flow!r}.", hints=['it is "refuse" or "convert"']
        )
    if control_flow == "convert" and not strict:
        raise InvalidInput(
            'control_flow="convert" needs strict=True.',
            why="only strict capture runs the Python of the module, and can run both ways",
        )
    return control_flow == "convert"


def _is_method(mod: Any) -> TypeGuard[MethodType]:
    """Whether ``mod`` is a method of a module: ``model.encode``."""
    return isinstance(mod, MethodType) and isinstance(mod.__self__, torch.nn.Module)


def _refuse_script_modules(root: torch.nn.Module) -> None:
    """TorchScript modules keep their state outside of Python, where it cannot be swapped.

    Raises:
        NotSupported: names the module.
    """
    for path, module in root.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            name = f"self.{path}" if path else "mod"
            raise NotSupported(
                f"{name} is a TorchScript module, which cannot be captured.",
                hints=[
                    "stillframe.from_torchscript takes it, and modules around it",
                    "or export the Python module that it was made from",
                ],
            )


class _FunctionModule(torch.nn.Module):
    """A plain function as a module without state."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        if not callable(function):
            raise InvalidInput(
                f"mod must be a module or a function, got {type(function).__name__}."
            )
        self.__dict__["forward"] = function


@dataclass(frozen=True, eq=False)
class Request:
    """What one export was asked for.

    Attributes:
        root: the module.
        args, kwargs: the example inputs.
        leaf_specs: what was declared for each leaf.
        assume: relations between dims.
        prefer_asserts: conditions on declared dims become checks of the program.
        floor: the frame that called; stacks end below it.
        strict: the frame machine runs the module's Python.
        preserved: paths of the submodules whose call signatures are kept.
        method: the method of the module that is captured; None for the module's own call.
        converts: control flow on data becomes operators.
        runtime_asserts: conditions on data become checks of the program.
    """

    root: torch.nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    leaf_specs: list[LeafSpec]
    assume: Sequence[Any]
    prefer_asserts: bool
    floor: FrameType
    strict: bool = False
    preserved: frozenset[str] = frozenset()
    method: MethodType | None = None
    converts: bool = False
    runtime_asserts: bool = True

    @property
    def callee(self) -> Any:
        """What is called: the module, or its method."""
        return self.root if self.method is None else self.method


def most_general(request: Request, make: type[Capture]) -> ExportedProgram:
    """Capture with hints that are not 0 or 1, so that an example of such a size decides nothing.

    If the program does not run so, or is then not for the example, the sizes that may be moved are
    found one by one, starting from the example itself.
    """
    capture = make(request, moved=None)
    if not capture.inputs.moved:
        return _run(capture)
    moved = capture.inputs.moved
    try:
        program = _run(capture)
        if capture.admits_example():
            return program
    except Exception:  # whatever it was, the example's own sizes say it better
        pass
    best = _run(make(request, moved=frozenset()))
    kept: frozenset[str] = frozenset()
    for key in moved if len(moved) > 1 else ():
        attempt = make(request, moved=kept | {key})
        try:
            program = _run(attempt)
        except Exception:
            continue
        if attempt.admits_example():
            best, kept = program, kept | {key}
    return best


def _run(capture: Capture) -> ExportedProgram:
    """Run a capture, a second time if a function of torch wants a plain boolean of sizes.

    torch's own argument parser refuses a symbolic one before anybody else sees the call. Then
    comparisons of sizes are decided when they are made, with guards where facts leave them open.
    """
    try:
        program = capture.run()
    except NotSupported as e:
        if "bool, not SymBool" not in str(e.__cause__):
            raise
        capture.restart()
        capture.env.decide_at_once = True
        program = capture.run()
    if capture.left and not capture.stale:
        _check_left(capture, program)
    return program


def _check_left(capture: Capture, program: ExportedProgram) -> None:
    """What forward leaves on the module must mean nothing to a later call.

    Raises:
        SideEffectError: it does, or nobody can tell; names the first attribute.
    """
    again = type(capture)(capture.request, capture.moved, capture.left, capture.made)
    try:
        other = _run(again)
    except Exception as e:
        raise effects.refusal(capture.left[0]) from e
    if not leftovers.leave_the_same(capture.left, again.left):
        raise effects.refusal(capture.left[0])
    if leftovers.are_the_same(program, other):
        return
    if not left_constants.has_constants_instead(program, other, capture.made):
        raise effects.refusal(capture.left[0])


class Capture:
    """One capture in progress.

    Attributes:
        left: what forward left on the modules.
        stale: what an earlier run left there, which this one starts from.
        kept: the constants in it.
        made: the constants that this one left.
    """

    def __init__(
        self,
        request: Request,
        moved: frozenset[str] | None,
        stale: Sequence[Change] = (),
        kept: Sequence[left_constants.Kept] = (),
    ) -> None:
        self.request = request
        self.moved = moved
        self.stale = stale
        self.kept = kept
        self.restart()

    def restart(self) -> None:
        """Everything as before the run."""
        request, moved = self.request, self.moved
        self.root = root = request.root
        self.args, self.kwargs = args, kwargs = request.args, request.kwargs
        self.call_spec = CallSpec.from_call(request.method or root.forward, args, kwargs)
        self.leaves, self.in_spec = pytree.tree_flatten((args, kwargs))
        self.modules = module_paths(root)
        self.parameters, self.buffers = named_state(self.modules)
        self.env = ShapeEnv()
        self.env.emits_asserts = request.runtime_asserts
        self.names = Names()
        self.user_names = self.names.claim_all(self.call_spec.leaf_names)
        self.lifted: list[InputSpec] = []
        self.constants: dict[str, torch.Tensor] = {}
        self.constant_fakes: dict[str, FakeTensor] = {}
        self.notes: list[str] = []
        self.left: list[Change] = []
        self.attribute_stores: list[AttributeStore] = []
        self.made: list[left_constants.Kept] = []
        self._trees: tuple[Any, ...] = ()
        self.verdicts: list[Verdict] = []
        self.proposed_spec = ""
        self.recorder = self._make_recorder()
        self.recorder.objects.lift = self._lift_object
        self.held_objects = script_objects.held_objects(self.modules, self.leaves)
        self.object_names = script_objects.names_of(self.held_objects)
        self.objects: dict[str, torch.ScriptObject] = {}
        self.calls = SignatureCollector(self.modules, request.preserved, self.recorder)
        if request.preserved:
            self.recorder.scope.observer = self.calls
        self._first_user_node: torch.fx.Node | None = None
        self.inputs = InputMaker(self.env, request.leaf_specs, request.assume, moved).make()
        self._take_objects()
        self.baseline = self.env.facts.copy()

    def _make_recorder(self) -> Recorder:
        scope = ModuleScope(self.modules)
        return Recorder(self.env, scope, self._lift_constant, self.request.floor)

    def _take_objects(self) -> None:
        """Fakes for the script objects among the inputs.

        Raises:
            NotSupported: one comes by two ways; other calls may have two objects there.
        """
        known = {key: f"self.{names[0]}" for key, names in self.object_names.items()}
        for i, spec in enumerate(self.request.leaf_specs):
            leaf = self.inputs.leaves[i]
            if not torch_private.is_script_object(leaf):
                continue
            other = known.setdefault(hash(leaf), f"the input {spec.path}")
            if other != f"the input {spec.path}":
                raise NotSupported(
                    f"The input {spec.path} is a script object that is also {other}.",
                    why="the program would take them for one object in every call",
                    hints=["give an object of its own as the example"],
                )
            self.inputs.leaves[i] = self.recorder.objects.fake_of(leaf, f"The input {spec.path}")

    # -- the steps ----------------------------------------------------------------------------

    def run(self) -> ExportedProgram:
        """Run the module once under the recorder, and build the program."""
        inputs = self.inputs
        fakes = fake_state(self.env, self.parameters, self.buffers)
        self._make_placeholders(inputs, fakes)
        random_state = RandomState()
        with (
            script_objects.swapped_objects(self.held_objects, self.recorder.objects),
            swapped_state(self.modules, fakes, self.request.method) as watch,
        ):
            try:
                stale = leftovers.leave_again(self.stale, self.kept)
                self.recorder.fake_mode.untouchable = {id(tensor): tensor for tensor in stale}
                attributes = self._tensor_attributes(inputs, fakes)
                outputs, out_spec = self._run_module(inputs)
                effects.check_random(random_state)
                attributes.check()
                shown = [*outputs, *(store.value for store in self.attribute_stores)]
                self._rebind_buffers(watch, fakes, shown)
                self._refuse_moving_integers(fakes)
            finally:
                random_state.restore()
        check_texts(self.env, [*shown, *(store.name for store in self.attribute_stores)], out_spec)
        self.notes += lost_attributes(outputs)
        effects.refuse_written_leaves(self.recorder.graph, self._leaves_that_require_grad())
        outputs_specs = self._make_output(outputs)
        self.recorder.finish()
        guards = self._check_guards()
        self.env.freeze()
        return self._build(inputs, fakes, outputs_specs, out_spec, guards)

    def admits_example(self) -> bool:
        """Whether the conditions that the run relied on hold for the example itself."""
        examples = {s: i.example for s, i in self.env.symbols.items() if i.example is not None}
        return all(evaluate(guard.expr, examples) for guard in self.env.guards)

    def _check_guards(self) -> list[Guard]:
        """The conditions of every call; the verdicts on all sizes are known afterwards.

        Raises:
            ConstraintViolationError: the program does not work for all declared sizes.
        """
        guards, violations = constraints.check_guards(
            self.env, self.baseline, prefer_asserts=self.request.prefer_asserts
        )
        solution = solve(self.env, self.env.facts)
        declared = solve(self.env, self.baseline)
        self.verdicts = verdicts(self.env, self.inputs, declared, solution)
        if violations or any(i.policy == "auto" for i in self.env.symbols.values()):
            self.proposed_spec = constraints.spec_text(solution, self.inputs, self._mirror)
        if violations:
            raise constraints.violation(self.env, violations, self.verdicts, self.proposed_spec)
        if self.request.runtime_asserts:
            return guards
        believed = constraints.narrowing(self.env)
        self.notes += constraints.belief_notes(self.env, believed)
        return [guard for guard in guards if guard not in believed]

    def _mirror(self, entry: Callable[[int], Any]) -> dict[str, Any]:
        """A spec by argument name with ``entry(index)`` at each leaf."""
        index = {spec.path: i for i, spec in enumerate(self.request.leaf_specs)}
        return spec_from_leaves(
            self.request.callee, self.args, self.kwargs, lambda path, _: entry(index[path])
        )

    def _make_placeholders(self, inputs: FakeInputs, fakes: dict[int, FakeTensor]) -> None:
        left_out = non_persistent(self.modules)
        for kind, table in (
            (InputKind.PARAMETER, self.parameters),
            (InputKind.BUFFER, self.buffers),
        ):
            for fqn, real in table.items():
                name = self.names.lifted(kind, fqn)
                fake = fakes[id(real)]
                self.recorder.fake_mode.stand_in(real, fake)
                if kind is InputKind.BUFFER:
                    self.recorder.state_values[id(fake)] = real
                if fake.fx_node is None:
                    self.recorder.placeholder(name, fake)
                else:  # a tie: its first placeholder is the one that is used
                    new_placeholder(self.recorder.graph, name).meta["val"] = fake
                keep = None if kind is InputKind.PARAMETER else fqn not in left_out
                self.lifted.append(InputSpec(kind, TensorArgument(name), fqn, keep))
        for name, leaf in zip(self.user_names, inputs.leaves, strict=True):
            node = self._placeholder(name, leaf)
            self._first_user_node = self._first_user_node or node
        for symbol, size, scale, offset in inputs.derived:
            self.recorder.symbols.bind_derived(symbol, size, scale, offset)

    def _placeholder(self, name: str, leaf: Any) -> torch.fx.Node:
        if not isinstance(leaf, FakeScriptObject):
            return self.recorder.placeholder(name, leaf)
        node = self.recorder.placeholder(name, script_objects.argument(name, leaf))
        self.recorder.objects.bind(leaf, node)
        return node

    def _run_module(self, inputs: FakeInputs) -> tuple[list[Any], pytree.TreeSpec]:
        with effects.needed_data_told():
            return self._recorded_run(inputs)

    def _recorded_run(self, inputs: FakeInputs) -> tuple[list[Any], pytree.TreeSpec]:
        settings = effects.Settings()
        try:
            return self._watched_run(inputs, settings)
        finally:
            settings.restore()

    def _watched_run(
        self, inputs: FakeInputs, settings: effects.Settings
    ) -> tuple[list[Any], pytree.TreeSpec]:
        # containers of the user's own classes may run operators when they are taken apart
        with self.recorder.recording(), effects.seeds_refused(self.request.floor):
            args, kwargs = pytree.tree_unflatten(inputs.leaves, self.in_spec)
            watched = effects.InputWatch(args, kwargs)
            callee = self.request.callee
            if callee is self.root and not kwargs and says_where_from(self.root):
                result = run_graph(self.root, self.recorder, args)
            elif self.request.strict:
                modules = [module for _, module in self.modules]
                policy = self._policy(modules, inputs)
                result, notes = strict_capture.run(policy, callee, args, kwargs)
                self.notes += notes
                self.attribute_stores = policy.stored
            else:
                result = callee(*args, **kwargs)
            self._trees = (args, kwargs, result, [s.value for s in self.attribute_stores])
            self.notes += watched.check(result)
            settings.check()
            return pytree.tree_flatten(result)

    def _policy(
        self, modules: list[torch.nn.Module], inputs: FakeInputs
    ) -> strict_capture.StrictPolicy:
        identities = Identities(self._tensor_inputs(inputs), self.recorder.reads)
        stores = AttributeStores(identities, self._runs_always)
        if self.request.converts:
            return ConvertingPolicy(self.root, modules, identities, stores, self.recorder)
        return strict_capture.StrictPolicy(self.root, modules, identities, stores)

    def _runs_always(self) -> bool:
        """Whether what is recorded now is in no subgraph."""
        return self.recorder.subgraph is None and not self.recorder.inside_function

    def _tensor_inputs(self, inputs: FakeInputs) -> list[tuple[str, FakeTensor, torch.Tensor]]:
        """``(path, fake, tensor of the example)`` of each tensor among the inputs."""
        paths = (spec.path for spec in self.request.leaf_specs)
        found = zip(paths, inputs.leaves, self.leaves, strict=True)
        return [(path, fake, real) for path, fake, real in found if isinstance(fake, FakeTensor)]

    def _tensor_attributes(
        self, inputs: FakeInputs, fakes: dict[int, FakeTensor]
    ) -> TensorAttributes:
        state = {**self.parameters, **self.buffers}.items()
        held = [(f"self.{fqn}", fakes[id(real)], real) for fqn, real in state]
        given = [(f"the input {p}", fake, real) for p, fake, real in self._tensor_inputs(inputs)]
        return TensorAttributes([*held, *given])

    def _rebind_buffers(
        self, watch: Watch, fakes: dict[int, FakeTensor], outputs: list[Any]
    ) -> None:
        """``self.buffer = new`` in forward becomes a copy into the buffer; the rest is refused."""
        found = watch.changes(self.recorder.fake_mode.real_of)
        if not found:
            return
        elsewhere = self._elsewhere(watch, fakes, outputs)
        changed: list[Change] = []
        for change in found:
            left = self._left_behind(change, elsewhere)
            if left is None:
                changed.append(change)
            else:
                self.left.append(left)
        self.made = left_constants.find(self.left, outputs)
        constants = {id(kept.made) for kept in self.made}
        for change in self.left:
            about = left_constants if id(change.value) in constants else leftovers
            self.notes.append(about.note(change))
        changes = effects.refuse_changes(changed)
        if not changes:
            return
        state = {**self.parameters, **self.buffers}
        rebinding = Rebinding(self.modules, state, fakes, self.constants, changes)
        paths = (spec.path for spec in self.request.leaf_specs)
        rebinding.check(zip(paths, self.inputs.leaves, strict=True), outputs)
        with self.recorder.recording():
            rebinding.record()

    def _refuse_moving_integers(self, fakes: dict[int, FakeTensor]) -> None:
        """A program that checks an integer of its state must not change it.

        Raises:
            NotSupported: names the buffer or the constant.
        """
        held = {fqn: fakes[id(real)] for fqn, real in self.buffers.items()} | self.constant_fakes
        for fqn, fake in held.items():
            if id(fake) in self.recorder.checked_values and fake.storage_.written:
                raise NotSupported(
                    f"Python reads the integer in self.{fqn}, and forward changes it.",
                    why="the program holds for one value, and its first call would leave another",
                    hints=["keep the decision in tensors: torch.where, or torch.cond"],
                )

    def _left_behind(self, change: Change, elsewhere: leftovers.Elsewhere) -> Change | None:
        """A change as one of what is left behind, or None if it is another."""
        if self.kept:
            real = self.recorder.fake_mode.real_of(change.value)
            again = left_constants.as_made(change, real, self.kept)
            if again is not None:
                return again
        return change if leftovers.is_left_behind(change, elsewhere) else None

    def _elsewhere(
        self, watch: Watch, fakes: dict[int, FakeTensor], outputs: list[Any]
    ) -> leftovers.Elsewhere:
        """What a later call may compare with a leftover by ``is``, where nobody sees it do so.

        Strict capture sees it where a tensor is an input, and refuses.
        """
        known = [*fakes.values(), *self.constant_fakes.values()]
        if not self.request.strict:
            known += [v for v in (*self.inputs.leaves, *outputs) if isinstance(v, FakeTensor)]
        with self.recorder.recording():  # containers of the user's may run operators
            return leftovers.Elsewhere(known, self._trees, watch.is_old)

    def _leaves_that_require_grad(self) -> dict[str, str]:
        """Placeholder name -> how a person names it, for parameters and inputs autograd watches."""
        named = {
            spec.arg.name: (f"the parameter self.{spec.target}", self.parameters[spec.target])
            for spec in self.lifted
            if spec.target in self.parameters
        }
        for name, leaf_spec in zip(self.user_names, self.request.leaf_specs, strict=True):
            named[name] = (f"the input {leaf_spec.path}", leaf_spec.leaf)
        return {
            name: text
            for name, (text, real) in named.items()
            if isinstance(real, torch.Tensor) and real.requires_grad and real.is_leaf
        }

    def _make_output(self, outputs: list[Any]) -> list[OutputSpec]:
        inputs = {id(v): n for n, v in zip(self.user_names, self.inputs.leaves, strict=True)}
        specs = []
        operands = []
        for store in self.attribute_stores:
            operand, argument = self._result(store.value)
            operands.append(operand)
            target = inputs[id(store.tensor)]
            specs.append(OutputSpec(OutputKind.USER_INPUT_ATTRIBUTE, argument, target, store.name))
        for i, value in enumerate(outputs):
            operand, argument = self._result(value)
            if argument is None:
                raise NotSupported(
                    f"Output {i} of forward is of {type(value)}, which a program cannot return.",
                    why="programs return tensors, numbers, strings, None and containers of these",
                    hints=[
                        "register its class as a container: "
                        "torch.utils._pytree.register_pytree_node"
                    ],
                )
            operands.append(operand)
            specs.append(OutputSpec(OutputKind.USER_OUTPUT, argument, None))
        self.recorder.flush_asserts()
        node = self.recorder.graph.output(tuple(operands))
        node.meta["val"] = (*(store.value for store in self.attribute_stores), *outputs)
        return specs

    def _result(self, value: Any) -> tuple[Any, Any]:
        """What the graph returns for a value, and its argument; None for that if it cannot."""
        if isinstance(value, torch.Tensor):
            node = self.recorder.operand(value)
            return node, TensorArgument(node.name)
        size = to_size(value)
        if isinstance(size, Expr):
            node = self.recorder.operand(value)
            return node, SYMBOLIC_ARGUMENTS[size.sort](node.name)
        if value is None or isinstance(value, (int, float, bool, str)):
            return value, ConstantArgument("", value)
        return None, None

    def _assumptions(self, inputs: FakeInputs, fakes: dict[int, FakeTensor]) -> list[Assumption]:
        """What was asked in forward besides sizes and dtypes."""
        state = {
            spec.arg.name: fakes[id(real)]
            for spec in self.lifted
            if (real := {**self.parameters, **self.buffers}.get(spec.target or "")) is not None
        }
        leaves = dict(zip(self.user_names, inputs.leaves, strict=True))
        return assumptions(self.recorder.reads.found.values(), leaves, state)

    # -- constants ----------------------------------------------------------------------------

    def _lift_constant(self, real: torch.Tensor, fake: FakeTensor) -> torch.fx.Node:
        """A real tensor that forward used becomes an input of its own, before the user's."""
        fqns = self._constant_names(real)
        fqn = fqns[0]
        name = self.names.lifted(InputKind.CONSTANT_TENSOR, fqn)
        node = self._new_constant(name)
        node.meta["val"] = fake
        self.recorder.state_values[id(fake)] = real
        self.lifted.append(InputSpec(InputKind.CONSTANT_TENSOR, TensorArgument(name), fqn, None))
        # a leaf that requires grad is the module's own, as parameters are: gradients reach it
        kept = real if real.is_leaf and real.requires_grad else real.detach()
        self.constants.update(dict.fromkeys(fqns, kept))
        self.constant_fakes[fqn] = fake
        if real.requires_grad and not real.is_leaf:
            self.notes.append(
                f"{fqn} was computed from tensors that require grad: its value is a constant of "
                "the program, and no gradient goes on to them"
            )
        if isinstance(real, torch.nn.Parameter):
            self.notes.append(
                f"{fqn} is a Parameter that no module has registered: its value is a constant of "
                "the program, and it is not trained"
            )
        return node

    def _new_constant(self, name: str) -> torch.fx.Node:
        """A placeholder before those of the user's inputs."""
        graph = self.recorder.graph
        place = self._first_user_node or next(
            (n for n in graph.nodes if n.op != "placeholder"), None
        )
        with graph.inserting_before(place) if place is not None else contextlib.nullcontext():
            return new_placeholder(graph, name)

    def _lift_object(self, fake: FakeScriptObject) -> torch.fx.Node:
        """A script object that forward used becomes an input; the program has the real one."""
        made_up = f"lifted_custom_{len(self.objects)}"
        fqns = self.object_names.get(hash(fake.real_obj), [made_up])
        name = self.names.lifted(InputKind.CUSTOM_OBJ, fqns[0])
        node = self._new_constant(name)
        stated = script_objects.argument(name, fake)
        node.meta["val"] = stated
        self.lifted.append(InputSpec(InputKind.CUSTOM_OBJ, stated, fqns[0], None))
        self.objects.update(dict.fromkeys(fqns, fake.real_obj))
        self.notes.append(
            f"{fqns[0]} is a script object ({fake.script_class_name}): the program and the module "
            "share it, so what one changes in it the other sees"
        )
        return node

    def _constant_names(self, real: torch.Tensor) -> list[str]:
        """All attribute names of a constant, the first of them its own; else one made up."""
        found = [
            f"{path}.{name}" if path else name
            for path, module in self.modules
            for name, value in module.__dict__.items()
            if value is real
        ]
        if found:
            return found
        count = sum(1 for fqn in self.constants if "lifted_tensor_" in fqn)
        path = self.recorder.scope.path
        return [f"{path}.lifted_tensor_{count}" if path else f"lifted_tensor_{count}"]

    # -- the program --------------------------------------------------------------------------

    def _build(
        self,
        inputs: FakeInputs,
        fakes: dict[int, FakeTensor],
        output_specs: list[OutputSpec],
        out_spec: pytree.TreeSpec,
        guards: list[Any],
    ) -> ExportedProgram:
        user_specs = [
            InputSpec(InputKind.USER_INPUT, _input_argument(name, leaf), None)
            for name, leaf in zip(self.user_names, inputs.leaves, strict=True)
        ]
        for subgraph in self.recorder.subgraphs:
            passes.run(subgraph)
        passes.run(self.recorder.graph)
        graph_module = torch_private.lazy_graph_module(self.recorder.graph, self.recorder.root)
        if isinstance(self.root, torch.fx.GraphModule):
            graph_module.meta.update(self.root.meta)
        self._set_requires_grad(inputs)
        state_dict, tensors = self._own_tensors(fakes)
        constants = {**tensors, **self.objects}
        return ExportedProgram(
            graph_module=graph_module,
            graph_signature=ExportGraphSignature([*self.lifted, *user_specs], output_specs),
            state_dict=state_dict,
            constants=constants,
            range_constraints=constraints.range_constraints(self.env, _input_sizes(inputs.leaves)),
            guards=guards,
            module_call_graph=self._module_call_graph(out_spec),
            example_inputs=(self.args, self.kwargs),
            call_spec=self.call_spec,
            out_spec=out_spec,
            training=self.root.training,
            root_class=type(self.root).__name__,
            dim_names=inputs.dim_names,
            verdicts=self.verdicts,
            proposed_spec=self.proposed_spec,
            assumptions=self._assumptions(inputs, fakes),
            notes=[
                *self.notes,
                *self.recorder.notes,
                *self.calls.notes(self.recorder.graph),
                *static_dims(self.verdicts),
                *effects.notes(constants, self.lifted),
            ],
            fallbacks=self.recorder.fake_mode.fallbacks,
            runtime_asserts=self.request.runtime_asserts,
        )

    def _set_requires_grad(self, inputs: FakeInputs) -> None:
        """Placeholders say whether the user's tensors require grad, whatever the run changed."""
        for leaf, fake in zip(self.leaves, inputs.leaves, strict=True):
            if isinstance(leaf, torch.Tensor) and fake.requires_grad != leaf.requires_grad:
                fake.requires_grad_(leaf.requires_grad)

    def _own_tensors(
        self, fakes: dict[int, FakeTensor]
    ) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """``(state_dict, constants)`` of the program."""
        table = {**self.parameters, **self.buffers}
        left_out = [s.target for s in self.lifted if s.persistent is False]
        named = {fqn: fakes[id(real)] for fqn, real in table.items()} | self.constant_fakes
        written = [fqn for fqn, fake in named.items() if fake.storage_.written]
        state, constants = own_tensors(table, self.constants, written)
        constants |= {fqn: state.pop(fqn) for fqn in left_out if fqn is not None}
        return state, constants

    def _module_call_graph(self, out_spec: pytree.TreeSpec) -> list[ModuleCallEntry]:
        signature = ModuleCallSignature([], [], self.in_spec, out_spec)
        paths = [path for path, _ in self.modules[1:]]
        return [ModuleCallEntry("", signature), *self.calls.entries(paths)]


def _input_argument(name: str, leaf: Any) -> Any:
    if isinstance(leaf, FakeTensor):
        return TensorArgument(name)
    if isinstance(leaf, FakeScriptObject):
        return script_objects.argument(name, leaf)
    size = to_size(leaf)
    if isinstance(size, Expr):
        return SYMBOLIC_ARGUMENTS[size.sort](name)
    return ConstantArgument(name, leaf)


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
