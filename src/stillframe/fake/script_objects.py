"""Script objects without their C++ side: instances of ``torch.classes.*`` while capturing.

The author of such a class registers a fake class for it. A fake of an object is an instance of
that class, made from what the object's own ``__obj_flatten__`` tells, with fakes for the tensors in
it. So methods run in Python, on fakes, and leave the object alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils import _pytree as pytree

from stillframe import torch_private
from stillframe.errors import NotSupported, StillframeError
from stillframe.fake.mode import FakeMode
from stillframe.fake.tensor import FakeTensor

#: Answers a call of a method of a fake object: the object, the method's name, the arguments.
MethodHandler = Callable[["FakeScriptObject", str, tuple[Any, ...], dict[str, Any]], Any]


class FakeScriptObject(torch_private.FakeScriptObjectBase):  # type: ignore[misc]
    """The stand-in of one script object.

    Attributes:
        wrapped_obj: the instance of the fake class.
        script_class_name: the qualified name of the class.
        real_obj: the object that it stands for.
    """

    def __init__(self, fake: Any, name: str, real: torch.ScriptObject, call: MethodHandler) -> None:
        # torch's own constructor would copy the object
        for attribute, value in (
            ("wrapped_obj", fake),
            ("script_class_name", name),
            ("real_obj", real),
            ("_call", call),
        ):
            object.__setattr__(self, attribute, value)

    def __getattr__(self, name: str) -> Any:
        """A method of the object; anything else of it is unknown while capturing."""
        if name.startswith("__") or not torch_private.has_method(self.real_obj, name):
            raise AttributeError(
                f"{self.script_class_name} is a script object: while capturing it has methods "
                f"only, and none called {name!r}"
            )
        return lambda *args, **kwargs: self._call(self, name, args, kwargs)

    def __repr__(self) -> str:
        return f"FakeScriptObject({self.script_class_name})"

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)

    def __deepcopy__(self, memo: Any) -> FakeScriptObject:
        return self  # it only says what was captured

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise NotSupported(f"A stand-in of a {self.script_class_name} cannot be pickled.")


def make_fake(
    mode: FakeMode, real: torch.ScriptObject, path: str, call: MethodHandler
) -> FakeScriptObject:
    """The fake of an object.

    Args:
        mode: answers what the fake class computes.
        real: the object.
        path: how a person names it, for errors.
        call: answers calls of its methods.

    Raises:
        NotSupported: there is no fake class, or it cannot be made from the object.
    """
    name = torch_private.script_class_name(real)
    fake_class = torch_private.registered_fake_class(name)
    if fake_class is None:
        raise NotSupported(
            f"{path} is a script object of the class {_user_name(name)}, which has no fake class.",
            why="what its methods return is not known while capturing",
            hints=[
                f'@torch._library.register_fake_class("{_user_name(name)}")\n'
                "class Fake:\n"
                "    @classmethod\n"
                "    def __obj_unflatten__(cls, flat):  # what the object's __obj_flatten__ gives\n"
                "        return cls(**dict(flat))"
            ],
        )
    if not torch_private.has_method(real, "__obj_flatten__"):
        raise NotSupported(
            f"{path} is a script object of the class {_user_name(name)}, which has no method "
            "__obj_flatten__.",
            why="its fake class is made from what that method returns",
        )
    with torch_private.ambient_modes_off():
        flat = real.__obj_flatten__()  # type: ignore[attr-defined]
        fakes = pytree.tree_map_only(
            torch.Tensor, lambda t: FakeTensor.like_real(mode.env, t), flat
        )
        try:
            instance = fake_class.__obj_unflatten__(fakes)
        except Exception as e:
            raise _mistake(name, "__obj_unflatten__", e) from e
    return FakeScriptObject(instance, name, real, call)


def run_method(
    mode: FakeMode, fake: FakeScriptObject, name: str, args: Any, kwargs: dict[str, Any]
) -> Any:
    """What the method of the fake class returns. Nothing that it does is recorded.

    Raises:
        NotSupported: the fake class has no such method, or it fails.
    """
    method = getattr(fake.wrapped_obj, name, None)
    if method is None:
        raise NotSupported(
            f"The fake class of {_user_name(fake.script_class_name)} has no method {name}.",
            hints=[f"add the method to {type(fake.wrapped_obj).__qualname__}"],
        )
    try:
        with mode.unrecorded():
            return method(*args, **kwargs)
    except StillframeError:
        raise
    except Exception as e:
        raise _mistake(fake.script_class_name, name, e) from e


def _mistake(name: str, method: str, error: Exception) -> NotSupported:
    return NotSupported(
        f"{method} of the fake class of {_user_name(name)} fails: {type(error).__name__}: {error}"
    )


def _user_name(name: str) -> str:
    """``ns::Class``, as it is registered, for ``__torch__.torch.classes.ns.Class``."""
    return "::".join(name.rpartition("torch.classes.")[2].rsplit(".", 1))
