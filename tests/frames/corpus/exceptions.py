"""Raising, catching, chaining, finally, except*, with."""

import sys


def case_try_else_finally():
    out = []
    for value in (1, 0):
        try:
            out.append(1 / value)
        except ZeroDivisionError:
            out.append("except")
        else:
            out.append("else")
        finally:
            out.append("finally")
    return out


def case_uncaught():
    def f():
        raise ValueError("a", 1)

    f()


def case_through_frames():
    def a():
        b()

    def b():
        c()

    def c():
        return {}["missing"]

    a()


def case_tuple_of_types():
    try:
        int("x")
    except (KeyError, ValueError) as e:
        return type(e).__name__, e.args


def case_order_of_handlers():
    def f(error):
        try:
            raise error
        except LookupError:
            return "lookup"
        except Exception:
            return "exception"
        except BaseException:
            return "base"

    return f(KeyError()), f(ValueError()), f(KeyboardInterrupt())


def case_name_is_deleted():
    try:
        raise ValueError
    except ValueError as e:
        pass
    return e


def case_bare_except():
    try:
        raise SystemExit(3)
    except:
        return sys.exc_info()[0].__name__


def case_reraise():
    try:
        try:
            1 / 0
        except ZeroDivisionError:
            raise
    except ZeroDivisionError as e:
        return e.args, e.__context__


def case_reraise_traceback():
    def f():
        try:
            1 / 0
        except ZeroDivisionError:
            raise

    f()


def case_raise_again_by_name():
    def f():
        try:
            1 / 0
        except ZeroDivisionError as e:
            saved = e
        raise saved

    f()


def case_nothing_to_reraise():
    raise


def case_reraise_in_function():
    def again():
        raise

    try:
        raise KeyError(1)
    except KeyError:
        again()


def case_chain_implicit():
    try:
        1 / 0
    except ZeroDivisionError:
        raise ValueError("second")


def case_chain_explicit():
    try:
        1 / 0
    except ZeroDivisionError as e:
        raise ValueError("second") from e


def case_chain_none():
    try:
        1 / 0
    except ZeroDivisionError:
        raise ValueError("second") from None


def case_chain_of_class():
    raise ValueError("x") from KeyError


def case_chain_three():
    try:
        try:
            {}["a"]
        except KeyError:
            int("b")
    except ValueError:
        undefined


def case_chain_in_finally():
    try:
        1 / 0
    finally:
        raise KeyError("f")


def case_chain_from_called_function():
    def helper():
        raise TypeError("helper")

    try:
        1 / 0
    except ZeroDivisionError:
        helper()


def case_no_chain_after_handler():
    try:
        1 / 0
    except ZeroDivisionError:
        pass
    raise ValueError("alone")


def case_chain_self():
    e = ValueError("same")
    try:
        raise e
    except ValueError:
        raise e


def case_chain_cycle():
    a, b = ValueError("a"), ValueError("b")
    try:
        try:
            raise a
        except ValueError:
            raise b
    except ValueError:
        raise a


def case_raise_class():
    raise KeyError


def case_raise_not_an_exception():
    raise 5


def case_raise_wrong_class():
    raise int


def case_wrong_cause():
    raise ValueError from 5


def case_catch_not_an_exception():
    try:
        raise ValueError
    except 5:
        pass


def case_custom():
    class MyError(Exception):
        def __init__(self, code, *args):
            super().__init__(f"code {code}", *args)
            self.code = code

        def __str__(self):
            return f"<{self.code}>"

    try:
        raise MyError(7, "more")
    except MyError as e:
        return str(e), e.args, e.code, repr(e)


def case_hierarchy():
    class A(Exception):
        pass

    class B(A):
        pass

    out = []
    for kind in (A, B):
        try:
            raise kind("x")
        except B:
            out.append("B")
        except A:
            out.append("A")
    return out


def case_finally_return_wins():
    def f():
        try:
            return "try"
        finally:
            return "finally"

    return f()


def case_finally_swallows():
    def f():
        for _ in range(1):
            try:
                1 / 0
            finally:
                break
        return "swallowed"

    return f()


def case_finally_order():
    out = []

    def f():
        try:
            out.append("body")
            return out.append("return")
        finally:
            out.append("finally")

    f()
    return out


def case_finally_with_continue():
    out = []
    for i in range(3):
        try:
            if i == 1:
                continue
            out.append(i)
        finally:
            out.append("f")
    return out


