"""Classes: methods, descriptors, special methods, inheritance, metaclasses."""


def case_simple():
    class Point:
        """A point."""

        origin = 0

        def __init__(self, x, y):
            self.x, self.y = x, y

        def norm(self):
            return (self.x**2 + self.y**2) ** 0.5

    p = Point(3, 4)
    return p.norm(), Point.__doc__, Point.origin, p.__dict__, Point.__name__, Point.__qualname__


def case_class_attribute_shared():
    class A:
        items = []

        def add(self, x):
            self.items.append(x)

    a, b = A(), A()
    a.add(1)
    b.add(2)
    a.items = "own"
    return A.items, b.items, a.items


def case_inheritance():
    class A:
        def f(self):
            return "A"

        def g(self):
            return self.f()

    class B(A):
        def f(self):
            return "B" + super().f()

    return B().g(), isinstance(B(), A), B.__mro__[1] is A, B.__bases__ == (A,)


def case_diamond():
    class A:
        def f(self):
            return ["A"]

    class B(A):
        def f(self):
            return ["B", *super().f()]

    class C(A):
        def f(self):
            return ["C", *super().f()]

    class D(B, C):
        def f(self):
            return ["D", *super().f()]

    return D().f(), [c.__name__ for c in D.mro()]


def case_super_with_arguments():
    class A:
        def f(self):
            return "A"

    class B(A):
        def f(self):
            return super(B, self).f() + "B"

        @classmethod
        def make(cls):
            return super().__new__(cls)

    return B().f(), type(B.make()).__name__


def case_super_in_nested_function():
    class A:
        def f(self):
            return 1

    class B(A):
        def f(self):
            def inner():
                return super(B, self).f()

            return inner() + 1

    return B().f()


def case_super_without_class():
    def f(self):
        return super().x

    f(1)


def case_super_attribute_missing():
    class A:
        def f(self):
            return super().nope

    A().f()


def case_class_cell():
    class A:
        def me(self):
            return __class__

    class B(A):
        pass

    return B().me() is A


def case_inconsistent_mro():
    class A:
        pass

    class B(A):
        pass

    class C(A, B):
        pass


def case_classmethod_staticmethod():
    class A:
        name = "A"

        @classmethod
        def c(cls, x):
            return cls.name, x

        @staticmethod
        def s(x):
            return x * 2

    class B(A):
        name = "B"

    return A.c(1), B().c(2), A.s(3), B().s(4)


def case_property():
    class T:
        def __init__(self):
            self._c = 0

        @property
        def c(self):
            "temperature"
            return self._c

        @c.setter
        def c(self, value):
            if value < -273:
                raise ValueError("cold")
            self._c = value

        @c.deleter
        def c(self):
            self._c = None

    t = T()
    t.c = 10
    t.c += 5
    first = t.c
    del t.c
    return first, t.c, T.c.__doc__


def case_property_read_only():
    class A:
        @property
        def x(self):
            return 1

    A().x = 2


def case_property_error():
    class A:
        @property
        def x(self):
            return self.missing

    A().x


def case_property_error_falls_back():
    class A:
        @property
        def x(self):
            raise AttributeError("inside")

        def __getattr__(self, name):
            return "fallback " + name

    return A().x


def case_property_inherited():
    class A:
        @property
        def x(self):
            return 1

    class B(A):
        @property
        def x(self):
            return super().x + 1

    return B().x


def case_getattr():
    class A:
        def __init__(self):
            self.real = 1

        def __getattr__(self, name):
            if name.startswith("get_"):
                return lambda: name[4:]
            raise AttributeError(name)

    a = A()
    return a.real, a.get_x(), hasattr(a, "nope"), getattr(a, "nope", 0)


def case_getattribute():
    class A:
        x = 1

        def __getattribute__(self, name):
            if name == "secret":
                return "hidden"
            return super().__getattribute__(name)

    a = A()
    return a.x, a.secret, hasattr(a, "nope")


def case_getattribute_and_getattr():
    class A:
        def __getattribute__(self, name):
            return object.__getattribute__(self, name)

        def __getattr__(self, name):
            return "default"

    return A().anything


