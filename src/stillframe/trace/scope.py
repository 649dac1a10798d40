"""Which module call the capture is in: the ``nn_module_stack`` of a node.

During a capture ``nn.Module.__call__`` is replaced by one that reports entry and exit to the
recorder of the calling thread. Other modules may have functions of torch replaced for the same
time (:func:`replace_while_capturing`). Replacements are reference-counted, so that nested and
concurrent captures share them, and the originals are put back when the last one ends.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from stillframe.errors import InternalError

ModuleStack = dict[str, tuple[str, str]]

_local = threading.local()
_lock = threading.Lock()
_users = 0

Place = tuple[Any, str]  # an object and the name of an attribute
_replacements: dict[Place, Callable[..., Any]] = {}
_originals: dict[Place, Callable[..., Any]] = {}


def module_paths(root: torch.nn.Module) -> list[tuple[str, torch.nn.Module]]:
    """``(path, module)`` of the root (``""``) and everything below it, parents first.

    A shared module appears under each of its paths.
    """
    found: list[tuple[str, torch.nn.Module]] = []
    pending: list[tuple[str, torch.nn.Module]] = [("", root)]
    while pending:
        path, module = pending.pop()
        found.append((path, module))
        prefix = f"{path}." if path else ""
        children = [(prefix + name, c) for name, c in module._modules.items() if c is not None]
        pending.extend(reversed(children))
    return found


class ModuleScope:
    """The stack of module calls in progress, with the path by which each was reached.

    Args:
        modules: what :func:`module_paths` gives for the captured module.

    Attributes:
        grad_mode: gives a tensor that tells a program, when it runs, whether gradients are enabled;
            None where a capture is only for the mode that it runs in.
    """

    grad_mode: Callable[[], torch.Tensor] | None = None

    def __init__(self, modules: Sequence[tuple[str, torch.nn.Module]]) -> None:
        self._paths: dict[int, list[str]] = {}
        for path, module in modules:
            self._paths.setdefault(id(module), []).append(path)
        self._classes: dict[type, str] = {}
        root = {"L__self__": ("", self._class_name(type(modules[0][1])))} if modules else {}
        self._stacks: list[ModuleStack] = [root]
        self._open: list[str] = [""]

    @property
    def stack(self) -> ModuleStack:
        """Key -> (path, qualified class name), outermost first.

        One dict for each module call, never changed once made: nodes share it."""
        return self._stacks[-1]

    @property
    def path(self) -> str:
        """The path of the innermost module call."""
        return self._open[-1]

    def enter(self, module: torch.nn.Module) -> None:
        """A call of ``module`` begins. Unregistered modules leave the stack as it is."""
        paths = self._paths.get(id(module))
        if paths is None:
            self._stacks.append(self._stacks[-1])
            self._open.append(self._open[-1])
            return
        path = paths[0] if len(paths) == 1 else self._reached_by(paths)
        key = f"L__self__.{path}" if path else "L__self__"
        stack = dict(self._stacks[-1])
        stack[key] = (path, self._class_name(type(module)))
        self._stacks.append(stack)
        self._open.append(path)

    def leave(self) -> None:
        """The innermost module call ends."""
        self._stacks.pop()
        self._open.pop()

    def _reached_by(self, paths: list[str]) -> str:
        """Of the names of a shared module, the first one below the caller that is on the stack."""
        for parent in reversed(self._open):
            prefix = parent + "." if parent else ""
            for path in paths:
                if path.startswith(prefix):
                    return path
        return paths[0]

    def _class_name(self, cls: type) -> str:
        name = self._classes.get(cls)
        if name is None:
            name = self._classes[cls] = f"{cls.__module__}.{cls.__qualname__}"
        return name


def replace_while_capturing(owner: Any, name: str, replacement: Callable[..., Any]) -> None:
    """Have ``owner.name`` be ``replacement`` while any thread captures; called at import.

    The replacement asks :func:`current` and calls :func:`original` where that is None.
    """
    if (owner, name) in _replacements:
        raise InternalError(f"{owner}.{name} has a replacement already")
    _replacements[owner, name] = replacement


def original(owner: Any, name: str) -> Callable[..., Any]:
    """What ``owner.name`` is when nobody captures."""
    return _originals.get((owner, name)) or getattr(owner, name)


def current() -> ModuleScope | None:
    """The scope of the capture of this thread, or None."""
    scope: ModuleScope | None = getattr(_local, "scope", None)
    return scope


_CALL: Place = (torch.nn.Module, "__call__")


def _call(self: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
    scope: ModuleScope | None = getattr(_local, "scope", None)
    call = _originals[_CALL]
    if scope is None:
        return call(self, *args, **kwargs)
    scope.enter(self)
    try:
        return call(self, *args, **kwargs)
    finally:
        scope.leave()


replace_while_capturing(*_CALL, _call)


@contextlib.contextmanager
def inside(module: torch.nn.Module) -> Iterator[None]:
    """A call of ``module`` that does not go through ``Module.__call__``."""
    scope: ModuleScope | None = getattr(_local, "scope", None)
    if scope is None:
        yield
        return
    scope.enter(module)
    try:
        yield
    finally:
        scope.leave()


@contextlib.contextmanager
def tracking(scope: ModuleScope) -> Iterator[None]:
    """Report the module calls of this thread to ``scope``."""
    global _users
    with _lock:
        if _users == 0:
            for (owner, name), replacement in _replacements.items():
                _originals[owner, name] = getattr(owner, name)
                setattr(owner, name, replacement)
        _users += 1
    old = getattr(_local, "scope", None)
    _local.scope = scope
    try:
        yield
    finally:
        _local.scope = old
        with _lock:
            _users -= 1
            if _users == 0:
                for (owner, name), function in _originals.items():
                    setattr(owner, name, function)
