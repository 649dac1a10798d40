"""The sources: a frame's locals and globals, and each way to get from one value to another."""

from __future__ import annotations

import enum
import keyword
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from stillframe.errors import InternalError
from stillframe.source.base import (
    ChainedSource,
    Codegen,
    GuardSource,
    Source,
    WriteConstant,
)

_NOT_ALPHANUMERIC = re.compile(r"[^A-Za-z0-9]+")

# -- where paths begin -----------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class LocalSource(Source):
    """A local of the frame.

    Attributes:
        local_name: its name.
        is_cell_or_freevar: the frame keeps it in a cell, of its own or of an enclosing function.
    """

    local_name: str
    is_cell_or_freevar: bool = False

    def expression(self, base: str, constant: WriteConstant) -> str:
        return f"L[{constant(self.local_name)}]"

    def guard_source(self) -> GuardSource:
        return GuardSource.LOCAL

    def reconstruct(self, codegen: Codegen) -> None:
        codegen.load_local(self.local_name, self.is_cell_or_freevar)


@dataclass(frozen=True, eq=False)
class GlobalSource(Source):
    """A global of the frame."""

    global_name: str

    def expression(self, base: str, constant: WriteConstant) -> str:
        return f"G[{constant(self.global_name)}]"

    def guard_source(self) -> GuardSource:
        return GuardSource.GLOBAL

    def reconstruct(self, codegen: Codegen) -> None:
        codegen.load_global(self.global_name)


@dataclass(frozen=True, eq=False)
class ModuleSource(Source):
    """An imported Python module, by its full name; so are the globals of functions beside the
    frame's own read."""

    module_name: str

    def expression(self, base: str, constant: WriteConstant) -> str:
        return f"imported({constant(self.module_name)})"

    def guard_source(self) -> GuardSource:
        return GuardSource.GLOBAL

    def reconstruct(self, codegen: Codegen) -> None:
        codegen.load_helper("imported")
        codegen.load_constant(self.module_name)
        codegen.call(1)


@dataclass(frozen=True, eq=False)
class ConstantSource(Source):
    """A value that the capture put among the globals: it cannot change, so it has no guards."""

    source_name: str

    def expression(self, base: str, constant: WriteConstant) -> str:
        return self.source_name

    def guard_source(self) -> GuardSource:
        return GuardSource.CONSTANT

    def reconstruct(self, codegen: Codegen) -> None:
        codegen.load_global(self.source_name)


@dataclass(frozen=True, eq=False)
class RandomValueSource(Source):
    """The ``index``-th number that the frame draws; it is drawn again, in order, at every call."""

    index: int

    def expression(self, base: str, constant: WriteConstant) -> str:
        return f"random_value_{self.index}"

    def guard_source(self) -> GuardSource:
        return GuardSource.RANDOM_VALUE

    def reconstruct(self, codegen: Codegen) -> None:
        codegen.load_random_value(self.index)


@dataclass(frozen=True, eq=False)
class _Nowhere(Source):
    """Stands for something that is at no place: it has no name."""

    def expression(self, base: str, constant: WriteConstant) -> str:
        return ""


@dataclass(frozen=True, eq=False)
class ShapeEnvSource(_Nowhere):
    """All conditions on sizes."""

    def guard_source(self) -> GuardSource:
        return GuardSource.SHAPE_ENV


@dataclass(frozen=True, eq=False)
class GlobalStateSource(_Nowhere):
    """torch's global state."""

    def guard_source(self) -> GuardSource:
        return GuardSource.GLOBAL


@dataclass(frozen=True, eq=False)
class BackwardStateSource(_Nowhere):
    """What a compiled forward hands to its backward."""

    def guard_source(self) -> GuardSource:
        return GuardSource.BACKWARD_STATE


@dataclass(frozen=True, eq=False)
class SyntheticLocalSource(Source):
    """A local that the capture made for itself; there is nothing to guard in it."""

    local_name: str

    def expression(self, base: str, constant: WriteConstant) -> str:
        return f"SYNTHETIC_LOCAL[{constant(self.local_name)}]"

    def guard_source(self) -> GuardSource:
        return GuardSource.SYNTHETIC_LOCAL

    def reconstruct(self, codegen: Codegen) -> None:
        codegen.load_local(self.local_name, False)


@dataclass(frozen=True, eq=False)
class EphemeralSource(Source):
    """A value of the capture itself, gone when it ends; it may never be guarded."""

    description: str = ""

    def expression(self, base: str, constant: WriteConstant) -> str:
        return f"<ephemeral: {self.description}>" if self.description else "<ephemeral>"

    def guard_source(self) -> GuardSource:
        return GuardSource.EPHEMERAL

    def is_ephemeral(self) -> bool:
        return True


