"""Script objects, held by modules or given: fakes stand in their place while forward runs."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils import _pytree as pytree

from stillframe import torch_private
from stillframe.errors import InvalidInput, NotSupported
from stillframe.export.signature import CustomObjArgument
from stillframe.fake.script_objects import FakeScriptObject
from stillframe.trace.script_objects import ScriptObjects

Modules = list[tuple[str, torch.nn.Module]]


@dataclass(frozen=True, eq=False)
class Held:
    """A script object that is an attribute of a module.

    Attributes:
        module, name: where it is.
        path: its dotted name.
        value: the object.
    """

    module: torch.nn.Module
    name: str
    path: str
    value: torch.ScriptObject


def held_objects(modules: Modules, leaves: Iterable[Any]) -> list[Held]:
    """The script objects among the attributes of modules, in order.

    Raises:
        InvalidInput: an attribute or an input is the stand-in of an object, of another capture.
    """
    for i, leaf in enumerate(leaves):
        if isinstance(leaf, torch_private.FakeScriptObjectBase):
            raise _stand_in(f"the input {i}")
    found = []
    kinds = (torch.ScriptObject, torch_private.FakeScriptObjectBase)
    for module_path, module in modules:
        for name, value in module.__dict__.items():
            if isinstance(value, kinds):
                path = f"{module_path}.{name}" if module_path else name
                if not isinstance(value, torch.ScriptObject):
                    raise _stand_in(f"self.{path}")
                if torch_private.is_script_object(value):
                    found.append(Held(module, name, path, value))
    return found


def _stand_in(place: str) -> InvalidInput:
    return InvalidInput(f"{place} is a stand-in for a script object, of another capture.")


def names_of(held: Iterable[Held]) -> dict[int, list[str]]:
    """Hash of each script object -> all its names, in order."""
    found: dict[int, list[str]] = {}
    for place in held:
        found.setdefault(hash(place.value), []).append(place.path)
    return found


def fake_inputs(
    leaves: Sequence[Any], paths: Sequence[str], held: Iterable[Held], objects: ScriptObjects
) -> list[Any]:
    """The inputs with fakes for the script objects among them.

    Args:
        leaves, paths: the inputs, and how a person names each.
        held: what modules hold.
        objects: makes the fakes.

    Raises:
        NotSupported: one comes by two ways; other calls may have two objects there.
    """
    known = {key: f"self.{names[0]}" for key, names in names_of(held).items()}
    found = []
    for leaf, path in zip(leaves, paths, strict=True):
        name = f"the input {path}"
        if not torch_private.is_script_object(leaf):
            found.append(leaf)
            continue
        other = known.setdefault(hash(leaf), name)
        if other != name:
            raise NotSupported(
                f"The input {path} is a script object that is also {other}.",
                why="the program would take them for one object in every call",
                hints=["give an object of its own as the example"],
            )
        found.append(objects.fake_of(leaf, f"The input {path}"))
    return found


@contextlib.contextmanager
def swapped_objects(held: Iterable[Held], objects: ScriptObjects) -> Iterator[None]:
    """Fakes are in the place of script objects inside; all are put back, also after an error."""
    replaced: list[Held] = []
    try:
        for place in held:
            fake = objects.fake_of(place.value, f"self.{place.path}")
            replaced.append(place)
            place.module.__dict__[place.name] = fake
        yield
    finally:
        for place in replaced:
            place.module.__dict__[place.name] = place.value


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
