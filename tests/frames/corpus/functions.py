"""Functions: arguments, defaults, closures, recursion, decorators."""

import functools

COUNTER = 0


def case_defaults():
    def f(a, b=2, *, c=3):
        return a, b, c

    return f(1), f(1, 5), f(1, c=7), f(a=0, b=1)


def case_positional_only():
    def f(a, /, b, *, c):
        return a, b, c

    return f(1, 2, c=3), f(1, b=2, c=3)


def case_var_arguments():
    def f(*args, **kwargs):
        return args, sorted(kwargs.items())

    return f(), f(1, 2), f(x=1), f(*[1, 2], 3, **{"a": 1}, b=2)


def case_name_of_positional_only_in_kwargs():
    def f(a, /, **kw):
        return a, kw

    return f(1, a=2)


def case_mutable_default():
    def f(x, seen=[]):
        seen.append(x)
        return list(seen)

    return f(1), f(2), f(3, [])


def case_keyword_only_without_default():
    def f(*, a, b=2):
        return a, b

    return f(a=1)


def case_missing_arguments():
    def f(a, b, c):
        return a

    f(1)


def case_missing_keyword_only():
    def f(*, a, b):
        return a

    f(b=1)


def case_too_many_arguments():
    def f(a, b=1):
        return a

    f(1, 2, 3)


def case_unexpected_keyword():
    def f(a):
        return a

    f(1, nope=2)


def case_closure_reads():
    x = 1

    def f():
        return x

    x = 2
    return f()


def case_closure_counter():
    def make():
        n = 0

        def step():
            nonlocal n
            n += 1
            return n

        return step

    a, b = make(), make()
    return a(), a(), b(), a()


def case_closure_of_argument():
    def add(n):
        return lambda x: x + n

    return add(3)(4), [f(1) for f in map(add, range(3))]


def case_nested_nonlocal():
    def outer():
        x = 0

        def middle():
            nonlocal x

            def inner():
                nonlocal x
                x += 10

            inner()
            x += 1

        middle()
        return x

    return outer()


def case_closure_unbound():
    def f():
        return late

    f()
    late = 1
    return late


def case_closure_delete():
    x = 1

    def f():
        return x

    del x
    f()


def case_global_write():
    global COUNTER
    COUNTER = 5
    COUNTER += 1
    value = COUNTER
    COUNTER = 0
    return value


def case_global_delete():
    global TEMPORARY
    TEMPORARY = 1
    del TEMPORARY
    return TEMPORARY


def case_unbound_local():
    if COUNTER:
        x = 1
    return x


def case_unbound_after_del():
    x = 1
    del x
    return x


def case_recursion():
    def fact(n):
        return 1 if n < 2 else n * fact(n - 1)

    return fact(20)


def case_mutual_recursion():
    def even(n):
        return n == 0 or odd(n - 1)

    def odd(n):
        return n != 0 and even(n - 1)

    return even(50), odd(51)


def case_deep_recursion():
    def down(n):
        return 0 if n == 0 else 1 + down(n - 1)

    return down(500)


def case_endless_recursion():
    def f():
        return f()

    try:
        f()
    except RecursionError as e:
        return type(e).__name__


def case_ackermann():
    def a(m, n):
        if m == 0:
            return n + 1
        return a(m - 1, 1) if n == 0 else a(m - 1, a(m, n - 1))

    return a(2, 3)


def case_hanoi():
    moves = []

    def move(n, a, b, c):
        if n:
            move(n - 1, a, c, b)
            moves.append((a, b))
            move(n - 1, c, b, a)

    move(4, "a", "b", "c")
    return len(moves), moves[:3]


def case_decorator():
    def twice(f):
        def wrapper(*args):
            return f(f(*args))

        return wrapper

    @twice
    def add_one(x):
        return x + 1

    return add_one(1), add_one.__name__


def case_decorator_with_arguments():
    def repeat(n):
        def decorate(f):
            @functools.wraps(f)
            def wrapper(*args, **kwargs):
                return [f(*args, **kwargs) for _ in range(n)]

            return wrapper

        return decorate

    @repeat(3)
    def hello(name):
        """Says hello."""
        return "hello " + name

    return hello("x"), hello.__name__, hello.__doc__, hello.__wrapped__("y")


def case_stacked_decorators():
    def tag(t):
        return lambda f: lambda: f"<{t}>{f()}</{t}>"

    @tag("b")
    @tag("i")
    def text():
        return "x"

    return text()


def case_class_as_decorator():
    class Count:
        def __init__(self, f):
            self.f, self.n = f, 0

        def __call__(self, *args):
            self.n += 1
            return self.f(*args), self.n

    @Count
    def f(x):
        return x * 2

    return f(1), f(2)


def case_function_attributes():
    def f(a: int, b: str = "x") -> bool:
        """doc"""

    f.tag = 1
    return (
        f.__name__, f.__qualname__, f.__doc__, f.__annotations__, f.__defaults__, f.tag,
        f.__module__[:6], f.__code__.co_argcount,
    )  # fmt: skip


def case_lambda_default_binding():
    return [f(10) for f in [lambda x, n=n: x + n for n in range(3)]]


