"""The graphs of a hierarchy as Python, written as programs are.

State and submodules are reached through the module at each call, so that what a user puts in their
place is seen.
"""

from __future__ import annotations

import keyword
import linecache
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from stillframe import torch_private
from stillframe.export.call_spec import CallSpec
from stillframe.export.codegen.program import ProgramCode
from stillframe.export.codegen.state import StateCode
from stillframe.export.hierarchy.bodies import STATE, Body
from stillframe.export.signature import ExportGraphSignature, InputKind
from stillframe.export.source_text import Namespace
from stillframe.fake.tensor import FakeTensor
from stillframe.symbolic import Expr


@dataclass(frozen=True)
class Source:
    """A function: its text, and the function itself.

    Attributes:
        text: as Python, with the globals as comments.
        function: takes the module, then the arguments.
    """

    text: str
    function: Callable[..., Any]


class _ReachedState(StateCode):
    """State and submodules, reached through the module at each call.

    Args:
        names: of the code.
        receiver: the name of the module.
    """

    def __init__(self, names: Namespace, receiver: str) -> None:
        super().__init__(names)
        self._receiver = receiver

    def text(self, kind: InputKind, fqn: str) -> str:
        return self.reached(fqn)

    def reached(self, path: str) -> str:
        """``self.layers`` and so on; names that Python cannot spell go through getattr."""
        text = self._receiver
        for name in path.split("."):
            if name.isidentifier() and not keyword.iskeyword(name):
                text = f"{text}.{name}"
            else:
                text = f"{self.names.builtin(getattr)}({text}, {self.names.constant(name)})"
        return text


class _HierarchyCode(ProgramCode):
    """Writes graphs that call submodules and read state by name."""

    state: _ReachedState

    def _state_code(self) -> StateCode:
        return _ReachedState(self.names, self.door_code.receiver)

    def _statement(self, node: torch.fx.Node) -> str | None:
        if node.op == "get_attr" and STATE in node.meta:
            self.text[node] = self.state.reached(str(node.target))
            return None
        if node.op != "call_module":
            return super()._statement(node)
        arguments = [self.calls.argument(a) for a in node.args]
        arguments += [f"{k}={self.calls.argument(v)}" for k, v in node.kwargs.items()]
        expression = f"{self.state.reached(str(node.target))}({', '.join(arguments)})"
        if not node.users:
            return expression
        self.text[node] = self.names.local(node.name)
        return f"{self.text[node]} = {expression}"


class RootCode(_HierarchyCode):
    """The root: it checks a call as the program's module does, and runs its own nodes."""

    def __init__(self, program: Any, graph: torch.fx.Graph) -> None:
        super().__init__(program, graph=graph)

    def source(self, filename: str) -> Source:
        """The function that is the root's forward."""
        generated = self.generate()
        namespace = _compiled(generated.text, generated.values, filename)
        return Source(f"{generated.preamble}\n{generated.text}", namespace[generated.forward])


@dataclass(frozen=True)
class _NoDoor:
    """What the writer asks of a program, for a body: nothing is checked when it is called."""

    graph: torch.fx.Graph
    graph_module: torch.fx.GraphModule
    call_spec: CallSpec = CallSpec((), (), 0)
    graph_signature: ExportGraphSignature = field(default_factory=ExportGraphSignature)
    range_constraints: Any = field(default_factory=dict)
    guards: Sequence[Any] = ()
    assumptions: Sequence[Any] = ()
    dim_names: Any = field(default_factory=dict)


class BodyCode(_HierarchyCode):
    """One body of a submodule as a function of flat values.

    Args:
        program: the whole program.
        body: the body.
        first_switch: see :func:`first_switch`.
    """

    def __init__(self, program: Any, body: Body, first_switch: bool) -> None:
        super().__init__(_NoDoor(body.graph, program.graph_module))
        self._first_switch = first_switch

    def source(self, filename: str) -> Source:
        """The function."""
        name = self.names.local("forward")
        parameters = [self.door_code.receiver]
        for node in self.graph.nodes:
            if node.op == "placeholder":
                self.text[node] = self.names.local(node.name)
                parameters.append(self.text[node])
                self._tell_sizes(node)
        lines = self._lines()
        text = "\n".join(
            [
                *self.functions,
                f"def {name}({', '.join(parameters)}):",
                *(f"    {line}" for line in lines),
            ]
        )
        namespace = _compiled(f"{text}\n", self.names.values, filename)
        return Source(f"{self._preamble()}\n{text}\n", namespace[name])

    def _lines(self) -> list[str]:
        """The body; it leaves the grad mode as it found it, which is that of the whole program."""
        if not any(n.target is torch_private.set_grad_enabled for n in self.graph.nodes):
            return self._statements(self.graph)
        self.grad_mode = self.names.local("grad_mode")
        self.inner_grad_mode = self._first_switch
        return self._keeping_grad_mode(self._statements(self.graph))

    def _tell_sizes(self, node: torch.fx.Node) -> None:
        """Sizes by which results of custom operators are checked."""
        val = node.meta.get("val")
        for dim, size in enumerate(val.sizes if isinstance(val, FakeTensor) else ()):
            if isinstance(size, Expr) and size.op == "symbol":
                self.door_code.sizes.setdefault(size, f"{self.text[node]}.size({dim})")

    def _known_size(self, node: torch.fx.Node) -> bool:
        return False

    def _output(self, node: torch.fx.Node) -> list[str]:
        return [self._returned(node)]


def first_switch(graph: torch.fx.Graph) -> bool:
    """The mode that the first switch of a program sets; the other one is the caller's."""
    switches = (n for n in graph.nodes if n.target is torch_private.set_grad_enabled)
    first = next(switches, None)
    return first is not None and bool(first.args[0])


def _compiled(text: str, values: dict[str, Any], filename: str) -> dict[str, Any]:
    linecache.cache[filename] = (len(text), None, text.splitlines(keepends=True), filename)
    namespace: dict[str, Any] = {"__builtins__": __builtins__, **values}
    exec(compile(text, filename, "exec"), namespace)
    return namespace
