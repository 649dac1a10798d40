"""The end of a program: what it writes back, and what it returns."""

from __future__ import annotations

import collections
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch.utils import _pytree as pytree

from stillframe.errors import NotSupported, SpecViolationError
from stillframe.export.codegen.calls import CallCode
from stillframe.export.codegen.state import StateCode
from stillframe.export.signature import ConstantArgument, InputKind, JointResult, OutputKind
from stillframe.export.source_text import one_line

_GRADIENTS = (OutputKind.GRADIENT_TO_PARAMETER, OutputKind.GRADIENT_TO_USER_INPUT)


class ResultCode:
    """Writes the output of a program.

    Args:
        program: the program.
        calls, state: write operands and state.
        inputs: name of the placeholder of each user input -> its text.
    """

    def __init__(
        self, program: Any, calls: CallCode, state: StateCode, inputs: Mapping[str, str]
    ) -> None:
        self._program = program
        self._calls = calls
        self._names = calls.names
        self._state = state
        self._inputs = inputs

    def lines(self, node: torch.fx.Node) -> list[str]:
        """The lines that write mutated state and inputs, and the return.

        Args:
            node: the output of the graph.

        Raises:
            NotSupported: a kind of output that is not run yet.
            SpecViolationError: the graph and the signature disagree.
        """
        values = list(node.args[0])  # type: ignore[arg-type]
        specs = self._program.graph_signature.output_specs
        lines: list[str] = []
        results: list[str] = []
        gradients: dict[OutputKind, list[str]] = {kind: [] for kind in _GRADIENTS}
        for value, spec in zip(values, specs, strict=True):
            text = self._calls.argument(value)
            if spec.kind is OutputKind.BUFFER_MUTATION:
                lines.append(f"{self._state.text(InputKind.BUFFER, spec.target)}.copy_({text})")
            elif spec.kind is OutputKind.PARAMETER_MUTATION:
                lines += self._write_parameter(spec.target, text)
            elif spec.kind is OutputKind.USER_INPUT_MUTATION:
                lines.append(f"{self._inputs[str(spec.target)]}.copy_({text})")
            elif spec.kind is OutputKind.USER_INPUT_ATTRIBUTE:
                store, name = self._names.builtin(setattr), self._names.constant(spec.attribute)
                if isinstance(spec.arg, ConstantArgument):
                    text = self._names.constant(spec.arg.value)
                lines.append(f"{store}({self._inputs[str(spec.target)]}, {name}, {text})")
            elif spec.kind in (OutputKind.USER_OUTPUT, OutputKind.LOSS_OUTPUT):
                constant = isinstance(spec.arg, ConstantArgument)
                results.append(self._names.constant(spec.arg.value) if constant else text)
            elif spec.kind in gradients:
                gradients[spec.kind].append(f"{self._names.constant(spec.target)}: {text}")
            elif spec.kind is not OutputKind.TOKEN:
                raise NotSupported(f"Programs with {spec.kind.name} outputs are not run yet.")
        spec = self._program.out_spec
        if spec.num_leaves != len(results):
            raise SpecViolationError(
                f"{len(results)} user outputs for a structure of {spec.num_leaves}."
            )
        result = self._structure(spec, iter(results))
        if any(s.kind is OutputKind.LOSS_OUTPUT for s in specs):
            tables = ", ".join(f"{{{', '.join(pairs)}}}" for pairs in gradients.values())
            result = f"{self._names.bind('JointResult', JointResult)}({result}, {tables})"
        lines.append(f"return {result}")
        return lines

    def _write_parameter(self, fqn: str, text: str) -> list[str]:
        """A parameter is a leaf: it is written where autograd does not look."""
        return [f"{self._state.text(InputKind.PARAMETER, fqn)}.data.copy_({text})"]

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
            return f"{{{', '.join(f'{self._names.constant(k)}: {v}' for k, v in pairs)}}}"
        if cls is collections.namedtuple:
            return f"{self._names.bind(context.__name__, context)}({', '.join(items)})"
        if cls is torch.Size:  # its registered function would make a plain tuple
            return f"{self._names.bind('Size', torch.Size)}([{', '.join(items)}])"
        unflatten = pytree.SUPPORTED_NODES[cls].unflatten_fn
        rebuild = self._names.bind(f"make_{cls.__name__}", unflatten, f"rebuilds a {cls.__name__}")
        kept = self._names.bind(f"context_{cls.__name__}", [context], one_line(repr([context])))
        return f"{rebuild}([{', '.join(items)}], {kept}[0])"
