"""Structures of inputs and results as plain data, and back, without importing anything.

A :class:`~torch.utils._pytree.TreeSpec` holds classes and arbitrary contexts. A
:class:`StructureNode` holds the same as text, numbers and lists. On the way back a class is looked
up among those that this process has already registered with pytree; for a class that it does not
know, a :class:`Record` stands in, which gives the same values by attribute, key and index. So a
program that returns a library's output class runs where that library is not installed.
"""

from __future__ import annotations

import collections
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils import _pytree as pytree

from stillframe.errors import ArtifactError

LEAF = "leaf"

# Classes that every process has, by the name that files use for them.
_BUILTIN: dict[str, Any] = {
    "tuple": tuple,
    "list": list,
    "dict": dict,
    "ordered_dict": collections.OrderedDict,
    "default_dict": collections.defaultdict,
    "deque": collections.deque,
    "size": torch.Size,
}
_BUILTIN_NAMES = {cls: name for name, cls in _BUILTIN.items()}
_NAMEDTUPLE, _RETURN_TYPE, _REGISTERED = "namedtuple", "return_type", "registered"

# What a defaultdict may make for missing keys.
_FACTORIES: dict[str, Any] = {
    "list": list, "dict": dict, "set": set, "tuple": tuple, "int": int, "float": float,
    "str": str, "bool": bool, "none": None,
}  # fmt: skip


@dataclass(frozen=True)
class StructureNode:
    """One container of a structure as plain data.

    Attributes:
        type: ``"leaf"``, a builtin container, ``"namedtuple"``, ``"return_type"`` (of an operator)
            or ``"registered"``.
        name: for the last three, the class.
        context: what pytree keeps beside the children (keys of a dict, ...), see
            :func:`encode_context`.
        children: the containers below.
    """

    type: str
    name: str = ""
    context: Any = None
    children: tuple[StructureNode, ...] = ()


class Record(Mapping[str, Any]):
    """Read-only values of a class that this process does not know.

    ``record.key``, ``record["key"]`` and ``record[0]`` give a value; iteration gives the keys, as a
    mapping does. Fields that were None when the program was captured are None here, and are
    attributes but no keys. It is a pytree container.
    """

    __slots__ = ("_layout", "_values")

    def __init__(self, layout: RecordLayout, values: tuple[Any, ...]) -> None:
        object.__setattr__(self, "_layout", layout)
        object.__setattr__(self, "_values", values)

    @property
    def type_name(self) -> str:
        """Name of the class that it stands for."""
        layout: RecordLayout = self._layout
        return layout.type_name

    def __getitem__(self, key: Any) -> Any:
        values: tuple[Any, ...] = self._values
        if isinstance(key, (int, slice)):
            return values[key]
        try:
            return values[self._layout.keys.index(key)]
        except ValueError:
            raise KeyError(key) from None

    def __getattr__(self, name: str) -> Any:
        layout: RecordLayout = self._layout
        if name in layout.keys:
            return self[name]
        if name in layout.absent:
            return None
        raise AttributeError(
            f"this {layout.type_name} has {', '.join(layout.keys) or 'no fields'}, not {name!r}"
        )

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{type(self).__name__} is read-only")

    def __iter__(self) -> Iterator[str]:
        return iter(self._layout.keys)

    def __len__(self) -> int:
        return len(self._values)

    def __eq__(self, other: object) -> bool:
        return self is other  # values are tensors: elementwise equality is no truth value

    def __hash__(self) -> int:
        return id(self)

    def __repr__(self) -> str:
        pairs = zip(self._layout.keys, self._values, strict=True)
        return f"{self.type_name}({', '.join(f'{k}={v!r}' for k, v in pairs)})"

    def __reduce__(self) -> Any:
        return Record, (self._layout, self._values)

    def to_tuple(self) -> tuple[Any, ...]:
        """The values in order."""
        return tuple(self._values)


@dataclass(frozen=True)
class RecordLayout:
    """Which class a :class:`Record` stands for.

    Attributes:
        type_name: name of the class.
        keys: names of the values; their indices as text where the class has no names.
        absent: fields that were None at capture.
        node_type: as in :class:`StructureNode`.
        context: the context of the original class, encoded.
    """

    type_name: str
    keys: tuple[str, ...]
    absent: tuple[str, ...]
    node_type: str
    context: Any

    def __hash__(self) -> int:
        return hash((self.type_name, self.keys))


def flatten_record(record: Record) -> tuple[list[Any], RecordLayout]:
    """The values of a record, and its layout."""
    return list(record._values), record._layout


pytree.register_pytree_node(
    Record,
    flatten_record,
    lambda values, layout: Record(layout, tuple(values)),
    serialized_type_name="stillframe.Record",
    flatten_with_keys_fn=lambda record: (
        [(pytree.MappingKey(k), v) for k, v in zip(record, record._values, strict=True)],
        record._layout,
    ),
)