# -- attributes and items --------------------------------------------------------------------------


def _is_attribute_name(name: str) -> bool:
    """Whether ``x.name`` reads the attribute of this name. Python rewrites names beyond ASCII."""
    return name.isidentifier() and name.isascii() and not keyword.iskeyword(name)


@dataclass(frozen=True, eq=False)
class AttrSource(ChainedSource):
    """An attribute. ``AttrSource(b, "x.y")`` is attribute ``y`` of attribute ``x``."""

    member: str

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.member:
            raise InternalError(f"an attribute of {self.base.name()} without a name")
        *path, last = self.member.split(".")
        for member in path:
            object.__setattr__(self, "base", AttrSource(self.base, member))
        object.__setattr__(self, "member", last)

    def expression(self, base: str, constant: WriteConstant) -> str:
        if _is_attribute_name(self.member):
            return f"{base}.{self.member}"
        return f"getattr({base}, {constant(self.member)})"

    def reconstruct(self, codegen: Codegen) -> None:
        codegen.load(self.base)
        codegen.load_attr(self.member)


@dataclass(frozen=True, eq=False)
class GradSource(ChainedSource):
    """The gradient of a tensor: an attribute that may be absent, which reads as None."""

    member: str = "grad"

    def expression(self, base: str, constant: WriteConstant) -> str:
        return f"{base}.{self.member}"

    def reconstruct(self, codegen: Codegen) -> None:
        codegen.load(self.base)
        codegen.load_attr(self.member)


@dataclass(frozen=True, eq=False)
class GetItemSource(ChainedSource):
    """An item.

    Attributes:
        index: the key; a slice is kept as ``(start, stop, step)``, which is hashable; the key may
            be another source, a :class:`ConstDictKeySource`.
        index_is_slice: whether the key is a slice.
    """

    index: Any
    index_is_slice: bool = field(default=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.index, slice):
            parts = (self.index.start, self.index.stop, self.index.step)
            object.__setattr__(self, "index", parts)
            object.__setattr__(self, "index_is_slice", True)
        if isinstance(self.index, Source) and not isinstance(self.index, ConstDictKeySource):
            raise InternalError(f"not the key of a dictionary: {self.index.name()}")
        hash(self.index)  # a key that cannot be one fails here and not somewhere in a set

    @property
    def key(self) -> Any:
        """The key itself, a slice if it is one."""
        return slice(*self.index) if self.index_is_slice else self.index

    def expression(self, base: str, constant: WriteConstant) -> str:
        return f"{base}[{constant(self.index if isinstance(self.index, Source) else self.key)}]"

    def reconstruct(self, codegen: Codegen) -> None:
        codegen.load(self.base)
        if isinstance(self.index, Source):
            codegen.load(self.index)
        else:
            codegen.load_constant(self.key)
        codegen.load_item()


@dataclass(frozen=True, eq=False)
class ConstDictKeySource(ChainedSource):
    """The ``index``-th key of a dictionary."""

    index: int

    def expression(self, base: str, constant: WriteConstant) -> str:
        return f"list(dict.keys({base}))[{self.index}]"

    def reconstruct(self, codegen: Codegen) -> None:
        codegen.load_helper("dict_key")
        codegen.load(self.base)
        codegen.load_constant(self.index)
        codegen.call(2)

    def is_dict_key(self) -> bool:
        return True


@dataclass(frozen=True, eq=False)
class DefaultsSource(ChainedSource):
    """A default argument of a function, by position, or by name if it is keyword-only.

    Attributes:
        idx_key: the position among the defaults, or the name.
        is_kw: whether it is a name.
    """

    idx_key: int | str
    is_kw: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if type(self.idx_key) is not (str if self.is_kw else int):
            raise InternalError(f"not a default argument of {self.base.name()}: {self.idx_key!r}")

    @property
    def table(self) -> str:
        """The attribute that holds the defaults."""
        return "__kwdefaults__" if self.is_kw else "__defaults__"

    def expression(self, base: str, constant: WriteConstant) -> str:
        return f"{base}.{self.table}[{constant(self.idx_key)}]"

    def reconstruct(self, codegen: Codegen) -> None:
        codegen.load(self.base)
        codegen.load_attr(self.table)
        codegen.load_constant(self.idx_key)
        codegen.load_item()


