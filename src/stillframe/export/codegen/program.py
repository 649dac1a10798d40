"""A program as one Python function: the door, then one line for each operator, then the result.

The function is straight-line code. Operators are called by their fastest binding; state is read
from the module's own tables at each call, so that replaced parameters are seen; a value is let go
right after its last use, so that memory peaks where it does in eager.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import torch

from stillframe import torch_private
from stillframe.errors import SpecViolationError
from stillframe.export.codegen.calls import CallCode
from stillframe.export.codegen.entry import EntryCode
from stillframe.export.codegen.result import ResultCode
from stillframe.export.codegen.special import SPECIAL
from stillframe.export.codegen.state import StateCode, StateTable
from stillframe.export.door import Door
from stillframe.export.door_code import DoorCode
from stillframe.export.promises import check_result, promise_of
from stillframe.export.refusal import Refusal
from stillframe.export.source_text import Namespace, one_line
from stillframe.shapes.env import to_size
from stillframe.symbolic import Expr

aten = torch.ops.aten

#: How many tables of hooks a call looks at.
HOOK_TABLES = 9

# Kinds of nodes whose results are let go after their last use.
_MAKES_VALUES = ("call_function", "call_module")

_LAST_LINE = re.compile(r'File "([^"\n]*)", line (\d+)')


@dataclass(frozen=True)
class Generated:
    """The text of a program and what its names are bound to.

    Attributes:
        text: defines ``forward`` and ``__call__``.
        preamble: the globals as a person would write them, for reading.
        values: the globals, apart from state.
        tables: the globals that are tables of state, to be bound for each module.
        forward: name of the function that checks a call and runs it.
        hooked: name of the global that must be bound to a function ``(self, values)``.
        hooks: names of globals that must be bound to the tables of hooks.
        otherwise: of one graph of several: name of the global that must be bound to what is called
            with calls that do not fit.
        misfit: of one graph of several: name of the function that raises where a call does not fit.
    """

    text: str
    preamble: str
    values: dict[str, Any]
    tables: tuple[StateTable, ...]
    forward: str
    hooked: str
    hooks: str
    otherwise: str = ""
    misfit: str = ""


class ProgramCode:
    """Writes the code of one program.

    Args:
        program: the program.
        graph: what is written in place of the program's graph.
        one_of_several: a call that does not fit is passed on to the next graph, not refused.
        in_mode: whether a call fits only while the module is in the mode of the capture; there is
            another graph for the other mode.
    """

    def __init__(
        self,
        program: Any,
        *,
        graph: torch.fx.Graph | None = None,
        one_of_several: bool = False,
        in_mode: bool = False,
    ) -> None:
        self.program = program
        self.one_of_several = one_of_several
        self.graph: torch.fx.Graph = program.graph if graph is None else graph
        self.names = Namespace()
        self.door = Door.of(program)
        self.door_code = DoorCode(self.door, self.names)
        self.calls = CallCode(self.names)
        self.text = self.calls.text
        self.state = self._state_code()
        self.entry = EntryCode(program, self.graph, self.door_code, self.calls, self.state, in_mode)
        self.result = ResultCode(program, self.calls, self.state, self.entry.inputs)
        self.functions: list[str] = []  # the text of subgraphs
        self._owner: torch.nn.Module = program.graph_module
        self._comment = ""
        # the local that holds the caller's grad mode, and the mode that the first switch sets
        self.grad_mode = ""
        self.inner_grad_mode: bool | None = False

    def _state_code(self) -> StateCode:
        return StateCode(self.names)

    def generate(self) -> Generated:
        """The whole text.

        Raises:
            NotSupported: a kind of input or output that is not run yet.
            SpecViolationError: the graph and the signature disagree.
        """
        self.door_code.check()
        refusing = self.door_code.refusing(Refusal(self.door, self.program.root_class))
        self.entry.name_placeholders()
        refusing += self.entry.asked_elsewhere()
        laid_out = self.entry.lay_out_inputs() if self.program.dialect != "training" else []
        refusing += self.entry.check_state()
        otherwise = misfit = ""
        functions: list[str] = []
        checks = refusing
        if self.one_of_several:
            otherwise, misfit = self.names.local("next_graph"), self.names.local("misfit")
            functions = self.entry.misfit(misfit, refusing)
            checks = self.entry.choosing(otherwise)
        body = [*checks, *laid_out, *self._body(self.graph)]
        signature = self.door_code.signature()
        hooked, hooks, run = (self.names.local(n) for n in ("call_with_hooks", "hooks", "run"))
        lines = [
            *self.functions,
            *functions,
            f"def {run}({signature}):",
            *(f"    {line}" for line in body),
            "",
            f"def {run}_unhooked({signature}):",
            f"    if {' or '.join(f'{hooks}_{i}' for i in range(HOOK_TABLES))}:",
            f"        return {hooked}({self.door_code.receiver}, {self.door_code.values()})",
            f"    return {run}({self.door_code.forwarded()})",
        ]
        return Generated(
            "\n".join(lines) + "\n", self._preamble(), self.names.values,
            self.state.tables, run, hooked, hooks, otherwise, misfit,
        )  # fmt: skip

    def _preamble(self) -> str:
        lines = [
            f"{t.name} = module{f'.{t.path}' if t.path else ''}.{t.attribute}"
            for t in self.state.tables
        ]
        lines += [f"{name} = {origin}" for name, origin in self.names.origins.items()]
        return "".join(f"# {one_line(line)}\n" for line in lines)

    # -- the body -----------------------------------------------------------------------------

    def _body(self, graph: torch.fx.Graph) -> list[str]:
        """The lines of a graph, which leave the grad mode as it was."""
        switches = [n for n in graph.nodes if n.target is torch_private.set_grad_enabled]
        if not switches:
            return self._statements(graph)
        old = self.grad_mode, self.inner_grad_mode
        self.grad_mode = self.names.local("grad_mode")
        asks = any(isinstance(n.args[0], torch.fx.Node) for n in switches)
        self.inner_grad_mode = None if asks else bool(switches[0].args[0])
        body = self._keeping_grad_mode(self._statements(graph))
        self.grad_mode, self.inner_grad_mode = old
        return body

    def _keeping_grad_mode(self, body: list[str]) -> list[str]:
        """The caller's grad mode comes back also when an operator raises."""
        ask = self.names.bind("is_grad_enabled", torch.is_grad_enabled, "torch.is_grad_enabled")
        inner = [f"    {line}" for line in body]
        mode = self.grad_mode
        return [
            f"{mode} = {ask}()",
            "try:",
            *inner,
            "finally:",
            f"    {self.switch_grad_mode(mode)}",
        ]

    def switch_grad_mode(self, mode: str) -> str:
        """A call that sets the grad mode."""
        function = torch_private.set_grad_enabled
        return (
            f"{self.names.bind('set_grad_enabled', function, 'torch._C._set_grad_enabled')}({mode})"
        )

    def _statements(self, graph: torch.fx.Graph) -> list[str]:
        lines: list[str] = []
        nodes = [n for n in graph.nodes if n.op != "placeholder"]
        last_uses = self._last_uses(nodes)
        for node in nodes:
            if node.op == "output":
                lines += self._output(node) if graph is self.graph else [self._returned(node)]
                continue
            statement = self._statement(node)
            if statement is None:
                continue
            freed = [self.text[n] for n in last_uses.get(node, ()) if n in self.text]
            if freed:
                statement += f"; {' = '.join(freed)} = None"
            lines.append(statement + self._place(node))
            lines += self._promise(node)
        return lines

    def _promise(self, node: torch.fx.Node) -> list[str]:
        """The line that holds a custom operator to what its fake said."""
        promise = promise_of(node, self.door_code.sizes)
        if promise is None:
            return []
        check = self.names.bind("check_result", check_result)
        said = self.names.bind(f"promise_{node.name}", promise)
        values = "".join(f"{self.door_code.sizes[s]}, " for s in promise.symbols)
        return [f"{check}({said}, {self.text[node]}, ({values}))"]

    def _last_uses(self, nodes: list[torch.fx.Node]) -> dict[torch.fx.Node, list[torch.fx.Node]]:
        """Node -> the values that are not needed after it. Numbers are not worth letting go."""
        seen: set[torch.fx.Node] = set()
        found: dict[torch.fx.Node, list[torch.fx.Node]] = {}
        for node in reversed(nodes):
            for used in node.all_input_nodes:
                if used not in seen:
                    seen.add(used)
                    if used.op in _MAKES_VALUES and not _is_number(used.meta.get("val")):
                        found.setdefault(node, []).append(used)
            seen.add(node)
        return found

    def _output(self, node: torch.fx.Node) -> list[str]:
        return self.result.lines(node)

    def _statement(self, node: torch.fx.Node) -> str | None:
        if node.op == "get_attr":
            self.text[node] = self._subgraph(str(node.target))
            return None
        if node.op != "call_function":
            raise SpecViolationError(f"node {node.name} is a {node.op}; only operators can be run.")
        if node.target is aten.sym_size.int and node.graph is self.graph and self._known_size(node):
            return None
        special = SPECIAL.get(node.target)
        expression = special(self, node) if special is not None else None
        if expression is None:
            expression = self.calls.operator(node)
        unused = not node.users and promise_of(node, ()) is None
        if expression.startswith("if ") or unused:
            return expression
        self.text[node] = self.names.local(node.name)
        return f"{self.text[node]} = {expression}"

    def _subgraph(self, name: str) -> str:
        """Write a subgraph as a function of its own; returns the function's name."""
        module = getattr(self._owner, name)
        owner, self._owner = self._owner, module
        arguments = []
        for node in module.graph.nodes:
            if node.op == "placeholder":
                self.text[node] = self.names.local(node.name)
                arguments.append(self.text[node])
        body = self._body(module.graph)
        self._owner = owner
        function = self.names.local(name)
        lines = [f"def {function}({', '.join(arguments)}):", *(f"    {line}" for line in body), ""]
        self.functions += lines
        return function

    def _returned(self, node: torch.fx.Node) -> str:
        result = node.args[0]
        result = tuple(result) if isinstance(result, list) else result
        return f"return {self.calls.argument(result)}"

    def _known_size(self, node: torch.fx.Node) -> bool:
        """A size that the door has read already needs no line of its own."""
        size = to_size(node.meta.get("val"))
        source = node.args[0]
        if isinstance(source, torch.fx.Node) and source.op == "placeholder":
            if isinstance(size, Expr) and size in self.door_code.sizes:
                self.text[node] = self.door_code.sizes[size]
                return True
        return False

    def _place(self, node: torch.fx.Node) -> str:
        """The user's line, as a comment: it shows in tracebacks."""
        found = _LAST_LINE.findall(node.meta.get("stack_trace") or "")
        if not found:
            return ""
        file, line = found[-1]
        name = file.replace("\\", "/").rpartition("/")[2]
        comment = f"  # {one_line(name)}:{line}"
        if comment == self._comment:
            return ""
        self._comment = comment
        return comment


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, bool, torch.SymInt, torch.SymFloat, torch.SymBool))
