"""What differs between Python versions: one table per version, from CPython's instruction to a
handler and the meaning of its argument.

A handler is named as the instruction of the newest version that has it in its plain form; where an
older or newer version splits or merges instructions, its table says how. Supporting another Python
means adding one table; ``tests/frames/test_versions.py`` compares each with ``dis.opmap``.
"""

from __future__ import annotations

import opcode
import operator
import sys
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, NamedTuple

from stillframe.errors import NotSupported


class Operator(NamedTuple):
    """An operator with two operands: its sign, its methods, and what computes it."""

    sign: str
    native: Callable[[Any, Any], Any]
    method: str
    reflected: str
    in_place: str = ""


def _binary_operators() -> tuple[Operator, ...]:
    """In CPython's order of ``BINARY_OP`` arguments: plain ones, then the in-place ones."""
    rows = [
        ("+", "add"), ("&", "and"), ("//", "floordiv"), ("<<", "lshift"), ("@", "matmul"),
        ("*", "mul"), ("%", "mod"), ("|", "or"), ("**", "pow"), (">>", "rshift"), ("-", "sub"),
        ("/", "truediv"), ("^", "xor"),
    ]  # fmt: skip
    plain, in_place = [], []
    for sign, name in rows:
        method, reflected = f"__{name}__", f"__r{name}__"
        plain.append(Operator(sign, getattr(operator, method), method, reflected))
        update = f"__i{name}__"
        in_place.append(Operator(sign + "=", getattr(operator, update), method, reflected, update))
    return (*plain, *in_place)


BINARY = _binary_operators()
COMPARE = {
    "<": Operator("<", operator.lt, "__lt__", "__gt__"),
    "<=": Operator("<=", operator.le, "__le__", "__ge__"),
    "==": Operator("==", operator.eq, "__eq__", "__eq__"),
    "!=": Operator("!=", operator.ne, "__ne__", "__ne__"),
    ">": Operator(">", operator.gt, "__gt__", "__lt__"),
    ">=": Operator(">=", operator.ge, "__ge__", "__le__"),
}

Argument = Callable[[int, Any], Any]


class Entry(NamedTuple):
    """How one instruction is run.

    ``argument`` turns its number into what the handler gets. For a jump that is a byte offset,
    which the decoder turns into an index and moves on by ``skip`` instructions.
    """

    handler: str
    argument: Argument
    is_jump: bool = False
    skip: int = 0


_ARGUMENTS: dict[str, Argument] = {
    "raw": lambda arg, raw: arg,
    "const": lambda arg, raw: raw.code.co_consts[arg],
    "name": lambda arg, raw: raw.code.co_names[arg],
    # LOAD_GLOBAL: the low bit asks for an empty slot beside the callable
    "name_flag": lambda arg, raw: (raw.code.co_names[arg >> 1], arg & 1),
    "super": lambda arg, raw: (raw.code.co_names[arg >> 2], arg & 1, arg & 2),
    "pair": lambda arg, raw: (arg >> 4, arg & 15),
    "binary": lambda arg, raw: BINARY[arg],
    "compare": lambda arg, raw: COMPARE[opcode.cmp_op[arg]],
    "compare_12": lambda arg, raw: COMPARE[opcode.cmp_op[arg >> 4]],
    "compare_13": lambda arg, raw: COMPARE[opcode.cmp_op[arg >> 5]],
    "compare_bool": lambda arg, raw: (COMPARE[opcode.cmp_op[arg >> 5]], bool(arg & 16)),
    "forward": lambda arg, raw: raw.after + 2 * arg,
    "backward": lambda arg, raw: raw.after - 2 * arg,
}


def _entries(kind: str, names: str) -> dict[str, Entry]:
    """Instructions whose handler has their own name; ``A>B`` is instruction A with handler B."""
    is_jump = kind in ("forward", "backward")
    found = {}
    for name in names.split():
        own, _, handler = name.partition(">")
        found[own] = Entry(handler or own, _ARGUMENTS[kind], is_jump)
    return found


#: Instructions that do nothing when they run.
DROPPED = frozenset({"NOP", "RESUME", "PRECALL", "CACHE", "EXTENDED_ARG"})

