"""TorchScript graphs as plain data.

:func:`decode` reads a ``torch._C.Graph`` once, so that running it needs nothing of TorchScript's
C++ side. Calls of methods of modules stay calls. Functions and methods of other classes have no
graph that Python can ask for, so a graph with just that call is made and torch inlines it.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from types import CodeType
from typing import Any

import torch

from stillframe import stack


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


class TypeTable:
    """Values by types. Two files may each have a type of one name, so names are not enough."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, ...], list[tuple[list[Any], Any]]] = {}

    def get(self, name: str, types: list[Any]) -> Any:
        """What was put under these types, or None."""
        for known, value in self._found.get(_key(name, types), ()):
            if all(a == b for a, b in zip(known, types, strict=True)):
                return value
        return None

    def put(self, name: str, types: list[Any], value: Any) -> Any:
        """Keep a value, and return it."""
        self._found.setdefault(_key(name, types), []).append((types, value))
        return value

    def __iter__(self) -> Iterator[Any]:
        return (value for entries in self._found.values() for _, value in entries)


def _key(name: str, types: list[Any]) -> tuple[str, ...]:
    return (name, *(t.annotation_str for t in types))


class Decoder:
    """Decodes graphs of one program; a function that many call is decoded once.

    Args:
        modules: the qualified names of the types of modules.
    """

    def __init__(self, modules: Collection[str] = ()) -> None:
        self._modules = frozenset(modules)
        self._functions = TypeTable()

    def decode(self, graph: Any, function: str) -> Block:
        """The graph as data.

        Args:
            graph: a ``torch._C.Graph``.
            function: what the graph is the code of, for stacks.
        """
        return _OneGraph(self, graph, function).block(graph.inputs(), graph.nodes(), graph)

    def is_module(self, type_: Any) -> bool:
        """Whether values of a type are modules, or may be (an interface)."""
        return bool(type_.is_interface_type() or type_.qualified_name() in self._modules)

    def function(self, inputs: list[Any], types: list[Any]) -> Block:
        """The code of a function.

        Args:
            inputs: the function, then its arguments.
            types: what tells two functions of one name apart.
        """
        known = self._functions.get("", types)
        if known is None:
            graph: Any = torch._C.Graph()
            constant = graph.createClone(inputs[0].node(), lambda v: v)
            graph.appendNode(constant)
            values = [constant.output(), *_inputs_like(graph, types[1:])]
            call = graph.create("prim::CallFunction", values, 1)
            block = self._inlined(graph, call, constant.s("name"))
            known = self._functions.put("", types, block)
        return known  # type: ignore[no-any-return]

    def method(self, name: str, types: list[Any]) -> Block:
        """The code of a method of a class that is no module.

        Args:
            name: of the method.
            types: of the object, and of the arguments.
        """
        known = self._functions.get(name, types)
        if known is None:
            graph = torch._C.Graph()
            call = graph.create("prim::CallMethod", _inputs_like(graph, types), 1)
            call.s_("name", name)
            known = self._functions.put(name, types, self._inlined(graph, call, name))
        return known  # type: ignore[no-any-return]

    def _inlined(self, graph: Any, call: Any, name: str) -> Block:
        graph.appendNode(call)
        graph.registerOutput(call.output())
        torch._C._jit_pass_inline(graph)
        return self.decode(graph, name)


def _inputs_like(graph: Any, types: list[Any]) -> list[Any]:
    values = [graph.addInput() for _ in types]
    for value, type_ in zip(values, types, strict=True):
        value.setType(type_)
    return values


def attributes_of(block: Block) -> Iterator[str]:
    """The names of all attributes that the code reads or writes."""
    for step in block.steps:
        if step.kind in ("prim::GetAttr", "prim::SetAttr"):
            yield step.attributes["name"]
        for inner in step.blocks:
            yield from attributes_of(inner)


class _OneGraph:
    """Decoding one graph."""

    def __init__(self, decoder: Decoder, graph: Any, function: str) -> None:
        self._decoder = decoder
        self._graph = graph
        self._function = function
        self._literals: dict[int, Any] = {}

    @functools.cached_property
    def _home(self) -> CodeType:
        """The place of nodes that have none (``x.requires_grad``): a line of the user's, if any.

        What the user's code asks becomes a condition of the program, so it must not seem a line
        of a library whose code was put into the user's.
        """
        places = [_place(n.sourceRange(), self._function) for n in self._graph.nodes()]
        known = [place for place in places if place is not None]
        nowhere = _code("torchscript", 1, self._function)
        return next((p for p in known if stack.is_user_code(p)), known[0] if known else nowhere)

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
            _place(source, self._function) or self._home,
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
            types = [value.type() for value in inputs]
            return {}, [self._decoder.function(inputs, types)]
        if kind == "prim::CallMethod":
            return {"name": node.s("name")}, self._method_of_class(node, inputs)
        if kind in ("prim::GetAttr", "prim::SetAttr"):
            return {"name": node.s("name")}, []
        if kind == "prim::Enter":
            cls = inputs[0].type()
            return {"class": cls.qualified_name()}, [self._decoder.method("__enter__", [cls])]
        if kind == "prim::Exit":
            none = torch._C.NoneType.get()
            return {}, [self._decoder.method("__exit__", [inputs[0].type(), none, none, none])]
        if kind == "prim::TupleSlice":
            return {"begin": node.i("beg"), "end": node.i("end")}, []
        if kind == "prim::fork":
            return {}, [self._decoder.decode(node.g("Subgraph"), self._function)]
        return {}, []

    def _constant(self, node: Any) -> dict[str, Any]:
        output = node.output()
        if output.type().kind() == "FunctionType" or not node.attributeNames():
            return {"value": None}
        value = output.toIValue()
        is_read_only = _is_read_only(output)
        if isinstance(value, torch.Tensor) and value.dim() == 0 and is_read_only:
            self._literals[output.unique()] = value.item()
        return {"value": value, "is_read_only": is_read_only}

    def _method_of_class(self, node: Any, inputs: list[Any]) -> list[Block]:
        """The code of a method, where the class is no module."""
        types = [value.type() for value in inputs]
        if self._decoder.is_module(types[0]):
            return []
        return [self._decoder.method(node.s("name"), types)]


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


def _place(source: str, function: str) -> CodeType | None:
    found = _PLACE.search(source)
    return _code(found[1], int(found[2]), function) if found else None


@functools.lru_cache(maxsize=65536)
def _code(filename: str, line: int, function: str) -> CodeType:
    """A code object whose first instruction is at a line of somebody's file."""
    pattern: Callable[[], None] = _nowhere
    return pattern.__code__.replace(
        co_filename=filename, co_firstlineno=line, co_name=function, co_qualname=function
    )
