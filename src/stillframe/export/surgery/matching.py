"""Finding a pattern: the function is run, and each operator that it calls is looked up in a graph.

Nothing is known of the arguments of a pattern before they are found, not even how many dims they
have. So the pattern starts with *holes*. An operator that is called on a hole may be any node with
that operator and the same other arguments; each such node says what goes into the hole, and the
pattern is run again with it. Once its operands are known, an operator must be a node that uses
them, and its result is the value of that node: whatever the pattern asks of it has the answer of
the program. A hole that is asked for its sizes is tried with every tensor of the program.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from operator import getitem
from typing import Any

import torch

from stillframe import torch_private
from stillframe.errors import InternalError, InvalidInput, NotSupported
from stillframe.export.decompose import environment_of
from stillframe.export.door import same_constant
from stillframe.export.program import ExportedProgram
from stillframe.export.surgery.holes import Hole
from stillframe.fake.custom import arguments_by_name
from stillframe.fake.tensor import FakeTensor
from stillframe.shapes.continued import ContinuedEnv
from stillframe.shapes.env import to_size
from stillframe.symbolic import Expr, eq
from stillframe.trace.operators import facts_of, written_arguments
from stillframe.trace.recorder import Recorder
from stillframe.trace.scope import ModuleScope

aten = torch.ops.aten

#: What a capture records in the place of an operator.
_RECORDED_AS = {
    aten.lift_fresh.default: aten.lift_fresh_copy.default,
    aten.item.default: aten._local_scalar_dense.default,
}

_COMMUTATIVE = frozenset(
    {
        aten.add.Tensor, aten.mul.Tensor, aten.maximum.default, aten.minimum.default,
        aten.eq.Tensor, aten.ne.Tensor, aten.logical_and.default, aten.logical_or.default,
        aten.logical_xor.default, aten.bitwise_and.Tensor, aten.bitwise_or.Tensor,
        aten.bitwise_xor.Tensor,
    }
)  # fmt: skip

#: A value of the graph: a node, and the place in what it returns.
Ref = tuple[torch.fx.Node, tuple[int, ...]]

#: Index of a parameter of the pattern -> the node that is given for it.
Binding = dict[int, torch.fx.Node]


class _NoMatch(Exception):
    """The pattern is not here."""


class _Bind(Exception):
    """The holes can be filled in these ways."""

    def __init__(self, options: list[Binding]) -> None:
        super().__init__()
        self.options = options


class _Choose(Exception):
    """Several nodes do, and nothing else tells them apart."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count


class _Unsupported(NotSupported):
    """The pattern itself cannot be looked for, wherever it is."""


@dataclass(frozen=True)
class Found:
    """A place where the pattern is.

    Attributes:
        nodes: the nodes of the operators that the pattern calls.
        inputs: what is given for its parameters.
        outputs: what it returns.
    """

    nodes: tuple[torch.fx.Node, ...]
    inputs: tuple[torch.fx.Node, ...]
    outputs: tuple[Ref, ...]


def canonical(node: torch.fx.Node) -> Ref:
    """What a node returns, with the elements of containers by their place."""
    path: tuple[int, ...] = ()
    while node.target is getitem:
        source, index = node.args
        node, path = source, (index, *path)  # type: ignore[assignment,arg-type]
    return node, path