def case_nested_finally():
    out = []
    try:
        try:
            raise ValueError("x")
        finally:
            out.append(1)
    except ValueError:
        out.append(2)
    finally:
        out.append(3)
    return out


def case_return_in_except():
    def f():
        try:
            1 / 0
        except ZeroDivisionError:
            return "handled"

    return f(), sys.exc_info()


def case_break_in_except():
    for i in range(3):
        try:
            1 / 0
        except ZeroDivisionError:
            break
    return i, sys.exc_info()[0]


def case_exc_info():
    try:
        raise ValueError("x")
    except ValueError:
        kind, value, trace = sys.exc_info()
    return kind, value.args, trace is not None, sys.exc_info()


def case_exc_info_nested():
    try:
        raise ValueError
    except ValueError:
        try:
            raise KeyError
        except KeyError:
            inner = sys.exc_info()[0]
        return inner, sys.exc_info()[0]


def case_traceback_object():
    def f():
        raise ValueError

    try:
        f()
    except ValueError as e:
        trace = e.__traceback__
        names = []
        while trace:
            names.append(trace.tb_frame.f_code.co_name)
            trace = trace.tb_next
        return names


def case_traceback_text():
    import traceback

    def f():
        raise ValueError("text")

    try:
        f()
    except ValueError:
        return traceback.format_exc().splitlines()[-2:]


def case_with_traceback():
    raise ValueError("x").with_traceback(None)


def case_add_note():
    e = ValueError("x")
    e.add_note("note")
    return e.__notes__


def case_error_in_called_back():
    return sorted([1, 0], key=lambda x: 1 / x)


