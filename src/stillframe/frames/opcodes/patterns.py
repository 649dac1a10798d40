"""Match statements."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from stillframe.frames.frame import NULL
from stillframe.frames.opcodes.registry import opcode

if TYPE_CHECKING:
    from stillframe.frames.frame import Frame

#: CPython's flags of types that match as a sequence or a mapping.
_SEQUENCE_FLAG, _MAPPING_FLAG, _SELF_FLAG = 1 << 5, 1 << 6, 1 << 22


@opcode("GET_LEN")
def get_len(frame: Frame, _: int) -> None:
    frame.stack.append(frame.policy.call(len, (frame.stack[-1],), {}))


@opcode("MATCH_SEQUENCE")
def match_sequence(frame: Frame, _: int) -> None:
    kind = type(frame.stack[-1])
    frame.stack.append(bool(kind.__flags__ & _SEQUENCE_FLAG) or kind in (Sequence,))


@opcode("MATCH_MAPPING")
def match_mapping(frame: Frame, _: int) -> None:
    kind = type(frame.stack[-1])
    frame.stack.append(bool(kind.__flags__ & _MAPPING_FLAG) or kind in (Mapping,))


@opcode("MATCH_KEYS")
def match_keys(frame: Frame, _: int) -> None:
    """Values of all keys, or None if one is missing. ``get`` is asked, so that a default dict is
    not filled."""
    keys, subject = frame.stack[-1], frame.stack[-2]
    seen = set()
    values: list[Any] | None = []
    get = frame.policy.load_attr(subject, "get")
    for key in keys:
        if key in seen:
            raise ValueError(f"mapping pattern checks duplicate key ({key!r})")
        seen.add(key)
        value = frame.policy.call(get, (key, NULL), {})
        if value is NULL:
            values = None
            break
        assert values is not None
        values.append(value)
    frame.stack.append(None if values is None else tuple(values))


@opcode("MATCH_CLASS")
def match_class(frame: Frame, count: int) -> None:
    stack = frame.stack
    names, cls, subject = stack.pop(), stack.pop(), stack.pop()
    if not isinstance(cls, type):
        noun = "type" if sys.version_info < (3, 12) else "class"
        raise TypeError(f"called match pattern must be a {noun}")
    if not frame.policy.call(isinstance, (subject, cls), {}):
        stack.append(None)
        return
    found = _class_attributes(frame, subject, cls, count, names)
    stack.append(None if found is None else tuple(found))


def _class_attributes(
    frame: Frame, subject: Any, cls: type, count: int, names: tuple[str, ...]
) -> list[Any] | None:
    values: list[Any] = []
    seen: set[str] = set()

    def add(name: str) -> bool:
        if name in seen:
            raise TypeError(f"{cls.__name__}() got multiple sub-patterns for attribute '{name}'")
        seen.add(name)
        try:
            values.append(frame.policy.load_attr(subject, name))
        except AttributeError:
            return False
        return True

    if count:
        positional = _match_args(frame, cls, count)
        if positional is None:
            values.append(subject)
        elif not all(add(name) for name in positional[:count]):
            return None
    return values if all(add(name) for name in names) else None


def _match_args(frame: Frame, cls: type, count: int) -> tuple[str, ...] | None:
    """The names of positional sub-patterns; None: the one sub-pattern is for the subject."""
    try:
        names = frame.policy.load_attr(cls, "__match_args__")
    except AttributeError:
        names = ()
        if cls.__flags__ & _SELF_FLAG:
            if count == 1:
                return None
            allowed = 1
        else:
            allowed = 0
    else:
        if type(names) is not tuple:
            kind = type(names).__name__
            raise TypeError(f"{cls.__name__}.__match_args__ must be a tuple (got {kind})")
        allowed = len(names)
    if count > allowed:
        plural = "" if allowed == 1 else "s"
        raise TypeError(
            f"{cls.__name__}() accepts {allowed} positional sub-pattern{plural} ({count} given)"
        )
    for name in names[:count]:
        if type(name) is not str:
            raise TypeError(f"__match_args__ elements must be strings (got {type(name).__name__})")
    return names  # type: ignore[no-any-return]
