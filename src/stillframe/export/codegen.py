"""A program as one Python function: the door, then one line for each operator, then the result.

The function is straight-line code. Operators are called by their fastest binding; state is read
from the module's own tables at each call, so that replaced parameters are seen; a value is let go
right after its last use, so that memory peaks where it does in eager.
"""

from __future__ import annotations

import collections
import math
import operator
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.utils import _pytree as pytree

from stillframe import torch_private
from stillframe.errors import NotSupported, SpecViolationError
from stillframe.export import bindings
from stillframe.export.assumptions import Assumption
from stillframe.export.door import Door
from stillframe.export.door_code import DoorCode
from stillframe.export.memory import any_shared, laid_out
from stillframe.export.promises import check_result, promise_of
from stillframe.export.refusal import Refusal, check_state, refuse_mode, refuse_state
from stillframe.export.signature import ConstantArgument, InputKind, JointResult, OutputKind
from stillframe.export.source_text import Namespace, one_line
from stillframe.export.tokens import after
from stillframe.fake.tensor import FakeTensor
from stillframe.shapes import layout
from stillframe.shapes.env import to_size
from stillframe.symbolic import Expr
from stillframe.trace import control_flow
from stillframe.trace.reads import OF_MODES, of_tensor

aten = torch.ops.aten

# Where lifted state sits in its module, by kind: the attribute that holds the table, and a prefix.
TABLES: dict[InputKind, tuple[str, str]] = {
    InputKind.PARAMETER: ("_parameters", "p"),
    InputKind.BUFFER: ("_buffers", "b"),
    InputKind.CONSTANT_TENSOR: ("__dict__", "c"),
    InputKind.CUSTOM_OBJ: ("__dict__", "obj"),
}

# Kinds of nodes whose results are let go after their last use.
_MAKES_VALUES = ("call_function", "call_module")

_GRADIENTS = (OutputKind.GRADIENT_TO_PARAMETER, OutputKind.GRADIENT_TO_USER_INPUT)

_INFIX: dict[Any, str] = {
    operator.add: "+", operator.sub: "-", operator.mul: "*", operator.floordiv: "//",
    operator.mod: "%", operator.pow: "**", operator.truediv: "/", operator.eq: "==",
    operator.ne: "!=", operator.lt: "<", operator.le: "<=", operator.gt: ">", operator.ge: ">=",
}  # fmt: skip

_LAST_LINE = re.compile(r'File "([^"\n]*)", line (\d+)')


