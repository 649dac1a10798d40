"""Attributes and imports."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stillframe.frames.frame import NULL
from stillframe.frames.opcodes.registry import opcode

if TYPE_CHECKING:
    from stillframe.frames.frame import Frame


@opcode("LOAD_ATTR")
def load_attr(frame: Frame, name: str) -> None:
    frame.stack[-1] = frame.policy.load_attr(frame.stack[-1], name)


@opcode("LOAD_METHOD")
def load_method(frame: Frame, name: str) -> None:
    """A bound method with an empty slot is as good as CPython's unbound one with self."""
    value = frame.policy.load_attr(frame.stack.pop(), name)
    frame.stack += (NULL, value)


@opcode("LOAD_ATTR_OR_METHOD")
def load_attr_or_method(frame: Frame, argument: tuple[str, int]) -> None:
    value = frame.policy.load_attr(frame.stack.pop(), argument[0])
    if argument[1]:
        frame.stack.append(NULL)
    frame.stack.append(value)


@opcode("LOAD_ATTR_OR_METHOD_13")
def load_attr_or_method_13(frame: Frame, argument: tuple[str, int]) -> None:
    frame.stack[-1] = frame.policy.load_attr(frame.stack[-1], argument[0])
    if argument[1]:
        frame.stack.append(NULL)


@opcode("LOAD_SUPER_ATTR")
def load_super_attr(frame: Frame, argument: tuple[str, int, int]) -> None:
    _super_attr(frame, argument[0], argument[2])
    if argument[1]:
        frame.stack.insert(-1, NULL)


@opcode("LOAD_SUPER_ATTR_13")
def load_super_attr_13(frame: Frame, argument: tuple[str, int, int]) -> None:
    _super_attr(frame, argument[0], argument[2])
    if argument[1]:
        frame.stack.append(NULL)


def _super_attr(frame: Frame, name: str, is_explicit: int) -> None:
    stack = frame.stack
    instance, cls, callee = stack.pop(), stack.pop(), stack.pop()
    arguments = (cls, instance) if is_explicit or callee is super else ()
    found = frame.policy.call(callee, arguments, {})
    stack.append(frame.policy.load_attr(found, name))


@opcode("STORE_ATTR")
def store_attr(frame: Frame, name: str) -> None:
    target, value = frame.stack.pop(), frame.stack.pop()
    frame.policy.store_attr(target, name, value)


@opcode("DELETE_ATTR")
def delete_attr(frame: Frame, name: str) -> None:
    frame.policy.delete_attr(frame.stack.pop(), name)


@opcode("IMPORT_NAME")
def import_name(frame: Frame, name: str) -> None:
    names, level = frame.stack.pop(), frame.stack.pop()
    frame.stack.append(frame.policy.import_module(frame, name, names, level))


@opcode("IMPORT_FROM")
def import_from(frame: Frame, name: str) -> None:
    frame.stack.append(frame.policy.import_from(frame.stack[-1], name))


@opcode("IMPORT_STAR")
def import_star(frame: Frame, _: int) -> None:
    module = frame.stack.pop()
    public = getattr(module, "__all__", None)
    if public is None:
        public = [name for name in vars(module) if not name.startswith("_")]
    for name in public:
        frame.names[name] = getattr(module, name)
