"""Call signatures of submodules: what a module was called with, and what it returned.

:class:`SignatureCollector` listens to the module calls of a capture. A signature names graph nodes,
so it is written at the end, when the graph is clean; until then the nodes themselves are held, and
marked so that no pass removes them. :class:`SignatureFollower` finds the same values in a graph
that is made by running a program again.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch.utils import _pytree as pytree

from stillframe import stack, torch_private
from stillframe.errors import InvalidInput, NotSupported
from stillframe.export.passes import KEPT
from stillframe.export.signature import (
    ArgumentSpec,
    ConstantArgument,
    ModuleCallEntry,
    ModuleCallSignature,
    SymBoolArgument,
    SymFloatArgument,
    SymIntArgument,
    TensorArgument,
)
from stillframe.shapes.env import to_size
from stillframe.symbolic import Expr
from stillframe.trace.recorder import Recorder
from stillframe.trace.scope import name_of_call

SYMBOLIC_ARGUMENTS: dict[str, Any] = {
    "int": SymIntArgument,
    "float": SymFloatArgument,
    "bool": SymBoolArgument,
}

#: A leaf of a call: the node that computes it, or a value fixed at capture.
Leaf = torch.fx.Node | ConstantArgument

Modules = Sequence[tuple[str, torch.nn.Module]]


def check_paths(paths: Any, modules: Modules) -> frozenset[str]:
    """The paths of ``preserve_module_call_signature``.

    Raises:
        InvalidInput: no tuple of paths of submodules; names the path and the nearest names.
    """
    if isinstance(paths, str) or not isinstance(paths, (tuple, list, set, frozenset)):
        raise InvalidInput(
            "preserve_module_call_signature must be a tuple of paths of submodules, got "
            f"{paths!r}.",
            hints=['for one module write preserve_module_call_signature=("encoder",)'],
        )
    known = [path for path, _ in modules]
    for path in paths:
        if path == "":
            raise InvalidInput(
                "preserve_module_call_signature names the root, whose signature is kept anyway.",
                hints=["name submodules only"],
            )
        if path not in known:
            near = difflib.get_close_matches(str(path), known, n=3)
            hints = [f"did you mean {' or '.join(map(repr, near))}?"] if near else []
            raise InvalidInput(
                f"preserve_module_call_signature names {path!r}, and the module has no submodule "
                "of that path.",
                hints=hints,
            )
    return frozenset(paths)


@dataclass
class _Call:
    """One call: its leaves, and their structure; the outputs are known when it has returned."""

    inputs: list[Leaf]
    in_spec: pytree.TreeSpec
    names: list[str] | None
    outputs: list[Leaf] = field(default_factory=list)
    out_spec: pytree.TreeSpec | None = None


class SignatureCollector:
    """Collects the call signatures of some modules during one capture.

    Args:
        modules: the captured module and all below it.
        paths: of the modules to listen to, see :func:`check_paths`.
        recorder: the recorder of the capture.
    """

    def __init__(self, modules: Modules, paths: frozenset[str], recorder: Recorder) -> None:
        self._wanted = {id(module): path for path, module in modules if path in paths}
        self._recorder = recorder
        self._calls: dict[str, _Call] = {}
        self._first: dict[int, _Call] = {}

    # -- during the run -------------------------------------------------------------------------

    def wants(self, module: torch.nn.Module) -> bool:
        """Whether the signature of ``module`` is collected."""
        return id(module) in self._wanted

    def called(self, module: torch.nn.Module, args: Any, kwargs: Any) -> _Call:
        """A call begins, with these arguments.

        Raises:
            NotSupported: an argument that a signature cannot hold; or a call inside a subgraph, or
                one whose arguments have another structure than those of the first call.
        """
        path = self._wanted[id(module)]
        if self._recorder.subgraph is not None:
            raise self._refused(
                f"self.{path} is called inside a function of a higher-order operator",
                "its values are not those of the whole graph",
            )
        inputs, in_spec = self._leaves((args, kwargs), f"an input of self.{path}")
        call = _Call(inputs, in_spec, _parameter_names(module))
        first = self._first.setdefault(id(module), call)
        if first.in_spec != in_spec:
            raise self._refused(
                f"self.{path} is called with arguments of two structures",
                f"first {first.in_spec}, then {in_spec}",
            )
        return call

    def returned(self, name: str, call: _Call, result: Any) -> None:
        """The call of that name, still open, has this result.

        Raises:
            NotSupported: as for :meth:`called`.
        """
        path = name.partition("@")[0]
        call.outputs, call.out_spec = self._leaves(result, f"an output of self.{path}")
        for known, other in self._calls.items():
            if known.partition("@")[0] == path and other.out_spec != call.out_spec:
                raise self._refused(
                    f"self.{path} returns results of two structures",
                    f"first {other.out_spec}, then {call.out_spec}",
                )
        self._calls[name] = call

    def _leaves(self, tree: Any, what: str) -> tuple[list[Leaf], pytree.TreeSpec]:
        leaves, spec = pytree.tree_flatten(tree)
        return [self._leaf(leaf, what) for leaf in leaves], spec

    def _leaf(self, leaf: Any, what: str) -> Leaf:
        if isinstance(leaf, torch.Tensor) and not torch_private.is_functorch_wrapper(leaf):
            return self._kept(self._recorder.operand(leaf))
        if isinstance(to_size(leaf), Expr):
            return self._kept(self._recorder.operand(leaf))
        if leaf is None or isinstance(leaf, (bool, int, float, str)):
            return ConstantArgument("", leaf)
        raise self._refused(
            f"{what} is {leaf!r}, of {type(leaf)}",
            "inputs and outputs must be tensors or plain constants, and containers of these",
        )

    @staticmethod
    def _kept(node: torch.fx.Node) -> torch.fx.Node:
        node.meta[KEPT] = True
        return node

    def _refused(self, what: str, why: str) -> NotSupported:
        return NotSupported(
            f"A call signature cannot be preserved: {what}.",
            why=why,
            where=stack.summary(stack.raw_stack(self._recorder.floor)),
            hints=["leave the module out of preserve_module_call_signature"],
        )

    # -- afterwards ------------------------------------------------------------------------------

    def entries(self, paths: Sequence[str]) -> list[ModuleCallEntry]:
        """One entry for each path, then one for each further call of a preserved module."""
        found = {name: _signature(call) for name, call in self._calls.items()}
        further = [name for name in found if name not in paths]
        return [ModuleCallEntry(name, found.get(name)) for name in (*paths, *further)]

    def notes(self, graph: torch.fx.Graph) -> list[str]:
        """A sentence for each module whose signature will be of no use."""
        with_nodes = set(extents(graph))
        notes = [
            f"the call signature of self.{path} is not known: the module was not called"
            for module, path in self._wanted.items()
            if module not in self._first
        ]
        return notes + [_without_nodes(name) for name in self._calls if name not in with_nodes]


def _without_nodes(name: str) -> str:
    return f"the call of self.{name} has no operators: an unflattened program does not call it"


def _parameter_names(module: torch.nn.Module) -> list[str] | None:
    try:
        return list(inspect.signature(module.forward).parameters)
    except (ValueError, TypeError):  # a forward without a signature
        return None


def _signature(call: _Call) -> ModuleCallSignature:
    assert call.out_spec is not None
    return ModuleCallSignature(
        [_argument(leaf) for leaf in call.inputs],
        [_argument(leaf) for leaf in call.outputs],
        call.in_spec,
        call.out_spec,
        call.names,
    )


def _argument(leaf: Leaf) -> ArgumentSpec:
    if isinstance(leaf, ConstantArgument):
        return leaf
    val = leaf.meta["val"]
    if isinstance(val, torch.Tensor):
        return TensorArgument(leaf.name)
    size = to_size(val)
    if isinstance(size, Expr):
        argument: ArgumentSpec = SYMBOLIC_ARGUMENTS[size.sort](leaf.name)
        return argument
    return ConstantArgument("", val)


def extents(graph: torch.fx.Graph) -> dict[str, tuple[torch.fx.Node, torch.fx.Node]]:
    """The first and the last node of each module call of a graph, by the name of the call."""
    found: dict[str, tuple[torch.fx.Node, torch.fx.Node]] = {}
    for node in graph.nodes:
        for key in node.meta.get("nn_module_stack") or ():
            name = name_of_call(key)
            found[name] = (found[name][0] if name in found else node, node)
    return found


class SignatureFollower:
    """Follows call signatures while the graph of a program is run again.

    What a signature names is looked up when its call begins and when it ends: later, the same
    tensor may have another value.

    Args:
        entries: the module call graph of the program.
        graph: its graph.
        find: the node of the new graph for a node of the old one, at present.
    """

    def __init__(
        self,
        entries: Sequence[ModuleCallEntry],
        graph: torch.fx.Graph,
        find: Callable[[torch.fx.Node], Any],
    ) -> None:
        self._entries = list(entries)
        self._find = find
        self._nodes = {node.name: node for node in graph.nodes}
        self._begins: dict[torch.fx.Node, list[str]] = {}
        self._ends: dict[torch.fx.Node, list[str]] = {}
        self._found: dict[str, tuple[list[Leaf], list[Leaf]]] = {}
        self._wanted = {e.fqn: e.signature for e in entries if e.fqn and e.signature is not None}
        for name, (first, last) in extents(graph).items() if self._wanted else ():
            if name in self._wanted:
                self._begins.setdefault(first, []).append(name)
                self._ends.setdefault(last, []).append(name)

    def before(self, node: torch.fx.Node) -> None:
        """``node`` is about to run."""
        for name in self._begins.get(node, ()):
            signature = self._wanted[name]
            assert signature is not None
            self._found[name] = (self._leaves(signature.inputs), [])

    def after(self, node: torch.fx.Node) -> None:
        """``node`` has run."""
        for name in self._ends.get(node, ()):
            signature = self._wanted[name]
            assert signature is not None
            self._found[name] = (self._found[name][0], self._leaves(signature.outputs))

    def _leaves(self, arguments: Sequence[ArgumentSpec]) -> list[Leaf]:
        leaves: list[Leaf] = []
        for argument in arguments:
            if isinstance(argument, ConstantArgument):
                leaves.append(argument)
                continue
            found = self._find(self._nodes[argument.name])
            if isinstance(found, torch.fx.Node):
                found.meta[KEPT] = True
                leaves.append(found)
            else:
                leaves.append(ConstantArgument("", found))
        return leaves

    def entries(self) -> list[ModuleCallEntry]:
        """The entries over the new graph; a signature that cannot be followed is left out."""
        return [self._entry(entry) for entry in self._entries]

    def _entry(self, entry: ModuleCallEntry) -> ModuleCallEntry:
        found = self._found.get(entry.fqn)
        if entry.signature is None or not entry.fqn:
            return entry
        if found is None:
            return replace(entry, signature=None)
        inputs, outputs = ([_argument(leaf) for leaf in leaves] for leaves in found)
        return replace(entry, signature=replace(entry.signature, inputs=inputs, outputs=outputs))

    def notes(self) -> list[str]:
        """A sentence for each signature that is left out."""
        return [
            f"the call signature of self.{name} was dropped: the call has no operators"
            for name in self._wanted
            if name not in self._found
        ]


def named_nodes(signature: ModuleCallSignature) -> Mapping[str, None]:
    """The names of the nodes that a signature speaks of, in order."""
    arguments = (*signature.inputs, *signature.outputs)
    return dict.fromkeys(a.name for a in arguments if not isinstance(a, ConstantArgument))
