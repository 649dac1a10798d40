"""State in containers and other objects of C code, and in iterators and generators."""

from __future__ import annotations

import array
import asyncio
import bisect
import collections
import heapq
import io
import itertools
import operator
import queue
import struct
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from tests.corpora.state_programs import Made, net, program
from torch import nn


def holding(value: Any, forward: Any, look: Any = None) -> Made:
    """A module that reads ``value`` as a variable around it: ``forward(x, value)``."""
    return Made(net(lambda self, x: forward(x, value)), lambda: (look or repr)(value))


# -- containers -----------------------------------------------------------------------------------


def grow(x: Any, seen: Any) -> Any:
    seen.append(1)
    return x * len(seen)


@program()
def list_that_grows() -> Made:
    return holding([], grow)


@program()
def list_on_the_module() -> nn.Module:
    return net(lambda self, x: grow(x, self.seen), seen=list)


@program()
def list_in_a_dict_on_the_module() -> nn.Module:
    return net(lambda self, x: grow(x, self.table["a"]["b"]), table=lambda: {"a": {"b": []}})


@program()
def list_rotated() -> Made:
    def forward(x: Any, items: list[int]) -> Any:
        items.append(items.pop(0))
        return x * items[0]

    return holding([1, 2, 3], forward)


@program()
def list_sorted_in_place() -> Made:
    def forward(x: Any, items: list[int]) -> Any:
        y = x * items[0]
        items.sort()
        return y

    return holding([3, 1, 2], forward)


@program()
def slice_of_a_list_replaced() -> Made:
    def forward(x: Any, items: list[int]) -> Any:
        items[:1] = [items[0] + 1, 0]
        return x * len(items) * items[0]

    return holding([1], forward)


@program()
def list_extended_by_an_operator() -> Made:
    def forward(x: Any, items: list[int]) -> Any:
        items += [1]
        return x * len(items)

    return holding([], forward)


@program()
def list_changed_by_functions_of_operator() -> Made:
    def forward(x: Any, items: list[int]) -> Any:
        operator.setitem(items, 0, items[0] + 1)
        operator.iadd(items, [1])
        return x * items[0] * len(items)

    return holding([1], forward)


@program()
def dict_entry_deleted() -> Made:
    def forward(x: Any, table: dict[str, int]) -> Any:
        n = len(table)
        table.popitem() if table else None
        return x * n

    return holding({"a": 1, "b": 2}, forward)


@program()
def default_dict_that_makes_entries() -> Made:
    def forward(x: Any, table: Any) -> Any:
        table[len(table)].append(1)
        return x * len(table)

    return holding(collections.defaultdict(list), forward)


@program()
def ordered_dict_reordered() -> Made:
    def forward(x: Any, table: Any) -> Any:
        first = next(iter(table))
        table.move_to_end(first)
        return x * table[first]

    return holding(collections.OrderedDict(a=2, b=3, c=5), forward)


@program()
def dict_changed_through_another_name() -> Made:
    def forward(x: Any, table: dict[str, dict[str, int]]) -> Any:
        for entry in table.values():
            entry.setdefault("n", 0)
            entry["n"] += 1
        return x * table["a"]["n"]

    return holding({"a": {}}, forward)


@program()
def set_that_grows() -> Made:
    def forward(x: Any, seen: set[int]) -> Any:
        seen |= {len(seen)}
        return x * len(seen)

    return holding(set(), forward)


@program()
def set_popped() -> Made:
    return holding({1, 2, 3}, lambda x, items: x * items.pop())


@program(runs=True)
def order_of_sets() -> Made:
    def forward(x: Any, names: frozenset[str]) -> Any:
        for i, name in enumerate(names):
            x = x * (1 + i * len(name))
        for n in {5, 3, 9}:
            x = x * 2 + n
        return x

    return holding(frozenset({"a", "bb", "ccc"}), forward)


@program()
def deque_with_a_length() -> Made:
    def forward(x: Any, last: Any) -> Any:
        last.append(last[-1] + 1)
        return x * sum(last)

    return holding(collections.deque([1, 2], maxlen=2), forward)


