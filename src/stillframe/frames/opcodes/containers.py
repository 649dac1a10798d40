"""Making, filling and unpacking tuples, lists, sets and dicts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stillframe.frames.frame import NULL
from stillframe.frames.opcodes.registry import opcode

if TYPE_CHECKING:
    from stillframe.frames.frame import Frame


def pop_many(stack: list[Any], count: int) -> list[Any]:
    """Take the top ``count`` values off, in the order in which they were pushed."""
    if not count:
        return []
    values = stack[-count:]
    del stack[-count:]
    return values


@opcode("BUILD_TUPLE")
def build_tuple(frame: Frame, count: int) -> None:
    frame.stack.append(tuple(pop_many(frame.stack, count)))


@opcode("BUILD_LIST")
def build_list(frame: Frame, count: int) -> None:
    frame.stack.append(pop_many(frame.stack, count))


@opcode("BUILD_SET")
def build_set(frame: Frame, count: int) -> None:
    values = pop_many(frame.stack, count)
    frame.policy.hashed(values)
    frame.stack.append(set(values))


@opcode("BUILD_MAP")
def build_map(frame: Frame, count: int) -> None:
    flat = pop_many(frame.stack, 2 * count)
    frame.policy.hashed(flat[::2])
    frame.stack.append(dict(zip(flat[::2], flat[1::2], strict=True)))


@opcode("BUILD_CONST_KEY_MAP")
def build_const_key_map(frame: Frame, count: int) -> None:
    keys = frame.stack.pop()
    frame.stack.append(dict(zip(keys, pop_many(frame.stack, count), strict=True)))


@opcode("BUILD_SLICE")
def build_slice(frame: Frame, count: int) -> None:
    frame.stack.append(slice(*pop_many(frame.stack, count)))


@opcode("LIST_APPEND")
def list_append(frame: Frame, depth: int) -> None:
    value = frame.stack.pop()
    frame.stack[-depth].append(value)


@opcode("SET_ADD")
def set_add(frame: Frame, depth: int) -> None:
    value = frame.stack.pop()
    frame.policy.hashed((value,))
    frame.stack[-depth].add(value)


@opcode("MAP_ADD")
def map_add(frame: Frame, depth: int) -> None:
    value, key = frame.stack.pop(), frame.stack.pop()
    frame.policy.hashed((key,))
    frame.stack[-depth][key] = value


@opcode("LIST_EXTEND")
def list_extend(frame: Frame, depth: int) -> None:
    values = frame.stack.pop()
    if not frame.policy.is_iterable(values):
        raise TypeError(f"Value after * must be an iterable, not {type(values).__name__}")
    frame.stack[-depth].extend(frame.policy.native_iterable(values))


@opcode("LIST_TO_TUPLE")
def list_to_tuple(frame: Frame, _: int) -> None:
    frame.stack[-1] = tuple(frame.stack[-1])


@opcode("SET_UPDATE")
def set_update(frame: Frame, depth: int) -> None:
    values = list(frame.policy.native_iterable(frame.stack.pop()))
    frame.policy.hashed(values)
    frame.stack[-depth].update(values)


@opcode("DICT_UPDATE")
def dict_update(frame: Frame, depth: int) -> None:
    values = frame.stack.pop()
    if not hasattr(type(values), "keys"):
        raise TypeError(f"'{type(values).__name__}' object is not a mapping")
    frame.stack[-depth].update(frame.policy.native_mapping(values))


@opcode("DICT_MERGE")
def dict_merge(frame: Frame, depth: int) -> None:
    """``**values`` of a call: keys are strings, none twice."""
    values = frame.stack.pop()
    # The callable lies below: with its empty slot and the positional arguments up to 3.12
    text = _callable_text(frame, depth)
    if not hasattr(type(values), "keys"):
        raise TypeError(f"{text} argument after ** must be a mapping, not {type(values).__name__}")
    target = frame.stack[-depth]
    for key, value in frame.policy.native_mapping(values).items():
        if key in target:
            raise TypeError(f"{text} got multiple values for keyword argument '{key}'")
        target[key] = value


def _callable_text(frame: Frame, depth: int) -> str:
    for value in (frame.stack[-depth - 2], frame.stack[-depth - 3]):
        if callable(value):
            return callable_text(value)
    return "function"


def callable_text(value: Any) -> str:
    """How CPython names a callable in errors about its arguments: ``module.qualname()``."""
    name = getattr(value, "__qualname__", None)
    if name is None:
        return str(value)
    module = getattr(value, "__module__", None)
    if module is None or module == "builtins":
        return f"{name}()"
    return f"{module}.{name}()"


@opcode("UNPACK_SEQUENCE")
def unpack_sequence(frame: Frame, count: int) -> None:
    values = frame.stack.pop()
    kind = type(values)
    if (kind is tuple or kind is list) and len(values) == count:
        frame.stack.extend(reversed(frame.policy.elements(values)))
        return
    found = _take(frame, values, count, count)
    if len(found) > count:
        counted = f" (expected {count})"
        raise TooMany(counted)
    frame.stack.extend(reversed(found))


def TooMany(counted: str) -> ValueError:
    return ValueError(f"too many values to unpack{counted}")


def _take(frame: Frame, values: Any, least: int, needed: int, star: bool = False) -> list[Any]:
    """The first ``least`` elements and, if there is one, one more."""
    if not frame.policy.is_iterable(values):
        raise TypeError(f"cannot unpack non-iterable {type(values).__name__} object")
    iterator = frame.policy.iterate(values)
    found: list[Any] = []
    for _ in range(least + (0 if star else 1)):
        value = frame.policy.advance(iterator, NULL)
        if value is NULL:
            break
        found.append(value)
    if star:
        while (value := frame.policy.advance(iterator, NULL)) is not NULL:
            found.append(value)
    if len(found) < least:
        at_least = "at least " if star else ""
        raise ValueError(
            f"not enough values to unpack (expected {at_least}{needed}, got {len(found)})"
        )
    return found


@opcode("UNPACK_EX")
def unpack_ex(frame: Frame, counts: int) -> None:
    before, after = counts & 0xFF, counts >> 8
    found = _take(frame, frame.stack.pop(), before + after, before + after, star=True)
    end = len(found) - after
    frame.stack.extend(reversed([*found[:before], found[before:end], *found[end:]]))
