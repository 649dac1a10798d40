"""Tensors that a graph reads as attributes: those that did not come from the inputs."""

from __future__ import annotations

from collections import Counter

import torch

from stillframe.errors import SideEffectError
from stillframe.fake.tensor import FakeTensor


class Attributes:
    """The ``get_attr`` nodes of one graph, one for each tensor.

    Args:
        graph: where the nodes go.
        named: the module whose parameters keep their names, or None.

    Attributes:
        root: a module that holds the tensors.
    """

    def __init__(self, graph: torch.fx.Graph, named: torch.nn.Module | None) -> None:
        self.root = torch.nn.Module()
        self._graph = graph
        self._names = {} if named is None else {id(p): n for n, p in named.named_parameters()}
        self._nodes: dict[int, torch.fx.Node] = {}
        self._tensors: list[tuple[torch.Tensor, torch.Tensor | None]] = []
        self._counts: Counter[str] = Counter()

    def node(self, tensor: torch.Tensor) -> torch.fx.Node | None:
        """The node of a tensor that is an attribute already."""
        return self._nodes.get(id(tensor))

    def add(self, tensor: torch.Tensor) -> torch.fx.Node:
        """Make a tensor an attribute; kept alive from here on."""
        node = self._nodes[id(tensor)] = self._graph.get_attr(self._store(tensor))
        gradient = None if isinstance(tensor, FakeTensor) or not tensor.is_leaf else tensor.grad
        self._tensors.append((tensor, gradient))
        return node

    def add_object(self, value: torch.ScriptObject) -> torch.fx.Node:
        """Make a script object an attribute."""
        name = f"_torchbind_obj{self._counts['_torchbind_obj']}"
        self._counts["_torchbind_obj"] += 1
        setattr(self.root, name, value)
        return self._graph.get_attr(name)

    def check_gradients(self) -> None:
        """A backward pass over fakes must not have left a fake on a tensor of the user.

        Raises:
            SideEffectError: it has; the old gradients are put back.
        """
        spoiled = False
        for tensor, gradient in self._tensors:
            if tensor.is_leaf and isinstance(tensor.grad, FakeTensor):
                spoiled = spoiled or not isinstance(tensor, FakeTensor)
                if not isinstance(tensor, FakeTensor):
                    tensor.grad = gradient
        if spoiled:
            raise SideEffectError(
                "A backward pass set the gradient of a tensor that is not an input.",
                why="a graph cannot assign to Tensor.grad",
                hints=[
                    "ask for the gradients as values: torch.autograd.grad(loss, parameters)",
                    "or pass the parameters as inputs and return their .grad",
                ],
            )

    def _store(self, tensor: torch.Tensor) -> str:
        registered = self._names.get(id(tensor))
        if registered is not None:
            _set_nested(self.root, registered, tensor)
            return registered
        is_parameter = isinstance(tensor, torch.nn.Parameter)
        kind = "_param_constant" if is_parameter else "_tensor_constant"
        name = f"{kind}{self._counts[kind]}"
        self._counts[kind] += 1
        setattr(self.root, name, tensor)
        return name


def _set_nested(root: torch.nn.Module, path: str, tensor: torch.Tensor) -> None:
    """Put a tensor at a dotted path below ``root``, making the modules on the way."""
    *parents, name = path.split(".")
    for parent in parents:
        if not hasattr(root, parent):
            root.add_module(parent, torch.nn.Module())
        root = getattr(root, parent)
    setattr(root, name, tensor)
