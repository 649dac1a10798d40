"""Match statements."""

from collections import OrderedDict, defaultdict, namedtuple
from dataclasses import dataclass
from enum import Enum


@dataclass
class Point:
    x: int
    y: int


class Color(Enum):
    RED = 1
    BLUE = 2


def case_literals():
    def f(x):
        match x:
            case 1:
                return "one"
            case "a" | "b":
                return "letter"
            case None:
                return "none"
            case True:
                return "true"
            case -1.5:
                return "float"
            case _:
                return "other"

    return [f(x) for x in (1, "a", "b", None, True, -1.5, [])]


def case_sequences():
    def f(x):
        match x:
            case []:
                return "empty"
            case [a]:
                return ("one", a)
            case [a, b]:
                return ("two", a, b)
            case [first, *rest]:
                return (first, rest)

    return [f(x) for x in ([], [1], (1, 2), range(4), "ab", {1, 2})]


def case_star_in_the_middle():
    match [1, 2, 3, 4]:
        case [a, *_, b]:
            return a, b


def case_mappings():
    def f(x):
        match x:
            case {"kind": "circle", "r": r}:
                return ("circle", r)
            case {"kind": kind, **rest}:
                return (kind, rest)
            case {}:
                return "mapping"
            case _:
                return "no"

    return [
        f({"kind": "circle", "r": 1}), f({"kind": "box", "w": 2}), f({"z": 1}), f([1]),
        f(OrderedDict(kind="o")),
    ]  # fmt: skip


def case_default_dict_is_not_filled():
    d = defaultdict(int)
    match d:
        case {"missing": _}:
            return "matched"
    return dict(d)


def case_classes():
    def f(x):
        match x:
            case Point(0, 0):
                return "origin"
            case Point(x=0, y=y):
                return ("y axis", y)
            case Point(x, y) if x == y:
                return ("diagonal", x)
            case Point():
                return "point"
            case int(n) | float(n):
                return ("number", n)
            case str():
                return "text"

    return [f(v) for v in (Point(0, 0), Point(0, 2), Point(3, 3), Point(1, 2), 5, 1.5, "s", [])]


def case_values():
    def f(x):
        match x:
            case Color.RED:
                return "red"
            case Color.BLUE:
                return "blue"

    return f(Color.RED), f(Color.BLUE), f(1)


def case_capture_as():
    match {"a": [1, (2, 3)]}:
        case {"a": [x, (y, z) as pair]} as whole:
            return x, y, z, pair, whole


def case_guard():
    def f(x):
        match x:
            case n if n < 0:
                return "negative"
            case n if n > 100:
                return "big"
            case n:
                return n

    return f(-1), f(500), f(7)


def case_nested():
    command = ["go", {"to": ("north", 2)}]
    match command:
        case ["go", {"to": (direction, int(n))}]:
            return direction, n


def case_named_tuple():
    P = namedtuple("P", "a b")
    match P(1, 2):
        case P(a=1, b=b):
            return b


def case_match_args():
    class C:
        __match_args__ = ("left", "right")

        def __init__(self):
            self.left, self.right = 1, 2

    match C():
        case C(a, b):
            return a, b


def case_match_args_property():
    class C:
        __match_args__ = ("v",)

        @property
        def v(self):
            return 42

    match C():
        case C(v):
            return v


def case_missing_attribute():
    class C:
        __match_args__ = ("nope",)

    match C():
        case C(x):
            return x
        case _:
            return "no attribute"


def case_too_many_positional():
    match Point(1, 2):
        case Point(1, 2, 3):
            pass


def case_not_a_class():
    f = len
    match 5:
        case f():
            pass


def case_no_match_falls_through():
    match 5:
        case 6:
            return "six"
    return "none"


def case_or_of_patterns():
    def f(x):
        match x:
            case [1, y] | [y, 1]:
                return y
            case Point(x=a) | [a] if a:
                return ("a", a)

    return f([1, 5]), f([6, 1]), f(Point(3, 4)), f([9]), f([0])


def case_interpreter():
    def run(tree):
        match tree:
            case int(n):
                return n
            case ("+", a, b):
                return run(a) + run(b)
            case ("*", a, b):
                return run(a) * run(b)
            case ("-", a):
                return -run(a)
            case unknown:
                raise ValueError(f"unknown {unknown}")

    out = [run(("+", 1, ("*", 2, ("-", 3))))]
    try:
        run(("?",))
    except ValueError as e:
        out.append(str(e))
    return out


def case_subject_evaluated_once():
    calls = []

    def subject():
        calls.append(1)
        return 3

    match subject():
        case 1 | 2:
            pass
        case 3:
            return calls
