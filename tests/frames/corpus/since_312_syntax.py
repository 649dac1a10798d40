"""Syntax of Python 3.12."""


def case_nested_quotes():
    d = {"a": 1}
    return f"{d["a"]} {f"{1 + 1}"}"


def case_generic_function():
    def first[T](items: list[T]) -> T:
        return items[0]

    return first([1, 2]), [p.__name__ for p in first.__type_params__]


def case_generic_class():
    class Box[T]:
        def __init__(self, value: T):
            self.value = value

        def get(self) -> T:
            return self.value

    return Box[int](5).get(), Box.__type_params__[0].__name__, Box("a").get()


def case_bounded():
    def f[T: int](x: T) -> T:
        return x

    return f(1), f.__type_params__[0].__bound__


def case_constrained():
    class A[T: (int, str)]:
        pass

    return A.__type_params__[0].__constraints__


def case_param_spec():
    def f[**P, *Ts](x):
        return x

    return f(1), [type(p).__name__ for p in f.__type_params__]


def case_type_alias():
    type Pair[T] = tuple[T, T]
    type Number = int | float
    return Pair.__name__, Number.__value__, Pair[int]


def case_inlined_comprehension_keeps_outer():
    x = "outer"
    values = [x for x in range(3)]

    def f():
        return x

    return values, x, f()


def case_inlined_comprehension_error():
    x = "outer"
    try:
        [1 // x for x in (1, 0)]
    except ZeroDivisionError:
        return x


def case_comprehension_in_class():
    class A:
        n = 3
        v = [i for i in range(n)]

    return A.v


def case_batched():
    import itertools

    return list(itertools.batched("abcde", 2))


def case_override():
    from typing import override

    class A:
        @override
        def f(self):
            return 1

    return A().f()
