"""The machine's own interface: what it refuses and how it says so, the policy, the cache."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import CellType
from typing import Any

import pytest

from stillframe.errors import FrameError, InternalError, NotSupported
from stillframe.frames import Machine, Policy, checking, interpret
from stillframe.frames.decode import decode
from stillframe.frames.frame import Frame
from stillframe.frames.opcodes.registry import HANDLERS, opcode
from stillframe.frames.versions import TABLES, missing

SOURCE = Path(__file__).resolve().parent.parent.parent / "src"


def test_no_torch() -> None:
    code = "import sys, stillframe.frames; sys.exit('torch' in sys.modules)"
    env = {"PYTHONPATH": str(SOURCE)}
    assert subprocess.run([sys.executable, "-c", code], env=env).returncode == 0


def test_arguments_and_name_pass_through() -> None:
    def add(a: int, *, b: int = 2) -> int:
        "adds"
        return a + b

    run = interpret(add)
    assert (run(1), run(1, b=5), run.__name__, run.__doc__) == (3, 6, "add", "adds")


def test_callables_of_all_kinds() -> None:
    class A:
        def __init__(self, x: int) -> None:
            self.x = x

        def __call__(self, y: int) -> int:
            return self.x + y

        def method(self) -> int:
            return self.x

    assert interpret(A)(3).x == 3
    assert interpret(A(1))(2) == 3
    assert interpret(A(4).method)() == 4
    assert interpret(len)([1]) == 1
    assert interpret(dict)(a=1) == {"a": 1}


def test_generator_outlives_the_call() -> None:
    def count(n: int) -> Any:
        yield from range(n)

    assert list(interpret(count)(3)) == [0, 1, 2]


def test_the_error_reaches_the_caller_with_its_line() -> None:
    def inner() -> float:
        return 1 / 0

    def outer() -> float:
        return inner()

    with pytest.raises(ZeroDivisionError) as caught:
        interpret(outer)()
    names = [entry.name for entry in caught.traceback if entry.path == Path(__file__)]
    assert names[-2:] == ["outer", "inner"]


# -- refusals ---------------------------------------------------------------------------------


def unknown_function() -> Any:
    import _ctypes

    return 1 + _ctypes.sizeof(_ctypes.Array)


def calls_unknown_function() -> Any:
    return unknown_function()


def test_an_unknown_c_function_is_refused_by_name() -> None:
    with pytest.raises(FrameError) as caught:
        interpret(calls_unknown_function)()
    text = str(caught.value)
    assert "_ctypes.sizeof is not known to the frame machine" in text
    assert 'allow=("_ctypes",)' in text
    where = caught.value.where
    assert "in calls_unknown_function: return unknown_function()" in where[0]
    assert "in unknown_function: return 1 + _ctypes.sizeof(_ctypes.Array)" in where[1]
    assert where[2] == "return 1 + _ctypes.sizeof(_ctypes.Array)"
    assert where[3] == "           " + "^" * 29
    assert isinstance(caught.value, NotSupported)


def test_what_is_allowed_is_called() -> None:
    with pytest.raises(TypeError, match="this type has no size"):
        interpret(unknown_function, allow=["_ctypes"])()


def test_a_refusal_cannot_be_caught_by_the_program() -> None:
    def swallows() -> str:
        try:
            unknown_function()
        except BaseException:
            return "swallowed"
        finally:
            print("never")
        return ""

    with pytest.raises(FrameError):
        interpret(swallows)()


def test_an_asynchronous_generator_is_refused() -> None:
    async def numbers() -> Any:
        yield 1

    with pytest.raises(FrameError, match="asynchronous generator .*numbers is not supported"):
        interpret(lambda: numbers())()


def test_the_machine_works_after_a_refusal() -> None:
    machine = Machine()
    with pytest.raises(FrameError):
        machine.call(unknown_function, (), {})
    assert machine.current is None and machine.depth == 0
    assert machine.call(lambda x: x + 1, (1,), {}) == 2


# -- the policy -------------------------------------------------------------------------------

FLAG = 3


class Symbol:
    """A value that only its policy understands."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __bool__(self) -> bool:
        raise AssertionError("nobody may ask the value itself")


