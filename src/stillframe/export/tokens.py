"""Tokens: the order of side effects in functional programs.

In the training dialect an operator with a registered effect, such as a method of a script object,
stands where it stood, and stays. Where nothing writes, only data orders operators: so each such
call takes a token and returns the next one, ``with_effects(token, op, *args) -> (token, result)``.
The first token is an input of the graph, the last one an output; neither carries data.
"""

from __future__ import annotations

from typing import Any

import torch

from stillframe import torch_private
from stillframe.export.naming import Names
from stillframe.export.signature import (
    InputKind,
    InputSpec,
    OutputKind,
    OutputSpec,
    TokenArgument,
)
from stillframe.fake.tensor import FakeTensor
from stillframe.shapes.continued import ContinuedEnv
from stillframe.shapes.env import to_size
from stillframe.symbolic import Expr
from stillframe.trace.functional import FunctionalRecorder


def has_ordered_effect(node: torch.fx.Node) -> bool:
    """Whether a node calls something whose order counts."""
    return node.op == "call_function" and torch_private.has_ordered_effect(node.target)


class TokenThread:
    """Threads one token through the effects of a graph, in the order in which they are recorded.

    Args:
        recorder: makes the nodes. Inputs are not made yet.
        names: hands out the name of the placeholder.
    """

    def __init__(self, recorder: FunctionalRecorder, names: Names) -> None:
        self.recorder = recorder
        name = names.lifted(InputKind.TOKEN, "")
        value = recorder.fake_mode.ctx.empty((0,), dtype=torch.float32)
        self.token = recorder.placeholder(name, value)
        self.input_spec = InputSpec(InputKind.TOKEN, TokenArgument(name), None)

    def output_spec(self) -> OutputSpec:
        """What the last token is in the signature."""
        return OutputSpec(OutputKind.TOKEN, TokenArgument(self.token.name), None)

    def record(self, old: torch.fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The node of the call ``old`` with these values; returns its results.

        What the fake of the call said was found out once; here it is only repeated, because a fake
        of a script object remembers what was done to it.
        """
        recorder = self.recorder
        env = recorder.env
        result = _again(env, old.meta["val"])
        results = result if isinstance(result, tuple) else (result,)
        operands = [recorder.operand(a) for a in args]
        keywords = {k: recorder.operand(v) for k, v in kwargs.items()}
        if takes_object(old):
            recorder.keep_unwritten((args, kwargs, results))
        recorder.flush_asserts()
        op = torch_private.with_effects()
        node = recorder.create(op, (self.token, old.target, *operands), keywords, op.name())
        everything = (recorder.fake_mode.ctx.empty((0,), dtype=torch.float32), *results)
        node.meta["val"] = everything
        recorder.track(everything, node)
        bindings = list(old.meta.get("unbacked_bindings", {}))
        if bindings:
            recorder.bind_symbols(bindings, node, everything)
        self.token = recorder.item_node(node, 0)
        return result


def takes_object(node: torch.fx.Node) -> bool:
    """Whether a call gets a script object, which may keep the tensors that it is given."""
    target = node.target
    method = target is torch_private.call_torchbind()
    return method or torch_private.takes_script_object(target)


def _again(env: ContinuedEnv, val: Any) -> Any:
    """New fakes and numbers like those of a node."""
    if isinstance(val, FakeTensor):
        return FakeTensor.make(
            env, val.sizes, val.strides, val.offset, val.dtype, val.device, val.requires_grad
        )
    if isinstance(val, (list, tuple)):
        items = [_again(env, v) for v in val]
        return items if isinstance(val, list) else tuple(items)
    size = to_size(val)
    return env.wrap(size) if isinstance(size, Expr) else val


def after(result: Any) -> tuple[Any, ...]:
    """What ``with_effects`` returns: a token, which nobody looks at, and the result."""
    return (None, *result) if isinstance(result, tuple) else (None, result)