# -- what a function gives -------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _HelperSource(ChainedSource):
    """What a function of ``stillframe.guards.helpers`` gives for the base."""

    def expression(self, base: str, constant: WriteConstant) -> str:
        return f"{self._helper()}({base})"

    def _helper(self) -> str:
        raise NotImplementedError(f"{type(self).__name__} has no helper")

    def reconstruct(self, codegen: Codegen) -> None:
        codegen.load_helper(self._helper())
        codegen.load(self.base)
        codegen.call(1)


@dataclass(frozen=True, eq=False)
class NumpyTensorSource(_HelperSource):
    """The tensor that shares an array's memory."""

    def _helper(self) -> str:
        return "array_as_tensor"


@dataclass(frozen=True, eq=False)
class FloatTensorSource(_HelperSource):
    """The tensor of a number, in the precision of Python's numbers."""

    def _helper(self) -> str:
        return "number_as_tensor"


@dataclass(frozen=True, eq=False)
class ConvertIntSource(_HelperSource):
    """A boolean as 0 or 1; a symbolic one is not asked for its value."""

    def _helper(self) -> str:
        return "bool_as_int"


@dataclass(frozen=True, eq=False)
class SubclassAttrListSource(_HelperSource):
    """The names of the inner tensors of a wrapper subclass."""

    def _helper(self) -> str:
        return "inner_tensor_names"


@dataclass(frozen=True, eq=False)
class SubclassContextSource(_HelperSource):
    """What a wrapper subclass keeps beside its inner tensors."""

    def _helper(self) -> str:
        return "inner_tensor_context"


@dataclass(frozen=True, eq=False)
class ScriptObjectQualifiedNameSource(_HelperSource):
    """The name of a script object's class."""

    def _helper(self) -> str:
        return "script_class_name"


@dataclass(frozen=True, eq=False)
class FlattenScriptObjectSource(_HelperSource):
    """What a script object is made of."""

    def _helper(self) -> str:
        return "flattened_script_object"


@dataclass(frozen=True, eq=False)
class TypeSource(_HelperSource):
    """The class of the value, whatever the value says of it."""

    def _helper(self) -> str:
        return "class_of"


@dataclass(frozen=True, eq=False)
class InstanceDictSource(_HelperSource):
    """The ``__dict__`` of an object, past any code of its class."""

    def _helper(self) -> str:
        return "instance_dict"


@dataclass(frozen=True, eq=False)
class ClassEntrySource(ChainedSource):
    """What a class itself has under a name: not bound, and not of a base."""

    entry: str

    def expression(self, base: str, constant: WriteConstant) -> str:
        return f"{base}.__dict__[{constant(self.entry)}]"

    def reconstruct(self, codegen: Codegen) -> None:
        codegen.load(self.base)
        codegen.load_attr("__dict__")
        codegen.load_constant(self.entry)
        codegen.load_item()


@dataclass(frozen=True, eq=False)
class TupleIteratorGetItemSource(ChainedSource):
    """The ``index``-th of the items that a tuple's iterator has left."""

    index: int

    def expression(self, base: str, constant: WriteConstant) -> str:
        return f"tuple_iterator_item({base}, {self.index})"

    def reconstruct(self, codegen: Codegen) -> None:
        codegen.load_helper("tuple_iterator_item")
        codegen.load(self.base)
        codegen.load_constant(self.index)
        codegen.call(2)


@dataclass(frozen=True)
class ContentSource(ChainedSource):
    """The ``index``-th of what a container holds, in the order of iteration: the element of a set,
    the item of a container whose class has its own ``[]``."""

    index: int

    def expression(self, base: str, constant: WriteConstant) -> str:
        return f"content({base}, {self.index})"

    def reconstruct(self, codegen: Codegen) -> None:
        codegen.load_helper("content")
        codegen.load(self.base)
        codegen.load_constant(self.index)
        codegen.call(2)


@dataclass(frozen=True)
class ViewedDictSource(_HelperSource):
    """The dict that a view shows."""

    def _helper(self) -> str:
        return "viewed_dict"


class TensorProperty(enum.Enum):
    """A number that a tensor's layout tells."""

    SIZE = "size"
    STRIDE = "stride"
    STORAGE_OFFSET = "storage_offset"


