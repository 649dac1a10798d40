"""TorchScript graphs as plain data.

:func:`decode` reads a ``torch._C.Graph`` once, so that running it needs nothing of TorchScript's
C++ side. Calls of methods of modules stay calls. Functions and methods of other classes have no
graph that Python can ask for, so a graph with just that call is made and torch inlines it.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from types import CodeType
from typing import Any

import torch


@dataclass(frozen=True, eq=False)
class Step:
    """One node.

    Attributes:
        kind: ``"aten::add"``, ``"prim::If"``.
        op: with the overload (``"aten::add.Tensor"``); the kind, where a node has no schema.
        inputs, outputs: names of values.
        attributes: by name, as Python values.
        blocks: the bodies of control flow, and of what was inlined.
        place: a code object in the user's file, for stacks.
        source: the lines around the place, as TorchScript marks them.
        output_type: of the first output, or None.
        literals: the inputs that are scalar constants, by position.
    """

    kind: str
    op: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    attributes: dict[str, Any]
    blocks: tuple[Block, ...]
    place: CodeType
    source: str
    output_type: Any
    literals: dict[int, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Block:
    """Steps in order, with the names of what goes in and what comes out."""

    inputs: tuple[int, ...]
    steps: tuple[Step, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True)
class ClassMethods:
    """How methods of classes that are no modules are found: by the type, decoded when asked."""

    type: Any
    modules: frozenset[str]

    def method(self, name: str, arity: int) -> Block:
        """The graph of a method that takes ``arity`` arguments after self."""
        graph = torch._C.Graph()
        values = [graph.addInput()]
        values[0].setType(self.type)
        for _ in range(arity):
            none = graph.create("prim::Constant", [], 1)
            none.output().setType(torch._C.NoneType.get())
            graph.appendNode(none)
            values.append(none.output())
        call = graph.create("prim::CallMethod", values, 1)
        call.s_("name", name)
        return _inlined(graph, call, self.modules, name)


def decode(graph: Any, modules: Collection[str], function: str) -> Block:
    """The graph as data.

    Args:
        graph: a ``torch._C.Graph``.
        modules: the qualified names of the types of modules.
        function: what the graph is the code of, for stacks.
    """
    return _Decoder(frozenset(modules), function).block(graph.inputs(), graph.nodes(), graph)


def accessed_attributes(graph: Any) -> set[str]:
    """The names of all attributes that a graph reads or writes."""
    kinds = ("prim::GetAttr", "prim::SetAttr")
    return {node.s("name") for kind in kinds for node in graph.findAllNodes(kind)}


class _Decoder:
    def __init__(self, modules: frozenset[str], function: str) -> None:
        self._modules = modules
        self._function = function
        self._literals: dict[int, Any] = {}

    def block(self, inputs: Iterable[Any], nodes: Iterable[Any], end: Any) -> Block:
        names = tuple(v.unique() for v in inputs)
        steps = tuple(self._step(node) for node in nodes)
        return Block(names, steps, tuple(v.unique() for v in end.outputs()))

    def _step(self, node: Any) -> Step:
        kind = node.kind()
        inputs = list(node.inputs())
        outputs = list(node.outputs())
        source = node.sourceRange()
        attributes, blocks = self._attributes(node, kind, inputs)
        for block in node.blocks():
            blocks.append(self.block(block.inputs(), block.nodes(), block))
        if kind == "prim::CallFunction":
            inputs = inputs[1:]
        names = [v.unique() for v in inputs]
        return Step(
            kind,
            _op_of(node, kind),
            tuple(names),
            tuple(v.unique() for v in outputs),
            attributes,
            tuple(blocks),
            _place(source, self._function),
            source.strip("\n"),
            outputs[0].type() if outputs else None,
            {i: self._literals[n] for i, n in enumerate(names) if n in self._literals},
        )

    def _attributes(
        self, node: Any, kind: str, inputs: list[Any]
    ) -> tuple[dict[str, Any], list[Block]]:
        if kind == "prim::Constant":
            return self._constant(node), []
        if kind == "prim::CallFunction":
            return {}, [self._call(node, "prim::CallFunction", inputs)]
        if kind == "prim::CallMethod":
            return {"name": node.s("name")}, self._method_of_class(node, inputs)
        if kind in ("prim::GetAttr", "prim::SetAttr"):
            return {"name": node.s("name")}, []
        if kind == "prim::CreateObject":
            return {"methods": ClassMethods(node.output().type(), self._modules)}, []
        if kind == "prim::TupleSlice":
            return {"begin": node.i("beg"), "end": node.i("end")}, []
        if kind == "prim::fork":
            return {}, [decode(node.g("Subgraph"), self._modules, self._function)]
        return {}, []

    def _constant(self, node: Any) -> dict[str, Any]:
        output = node.output()
        if output.type().kind() == "FunctionType" or not node.attributeNames():
            return {"value": None}
        value = output.toIValue()
        if isinstance(value, torch.Tensor) and value.dim() == 0:
            with torch.utils._python_dispatch._disable_current_modes():
                self._literals[output.unique()] = value.item()
        return {"value": value, "is_read_only": _is_read_only(output)}

    def _method_of_class(self, node: Any, inputs: list[Any]) -> list[Block]:
        """The code of a method, where the class is no module."""
        cls = inputs[0].type()
        if cls.is_interface_type() or cls.qualified_name() in self._modules:
            return []
        return [self._call(node, "prim::CallMethod", inputs)]

    def _call(self, node: Any, kind: str, inputs: list[Any]) -> Block:
        """The code that a call runs."""
        graph = torch._C.Graph()
        values = []
        for i, value in enumerate(inputs):
            if kind == "prim::CallFunction" and i == 0:
                clone = graph.createClone(value.node(), lambda v: v)
                graph.appendNode(clone)
                values.append(clone.output())
            else:
                values.append(graph.addInput())
                values[-1].setType(value.type())
        call = graph.create(kind, values, 1)
        name = values[0].node().s("name") if kind == "prim::CallFunction" else node.s("name")
        if kind == "prim::CallMethod":
            call.s_("name", name)
        return _inlined(graph, call, self._modules, name)


def _inlined(graph: Any, call: Any, modules: frozenset[str], name: str) -> Block:
    graph.appendNode(call)
    graph.registerOutput(call.output())
    torch._C._jit_pass_inline(graph)
    return decode(graph, modules, name)


def _op_of(node: Any, kind: str) -> str:
    schema = node.schema()
    if schema == "(no schema)":
        return str(kind)
    return str(schema).partition("(")[0]


def _is_read_only(value: Any) -> bool:
    """Whether no user of a constant tensor writes it or makes a view of it."""
    return all(_takes_values_only(use.user) for use in value.uses())


def _takes_values_only(node: Any) -> bool:
    kind = node.kind()
    if not kind.startswith("aten::") or node.schema() == "(no schema)":
        return False
    return "(a" not in node.schema()


# -- where a node comes from ---------------------------------------------------------------------

_PLACE = re.compile(r'File "([^"]*)", line (\d+)')


def _nowhere() -> None:
    """Its code object is the pattern of those that stand for lines of TorchScript."""


def _place(source: str, function: str) -> CodeType:
    found = _PLACE.search(source)
    if found is None:
        return _code("<torchscript>", 1, function)
    return _code(found[1], int(found[2]), function)


@functools.lru_cache(maxsize=65536)
def _code(filename: str, line: int, function: str) -> CodeType:
    """A code object whose first instruction is at a line of somebody's file."""
    pattern: Callable[[], None] = _nowhere
    return pattern.__code__.replace(
        co_filename=filename, co_firstlineno=line, co_name=function, co_qualname=function
    )