class Matcher:
    """Looks for one pattern in one program.

    Args:
        program: where to look.
        pattern: a function of tensors.
        commutative: operands of commutative operators may be in any order.

    Attributes:
        error: the first error that the pattern raised on values of the program.
    """

    def __init__(
        self, program: ExportedProgram, pattern: Callable[..., Any], commutative: bool
    ) -> None:
        self.program = program
        self.graph = program.graph
        self.pattern = pattern
        self.commutative = commutative
        self.arity = count_parameters(pattern)
        self.env = ContinuedEnv(environment_of(self.graph))
        self.recorder = _MatchRecorder(self.env, self)
        self.error: Exception | None = None
        self._position = {node: i for i, node in enumerate(self.graph.nodes)}
        self._fakes: dict[Ref, FakeTensor] = {}
        self._by_target: dict[Any, list[torch.fx.Node]] = {}
        for node in self.graph.nodes:
            self._by_target.setdefault(node.target, []).append(node)
        self._constants = _constants(program)
        self._run: _Run | None = None

    def find(self) -> Iterator[Found]:
        """All places, in the order of the nodes that the pattern's first operator is."""
        with torch_private.ambient_modes_off(), self.recorder.recording():
            yield from self._search({}, ())

    def _search(self, binding: Binding, script: tuple[int, ...]) -> Iterator[Found]:
        try:
            found = self._attempt(binding, script)
        except _NoMatch:
            return
        except _Bind as bind:
            for option in bind.options:
                yield from self._search({**binding, **option}, script)
        except _Choose as choose:
            for i in range(choose.count):
                yield from self._search(binding, (*script, i))
        except (_Unsupported, InternalError):
            raise
        except Exception as e:  # this value is not what the pattern works on
            self.error = self.error or e
        else:
            yield found

    def _attempt(self, binding: Binding, script: tuple[int, ...]) -> Found:
        run = self._run = _Run(self, binding, script)
        arguments = [
            run.tensor(canonical(binding[i])) if i in binding else Hole.make(i, run.ask)
            for i in range(self.arity)
        ]
        result = self.pattern(*arguments)
        return run.found(result if isinstance(result, (list, tuple)) else [result])

    def record(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The pattern calls an operator."""
        assert self._run is not None
        return self._run.call(_RECORDED_AS.get(func, func), args, kwargs)

    # -- what runs share --------------------------------------------------------------------------

    def fake(self, ref: Ref) -> FakeTensor:
        """The tensor that stands for a value of the graph; always the same one."""
        known = self._fakes.get(ref)
        if known is None:
            val = ref[0].meta["val"]
            for index in ref[1]:
                val = val[index]
            known = self._fakes[ref] = FakeTensor.make(
                self.env, val.sizes, val.strides, val.offset, val.dtype, val.device,
                val.requires_grad,
            )  # fmt: skip
        return known

    def candidates(self, func: Any, ref: Ref | None) -> list[torch.fx.Node]:
        """The nodes that call ``func``, on this value if there is one."""
        if ref is None:
            return self._by_target.get(func, [])
        holders = [n for n in (ref[0], *self._items(ref[0])) if canonical(n) == ref]
        users = {u for holder in holders for u in holder.users if u.target is func}
        return sorted(users, key=self._position.__getitem__)

    def _items(self, node: torch.fx.Node) -> Iterator[torch.fx.Node]:
        for user in node.users:
            if user.target is getitem:
                yield user
                yield from self._items(user)

    def all_tensors(self) -> list[torch.fx.Node]:
        """All nodes that return one tensor."""
        return [n for n in self.graph.nodes if isinstance(n.meta.get("val"), FakeTensor)]

    def constant_is(self, node: Any, real: torch.Tensor) -> bool:
        """Whether a node is a tensor of the program with the value of ``real``."""
        mine = self._constants.get(node)
        return mine is not None and (
            mine is real
            or (mine.dtype, mine.shape, mine.device) == (real.dtype, real.shape, real.device)
            and _same_values(mine, real)
        )

    def known_equal(self, a: Any, b: Any) -> bool:
        """Whether two sizes are certainly the same."""
        a, b = to_size(a), to_size(b)
        if not isinstance(a, Expr) and not isinstance(b, Expr):
            return same_constant(a, b)
        if _sort(a) != _sort(b):
            return False
        return a is b or self.recorder.fake_mode.ctx.known(eq(a, b)) is True


class _Run:
    """One run of the pattern.

    Args:
        binding: what is in the holes so far.
        script: which node to take where several do.
    """

    def __init__(self, matcher: Matcher, binding: Binding, script: tuple[int, ...]) -> None:
        self.matcher = matcher
        self.binding = binding
        self.script = script
        self.nodes: list[torch.fx.Node] = []
        self._refs: dict[int, Ref] = {}
        self._choices = 0

    def tensor(self, ref: Ref) -> FakeTensor:
        """The tensor for a value of the graph."""
        fake = self.matcher.fake(ref)
        self._refs[id(fake)] = ref
        return fake

    def ask(self, index: int) -> Any:
        """The pattern asks for the metadata of a hole."""
        raise _Bind([{index: node} for node in self.matcher.all_tensors()])

    # -- one operator -----------------------------------------------------------------------------

    def call(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The result of an operator: the value of the node that it is."""
        wanted = arguments_by_name(func, args, kwargs)
        holes = [h for h in _tensors(wanted) if isinstance(h, Hole)]
        if _asks_only(func):
            if holes:
                self.ask(holes[0].place)
            return self.matcher.recorder.fake_mode.run(func, args, kwargs)
        options: list[torch.fx.Node] = []
        bindings: list[Binding] = []
        for node in self.matcher.candidates(func, self._first_ref(wanted)):
            for filled in self._agreements(node, wanted):
                if node not in self.nodes and filled not in bindings:
                    options.append(node)
                    bindings += [filled] if holes else []
        if not options:
            raise _NoMatch
        if holes:
            raise _Bind(bindings)
        node = options[0] if len(options) == 1 else options[self._choose(len(options))]
        self.nodes.append(node)
        return self._result(node, args, kwargs)

    def _choose(self, count: int) -> int:
        if self._choices == len(self.script):
            raise _Choose(count)
        self._choices += 1
        return self.script[self._choices - 1]

    def _first_ref(self, wanted: Any) -> Ref | None:
        return next((self._refs[id(t)] for t in _tensors(wanted) if id(t) in self._refs), None)

    def _result(self, node: torch.fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        returns = node.target._schema.returns  # type: ignore[union-attr]
        in_place = [r.alias_info is not None and r.alias_info.is_write for r in returns]
        if in_place == [True]:
            (written,) = written_arguments(facts_of(node.target), args, kwargs)
            self._refs[id(written)] = (node, ())  # the same tensor, from now on of this value
            return written
        if any(in_place):
            raise _Unsupported(
                f"The pattern calls {node.target}, which writes and returns several tensors.",
                hints=["decompose the program into functional form first"],
            )
        return self._value(node, node.meta["val"], ())

    def _value(self, node: torch.fx.Node, val: Any, path: tuple[int, ...]) -> Any:
        if isinstance(val, FakeTensor):
            return self.tensor((node, path))
        if isinstance(val, (list, tuple)):
            return type(val)(self._value(node, v, (*path, i)) for i, v in enumerate(val))
        size = to_size(val)
        return self.matcher.env.wrap(size) if isinstance(size, Expr) else val

    # -- arguments --------------------------------------------------------------------------------

    def _agreements(self, node: torch.fx.Node, wanted: dict[str, Any]) -> Iterator[Binding]:
        """The ways in which a node's arguments are those that the pattern gives."""
        given = arguments_by_name(node.target, node.args, node.kwargs)
        orders = [given]
        if self.matcher.commutative and node.target in _COMMUTATIVE and given.get("alpha", 1) == 1:
            orders.append({**given, "self": given["other"], "other": given["self"]})
        for order in orders:
            filled: Binding = {}
            if order.keys() == wanted.keys():
                if all(self._agree(wanted[k], order[k], filled) for k in order):
                    yield filled

    def _agree(self, wanted: Any, given: Any, filled: Binding) -> bool:
        if isinstance(wanted, Hole):
            return self._fill(wanted.place, given, filled)
        if isinstance(wanted, FakeTensor):
            is_node = isinstance(given, torch.fx.Node)
            return is_node and canonical(given) == self._refs.get(id(wanted))
        if isinstance(wanted, torch.Tensor):
            return self.matcher.constant_is(given, wanted)
        if isinstance(wanted, (list, tuple)):
            return (
                isinstance(given, (list, tuple))
                and len(wanted) == len(given)
                and all(self._agree(w, g, filled) for w, g in zip(wanted, given, strict=True))
            )
        if isinstance(given, torch.fx.Node):
            given = given.meta["val"]
            if isinstance(given, FakeTensor):
                return False
        return self.matcher.known_equal(wanted, given) or _same_setting(wanted, given)

    def _fill(self, index: int, given: Any, filled: Binding) -> bool:
        if not isinstance(given, torch.fx.Node):
            return False
        if not isinstance(given.meta.get("val"), FakeTensor):
            return False
        known = filled.setdefault(index, given)
        return canonical(known) == canonical(given)

    # -- the end ----------------------------------------------------------------------------------

    def found(self, results: Sequence[Any]) -> Found:
        """The match, when the pattern has returned ``results``."""
        missing = [i for i in range(self.matcher.arity) if i not in self.binding]
        if missing:
            raise _unusable(f"does not use its parameter {missing[0]}")
        outputs = []
        for result in results:
            ref = self._refs.get(id(result))
            if ref is None or ref[0] not in self.nodes:
                raise _unusable("must return tensors that it computes, one or a tuple of them")
            outputs.append(ref)
        inputs = tuple(self.binding[i] for i in range(self.matcher.arity))
        return Found(tuple(self.nodes), inputs, tuple(outputs))


def _unusable(what: str) -> _Unsupported:
    return _Unsupported(
        f"The pattern {what}.", hints=["a pattern is a function of the tensors that it works on"]
    )


class _MatchRecorder(Recorder):
    """Asks the matcher what each operator of the pattern is."""

    def __init__(self, env: ContinuedEnv, matcher: Matcher) -> None:
        super().__init__(env, ModuleScope([]), _no_constant)
        self.matcher = matcher

    def record(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The value of the node that the call is."""
        return self.matcher.record(func, args, kwargs)

    def create(self, target: Any, *rest: Any, **named: Any) -> torch.fx.Node:
        """Nothing but operators of tensors can be looked for."""
        name = getattr(target, "__name__", str(target))
        raise _Unsupported(f"The pattern uses {name}, which patterns cannot contain.")

    def operand(self, value: Any) -> Any:
        """Only an operator that takes functions asks for nodes of its operands."""
        raise _Unsupported("The pattern calls an operator that takes functions (torch.cond, ...).")


def _no_constant(real: torch.Tensor, fake: FakeTensor) -> torch.fx.Node:
    raise _NoMatch


# -- small questions ------------------------------------------------------------------------------


def count_parameters(function: Callable[..., Any]) -> int:
    """How many tensors a pattern or a replacement takes.

    Raises:
        InvalidInput: it is no function, or does not say how many.
    """
    if not callable(function):
        raise InvalidInput(f"A pattern must be a function, got {type(function).__name__}.")
    called = function.forward if isinstance(function, torch.nn.Module) else function
    try:
        parameters = inspect.signature(called).parameters.values()
    except ValueError as e:
        raise InvalidInput(f"{function!r} does not tell its parameters.") from e
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    for parameter in parameters:
        if parameter.default is inspect.Parameter.empty and parameter.kind not in kinds:
            raise InvalidInput(
                f"{parameter} is no plain parameter, so it is open how many tensors "
                f"{getattr(function, '__name__', function)} takes.",
                hints=["write it as a function of one tensor for each parameter"],
            )
    return sum(1 for p in parameters if p.default is inspect.Parameter.empty)


def _asks_only(func: Any) -> bool:
    """Whether an operator is a question about metadata, which makes no node."""
    facts = facts_of(func)
    returns_tensors = any("Tensor" in str(r.type) for r in func._schema.returns)
    return facts.pure_constant and facts.special is None and not returns_tensors


def _same_values(one: torch.Tensor, other: torch.Tensor) -> bool:
    with torch_private.ambient_modes_off():
        return torch.equal(one.detach(), other.detach())


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item)


def _same_setting(wanted: Any, given: Any) -> bool:
    """Memory formats and the like: equal objects of one type."""
    kinds = (torch.memory_format, torch.dtype, torch.layout, torch.device, type(None))
    return type(wanted) is type(given) and isinstance(wanted, kinds) and bool(wanted == given)


def _sort(value: Any) -> str:
    return value.sort if isinstance(value, Expr) else type(value).__name__


def _constants(program: ExportedProgram) -> dict[torch.fx.Node, torch.Tensor]:
    """The tensors of a program, by their placeholders, that it never writes."""
    placeholders = {n.name: n for n in program.graph.nodes if n.op == "placeholder"}
    targets = {s.target for s in program.graph_signature.output_specs}
    found = {}
    for spec in program.graph_signature.input_specs:
        node = placeholders[spec.arg.name]
        val = node.meta["val"]
        if spec.target is None or spec.target in targets or not isinstance(val, FakeTensor):
            continue
        if not val.storage_.written:
            table = program.state_dict
            found[node] = (
                table[spec.target] if spec.target in table else program.constants[spec.target]
            )
    return found