# -- to plain data --------------------------------------------------------------------------------


def describe_spec(spec: pytree.TreeSpec, path: str = "the result") -> StructureNode:
    """``spec`` as plain data.

    Args:
        path: what the structure is of, for errors.

    Raises:
        ArtifactError: a container's context cannot be kept in a file; names its path and class.
    """
    if spec.is_leaf():
        return StructureNode(LEAF)
    kind, name, context = _describe_type(spec, path)
    keys = _child_keys(spec)
    children = tuple(
        describe_spec(child, f"{path}[{key!r}]")
        for key, child in zip(keys, spec.children(), strict=True)
    )
    return StructureNode(kind, name, context, children)


def _describe_type(spec: pytree.TreeSpec, path: str) -> tuple[str, str, Any]:
    cls: Any = spec.type
    context = spec.context
    if cls is Record:
        return context.node_type, context.type_name, context.context
    if cls is collections.namedtuple:
        return _NAMEDTUPLE, class_name(context), encode_context(list(context._fields), path)
    if cls is collections.defaultdict:
        factory = next((n for n, f in _FACTORIES.items() if f is context[0]), None)
        if factory is None:
            raise ArtifactError(
                f"{path} is a defaultdict of {context[0]!r}, which a file cannot hold.",
                why=f"a file holds only these factories: {', '.join(_FACTORIES)}",
            )
        return "default_dict", "", encode_context([factory, list(context[1])], path)
    if cls in _BUILTIN_NAMES:
        return _BUILTIN_NAMES[cls], "", encode_context(context, path)
    if vars(torch.return_types).get(getattr(cls, "__name__", "")) is cls:
        return _RETURN_TYPE, str(getattr(cls, "__name__", "")), None
    dump = _dumper(cls)
    name = class_name(cls)
    if dump is not None:
        return _REGISTERED, name, {"dumped": dump(context)}
    return _REGISTERED, name, encode_context(context, f"{path} ({name})")


def encode_context(value: Any, path: str) -> Any:
    """Plain Python data as JSON data that remembers tuples, non-text keys and odd floats.

    Raises:
        ArtifactError: anything that is not plain data.
    """
    if value is None or isinstance(value, (bool, str)):
        return value
    if type(value) is int:
        return value if -(2**53) < value < 2**53 else {"int": str(value)}
    if type(value) is float:
        return {"float": repr(value)}
    if isinstance(value, torch.dtype):
        return {"dtype": str(value).removeprefix("torch.")}
    if type(value) in (list, tuple):
        items = [encode_context(v, path) for v in value]
        return items if type(value) is list else {"tuple": items}
    if type(value) is dict:
        return {
            "dict": [[encode_context(k, path), encode_context(v, path)] for k, v in value.items()]
        }
    raise ArtifactError(
        f"The structure of {path} holds a {class_name(type(value))}, which a file cannot hold.",
        why="beside its tensors, a container in a file may hold numbers, text, None, lists, tuples "
        "and dicts of these",
        hints=[
            "register the class with to_dumpable_context and from_dumpable_context "
            "(torch.utils._pytree.register_pytree_node), or return a plain container"
        ],
    )


# -- from plain data ------------------------------------------------------------------------------


def rebuild_spec(node: StructureNode) -> pytree.TreeSpec:
    """The structure that ``node`` describes; :class:`Record` stands in for unknown classes.

    Raises:
        ArtifactError: the description makes no sense.
    """
    if node.type == LEAF:
        return pytree.treespec_leaf()
    children = [rebuild_spec(child) for child in node.children]
    cls, context = _rebuild_type(node)
    if cls in (dict, collections.OrderedDict, collections.defaultdict):
        keys = context[1] if cls is collections.defaultdict else context
        if not isinstance(keys, list) or len(keys) != len(children):
            raise ArtifactError(
                f"a {node.type} in the file has {len(children)} children for keys {keys!r}."
            )
    return pytree.TreeSpec(cls, context, children)


def _rebuild_type(node: StructureNode) -> tuple[Any, Any]:
    if node.type == "default_dict":
        context = decode_context(node.context)
        if not isinstance(context, list) or len(context) != 2 or context[0] not in _FACTORIES:
            raise ArtifactError(f"unknown factory of a defaultdict in the file: {node.context!r}.")
        return collections.defaultdict, [_FACTORIES[context[0]], context[1]]
    if node.type in _BUILTIN:
        return _BUILTIN[node.type], decode_context(node.context)
    if node.type == _NAMEDTUPLE:
        known = _loaded_namedtuple(node.name, decode_context(node.context))
        return (collections.namedtuple, known) if known is not None else _stand_in(node)
    if node.type == _RETURN_TYPE:
        cls = vars(torch.return_types).get(node.name)
        return (cls, None) if cls in pytree.SUPPORTED_NODES else _stand_in(node)
    if node.type == _REGISTERED:
        cls = _registered_class(node.name)
        return _stand_in(node) if cls is None else (cls, _registered_context(cls, node))
    raise ArtifactError(f"unknown kind of container in the file: {node.type!r}.")


