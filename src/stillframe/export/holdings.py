"""Pictures of mutable Python objects, to tell what forward changed and to put it back.

A picture is the contents of one object, shallowly; the objects inside have pictures of their own.
So a change shows where it was made, whatever holds the object, and comparing needs no recursion.
"""

from __future__ import annotations

import array
import collections
import contextvars
import enum
import functools
import gc
import io
import queue
import random
import sys
import threading
import types
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

_ATOMS = (int, float, complex, str, bytes, type(None), torch.Tensor, type, types.ModuleType)
_CODE = (types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.CodeType)
_NOT_WALKED = (*_ATOMS, *_CODE, enum.Enum, torch.dtype, torch.device, torch.memory_format)


@dataclass(frozen=True)
class _Kind:
    """How one kind of object is read, and put back.

    Attributes:
        read: a copy of the contents.
        write: put such a copy back; None where that is not possible.
        inside: ``(path suffix, object)`` of what the contents hold.
        part: path of the object, name -> path of what is named; where the contents are by name.
    """

    read: Callable[[Any], Any]
    write: Callable[[Any, Any], None] | None
    inside: Callable[[Any], Iterable[tuple[str, Any]]] = lambda contents: ()
    part: Callable[[str, str], str] | None = None


@dataclass(frozen=True)
class _Picture:
    path: str
    value: Any
    kind: _Kind
    contents: Any


class Holdings:
    """Pictures of objects and of all that they hold, each object once.

    Args:
        known: identities of objects that somebody else watches.
    """

    def __init__(self, known: Iterable[int] = ()) -> None:
        self._pictures: dict[int, _Picture] = {}
        self._known = set(known)
        #: The classes of objects with attributes that were met.
        self.classes: dict[type, None] = {}

    def hold(self, path: str, value: Any) -> None:
        """Take a picture of ``value``, named ``path``, and of everything inside."""
        waiting = [(path, value)]
        while waiting:
            place, found = waiting.pop()
            if isinstance(found, torch.Tensor):
                self._add(place, found, _TENSOR)
            if isinstance(found, _NOT_WALKED) or id(found) in self._known:
                continue
            if isinstance(found, tuple):
                waiting += [(place + end, part) for end, part in _numbered(found)]
                continue
            kind = _kind_of(found)
            if kind is not None:
                waiting += [(place + end, part) for end, part in self._add(place, found, kind)]

    def hold_one(self, path: str, value: Any) -> None:
        """A picture of ``value`` alone, of a class or a function too; not of what it holds."""
        kind = _LASTING.get(type(value)) or (
            _CLASS if isinstance(value, type) else None if _is_atom(value) else _kind_of(value)
        )
        if kind is not None and id(value) not in self._known:
            self._add(path, value, kind)

    def hold_function(self, path: str, function: types.FunctionType) -> None:
        """A function: its code, its defaults and its attributes, not what they hold."""
        self._add(path, function, _FUNCTION)

    def hold_class(self, path: str, cls: type) -> None:
        """The attributes of a class, not what they hold; ``{}`` in ``path`` is the name."""
        self._add(path, cls, _CLASS)

    def hold_names(self, path: str, table: dict[str, Any], names: Collection[str]) -> None:
        """Some names of a dict of globals, not what they hold; ``{}`` in ``path`` is the name."""
        kind = _Kind(lambda t: {n: t[n] for n in names if n in t}, dict.update, part=str.format)
        self._add(path, table, kind)

    def hold_cell(self, path: str, cell: types.CellType) -> None:
        """A variable of an enclosing function, not what it holds."""
        self._add(path, cell, _CELL)

    def _add(self, path: str, value: Any, kind: _Kind) -> Iterable[tuple[str, Any]]:
        if id(value) in self._pictures:
            return ()
        if kind is _OBJECT:
            self.classes[type(value)] = None
        contents = kind.read(value)
        self._pictures[id(value)] = _Picture(path, value, kind, contents)
        return kind.inside(contents)

    def has(self, value: Any) -> bool:
        """Whether a picture of this very object was taken."""
        return id(value) in self._pictures

    def was(self, container: Any, value: Any) -> bool:
        """Whether ``value`` has the contents that ``container`` had."""
        picture = self._pictures.get(id(container))
        return (
            picture is not None
            and type(value) is type(container)
            and _same_contents(picture.contents, picture.kind.read(value))
        )

    def changed(self) -> Iterator[tuple[str, Any]]:
        """``(path, new value or container)`` for every object that is not as it was."""
        for picture in self._pictures.values():
            now = picture.kind.read(picture.value)
            if _same_contents(picture.contents, now):
                continue
            if picture.kind.part is None:
                yield picture.path, picture.value
                continue
            for name in {**picture.contents, **now}:
                old, new = (t.get(name, _ABSENT) for t in (picture.contents, now))
                if not same(old, new):
                    yield picture.kind.part(picture.path, name), new

    def restore(self) -> None:
        """Put everything back that can be."""
        for picture in self._pictures.values():
            if picture.kind.write is not None:
                now = picture.kind.read(picture.value)
                if not _same_contents(picture.contents, now):
                    picture.kind.write(picture.value, picture.contents)