def case_setattr():
    class A:
        def __setattr__(self, name, value):
            super().__setattr__(name, value * 2)

        def __delattr__(self, name):
            object.__setattr__(self, "deleted", name)

    a = A()
    a.x = 5
    del a.x
    return a.x, a.deleted


def case_frozen_object():
    class A:
        __slots__ = ("x",)

        def __init__(self):
            object.__setattr__(self, "x", 1)

        def __setattr__(self, name, value):
            raise AttributeError("frozen")

    A().x = 2


def case_slots():
    class A:
        __slots__ = ("a", "b")

    a = A()
    a.a = 1
    try:
        a.c = 2
    except AttributeError as e:
        return a.a, hasattr(a, "b"), str(e)


def case_data_descriptor():
    class Typed:
        def __init__(self, kind):
            self.kind = kind

        def __set_name__(self, owner, name):
            self.name = "_" + name

        def __get__(self, obj, cls):
            return self if obj is None else getattr(obj, self.name)

        def __set__(self, obj, value):
            if not isinstance(value, self.kind):
                raise TypeError(f"{self.name} must be {self.kind.__name__}")
            setattr(obj, self.name, value)

    class P:
        x = Typed(int)
        y = Typed(str)

        def __init__(self, x, y):
            self.x, self.y = x, y

    p = P(1, "a")
    out = [p.x, p.y, sorted(p.__dict__), type(P.x).__name__]
    try:
        p.x = "no"
    except TypeError as e:
        out.append(str(e))
    return out


def case_non_data_descriptor():
    class Lazy:
        def __init__(self, f):
            self.f = f

        def __get__(self, obj, cls):
            if obj is None:
                return self
            value = obj.__dict__[self.f.__name__] = self.f(obj)
            return value

    class A:
        calls = 0

        @Lazy
        def x(self):
            A.calls += 1
            return 5

    a = A()
    return a.x, a.x, A.calls


def case_descriptor_delete():
    log = []

    class D:
        def __delete__(self, obj):
            log.append("deleted")

    class A:
        d = D()

    del A().d
    return log


def case_method_descriptor_on_class():
    class D:
        def __get__(self, obj, cls):
            return (obj is None, cls.__name__)

    class A:
        d = D()

    class B(A):
        pass

    return A.d, A().d, B.d


def case_arithmetic():
    class V:
        def __init__(self, x):
            self.x = x

        def __add__(self, o):
            return V(self.x + (o.x if isinstance(o, V) else o))

        __radd__ = __add__

        def __sub__(self, o):
            return V(self.x - o.x)

        def __mul__(self, k):
            return V(self.x * k)

        def __rmul__(self, k):
            return V(k * self.x)

        def __neg__(self):
            return V(-self.x)

        def __abs__(self):
            return abs(self.x)

        def __pow__(self, n, mod=None):
            return V(self.x**n if mod is None else pow(self.x, n, mod))

        def __matmul__(self, o):
            return self.x * o.x

        def __floordiv__(self, o):
            return self.x // o

        def __divmod__(self, o):
            return "divmod"

        def __round__(self, n=0):
            return round(self.x, n)

        def __invert__(self):
            return ~self.x

        def __pos__(self):
            return self

        def __repr__(self):
            return f"V({self.x})"

    a, b = V(3), V(4)
    return (
        a + b, 1 + a, a - b, a * 2, 2 * a, -a, abs(-a), a**2, pow(a, 3, 5), a @ b, a // 2,
        divmod(a, 1), round(V(2.567), 1), ~a, +a, sum([a, b]), sum([a], V(1)),
    )  # fmt: skip


def case_in_place():
    class A:
        def __init__(self):
            self.log = []

        def __iadd__(self, o):
            self.log.append(o)
            return self

        def __imul__(self, o):
            return NotImplemented

        def __mul__(self, o):
            return "mul"

    a = A()
    b = a
    a += 1
    a += [2]
    same = a is b
    a *= 3
    return same, b.log, a


def case_not_implemented():
    class A:
        def __add__(self, o):
            return NotImplemented

    class B:
        def __radd__(self, o):
            return "B"

    out = [A() + B()]
    try:
        A() + 1
    except TypeError as e:
        out.append(str(e))
    try:
        A() + A()
    except TypeError as e:
        out.append(str(e))
    return out


