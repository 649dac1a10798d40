"""Methods, descriptors and special methods of outside classes: found, guarded, told apart."""

from __future__ import annotations

import abc
import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from tests.variables.checking import agrees, guards_of, refuses

from stillframe.variables import capture_frame


@contextmanager
def patched(owner: Any, name: str, value: Any) -> Iterator[None]:
    """An attribute set, and then as it was."""
    had, old = name in vars(owner), vars(owner).get(name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if had:
            setattr(owner, name, old)
        else:
            delattr(owner, name)


def classes() -> tuple[Any, Any]:
    """Classes of a function: their methods have cells."""
    offset = 3

    class Scaled:
        """A descriptor in Python."""

        def __init__(self, by: int) -> None:
            self.by = by

        def __get__(self, owner: Any, cls: type) -> Any:
            return self.by if owner is None else owner.value * self.by

    class Base:
        scale = 2
        scaled = Scaled(5)

        def method(self, x: Any, *, factor: int = 1) -> Any:
            return x * self.scale * factor + offset

        @property
        def more(self) -> int:
            return self.value + 1  # type: ignore[attr-defined, no-any-return]

        @classmethod
        def of_class(cls) -> int:
            return cls.scale

        @staticmethod
        def of_nobody(x: int) -> int:
            return x + 1

        def __call__(self, x: Any) -> Any:
            return self.method(x)

        def __len__(self) -> int:
            return 4

        def __add__(self, other: int) -> Any:
            return self.value + other  # type: ignore[attr-defined]

        def __getattr__(self, name: str) -> int:
            if name == "missing":
                return 7
            raise AttributeError(name)

    class Derived(Base):
        def __init__(self, value: int = 7) -> None:
            self.value = value

        def method(self, x: Any, n: int = 2) -> Any:  # type: ignore[override]
            return super().method(x) + n

    return Base, Derived


Base, Derived = classes()
X = torch.arange(3.0)


def everything(o: Any, x: torch.Tensor) -> Any:
    mine = Derived()
    total = o(x) + mine(x) + o.more + o.of_class() + o.of_nobody(1) + len(o) + (o + 1)
    return total + o.scaled + type(o).scaled + mine.scale + o.missing


PATCHES: list[tuple[Any, str, Any]] = [
    (Base, "method", lambda self, x: x),
    (Derived, "method", lambda self, x: x),
    (Base, "more", property(lambda self: 3)),
    (Base, "of_class", classmethod(lambda cls: 1)),
    (Base, "of_nobody", staticmethod(lambda x: x)),
    (Base, "__call__", lambda self, x: x),
    (Base, "__len__", lambda self: 5),
    (Derived, "__len__", lambda self: 5),
    (Base, "__add__", lambda self, other: 1),
    (Base, "__getattr__", lambda self, name: 1),
    (Derived, "__getattribute__", lambda self, name: 1),
    (Derived, "__new__", lambda cls: None),
    (Base, "scale", 5),
    (Base, "scaled", 5),
]


@pytest.mark.parametrize(("cls", "name", "value"), PATCHES, ids=lambda p: str(p)[:20])
def test_a_class_that_is_patched_is_refused(cls: Any, name: str, value: Any) -> None:
    capture = agrees(everything, lambda: (Derived(), X.clone()))
    with patched(cls, name, value):
        refuses(capture, Derived(), X)
    assert capture.failure(Derived(), X) is None


def test_names_of_the_patched_are_said() -> None:
    capture = agrees(everything, lambda: (Derived(), X.clone()))
    with patched(Base, "more", property(lambda self: 3)):
        assert "different: more" in refuses(capture, Derived(), X)


def test_more_data_on_a_class_is_admitted_and_another_base_is_not() -> None:
    capture = agrees(everything, lambda: (Derived(), X.clone()))
    with patched(Base, "notes", ["a"]):
        assert capture.failure(Derived(), X) is None
    bases = Derived.__bases__
    Derived.__bases__ = (type("Other", (Base,), {}),)
    try:
        assert "__bases__" in refuses(capture, Derived(), X)
    finally:
        Derived.__bases__ = bases


def test_what_a_descriptor_and_a_method_hold_is_guarded() -> None:
    capture = agrees(everything, lambda: (Derived(), X.clone()))
    guards = guards_of(capture)
    assert "CONSTANT_MATCH G['Derived'].__mro__[1].__dict__['scaled'].by" in guards
    cell = "G['Derived'].__mro__[1].__dict__['method'].__closure__[0].cell_contents"
    assert f"CONSTANT_MATCH {cell}" in guards
    descriptor = vars(Base)["scaled"]
    with patched(descriptor, "by", 6):
        assert ".by equals 5" in refuses(capture, Derived(), X)
    with patched(Base.method, "__defaults__", (9,)):
        assert "code and defaults" in refuses(capture, Derived(), X)
    Base.method.__kwdefaults__["factor"] = 2
    try:
        assert "factor" in refuses(capture, Derived(), X)
    finally:
        Base.method.__kwdefaults__["factor"] = 1


def test_an_object_that_gets_a_method_of_its_own_is_refused() -> None:
    def step(o: Any, x: torch.Tensor) -> Any:
        return o.method(x)

    capture = agrees(step, lambda: (Derived(), X.clone()))
    special = Derived()
    special.method = lambda x: x
    assert "method" in refuses(capture, special, X)


def test_a_subclass_is_another_class() -> None:
    capture = agrees(everything, lambda: (Derived(), X.clone()))
    assert "is of class" in refuses(capture, type("Sub", (Derived,), {})(), X)


class Meta(type):
    tag = 5

    def __call__(cls, *args: Any) -> Any:
        made = super().__call__(*args)
        made.tagged = cls.tag
        return made

    def __getattr__(cls, name: str) -> str:
        if name.startswith("__"):
            raise AttributeError(name)
        return name

    def __instancecheck__(cls, value: Any) -> bool:
        return hasattr(value, "tagged")


class WithMeta(metaclass=Meta):
    def __init__(self) -> None:
        self.own = 1


def test_metaclasses_are_run_and_guarded() -> None:
    def step(x: torch.Tensor) -> Any:
        made = WithMeta()
        return x + made.tagged, WithMeta.anything, isinstance(made, WithMeta), type(made).__name__

    capture = agrees(step, lambda: (X.clone(),))
    with patched(Meta, "tag", 6):
        assert "tag" in refuses(capture, X)
    with patched(Meta, "__getattr__", lambda cls, name: 3):
        assert "Meta" in refuses(capture, X)
    with patched(Meta, "__instancecheck__", lambda cls, value: False):
        assert "Meta" in refuses(capture, X)


def test_the_name_of_a_class_is_guarded() -> None:
    class Named:
        pass

    def step(o: Any, x: torch.Tensor) -> Any:
        return x, type(o).__name__, type(o).__mro__[0].__qualname__

    capture = agrees(step, lambda: (Named(), X.clone()))
    Named.__name__ = "Renamed"
    assert "__name__" in refuses(capture, Named(), X)


def test_all_that_a_class_has_by_itself_is_guarded_when_it_is_read() -> None:
    class Listed:
        first = 1

    def step(o: Any, x: torch.Tensor) -> Any:
        return x + type(o).__dict__["first"]

    capture = agrees(step, lambda: (Listed(), X.clone()))
    with patched(Listed, "second", 2):
        refuses(capture, Listed(), X)
    with patched(Listed, "first", 2):
        refuses(capture, Listed(), X)
    assert capture.failure(Listed(), X) is None


def test_what_objects_share_on_their_class_is_one_object() -> None:
    class Shared:
        table = [1, 2]

        def grow(self, x: torch.Tensor) -> None:
            self.table.append(x.shape[0])

    def step(a: Any, b: Any, x: torch.Tensor) -> Any:
        a.grow(x)
        return x * len(b.table), Shared().table is a.table

    capture = capture_frame(step, (Shared(), Shared(), X.clone()))
    assert Shared.table == [1, 2]
    result, same = capture(Shared(), Shared(), X.clone())
    torch.testing.assert_close(result, X * 3)
    assert same and Shared.table == [1, 2, 3]
    assert "length 2" in refuses(capture, Shared(), Shared(), X)


def recursive(x: torch.Tensor, n: int = 3, acc: list[int] = [0]) -> Any:  # noqa: B006
    acc[0] += 1
    return x if n == 0 else recursive(x * 2, n - 1)


def test_recursion_and_a_mutable_default() -> None:
    capture = capture_frame(lambda x: recursive(x), (X.clone(),))
    assert recursive.__defaults__ == (3, [0])
    torch.testing.assert_close(capture(X.clone()), X * 8)
    assert recursive.__defaults__ == (3, [4])
    assert "acc" in refuses(capture, X) or "__defaults__" in refuses(capture, X)
    recursive.__defaults__[1][0] = 0
    assert capture.failure(X) is None
    with patched_defaults(recursive, (2, [0])):
        assert "code and defaults" in refuses(capture, X)


@contextmanager
def patched_defaults(function: Any, defaults: tuple[Any, ...]) -> Iterator[None]:
    old, function.__defaults__ = function.__defaults__, defaults
    try:
        yield
    finally:
        function.__defaults__ = old


def test_a_local_function_made_anew_has_its_defaults_and_cells_read() -> None:
    def make(scale: int, by: int) -> Callable[..., Any]:
        def inner(x: Any, n: int = by, *, m: int = by) -> Any:
            return x * scale + n + m

        return inner

    def step(function: Any, x: torch.Tensor) -> Any:
        return function(x)

    capture = agrees(step, lambda: (make(2, 3), X.clone()), lambda: (make(2, 3), X.clone()))
    assert "CLOSURE_MATCH L['function']" in guards_of(capture)
    assert "cell_contents equals 2" in refuses(capture, make(4, 3), X)
    assert "__defaults__[0] equals 3" in refuses(capture, make(2, 5), X)
    longer = make(2, 3)
    longer.__defaults__ = (1, 3)  # type: ignore[attr-defined]
    assert "length 1" in refuses(capture, longer, X)
    none = make(2, 3)
    none.__kwdefaults__ = None  # type: ignore[attr-defined]
    refuses(capture, none, X)


def decorated(function: Any) -> Any:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs) + 1

    return wrapper