_ABSENT: Any = object()

# -- kinds of objects -----------------------------------------------------------------------------


def _numbered(items: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    return ((f"[{i}]", item) for i, item in enumerate(items))


def _read_list(value: Any) -> list[Any]:
    return list(list.__iter__(value) if isinstance(value, list) else value)


def read_dict(value: dict[Any, Any]) -> dict[Any, Any]:
    """The entries in order. A subclass may make things when it is asked for an item, so none is."""
    kind = collections.OrderedDict if isinstance(value, collections.OrderedDict) else dict
    return dict(kind.items(value))


def _set_list(value: Any, contents: list[Any]) -> None:
    value.clear()
    value.extend(contents)


def write_dict(value: Any, contents: dict[Any, Any]) -> None:
    """Entry by entry where the order allows it: a module's globals are never empty."""
    kind: Any = collections.OrderedDict if isinstance(value, collections.OrderedDict) else dict
    for key in [key for key in kind.keys(value) if key not in contents]:
        kind.__delitem__(value, key)
    if list(kind.keys(value)) != [key for key in contents if key in value]:
        kind.clear(value)
    for key, entry in contents.items():
        if kind.get(value, key, _ABSENT) is not entry:
            kind.__setitem__(value, key, entry)


def _set_set(value: Any, contents: set[Any]) -> None:
    value.clear()
    value.update(contents)


def _iterator_state(value: Any) -> tuple[Any, ...]:
    """How far an iterator has come; reading it does not advance it."""
    if isinstance(value, types.GeneratorType):
        return (value.gi_frame and value.gi_frame.f_lasti,)
    return tuple(_progress(part) for part in value.__reduce__()[1:])


def _progress(part: Any) -> Any:
    if isinstance(part, tuple):
        return tuple(_progress(p) for p in part)
    if isinstance(part, list):
        return len(part)
    return _iterator_state(part) if _is_iterator(part) else part


def _is_iterator(value: Any) -> bool:
    return _is_iterator_type(type(value))


def _is_iterator_type(cls: type) -> bool:
    return hasattr(cls, "__next__") and cls.__module__ in ("builtins", "itertools")


def _attributes(value: Any) -> dict[str, Any]:
    slots = {n: slot.__get__(value) for n, slot in _slots(type(value)).items() if _has(value, slot)}
    return {**getattr(value, "__dict__", {}), **slots}


def _set_attributes(value: Any, contents: dict[str, Any]) -> None:
    slots = _slots(type(value))
    if hasattr(value, "__dict__"):
        vars(value).clear()
        vars(value).update((k, v) for k, v in contents.items() if k not in slots)
    for name, slot in slots.items():
        if name in contents:
            slot.__set__(value, contents[name])
        elif _has(value, slot):
            slot.__delete__(value)


def _has(value: Any, slot: Any) -> bool:
    try:
        slot.__get__(value)
    except AttributeError:
        return False
    return True


_slots_of: dict[type, dict[str, Any]] = {}


def _slots(cls: type) -> dict[str, Any]:
    """The ``__slots__`` of a class, as descriptors."""
    found = _slots_of.get(cls)
    if found is None:
        found = _slots_of[cls] = {
            name: entry
            for base in cls.__mro__
            for name, entry in vars(base).items()
            if isinstance(entry, types.MemberDescriptorType) and not name.startswith("__")
        }
    return found


def cell_contents(cell: types.CellType) -> dict[str, Any]:
    """The value of a variable of an enclosing function, under the name ``""``, if it has one."""
    try:
        return {"": cell.cell_contents}
    except ValueError:  # not assigned yet
        return {}


def _set_cell(cell: types.CellType, contents: dict[str, Any]) -> None:
    if contents:
        cell.cell_contents = contents[""]
    else:
        del cell.cell_contents


def class_attributes(cls: type) -> dict[str, Any]:
    """What a class itself defines, apart from the names of Python."""
    return {k: v for k, v in vars(cls).items() if not k.startswith("__")}


def _set_class(cls: type, contents: dict[str, Any]) -> None:
    now = class_attributes(cls)
    for name in now.keys() - contents.keys():
        delattr(cls, name)
    for name, value in contents.items():
        if now.get(name, _ABSENT) is not value:
            setattr(cls, name, value)


def _function_parts(function: types.FunctionType) -> dict[str, Any]:
    own = {name: getattr(function, name) for name in _OF_FUNCTIONS}
    keywords = own["__kwdefaults__"]
    return {**own, "__kwdefaults__": keywords and tuple(keywords.items()), **vars(function)}


def _set_function(function: types.FunctionType, contents: dict[str, Any]) -> None:
    keywords = contents["__kwdefaults__"]
    function.__code__, function.__defaults__ = contents["__code__"], contents["__defaults__"]
    function.__kwdefaults__ = keywords and dict(keywords)
    write_dict(vars(function), {k: v for k, v in contents.items() if k not in _OF_FUNCTIONS})


def _set_items(value: Any, contents: tuple[Any, ...]) -> None:
    """Of a bytearray or an array of numbers."""
    kept = contents[0]
    value[:] = array.array(value.typecode, kept) if isinstance(value, array.array) else kept


def _set_text(value: Any, contents: tuple[Any, ...]) -> None:
    value.seek(0)
    value.truncate()
    value.write(contents[0])
    value.seek(contents[1])


def _set_lock(lock: Any, contents: tuple[Any, ...]) -> None:
    lock.acquire(blocking=False) if contents[0] else lock.release()


def _read_queue(waiting: queue.SimpleQueue[Any]) -> tuple[Any, ...]:
    """By taking everything out and putting it back: there is no other way to look."""
    items = tuple(waiting.get_nowait() for _ in range(waiting.qsize()))
    for item in items:
        waiting.put(item)
    return items


def _set_queue(waiting: queue.SimpleQueue[Any], contents: tuple[Any, ...]) -> None:
    for _ in range(waiting.qsize()):
        waiting.get_nowait()
    for item in contents:
        waiting.put(item)


def _set_error(error: BaseException, contents: tuple[Any, ...]) -> None:
    error.args = contents[0]
    write_dict(vars(error), {k: list(v) if k == "__notes__" else v for k, v in contents[1]})


def _error_parts(error: BaseException) -> tuple[Any, ...]:
    own = vars(error).items()
    return error.args, tuple((k, tuple(v) if k == "__notes__" else v) for k, v in own)


def _set_variable(variable: contextvars.ContextVar[Any], contents: tuple[Any, ...]) -> None:
    if contents[0] is not _ABSENT:
        variable.set(contents[0])


def cached(wrapper: Any) -> list[Any]:
    """What an ``lru_cache`` keeps, as the garbage collector tells: keys and results."""
    parts = gc.get_referents(wrapper)
    tables = [part for part in parts if type(part) is dict and part is not vars(wrapper)]
    return [*parts, *(entry for table in tables for pair in table.items() for entry in pair)]


def _cache_parts(wrapper: Any) -> tuple[Any, ...]:
    """The things in a cache that are not values for good. Numbers may come and go."""
    kept = {id(v): v for v in cached(wrapper) if isinstance(v, torch.Tensor) or _kind_of(v)}
    known = (vars(wrapper), wrapper.__wrapped__)
    return tuple(v for v in kept.values() if not any(v is k for k in known) and type(v) is not dict)


_OF_FUNCTIONS = ("__code__", "__defaults__", "__kwdefaults__")

_LIST = _Kind(_read_list, _set_list, _numbered)
_DICT = _Kind(read_dict, write_dict, lambda d: ((f"[{k!r}]", v) for k, v in d.items()))
_SET = _Kind(set, _set_set)
_ITERATOR = _Kind(_iterator_state, None)
_OBJECT = _Kind(
    _attributes,
    _set_attributes,
    lambda d: ((f".{k}", v) for k, v in d.items()),
    "{}.{}".format,
)
_CELL = _Kind(cell_contents, _set_cell)
_CLASS = _Kind(class_attributes, _set_class, part=str.format)
_FUNCTION = _Kind(_function_parts, _set_function, part="{}.{}".format)
_RANDOM = _Kind(lambda r: (r.getstate(),), lambda r, contents: r.setstate(contents[0]))
_GENERATOR = _Kind(
    lambda g: (g.get_state().numpy().tobytes(),),
    lambda g, contents: g.set_state(torch.frombuffer(bytearray(contents[0]), dtype=torch.uint8)),
)
_BYTES = _Kind(lambda v: (bytes(v),), _set_items)
_NUMBERS = _Kind(lambda v: (tuple(v),), _set_items)
_TEXT = _Kind(lambda v: (v.getvalue(), v.tell()) if not v.closed else (), _set_text)
_VARIABLE = _Kind(lambda v: (v.get(_ABSENT),), _set_variable, _numbered)
_LOCK = _Kind(lambda v: (v.locked(),), _set_lock)
_QUEUE = _Kind(_read_queue, _set_queue)
_TENSOR = _Kind(lambda v: dict(vars(v)), _set_attributes, part="{}.{}".format)
_ERROR = _Kind(_error_parts, _set_error)
_CACHE = _Kind(_cache_parts, lambda wrapper, _: wrapper.cache_clear(), _numbered)


def _set_numpy(value: Any, contents: tuple[Any, ...]) -> None:
    import numpy

    value[...] = numpy.frombuffer(contents[0], value.dtype).reshape(value.shape)


_ARRAY = _Kind(lambda v: (v.tobytes(),), _set_numpy)

_KINDS: tuple[tuple[Any, _Kind], ...] = (
    (dict, _DICT),
    ((list, collections.deque), _LIST),
    (set, _SET),
    (random.Random, _RANDOM),
    (torch.Generator, _GENERATOR),
    (bytearray, _BYTES),
    (array.array, _NUMBERS),
    ((io.StringIO, io.BytesIO), _TEXT),
    (contextvars.ContextVar, _VARIABLE),
    (type(threading.Lock()), _LOCK),
    (queue.SimpleQueue, _QUEUE),
    (BaseException, _ERROR),
    (functools._lru_cache_wrapper, _CACHE),
    # of the standard library, but with their state in ordinary attributes
    (
        (
            types.SimpleNamespace, torch.nn.Module, threading.local, queue.Queue,
            collections.ChainMap, collections.UserDict, collections.UserList,
            weakref.WeakKeyDictionary, weakref.WeakValueDictionary, weakref.WeakSet,
        ),
        _OBJECT,
    ),
)  # fmt: skip

#: Kinds of objects that only :meth:`Holdings.hold_one` looks at, by exact type.
_LASTING = {types.FunctionType: _FUNCTION}


def _is_atom(value: Any) -> bool:
    return isinstance(value, _NOT_WALKED)


def _kind_of(value: Any) -> _Kind | None:
    cls: Any = type(value)
    return _kind_of_type(cls)


@functools.lru_cache(maxsize=4096)
def _kind_of_type(cls: type) -> _Kind | None:
    for bases, kind in _KINDS:
        if issubclass(cls, bases):
            return kind
    if _is_iterator_type(cls):
        return _ITERATOR
    root = cls.__module__.partition(".")[0]
    if root == "numpy" and cls.__name__ == "ndarray":
        return _ARRAY
    if root == "torch" or root in sys.stdlib_module_names:
        return None
    return _OBJECT if cls.__dictoffset__ or _slots(cls) else None


# -- comparing ------------------------------------------------------------------------------------


def same(a: Any, b: Any) -> bool:
    """The same object, or an equal one of those that cannot be changed."""
    if a is b:
        return True
    if type(a) is not type(b) or isinstance(a, torch.Tensor):
        return False
    if isinstance(a, (int, float, str, bytes)):
        return bool(a == b) or (a != a and b != b)
    if isinstance(a, tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return False


def _same_contents(a: Any, b: Any) -> bool:
    if len(a) != len(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, set):
        return bool(a == b)
    return all(map(same, a, b))
