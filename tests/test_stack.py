"""Whose line it is that asks."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import CodeType
from typing import Any

import stillframe.export.converting.policy
import stillframe.export.strict.running
import stillframe.variables.capture  # noqa: F401  (each of them has a policy)
from stillframe import stack
from stillframe.frames import Policy, interpret


def family(cls: type) -> Iterator[type]:
    yield cls
    for child in cls.__subclasses__():
        yield from family(child)


def test_every_policy_of_ours_lies_between_the_machine_and_the_program() -> None:
    ours = [cls for cls in family(Policy) if cls.__module__.startswith("stillframe.")]
    assert len(ours) >= 4
    assert [cls for cls in ours if not stack.is_of_interpreter(inspect.getfile(cls))] == []


def test_the_place_is_that_of_the_program() -> None:
    places: list[CodeType] = []

    class Asks(Policy):
        def unary(self, method: str, native: Any, value: Any) -> Any:
            frame = inspect.currentframe()
            assert frame is not None and frame.f_back is not None
            places.append(stack.place_of(frame.f_back)[0])
            return super().unary(method, native, value)

    def program(x: int) -> int:
        return -x

    assert interpret(program, policy=Asks())(3) == -3
    assert places == [program.__code__]
