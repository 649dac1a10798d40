"""What is new in Python 3.13."""


def case_static_attributes():
    class A:
        def f(self):
            self.x = 1

    return A.__static_attributes__


def case_replace():
    import copy
    from dataclasses import dataclass

    @dataclass
    class P:
        x: int

    return copy.replace(P(1), x=2)


def case_locals_in_comprehension():
    x = 1
    return [sorted(locals()) for y in (2,)], x


def case_closure_with_defaults_and_annotations():
    k = 1

    def f(a: int = 2, *, b: str = "x") -> None:
        return a, b, k

    return f(), f.__defaults__, f.__kwdefaults__, f.__annotations__
