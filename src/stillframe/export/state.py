"""State of a module during a capture: swapped for fakes, watched, and put back.

:func:`swapped_state` replaces every parameter and buffer by its fake in the modules' own tables,
and on the way out puts everything back as it was: tables, attributes and all that they hold, and
the Python state around forward. What forward had changed by then is reported by :class:`Watch`.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils import _pytree as pytree

from stillframe.errors import NotSupported
from stillframe.export.holdings import Holdings, same
from stillframe.export.surroundings import hold_surroundings
from stillframe.fake.tensor import FakeTensor
from stillframe.shapes.env import ShapeEnv

_TABLES = ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set")
_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
)
#: What torch keeps of every module; of these, tables and hooks are watched in their own way.
_OF_TORCH = frozenset(torch.nn.Module().__dict__)

Modules = Sequence[tuple[str, torch.nn.Module]]


def named_state(modules: Modules) -> tuple[dict[str, Any], dict[str, Any]]:
    """``(parameters, buffers)`` by dotted name, in module order, every name of a tie included."""
    tables: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
    for path, module in modules:
        prefix = f"{path}." if path else ""
        own: tuple[dict[str, Any], ...] = (module._parameters, module._buffers)
        for table, entries in zip(tables, own, strict=True):
            for name, tensor in entries.items():
                if tensor is not None:
                    table[prefix + name] = tensor
    return tables


def non_persistent(modules: Modules) -> set[str]:
    """The names of the buffers that ``state_dict`` leaves out."""
    return {
        f"{path}.{name}" if path else name
        for path, module in modules
        for name in module._non_persistent_buffers_set
    }


def fake_state(env: ShapeEnv, *tables: dict[str, torch.Tensor]) -> dict[int, FakeTensor]:
    """Identity of each real tensor -> its fake; tied names share one. All sizes static.

    Raises:
        NotSupported: a tensor of an unusual kind; names it.
    """
    fakes: dict[int, FakeTensor] = {}
    for table in tables:
        for fqn, real in table.items():
            if id(real) not in fakes:
                try:
                    fakes[id(real)] = FakeTensor.like_real(env, real)
                except NotSupported as e:
                    hints = (
                        *e.hints,
                        "was the module built under a FakeTensorMode? Build it "
                        "outside, or under torch.device('meta')",
                    )
                    raise NotSupported(f"self.{fqn}: {e.what}", why=e.why, hints=hints) from None
    return fakes


def memory_of(real: torch.Tensor) -> int:
    """What tensors over one storage have in common."""
    return int(real.untyped_storage()._cdata)


@dataclass(eq=False)
class Change:
    """One thing that forward changed.

    Attributes:
        path: of the attribute; in words for state outside of modules.
        what: what happened to it.
        kind: ``"tensor attribute"``, ``"attribute"``, ``"container"``, ``"buffer"``,
            ``"parameter"``, ``"module"``, ``"hook"`` or ``"outside"``.
        value: the new value.
        owner: the module, of attributes.
        name: of the attribute in it.
    """

    path: str
    what: str
    kind: str
    value: Any = None
    owner: torch.nn.Module | None = None
    name: str = ""


@dataclass
class _Seen:
    """A module as it was before the run."""

    module: torch.nn.Module
    path: str
    attributes: dict[str, Any]
    tables: dict[str, Any]
    kind: type
    swapped: dict[str, dict[str, Any]] = field(default_factory=dict)


class Watch:
    """A picture of all modules before the run, to compare with and to restore from."""

    def __init__(self, modules: Modules, method: Any = None) -> None:
        self._seen: list[_Seen] = []
        unique = {id(module): (path, module) for path, module in reversed(modules)}
        self._held = Holdings(unique)
        self._outside = Holdings(unique)
        for path, module in reversed(unique.values()):
            own = module.__dict__
            self._seen.append(
                _Seen(
                    module,
                    path,
                    dict(own),
                    {k: own[k].copy() for k in (*_TABLES, *_HOOKS) if k in own},
                    type(module),
                )
            )
            for name, value in own.items():
                if name not in _OF_TORCH:
                    self._held.hold(f"{path}.{name}" if path else name, value)
        hold_surroundings(self._outside, [module for _, module in unique.values()], method)

    def swap(self, fakes: dict[int, FakeTensor]) -> None:
        """Put the fakes in place of the real parameters and buffers."""
        for seen in self._seen:
            if isinstance(seen.module, torch.nn.RNNBase):
                continue  # keeps its weights in a list too; operators find the fakes by identity
            for table in ("_parameters", "_buffers"):
                entries = seen.module.__dict__[table]
                for name, real in entries.items():
                    if real is not None:
                        entries[name] = fakes[id(real)]
                seen.swapped[table] = entries.copy()

    def changes(self, real_of: Callable[[Any], Any] = lambda value: value) -> list[Change]:
        """What differs from the picture, apart from the swap itself.

        Args:
            real_of: a value that the run computed -> what a real run has in its place: the real
                tensor, for a fake that stands for one.
        """
        found: list[Change] = []
        for seen in self._seen:
            prefix = f"{seen.path}." if seen.path else ""
            found.extend(self._attribute_changes(seen, real_of))
            found.extend(self._table_changes(seen, prefix))
        for held, kind in ((self._held, "container"), (self._outside, "outside")):
            found.extend(Change(p, "was changed", kind, value) for p, value in held.changed())
        return found

    def _attribute_changes(self, seen: _Seen, real_of: Callable[[Any], Any]) -> Iterator[Change]:
        now = seen.module.__dict__
        for name, value in now.items():
            if name in _TABLES or name in _HOOKS:
                continue
            if name not in seen.attributes:
                yield _attribute(seen, name, "was added", value)
            elif not same(seen.attributes[name], value):
                if not self._is_as_before(seen.attributes[name], real_of(value)):
                    yield _attribute(seen, name, "was assigned", value)
        for name in seen.attributes:
            if name not in now:
                yield _attribute(seen, name, "was deleted", None)

    def _is_as_before(self, old: Any, new: Any) -> bool:
        """Whether nobody can tell an attribute from what it was.

        A new container with the same contents is as good as the old one; another one that was
        there before is not, for code may compare the two.
        """
        return same(old, new) or (self._held.was(old, new) and not self.is_old(new))

    def is_old(self, value: Any) -> bool:
        """Whether this very object, a container or the like, was there before the run."""
        return self._held.has(value) or self._outside.has(value)

    @staticmethod
    def _table_changes(seen: _Seen, prefix: str) -> Iterator[Change]:
        now = seen.module.__dict__
        for table, kind in (("_parameters", "parameter"), ("_buffers", "buffer")):
            old = seen.swapped.get(table) or seen.tables[table]
            for name, value in now[table].items():
                if name not in old:
                    yield Change(prefix + name, "was registered", kind, value)
                elif value is not old[name]:
                    yield Change(prefix + name, "was assigned", kind, value)
        parts, before = now["_modules"], seen.tables["_modules"]
        for name in parts.keys() ^ before.keys():
            yield Change(prefix + name, "was added or removed", "module")
        for name in parts.keys() & before.keys():
            if parts[name] is not before[name]:
                yield Change(prefix + name, "was replaced", "module")
        if type(seen.module) is not seen.kind:
            yield Change(f"{prefix}__class__", "was assigned", "module")
        for hooks in _HOOKS:
            if hooks in now and now[hooks].keys() != seen.tables[hooks].keys():
                yield Change(prefix + hooks, "was changed", "hook")

    def restore(self) -> None:
        """Put every module back as it was."""
        for seen in self._seen:
            own = seen.module.__dict__
            if type(seen.module) is not seen.kind:
                seen.module.__class__ = seen.kind
            for name in [n for n in own if n not in seen.attributes]:
                del own[name]
            own.update(seen.attributes)
            for name, table in seen.tables.items():
                own[name].clear()
                own[name].update(table)
        self._held.restore()
        self._outside.restore()


@contextlib.contextmanager
def swapped_state(
    modules: Modules, fakes: dict[int, FakeTensor], method: Any = None
) -> Iterator[Watch]:
    """Run with fakes in place of parameters and buffers; all is put back, also on error.

    Args:
        modules: the root and all below it, with their paths.
        fakes: identity of a tensor -> its fake.
        method: what is run, if not the root's forward.
    """
    watch = Watch(modules, method)
    try:
        watch.swap(fakes)
        yield watch
    finally:
        watch.restore()


def _attribute(seen: _Seen, name: str, what: str, value: Any) -> Change:
    leaves = pytree.tree_leaves(value) if not isinstance(value, torch.nn.Module) else []
    is_tensor = any(isinstance(leaf, FakeTensor) for leaf in leaves)
    kind = "tensor attribute" if is_tensor else "attribute"
    path = f"{seen.path}.{name}" if seen.path else name
    return Change(path, what, kind, value, seen.module, name)


# -- random generators ----------------------------------------------------------------------------


class RandomState:
    """The states of Python's, NumPy's and torch's global generators, to compare and to restore."""

    def __init__(self) -> None:
        self._python = random.getstate()
        self._torch = torch.get_rng_state()
        self._numpy = _numpy_state()

    def changed(self) -> str | None:
        """The name of a generator that was used or seeded since, or None."""
        if random.getstate() != self._python:
            return "random"
        if not torch.equal(torch.get_rng_state(), self._torch):
            return "torch"
        now = _numpy_state()
        if now is not None and self._numpy is not None:
            if now[2] != self._numpy[2] or (now[1] != self._numpy[1]).any():
                return "numpy.random"
        return None

    def restore(self) -> None:
        """Put all generators back."""
        random.setstate(self._python)
        torch.default_generator.set_state(self._torch)  # an outer capture refuses the function
        if self._numpy is not None:
            import numpy

            numpy.random.set_state(self._numpy)


def _numpy_state() -> Any:
    import sys

    numpy = sys.modules.get("numpy")
    return numpy.random.get_state() if numpy is not None and hasattr(numpy, "random") else None