@dataclass(frozen=True)
class StateTable:
    """A table of a submodule that the code reads: global name, path of the module, attribute."""

    name: str
    path: str
    attribute: str


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
        one_of_several: a call that does not fit is passed on to the next graph, not refused.
        in_mode: whether a call fits only while the module is in the mode of the capture; there is
            another graph for the other mode.
    """

    def __init__(
        self, program: Any, *, one_of_several: bool = False, in_mode: bool = False
    ) -> None:
        self.program = program
        self.one_of_several = one_of_several
        self.in_mode = in_mode
        self.graph: torch.fx.Graph = program.graph
        self.names = Namespace()
        self.door = Door.of(program)
        self.door_code = DoorCode(self.door, self.names)
        self.text: dict[torch.fx.Node, str] = {}
        self.inputs: dict[str, str] = {}
        self.tables: dict[tuple[str, str], StateTable] = {}
        self.functions: list[str] = []  # the text of subgraphs
        self._owner: torch.nn.Module = program.graph_module
        self._comment = ""
        # the local that holds the caller's grad mode, and the mode that the first switch sets
        self.grad_mode = ""
        self.inner_grad_mode: bool | None = False

    def generate(self) -> Generated:
        """The whole text.

        Raises:
            NotSupported: a kind of input or output that is not run yet.
            SpecViolationError: the graph and the signature disagree.
        """
        self.door_code.check()
        refusing = self.door_code.refusing(Refusal(self.door, self.program.root_class))
        self._name_placeholders()
        refusing += self._asked_elsewhere()
        laid_out = self._lay_out_inputs() if self.program.dialect != "training" else []
        refusing += self._check_state()
        otherwise = misfit = ""
        functions: list[str] = []
        checks = refusing
        if self.one_of_several:
            otherwise, misfit = self.names.local("next_graph"), self.names.local("misfit")
            functions = self._misfit(misfit, refusing)
            checks = self._choosing(otherwise)
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
            tuple(self.tables.values()), run, hooked, hooks, otherwise, misfit,
        )  # fmt: skip

    def _preamble(self) -> str:
        lines = [
            f"{t.name} = module{f'.{t.path}' if t.path else ''}.{t.attribute}"
            for t in self.tables.values()
        ]
        lines += [f"{name} = {origin}" for name, origin in self.names.origins.items()]
        return "".join(f"# {one_line(line)}\n" for line in lines)

    # -- inputs -------------------------------------------------------------------------------

    def _name_placeholders(self) -> None:
        specs = self.program.graph_signature.input_specs
        nodes = [n for n in self.graph.nodes if n.op == "placeholder"]
        user = iter(self.door_code.leaves)
        for node, spec in zip(nodes, specs, strict=True):
            if spec.kind is InputKind.USER_INPUT:
                self.text[node] = self.inputs[node.name] = next(user)
            elif spec.kind in TABLES:
                self.text[node] = self._state(spec.kind, spec.target)
            elif spec.kind is InputKind.TOKEN:
                takers = (torch_private.with_effects(), "output")
                if any(n.target not in takers for n in node.users):
                    raise NotSupported(f"The TOKEN input {node.name} is used as a value.")
                self.text[node] = "None"
            else:
                raise NotSupported(f"Programs with {spec.kind.name} inputs are not run yet.")

    # -- one graph of several -----------------------------------------------------------------

    def _choosing(self, otherwise: str) -> list[str]:
        """The lines that pass a call that does not fit on to the next graph."""
        more = [f"{asked} == {wanted}" for asked, wanted, _ in self._questions()]
        shared = self._inputs_and_written_state()
        if shared:
            more.append(f"not {self.names.bind('any_shared', any_shared)}({shared})")
        lines = self.door_code.choosing(otherwise, more)
        if self.in_mode:
            passed_on = f"{otherwise}({self.door_code.forwarded()})"
            lines.insert(0, f"if {self._other_mode()}: return {passed_on}")
        return lines

    def _misfit(self, name: str, refusing: list[str]) -> list[str]:
        """The function that takes a call as the graph does, and only says why it does not fit."""
        lines = [*refusing, "return None"]
        if self.in_mode:
            refuse = self.names.bind("refuse_mode", partial(refuse_mode, self.program.training))
            lines.insert(0, f"if {self._other_mode()}: {refuse}()")
        signature = self.door_code.signature()
        return [f"def {name}({signature}):", *(f"    {line}" for line in lines), ""]

    def _other_mode(self) -> str:
        return f"{self.door_code.receiver}.training is not {bool(self.program.training)}"

    # -- state --------------------------------------------------------------------------------

    def _check_state(self) -> list[str]:
        """The line that refuses inputs over memory of state that is copied back at the end."""
        shared = self._inputs_and_written_state()
        return [f"{self.names.bind('check_state', check_state)}({shared})"] if shared else []

    def _inputs_and_written_state(self) -> str:
        """Two tuples as text: tensor inputs, and state that is copied back; or nothing."""
        kinds = {
            OutputKind.BUFFER_MUTATION: InputKind.BUFFER,
            OutputKind.PARAMETER_MUTATION: InputKind.PARAMETER,
        }
        written = [
            self._state(kinds[s.kind], str(s.target))
            for s in self.program.graph_signature.output_specs
            if s.kind in kinds
        ]
        tensors = [
            self.inputs[n.name]
            for n in self.graph.nodes
            if n.name in self.inputs and isinstance(n.meta["val"], FakeTensor)
        ]
        if not written or not tensors:
            return ""
        return f"({', '.join(tensors)},), ({', '.join(written)},)"

    def _lay_out_inputs(self) -> list[str]:
        """Lines that bring inputs into the memory order of the example, which views rely on.

        The training dialect needs none: its operators look at the tensor they get.
        """
        lines = []
        checked = {
            n.args[0] for n in self.graph.nodes if n.target is aten._assert_tensor_metadata.default
        }
        for node in self.graph.nodes:
            if node.op != "placeholder":
                break
            val = node.meta["val"]
            if node.name not in self.inputs or not isinstance(val, FakeTensor):
                continue
            order = layout.stride_order(val.sizes, val.strides)
            if node in checked or order is None or len(order) < 2 or not node.users:
                continue
            local = self.names.local(f"{node.name}_laid_out")
            function = self.names.bind("laid_out", laid_out)
            lines.append(f"{local} = {function}({self.text[node]}, {tuple(order)!r})")
            self.text[node] = local
        return lines

    def _state(self, kind: InputKind, fqn: str) -> str:
        attribute, prefix = TABLES[kind]
        path, _, name = fqn.rpartition(".")
        table = self.tables.get((path, attribute))
        if table is None:
            local = self.names.local(f"{prefix}_{path}" if path else prefix)
            table = self.tables[path, attribute] = StateTable(local, path, attribute)
        return f"{table.name}[{name!r}]"

    def _asked_elsewhere(self) -> list[str]:
        """The lines that ask state and torch's modes what forward asked them."""
        specs = self.program.graph_signature.input_specs
        names = {spec.arg.name: f"self.{spec.target}" for spec in specs}
        lines = []
        for asked, wanted, assumption in self._questions():
            name = names.get(assumption.about, "torch")
            refuse = self.names.bind("refuse_state", partial(refuse_state, name, assumption))
            lines.append(f"if {asked} != {wanted}: {refuse}({asked})")
        return lines

    def _questions(self) -> Iterator[tuple[str, str, Assumption]]:
        """What is asked of state and of torch's modes, as text: the question, and the answer."""
        texts = {node.name: text for node, text in self.text.items()}
        for assumption in self.door.asked_elsewhere:
            what = assumption.what
            question: Any = of_tensor(what) if assumption.about else OF_MODES[what]
            ask = self.names.bind("ask", question)
            wanted = self.names.constant(assumption.value)
            yield f"{ask}({texts.get(assumption.about, '')})", wanted, assumption

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

    def _statement(self, node: torch.fx.Node) -> str | None:
        if node.op == "get_attr":
            self.text[node] = self._subgraph(str(node.target))
            return None
        if node.op != "call_function":
            raise SpecViolationError(f"node {node.name} is a {node.op}; only operators can be run.")
        if node.target is aten.sym_size.int and node.graph is self.graph and self._known_size(node):
            return None
        special = _SPECIAL.get(node.target)
        expression = special(self, node) if special is not None else None
        if expression is None:
            expression = self._call(node)
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
        return f"return {self.argument(tuple(result) if isinstance(result, list) else result)}"

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

    # -- calls --------------------------------------------------------------------------------

    def _call(self, node: torch.fx.Node) -> str:
        target = node.target
        args, kwargs = list(node.args), dict(node.kwargs)
        binding = None
        if isinstance(target, torch._ops.OpOverload):
            binding = bindings.binding_for(target, args, kwargs)
        keywords = [f"{_keyword(k)}={self.argument(v)}" for k, v in kwargs.items()]
        if binding is not None and binding.form != bindings.FUNCTION:
            if not isinstance(args[0], torch.fx.Node):
                binding = None
            else:
                spread: Any = args[1] if binding.form == bindings.SPREAD else args[1:]
                rest = [*(self.argument(a) for a in spread), *keywords]
                return f"{self.argument(args[0])}.{binding.name}({', '.join(rest)})"
        operands = ", ".join([*(self.argument(a) for a in args), *keywords])
        return f"{self._function(target, binding)}({operands})"

    def call(self, target: Any, args: list[Any], kwargs: dict[str, Any]) -> str:
        """A call of an operator, or of a method of a script object."""
        texts = [self.argument(a) for a in args]
        if target is torch_private.call_torchbind():
            function, texts = f"{texts[0]}.{args[1]}", texts[2:]
        else:
            function = self._function(target, None)
        texts += [f"{_keyword(k)}={self.argument(v)}" for k, v in kwargs.items()]
        return f"{function}({', '.join(texts)})"

    def _function(self, target: Any, binding: bindings.Binding | None) -> str:
        if binding is not None:
            name = binding.name
            origin = (
                f"torch._C._nn.{name[3:]}" if name.startswith("nn_") else name.replace("_", ".", 1)
            )
            return self.names.bind(name, binding.function, origin)
        if isinstance(target, torch._ops.OpOverload):
            name = str(target).replace(".", "_").replace("::", "_")
            # with stand-ins of script objects only the overload itself can be called
            function = target if torch_private.takes_script_object(target) else target._op
            return self.names.bind(name, function, f"torch.ops.{target}")
        name = getattr(target, "__name__", "function")
        module = getattr(target, "__module__", None) or "torch"
        return self.names.bind(name, target, f"{module}.{name}")

    def argument(self, value: Any) -> str:
        """An operand as text."""
        if isinstance(value, torch.fx.Node):
            return self.text[value]
        if isinstance(value, (list, tuple)):
            items = [self.argument(v) for v in value]
            if isinstance(value, list):
                return f"[{', '.join(items)}]"
            return f"({items[0]},)" if len(items) == 1 else f"({', '.join(items)})"
        if isinstance(value, slice):
            parts = ", ".join(self.argument(v) for v in (value.start, value.stop, value.step))
            return f"{self.names.builtin(slice)}({parts})"
        if isinstance(value, dict):
            pairs = [f"{self.names.constant(k)}: {self.argument(v)}" for k, v in value.items()]
            return f"{{{', '.join(pairs)}}}"
        return self.names.constant(value)

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

    # -- the result ---------------------------------------------------------------------------

    def _output(self, node: torch.fx.Node) -> list[str]:
        values = list(node.args[0])  # type: ignore[arg-type]
        specs = self.program.graph_signature.output_specs
        lines: list[str] = []
        results: list[str] = []
        gradients: dict[OutputKind, list[str]] = {kind: [] for kind in _GRADIENTS}
        for value, spec in zip(values, specs, strict=True):
            text = self.argument(value)
            if spec.kind is OutputKind.BUFFER_MUTATION:
                lines.append(f"{self._state(InputKind.BUFFER, spec.target)}.copy_({text})")
            elif spec.kind is OutputKind.PARAMETER_MUTATION:
                lines += self._write_parameter(spec.target, text)
            elif spec.kind is OutputKind.USER_INPUT_MUTATION:
                lines.append(f"{self.inputs[str(spec.target)]}.copy_({text})")
            elif spec.kind is OutputKind.USER_INPUT_ATTRIBUTE:
                store, name = self.names.builtin(setattr), self.names.constant(spec.attribute)
                if isinstance(spec.arg, ConstantArgument):
                    text = self.names.constant(spec.arg.value)
                lines.append(f"{store}({self.inputs[str(spec.target)]}, {name}, {text})")
            elif spec.kind in (OutputKind.USER_OUTPUT, OutputKind.LOSS_OUTPUT):
                constant = isinstance(spec.arg, ConstantArgument)
                results.append(self.names.constant(spec.arg.value) if constant else text)
            elif spec.kind in gradients:
                gradients[spec.kind].append(f"{self.names.constant(spec.target)}: {text}")
            elif spec.kind is not OutputKind.TOKEN:
                raise NotSupported(f"Programs with {spec.kind.name} outputs are not run yet.")
        spec = self.program.out_spec
        if spec.num_leaves != len(results):
            raise SpecViolationError(
                f"{len(results)} user outputs for a structure of {spec.num_leaves}."
            )
        result = self._structure(spec, iter(results))
        if any(s.kind is OutputKind.LOSS_OUTPUT for s in specs):
            tables = ", ".join(f"{{{', '.join(pairs)}}}" for pairs in gradients.values())
            result = f"{self.names.bind('JointResult', JointResult)}({result}, {tables})"
        lines.append(f"return {result}")
        return lines

    def _write_parameter(self, fqn: str, text: str) -> list[str]:
        """A parameter is a leaf: it is written where autograd does not look."""
        return [f"{self._state(InputKind.PARAMETER, fqn)}.data.copy_({text})"]

    def _structure(self, spec: pytree.TreeSpec, leaves: Iterator[str]) -> str:
        if spec.is_leaf():
            return next(leaves)
        items = [self._structure(child, leaves) for child in spec.children()]
        cls, context = spec.type, spec.context
        if cls is tuple:
            return f"({items[0]},)" if len(items) == 1 else f"({', '.join(items)})"
        if cls is list:
            return f"[{', '.join(items)}]"
        if cls is dict:
            pairs = zip(context, items, strict=True)
            return f"{{{', '.join(f'{self.names.constant(k)}: {v}' for k, v in pairs)}}}"
        if cls is collections.namedtuple:
            return f"{self.names.bind(context.__name__, context)}({', '.join(items)})"
        if cls is torch.Size:  # its registered function would make a plain tuple
            return f"{self.names.bind('Size', torch.Size)}([{', '.join(items)}])"
        unflatten = pytree.SUPPORTED_NODES[cls].unflatten_fn
        rebuild = self.names.bind(f"make_{cls.__name__}", unflatten, f"rebuilds a {cls.__name__}")
        kept = self.names.bind(f"context_{cls.__name__}", [context], one_line(repr([context])))
        return f"{rebuild}([{', '.join(items)}], {kept}[0])"