@decorated
def doubled(x: Any) -> Any:
    return x * 2


TABLE: dict[str, Any] = {"f": doubled, "g": [lambda x: x - 1]}


def test_decorated_functions_and_functions_in_containers() -> None:
    def step(x: torch.Tensor) -> Any:
        return doubled(x) + TABLE["f"](x) + TABLE["g"][0](x)

    capture = agrees(step, lambda: (X.clone(),))
    TABLE["f"], old = decorated(lambda x: x), TABLE["f"]
    try:
        assert "TABLE" in refuses(capture, X)
    finally:
        TABLE["f"] = old
    with patched_code(doubled.__wrapped__, (lambda x: x).__code__):
        assert "code and defaults" in refuses(capture, X)


@contextmanager
def patched_code(function: Any, code: Any) -> Iterator[None]:
    old, function.__code__ = function.__code__, code
    try:
        yield
    finally:
        function.__code__ = old


class Failing:
    def __init__(self) -> None:
        self.count = 0
        self.items: list[int] = []


def test_an_exception_of_the_program_passes_and_its_effects_are_undone() -> None:
    def step(o: Any, x: torch.Tensor) -> Any:
        o.count += 1
        o.items.append(1)
        raise LookupError("of the program")

    o = Failing()
    with pytest.raises(LookupError, match="of the program"):
        capture_frame(step, (o, X))
    assert (o.count, o.items) == (0, [])


