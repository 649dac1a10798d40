"""Generators, generator expressions, yield from, iterators, coroutines."""


def case_simple():
    def g():
        yield 1
        yield 2

    return list(g()), [x for x in g()], sum(g()), tuple(g()), dict(zip("ab", g()))


def case_return_value():
    def g():
        yield 1
        return "end"

    it = g()
    next(it)
    try:
        next(it)
    except StopIteration as e:
        return e.value


def case_send():
    def average():
        total = count = 0
        value = None
        while True:
            sent = yield value
            total += sent
            count += 1
            value = total / count

    it = average()
    next(it)
    return it.send(10), it.send(20), it.send(30)


def case_throw():
    def g():
        while True:
            try:
                yield 1
            except ValueError as e:
                yield f"caught {e}"

    it = g()
    return next(it), it.throw(ValueError("x")), next(it)


def case_throw_uncaught():
    def g():
        yield 1

    it = g()
    next(it)
    it.throw(KeyError("k"))


def case_throw_before_start():
    def g():
        yield 1

    try:
        g().throw(KeyError("k"))
    except KeyError as e:
        return e.args


def case_close_runs_finally():
    out = []

    def g():
        try:
            yield 1
        finally:
            out.append("closed")

    it = g()
    next(it)
    it.close()
    it.close()
    return out, list(it)


def case_close_ignored():
    def g():
        try:
            yield 1
        except GeneratorExit:
            yield 2

    it = g()
    next(it)
    it.close()


def case_close_by_death():
    out = []

    def g():
        try:
            yield 1
        finally:
            out.append("closed")

    it = g()
    next(it)
    del it
    return out


def case_finally_in_loop():
    out = []

    def g():
        try:
            yield from range(5)
        finally:
            out.append("f")

    for x in g():
        if x == 2:
            break
    return x, out


def case_yield_from_list():
    def g():
        result = yield from [1, 2]
        yield result

    return list(g())


def case_yield_from_value():
    def inner():
        x = yield 1
        return x * 2

    def outer():
        value = yield from inner()
        yield value

    it = outer()
    return next(it), it.send(21)


def case_yield_from_throw():
    def inner():
        try:
            yield 1
        except ValueError:
            return "handled"

    def outer():
        value = yield from inner()
        yield value

    it = outer()
    next(it)
    return it.throw(ValueError())


def case_yield_from_throw_through():
    def inner():
        yield 1

    def outer():
        try:
            yield from inner()
        except KeyError as e:
            yield f"outer {e}"

    it = outer()
    next(it)
    return it.throw(KeyError("k"))


def case_yield_from_close():
    out = []

    def inner():
        try:
            yield 1
        finally:
            out.append("inner")

    def outer():
        try:
            yield from inner()
        finally:
            out.append("outer")

    it = outer()
    next(it)
    it.close()
    return out


def case_yield_from_iterator_without_throw():
    def g():
        try:
            yield from iter([1, 2])
        except ValueError:
            yield "caught"

    it = g()
    next(it)
    return it.throw(ValueError)


def case_delegate_chain():
    def count(n):
        if n:
            yield n
            yield from count(n - 1)

    return list(count(6))


def case_tree_walk():
    def walk(t):
        if isinstance(t, list):
            for x in t:
                yield from walk(x)
        else:
            yield t

    return list(walk([1, [2, [3, 4]], [[5]]]))


def case_stop_iteration_inside():
    def g():
        yield 1
        raise StopIteration("x")

    return list(g())


def case_next_on_empty_inside():
    def g():
        yield next(iter([]))

    return list(g())


def case_infinite():
    def naturals():
        n = 0
        while True:
            yield n
            n += 1

    out = []
    for n in naturals():
        if n > 3:
            break
        out.append(n)
    return out


def case_pipeline():
    def numbers():
        yield from range(10)

    def evens(it):
        return (x for x in it if x % 2 == 0)

    def squares(it):
        for x in it:
            yield x * x

    return list(squares(evens(numbers())))


def case_expression_is_lazy():
    out = []

    def f(x):
        out.append(x)
        return x

    g = (f(x) for x in range(3))
    before = list(out)
    next(g)
    return before, out


def case_expression_first_iterable_is_eager():
    g = (x for x in undefined_name)
    return g


def case_unpacking():
    def g():
        yield 1
        yield 2
        yield 3

    a, *b = g()
    return a, b, [*g()], max(*g())


def case_attributes():
    def g():
        yield

    it = g()
    return it.__name__, it.__qualname__, type(it).__name__, iter(it) is it


def case_two_at_once():
    def g(n):
        for i in range(n):
            yield i

    a, b = g(3), g(3)
    return [next(a), next(b), next(a), next(b)], list(zip(a, b))


def case_exception_inside_for():
    def g():
        yield 1
        raise ValueError("inside")

    out = []
    try:
        for x in g():
            out.append(x)
    except ValueError as e:
        out.append(str(e))
    return out


