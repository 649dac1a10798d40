"""Operands and calls as text."""

from __future__ import annotations

from typing import Any

import torch

from stillframe import torch_private
from stillframe.errors import SpecViolationError
from stillframe.export import bindings
from stillframe.export.source_text import Namespace


class CallCode:
    """Writes operands, and calls of functions with them.

    Args:
        names: of the code.

    Attributes:
        text: what stands for each node that was written.
    """

    def __init__(self, names: Namespace) -> None:
        self.names = names
        self.text: dict[torch.fx.Node, str] = {}

    def operator(self, node: torch.fx.Node) -> str:
        """The call of an operator, by its fastest binding."""
        target = node.target
        args, kwargs = list(node.args), dict(node.kwargs)
        binding = None
        if isinstance(target, torch._ops.OpOverload):
            binding = bindings.binding_for(target, args, kwargs)
        keywords = [f"{keyword(k)}={self.argument(v)}" for k, v in kwargs.items()]
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
        texts += [f"{keyword(k)}={self.argument(v)}" for k, v in kwargs.items()]
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


def keyword(name: str) -> str:
    """The name of an argument.

    Raises:
        SpecViolationError: Python cannot spell it.
    """
    if not name.isidentifier():
        raise SpecViolationError(f"{name!r} is not the name of an argument.")
    return name