@dataclass(frozen=True, eq=False)
class TensorPropertySource(ChainedSource):
    """A size, a stride or the offset of a tensor.

    Attributes:
        prop: which.
        idx: the dim, for sizes and strides; None for the offset.
    """

    prop: TensorProperty
    idx: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.idx is None) is not (self.prop is TensorProperty.STORAGE_OFFSET):
            raise InternalError(f"{self.prop.name} of {self.base.name()} at index {self.idx}")

    def expression(self, base: str, constant: WriteConstant) -> str:
        index = "" if self.idx is None else f"[{self.idx}]"
        return f"{base}.{self.prop.value}(){index}"

    def reconstruct(self, codegen: Codegen) -> None:
        codegen.load(self.base)
        codegen.load_attr(self.prop.value)
        codegen.call(0)
        if self.idx is not None:
            codegen.load_constant(self.idx)
            codegen.load_item()


@dataclass(frozen=True, eq=False)
class CallMethodItemSource(ChainedSource):
    """The number in a tensor of one element."""

    def expression(self, base: str, constant: WriteConstant) -> str:
        return f"{base}.item()"

    def reconstruct(self, codegen: Codegen) -> None:
        codegen.load(self.base)
        codegen.load_attr("item")
        codegen.call(0)


@dataclass(frozen=True, eq=False)
class WeakRefCallSource(ChainedSource):
    """What a weak reference refers to."""

    def expression(self, base: str, constant: WriteConstant) -> str:
        return f"{base}()"

    def reconstruct(self, codegen: Codegen) -> None:
        codegen.load(self.base)
        codegen.call(0)


# -- marks on a path -------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _MarkSource(ChainedSource):
    """The same place as the base; says something of all that hangs off it."""

    def expression(self, base: str, constant: WriteConstant) -> str:
        return base

    def reconstruct(self, codegen: Codegen) -> None:
        codegen.load(self.base)


@dataclass(frozen=True, eq=False)
class OptimizerSource(_MarkSource):
    """An optimizer."""


_AS_MODULE = {
    GuardSource.LOCAL: GuardSource.LOCAL_NN_MODULE,
    GuardSource.GLOBAL: GuardSource.GLOBAL_NN_MODULE,
}
_AS_FSDP_MODULE = {
    GuardSource.LOCAL: GuardSource.LOCAL_FSDP_MODULE,
    GuardSource.LOCAL_NN_MODULE: GuardSource.LOCAL_FSDP_MODULE,
    GuardSource.GLOBAL: GuardSource.GLOBAL_FSDP_MODULE,
    GuardSource.GLOBAL_NN_MODULE: GuardSource.GLOBAL_FSDP_MODULE,
}


@dataclass(frozen=True, eq=False)
class NNModuleSource(_MarkSource):
    """A module of the graph."""

    def guard_source(self) -> GuardSource:
        begin = self.base.guard_source()
        return _AS_MODULE.get(begin, begin)


@dataclass(frozen=True, eq=False)
class FSDPNNModuleSource(_MarkSource):
    """A module that FSDP manages."""

    def guard_source(self) -> GuardSource:
        begin = self.base.guard_source()
        return _AS_FSDP_MODULE.get(begin, begin)


# -- questions about paths -------------------------------------------------------------------------


def chain(source: Source) -> Iterator[Source]:
    """The source, its base, and so on to where the path begins."""
    current: Source | None = source
    while current is not None:
        yield current
        current = current.base if isinstance(current, ChainedSource) else None


def is_constant_source(source: Source) -> bool:
    """Whether the value cannot change."""
    return source.guard_source() is GuardSource.CONSTANT


def is_from_defaults(source: Source) -> bool:
    """Whether the path goes through a default argument."""
    return any(isinstance(s, DefaultsSource) for s in chain(source))


def is_cell_contents(source: Source) -> bool:
    """Whether the value is what a cell holds."""
    return isinstance(source, AttrSource) and source.member == "cell_contents"


def is_from_optimizer_source(source: Source) -> bool:
    """Whether the path goes through an optimizer."""
    return any(isinstance(s, OptimizerSource) for s in chain(source))


def is_from_flatten_script_object_source(source: Source) -> bool:
    """Whether the path goes through what a script object is made of."""
    return any(isinstance(s, FlattenScriptObjectSource) for s in chain(source))


def is_from_local_source(source: Source, *, allow_cell_or_freevar: bool = True) -> bool:
    """Whether the path begins at a local of the frame.

    Args:
        allow_cell_or_freevar: also at one that the frame keeps in a cell.
    """
    *_, root = chain(source)
    if not isinstance(root, LocalSource):
        return False
    return allow_cell_or_freevar or not root.is_cell_or_freevar


def placeholder_name(source: Source) -> str:
    """The name of the graph input that holds the value: ``L['self'].weight`` -> ``L_self_weight``.

    The name is not unique: the graph numbers those that it has already.
    """
    return _NOT_ALPHANUMERIC.sub("_", source.name())
