"""The kind BEHAVIOUR: classes and functions are made of what they were."""

from __future__ import annotations

from typing import Any

from stillframe.guards.kinds.behaviour import ClassEntries, FunctionParts, is_behaviour


class Base:
    data = 1

    def method(self) -> int:
        return 1


def fresh() -> Any:
    class Made(Base):
        count = 0

        def own(self) -> int:
            return 2

        __hash__ = None  # type: ignore[assignment]

    return Made


def test_what_does_something_and_what_is_data() -> None:
    assert is_behaviour("own", Base.method) and is_behaviour("p", property())
    assert is_behaviour("__hash__", None) and is_behaviour("__len__", 3)
    assert not is_behaviour("count", 0) and not is_behaviour("table", [])
    assert not is_behaviour("__doc__", "text") and not is_behaviour("__module__", "m")


def test_data_may_change_and_methods_may_not() -> None:
    made = fresh()
    entries = ClassEntries(made)
    made.count, made.more = 5, []
    assert entries.are_there() and not entries.different()
    made.own = lambda self: 3
    assert not entries.are_there() and entries.different() == ["own"]
    made = fresh()
    entries = ClassEntries(made)
    del made.own
    assert not entries.are_there() and entries.different() == ["own"]
    made = fresh()
    entries = ClassEntries(made)
    made.__hash__ = lambda self: 1
    assert entries.different() == ["__hash__"]


def test_a_new_name_that_matters() -> None:
    for name, absent, expected in (
        ("method", (), ["method"]), ("data", (), ["data"]), ("new", (), []), ("new", ("new",),
        ["new"]), ("__len__", (), ["__len__"]),
    ):  # fmt: skip
        made = fresh()
        entries = ClassEntries(made, absent=absent)
        setattr(made, name, 5)
        assert entries.different() == expected
        assert entries.are_there() is not bool(expected)


def test_exact_names_and_bases() -> None:
    made = fresh()
    entries = ClassEntries(made, exact=True)
    assert entries.are_there()
    made.more = 1
    assert not entries.are_there() and entries.different() == ["more"]
    made = fresh()
    entries = ClassEntries(made)
    made.__bases__ = (type("Other", (Base,), {}),)
    assert not entries.are_there() and entries.different() == ["__bases__"]


def test_a_class_of_data_alone() -> None:
    made = type("Made", (), {})
    entries = ClassEntries(made)
    assert entries.are_there()
    made.run = lambda self: 1  # type: ignore[attr-defined]
    assert entries.different() == ["run"] and not entries.are_there()


def test_parts_of_functions() -> None:
    def function(a: int, b: int = 1, *, c: int = 2) -> int:
        return a + b + c

    def other(a: int, b: int = 1, *, c: int = 2) -> int:
        return a

    for name, value in (
        ("__code__", other.__code__), ("__defaults__", (2,)), ("__kwdefaults__", {"c": 3}),
    ):  # fmt: skip
        parts = FunctionParts([other, function])
        assert parts.are_there() and not parts.different()
        before = getattr(function, name)
        setattr(function, name, value)
        assert not parts.are_there() and parts.different() == [function.__qualname__]
        setattr(function, name, before)
        assert parts.are_there()