def case_exception_ends_it():
    def g():
        yield 1
        raise ValueError

    it = g()
    out = [next(it)]
    for _ in range(2):
        try:
            out.append(next(it))
        except (ValueError, StopIteration) as e:
            out.append(type(e).__name__)
    return out


def case_yield_in_try_except():
    def g():
        for i in (1, 0, 2):
            try:
                yield 10 // i
            except ZeroDivisionError:
                yield "zero"

    return list(g())


def case_yield_in_except_keeps_context():
    import sys

    def g():
        try:
            raise ValueError("a")
        except ValueError:
            yield sys.exc_info()[0]
            yield sys.exc_info()[0]

    it = g()
    return next(it), sys.exc_info()[0], next(it)


def case_generator_sees_handled_outside():
    import sys

    def g():
        yield sys.exc_info()[0]

    try:
        raise KeyError
    except KeyError:
        return list(g())


def case_context_inside_generator():
    def g():
        try:
            yield 1
        except KeyError:
            raise ValueError("from generator")

    it = g()
    next(it)
    it.throw(KeyError("k"))


def case_yield_expression_value():
    def g():
        x = yield (yield 1)
        yield x

    it = g()
    return next(it), it.send("a"), it.send("b")


def case_yield_in_with():
    log = []

    class C:
        def __enter__(self):
            log.append("in")

        def __exit__(self, *e):
            log.append("out")

    def g():
        with C():
            yield 1

    return list(g()), log


def case_iterator_class():
    class Down:
        def __init__(self, n):
            self.n = n

        def __iter__(self):
            return self

        def __next__(self):
            if not self.n:
                raise StopIteration
            self.n -= 1
            return self.n

    return list(Down(3)), [x for x in Down(2)], sum(Down(4)), max(Down(3)), 1 in Down(3)


def case_iterable_class():
    class R:
        def __iter__(self):
            yield 1
            yield 2

    r = R()
    a, b = r
    return list(r), list(r), a, b, sorted(r), ",".join(map(str, r)), [*r], {*r}, set(r)


def case_getitem_iteration():
    class S:
        def __getitem__(self, i):
            if i >= 3:
                raise IndexError
            return i * i

    return list(S()), [x for x in S()], 4 in S(), tuple(S())


def case_bad_iterator():
    class B:
        def __iter__(self):
            return 5

    for _ in B():
        pass


def case_iter_with_sentinel():
    values = [3, 2, 1, 0, 9]
    return list(iter(lambda: values.pop(0), 0))


def case_reversed_protocol():
    class R:
        def __reversed__(self):
            return iter("cba")

    class Q:
        def __len__(self):
            return 3

        def __getitem__(self, i):
            return i

    return list(reversed(R())), list(reversed(Q()))


def case_coroutine_by_hand():
    async def f(x):
        return x + 1

    async def main():
        return await f(1) + await f(2)

    try:
        main().send(None)
    except StopIteration as e:
        return e.value


def case_coroutine_suspends():
    class Wait:
        def __await__(self):
            value = yield "waiting"
            return value * 2

    async def main():
        return await Wait()

    c = main()
    first = c.send(None)
    try:
        c.send(21)
    except StopIteration as e:
        return first, e.value, type(c).__name__


def case_async_with_and_for():
    class C:
        async def __aenter__(self):
            return "entered"

        async def __aexit__(self, *e):
            return True

    class It:
        def __init__(self):
            self.n = 0

        def __aiter__(self):
            return self

        async def __anext__(self):
            self.n += 1
            if self.n > 3:
                raise StopAsyncIteration
            return self.n

    async def main():
        out = []
        async with C() as c:
            out.append(c)
            async for x in It():
                out.append(x)
            raise ValueError
        return out

    try:
        main().send(None)
    except StopIteration as e:
        return e.value


def case_await_wrong():
    async def main():
        await 5

    main().send(None)


def case_same_fringe():
    def leaves(t):
        match t:
            case (a, b):
                yield from leaves(a)
                yield from leaves(b)
            case x:
                yield x

    return list(leaves(((1, 2), 3))) == list(leaves((1, (2, 3))))


def case_primes():
    def primes():
        found, n = [], 2
        while True:
            if all(n % p for p in found):
                found.append(n)
                yield n
            n += 1

    it = primes()
    return [next(it) for _ in range(10)]


def case_permutations():
    def perms(a):
        if not a:
            yield []
        for i, x in enumerate(a):
            for rest in perms(a[:i] + a[i + 1 :]):
                yield [x, *rest]

    return list(perms([1, 2, 3]))


def case_scheduler():
    def task(name, n):
        for i in range(n):
            yield f"{name}{i}"

    queue, out = [task("a", 2), task("b", 3)], []
    while queue:
        t = queue.pop(0)
        try:
            out.append(next(t))
        except StopIteration:
            continue
        queue.append(t)
    return out


def case_generator_already_running():
    def g():
        yield next(it)

    it = g()
    next(it)
