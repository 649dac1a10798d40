"""State behind names: globals, closures, default arguments, functions, caches, the process."""

from __future__ import annotations

import contextvars
import datetime
import functools
import itertools
import logging
import os
import random
import sys
import time
import uuid
import weakref
from collections.abc import Callable
from typing import Any

import torch
from tests.corpora.state_programs import Made, net, program

COUNT = 0
FACTOR = 2.0
FLAG = True
MODE = "double"
DIES = 1
TABLE: dict[str, Any] = {}
NUMBERS = itertools.count(1)
LEVEL: contextvars.ContextVar[int] = contextvars.ContextVar("LEVEL", default=1)


def fresh(forward: Callable[..., Any], look: Callable[[], Any] = lambda: None, **more: Any) -> Made:
    """The module, with the globals of this file as they were."""
    reset()
    return Made(net(forward), look, **more)


def reset() -> None:
    global COUNT, FACTOR, FLAG, MODE, DIES, NUMBERS, helper
    COUNT, FACTOR, FLAG, MODE, DIES = 0, 2.0, True, "double", 1
    NUMBERS = itertools.count(1)
    helper = original_helper
    TABLE.clear()
    LEVEL.set(1)


def original_helper(x: Any) -> Any:
    return x + 1


helper = original_helper

# -- globals --------------------------------------------------------------------------------------


@program()
def global_counter() -> Made:
    def forward(self: Any, x: Any) -> Any:
        global COUNT
        COUNT += 1
        return x * COUNT

    return fresh(forward, lambda: COUNT)


@program()
def global_set_once() -> Made:
    def forward(self: Any, x: Any) -> Any:
        global FLAG
        if FLAG:
            FLAG = False
            return x * 2
        return x * 3

    return fresh(forward, lambda: FLAG)


@program()
def global_deleted() -> Made:
    def forward(self: Any, x: Any) -> Any:
        global DIES
        try:
            del DIES
        except NameError:
            return x * 3
        return x * 2

    return fresh(forward, lambda: "DIES" in globals())


@program()
def global_by_its_dict() -> Made:
    def forward(self: Any, x: Any) -> Any:
        globals()["COUNT"] += 1
        return x * COUNT

    return fresh(forward, lambda: COUNT)


@program()
def global_by_exec() -> Made:
    def forward(self: Any, x: Any) -> Any:
        exec("COUNT = COUNT + 1", globals())
        return x * COUNT

    return fresh(forward, lambda: COUNT)


@program()
def global_by_its_module() -> Made:
    def forward(self: Any, x: Any) -> Any:
        here = sys.modules[__name__]
        here.COUNT += 1  # type: ignore[attr-defined]
        return x * here.COUNT  # type: ignore[attr-defined]

    return fresh(forward, lambda: COUNT)


@program()
def function_of_the_file_replaced() -> Made:
    def forward(self: Any, x: Any) -> Any:
        global helper
        y = helper(x)
        helper = lambda x: x - 1  # noqa: E731
        return y

    return fresh(forward, lambda: helper is original_helper)


@program()
def counter_in_a_global_dict() -> Made:
    def forward(self: Any, x: Any) -> Any:
        TABLE["n"] = TABLE.get("n", 0) + 1
        return x * TABLE["n"]

    return fresh(forward, lambda: TABLE)


@program()
def counter_at_module_level() -> Made:
    def forward(self: Any, x: Any) -> Any:
        return x * next(NUMBERS)

    return fresh(forward, lambda: NUMBERS)


def set_factor(call: int) -> None:
    global FACTOR, FLAG, MODE
    FACTOR, FLAG, MODE = 3.0, False, "other"
    TABLE["n"] = 3


GLOBAL = "the value of a global leaves no trace in the operators"


@program(unseen=GLOBAL, frozen=f"the global {__name__}.FACTOR is 2.0")
def global_number_changed_outside() -> Made:
    return fresh(lambda self, x: x * FACTOR, lambda: FACTOR, between=set_factor)


@program(unseen=GLOBAL, frozen=f"the global {__name__}.FLAG is True")
def global_flag_changed_outside() -> Made:
    return fresh(lambda self, x: x * 2 if FLAG else x + 1, between=set_factor)


@program(unseen=GLOBAL, frozen=f"the global {__name__}.MODE is 'double'")
def global_text_changed_outside() -> Made:
    return fresh(lambda self, x: x * 2 if MODE == "double" else x, between=set_factor)


