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
from functools import partial
from typing import Any, Protocol

import torch

from stillframe.errors import InternalError

ModuleStack = dict[str, tuple[str, str]]

#: The key of the root's call in a module stack.
ROOT_KEY = "L__self__"

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


def key_of_call(name: str) -> str:
    """The key in a module stack for a call named ``path`` or ``path@n``."""
    return f"{ROOT_KEY}.{name}" if name else ROOT_KEY


def name_of_call(key: str) -> str:
    """The name of a call whose key this is: ``""`` for the root's."""
    return key.removeprefix(ROOT_KEY).removeprefix(".")


class Observer(Protocol):
    """Is told what certain modules are called with and what they return."""

    def wants(self, module: torch.nn.Module) -> bool:
        """Whether calls of ``module`` are of interest."""
        ...

    def called(self, module: torch.nn.Module, args: Any, kwargs: Any) -> Any:
        """A call is about to begin; what this returns is given to :meth:`returned`."""
        ...

    def returned(self, name: str, call: Any, result: Any) -> None:
        """The call of that name, still open, has this result."""
        ...


class ModuleScope:
    """The stack of module calls in progress, with the path by which each was reached.

    Args:
        modules: what :func:`module_paths` gives for the captured module.

    Attributes:
        grad_mode: gives a tensor that tells a program, when it runs, whether gradients are enabled;
            None where a capture is only for the mode that it runs in.
        observer: is told of the calls of some modules; None for nobody.
    """

    grad_mode: Callable[[], torch.Tensor] | None = None
    observer: Observer | None = None

    def __init__(self, modules: Sequence[tuple[str, torch.nn.Module]]) -> None:
        self._paths: dict[int, list[str]] = {}
        for path, module in modules:
            self._paths.setdefault(id(module), []).append(path)
        self._classes: dict[type, str] = {}
        root = {"L__self__": ("", self._class_name(type(modules[0][1])))} if modules else {}
        self._stacks: list[ModuleStack] = [root]
        self._open: list[str] = [""]
        self._calls: dict[str, int] = {}

    @property
    def stack(self) -> ModuleStack:
        """Key -> (path, qualified class name), outermost first.

        The first call of a module has the key ``L__self__.path``, the next ``L__self__.path@1``,
        and so on. One dict for each call, never changed once made: nodes share it."""
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
        stack = dict(self._stacks[-1])
        stack[self._key(path)] = (path, self._class_name(type(module)))
        self._stacks.append(stack)
        self._open.append(path)

    def leave(self) -> None:
        """The innermost module call ends."""
        self._stacks.pop()
        self._open.pop()

    @property
    def call_name(self) -> str:
        """The innermost module call: its path, and ``@1`` and so on from the second call on."""
        return name_of_call(next(reversed(self.stack)))

    def _key(self, path: str) -> str:
        if not path:
            return ROOT_KEY
        count = self._calls.get(path, 0)
        self._calls[path] = count + 1
        return key_of_call(f"{path}@{count}" if count else path)

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
    call = _originals[_CALL]
    if current() is None:
        return call(self, *args, **kwargs)
    return in_scope(self, partial(call, self), args, kwargs)


replace_while_capturing(*_CALL, _call)


def in_scope(
    module: torch.nn.Module, run: Callable[..., Any], args: Any, kwargs: dict[str, Any]
) -> Any:
    """``run(*args, **kwargs)`` as a call of ``module``, reported to the capture of this thread."""
    scope = current()
    if scope is None:
        return run(*args, **kwargs)
    observer = scope.observer
    if observer is None or not observer.wants(module):
        scope.enter(module)
        try:
            return run(*args, **kwargs)
        finally:
            scope.leave()
    call = observer.called(module, args, kwargs)
    scope.enter(module)
    try:
        result = run(*args, **kwargs)
        observer.returned(scope.call_name, call, result)
        return result
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