def case_reflected_of_subclass_first():
    class A:
        def __add__(self, o):
            return "A.add"

    class B(A):
        def __radd__(self, o):
            return "B.radd"

    class C(A):
        pass

    return A() + B(), A() + C(), B() + A()


def case_list_plus_object():
    class A:
        def __radd__(self, o):
            return ("radd", o)

        def __rmul__(self, o):
            return ("rmul", o)

    return [1] + A(), "a" + A(), 3 * A(), (1,) * A()


def case_unsupported_operands():
    class A:
        def __mul__(self, o):
            return NotImplemented

    return A() * 2


def case_comparison():
    class V:
        def __init__(self, x):
            self.x = x

        def __eq__(self, o):
            return isinstance(o, V) and self.x == o.x

        def __lt__(self, o):
            return self.x < o.x

        def __hash__(self):
            return hash(self.x)

        def __repr__(self):
            return f"V{self.x}"

    a, b, c = V(1), V(2), V(1)
    return (
        a == c, a != c, a < b, b > a, a == 1, a != 1, sorted([b, a]), min(b, a), max([a, b]),
        {a: 1}[c], len({a, b, c}), [a, b].index(c), c in [b, a], [b, a, c].count(a),
    )  # fmt: skip


def case_comparison_unsupported():
    class A:
        pass

    return A() < A()


def case_comparison_reflected():
    class A:
        def __lt__(self, o):
            return NotImplemented

        def __gt__(self, o):
            return "gt"

    return A() < A(), A() > A()


def case_equality_not_implemented():
    class A:
        def __eq__(self, o):
            return NotImplemented

    a = A()
    return a == a, a == A(), a != a


def case_comparison_not_bool():
    class A:
        def __eq__(self, o):
            return "equal"

        def __le__(self, o):
            return []

    return A() == 1, A() != 1, A() <= 2, bool(A() <= 2)


def case_unhashable():
    class A:
        def __eq__(self, o):
            return True

    return {A(): 1}


def case_truth():
    class B:
        def __init__(self, x):
            self.x = x

        def __bool__(self):
            return self.x

    class L:
        def __len__(self):
            return 0

    return (
        bool(B(True)), bool(B(False)), bool(L()), not B(False), "y" if L() else "n",
        B(False) or "other", any([B(False), L()]), list(filter(None, [B(True)]))[0].x,
    )  # fmt: skip


def case_bad_truth():
    class B:
        def __bool__(self):
            return 5

    if B():
        pass


def case_bad_length():
    class B:
        def __len__(self):
            return -1

    return len(B())


def case_container():
    class C:
        def __init__(self):
            self.d = {}

        def __getitem__(self, k):
            return self.d[k]

        def __setitem__(self, k, v):
            self.d[k] = v

        def __delitem__(self, k):
            del self.d[k]

        def __len__(self):
            return len(self.d)

        def __contains__(self, k):
            return k in self.d

        def __iter__(self):
            return iter(self.d)

    c = C()
    c["a"] = 1
    c[1, 2] = 3
    c["a"] += 10
    del c[1, 2]
    return c["a"], len(c), "a" in c, list(c), "z" not in c, bool(c)


def case_slicing_object():
    class S:
        def __getitem__(self, k):
            return k

    s = S()
    return s[1], s[1:2], s[::3], s[1:2, ...], s[:, 0]


def case_text():
    class A:
        def __repr__(self):
            return "A!"

    class B(A):
        def __str__(self):
            return "B?"

        def __format__(self, spec):
            return f"<{spec}>"

    a, b = A(), B()
    return (
        repr(a), str(a), str(b), repr(b), f"{a} {b} {b:x} {b!r} {b!s:>4}", format(b, "q"),
        "%s %r" % (b, b), "{} {:z} {!r}".format(a, b, b), [a], {1: b}, (b,), str([a, [b]]),
    )  # fmt: skip


def case_bad_repr():
    class A:
        def __repr__(self):
            return 5

    return repr(A())


def case_format_spec_of_plain_object():
    return format(object(), "x")


