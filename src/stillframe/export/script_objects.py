"""Script objects that modules have as attributes: fakes stand in their place while forward runs."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch.utils import _pytree as pytree

from stillframe import torch_private
from stillframe.errors import InvalidInput
from stillframe.export.signature import CustomObjArgument
from stillframe.fake.script_objects import FakeScriptObject
from stillframe.trace.script_objects import ScriptObjects

Modules = list[tuple[str, torch.nn.Module]]


def named_objects(modules: Modules) -> dict[int, list[str]]:
    """Hash of each script object that is an attribute -> all its names, in order."""
    found: dict[int, list[str]] = {}
    for path, module in modules:
        for name, value in module.__dict__.items():
            if torch_private.is_script_object(value):
                found.setdefault(hash(value), []).append(f"{path}.{name}" if path else name)
    return found


def refuse_stand_ins(modules: Modules, leaves: Iterable[Any]) -> None:
    """Raise for stand-ins of another capture among attributes and inputs.

    Raises:
        InvalidInput: names it.
    """
    places = [(f"the input {i}", leaf) for i, leaf in enumerate(leaves)]
    for path, module in modules:
        places += [(f"self.{path}.{n}".replace("..", "."), v) for n, v in module.__dict__.items()]
    for place, value in places:
        if isinstance(value, torch_private.FakeScriptObjectBase):
            raise InvalidInput(f"{place} is a stand-in for a script object, of another capture.")


@contextlib.contextmanager
def swapped_objects(modules: Modules, objects: ScriptObjects) -> Iterator[None]:
    """Fakes are in the place of script objects inside; all are put back, also after an error."""
    replaced: list[tuple[torch.nn.Module, str, Any]] = []
    try:
        for path, module in modules:
            for name, value in list(module.__dict__.items()):
                if torch_private.is_script_object(value):
                    fake = objects.fake_of(value, f"self.{path}.{name}".replace("..", "."))
                    replaced.append((module, name, value))
                    module.__dict__[name] = fake
        yield
    finally:
        for module, name, value in replaced:
            module.__dict__[name] = value


def argument(name: str, fake: FakeScriptObject) -> CustomObjArgument:
    """What a signature, and ``val`` of the placeholder, say of an object."""
    return CustomObjArgument(name, fake.script_class_name, fake)


def copied(value: Any) -> Any:
    """Inputs with tensors and script objects of their own, for a run that may change them."""

    def own(leaf: Any) -> Any:
        if isinstance(leaf, torch.Tensor):
            return leaf.clone()
        return copy.deepcopy(leaf) if torch_private.is_script_object(leaf) else leaf

    return pytree.tree_map(own, value)