def case_compose():
    def compose(*fs):
        return functools.reduce(lambda f, g: lambda x: f(g(x)), fs, lambda x: x)

    return compose(lambda x: x + 1, lambda x: x * 2)(5)


def case_currying():
    def curry(f):
        n = f.__code__.co_argcount

        def inner(*args):
            return f(*args) if len(args) >= n else lambda *more: inner(*args, *more)

        return inner

    return curry(lambda a, b, c: (a, b, c))(1)(2)(3)


def case_star_assignment():
    a, *b = [1, 2, 3]
    *c, d = "xyz"
    e, *f, g = (1, 2)
    (h, [i, *j]), k = (1, (2, 3, 4)), 5
    return a, b, c, d, e, f, g, h, i, j, k


def case_swap():
    a, b, c = 1, 2, 3
    a, b = b, a
    a, b, c = c, a, b
    return a, b, c


def case_too_few_to_unpack():
    a, b, c = [1, 2]
    return a, b, c


def case_too_many_to_unpack():
    a, b = (x for x in range(3))
    return a, b


def case_too_many_in_list():
    a, b = [1, 2, 3]
    return a, b


def case_too_few_with_star():
    a, b, *c = [1]
    return a, b, c


def case_unpack_number():
    a, b = 5
    return a, b


def case_chained_assignment():
    a = b = c = []
    a.append(1)
    return b is c, c


def case_augmented_assignment():
    x = 5
    x += 1
    x -= 2
    x *= 3
    x //= 2
    x **= 2
    x %= 7
    x <<= 3
    x >>= 1
    x |= 1
    x &= 7
    x ^= 2
    y = 8.0
    y /= 2
    z = [1]
    z += (2,)
    z *= 2
    return x, y, z


def case_augmented_item():
    d = {"a": [1, 2]}
    d["a"][0] += 5
    d["b"] = d.get("b", 0) + 1
    return d


def case_locals():
    a, b = 1, 2

    def f(x):
        y = a
        return sorted(locals().items())

    return sorted(k for k in locals() if k != "f"), f(3), b


def case_globals():
    return "case_globals" in globals(), globals()["COUNTER"]


def case_exec():
    names = {}
    exec("def f(x):\n    return x + 1\ny = f(1)", names)
    return names["y"], names["f"](5)


def case_exec_locals():
    space = {}
    exec("a = 1\nb = a + 1", {}, space)
    return space


def case_eval_closure():
    x = 3
    return eval("x + 1") if x else None


def case_compile_and_eval():
    code = compile("a * 2", "<text>", "eval")
    return eval(code, {"a": 21})


def case_varargs_modified():
    def f(*args, **kwargs):
        args += (1,)
        kwargs["z"] = 1
        return args, kwargs

    given = {"a": 1}
    return f(0, **given), given


def case_callable_object():
    class Adder:
        def __init__(self, n):
            self.n = n

        def __call__(self, x, *, scale=1):
            return (self.n + x) * scale

    add = Adder(3)
    return add(1), add(1, scale=2), list(map(add, [1, 2])), callable(add)


def case_not_callable():
    class A:
        pass

    A()()


def case_bound_method_values():
    class A:
        def m(self, x):
            return x

    a = A()
    m = a.m
    return m(1), A.m(a, 2), m.__self__ is a, m.__func__ is A.m, [m(i) for i in range(2)]


def case_memo_by_hand():
    cache = {}

    def fib(n):
        if n not in cache:
            cache[n] = n if n < 2 else fib(n - 1) + fib(n - 2)
        return cache[n]

    return fib(40)


def case_memo_argument():
    def fib(n, memo={0: 0, 1: 1}):
        if n not in memo:
            memo[n] = fib(n - 1) + fib(n - 2)
        return memo[n]

    return fib(50)


def case_return_in_the_middle():
    def f(x):
        if x > 0:
            return "positive"
        if x < 0:
            return "negative"

    return f(1), f(-1), f(0)


def case_annotations_of_variables():
    x: int = 3
    y: "undefined"
    return x


def case_many_locals():
    names = {}
    exec(
        "def f():\n" + "".join(f"    v{i} = {i}\n" for i in range(300)) + "    return v299 + v0",
        names,
    )
    return names["f"]()


def case_long_jump():
    text = (
        "def f(x):\n    while x:\n        x -= 1\n" + "        x = x + 0\n" * 300 + "    return x"
    )
    names = {}
    exec(text, names)
    return names["f"](3)


def case_many_arguments():
    def f(*args):
        return sum(args)

    return f(*range(1000)), eval("f(" + ",".join(map(str, range(300))) + ")", {"f": f})


def case_pipeline():
    steps = [str.strip, str.title, lambda s: s.replace(" ", "")]
    value = "  hello wide world "
    for step in steps:
        value = step(value)
    return value


def case_callback_registry():
    handlers = {}

    def on(name):
        def register(f):
            handlers.setdefault(name, []).append(f)
            return f

        return register

    @on("a")
    def first(x):
        return x + 1

    @on("a")
    def second(x):
        return x * 2

    return [h(5) for h in handlers["a"]]
