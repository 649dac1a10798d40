"""A graph as rows, and back: nodes with their operands and metadata.

Metadata that repeats (stack traces, module stacks) is kept once. A tensor's metadata says which
piece of memory it is in, so that aliasing survives; how often the program writes each piece is
kept too, because callers may not pass overlapping inputs for pieces that are written.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from stillframe import torch_private
from stillframe.artifact import ops, schema
from stillframe.artifact.schema import FakeValue, ListValue, NodeRow, SymbolValue, TupleValue, Value
from stillframe.artifact.values import Decoder, Encoder, torch_constant
from stillframe.errors import ArtifactError
from stillframe.export.containers import dtype_of
from stillframe.export.signature import CustomObjArgument
from stillframe.fake.tensor import FakeStorage, FakeTensor
from stillframe.shapes.env import ShapeEnv, to_size
from stillframe.symbolic import Expr, parse, to_python

_LETTERS = {"placeholder": "p", "call_function": "c", "output": "o", "get_attr": "g"}
_OPS = {letter: op for op, letter in _LETTERS.items()}


class Strings:
    """A table of strings, each kept once."""

    def __init__(self) -> None:
        self.items: list[str] = []
        self._index: dict[str, int] = {}

    def add(self, text: str) -> int:
        """The place of ``text`` in the table."""
        index = self._index.get(text)
        if index is None:
            index = self._index[text] = len(self.items)
            self.items.append(text)
        return index


# -- writing --------------------------------------------------------------------------------------


class GraphWriter:
    """Rows of one graph and of its subgraphs.

    Attributes:
        graphs: rows of the subgraphs, inner ones first.
        strings, module_stacks: tables that the rows refer to.
        storages: for each piece of memory, how often the program writes it.
        env: the shape environment of the metadata, if any tensor was met.
    """

    def __init__(self, module: torch.fx.GraphModule) -> None:
        self.graphs: list[list[NodeRow]] = []
        self.strings = Strings()
        self.module_stacks: list[list[tuple[str, str, str]]] = []
        self.storages: list[int] = []
        self.env: ShapeEnv | None = None
        self._module = module
        self._index: dict[torch.fx.Node, int] = {}
        self._encoder = Encoder(self._index.__getitem__)
        self._storage_index: dict[int, int] = {}
        self._stack_index: dict[tuple[tuple[str, str, str], ...], int] = {}
        self._targets: dict[Any, int] = {}
        self._sizes: dict[Expr, str] = {}

    def write(self) -> list[NodeRow]:
        """All nodes, in order.

        Raises:
            ArtifactError: a node, an operand or metadata that a file cannot hold.
        """
        return self._rows(self._module)

    def _rows(self, module: torch.fx.GraphModule) -> list[NodeRow]:
        nodes = list(module.graph.nodes)
        self._index.update((node, i) for i, node in enumerate(nodes))
        return [
            self._subgraph(node, module) if node.op == "get_attr" else self._row(node)
            for node in nodes
        ]

    def _subgraph(self, node: torch.fx.Node, module: torch.fx.GraphModule) -> NodeRow:
        inner = getattr(module, str(node.target), None)
        if not isinstance(inner, torch.fx.GraphModule):
            raise ArtifactError(f"A file cannot hold the attribute {node.target} of a graph.")
        self.graphs.append(self._rows(inner))
        name = self.strings.add(str(node.target))
        return NodeRow("g", node.name, name, [len(self.graphs) - 1], {})

    def _row(self, node: torch.fx.Node) -> NodeRow:
        letter = _LETTERS.get(node.op)
        if letter is None:
            raise ArtifactError(f"A file cannot hold the {node.op} node {node.name} yet.")
        meta, encode, name = node.meta, self._encoder.value, node.name
        fn = meta.get("torch_fn")
        return NodeRow(
            letter,
            name,
            self._target(node.target) if letter == "c" else -1,
            [encode(a, f"an argument of {name}") for a in node.args],
            {k: encode(v, f"{k} of {name}") for k, v in node.kwargs.items()},
            self._val(meta.get("val"), name) if letter != "o" else None,
            self.strings.add(meta["stack_trace"]) if meta.get("stack_trace") else -1,
            self._module_stack(meta.get("nn_module_stack")),
            (self.strings.add(str(fn[0])), self.strings.add(str(fn[1]))) if fn else None,
            [(to_python(s), list(p)) for s, p in meta.get("unbacked_bindings", {}).items()],
        )

    def _target(self, target: Any) -> int:
        index = self._targets.get(target)
        if index is None:
            index = self._targets[target] = self.strings.add(ops.target_name(target))
        return index

    def _module_stack(self, stack: Any) -> int:
        if not stack:
            return -1
        key = tuple((str(k), str(path), _class_text(cls)) for k, (path, cls) in stack.items())
        index = self._stack_index.get(key)
        if index is None:
            index = self._stack_index[key] = len(self.module_stacks)
            self.module_stacks.append(list(key))
        return index

    def _val(self, val: Any, name: str) -> Value:
        if isinstance(val, FakeTensor):
            if val.sparse is not None:
                kind = val.sparse.layout
                raise ArtifactError(f"{name} is a {kind} tensor, which a file cannot hold yet.")
            return self._fake(val)
        if isinstance(val, CustomObjArgument):
            raise ArtifactError(
                f"{name} is a script object ({val.class_fqn}), which a file cannot hold."
            )
        if isinstance(val, torch.Tensor):
            raise ArtifactError(f"The metadata of {name} is a real tensor.")
        if isinstance(val, (list, tuple)):
            items = [self._val(v, name) for v in val]
            return TupleValue(items) if isinstance(val, tuple) else ListValue(items)
        size = to_size(val)
        if isinstance(size, Expr):
            return SymbolValue(to_python(size))
        return self._encoder.value(val, f"the metadata of {name}")

    def _fake(self, fake: FakeTensor) -> FakeValue:
        self.env = self.env or fake.env
        storage = self._storage_index.get(id(fake.storage_))
        if storage is None:
            storage = self._storage_index[id(fake.storage_)] = len(self.storages)
            self.storages.append(fake.storage_.written)
        return FakeValue(
            str(fake.dtype).removeprefix("torch."),
            str(fake.device),
            [self._size(s) for s in fake.sizes],
            [self._size(s) for s in fake.strides],
            self._size(fake.offset),
            storage,
            fake.requires_grad,
            bool(getattr(fake, "_is_param", False)),
        )

    def _size(self, size: Any) -> int | str:
        if not isinstance(size, Expr):
            return int(size)
        text = self._sizes.get(size)
        if text is None:
            text = self._sizes[size] = to_python(size)
        return text


def _class_text(cls: Any) -> str:
    return cls if isinstance(cls, str) else f"{cls.__module__}.{cls.__qualname__}"


def _val_of(value: Any) -> Any:
    """The metadata of what a graph returns; some of it may stand in containers."""
    if isinstance(value, (list, tuple)):
        return tuple(map(_val_of, value))
    return value.meta["val"] if isinstance(value, torch.fx.Node) else value


# -- reading --------------------------------------------------------------------------------------


class GraphReader:
    """Makes the graph of a document, with fakes as metadata.

    Args:
        document: the program.
        env: holds the symbols of the document.
    """

    def __init__(self, document: schema.ProgramDoc, env: ShapeEnv) -> None:
        self.document = document
        self.env = env
        self.symbols = {str(s): s for s in env.symbols}
        self._nodes: list[torch.fx.Node] = []
        self._root = torch.nn.Module()
        self._graphs: list[torch.fx.GraphModule] = []
        self._read_by: dict[int, str] = {}
        self._storages: list[FakeStorage] = []
        for written in document.storages:
            storage = FakeStorage()
            storage.written = written
            self._storages.append(storage)
        self._expressions: dict[str, Expr] = {}
        self._targets: dict[int, Any] = {}
        self._stacks: dict[int, dict[str, tuple[str, str]]] = {}
        self._decoder = Decoder(node=self._node)

    def read(self) -> torch.fx.GraphModule:
        """The graph module.

        Raises:
            ArtifactError: a row that makes no sense, or an operator that is not registered here.
        """
        for rows in self.document.graphs:
            self._graphs.append(self._read(rows))
        return self._read(self.document.nodes)

    def _read(self, rows: list[NodeRow]) -> torch.fx.GraphModule:
        graph = torch.fx.Graph()
        self._nodes, self._root = [], torch.nn.Module()
        readers: dict[str, Callable[[torch.fx.Graph, NodeRow], torch.fx.Node]] = {
            "p": self._placeholder, "c": self._call, "o": self._output, "g": self._subgraph,
        }  # fmt: skip
        for row in rows:
            reader = readers.get(row.op)
            if reader is None:
                raise ArtifactError(f"the file has a node of unknown kind {row.op!r}.")
            if not row.name.isidentifier():
                raise ArtifactError(f"the file has a node with the name {row.name[:40]!r}.")
            self._nodes.append(reader(graph, row))
        if not self._nodes or self._nodes[-1].op != "output":
            raise ArtifactError("the graph in the file does not end in an output.")
        return torch_private.lazy_graph_module(graph, self._root)

    def _placeholder(self, graph: torch.fx.Graph, row: NodeRow) -> torch.fx.Node:
        node = graph.placeholder(row.name)
        node.name = node.target = row.name
        node.meta["val"] = self._val(row.val)
        return node

    def _call(self, graph: torch.fx.Graph, row: NodeRow) -> torch.fx.Node:
        args = tuple(self._decoder.value(a) for a in row.args)
        kwargs = {k: self._decoder.value(v) for k, v in row.kwargs.items()}
        node = graph.create_node("call_function", self._target(row.target), args, kwargs, row.name)
        node.name = row.name
        meta = node.meta
        if row.module_stack >= 0:
            meta["nn_module_stack"] = self._module_stack(row.module_stack).copy()
        if row.torch_fn is not None:
            meta["torch_fn"] = (self._string(row.torch_fn[0]), self._string(row.torch_fn[1]))
        meta["val"] = self._val(row.val)
        if row.trace >= 0:
            meta["stack_trace"] = self._string(row.trace)
        if row.unbacked:
            meta["unbacked_bindings"] = {self.expression(s): tuple(p) for s, p in row.unbacked}
        return node

    def _subgraph(self, graph: torch.fx.Graph, row: NodeRow) -> torch.fx.Node:
        name, index = self._string(row.target), row.args[0] if row.args else None
        if not name.isidentifier() or hasattr(self._root, name):
            raise ArtifactError(f"the file has a subgraph with the name {name[:40]!r}.")
        if type(index) is not int or not 0 <= index < len(self._graphs):
            raise ArtifactError(f"the file has no subgraph for {name[:40]!r}.")
        if index in self._read_by:  # many readers of many readers would be a very large program
            raise ArtifactError(f"the file has two readers of one subgraph: {name[:40]!r}.")
        self._read_by[index] = name
        self._root.add_module(name, self._graphs[index])
        node = graph.get_attr(name)
        node.name = row.name
        node.meta["val"] = None
        return node

    def _output(self, graph: torch.fx.Graph, row: NodeRow) -> torch.fx.Node:
        values = self._decoder.value(row.args[0]) if len(row.args) == 1 else None
        if isinstance(values, torch.fx.Node):  # the condition of a loop
            single: torch.fx.Node = graph.output(values)
            single.meta["val"] = values.meta["val"]
            return single
        if not isinstance(values, (list, tuple)):
            raise ArtifactError("the output of the graph in the file is no tuple.")
        node: torch.fx.Node = graph.output(tuple(values))
        node.meta["val"] = tuple(map(_val_of, values))
        return node

    # -- parts --------------------------------------------------------------------------------

    def _node(self, index: int) -> torch.fx.Node:
        if not 0 <= index < len(self._nodes):
            raise ArtifactError(f"node {len(self._nodes)} in the file uses node {index}.")
        return self._nodes[index]

    def _string(self, index: int) -> str:
        if not 0 <= index < len(self.document.strings):
            raise ArtifactError(f"there is no string {index} in the file.")
        return self.document.strings[index]

    def _target(self, index: int) -> Any:
        target = self._targets.get(index)
        if target is None:
            target = self._targets[index] = ops.resolve_target(self._string(index))
        return target

    def _module_stack(self, index: int) -> dict[str, tuple[str, str]]:
        known = self._stacks.get(index)
        if known is None:
            if index >= len(self.document.module_stacks):
                raise ArtifactError(f"there is no module stack {index} in the file.")
            rows = self.document.module_stacks[index]
            known = self._stacks[index] = {key: (path, cls) for key, path, cls in rows}
        return known

    def expression(self, text: str) -> Expr:
        """The expression that ``text`` says, over the symbols of the document."""
        known = self._expressions.get(text)
        if known is None:
            try:
                known = parse(text, self.symbols)
            except ValueError as e:
                raise ArtifactError(f"the file has a size that cannot be read: {e}") from None
            unknown = [s for s in known.free_symbols if s not in self.env.symbols]
            if unknown:
                raise ArtifactError(
                    f"the file has the symbol {unknown[0]} in a size and nowhere else."
                )
            self._expressions[text] = known
        return known

    def _size(self, size: int | str) -> Any:
        return size if isinstance(size, int) else self.expression(size)

    def _val(self, row: Value) -> Any:
        if isinstance(row, FakeValue):
            return self._fake(row)
        if isinstance(row, SymbolValue):
            return self.env.wrap(self.expression(row.text))
        if isinstance(row, TupleValue):
            return tuple(self._val(v) for v in row.items)
        if isinstance(row, ListValue):
            return [self._val(v) for v in row.items]
        return self._decoder.value(row)

    def _fake(self, row: FakeValue) -> FakeTensor:
        if not 0 <= row.storage < len(self._storages):
            raise ArtifactError(f"there is no memory {row.storage} in the file.")
        try:
            fake = FakeTensor.make(
                self.env,
                [self._size(s) for s in row.sizes],
                [self._size(s) for s in row.strides],
                self._size(row.offset),
                dtype_of(row.dtype),
                torch_constant("device", row.device),
                row.requires_grad,
                self._storages[row.storage],
            )
        except (ValueError, RuntimeError) as e:
            raise ArtifactError(f"the file has a tensor that cannot be: {e}") from None
        if row.is_parameter:
            fake._is_param = True
        return fake
