"""The modules of a hierarchy: they hold state under its original names, and run their bodies."""

from __future__ import annotations

import copy
import keyword
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils import _pytree as pytree

from stillframe.errors import CallError, NotSupported
from stillframe.export.door import same_constant
from stillframe.export.hierarchy.code import Source
from stillframe.export.hierarchy.interface import CAPTURED, Captured, Captures
from stillframe.export.runner import Holder
from stillframe.export.signature import ConstantArgument, ModuleCallSignature


@dataclass(frozen=True)
class RunnableBody:
    """A body that can run.

    Attributes:
        graph: its graph.
        source: its function, of flat values.
        signature: how it is called; None for flat arguments and results.
        outside: names of the values that it takes beside the arguments.
        has_results: whether it gives values beside its result.
    """

    graph: torch.fx.Graph
    source: Source
    signature: ModuleCallSignature | None = None
    outside: tuple[str, ...] = ()
    has_results: bool = False

    def run(self, module: Part, args: Any, kwargs: Any, captured: Captured) -> Any:
        """Call it as the user's code called the module.

        Raises:
            CallError: the arguments have another structure, or other constants.
        """
        signature = self.signature
        if signature is None:
            result = self.source.function(module, *args, **kwargs)
        else:
            tensors = flat_arguments(signature, args, kwargs, module._part_path)
            result = self.source.function(module, *tensors, *captured.values)
        if self.has_results:
            result, captured.results = result
        return result


def flat_arguments(
    signature: ModuleCallSignature, args: Any, kwargs: dict[str, Any], path: str
) -> list[Any]:
    """The values that a signature has nodes for.

    Raises:
        CallError: the arguments have another structure, or other constants.
    """
    keys = signature.in_spec.children()[1].context
    if sorted(kwargs) == sorted(keys):
        kwargs = {key: kwargs[key] for key in keys}
    leaves, spec = pytree.tree_flatten((args, kwargs))
    if spec != signature.in_spec:
        raise CallError(
            f"self.{path} is called with arguments of another structure than at capture.",
            why=f"wanted {signature.in_spec}, got {spec}",
        )
    found = []
    for leaf, argument in zip(leaves, signature.inputs, strict=True):
        if not isinstance(argument, ConstantArgument):
            found.append(leaf)
        elif not same_constant(leaf, argument.value):
            raise CallError(
                f"self.{path} was captured with {argument.value!r} and is called with {leaf!r}.",
                why="plain values are constants of the program",
            )
    return found


class Part(Holder, Captures):
    """A submodule of a program.

    ``graph`` is the graph of its first call, ``code`` the same as Python, ``graphs`` those of all
    its bodies; they are hidden where the original module has attributes of these names. Parts are
    indexed like the lists and dicts of modules that they stand for: ``model.layers[0]``.

    A part can be replaced: ``model.encoder = other``. Its place is then called with the arguments
    of the user's code where its call signature was kept, else with the one value that it takes.
    """

    _part_path: str = ""
    _part_bodies: tuple[RunnableBody, ...] = ()
    _part_fixed: Mapping[str, str] = {}

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the body of the call."""
        captured = kwargs.pop(CAPTURED, None) or Captured(0)
        bodies = type(self)._part_bodies
        if not bodies:
            raise NotSupported(
                f"self.{self._part_path} is not called in this program, so it has no forward."
            )
        body = bodies[captured.body]
        if len(captured.values) != len(body.outside):
            raise NotSupported(
                f"self.{self._part_path} cannot be called on its own: its code uses values that "
                f"are no arguments of it ({', '.join(body.outside)}).",
                hints=["call the whole model", "make them arguments of its forward"],
            )
        return body.run(self, args, kwargs, captured)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            about = type(self)._about(name)
            if about is None:
                raise
            return about

    @classmethod
    def _about(cls, name: str) -> Any:
        """What a part tells of itself, or None."""
        if name == "graphs":
            return [body.graph for body in cls._part_bodies]
        if name in ("graph", "code") and cls._part_bodies:
            first = cls._part_bodies[0]
            return first.graph if name == "graph" else first.source.text
        return None

    # -- replacing ------------------------------------------------------------------------------

    def __setattr__(self, name: str, value: Any) -> None:
        reason = type(self)._part_fixed.get(name)
        is_new = name in self._modules and value is not self._modules[name]
        if reason is not None and is_new and isinstance(self._modules[name], Part):
            raise NotSupported(f"self.{self._below(name)} cannot be replaced: {reason}.")
        super().__setattr__(name, value)

    def _below(self, name: str) -> str:
        return f"{self._part_path}.{name}" if self._part_path else name

    def __getitem__(self, key: int | str) -> Any:
        return self._modules[self._child_name(key)]

    def __setitem__(self, key: int | str, value: Any) -> None:
        setattr(self, self._child_name(key), value)

    def _child_name(self, key: int | str) -> str:
        names = list(self._modules)
        if isinstance(key, str):
            return key
        if not -len(names) <= key < len(names):
            raise IndexError(f"self.{self._part_path} has {len(names)} modules, and no {key}")
        return names[key]

    # -- modes and copies -----------------------------------------------------------------------

    def train(self, mode: bool = True) -> Any:
        """Do nothing if ``mode`` is the captured one, else refuse; modules put in follow it."""
        super().train(mode)
        for child in self.children():
            child.train(mode)
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        new = type(self).__new__(type(self))
        memo[id(self)] = new
        new.__dict__.update({k: copy.deepcopy(v, memo) for k, v in self.__dict__.items()})
        return new

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise NotSupported(
            "A module of an unflattened program is neither pickled nor copied shallowly.",
            hints=["copy.deepcopy(module)", "stillframe.save(program, path), and unflatten again"],
        )


@dataclass
class PartPlan:
    """What one part is made of."""

    path: str
    class_name: str = "Part"
    bodies: list[RunnableBody] = field(default_factory=list)
    fixed: dict[str, str] = field(default_factory=dict)
    forward: Any = None

    def make(self) -> Part:
        """The part, without state and children."""
        usable = self.class_name.isidentifier() and not keyword.iskeyword(self.class_name)
        namespace: dict[str, Any] = {
            "__module__": __name__,
            "_part_path": self.path,
            "_part_bodies": tuple(self.bodies),
            "_part_fixed": dict(self.fixed),
        }
        if self.forward is not None:
            namespace["forward"] = self.forward
        part: Part = type(self.class_name if usable else "Part", (Part,), namespace)()
        return part