@program(unseen=GLOBAL, frozen=f"the global {__name__}.TABLE['n'] is 2")
def entry_of_a_global_dict_changed_outside() -> Made:
    made = fresh(lambda self, x: x * TABLE["n"], between=set_factor)
    TABLE["n"] = 2
    return made


@program(unseen=GLOBAL, frozen="get() of the global")
def entry_by_get_changed_outside() -> Made:
    made = fresh(lambda self, x: x * TABLE.get("n", 1), between=set_factor)
    return made


@program(unseen=GLOBAL, frozen="len() of the global")
def length_of_a_global_changed_outside() -> Made:
    return fresh(lambda self, x: x * (1 + len(TABLE)), between=set_factor)


@program(unseen=GLOBAL, frozen="whether there is something in the global")
def emptiness_of_a_global_changed_outside() -> Made:
    return fresh(lambda self, x: x * 2 if TABLE else x * 3, between=set_factor)


@program(unseen=GLOBAL, frozen="whether 'n' is in the global")
def key_of_a_global_added_outside() -> Made:
    return fresh(lambda self, x: x * 2 if "n" in TABLE else x * 3, between=set_factor)


# -- closures, defaults, functions ----------------------------------------------------------------


@program()
def counter_in_a_closure() -> Made:
    n = 0

    def forward(self: Any, x: Any) -> Any:
        nonlocal n
        n += 1
        return x * n

    return fresh(forward, lambda: n)


@program()
def counter_two_functions_up() -> Made:
    n = [0]
    total = 0

    def middle() -> Any:
        def inner() -> int:
            nonlocal total
            total += 2
            n[0] += 1
            return total + n[0]

        return inner

    step = middle()
    return fresh(lambda self, x: x * step(), lambda: (n, total))


@program()
def variable_deleted() -> Made:
    value = 5

    def forward(self: Any, x: Any) -> Any:
        nonlocal value
        try:
            old = value
            del value
        except NameError:
            return x
        return x * old

    return fresh(forward)


@program(unseen="a variable of a closure leaves no trace", frozen="the variable scale around")
def closure_changed_outside() -> Made:
    scale = 2.0

    def change(call: int) -> None:
        nonlocal scale
        scale += 1

    return fresh(lambda self, x: x * scale, lambda: scale, between=change)


@program()
def list_as_default_argument() -> Made:
    def step(x: Any, seen: list[int] = []) -> Any:  # noqa: B006
        seen.append(1)
        return x * len(seen)

    return fresh(lambda self, x: step(x), lambda: step.__defaults__)


@program()
def dict_as_keyword_default() -> Made:
    def step(x: Any, *, seen: dict[str, int] = {}) -> Any:  # noqa: B006
        seen["n"] = seen.get("n", 0) + 1
        return x * seen["n"]

    return fresh(lambda self, x: step(x), lambda: step.__kwdefaults__)


@program()
def default_arguments_replaced() -> Made:
    def step(x: Any, by: int = 1) -> Any:
        return x * by

    def forward(self: Any, x: Any) -> Any:
        y = step(x)
        step.__defaults__ = (step.__defaults__[0] + 1,)  # type: ignore[index]
        return y

    return fresh(forward, lambda: step.__defaults__)


@program()
def attribute_of_a_function() -> Made:
    def step(x: Any) -> Any:
        step.calls += 1  # type: ignore[attr-defined]
        return x * step.calls  # type: ignore[attr-defined]

    step.calls = 0  # type: ignore[attr-defined]
    return fresh(lambda self, x: step(x), lambda: step.calls)  # type: ignore[attr-defined]


@program()
def code_of_a_function_replaced() -> Made:
    def step(x: Any) -> Any:
        return x * 2

    def other(x: Any) -> Any:
        return x * 3

    def forward(self: Any, x: Any) -> Any:
        y = step(x)
        step.__code__ = other.__code__
        return y

    return fresh(forward, lambda: step.__code__ is other.__code__)


@program()
def decorator_that_counts() -> Made:
    calls = []

    def counted(function: Any) -> Any:
        @functools.wraps(function)
        def inner(*args: Any) -> Any:
            calls.append(function.__name__)
            return function(*args) * len(calls)

        return inner

    return fresh(counted(lambda self, x: x + 1), lambda: calls)


