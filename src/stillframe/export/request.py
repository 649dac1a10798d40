"""What one export was asked for: its arguments, checked, and taken apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FrameType, MethodType
from typing import Any, TypeGuard

import torch
from torch.utils import _pytree as pytree

from stillframe.errors import InvalidInput, NotSupported
from stillframe.export.call_spec import CallSpec
from stillframe.export.module_calls import check_paths
from stillframe.export.rerun import finish_code
from stillframe.export.script_objects import held_objects
from stillframe.export.state import named_state
from stillframe.fake.tensor import FakeTensor
from stillframe.shapes.dims import LeafSpec, resolve_spec
from stillframe.shapes.env import runtime_asserts_wanted
from stillframe.trace.scope import module_paths


@dataclass(frozen=True, eq=False)
class Request:
    """What one export was asked for.

    Attributes:
        root: the module.
        args, kwargs: the example inputs.
        leaf_specs: what was declared for each leaf.
        assume: relations between dims.
        prefer_asserts: conditions on declared dims become checks of the program.
        floor: the frame that called; stacks end below it.
        strict: the frame machine runs the module's Python.
        preserved: paths of the submodules whose call signatures are kept.
        method: the method of the module that is captured; None for the module's own call.
        converts: control flow on data becomes operators.
        runtime_asserts: conditions on data become checks of the program.
    """

    root: torch.nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    leaf_specs: list[LeafSpec]
    assume: Sequence[Any]
    prefer_asserts: bool
    floor: FrameType
    strict: bool = False
    preserved: frozenset[str] = frozenset()
    method: MethodType | None = None
    converts: bool = False
    runtime_asserts: bool = True

    @property
    def callee(self) -> Any:
        """What is called: the module, or its method."""
        return self.root if self.method is None else self.method


class Original:
    """The module and the example of a request, taken apart.

    Attributes:
        root: the module.
        call_spec: how its forward, or the method, is called.
        leaves, in_spec: the example ``(args, kwargs)``.
        paths: how a person names each leaf.
        modules: the module and all in it, with their paths.
        parameters, buffers: by dotted name; ``state`` is both.
        objects: the script objects that the modules hold.

    Raises:
        InvalidInput: a script object is the stand-in of another capture.
    """

    def __init__(self, request: Request) -> None:
        self.root = root = request.root
        args, kwargs = request.args, request.kwargs
        self.call_spec = CallSpec.from_call(request.method or root.forward, args, kwargs)
        self.leaves, self.in_spec = pytree.tree_flatten((args, kwargs))
        self.paths = [spec.path for spec in request.leaf_specs]
        self.modules = module_paths(root)
        self.parameters, self.buffers = named_state(self.modules)
        self.state = {**self.parameters, **self.buffers}
        self.objects = held_objects(self.modules, self.leaves)

    def tensors(self, fakes: list[Any]) -> list[tuple[str, FakeTensor, torch.Tensor]]:
        """``(path, fake, tensor of the example)`` of each tensor among the inputs.

        Args:
            fakes: what stands for each leaf.
        """
        found = zip(self.paths, fakes, self.leaves, strict=True)
        return [(path, fake, real) for path, fake, real in found if isinstance(fake, FakeTensor)]


def make_request(
    mod: torch.nn.Module | Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any] | None,
    floor: FrameType,
    *,
    dynamic_shapes: Any = None,
    strict: bool = False,
    preserved: tuple[str, ...] = (),
    assume: Sequence[Any] = (),
    prefer_asserts: bool = False,
    control_flow: str = "refuse",
    runtime_asserts: bool | None = None,
) -> Request:
    """Check the arguments of a capture.

    Raises:
        InvalidInput: they do not fit the module, or the spec does not fit them.
    """
    if not isinstance(args, tuple):
        raise InvalidInput(
            f"args must be a tuple of the positional inputs, got {type(args).__name__}.",
            hints=["for one input write export(mod, (x,))"],
        )
    if kwargs is not None and not isinstance(kwargs, dict):
        raise InvalidInput(f"kwargs must be a dict by name, got {type(kwargs).__name__}.")
    method = mod if _is_method(mod) else None
    owner: Any = mod if method is None else method.__self__
    root = owner if isinstance(owner, torch.nn.Module) else _FunctionModule(owner)
    _refuse_script_modules(root)
    finish_code(root)
    return Request(
        root,
        args,
        kwargs or {},
        resolve_spec(method or root, args, kwargs, dynamic_shapes),
        tuple(assume) if isinstance(assume, list) else assume,
        prefer_asserts,
        floor,
        strict,
        check_paths(preserved, module_paths(root)),
        method,
        converts=_converts(control_flow, strict),
        runtime_asserts=runtime_asserts_wanted() if runtime_asserts is None else runtime_asserts,
    )


def _converts(control_flow: str, strict: bool) -> bool:
    """Whether control flow on data becomes operators.

    Raises:
        InvalidInput: an unknown word, or a capture that does not run the Python itself.
    """
    if control_flow not in ("refuse", "convert"):
        raise InvalidInput(
            f"control_flow is {control_flow!r}.", hints=['it is "refuse" or "convert"']
        )
    if control_flow == "convert" and not strict:
        raise InvalidInput(
            'control_flow="convert" needs strict=True.',
            why="only strict capture runs the Python of the module, and can run both ways",
        )
    return control_flow == "convert"


def _is_method(mod: Any) -> TypeGuard[MethodType]:
    """Whether ``mod`` is a method of a module: ``model.encode``."""
    return isinstance(mod, MethodType) and isinstance(mod.__self__, torch.nn.Module)


def _refuse_script_modules(root: torch.nn.Module) -> None:
    """TorchScript modules keep their state outside of Python, where it cannot be swapped.

    Raises:
        NotSupported: names the module.
    """
    for path, module in root.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            name = f"self.{path}" if path else "mod"
            raise NotSupported(
                f"{name} is a TorchScript module, which cannot be captured.",
                hints=[
                    "stillframe.from_torchscript takes it, and modules around it",
                    "or export the Python module that it was made from",
                ],
            )


class _FunctionModule(torch.nn.Module):
    """A plain function as a module without state."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        if not callable(function):
            raise InvalidInput(
                f"mod must be a module or a function, got {type(function).__name__}."
            )
        self.__dict__["forward"] = function