HOOK_TABLES = 9


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, bool, torch.SymInt, torch.SymFloat, torch.SymBool))


def _keyword(name: str) -> str:
    if not name.isidentifier():
        raise SpecViolationError(f"{name!r} is not the name of an argument.")
    return name


# -- targets with a shorter spelling --------------------------------------------------------------

_Special = Callable[[ProgramCode, torch.fx.Node], str | None]


def _infix(code: ProgramCode, node: torch.fx.Node) -> str:
    a, b = (_operand(code, arg) for arg in node.args)
    return f"{a} {_INFIX[node.target]} {b}"


def _operand(code: ProgramCode, value: Any) -> str:
    text = code.argument(value)
    return f"({text})" if text.startswith("-") else text


def _getitem(code: ProgramCode, node: torch.fx.Node) -> str:
    return f"{code.argument(node.args[0])}[{code.argument(node.args[1])}]"


def _sym_size(code: ProgramCode, node: torch.fx.Node) -> str:
    return f"{code.argument(node.args[0])}.size({code.argument(node.args[1])})"


def _extreme(function: Callable[..., Any]) -> _Special:
    def write(code: ProgramCode, node: torch.fx.Node) -> str | None:
        # of floats, torch.sym_max makes floats of both: only for integers it is Python's max
        values = [a.meta.get("val") if isinstance(a, torch.fx.Node) else a for a in node.args]
        if not all(isinstance(v, (int, torch.SymInt)) and not isinstance(v, bool) for v in values):
            return None
        a, b = (code.argument(arg) for arg in node.args)
        return f"{code.names.builtin(function)}({a}, {b})"

    return write


