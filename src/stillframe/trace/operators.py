"""What the recorder needs to know of an operator, worked out once, and the special ones."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from stillframe import torch_private
from stillframe.fake import custom
from stillframe.fake.tensor import FakeTensor
from stillframe.shapes.env import to_size
from stillframe.symbolic import Expr, eq, ne
from stillframe.trace.folding import CONSTANT_NUMEL_LIMIT, constant_of, value_of

if TYPE_CHECKING:
    from stillframe.trace.recorder import Recorder

aten = torch.ops.aten
getitem = operator.getitem

Special = Callable[["Recorder", Any, tuple[Any, ...], dict[str, Any]], Any]


@dataclass(frozen=True)
class OperatorFacts:
    """Facts of an overload.

    Attributes:
        name: what its nodes are called.
        writes: (position, name) of the arguments that it changes in place.
        writes_if: (position, name) of the flag without which it changes nothing, or None.
        may_fold: its result on constants is a constant (not random, no writes).
        pure_constant: a result without tensors needs no node.
        takes_object: an argument of it is a script object.
        special: handles the call instead; may decline with ``NotImplemented``.
    """

    name: str
    writes: tuple[tuple[int, str], ...]
    writes_if: tuple[int, str] | None
    may_fold: bool
    pure_constant: bool
    takes_object: bool
    special: Special | None


# Operators that update running statistics where a flag is set, and whose schema does not say so:
# the operator and the name of the flag.
_HIDDEN_WRITES: dict[Any, str] = {
    aten.batch_norm.default: "training",
    aten.native_batch_norm.default: "training",
    aten._batch_norm_impl_index.default: "training",
    aten.cudnn_batch_norm.default: "training",
    aten.miopen_batch_norm.default: "training",
    aten.instance_norm.default: "use_input_stats",
}
_STATISTICS = ("running_mean", "running_var")

_facts: dict[Any, OperatorFacts] = {}
_SPECIAL: dict[Any, Special] = {}


def facts_of(func: Any) -> OperatorFacts:
    """The facts of an overload; memoised."""
    facts = _facts.get(func)
    if facts is None:
        schema = func._schema
        flag = _HIDDEN_WRITES.get(func)
        writes = tuple(
            (i, arg.name)
            for i, arg in enumerate(schema.arguments)
            if (arg.alias_info is not None and arg.alias_info.is_write)
            or (flag is not None and arg.name in _STATISTICS)
        )
        writes_if = next(
            ((i, arg.name) for i, arg in enumerate(schema.arguments) if arg.name == flag), None
        )
        random = torch.Tag.nondeterministic_seeded in func.tags
        facts = _facts[func] = OperatorFacts(
            name=func.overloadpacket.__name__,
            writes=writes,
            writes_if=writes_if,
            may_fold=not writes and not random and not custom.is_custom(func),
            pure_constant=not writes and bool(schema.returns) and not custom.is_custom(func),
            takes_object=torch_private.takes_script_object(func),
            special=_SPECIAL.get(func),
        )
    return facts


class Item:
    """Element ``path`` of the tuple that ``node`` returns; its getitem is made when used."""

    __slots__ = ("node", "path")

    def __init__(self, node: torch.fx.Node, path: tuple[int, ...]) -> None:
        self.node = node
        self.path = path


def written_arguments(
    facts: OperatorFacts, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> list[torch.Tensor]:
    """The tensors that a call changes in place."""
    targets = write_targets(facts, args, kwargs)
    return [t for t in targets if isinstance(t, torch.Tensor)]


def write_targets(
    facts: OperatorFacts, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> list[Any]:
    """The arguments that a call changes, in whatever form they are given; those of lists too."""

    def given(place: tuple[int, str]) -> Any:
        position, name = place
        return args[position] if position < len(args) else kwargs.get(name)

    if facts.writes_if is not None and given(facts.writes_if) is False:
        return []
    found: list[Any] = []
    for place in facts.writes:
        target = given(place)
        found.extend(target if isinstance(target, (list, tuple)) else (target,))
    return [t for t in found if t is not None]


def writes(node: torch.fx.Node) -> bool:
    """Whether a node's operator changes an argument in place."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return False
    facts = facts_of(node.target)
    return bool(facts.writes) and bool(write_targets(facts, node.args, node.kwargs))


def special(*operators: Any) -> Callable[[Special], Special]:
    """Register a handler for operators that are not simply recorded."""

    def register(function: Special) -> Special:
        for op in operators:
            _SPECIAL[op] = function
        return function

    return register


#: Key of the metadata of a node in a subgraph: made where gradients were switched off.
NO_GRAD = "no_grad"

#: Key of a node's metadata: at some sizes that the program admits, the operator may raise.
MAY_RAISE = "may_raise"


def has_effect(node: torch.fx.Node) -> bool:
    """Whether a node must stay in the graph although nobody uses its result."""
    if node.op != "call_function":
        return node.op in ("placeholder", "output")
    if MAY_RAISE in node.meta:
        return True
    target = node.target
    if isinstance(target, torch._ops.OpOverload):
        if torch_private.takes_script_object(target) or torch_private.has_ordered_effect(target):
            return True  # it may change the object, or something that nobody sees
        if torch.Tag.nondeterministic_seeded in target.tags:
            return True
        if custom.is_custom(target) and _has_number(node.meta.get("val")):
            return True  # a number that its fake told; the program checks it
        writes = write_targets(facts_of(target), node.args, node.kwargs)
        return bool(writes) or not target._schema.returns
    # what is inside a subgraph may check, or draw random numbers
    return target in _EFFECTFUL or isinstance(target, torch._ops.HigherOrderOperator)


