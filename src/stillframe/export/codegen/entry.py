"""The beginning of a program, apart from the door: names of inputs, and what the call is asked."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from stillframe import torch_private
from stillframe.errors import NotSupported
from stillframe.export.assumptions import Assumption
from stillframe.export.codegen.calls import CallCode
from stillframe.export.codegen.state import TABLES, StateCode
from stillframe.export.door_code import DoorCode
from stillframe.export.memory import any_shared, laid_out
from stillframe.export.refusal import check_state, refuse_mode, refuse_state
from stillframe.export.signature import InputKind, OutputKind
from stillframe.fake.tensor import FakeTensor
from stillframe.shapes import layout
from stillframe.trace.reads import OF_MODES, of_tensor

aten = torch.ops.aten


class EntryCode:
    """Writes what a program does with a call before its first operator.

    Args:
        program, graph: the program, and the graph that is written.
        door_code: writes the checks of the inputs.
        calls, state: write operands and state.
        in_mode: whether a call fits only while the module is in the mode of the capture.

    Attributes:
        inputs: name of the placeholder of each user input -> its text.
    """

    def __init__(
        self,
        program: Any,
        graph: torch.fx.Graph,
        door_code: DoorCode,
        calls: CallCode,
        state: StateCode,
        in_mode: bool,
    ) -> None:
        self._program = program
        self._graph = graph
        self._door_code = door_code
        self._names = calls.names
        self._text = calls.text
        self._state = state
        self._in_mode = in_mode
        self.inputs: dict[str, str] = {}

    def name_placeholders(self) -> None:
        """What stands for each input of the graph.

        Raises:
            NotSupported: a kind of input that is not run yet.
        """
        specs = self._program.graph_signature.input_specs
        nodes = [n for n in self._graph.nodes if n.op == "placeholder"]
        user = iter(self._door_code.leaves)
        for node, spec in zip(nodes, specs, strict=True):
            if spec.kind is InputKind.USER_INPUT:
                self._text[node] = self.inputs[node.name] = next(user)
            elif spec.kind in TABLES:
                self._text[node] = self._state.text(spec.kind, spec.target)
            elif spec.kind is InputKind.TOKEN:
                takers = (torch_private.with_effects(), "output")
                if any(n.target not in takers for n in node.users):
                    raise NotSupported(f"The TOKEN input {node.name} is used as a value.")
                self._text[node] = "None"
            else:
                raise NotSupported(f"Programs with {spec.kind.name} inputs are not run yet.")

    def check_state(self) -> list[str]:
        """The line that refuses inputs over memory of state that is copied back at the end."""
        shared = self._inputs_and_written_state()
        return [f"{self._names.bind('check_state', check_state)}({shared})"] if shared else []

    def _inputs_and_written_state(self) -> str:
        """Two tuples as text: tensor inputs, and state that is copied back; or nothing."""
        kinds = {
            OutputKind.BUFFER_MUTATION: InputKind.BUFFER,
            OutputKind.PARAMETER_MUTATION: InputKind.PARAMETER,
        }
        written = [
            self._state.text(kinds[s.kind], str(s.target))
            for s in self._program.graph_signature.output_specs
            if s.kind in kinds
        ]
        tensors = [
            self.inputs[n.name]
            for n in self._graph.nodes
            if n.name in self.inputs and isinstance(n.meta["val"], FakeTensor)
        ]
        if not written or not tensors:
            return ""
        return f"({', '.join(tensors)},), ({', '.join(written)},)"

    def lay_out_inputs(self) -> list[str]:
        """Lines that bring inputs into the memory order of the example, which views rely on.

        The training dialect needs none: its operators look at the tensor they get.
        """
        lines = []
        checked = {
            n.args[0] for n in self._graph.nodes if n.target is aten._assert_tensor_metadata.default
        }
        for node in self._graph.nodes:
            if node.op != "placeholder":
                break
            val = node.meta["val"]
            if node.name not in self.inputs or not isinstance(val, FakeTensor):
                continue
            order = layout.stride_order(val.sizes, val.strides)
            if node in checked or order is None or len(order) < 2 or not node.users:
                continue
            local = self._names.local(f"{node.name}_laid_out")
            function = self._names.bind("laid_out", laid_out)
            lines.append(f"{local} = {function}({self._text[node]}, {tuple(order)!r})")
            self._text[node] = local
        return lines

    def asked_elsewhere(self) -> list[str]:
        """The lines that ask state and torch's modes what forward asked them."""
        specs = self._program.graph_signature.input_specs
        names = {spec.arg.name: f"self.{spec.target}" for spec in specs}
        lines = []
        for asked, wanted, assumption in self._questions():
            name = names.get(assumption.about, "torch")
            refuse = self._names.bind("refuse_state", partial(refuse_state, name, assumption))
            lines.append(f"if {asked} != {wanted}: {refuse}({asked})")
        return lines

    def _questions(self) -> Iterator[tuple[str, str, Assumption]]:
        """What is asked of state and of torch's modes, as text: the question, and the answer."""
        texts = {node.name: text for node, text in self._text.items()}
        for assumption in self._door_code.door.asked_elsewhere:
            what = assumption.what
            question: Any = of_tensor(what) if assumption.about else OF_MODES[what]
            ask = self._names.bind("ask", question)
            wanted = self._names.constant(assumption.value)
            yield f"{ask}({texts.get(assumption.about, '')})", wanted, assumption

    # -- one graph of several -----------------------------------------------------------------

    def choosing(self, otherwise: str) -> list[str]:
        """The lines that pass a call that does not fit on to the next graph."""
        more = [f"{asked} == {wanted}" for asked, wanted, _ in self._questions()]
        shared = self._inputs_and_written_state()
        if shared:
            more.append(f"not {self._names.bind('any_shared', any_shared)}({shared})")
        lines = self._door_code.choosing(otherwise, more)
        if self._in_mode:
            passed_on = f"{otherwise}({self._door_code.forwarded()})"
            lines.insert(0, f"if {self._other_mode()}: return {passed_on}")
        return lines

    def misfit(self, name: str, refusing: list[str]) -> list[str]:
        """The function that takes a call as the graph does, and only says why it does not fit."""
        lines = [*refusing, "return None"]
        if self._in_mode:
            refuse = self._names.bind("refuse_mode", partial(refuse_mode, self._program.training))
            lines.insert(0, f"if {self._other_mode()}: {refuse}()")
        signature = self._door_code.signature()
        return [f"def {name}({signature}):", *(f"    {line}" for line in lines), ""]

    def _other_mode(self) -> str:
        return f"{self._door_code.receiver}.training is not {bool(self._program.training)}"