def _assert_scalar(code: ProgramCode, node: torch.fx.Node) -> str:
    condition, message = node.args[0], str(node.args[1])
    error = code.names.builtin(RuntimeError)
    return f"if not {_operand(code, condition)}: raise {error}({code.names.constant(message)})"


def _set_grad_enabled(code: ProgramCode, node: torch.fx.Node) -> str:
    if code.inner_grad_mode is None:  # the graph knows the mode of the caller itself
        return code.switch_grad_mode(_operand(code, node.args[0]))
    # a switch back to the mode of the capture is one to the mode of the caller
    inner = bool(node.args[0]) == code.inner_grad_mode
    return code.switch_grad_mode(str(code.inner_grad_mode) if inner else code.grad_mode)


def _control_flow(code: ProgramCode, node: torch.fx.Node) -> str:
    name = node.target.name()  # type: ignore[union-attr]
    function = code.names.bind(name, control_flow.CONTROL_FLOW[name], f"control flow: {name}")
    keywords = (f"{_keyword(k)}={code.argument(v)}" for k, v in node.kwargs.items())
    return f"{function}({', '.join([*(code.argument(arg) for arg in node.args), *keywords])})"


def _method(code: ProgramCode, node: torch.fx.Node) -> str:
    return code.call(node.target, list(node.args), dict(node.kwargs))


def _with_effects(code: ProgramCode, node: torch.fx.Node) -> str:
    _, target, *rest = node.args
    call = code.call(target, rest, dict(node.kwargs))
    return f"{code.names.bind('after', after)}({call})"


_SPECIAL: dict[Any, _Special] = {
    torch_private.with_effects(): _with_effects,
    torch_private.call_torchbind(): _method,
    **{getattr(torch.ops.higher_order, name): _control_flow for name in control_flow.CONTROL_FLOW},
    torch_private.set_grad_enabled: _set_grad_enabled,
    **dict.fromkeys(_INFIX, _infix),
    operator.getitem: _getitem,
    operator.neg: lambda code, node: f"-{_operand(code, node.args[0])}",
    aten.sym_size.int: _sym_size,
    aten._assert_scalar.default: _assert_scalar,
    torch.sym_max: _extreme(max),
    torch.sym_min: _extreme(min),
    torch.sym_float: lambda code, node: (
        f"{code.names.builtin(float)}({code.argument(node.args[0])})"
    ),
    torch.sym_not: lambda code, node: f"not {_operand(code, node.args[0])}",
    math.floor: lambda code, node: (
        f"{code.names.bind('floor', math.floor)}({code.argument(node.args[0])})"
    ),
}