_SHARED: dict[str, Entry] = {
    **_entries(
        "raw",
        """POP_TOP PUSH_NULL COPY SWAP UNARY_NEGATIVE UNARY_NOT UNARY_INVERT BINARY_SUBSCR
        STORE_SUBSCR DELETE_SUBSCR GET_ITER GET_LEN MATCH_MAPPING MATCH_SEQUENCE MATCH_KEYS
        PUSH_EXC_INFO CHECK_EXC_MATCH CHECK_EG_MATCH WITH_EXCEPT_START BEFORE_WITH
        GET_AITER GET_ANEXT BEFORE_ASYNC_WITH END_ASYNC_FOR GET_YIELD_FROM_ITER
        LOAD_BUILD_CLASS LOAD_ASSERTION_ERROR RETURN_GENERATOR RETURN_VALUE SETUP_ANNOTATIONS
        YIELD_VALUE POP_EXCEPT
        STORE_FAST LOAD_FAST DELETE_FAST LOAD_CLOSURE MAKE_CELL LOAD_DEREF STORE_DEREF
        DELETE_DEREF COPY_FREE_VARS
        BUILD_TUPLE BUILD_LIST BUILD_SET BUILD_MAP BUILD_STRING BUILD_SLICE BUILD_CONST_KEY_MAP
        LIST_APPEND SET_ADD MAP_ADD LIST_EXTEND SET_UPDATE DICT_UPDATE DICT_MERGE
        UNPACK_SEQUENCE UNPACK_EX IS_OP CONTAINS_OP RAISE_VARARGS RERAISE GET_AWAITABLE
        MATCH_CLASS CALL_FUNCTION_EX""",
    ),
    **_entries("const", "LOAD_CONST"),
    **_entries(
        "name",
        """STORE_NAME DELETE_NAME LOAD_NAME STORE_GLOBAL DELETE_GLOBAL STORE_ATTR DELETE_ATTR
        IMPORT_NAME IMPORT_FROM""",
    ),
    **_entries("name_flag", "LOAD_GLOBAL"),
    **_entries("binary", "BINARY_OP"),
    **_entries("forward", "JUMP_FORWARD>JUMP FOR_ITER SEND"),
    **_entries("backward", "JUMP_BACKWARD>JUMP JUMP_BACKWARD_NO_INTERRUPT>JUMP"),
}

_3_11: dict[str, Entry] = {
    **_SHARED,
    **_entries(
        "raw",
        """KW_NAMES CALL MAKE_FUNCTION FORMAT_VALUE UNARY_POSITIVE LIST_TO_TUPLE IMPORT_STAR
        PRINT_EXPR ASYNC_GEN_WRAP PREP_RERAISE_STAR LOAD_CLASSDEREF""",
    ),
    **_entries("const", "KW_NAMES"),
    **_entries("name", "LOAD_ATTR LOAD_METHOD"),
    **_entries("compare", "COMPARE_OP"),
    **_entries(
        "forward",
        """POP_JUMP_FORWARD_IF_TRUE>POP_JUMP_IF_TRUE POP_JUMP_FORWARD_IF_FALSE>POP_JUMP_IF_FALSE
        POP_JUMP_FORWARD_IF_NONE>POP_JUMP_IF_NONE POP_JUMP_FORWARD_IF_NOT_NONE>POP_JUMP_IF_NOT_NONE
        JUMP_IF_TRUE_OR_POP JUMP_IF_FALSE_OR_POP""",
    ),
    **_entries(
        "backward",
        """POP_JUMP_BACKWARD_IF_TRUE>POP_JUMP_IF_TRUE POP_JUMP_BACKWARD_IF_FALSE>POP_JUMP_IF_FALSE
        POP_JUMP_BACKWARD_IF_NONE>POP_JUMP_IF_NONE
        POP_JUMP_BACKWARD_IF_NOT_NONE>POP_JUMP_IF_NOT_NONE""",
    ),
}