@program()
def partial_with_a_list() -> Made:
    def step(seen: list[int], x: Any) -> Any:
        seen.append(1)
        return x * len(seen)

    bound = functools.partial(step, [])
    return fresh(lambda self, x: bound(x), lambda: bound.args)


@program()
def object_that_is_called() -> Made:
    class Scale:
        n = 0

        def __call__(self, x: Any) -> Any:
            self.n += 1
            return x * self.n

    scale = Scale()
    return fresh(lambda self, x: scale(x), lambda: scale.n)


@program(unseen="the registry is held by functions of the standard library")
def registered_with_singledispatch() -> Made:
    @functools.singledispatch
    def factor(value: Any) -> int:
        return 1

    def forward(self: Any, x: Any) -> Any:
        n = factor(2)
        factor.register(int, lambda value: value)
        return x * n

    return fresh(forward, lambda: factor(2))


# -- caches ---------------------------------------------------------------------------------------


@program(runs=True)
def lru_cache_of_a_pure_function() -> Made:
    @functools.lru_cache
    def factor(n: int) -> int:
        return n * 2

    return fresh(lambda self, x: x * factor(3) + factor(3))


@program()
def lru_cache_that_counts() -> Made:
    calls = []

    @functools.lru_cache
    def factor(n: int) -> int:
        calls.append(n)
        return len(calls)

    return fresh(lambda self, x: x * factor(3), lambda: calls)


@program()
def lru_cache_that_forgets() -> Made:
    calls = itertools.count(1)

    @functools.lru_cache(maxsize=1)
    def factor(n: int) -> int:
        return next(calls)

    return fresh(lambda self, x: x * (factor(1) + factor(2)), lambda: calls)


@program()
def lru_cache_with_a_list_inside() -> Made:
    @functools.lru_cache
    def seen() -> list[int]:
        return []

    def forward(self: Any, x: Any) -> Any:
        seen().append(1)
        return x * len(seen())

    return fresh(forward, lambda: len(seen()))


@program()
def lru_cache_of_a_tensor() -> Made:
    @functools.lru_cache
    def mask(n: int) -> torch.Tensor:
        return torch.ones(n, n).tril()

    made = fresh(lambda self, x: mask(3) @ x)
    return Made(made.module, lambda: type(mask(3)).__name__)


@program()
def memo_by_shape() -> Made:
    memo: dict[Any, int] = {}

    def forward(self: Any, x: Any) -> Any:
        if tuple(x.shape) not in memo:
            memo[tuple(x.shape)] = len(memo) + 1
            return x
        return x * memo[tuple(x.shape)] * 5

    return fresh(forward, lambda: len(memo))


@program()
def memo_by_dtype_of_tensors() -> Made:
    memo: dict[Any, torch.Tensor] = {}

    def forward(self: Any, x: Any) -> Any:
        if x.dtype not in memo:
            memo[x.dtype] = x.sum()
        return x * memo[x.dtype]

    return fresh(forward, lambda: len(memo))


@program()
def memo_by_id() -> Made:
    memo: dict[int, int] = {}

    def forward(self: Any, x: Any) -> Any:
        memo[id(self)] = memo.get(id(self), 0) + 1
        return x * memo[id(self)]

    return fresh(forward, lambda: list(memo.values()))


@program()
def memo_by_weak_key() -> Made:
    memo: Any = weakref.WeakKeyDictionary()

    def forward(self: Any, x: Any) -> Any:
        memo[self] = memo.get(self, 0) + 1
        return x * memo[self]

    return fresh(forward, lambda: list(memo.values()))


@program()
def weak_set_grows() -> Made:
    seen: Any = weakref.WeakSet()

    class Token:
        pass

    kept: list[Token] = []

    def forward(self: Any, x: Any) -> Any:
        kept.append(Token())
        seen.add(kept[-1])
        return x * len(seen)

    return fresh(forward, lambda: len(seen))


@program()
def callback_of_a_weak_reference() -> Made:
    died: list[int] = []

    class Token:
        pass

    def forward(self: Any, x: Any) -> Any:
        token = Token()
        watched = weakref.ref(token, lambda _: died.append(1))
        del token
        return x * len(died) if watched() is None else x

    return fresh(forward, lambda: died)


