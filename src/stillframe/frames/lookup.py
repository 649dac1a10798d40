"""Finding attributes of types, and telling Python code from C."""

from __future__ import annotations

import operator
import re
import types
from typing import Any


class _Missing:
    __slots__ = ()

    def __repr__(self) -> str:
        return "<missing>"


#: Nothing was found.
MISSING: Any = _Missing()

WrapperDescriptor = type(object.__init__)
MethodWrapper = type(object().__str__)
MethodDescriptor = type(str.join)
ClassMethodDescriptor = type(dict.__dict__["fromkeys"])
Builtin = types.BuiltinFunctionType
#: A bound C method that is told its class; a subclass of the ordinary kind.
BuiltinMethod = type(re.compile("").sub)

#: Kinds of class attributes behind which there is C code only.
C_KINDS: frozenset[type] = frozenset(
    {
        WrapperDescriptor, MethodWrapper, MethodDescriptor, ClassMethodDescriptor, Builtin,
        BuiltinMethod,
        types.GetSetDescriptorType, types.MemberDescriptorType, type(None), operator.itemgetter,
        operator.attrgetter, operator.methodcaller, type(MISSING), int, str, float, bool, tuple,
    }
)  # fmt: skip

_HEAP_TYPE = 1 << 9


def type_lookup(cls: type, name: str) -> Any:
    """``name`` in the classes of ``cls.__mro__``, unbound; :data:`MISSING` if there is none."""
    for base in cls.__mro__:
        names = base.__dict__
        if name in names:
            return names[name]
    return MISSING


def python_special(cls: type, name: str) -> Any:
    """The special method ``name`` of ``cls`` if it is Python code, else None."""
    if not cls.__flags__ & _HEAP_TYPE:
        return None
    found = type_lookup(cls, name)
    return None if type(found) in C_KINDS else found
