"""Modules of the standard library in Python (their C twins left out), on real inputs."""

import argparse
import configparser
import difflib
import importlib.util
import io
import statistics
import string
import sys
import textwrap
from fractions import Fraction

TEXT = """The machine reads code objects, as the interpreter does. It keeps a stack, and a table of
exceptions; it calls functions of its own.

    Indented lines stay as they are.

A second paragraph has a-hyphenated-word-that-is-rather-long and some numbers: 1, 22, 333."""


def pure(name, *without):
    """A module of its own, executed while the C modules that it would prefer cannot be imported."""
    spec = importlib.util.find_spec(name)
    module = importlib.util.module_from_spec(spec)
    saved = {c: sys.modules.get(c) for c in without}
    sys.modules.update(dict.fromkeys(without))
    try:
        spec.loader.exec_module(module)
    finally:
        for c, value in saved.items():
            if value is None:
                del sys.modules[c]
            else:
                sys.modules[c] = value
    return module


heapq = pure("heapq", "_heapq")
bisect = pure("bisect", "_bisect")
scanner = pure("json.scanner", "_json")
decoder = pure("json.decoder", "_json")
encoder = pure("json.encoder", "_json")
decoder.scanner = scanner

#: The files whose functions must not run natively when the machine runs these programs.
FILES = [
    module.__file__
    for module in (
        heapq, bisect, scanner, decoder, encoder, argparse, configparser, difflib, statistics,
        string, textwrap, sys.modules["fractions"],
    )
]  # fmt: skip


def case_heap_sort():
    data = [(i * 7919) % 101 for i in range(60)]
    heap = []
    for x in data:
        heapq.heappush(heap, x)
    out = [heapq.heappop(heap) for _ in range(len(heap))]
    other = list(data)
    heapq.heapify(other)
    return out, other, heapq.heapreplace(other, 50), heapq.heappushpop(other, -1)


def case_heap_queries():
    data = [(i * 31) % 17 for i in range(30)]
    return (
        heapq.nlargest(4, data), heapq.nsmallest(4, data, key=lambda x: -x),
        list(heapq.merge([1, 4, 7], [2, 5], [3], reverse=False)),
        list(heapq.merge("ca", "db", key=str.upper, reverse=True)),
    )  # fmt: skip


def case_bisect_module():
    a = [1, 2, 2, 3, 5, 8]
    bisect.insort_left(a, 2)
    bisect.insort(a, 4, key=lambda x: x)
    where = [bisect.bisect_left(a, x) for x in range(9)], [bisect.bisect(a, x) for x in range(9)]
    return a, where, bisect.bisect_right(["bb", "a"], 1, key=len)


def case_bisect_negative():
    return bisect.bisect([1], 1, lo=-1)


def case_textwrap_module():
    return (
        textwrap.fill(TEXT, 40), textwrap.shorten(TEXT, 50), textwrap.indent(TEXT, "> "),
        textwrap.wrap(TEXT, 20, break_long_words=False, break_on_hyphens=False),
        textwrap.dedent("    a\n      b\n    c"), textwrap.fill(TEXT, 30, initial_indent="* "),
    )  # fmt: skip


def case_json_scan():
    text = '{"a": [1, -2.5e3, true, null, "\\u00e9\\n"], "b": {"c": {}}, "d": []}'
    return decoder.JSONDecoder().decode(text), decoder.py_scanstring('abc\\t" rest', 0)


def case_json_scan_errors():
    out = []
    for text in ('{"a" 1}', "[1,", '"open', "nope", '{"a": 1,}', "[1] x"):
        try:
            out.append(decoder.JSONDecoder().decode(text))
        except ValueError as e:
            out.append(str(e))
    return out


def case_json_scan_hooks():
    d = decoder.JSONDecoder(object_pairs_hook=list, parse_int=lambda s: s + "i")
    return d.decode('{"a": 1, "b": [2, {"c": 3}]}')


def case_json_write():
    e = encoder.JSONEncoder(indent=2, sort_keys=True)
    data = {"b": [1, 2.5, None, True, 'é"\n'], "a": {"x": [], "y": {}}, "3": float("inf")}
    return e.encode(data), "".join(encoder.JSONEncoder().iterencode(data))


def case_json_write_errors():
    out = []
    loop = []
    loop.append(loop)
    for value in (loop, {1j: 2}, object, {"a": float("nan")}):
        try:
            out.append(encoder.JSONEncoder(allow_nan=False, indent=1).encode(value))
        except (TypeError, ValueError) as e:
            out.append(str(e))
    return out


def case_json_write_default():
    class E(encoder.JSONEncoder):
        def default(self, o):
            return {"set": sorted(o)} if isinstance(o, set) else super().default(o)

    return E(indent=0).encode([{3, 1}])


def case_statistics_module():
    data = [1, 2, 2, 3, 4.5, 7]
    return (
        statistics.mean(data), statistics.fmean(data), statistics.median_low(data),
        statistics.mode(data), statistics.multimode("aabb"), statistics.pvariance(data),
        statistics.stdev(data), statistics.quantiles(data, n=4), statistics.harmonic_mean([1, 4]),
        statistics.geometric_mean([1, 4]), statistics.correlation([1, 2, 3], [1, 2, 4]),
        statistics.linear_regression([1, 2, 3], [2, 4, 6]), statistics.mean([Fraction(1, 3), 2]),
    )  # fmt: skip