@program()
def counter_object() -> Made:
    def forward(x: Any, counts: Any) -> Any:
        counts.update("a")
        return x * counts["a"]

    return holding(collections.Counter(), forward)


@program()
def chain_of_maps() -> Made:
    def forward(x: Any, chain: Any) -> Any:
        chain["n"] = chain["n"] + 1
        return x * chain["n"]

    return holding(collections.ChainMap({}, {"n": 1}), forward)


@program()
def dict_subclass() -> Made:
    class Table(dict[str, int]):
        def __missing__(self, key: str) -> int:
            self[key] = len(self) + 1
            return self[key]

    return holding(Table(), lambda x, table: x * table[f"k{len(table)}"])


@program()
def heap_and_sorted_list() -> Made:
    def forward(x: Any, items: list[int]) -> Any:
        heapq.heappush(items, len(items))
        bisect.insort(items, 7)
        return x * len(items)

    return holding([], forward)


@program()
def container_passed_to_a_c_function() -> Made:
    return holding([], lambda x, items: (list(map(items.append, [1])), x * len(items))[1])


# -- other objects of C code ----------------------------------------------------------------------


@program()
def text_written() -> Made:
    def forward(x: Any, out: io.StringIO) -> Any:
        out.write("a")
        return x * len(out.getvalue())

    return holding(io.StringIO(), forward, io.StringIO.getvalue)


@program()
def text_read() -> Made:
    return holding(
        io.StringIO("abc"), lambda x, text: x * (1 + len(text.read(1))), io.StringIO.tell
    )


@program()
def byte_array() -> Made:
    def forward(x: Any, data: bytearray) -> Any:
        data[0] += 1
        return x * data[0]

    return holding(bytearray(b"\x01"), forward)


@program()
def memory_of_a_byte_array() -> Made:
    def forward(x: Any, data: bytearray) -> Any:
        view = memoryview(data)
        view[0] = data[0] + 1
        struct.pack_into("B", data, 1, data[1] + 2)
        return x * data[0] * data[1]

    return holding(bytearray(b"\x01\x01"), forward)


@program()
def array_of_numbers() -> Made:
    def forward(x: Any, numbers: Any) -> Any:
        numbers.append(1)
        return x * len(numbers)

    return holding(array.array("i"), forward)


@program()
def numpy_array_written() -> Made:
    def forward(x: Any, numbers: Any) -> Any:
        numbers[0] += 1
        return x * float(numbers[0])

    return holding(np.zeros(2), forward)


@program()
def numpy_array_changed_by_an_operator() -> Made:
    def forward(x: Any, numbers: Any) -> Any:
        numbers += 1
        return x * float(numbers[0])

    return holding(np.zeros(2), forward)


@program()
def view_of_a_numpy_array_written() -> Made:
    def forward(x: Any, numbers: Any) -> Any:
        numbers[1:].fill(numbers[1] + 1)
        np.add(numbers[:1], 1, out=numbers[:1])
        return x * float(numbers.sum())

    return holding(np.zeros(2), forward)


@program()
def queue_filled() -> Made:
    def forward(x: Any, waiting: Any) -> Any:
        waiting.put(1)
        return x * waiting.qsize()

    return holding(queue.SimpleQueue(), forward, lambda q: q.qsize())


@program()
def attribute_of_a_thread() -> Made:
    def forward(x: Any, local: Any) -> Any:
        local.n = getattr(local, "n", 0) + 1
        return x * local.n

    return holding(threading.local(), forward, lambda v: dict(vars(v)))


@program()
def lock_taken() -> Made:
    def forward(x: Any, lock: Any) -> Any:
        return x * 2 if lock.acquire(blocking=False) else x * 3

    return holding(threading.Lock(), forward, lambda v: v.locked())


@program(runs=True)
def lock_around_the_work() -> Made:
    def forward(x: Any, lock: Any) -> Any:
        with lock:
            return x * 2

    return holding(threading.Lock(), forward, lambda v: v.locked())