def case_numeric_conversion():
    class N:
        def __int__(self):
            return 7

        def __float__(self):
            return 7.5

        def __index__(self):
            return 2

        def __complex__(self):
            return 1j

    n = N()
    return int(n), float(n), [10, 20, 30][n], complex(n), hex(n), range(5)[n], "ab" * n


def case_call():
    class A:
        def __call__(self, *args, **kwargs):
            return args, kwargs

    return A()(1, x=2)


def case_new():
    class One:
        instance = None

        def __new__(cls, *args):
            if cls.instance is None:
                cls.instance = super().__new__(cls)
            return cls.instance

        def __init__(self, x):
            self.x = x

    a, b = One(1), One(2)
    return a is b, a.x


def case_new_returns_other():
    class A:
        def __new__(cls):
            return 5

        def __init__(self):
            raise ValueError("never")

    return A()


def case_init_returns():
    class A:
        def __init__(self):
            return 1

    A()


def case_init_arguments():
    class A:
        def __init__(self, x, *, y):
            pass

    A(1)


def case_no_init_with_arguments():
    class A:
        pass

    A(1)


def case_int_subclass():
    class I(int):
        def __new__(cls, x):
            return super().__new__(cls, x * 2)

        def __add__(self, o):
            return I(int(self) + o)

    return I(3), I(3) + 1, type(I(1) + 1).__name__, I(2) * 2


def case_str_subclass():
    class S(str):
        def shout(self):
            return self.upper() + "!"

    return S("a").shout(), S("b") + "c", type(S("x")).__name__, S("x") == "x"


def case_list_subclass():
    class L(list):
        def __init__(self, *a):
            super().__init__(*a)
            self.extra = 1

        def append(self, x):
            super().append(x * 2)

        def __getitem__(self, i):
            return super().__getitem__(i) if i != "all" else list(self)

    a = L([1])
    a.append(2)
    return a, a[1], a["all"], len(a), a.extra, a == [1, 4]


def case_dict_subclass():
    class D(dict):
        def __missing__(self, k):
            self[k] = k * 2
            return self[k]

        def __setitem__(self, k, v):
            super().__setitem__(k, v + "!")

    d = D(a="x")
    d["b"] = "y"
    return d["c"], d, d.get("z"), {**d}


def case_tuple_subclass():
    class P(tuple):
        def __new__(cls, x, y):
            return super().__new__(cls, (x, y))

        @property
        def x(self):
            return self[0]

    return P(1, 2).x, P(1, 2), len(P(1, 2))


def case_class_body_scope():
    x = "function"

    class A:
        x = "class"
        y = x
        z = [x for _ in range(1)]

        def f(self):
            return x

    return A.y, A.z, A().f()


def case_class_body_reads_closure():
    def f(n):
        class A:
            value = n

        n += 1
        return A.value, n

    return f(1)


def case_class_body_code():
    class A:
        for i in range(3):
            exec(f"v{i} = {i}")
        if i > 1:
            w = "yes"
        del i

    return A.v2, A.w, hasattr(A, "i")


def case_name_mangling():
    class A:
        def __init__(self):
            self.__x = 1

        def get(self):
            return self.__x

    return A().get(), sorted(A().__dict__)


def case_nested_classes():
    class A:
        class B:
            x = 1

            class C:
                y = 2

    return A.B.x, A.B.C.y, A.B.C.__qualname__


def case_class_decorator():
    def add(cls):
        cls.added = lambda self: "added"
        return cls

    @add
    class A:
        pass

    return A().added()


def case_type_call():
    A = type("A", (), {"x": 1, "f": lambda self: self.x})
    B = type("B", (A,), {"x": 2})
    return A().f(), B().f(), B.__name__, type(A)


def case_metaclass():
    class M(type):
        def __new__(m, name, bases, names, **kw):
            names["made_by"] = m.__name__
            return super().__new__(m, name, bases, names)

        def __init__(cls, name, bases, names, **kw):
            super().__init__(name, bases, names)
            cls.kw = kw

        def __call__(cls, *args):
            made = super().__call__(*args)
            made.called = True
            return made

        @property
        def size(cls):
            return len(cls.__name__)

        def __len__(cls):
            return 42

        def __getitem__(cls, k):
            return (cls.__name__, k)

        def __iter__(cls):
            return iter("meta")

        def __contains__(cls, k):
            return k == "in"

        def __getattr__(cls, name):
            return "meta " + name

    class A(metaclass=M, tag=1):
        def __init__(self, x):
            self.x = x

    class B(A):
        pass

    return (
        A.made_by, A.kw, A(1).called, A(2).x, B.size, len(B), A["k"], list(A), "in" in B,
        A.unknown, type(B).__name__,
    )  # fmt: skip