def case_error_in_map():
    return list(map(lambda x: 1 // x, [1, 0]))


def case_error_in_method():
    class A:
        def m(self):
            return self.missing

    A().m()


def case_attribute_error_fields():
    try:
        object().nope
    except AttributeError as e:
        return e.name, type(e.obj)


def case_name_error_fields():
    try:
        nope
    except NameError as e:
        return e.name


def case_key_error_in_getitem():
    class D(dict):
        def __missing__(self, key):
            raise KeyError(key + "!")

    return D()["k"]


def case_retry_loop():
    def flaky(state=[0]):
        state[0] += 1
        if state[0] < 3:
            raise OSError(state[0])
        return state[0]

    for attempt in range(5):
        try:
            return attempt, flaky()
        except OSError as e:
            last = e
    raise last


def case_exception_in_except_handler():
    try:
        try:
            raise ValueError(1)
        except ValueError as e:
            raise TypeError(2) from e
    except TypeError as e:
        return type(e.__cause__).__name__, e.__context__ is e.__cause__


def case_group_plain():
    try:
        raise ExceptionGroup("g", [ValueError(1), KeyError(2)])
    except ExceptionGroup as g:
        return g.message, [type(e).__name__ for e in g.exceptions]


def case_except_star():
    out = []
    try:
        raise ExceptionGroup("g", [ValueError(1), KeyError(2), ValueError(3)])
    except* ValueError as g:
        out.append([e.args for e in g.exceptions])
    except* KeyError as g:
        out.append([e.args for e in g.exceptions])
    return out


def case_except_star_rest():
    try:
        raise ExceptionGroup("g", [ValueError(1), KeyError(2)])
    except* ValueError:
        pass


def case_except_star_naked():
    try:
        raise ValueError("naked")
    except* ValueError as g:
        return_value = (type(g).__name__, g.exceptions[0].args)
    return return_value


def case_except_star_no_match():
    try:
        raise KeyError("k")
    except* ValueError:
        pass


def case_except_star_nested_groups():
    out = []
    try:
        raise ExceptionGroup("a", [ExceptionGroup("b", [ValueError(1)]), TypeError(2)])
    except* ValueError as g:
        out.append(str(g))
    except* TypeError as g:
        out.append(str(g))
    return out


def case_except_star_raises():
    try:
        raise ExceptionGroup("g", [ValueError(1), KeyError(2)])
    except* ValueError:
        raise TypeError("new")


def case_except_star_reraises():
    try:
        raise ExceptionGroup("g", [ValueError(1), KeyError(2)])
    except* ValueError:
        raise


def case_except_star_finally():
    out = []
    try:
        try:
            raise ExceptionGroup("g", [ValueError(1)])
        except* ValueError:
            out.append("star")
        else:
            out.append("else")
        finally:
            out.append("finally")
    except BaseException:
        out.append("never")
    return out


class Manager:
    def __init__(self, log, name="m", swallow=False):
        self.log, self.name, self.swallow = log, name, swallow

    def __enter__(self):
        self.log.append("enter " + self.name)
        return self

    def __exit__(self, kind, value, trace):
        self.log.append(("exit " + self.name, kind and kind.__name__))
        return self.swallow


def case_with():
    log = []
    with Manager(log) as m:
        log.append(m.name)
    return log


def case_with_two():
    log = []
    with Manager(log, "a"), Manager(log, "b") as b:
        log.append(b.name)
    return log


def case_with_parentheses():
    log = []
    with (
        Manager(log, "a") as a,
        Manager(log, "b"),
    ):
        log.append(a.name)
    return log


def case_with_swallows():
    log = []
    with Manager(log, swallow=True):
        raise ValueError
    return log


def case_with_passes_on():
    log = []
    try:
        with Manager(log):
            raise ValueError
    except ValueError:
        log.append("caught")
    return log


def case_with_error_escapes():
    with Manager([]):
        [][1]


def case_with_return():
    log = []

    def f():
        with Manager(log):
            return "value"

    return f(), log


def case_with_break():
    log = []
    for i in range(3):
        with Manager(log, str(i)):
            if i == 1:
                break
    return log


def case_with_error_in_exit():
    class Bad:
        def __enter__(self):
            return 1

        def __exit__(self, *e):
            raise KeyError("exit")

    with Bad():
        raise ValueError("body")


def case_with_error_in_enter():
    class Bad:
        def __enter__(self):
            raise KeyError("enter")

        def __exit__(self, *e):
            return True

    with Bad():
        pass


def case_with_not_a_manager():
    with 5:
        pass


def case_with_without_exit():
    class Half:
        def __enter__(self):
            return 1

    with Half():
        pass


def case_with_file():
    import os

    with open(os.devnull) as f:
        text = f.read()
    return text, f.closed


def case_with_stringio():
    import io

    with io.StringIO() as f:
        print("x", 1, file=f)
        f.write("end")
        return f.getvalue()


def case_with_tuple_target():
    class C:
        def __enter__(self):
            return 1, (2, 3)

        def __exit__(self, *e):
            pass

    with C() as (a, (b, c)):
        return a, b, c


def case_with_deep():
    log = []

    def f(n):
        with Manager(log, str(n)):
            if n:
                f(n - 1)
            else:
                raise ValueError

    try:
        f(2)
    except ValueError:
        return log


def case_print_to_own_writer():
    class W:
        def __init__(self):
            self.parts = []

        def write(self, text):
            self.parts.append(text)

    w = W()
    print("a", 2, file=w)
    return w.parts


def case_warnings():
    import warnings

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.warn("careful", UserWarning, stacklevel=1)
    return [(w.category.__name__, str(w.message), w.lineno) for w in caught]


def case_syntax_error():
    compile("a b", "<text>", "exec")


def case_recursion_is_caught():
    def f(n):
        try:
            return f(n + 1)
        except RecursionError:
            return "deep"

    return f(0)


def case_generator_error_lines():
    def g():
        yield 1
        raise ValueError("line")

    return list(g())


def case_error_in_default():
    def f(x=1 / 0):
        return x

    return f()


def case_error_in_class_body():
    class A:
        x = 1
        y = undefined


def case_error_spans_lines():
    return max(
        1,
        len(
            5,
        ),
    )


def case_error_in_fstring():
    return f"{1}{1 / 0}"


def case_error_on_unpacking_call():
    def f(a, b):
        return a

    f(*[1])


def case_keyboard_interrupt():
    try:
        raise KeyboardInterrupt
    except Exception:
        return "no"
    except KeyboardInterrupt:
        return "yes"


def case_lookup_error_family():
    out = []
    for trial in (lambda: [][0], lambda: {}[0], lambda: "".index("x")):
        try:
            trial()
        except (LookupError, ValueError) as e:
            out.append(str(e))
    return out


def case_error_attributes_kept():
    try:
        e = ValueError("x")
        e.extra = 5
        raise e
    except ValueError as caught:
        return caught.extra, caught is e


def case_stop_iteration_value():
    try:
        raise StopIteration(5)
    except StopIteration as e:
        return e.value


def case_os_error_fields():
    try:
        open("/no/such/file")
    except OSError as e:
        return type(e).__name__, e.errno, e.filename