def draws_random_numbers(node: torch.fx.Node, module: torch.nn.Module) -> bool:
    """Whether a node of a graph module draws random numbers, itself or in a subgraph."""
    return _in_subgraphs_too(
        node, module, lambda n: torch.Tag.nondeterministic_seeded in getattr(n.target, "tags", ())
    )


def prints(node: torch.fx.Node, module: torch.nn.Module) -> bool:
    """Whether a node of a graph module prints, itself or in a subgraph."""
    return _in_subgraphs_too(node, module, lambda n: n.target is torch.ops.higher_order.print)


def _in_subgraphs_too(
    node: torch.fx.Node, module: torch.nn.Module, asked: Callable[[torch.fx.Node], bool]
) -> bool:
    """Whether ``asked`` holds for a node, or for one of the subgraph that the node reads."""
    if node.op == "get_attr":
        inner = getattr(module, str(node.target), None)
        if isinstance(inner, torch.fx.GraphModule):
            return any(_in_subgraphs_too(n, inner, asked) for n in inner.graph.nodes)
    return asked(node)


def _has_number(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(_has_number(v) for v in value)
    return value is not None and not isinstance(value, torch.Tensor)


_EFFECTFUL = {torch_private.set_grad_enabled}


# -- constants -----------------------------------------------------------------------------------


@special(aten.lift_fresh.default, aten.lift_fresh_copy.default)
def _lift_fresh(
    recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """``torch.tensor(...)``: the value becomes a constant, and the program works on a copy of it.

    So a later in-place operator changes the copy, never what the program stores.
    """
    real = args[0]
    if isinstance(real, FakeTensor):
        again = aten.clone if func is aten.lift_fresh_copy.default else aten.alias
        return recorder.record(again.default, args, {})
    if real.is_floating_point() or real.is_complex():
        recorder.reads.note("default dtype")
    node = recorder.operand(real)
    source = recorder.fake_mode.adopt(real)
    result = FakeTensor.make(
        recorder.env, source.sizes, source.strides, 0, source.dtype, source.device
    )
    copy = recorder.create(aten.lift_fresh_copy.default, (node,), {}, "lift_fresh_copy")
    copy.meta["val"] = result
    result.fx_node = copy
    if real.numel() <= CONSTANT_NUMEL_LIMIT:
        result.constant = real.detach().clone()
    return result


# -- questions whose answer Python needs ---------------------------------------------------------


@special(aten._local_scalar_dense.default, aten.item.default)
def _item(recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A scalar leaves the tensor world: its known constant, or an unbacked symbol."""
    value = value_of(recorder, args[0])
    if value is not None:
        return recorder.env.wrap(value)
    if func is aten.item.default:
        return recorder.record(aten._local_scalar_dense.default, args, kwargs)
    return NotImplemented


def tells(result: Expr, symbol: Expr) -> bool:
    """Whether a number is the symbol itself, or the truth value that stands for it."""
    return result is symbol or result is eq(symbol, 1)


def bind_item(
    recorder: Recorder, symbol: Expr, result: Expr, node: torch.fx.Node
) -> tuple[Any, ...]:
    """Bind the symbol behind a number that ``node`` returns, such as the result of ``item()``."""
    if result is symbol:
        recorder.symbols.bind(symbol, node)
    else:  # a bool, whose symbol is 0 or 1
        recorder.symbols.bind(result, node)
        as_int = recorder.create(torch.sym_ite, (node, 1, 0), {})
        as_int.meta["val"] = recorder.env.wrap(symbol)
        recorder.symbols.bind(symbol, as_int)
    return ("item",)


@special(aten.is_nonzero.default)
def _is_nonzero(recorder: Recorder, func: Any, args: Any, kwargs: Any) -> Any:
    value = value_of(recorder, args[0])
    if value is not None:
        return bool(recorder.env.wrap(value))
    raise recorder.refuse_data_dependent(
        "bool(tensor)", "choose with torch.where(condition, a, b), or torch.cond for whole branches"
    )


@special(aten.equal.default, aten.allclose.default)
def _equal(recorder: Recorder, func: Any, args: Any, kwargs: Any) -> Any:
    constants = [constant_of(a) for a in args[:2]]
    if all(c is not None for c in constants):
        return func(*constants, *args[2:], **kwargs)
    raise recorder.refuse_data_dependent(
        f"{func.overloadpacket.__name__}(a, b)", "compare with (a == b).all() and keep it a tensor"
    )


# -- checks that stay in the graph ---------------------------------------------------------------


@special(aten._assert_scalar.default)
def _assert_scalar(recorder: Recorder, func: Any, args: Any, kwargs: Any) -> None:
    """A check of a graph that is captured again; where it can fail it becomes one here."""
    condition, message = to_size(args[0]), args[1]
    if isinstance(condition, Expr) and condition.sort != "bool":
        condition = ne(condition, 0)
    known = not isinstance(condition, Expr)
    if not (condition if known else recorder.env.expect_true(condition, message)):
        raise RuntimeError(message)


@special(
    aten._assert_async.msg,
    aten._assert_async.default,
    aten._assert_tensor_metadata.default,
)
def _assertion(recorder: Recorder, func: Any, args: Any, kwargs: Any) -> Any:
    node = recorder.create(
        func,
        tuple(recorder.operand(a) for a in args),
        {k: recorder.operand(v) for k, v in kwargs.items()},
        func.overloadpacket.__name__,
    )
    node.meta["val"] = None
    return None
