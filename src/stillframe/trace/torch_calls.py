"""The graph of the calls that the user's code made: torch functions, methods, operators of Python.

:class:`TorchCalls` makes a node of each call that arrives while no other one is open, by its form
(:mod:`~stillframe.trace.torch_forms`). Results are known by the identity of the tensors, sizes by
their expressions.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import TYPE_CHECKING, Any

import torch
from torch.utils import _pytree as pytree

from stillframe import stack, torch_private
from stillframe.errors import NotSupported
from stillframe.fake.tensor import FakeTensor
from stillframe.shapes.env import to_size
from stillframe.shapes.node import SymNode
from stillframe.symbolic import Expr, eq
from stillframe.trace.operators import facts_of, getitem
from stillframe.trace.recorder import new_placeholder
from stillframe.trace.symbols import SymbolNodes
from stillframe.trace.torch_forms import Form, form_of
from stillframe.trace.torch_modes import ModeNodes

if TYPE_CHECKING:
    from stillframe.trace.torch_level import TorchLevelRecorder

aten = torch.ops.aten

_SYMBOLIC = (torch.SymInt, torch.SymFloat, torch.SymBool)
_LITERALS = (
    int, float, complex, bool, str, type(None), type(...),
    torch.dtype, torch.device, torch.layout, torch.memory_format,
)  # fmt: skip

#: Questions about sizes, as methods of tensors.
_QUERIES: dict[Any, str] = {
    aten.sym_size.int: "size",
    aten.sym_stride.int: "stride",
    aten.sym_storage_offset.default: "storage_offset",
    aten._nnz.default: "_nnz",
}

#: Questions whose answers are no tensors; nothing is recorded for them.
_QUESTIONS = frozenset(
    getattr(torch.Tensor, name) for name in (
        "size", "dim", "ndimension", "numel", "nelement", "stride", "storage_offset", "__len__",
        "is_contiguous", "is_floating_point", "is_complex", "is_signed", "element_size",
        "get_device", "dim_order", "__repr__", "__format__", "__hash__",
    )
)  # fmt: skip
_TENSOR_PROPERTIES = frozenset(("T", "H", "mT", "mH", "real", "imag", "grad", "data"))


class Unwritable(Exception):
    """A call has an argument that a node cannot hold."""


class TorchCalls:
    """The graph of torch calls, beside the recorder's own.

    Args:
        recorder: the recorder beside it.
        whole: functions become nodes; else only operators do.

    Attributes:
        graph, root: the graph, and the module that holds its subgraphs.
        modes: makes its nodes for grad mode and autocast.
        symbols: its nodes of symbolic values.
        state: identity of a parameter or buffer, or of the fake of one -> its name.
        constants: name -> real tensor, for all others that the run met.
        subgraphs: the names of the subgraphs.
        effects: how many operators were called for what they do so far.
    """

    def __init__(self, recorder: TorchLevelRecorder, *, whole: bool) -> None:
        self.recorder = recorder
        self.whole = whole
        self.graph = torch.fx.Graph()
        self.root = torch.nn.Module()
        self.symbols = SymbolNodes(self._symbolic, self._unknown_symbol)
        self.state: dict[int, str] = {}
        self.constants: dict[str, torch.Tensor] = {}
        self.subgraphs: list[str] = []
        self.effects = 0
        self._nodes: dict[int, tuple[torch.Tensor, torch.fx.Node]] = {}
        self._own: set[torch.fx.Node] = set()
        self._known: set[Expr] = set()
        self._depth = 0
        self.torch_fn: tuple[str, str] | None = None
        self.modes = ModeNodes(self)

    # -- whether a call is the user's ------------------------------------------------------------

    @property
    def listens(self) -> bool:
        """Whether a call that arrives now is one of the user's."""
        return self._depth == 0 and self.recorder.subgraph is None

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """A function is open inside: what it calls is its own affair."""
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1

    # -- inputs ----------------------------------------------------------------------------------

    def placeholder(self, name: str, value: Any) -> None:
        """A placeholder; symbols can be read off it."""
        free = f"{name}_" if name in names_used_by_code() else name
        node = new_placeholder(self.graph, free)
        node.meta["val"] = value
        if isinstance(value, FakeTensor):
            self._bind_tensor(value, node)
            self.symbols.bind_sizes(value.sizes, lambda: node)
            self.symbols.bind_specified(value, lambda: node)
            for size in value.sizes:
                self._note_known(size)
        else:
            number = to_size(value)
            if isinstance(number, Expr):
                self.symbols.bind(number, node)
                self._note_known(number)

    def _note_known(self, size: Any) -> None:
        if isinstance(size, Expr):
            self._known.update(size.free_symbols)

    # -- one call --------------------------------------------------------------------------------

    def call(
        self,
        func: Any,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        run: Callable[[], Any],
        caller: FrameType | None = None,
    ) -> Any:
        """Run a call of the user's and make its node."""
        if _is_question(func) or func in torch_private.autocast_switches():
            return run()
        self.recorder.flush_asserts()
        form = form_of(func, caller)
        if form is None:
            return run()
        try:
            operands = self._operands(form, args, kwargs)
        except Unwritable:
            return run()
        with self.inside(), self._history_kept(args):
            effects = self.effects
            result = run()
            if result is NotImplemented:
                return result
            if self.effects > effects or self._is_worth_a_node(result):
                self.torch_fn = self.recorder.functions.label(func)
                self._make(form, *operands, result)
                self.torch_fn = None
            self.recorder.flush_asserts()
        return result

    def operator(
        self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], run: Callable[[], Any]
    ) -> Any:
        """Run an operator that no torch function called, and make its node."""
        target = func
        if func is aten.lift_fresh.default:  # a program changes a copy, never the constant
            target = aten.lift_fresh_copy.default
        self.recorder.flush_asserts()
        try:
            operands = self._operand(args), self._operand(kwargs)
        except Unwritable as e:
            raise NotSupported(
                f"{func} has an argument that a graph cannot hold: {e}.",
                where=stack.summary(stack.raw_stack(self.recorder.floor)),
            ) from None
        with self.inside(), self._history_kept(args):
            effects = self.effects
            result = run()
            if self.effects > effects or self._is_worth_a_node(result):
                self._make(Form("call_function", target, facts_of(func).name), *operands, result)
            self.recorder.flush_asserts()
        return result

    @contextlib.contextmanager
    def _history_kept(self, args: tuple[Any, ...]) -> Iterator[None]:
        """Where a call gives its first argument another layout, older nodes keep what it was."""
        target = args[0] if args else None
        if not isinstance(target, FakeTensor) or target.sparse is not None:
            yield
            return
        layout, last = _layout(target), next(iter(reversed(self.graph.nodes)), None)
        yield
        if _layout(target) == layout:
            return
        was = FakeTensor.make(
            self.recorder.env, *layout, target.dtype, target.device, target.requires_grad
        )
        while last is not None and last.op != "root":
            if last.meta.get("val") is target:
                last.meta["val"] = was
            last = last.prev

    def _operands(
        self, form: Form, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[Any, Any]:
        if form.op == "call_method" and not (args and isinstance(args[0], torch.Tensor)):
            raise Unwritable("self")
        if form.reflected:
            args = tuple(reversed(args))
        if form.attribute is not None:
            args = (args[0], form.attribute, *args[1:]) if form.target is setattr else (
                args[0], form.attribute,
            )  # fmt: skip
            kwargs = {}
        return self._operand(tuple(args)), self._operand(dict(kwargs))

    def _is_worth_a_node(self, result: Any) -> bool:
        """Tensors, numbers that only the data tells, and calls that are made for what they do."""
        if result is None:
            return True
        leaves = pytree.tree_leaves(result)
        return any(
            isinstance(leaf, torch.Tensor)
            or (isinstance(leaf, _SYMBOLIC) and not leaf.node.expr.free_symbols <= self._known)
            for leaf in leaves
        )

    def _make(self, form: Form, args: Any, kwargs: Any, result: Any) -> torch.fx.Node:
        node = self.create(form.op, form.target, args, kwargs, form.name)
        self.track(result, node)
        return node

    def create(
        self, op: str, target: Any, args: Any, kwargs: Any, name: str | None = None
    ) -> torch.fx.Node:
        """A node that knows where it comes from."""
        node = self.graph.create_node(op, target, args, kwargs, name)
        if self.torch_fn is not None:
            node.meta["torch_fn"] = self.torch_fn
        node.meta["val"] = None
        self.recorder.locate(node)
        return node

    # -- values ----------------------------------------------------------------------------------

    def _operand(self, value: Any) -> Any:
        """A value as the graph holds it."""
        if isinstance(value, torch.Tensor):
            return self.node_of(value)
        if isinstance(value, _SYMBOLIC):
            if not isinstance(value.node, SymNode):
                raise NotSupported("A symbolic value of another capture reached this one.")
            return self.symbols.node(value.node.expr)
        if type(value) in _LITERALS or isinstance(value, torch._ops.OpOverload):
            return value
        if isinstance(value, slice):
            return slice(*map(self._operand, (value.start, value.stop, value.step)))
        if isinstance(value, dict) and all(type(key) is str for key in value):
            return {key: self._operand(v) for key, v in value.items()}
        if type(value) is list:
            return [self._operand(v) for v in value]
        if isinstance(value, tuple):
            return tuple(self._operand(v) for v in value)
        if isinstance(value, int):  # an enumeration
            return int(value)
        raise Unwritable(type(value).__name__)

    def node_of(self, tensor: torch.Tensor) -> torch.fx.Node:
        """The node that computes a tensor.

        Raises:
            NotSupported: no torch function returned it.
            Unwritable: it is inside of a transform.
        """
        known = self._nodes.get(id(tensor))
        if known is not None:
            return known[1]
        if torch_private.is_functorch_wrapper(tensor):
            raise Unwritable("a tensor inside of a transform")
        name = self.state.get(id(tensor))
        if name is not None:
            return self._attribute(name, tensor)
        if not isinstance(tensor, FakeTensor):
            name = self.name_constant(tensor)
            self.constants[name] = tensor
            return self._attribute(name, tensor)
        raise NotSupported(
            "A tensor came out of a torch function in another way than as its result.",
            why="a graph of torch functions has what they return",
            where=stack.summary(stack.raw_stack(self.recorder.floor)),
            hints=['level="aten" records the operators inside of functions'],
        )

    def _attribute(self, name: str, tensor: torch.Tensor) -> torch.fx.Node:
        """A node that reads a tensor of the module, or a constant."""
        fake = self.recorder.fake_mode.adopt(tensor)
        known = self._nodes.get(id(fake))
        if known is None:
            node = self.graph.get_attr(name)
            node.meta["val"] = fake
            self.recorder.locate(node)
            self._own.add(node)
            self._bind_tensor(fake, node)
        else:
            node = known[1]
        if tensor is not fake:
            self._bind_tensor(tensor, node)
        return node

    def name_constant(self, real: torch.Tensor) -> str:
        """The name of a tensor that is no parameter or buffer."""
        return f"_tensor_constant{len(self.constants)}"

    def _bind_tensor(self, tensor: torch.Tensor, node: torch.fx.Node) -> None:
        self._nodes[id(tensor)] = (tensor, node)

    def track(self, result: Any, node: torch.fx.Node) -> None:
        """``node`` computes ``result``: tensors, numbers, and containers of these."""
        node.meta["val"] = result
        if isinstance(result, torch.Tensor):
            self._bind_tensor(result, node)
            if isinstance(result, FakeTensor):
                self._bind_new_sizes(result, node)
        elif isinstance(result, _SYMBOLIC):
            self._bind_number(result.node.expr, node)
        elif isinstance(result, (list, tuple)):
            self._track_items(enumerate(result), node)
        elif isinstance(result, dict):
            self._track_items(result.items(), node)

    def _track_items(self, items: Any, node: torch.fx.Node) -> None:
        for key, item in items:
            if any(isinstance(v, (torch.Tensor, *_SYMBOLIC)) for v in pytree.tree_leaves(item)):
                element = self.create("call_function", getitem, (node, key), {})
                self._own.add(element)
                self.track(item, element)

    def _bind_number(self, expr: Expr, node: torch.fx.Node) -> None:
        """A number that data tells; a boolean stands for a symbol that is 0 or 1."""
        if expr.free_symbols <= self._known:
            return
        self.symbols.bind(expr, node)
        if expr.op == "symbol":
            self._known.add(expr)
        for symbol in expr.free_symbols - self._known:
            if expr is eq(symbol, 1):
                as_int = self._symbolic(torch.sym_ite, (node, 1, 0), symbol)
                self.symbols.bind(symbol, as_int)
                self._known.add(symbol)

    def _bind_new_sizes(self, tensor: FakeTensor, node: torch.fx.Node) -> None:
        """Sizes that data tells are read at once, before anything can change them."""
        for dim, size in enumerate(tensor.sizes):
            if isinstance(size, Expr) and not size.free_symbols <= self._known:
                self.symbols.bind(size, self._symbolic(aten.sym_size.int, (node, dim), size))
                if size.op == "symbol":
                    self._known.add(size)

    def _symbolic(self, target: Any, args: tuple[Any, ...], value: Any) -> torch.fx.Node:
        method = _QUERIES.get(target) if self.whole else None
        op = "call_function" if method is None else "call_method"
        node = self.create(op, method or target, args, {}, method)
        node.meta["val"] = self.recorder.env.wrap(value)
        self._own.add(node)
        return node

    def _unknown_symbol(self, symbol: Expr) -> torch.fx.Node:
        raise NotSupported(
            f"A size depends on {symbol}, which was read from data inside of a torch function.",
            why="a graph of torch functions has what they return",
            where=stack.summary(stack.raw_stack(self.recorder.floor)),
            hints=['level="aten" records the operators inside of functions'],
        )

    # -- checks ----------------------------------------------------------------------------------

    def check(self, expr: Expr, message: str) -> None:
        """A condition that the capture assumed of data, where the graph can tell it."""
        if self.recorder.subgraph is not None or not expr.free_symbols <= self._known:
            return
        condition = self.symbols.node(expr)
        self.create("call_function", aten._assert_scalar.default, (condition, message), {})

    # -- operators that take functions -----------------------------------------------------------

    def higher_order(self, node: torch.fx.Node, result: Any) -> None:
        """A call that the recorder has made a node of, with its subgraphs."""
        args = torch.fx.node.map_arg(node.args, self._from_recorder)
        kwargs = torch.fx.node.map_arg(dict(node.kwargs), self._from_recorder)
        name = node.target.name()  # type: ignore[union-attr]
        self.track(result, self.create("call_function", node.target, args, kwargs, name))

    def _from_recorder(self, node: torch.fx.Node) -> Any:
        """A node of the recorder's graph in this one."""
        if node.op == "get_attr":
            name = str(node.target)
            self.root.add_module(name, getattr(self.recorder.root, name))
            self.subgraphs.append(name)
            own = self.graph.get_attr(name)
            own.meta["val"] = None
            self.recorder.locate(own)
            return own
        return self._operand(node.meta["val"])

    def check_values(self) -> None:
        """The graph begins with checks of the integers in buffers that the run relied on."""
        first = next((n for n in self.graph.nodes if n.op != "placeholder"), None)
        if not self.recorder.checked_values or first is None:
            return
        names = {id(t): str(n.target) for t, n in self._nodes.values() if n.op == "get_attr"}
        with self.graph.inserting_before(first):
            for key, value in self.recorder.checked_values.items():
                name = names.get(key) or self.state[key]
                read = self.graph.get_attr(str(name))
                same = self.graph.call_function(torch.eq, (read, value))
                message = f"the graph was made for the value {value} of {name}"
                check = self.graph.call_function(aten._assert_async.msg, (same, message))
                for node in (read, same, check):
                    node.meta["val"] = None
                    self.recorder.locate(node)

    # -- the end ---------------------------------------------------------------------------------

    def output(self, values: Any) -> Any:
        """The values of the output node."""
        try:
            return [self._operand(value) for value in values]
        except Unwritable as e:
            raise NotSupported(f"A result is {e}, which a graph cannot return.") from None

    def remove_unused(self) -> None:
        """Take out reads and sizes that nobody uses; what the user called stays."""
        for node in reversed(list(self.graph.nodes)):
            if node in self._own and not node.users:
                self.graph.erase_node(node)


@functools.cache
def names_used_by_code() -> frozenset[str]:
    """Names that generated code uses as globals; a parameter of that name would hide them."""
    builtin = "slice getattr setattr round range float int bool abs max min sum pow complex len"
    return frozenset(builtin.split()) | torch_private.names_of_generated_code()


def _layout(tensor: FakeTensor) -> tuple[Any, Any, Any]:
    return tensor.sizes, tensor.strides, tensor.offset


def _is_question(func: Any) -> bool:
    if func in _QUESTIONS:
        return True
    if getattr(func, "__name__", "") != "__get__":
        return False
    return getattr(func.__self__, "__name__", "") not in _TENSOR_PROPERTIES