# -- iterators and generators ---------------------------------------------------------------------


@program(spent=True)
def iterator_of_a_list() -> Made:
    return holding(iter([1, 2, 3]), lambda x, it: x * next(it), lambda it: it.__length_hint__())


@program(spent=True)
def iterator_unpacked() -> Made:
    def forward(x: Any, it: Any) -> Any:
        for n in it:
            return x * n
        return x

    return holding(iter([1, 2, 3]), forward, lambda it: it.__length_hint__())


@program(spent=True)
def iterator_given_to_c_code() -> Made:
    return holding(
        iter([1, 2, 3]),
        lambda x, it: x * (1 + sum(itertools.islice(it, 1))),
        lambda it: it.__length_hint__(),
    )


@program(spent=True)
def count_of_itertools() -> Made:
    return holding(itertools.count(1), lambda x, it: x * next(it))


@program(spent=True)
def count_inside_of_zip() -> Made:
    def forward(x: Any, it: Any) -> Any:
        for value, n in zip((2, 3), it, strict=False):
            x = x * value + n
        return x

    return holding(itertools.count(1), forward)


@program()
def cycle_of_itertools() -> nn.Module:
    return net(lambda self, x: x * next(self.it), it=lambda: itertools.cycle([2, 3]))


@program(spent=True)
def enumeration_kept() -> Made:
    return holding(
        enumerate("abcd"), lambda x, it: x * (1 + next(it)[0]), lambda it: it.__reduce__()
    )


def numbers() -> Iterator[int]:
    n = 0
    while True:
        n += 1
        yield n


def state_of(generator: Any) -> Any:
    return generator.gi_frame.f_locals.get("n")


@program(spent=True)
def generator_resumed() -> Made:
    return holding(numbers(), lambda x, it: x * next(it), state_of)


@program(spent=True)
def generator_resumed_by_send() -> Made:
    return holding(numbers(), lambda x, it: x * it.send(None), state_of)


@program()
def generator_on_the_module() -> nn.Module:
    return net(lambda self, x: x * next(self.it), it=numbers)


@program(spent=True)
def generator_closed() -> Made:
    def forward(x: Any, it: Any) -> Any:
        n = next(it, 7)
        it.close()
        return x * n

    return holding(numbers(), forward, lambda it: it.gi_frame is None)


@program(runs=True)
def generator_of_the_call() -> nn.Module:
    def forward(self: Any, x: Any) -> Any:
        it = numbers()
        return x * next(it) + next(it) * sum(itertools.islice(it, 3))

    return net(forward)


async def double(x: Any) -> Any:
    return x * 2


async def doubles(x: Any) -> Any:
    for i in range(2):
        yield x * i


@program(runs=True)
def coroutine_of_the_call() -> nn.Module:
    def forward(self: Any, x: Any) -> Any:
        work = double(x)
        try:
            work.send(None)
        except StopIteration as e:
            return e.value
        return x

    return net(forward)


@program()
def asynchronous_generator() -> nn.Module:
    async def gather(x: Any) -> Any:
        return [y async for y in doubles(x)]

    return net(lambda self, x: asyncio.run(gather(x)))


@program()
def iterator_object_in_python() -> Made:
    class Numbers:
        n = 0

        def __iter__(self) -> Any:
            return self

        def __next__(self) -> int:
            self.n += 1
            return self.n

    return holding(Numbers(), lambda x, it: x * next(it), lambda it: it.n)


@program()
def iterator_of_torch_parameters() -> nn.Module:
    def forward(self: Any, x: Any) -> Any:
        return x * sum(p.sum() for p in self.parameters())

    return net(forward)


@program()
def tensor_list_rotated() -> Made:
    def forward(x: Any, kept: list[torch.Tensor]) -> Any:
        kept.append(kept.pop(0))
        return x * kept[0]

    return holding([torch.tensor(2.0), torch.tensor(3.0)], forward)