def case_metaclass_prepare():
    class Names(dict):
        def __setitem__(self, k, v):
            super().__setitem__(k, v)
            self.setdefault("order", []).append(k) if k != "order" else None

    class M(type):
        @classmethod
        def __prepare__(m, name, bases):
            return Names()

        def __new__(m, name, bases, names):
            return super().__new__(m, name, bases, dict(names))

    class A(metaclass=M):
        b = 1
        a = 2

    return [n for n in A.order if not n.startswith("__")]


def case_metaclass_conflict():
    class M(type):
        pass

    class N(type):
        pass

    class A(metaclass=M):
        pass

    class B(metaclass=N):
        pass

    class C(A, B):
        pass


def case_metaclass_function():
    def meta(name, bases, names):
        return name, bases, sorted(n for n in names if not n.startswith("__"))

    class A(metaclass=meta):
        x = 1

    return A


def case_init_subclass():
    class Base:
        registry = []

        def __init_subclass__(cls, tag=None, **kw):
            super().__init_subclass__(**kw)
            cls.registry.append((cls.__name__, tag))

    class A(Base, tag="a"):
        pass

    class B(A):
        pass

    return Base.registry


def case_set_name_order():
    log = []

    class D:
        def __set_name__(self, owner, name):
            log.append((owner.__name__, name, type(owner.__dict__["b"]).__name__))

    class A:
        a = D()
        b = D()

    return log


def case_class_getitem():
    class A:
        def __class_getitem__(cls, item):
            return f"{cls.__name__}[{item}]"

    return A[5], A["x"]


def case_mro_entries():
    class Fake:
        def __mro_entries__(self, bases):
            return (dict,)

    class A(Fake()):
        pass

    return A.__mro__[1], len(A.__orig_bases__)


def case_instancecheck():
    class M(type):
        def __instancecheck__(cls, x):
            return x == 5

        def __subclasscheck__(cls, c):
            return c is int

    class A(metaclass=M):
        pass

    return isinstance(5, A), isinstance(6, A), issubclass(int, A), isinstance(5, (str, A))


def case_abc():
    from abc import ABC, abstractmethod

    class Shape(ABC):
        @abstractmethod
        def area(self): ...

        @property
        @abstractmethod
        def name(self): ...

    class Square(Shape):
        def __init__(self, s):
            self.s = s

        def area(self):
            return self.s**2

        @property
        def name(self):
            return "square"

    out = [Square(3).area(), Square(1).name, isinstance(Square(1), Shape)]
    try:
        Shape()
    except TypeError as e:
        out.append(type(e).__name__)
    return out


def case_abc_register():
    from abc import ABC
    from collections.abc import Iterable, Mapping, Sized

    class A(ABC):
        pass

    A.register(int)

    class S:
        def __len__(self):
            return 1

    return (
        isinstance(5, A),
        issubclass(int, A),
        isinstance(S(), Sized),
        isinstance([], Iterable),
        isinstance({}, Mapping),
    )


def case_mapping_mixin():
    from collections.abc import MutableMapping

    class Lower(MutableMapping):
        def __init__(self, *a, **k):
            self.d = {}
            self.update(*a, **k)

        def __getitem__(self, k):
            return self.d[k.lower()]

        def __setitem__(self, k, v):
            self.d[k.lower()] = v

        def __delitem__(self, k):
            del self.d[k.lower()]

        def __iter__(self):
            return iter(self.d)

        def __len__(self):
            return len(self.d)

    m = Lower({"A": 1}, B=2)
    return (
        m["a"],
        "b" in m,
        sorted(m.items()),
        m.pop("A"),
        dict(m),
        m.get("x", 0),
        m == {"b": 2},
        {**m},
    )