def case_statistics_errors():
    return statistics.mean([])


def case_normal_distribution():
    n = statistics.NormalDist(1, 2)
    m = n + statistics.NormalDist(2, 1)
    return n.cdf(1), n.inv_cdf(0.5), m.mean, m.stdev, n.overlap(m), n * 2, n == m


def case_fractions_module():
    a, b = Fraction(3, 4), Fraction("-2/3")
    return (
        a + b, a - b, a * b, a / b, a // b, a % b, a**2, a**-1, -a, abs(b), a > b, a == 0.75,
        1 + a, 2 - a, 2 * a, 1 / a, divmod(a, b), round(a), int(b), float(a), hash(a) == hash(0.75),
        Fraction(3.14159).limit_denominator(100), str(b), repr(a), Fraction(0.5), sum([a, b]),
        sorted([a, b]), min(a, b), f"{a}", bool(Fraction(0)), a.numerator, Fraction.from_float(0.5),
    )  # fmt: skip


def case_fractions_errors():
    out = []
    for trial in (lambda: Fraction(1, 0), lambda: Fraction("x"), lambda: Fraction(1) + "a"):
        try:
            out.append(trial())
        except (ZeroDivisionError, ValueError, TypeError) as e:
            out.append(str(e))
    return out


def case_configparser_module():
    c = configparser.ConfigParser(allow_no_value=True, defaults={"home": "/h"})
    c.read_string(
        "[paths]\ndata = %(home)s/data\nflag\n# note\nlong = one\n  two\n[n]\nx: 5\nok = yes\n"
    )
    c["new"] = {"a": "1"}
    out = io.StringIO()
    c.write(out)
    return (
        c.sections(), c["paths"]["data"], c.getint("n", "x"), c.getboolean("n", "ok"),
        c.get("n", "zz", fallback="f"), c["paths"]["long"], out.getvalue(), "a" in c["new"],
        c.has_option("n", "x"), dict(c["n"]),
    )  # fmt: skip


def case_configparser_errors():
    out = []
    for text in ("x = 1", "[a]\nx=1\nx=2", "[a]\n= 5"):
        try:
            configparser.ConfigParser().read_string(text)
        except configparser.Error as e:
            out.append((type(e).__name__, str(e)))
    return out


def case_extended_interpolation():
    c = configparser.ConfigParser(interpolation=configparser.ExtendedInterpolation())
    c.read_string("[a]\nx = 1\n[b]\ny = ${a:x}2\n")
    return c["b"]["y"]


def make_parser():
    p = argparse.ArgumentParser(prog="tool", description="Does things.", add_help=True)
    p.add_argument("files", nargs="*", default=[])
    p.add_argument("-n", "--number", type=int, default=3, help="how many (default %(default)s)")
    p.add_argument("-v", action="count", default=0)
    p.add_argument("--mode", choices=["fast", "slow"])
    return p


def case_argparse_module():
    p = make_parser()
    return p.parse_args("a b -n 5 -vv --mode fast".split()), p.parse_args(["--number=7"])


def case_argparse_sub_commands():
    p = argparse.ArgumentParser(prog="tool")
    subs = p.add_subparsers(dest="command")
    add = subs.add_parser("add")
    add.add_argument("x", type=float)
    add.set_defaults(run=len)
    group = p.add_mutually_exclusive_group()
    group.add_argument("--a", action="store_true")
    group.add_argument("--b", action="store_false")
    return p.parse_args(["--a", "add", "1.5"]), p.parse_known_args(["add", "2", "--zz"])


def case_argparse_help():
    return make_parser().format_usage()


def case_string_module():
    class T(string.Template):
        delimiter = "%"

    f = string.Formatter()
    return (
        string.capwords("hello  wide world"), T("%x and %{y}").substitute(x=1, y=2),
        string.Template("$a $$").safe_substitute(), f.format("{0} {a[k]} {1!r:>5}", 1, "x", a={"k": 2}),
        f.vformat("{} {}", (1, 2), {}), T("%q").get_identifiers() if hasattr(T, "get_identifiers") else 0,
    )  # fmt: skip


def case_string_template_error():
    return string.Template("$a $1").substitute(a=1)


def case_difflib_module():
    a, b = TEXT.splitlines(), TEXT.replace("table", "list").upper().splitlines()[:4]
    m = difflib.SequenceMatcher(None, "abcdxyz", "abxcdyz")
    return (
        m.ratio(), m.get_opcodes(), m.get_matching_blocks(), m.quick_ratio(),
        list(difflib.unified_diff(a, b, "x", "y")), list(difflib.context_diff(a[:2], b[:2])),
        difflib.get_close_matches("tabel", ["table", "cable", "x"]),
        list(difflib.ndiff(["one\n", "two\n"], ["one\n", "too\n"])),
        list(difflib.restore(difflib.ndiff(["a\n"], ["b\n"]), 1)),
    )  # fmt: skip


def case_difflib_junk():
    return difflib.SequenceMatcher(lambda c: c == " ", "a b c", "abc").find_longest_match()