class Recording(Policy):
    """Answers every branch with yes, and notes what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def truth(self, value: Any) -> bool:
        if isinstance(value, Symbol):
            self.seen.append(f"branch on {value.text}")
            return True
        return super().truth(value)

    def binary(self, op: Any, left: Any, right: Any) -> Any:
        if isinstance(left, Symbol):
            return Symbol(f"({left.text} {op.sign} {right})")
        return super().binary(op, left, right)

    def compare(self, op: Any, left: Any, right: Any) -> Any:
        if isinstance(left, Symbol):
            return Symbol(f"({left.text} {op.sign} {right})")
        return super().compare(op, left, right)

    def load_attr(self, value: Any, name: str) -> Any:
        if isinstance(value, Symbol):
            return Symbol(f"{value.text}.{name}")
        return super().load_attr(value, name)

    def load_global(self, frame: Frame, name: str) -> Any:
        self.seen.append(f"global {name}")
        return super().load_global(frame, name)

    def store_global(self, frame: Frame, name: str, value: Any) -> None:
        self.seen.append(f"write {name}")

    def load_cell(self, frame: Frame, cell: CellType, name: str) -> Any:
        self.seen.append(f"closure {name}")
        return super().load_cell(frame, cell, name)


def test_a_policy_sees_branches_reads_and_writes() -> None:
    factor = 10

    def program(x: Any) -> Any:
        global FLAG
        FLAG = 5
        y = x.size * factor + FLAG
        if y > 4 and not (y == 0):
            return y
        while x:
            break
        assert x
        return x

    policy = Recording()
    result = interpret(program, policy=policy)(Symbol("x"))
    assert FLAG == 3
    assert policy.seen == [
        "write FLAG",
        "closure factor",
        "global FLAG",
        "branch on ((x.size * 10) + 3) > 4)".replace("((x", "(((x"),
        "branch on (((x.size * 10) + 3) == 0)",
        "branch on x",
        "branch on x",
    ]
    assert isinstance(result, Symbol) and result.text == "x"


def test_a_policy_decides_what_is_inlined() -> None:
    def helper() -> str:
        return sys._getframe(1).f_code.co_name

    class CallsHelper(Policy):
        def inline(self, function: Any) -> bool:
            return function is not helper

    def program() -> str:
        return helper()

    assert interpret(program)() == "program"
    assert interpret(program, policy=CallsHelper())() == "call_function"


# -- decoding and checking --------------------------------------------------------------------


def test_code_is_decoded_once() -> None:
    def f() -> None: ...

    assert decode(f.__code__) is decode(f.__code__)


def test_an_opcode_has_one_handler() -> None:
    with pytest.raises(InternalError, match="LOAD_CONST has two handlers"):
        opcode("LOAD_CONST")(lambda frame, argument: None)


def test_a_wrong_stack_effect_is_seen() -> None:
    def wrong(frame: Any, _: Any) -> None:
        frame.stack.append(1)
        frame.stack.append(2)

    frame = Frame(Machine(), decode(test_code_is_decoded_once.__code__), [], {}, {})
    with pytest.raises(InternalError, match="LOAD_CONST 0 changed the stack by 2, not 1"):
        checking.checked(wrong, "LOAD_CONST", 0)(frame, None)
    checking.checked(HANDLERS["LOAD_CONST"], "LOAD_CONST", 0)(frame, 5)


# -- versions ---------------------------------------------------------------------------------


def test_every_instruction_of_this_python_has_a_handler() -> None:
    import dis

    assert missing(TABLES[sys.version_info[:2]], dis.opmap) == []


@pytest.mark.parametrize("version", TABLES, ids=str)
def test_every_entry_names_a_handler(version: tuple[int, int]) -> None:
    assert {entry.handler for entry in TABLES[version].values()} <= set(HANDLERS)


def test_every_handler_is_used() -> None:
    used = {entry.handler for table in TABLES.values() for entry in table.values()}
    assert set(HANDLERS) - used == {"UNKNOWN"}


def test_an_unknown_python_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from stillframe.frames import versions

    versions.table.cache_clear()
    monkeypatch.setattr(sys, "version_info", (3, 99, 0))
    try:
        with pytest.raises(NotSupported, match=r"bytecode of Python 3\.99"):
            versions.table()
    finally:
        monkeypatch.undo()
        versions.table.cache_clear()