def case_sequence_mixin():
    from collections.abc import Sequence

    class S(Sequence):
        def __len__(self):
            return 3

        def __getitem__(self, i):
            if i >= 3:
                raise IndexError
            return i * 10

    s = S()
    return list(s), 20 in s, s.index(20), s.count(10), list(reversed(s))


def case_protocol():
    from typing import Protocol, runtime_checkable

    @runtime_checkable
    class Named(Protocol):
        def name(self): ...

    class A:
        def name(self):
            return "a"

    return isinstance(A(), Named), isinstance(5, Named)


def case_copy():
    import copy

    class A:
        def __init__(self, x):
            self.x = x

        def __deepcopy__(self, memo):
            return A("deep")

        def __copy__(self):
            return A("shallow")

    return copy.copy(A(1)).x, copy.deepcopy(A(1)).x, copy.deepcopy([1, [2]]), copy.copy({"a": []})


def case_class_attributes_changed():
    class A:
        x = 1

    a = A()
    A.x = 2
    A.f = lambda self: self.x
    out = [a.x, a.f()]
    del A.f
    return out, hasattr(a, "f")


def case_dunder_class():
    class A:
        pass

    class B:
        def hello(self):
            return "B"

    a = A()
    a.__class__ = B
    return a.hello(), type(a) is B


def case_del_attribute():
    class A:
        pass

    a = A()
    a.x = 1
    del a.x
    a.x


def case_vars_and_dir():
    class A:
        y = 1

        def __init__(self):
            self.x = 1

    return vars(A()), [n for n in dir(A()) if not n.startswith("_")]


def case_linked_list():
    class Node:
        def __init__(self, value, rest=None):
            self.value, self.rest = value, rest

        def __iter__(self):
            node = self
            while node is not None:
                yield node.value
                node = node.rest

    return list(Node(1, Node(2, Node(3))))


def case_stack_and_queue():
    class Stack:
        def __init__(self):
            self._items = []

        def push(self, x):
            self._items.append(x)
            return self

        def pop(self):
            if not self._items:
                raise IndexError("empty")
            return self._items.pop()

    return Stack().push(1).push(2).pop()


def case_binary_tree():
    class Tree:
        def __init__(self, v):
            self.v, self.l, self.r = v, None, None

        def insert(self, v):
            side = "l" if v < self.v else "r"
            child = getattr(self, side)
            if child is None:
                setattr(self, side, Tree(v))
            else:
                child.insert(v)

        def __iter__(self):
            if self.l:
                yield from self.l
            yield self.v
            if self.r:
                yield from self.r

    t = Tree(5)
    for v in (2, 8, 1, 9):
        t.insert(v)
    return list(t), 8 in t


def case_visitor():
    class Visitor:
        def visit(self, node):
            return getattr(self, "visit_" + type(node).__name__, self.other)(node)

        def visit_int(self, n):
            return n * 2

        def visit_list(self, n):
            return [self.visit(x) for x in n]

        def other(self, n):
            return "?"

    return Visitor().visit([1, [2, "a"]])


def case_fluent_builder():
    class Q:
        def __init__(self, parts=()):
            self.parts = parts

        def __getattr__(self, name):
            return lambda x: Q((*self.parts, f"{name} {x}"))

        def __str__(self):
            return " ".join(self.parts)

    return str(Q().select("a").where("b"))


def case_context_of_methods():
    class A:
        def __init__(self):
            self.hooks = []

        def on(self, f):
            self.hooks.append(f)
            return f

        def fire(self, *a):
            return [h(*a) for h in self.hooks]

    a = A()

    @a.on
    def first(x):
        return x + 1

    a.on(lambda x: x * 10)
    return a.fire(3)


def case_weak_reference():
    import weakref

    class A:
        pass

    a = A()
    r = weakref.ref(a)
    alive = r() is a
    del a
    return alive, r()


def case_hash_used_by_dict():
    class K:
        def __init__(self, k):
            self.k = k

        def __hash__(self):
            return hash(self.k)

        def __eq__(self, o):
            return self.k == o.k

    d = {K("a"): 1}
    d[K("a")] += 1
    return d[K("a")], K("b") in d, hash(K("a")) == hash("a")
