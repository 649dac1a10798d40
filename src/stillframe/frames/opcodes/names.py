"""Locals, cells, globals, and the names of a class body or a module."""

from __future__ import annotations

from types import CellType
from typing import TYPE_CHECKING, Any

from stillframe.frames.frame import NULL
from stillframe.frames.opcodes.registry import opcode

if TYPE_CHECKING:
    from stillframe.frames.frame import Frame


def _unbound(frame: Frame, index: int) -> NameError:
    name = frame.decoded.local_names[index]
    if name in frame.decoded.code.co_freevars:
        return NameError(
            f"cannot access free variable '{name}' where it is not associated with a value in "
            "enclosing scope",
            name=name,
        )
    return UnboundLocalError(
        f"cannot access local variable '{name}' where it is not associated with a value",
        name=name,
    )


def _first_use(frame: Frame, index: int) -> Any:
    """A variable without a value: the policy may have kept it back until it is used."""
    value = frame.policy.kept_back(frame, index)
    if value is NULL:
        raise _unbound(frame, index)
    frame.locals[index] = value
    return value


@opcode("LOAD_FAST")
def load_fast(frame: Frame, index: int) -> None:
    value = frame.locals[index]
    if value is NULL:
        value = _first_use(frame, index)
    frame.stack.append(value)


@opcode("LOAD_FAST_CHECK")
def load_fast_check(frame: Frame, index: int) -> None:
    load_fast(frame, index)


@opcode("LOAD_FAST_AND_CLEAR")
def load_fast_and_clear(frame: Frame, index: int) -> None:
    """A comprehension that is inlined puts the variable of the same name away."""
    value = frame.locals[index]
    frame.stack.append(frame.policy.kept_back(frame, index) if value is NULL else value)
    frame.locals[index] = NULL


@opcode("STORE_FAST")
def store_fast(frame: Frame, index: int) -> None:
    frame.locals[index] = frame.stack.pop()


@opcode("LOAD_FAST_LOAD_FAST")
def load_fast_load_fast(frame: Frame, indices: tuple[int, int]) -> None:
    load_fast(frame, indices[0])
    load_fast(frame, indices[1])


@opcode("STORE_FAST_LOAD_FAST")
def store_fast_load_fast(frame: Frame, indices: tuple[int, int]) -> None:
    frame.locals[indices[0]] = frame.stack.pop()
    load_fast(frame, indices[1])


@opcode("STORE_FAST_STORE_FAST")
def store_fast_store_fast(frame: Frame, indices: tuple[int, int]) -> None:
    frame.locals[indices[0]] = frame.stack.pop()
    frame.locals[indices[1]] = frame.stack.pop()


@opcode("DELETE_FAST")
def delete_fast(frame: Frame, index: int) -> None:
    if frame.locals[index] is NULL:
        _first_use(frame, index)
    frame.locals[index] = NULL


@opcode("LOAD_CLOSURE")
def load_closure(frame: Frame, index: int) -> None:
    frame.stack.append(frame.locals[index])


@opcode("MAKE_CELL")
def make_cell(frame: Frame, index: int) -> None:
    value = frame.locals[index]
    if value is NULL:
        value = frame.policy.kept_back(frame, index)
    cell = frame.locals[index] = CellType() if value is NULL else CellType(value)
    frame.policy.new_cell(cell)


@opcode("COPY_FREE_VARS")
def copy_free_vars(frame: Frame, count: int) -> None:
    assert frame.closure is not None
    frame.locals[-count:] = frame.closure


@opcode("LOAD_DEREF")
def load_deref(frame: Frame, index: int) -> None:
    name = frame.decoded.local_names[index]
    value = frame.policy.load_cell(frame, frame.locals[index], name)
    if value is NULL:
        raise _unbound(frame, index)
    frame.stack.append(value)


@opcode("STORE_DEREF")
def store_deref(frame: Frame, index: int) -> None:
    name = frame.decoded.local_names[index]
    frame.policy.store_cell(frame, frame.locals[index], name, frame.stack.pop())


@opcode("DELETE_DEREF")
def delete_deref(frame: Frame, index: int) -> None:
    cell, name = frame.locals[index], frame.decoded.local_names[index]
    if frame.policy.load_cell(frame, cell, name) is NULL:
        raise _unbound(frame, index)
    frame.policy.store_cell(frame, cell, name, NULL)


@opcode("LOAD_CLASSDEREF")
def load_classderef(frame: Frame, index: int) -> None:
    """A class body reads its own name first, then the enclosing function's variable."""
    frame.stack.append(frame.names)
    load_from_dict_or_deref(frame, index)


@opcode("LOAD_FROM_DICT_OR_DEREF")
def load_from_dict_or_deref(frame: Frame, index: int) -> None:
    value = _read(frame, frame.stack.pop(), frame.decoded.local_names[index])
    if value is NULL:
        load_deref(frame, index)
    else:
        frame.stack.append(value)


@opcode("LOAD_LOCALS")
def load_locals(frame: Frame, _: int) -> None:
    frame.stack.append(frame.names)


@opcode("LOAD_FROM_DICT_OR_GLOBALS")
def load_from_dict_or_globals(frame: Frame, name: str) -> None:
    value = _read(frame, frame.stack.pop(), name)
    frame.stack.append(frame.policy.load_global(frame, name) if value is NULL else value)


def _read(frame: Frame, names: Any, name: str) -> Any:
    """Read a namespace; one of the user's own class (``__prepare__``) by its ``__getitem__``."""
    if type(names) is dict:
        return names.get(name, NULL)
    try:
        return frame.policy.load_item(names, name)
    except KeyError:
        return NULL


@opcode("LOAD_NAME")
def load_name(frame: Frame, name: str) -> None:
    value = _read(frame, frame.names, name)
    frame.stack.append(frame.policy.load_global(frame, name) if value is NULL else value)


@opcode("STORE_NAME")
def store_name(frame: Frame, name: str) -> None:
    value = frame.stack.pop()
    if frame.names is frame.globals:  # a text for exec, in the module's own names
        frame.policy.store_global(frame, name, value)
    elif type(frame.names) is dict:
        frame.names[name] = value
    else:
        frame.policy.store_item(frame.names, name, value)


@opcode("DELETE_NAME")
def delete_name(frame: Frame, name: str) -> None:
    if name not in frame.names:
        raise NameError(f"name '{name}' is not defined", name=name)
    frame.policy.delete_item(frame.names, name)


@opcode("LOAD_GLOBAL")
def load_global(frame: Frame, argument: tuple[str, int]) -> None:
    if argument[1]:
        frame.stack.append(NULL)
    frame.stack.append(frame.policy.load_global(frame, argument[0]))


@opcode("LOAD_GLOBAL_13")
def load_global_13(frame: Frame, argument: tuple[str, int]) -> None:
    frame.stack.append(frame.policy.load_global(frame, argument[0]))
    if argument[1]:
        frame.stack.append(NULL)


@opcode("STORE_GLOBAL")
def store_global(frame: Frame, name: str) -> None:
    frame.policy.store_global(frame, name, frame.stack.pop())


@opcode("DELETE_GLOBAL")
def delete_global(frame: Frame, name: str) -> None:
    frame.policy.delete_global(frame, name)


@opcode("SETUP_ANNOTATIONS")
def setup_annotations(frame: Frame, _: int) -> None:
    if "__annotations__" not in frame.names:
        frame.names["__annotations__"] = {}