def test_an_exception_that_is_caught_is_no_matter() -> None:
    def step(o: Any, x: torch.Tensor) -> Any:
        try:
            o.count += 1
            raise LookupError(3)
        except LookupError as e:
            o.items.append(e.args[0])
        finally:
            o.count += 1
        return x + o.count

    agrees(step, lambda: (Failing(), X.clone()))


def test_generators_inside() -> None:
    def step(o: Any, x: torch.Tensor) -> Any:
        def numbers() -> Iterator[Any]:
            for i in range(3):
                o.count += i
                yield x + i
            yield from [x, x]

        return sum(numbers()), [y.shape[0] for y in numbers()]

    agrees(step, lambda: (Failing(), X.clone()))


def test_a_class_made_inside_is_used_inside() -> None:
    def step(x: torch.Tensor) -> Any:
        class Inner(Failing):
            def more(self) -> Any:
                return x + self.count

        Dynamic = type("Dynamic", (Inner,), {"extra": 2})
        return Inner().more() + Dynamic().more() * Dynamic.extra, Dynamic.__module__

    agrees(step, lambda: (X.clone(),))


class Asked:
    """Looks attributes up itself, past its own way of looking up."""

    def __init__(self) -> None:
        object.__setattr__(self, "table", {"k": 3})
        object.__setattr__(self, "v", 3)

    def __getattribute__(self, name: str) -> Any:
        if name == "from_table":
            return object.__getattribute__(self, "table")["k"]
        if name == "from_object":
            return object.__getattribute__(self, "v") + 1
        if name == "from_super":
            return super().__getattribute__("v") + 2
        return object.__getattribute__(self, name)

    def method(self) -> int:
        return 1