@program()
def finalizer_that_counts() -> Made:
    died: list[int] = []

    class Token:
        def __del__(self) -> None:
            died.append(1)

    def forward(self: Any, x: Any) -> Any:
        Token()
        return x * (1 + len(died))

    return fresh(forward, lambda: died)


# -- context variables, logging -------------------------------------------------------------------


@program()
def context_variable_set() -> Made:
    def forward(self: Any, x: Any) -> Any:
        LEVEL.set(LEVEL.get() + 1)
        return x * LEVEL.get()

    return fresh(forward, LEVEL.get)


@program(runs=True)
def context_variable_set_and_reset() -> Made:
    def forward(self: Any, x: Any) -> Any:
        token = LEVEL.set(5)
        y = x * LEVEL.get()
        LEVEL.reset(token)
        return y

    return fresh(forward, LEVEL.get)


@program(unseen=GLOBAL, frozen="get() of the global")
def context_variable_changed_outside() -> Made:
    return fresh(lambda self, x: x * LEVEL.get(), between=lambda call: LEVEL.set(call + 5))


@program()
def log_records_counted() -> Made:
    records: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record.getMessage())

    logger = logging.Logger("state programs")
    logger.addHandler(Keep())

    def forward(self: Any, x: Any) -> Any:
        logger.warning("called")
        return x * len(records)

    return fresh(forward, lambda: records)


# -- the process ----------------------------------------------------------------------------------

CLOCK = "a number that Python made is an ordinary constant"


@program(unseen=CLOCK)
def wall_clock() -> Made:
    return fresh(lambda self, x: x * (time.time_ns() % 997))


@program(unseen=CLOCK)
def clock_imported_by_name() -> Made:
    from time import perf_counter_ns

    return fresh(lambda self, x: x * (perf_counter_ns() % 1000))


@program(unseen=CLOCK)
def date_of_today() -> Made:
    return fresh(lambda self, x: x * datetime.datetime.now().microsecond)


@program(unseen=CLOCK)
def random_bytes_of_the_system() -> Made:
    return fresh(lambda self, x: x * os.urandom(2)[0] + os.urandom(2)[1])


@program(unseen=CLOCK)
def unique_names() -> Made:
    return fresh(lambda self, x: x * (uuid.uuid4().int % 1000))


@program()
def random_of_python() -> Made:
    return fresh(lambda self, x: x * random.random())


@program()
def random_order_of_a_new_list() -> Made:
    def forward(self: Any, x: Any) -> Any:
        order = [1, 2, 3, 4]
        random.shuffle(order)
        return x * torch.tensor(order)

    return fresh(forward)


@program()
def generator_of_random_numbers() -> Made:
    source = random.Random(0)
    return fresh(lambda self, x: x * source.random(), lambda: source.getstate())


def set_variable(call: int) -> None:
    os.environ["STATE_PROGRAMS"] = "3"


@program(unseen=GLOBAL, frozen="environment")
def environment_read() -> Made:
    os.environ["STATE_PROGRAMS"] = "2"
    return fresh(
        lambda self, x: x * int(os.environ["STATE_PROGRAMS"]),
        between=set_variable,
        done=lambda: os.environ.pop("STATE_PROGRAMS"),
    )


@program(unseen=GLOBAL, frozen="environment")
def environment_read_by_getenv() -> Made:
    os.environ.pop("STATE_PROGRAMS", None)
    return fresh(
        lambda self, x: x * int(os.getenv("STATE_PROGRAMS", "1")),
        between=set_variable,
        done=lambda: os.environ.pop("STATE_PROGRAMS", None),
    )


@program(unseen="plain tracing does not look at the environment")
def environment_written() -> Made:
    os.environ["STATE_PROGRAMS"] = "1"

    def forward(self: Any, x: Any) -> Any:
        n = int(os.environ["STATE_PROGRAMS"])
        os.environ["STATE_PROGRAMS"] = str(n + 1)
        return x * n

    return fresh(
        forward,
        lambda: os.environ["STATE_PROGRAMS"],
        done=lambda: os.environ.pop("STATE_PROGRAMS"),
    )


@program(unseen="lists of Python's own modules are not compared")
def path_of_imports_grows() -> Made:
    before = list(sys.path)

    def forward(self: Any, x: Any) -> Any:
        sys.path.append("/nowhere")
        return x * sys.path.count("/nowhere")

    def done() -> None:
        sys.path[:] = before

    return fresh(forward, lambda: sys.path.count("/nowhere"), done=done)
