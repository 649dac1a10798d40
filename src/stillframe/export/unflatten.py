"""``unflatten``: a program as a tree of modules, with the names of the module it was made from.

The nodes of the graph are put into the module calls that they were recorded in
(:mod:`~stillframe.export.hierarchy.calls`), each call becomes a graph that calls those below
(:mod:`~stillframe.export.hierarchy.bodies`), and each graph a function of the module at its path.
"""

from __future__ import annotations

import itertools
import linecache
import weakref
from collections.abc import Iterator
from typing import Any

import torch

from stillframe.errors import InvalidInput, SpecViolationError
from stillframe.export.hierarchy.bodies import Bodies, Body, make_bodies
from stillframe.export.hierarchy.calls import CallTree, call_tree
from stillframe.export.hierarchy.code import BodyCode, RootCode, first_switch
from stillframe.export.hierarchy.parts import Part, PartPlan, RunnableBody
from stillframe.export.program import ExportedProgram
from stillframe.export.runner import StateEntry, place, state_entries
from stillframe.export.signature import OutputKind

_counter = itertools.count(1)


def unflatten(program: ExportedProgram) -> torch.nn.Module:
    """The work behind :func:`stillframe.unflatten`."""
    if not isinstance(program, ExportedProgram):
        raise InvalidInput(
            f"unflatten takes an ExportedProgram, got {type(program).__name__}.",
            hints=["program = stillframe.export(module, args)"],
        )
    verify_weights = getattr(program.state_dict, "verify_weights", None)
    if verify_weights is not None:
        verify_weights()
    tree = call_tree(program)
    graph, bodies = make_bodies(tree)
    plans = _Plans(tree, bodies, graph)
    root = _assembled(program, plans)
    for name in plans.files:
        weakref.finalize(type(root), linecache.cache.pop, name, None)
    return root


class _Plans:
    """What every part is made of, by path."""

    def __init__(self, tree: CallTree, bodies: Bodies, graph: torch.fx.Graph) -> None:
        self.program = tree.program
        self.files: list[str] = []
        self._number = next(_counter)
        self._first_switch = first_switch(self.program.graph)
        self._fixed = _fixed(tree, bodies)
        self._classes = {call.path: call.class_name for call in tree.root.calls()}
        self._bodies = bodies.of_module
        source = RootCode(self.program, graph).source(self._file(self.program.root_class))
        self.root = PartPlan(
            "", self.program.root_class, [RunnableBody(graph, source)], self._fixed.get("", {}),
            source.function,
        )  # fmt: skip

    def of(self, path: str) -> PartPlan:
        """The plan of the part at ``path``."""
        bodies = self._bodies.get(path, [])
        name = self._classes.get(path, "Part").rpartition(".")[2]
        runnable = [self._runnable(body) for body in bodies]
        return PartPlan(path, name, runnable, self._fixed.get(path, {}))

    def _runnable(self, body: Body) -> RunnableBody:
        file = self._file(f"{self.program.root_class}.{body.call.name}")
        source = BodyCode(self.program, body, self._first_switch).source(file)
        outside = tuple(n.name for n in body.extras)
        return RunnableBody(body.graph, source, body.signature, outside, bool(body.extra_gives))

    def _file(self, what: str) -> str:
        self.files.append(f"<stillframe {what} {self._number}>")
        return self.files[-1]


# -- what cannot be replaced ----------------------------------------------------------------------


def _fixed(tree: CallTree, bodies: Bodies) -> dict[str, dict[str, str]]:
    """Path -> name of a child -> why another module there would not do what it says."""
    reasons: dict[str, str] = {}
    for inner, around in tree.inlined:
        for path in _paths_between(inner, around):
            reasons.setdefault(path, f"operators of self.{inner} are part of {_text(around)}")
    for fqn, reason in _used_by_root(tree.program):
        for path in _prefixes(fqn):
            reasons.setdefault(path, reason)
    for body in bodies.flat:
        call = body.call
        assert call.parent is not None
        for path in _paths_between(call.path, call.parent.path):
            reasons.setdefault(path, _flat_text(body))
    reached = {
        path
        for reader, names in bodies.reads.items()
        for name in names
        for path in _paths_between(name, reader)
    }
    found: dict[str, dict[str, str]] = {}
    for entry in tree.program.module_call_graph:
        path = entry.fqn.partition("@")[0]
        if path and path not in reached:
            reasons.setdefault(path, "nothing in the program calls it or reads what it holds")
        if path in reasons:
            parent, _, name = path.rpartition(".")
            found.setdefault(parent, {})[name] = reasons[path]
    return found


def _flat_text(body: Body) -> str:
    path = body.call.path
    takes, gives = (", ".join(n.name for n in nodes) for nodes in (body.takes, body.gives))
    return (
        f"self.{path} takes ({takes}) and gives ({gives}) in the order of the graph; export with "
        f"preserve_module_call_signature=({path!r},), and it is called as the original is"
    )


def _paths_between(path: str, around: str) -> set[str]:
    """``path`` and the paths above it, without ``around`` and those above that."""
    return {*_prefixes(path)} - {*_prefixes(around)}


def _used_by_root(program: ExportedProgram) -> Iterator[tuple[str, str]]:
    """State that the program itself needs at every call: its name, and what for."""
    signature = program.graph_signature
    targets = {spec.arg.name: spec.target for spec in signature.input_specs}
    for assumption in program.assumptions:
        fqn = targets.get(assumption.about)
        if fqn is not None:
            yield fqn, f"every call asks for {assumption.what} of self.{fqn}"
    states = {spec.target for spec in signature.input_specs}
    for spec in signature.output_specs:
        if spec.target is not None and spec.target in states:
            gradient = spec.kind is OutputKind.GRADIENT_TO_PARAMETER
            what = "computes the gradient of" if gradient else "copies a new value to"
            yield spec.target, f"every call {what} self.{spec.target}"


def _text(path: str) -> str:
    return f"self.{path}" if path else "the whole model"


# -- putting the modules together -----------------------------------------------------------------


def _assembled(program: ExportedProgram, plans: _Plans) -> Part:
    root = plans.root.make()
    for entry in program.module_call_graph:
        if entry.fqn and "@" not in entry.fqn:
            _part(root, entry.fqn, plans)
    for state in state_entries(program):
        path, _, name = state.fqn.rpartition(".")
        place(_part(root, path, plans), name, state, _value(program, state))
    for part in root.modules():
        part.training = bool(program.training)
    return root


def _part(root: Part, path: str, plans: _Plans) -> Any:
    """The part at ``path``, made with all above it if it is not there."""
    part: Any = root
    for prefix in _prefixes(path):
        name = prefix.rpartition(".")[2]
        child = part._modules.get(name)
        if child is None:
            if hasattr(Part, name):  # torch refuses these names, too
                raise SpecViolationError(f"self.{prefix}: no module may be called {name!r}.")
            child = part._modules[name] = plans.of(prefix).make()
        part = child
    return part


def _prefixes(path: str) -> Iterator[str]:
    """``a``, ``a.b``, ``a.b.c`` for ``a.b.c``."""
    names = path.split(".") if path else []
    return itertools.accumulate(names, lambda head, name: f"{head}.{name}")


def _value(program: ExportedProgram, state: StateEntry) -> Any:
    source = program.state_dict if state.fqn in program.state_dict else program.constants
    if state.fqn not in source:
        raise SpecViolationError(f"{state.kind.name} {state.fqn} has no value in the program.")
    return source[state.fqn]