def _registered_context(cls: Any, node: StructureNode) -> Any:
    if isinstance(node.context, dict) and "dumped" in node.context:
        load = pytree.SUPPORTED_SERIALIZED_TYPES[cls].from_dumpable_context
        if load is None:
            raise ArtifactError(
                f"{node.name} was registered with from_dumpable_context when the file was written, "
                "and is registered without it here."
            )
        return load(node.context["dumped"])
    return decode_context(node.context)


def decode_context(value: Any) -> Any:
    """The inverse of :func:`encode_context`.

    Raises:
        ArtifactError: not something that :func:`encode_context` writes.
    """
    if isinstance(value, list):
        return [decode_context(v) for v in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        ((tag, held),) = value.items()
        try:
            return _DECODERS[tag](held)
        except (KeyError, TypeError, ValueError, AttributeError) as e:
            raise ArtifactError(f"damaged description of a container: {value!r} ({e}).") from None
    raise ArtifactError(f"damaged description of a container: {value!r}.")


def dtype_of(name: str) -> torch.dtype:
    """The dtype of that name; raises ValueError for anything that is no dtype."""
    found = vars(torch).get(name)
    if not isinstance(found, torch.dtype):
        raise ValueError(f"{name!r} is not a dtype")
    return found


_DECODERS: dict[str, Callable[[Any], Any]] = {
    "int": int,
    "float": float,
    "dtype": dtype_of,
    "tuple": lambda held: tuple(decode_context(v) for v in held),
    "dict": lambda held: {decode_context(k): decode_context(v) for k, v in held},
}


# -- classes by name ------------------------------------------------------------------------------


def class_name(cls: Any) -> str:
    """The name of a class in files: as registered with pytree, else module and qualified name."""
    entry = pytree.SUPPORTED_SERIALIZED_TYPES.get(cls)
    if entry is not None and entry.serialized_type_name != pytree.NO_SERIALIZED_TYPE_NAME_FOUND:
        return str(entry.serialized_type_name)
    return f"{cls.__module__}.{cls.__qualname__}"


def _registered_class(name: str) -> Any:
    """The class that this process registered under ``name``, the latest if several."""
    found = None
    for cls in pytree.SUPPORTED_NODES:
        if isinstance(cls, type) and class_name(cls) == name:
            found = cls
    return found


def _loaded_namedtuple(name: str, fields: Any) -> Any:
    """A namedtuple class that is in a loaded module already, or registered. Imports nothing."""
    found = _registered_class(name)
    if found is None:
        module, _, attribute = name.rpartition(".")
        # vars(), not getattr: a lazy module would import on getattr
        found = vars(sys.modules[module]).get(attribute) if module in sys.modules else None
    is_namedtuple = isinstance(found, type) and pytree.is_namedtuple_class(found)
    return found if is_namedtuple and list(found._fields) == fields else None


def _dumper(cls: Any) -> Callable[[Any], Any] | None:
    entry = pytree.SUPPORTED_SERIALIZED_TYPES.get(cls)
    return entry.to_dumpable_context if entry is not None else None


def _stand_in(node: StructureNode) -> tuple[Any, Any]:
    names, absent = _field_names(node)
    return Record, RecordLayout(node.name, names, absent, node.type, node.context)


def _field_names(node: StructureNode) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the children and of the fields that were None, where the context tells them.

    A context that lists one text per child names them (model outputs, namedtuples); dataclasses
    list the names that have a value and those that have none.
    """
    context, count = node.context, len(node.children)
    if _is_texts(context) and len(context) == count:
        return tuple(context), ()
    if isinstance(context, list) and len(context) == 2 and all(map(_is_texts, context)):
        if len(context[0]) == count:
            return tuple(context[0]), tuple(context[1])
    return tuple(str(i) for i in range(count)), ()


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(v, str) for v in value)


def _child_keys(spec: pytree.TreeSpec) -> list[Any]:
    """What a person calls the children of a container."""
    count, context = spec.num_children, spec.context
    if spec.type is collections.defaultdict:
        context = context[1]
    if isinstance(context, (list, tuple)) and len(context) == count:
        return list(context)
    return list(range(count))


def same_float(a: float, b: float) -> bool:
    """Equality in which NaN equals NaN and the sign of zero counts."""
    return (a == b and math.copysign(1, a) == math.copysign(1, b)) or (a != a and b != b)