class Fallback:
    def __init__(self) -> None:
        self.v = 3

    def __getattr__(self, name: str) -> int:
        if name.startswith("__"):
            raise AttributeError(name)
        return self.v


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("from_table", lambda o: o.table.update(k=9)),
        ("from_object", lambda o: object.__setattr__(o, "v", 9)),
        ("from_super", lambda o: object.__setattr__(o, "v", 9)),
        ("method", lambda o: object.__setattr__(o, "method", lambda: 9)),
    ],
)
def test_attributes_read_past_the_hooks_of_a_class(name: str, change: Any) -> None:
    def step(o: Any, x: torch.Tensor) -> Any:
        found = getattr(o, name)
        return x + (found() if callable(found) else found)

    o = Asked()
    capture = agrees(step, lambda: (Asked(), X.clone()))
    change(o)
    refuses(capture, o, X)


def test_what_was_not_found_must_stay_absent() -> None:
    def step(o: Any, x: torch.Tensor) -> Any:
        return x + o.anything, WithMeta.something, o.__class__.__name__

    capture = agrees(step, lambda: (Fallback(), X.clone()))
    o = Fallback()
    o.anything = 5  # type: ignore[attr-defined]
    assert "anything" in refuses(capture, o, X)
    with patched(Fallback, "anything", 5):
        assert "different: anything" in refuses(capture, Fallback(), X)
    with patched(WithMeta, "something", 5):
        assert "different: something" in refuses(capture, Fallback(), X)
    with patched(Fallback, "unrelated", 5):
        assert capture.failure(Fallback(), X) is None


def test_data_that_hides_a_method_of_a_base_is_refused() -> None:
    capture = agrees(everything, lambda: (Derived(), X.clone()))
    for name in ("more", "of_nobody", "scale"):
        with patched(Derived, name, 5):
            refuses(capture, Derived(), X)


def test_what_an_abstract_class_says_is_guarded() -> None:
    class Abstract(abc.ABC):  # noqa: B024
        pass

    class Concrete:
        pass

    def step(o: Any, x: torch.Tensor) -> Any:
        return x + 1 if isinstance(o, Abstract) else x - 1

    capture = agrees(step, lambda: (Concrete(), X.clone()))
    Abstract.register(Concrete)
    assert "is not a subclass of" in refuses(capture, Concrete(), X)
    agrees(step, lambda: (Concrete(), X.clone()))