_SINCE_3_12: dict[str, Entry] = {
    **_SHARED,
    **_entries(
        "raw",
        """BINARY_SLICE STORE_SLICE END_FOR END_SEND CLEANUP_THROW CALL_INTRINSIC_1 CALL_INTRINSIC_2
        LOAD_FAST_AND_CLEAR LOAD_FAST_CHECK LOAD_LOCALS LOAD_FROM_DICT_OR_DEREF""",
    ),
    **_entries("const", "RETURN_CONST"),
    **_entries("name", "LOAD_FROM_DICT_OR_GLOBALS"),
    **_entries("name_flag", "LOAD_ATTR>LOAD_ATTR_OR_METHOD"),
    **_entries("super", "LOAD_SUPER_ATTR"),
    **_entries(
        "forward",
        "POP_JUMP_IF_TRUE POP_JUMP_IF_FALSE POP_JUMP_IF_NONE POP_JUMP_IF_NOT_NONE",
    ),
}

_3_12: dict[str, Entry] = {
    **_SINCE_3_12,
    **_entries("raw", "CALL MAKE_FUNCTION FORMAT_VALUE"),
    **_entries("const", "KW_NAMES"),
    **_entries("compare_12", "COMPARE_OP"),
    **_entries("forward", "SEND>SEND_12"),
    # an exhausted iterator is popped, and END_FOR is not run
    "FOR_ITER": Entry("FOR_ITER", _ARGUMENTS["forward"], True, 1),
}

_3_13: dict[str, Entry] = {
    **_SINCE_3_12,
    **_entries(
        "raw",
        """CALL>CALL_13 CALL_KW CALL_FUNCTION_EX>CALL_FUNCTION_EX_13
        MAKE_FUNCTION>MAKE_FUNCTION_13 SET_FUNCTION_ATTRIBUTE FORMAT_SIMPLE FORMAT_WITH_SPEC
        CONVERT_VALUE TO_BOOL""",
    ),
    **_entries("name_flag", "LOAD_GLOBAL>LOAD_GLOBAL_13 LOAD_ATTR>LOAD_ATTR_OR_METHOD_13"),
    **_entries("super", "LOAD_SUPER_ATTR>LOAD_SUPER_ATTR_13"),
    **_entries("compare_bool", "COMPARE_OP>COMPARE_OP_BOOL"),
    **_entries("pair", "LOAD_FAST_LOAD_FAST STORE_FAST_LOAD_FAST STORE_FAST_STORE_FAST"),
    **_entries("forward", "SEND>SEND_12"),
    # END_FOR and the POP_TOP behind it are not run
    "FOR_ITER": Entry("FOR_ITER", _ARGUMENTS["forward"], True, 2),
}

TABLES = {(3, 11): _3_11, (3, 12): _3_12, (3, 13): _3_13}


@lru_cache(maxsize=1)
def table() -> dict[str, Entry]:
    """The table of the running interpreter.

    Raises:
        NotSupported: there is none for this version.
    """
    version = sys.version_info[:2]
    if version not in TABLES:
        known = ", ".join("%d.%d" % v for v in TABLES)
        raise NotSupported(
            f"the frame machine does not know the bytecode of Python {version[0]}.{version[1]}.",
            hints=[f"run on one of {known}"],
        )
    return TABLES[version]


@lru_cache(maxsize=1)
def opnames() -> tuple[str, ...]:
    """Name by number."""
    return tuple(opcode.opname)


def missing(entries: dict[str, Entry], known: Iterable[str]) -> list[str]:
    """Instructions among ``known`` that a compiled program can hold and ``entries`` has not."""
    return sorted(
        name
        for name in known
        if name not in entries
        and name not in DROPPED
        and name not in _NEVER_COMPILED
        and not name.startswith("INSTRUMENTED_")
    )


#: Pseudo instructions of the compiler, and what the interpreter keeps for itself.
_NEVER_COMPILED = frozenset(
    """RESERVED INTERPRETER_EXIT ENTER_EXECUTOR EXIT_INIT_CHECK JUMP JUMP_NO_INTERRUPT LOAD_METHOD
    LOAD_SUPER_METHOD LOAD_ZERO_SUPER_ATTR LOAD_ZERO_SUPER_METHOD POP_BLOCK SETUP_CLEANUP
    SETUP_FINALLY SETUP_WITH STORE_FAST_MAYBE_NULL LOAD_CLOSURE""".split()
)
