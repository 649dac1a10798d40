"""The dim language: Dim arithmetic, specs against inputs, and the text of every error."""

from __future__ import annotations

import collections
import dataclasses
import re
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils import _pytree as pytree

from stillframe.errors import InvalidInput
from stillframe.shapes.dims import (
    DerivedDim,
    Dim,
    DimExpression,
    DimHint,
    LeafSpec,
    ShapesCollection,
    combine_args,
    dims,
    resolve_spec,
)

B, S = Dim("batch", min=1, max=64), Dim("seq", min=2)


def two(x: torch.Tensor, y: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
    return x


def variadic(x: Any, *rest: Any, flag: Any = None, **kw: Any) -> Any:
    return x


def one(x: Any) -> Any:
    return x


def resolve(function: Any, args: tuple[Any, ...], spec: Any, **kwargs: Any) -> dict[str, Any]:
    """path -> dims"""
    return {leaf.path: leaf.dims for leaf in resolve_spec(function, args, kwargs, spec)}


def refused(*texts: str) -> Any:
    """The error contains all texts, in this order."""
    return pytest.raises(InvalidInput, match="(?s)" + ".*".join(map(re.escape, texts)))


X, Y = torch.zeros(3, 8), torch.zeros(3, 17)


# -- Dim ------------------------------------------------------------------------------------------


@pytest.mark.spec("1.29")
class TestDim:
    def test_range_defaults(self) -> None:
        dim = Dim("n")
        assert (dim.__name__, dim.min, dim.max) == ("n", 0, None)
        assert repr(Dim("n", min=2, max=9)) == "Dim('n', min=2, max=9)"
        assert repr(dim) == "Dim('n')"

    def test_equal_by_value_and_immutable(self) -> None:
        assert Dim("n", min=1) == Dim("n", min=1) != Dim("n", min=2)
        assert len({Dim("n"), Dim("n")}) == 1
        with pytest.raises(dataclasses.FrozenInstanceError):
            Dim("n").min = 3  # type: ignore[misc]

    @pytest.mark.parametrize("name", ["", "2x", "a b", "class", 7])
    def test_name_must_be_an_identifier(self, name: Any) -> None:
        with refused("A Dim's name must be an identifier, got", repr(name)):
            Dim(name)

    def test_range_must_be_one(self) -> None:
        with refused("Dim('n'): min (5) is larger than max (4)."):
            Dim("n", min=5, max=4)
        with refused("dim 0 of x is Dim('n', min=-1), and no size is negative."):
            resolve(one, (X,), {"x": {0: Dim("n", min=-1)}})
        with refused("Dim('n'): max must be an int or None, got 2.5."):
            Dim("n", max=2.5)  # type: ignore[arg-type]
        with refused("Dim('n'): min must be an int or None, got True."):
            Dim("n", min=True)

    def test_dims(self) -> None:
        assert dims("a", "b", min=1, max=4) == (Dim("a", min=1, max=4), Dim("b", min=1, max=4))

    def test_hints(self) -> None:
        assert (Dim.AUTO, Dim.DYNAMIC, Dim.STATIC) == tuple(DimHint)
        assert repr(Dim.AUTO) == "Dim.AUTO"


@pytest.mark.spec("1.29")
class TestDerivedDim:
    def test_linear_forms(self) -> None:
        d = Dim("d", min=1, max=10)
        assert 2 * d == d * 2 == DerivedDim(d, 2, 0)
        assert 2 * d + 1 == 1 + 2 * d == DerivedDim(d, 2, 1)
        assert 3 * (d - 1) == DerivedDim(d, 3, -3)
        assert 1 * d == d + 0 == (d + 1) - 1 == d
        nested = 2 * d + 1
        assert (nested.min, nested.max) == (3, 21)
        assert [str(x) for x in (2 * d, d + 1, nested)] == ["2*d", "d + 1", "(2*d + 1)"]
        assert (2 * Dim("u")).max is None

    @given(st.integers(1, 9), st.integers(-9, 9), st.integers(0, 99))
    def test_root_size_inverts(self, scale: int, offset: int, root: int) -> None:
        derived = DerivedDim(Dim("d"), scale, offset)
        assert derived.root_size(scale * root + offset) == root
        if scale > 1:
            assert derived.root_size(scale * root + offset + 1) is None

    def test_what_is_not_linear_declares_no_size(self) -> None:
        d, e = Dim("d"), Dim("e")
        for size, text in {
            d // 2: "d//2", d % 8: "d % 8", -d: "-d", 5 - d: "5 - d", d * 0: "0", -2 * d: "-2*d",
            d * d: "d**2", d + e: "d + e", d - e: "d - e",
        }.items():  # fmt: skip
            assert isinstance(size, DimExpression)
            with refused(f"dim 0 of x is `{text}`, which declares no size", "k*d + c"):
                resolve(one, (X,), {"x": {0: size}})

    def test_arithmetic_that_comes_back_to_a_dim(self) -> None:
        d, e = Dim("d"), Dim("e")
        assert 2 * d - d == d and (d + e) - e == d and -1 * (-1 * d) == d and 4 * d // 2 == 2 * d

    @pytest.mark.parametrize("make", [lambda d: d / 2, lambda d: d * 1.5, lambda d: d**0.5])
    def test_no_floats(self, make: Any) -> None:
        with pytest.raises(TypeError):
            make(Dim("d"))

    def test_one_name_two_ranges(self) -> None:
        with refused("The dim 'd' has two ranges: Dim('d') and Dim('d', min=2)."):
            Dim("d") + Dim("d", min=2)


class TestValues:
    def test_one_of_a_set(self) -> None:
        dim = Dim("b", values=[32, 1, 8, 8])
        assert (dim.min, dim.max, dim.values) == (1, 32, (1, 8, 32))
        assert repr(dim) == "Dim('b', values=(1, 8, 32))"
        assert dim.admits(8) and not dim.admits(9)
        assert dim != Dim("b", min=1, max=32)
        with refused("x.size(0) is 3 in the example, outside the range of", "one of 1, 8, 32"):
            resolve(one, (X,), {"x": {0: dim}})

    @pytest.mark.parametrize("values", [[], [1.5], [True]])
    def test_bad_sets(self, values: Any) -> None:
        with refused("Dim('b'): values must be one or more ints, got", "values=(1, 8, 32)"):
            Dim("b", values=values)
        with refused("Dim('b'): give either values or min and max."):
            Dim("b", values=[1], max=3)


class TestRelations:
    def test_comparisons_of_sizes(self) -> None:
        b, h, w = Dim("b", min=1), Dim("h"), Dim("w")
        relations = [
            b % 2 == 0, h == w, h <= 4 * b, h * w < 64, (b == 1) | (b > 4), ~(h == w),
            (h != 3) & (w != 3),
        ]  # fmt: skip
        assert [str(r) for r in relations] == [
            "b % 2 == 0", "h == w", "h <= 4*b", "h*w <= 63", "b == 1 or b >= 5", "h != w",
            "h != 3 and w != 3",
        ]  # fmt: skip
        assert {str(d) for d in relations[3].dims} == {"h", "w"}

    def test_truth_is_only_that_of_equal_declarations(self) -> None:
        b = Dim("b")
        with refused("`b <= 8` is a relation between dims", "assume=[...]", "1 <= b <= 8"):
            bool(b <= 8)
        with refused("`b >= 1` is a relation"):
            assert 1 <= b <= 8
        assert not b == Dim("c") and b != 4 and b != "b"


# -- forms of the spec ----------------------------------------------------------------------------


@pytest.mark.spec("1.25")
class TestForms:
    @pytest.mark.parametrize("spec", [None, {}, (), []])
    def test_all_static(self, spec: Any) -> None:
        assert resolve(two, (X, Y), spec) == {"x": {}, "y": {}}

    def test_by_name_in_any_order_and_incomplete(self) -> None:
        assert resolve(two, (X, Y), {"y": {1: S}, "x": (B, None)}) == {"x": {0: B}, "y": {1: S}}
        assert resolve(two, (X, Y), {"y": [None, S]}) == {"x": {}, "y": {1: S}}

    def test_by_position_follows_the_signature_not_the_call(self) -> None:
        found = resolve_spec(two, (), {"y": Y, "x": X}, ({0: B}, {1: S}))
        assert [(leaf.path, leaf.dims) for leaf in found] == [("y", {1: S}), ("x", {0: B})]
        assert found[0].leaf is Y

    def test_every_kind_of_dim(self) -> None:
        t = torch.zeros(3, 8, 9, 4, 5, 6)
        derived = S + 1
        spec = {"x": (B, S, derived, 4, Dim.STATIC, Dim.AUTO)}
        assert resolve(one, (t,), spec) == {"x": {0: B, 1: S, 2: derived, 5: Dim.AUTO}}

    def test_negative_dims(self) -> None:
        assert resolve(one, (X,), {"x": {-1: S, 0: None}}) == {"x": {1: S}}

    def test_variadic(self) -> None:
        found = resolve(
            variadic,
            (X, X, Y),
            {"x": None, "rest": ({0: B}, None), "kw": {"more": {1: S}}},
            flag=None,
            more=X,
        )
        assert found == {"x": {}, "rest[0]": {0: B}, "rest[1]": {}, "flag": None, "more": {1: S}}
        assert resolve(variadic, (X,), {"more": {1: S}}, more=X) == {"x": {}, "more": {1: S}}
        assert resolve(variadic, (X, Y), (None, [{1: S}], {"more": None}), more=X) == {
            "x": {},
            "rest[0]": {1: S},
            "more": {},
        }

    def test_containers_mirror_the_input(self) -> None:
        value = {"a": [X, (Y, 3)], "b": X}
        spec = {"b": {0: B}, "a": [None, ({1: S}, None)]}
        assert resolve(one, (value,), {"x": spec}) == {
            "x['a'][0]": {},
            "x['a'][1][0]": {1: S},
            "x['a'][1][1]": None,
            "x['b']": {0: B},
        }

    def test_none_at_a_container_covers_all_below(self) -> None:
        assert resolve(one, ([X, [Y]],), {"x": [None, None]}) == {"x[0]": {}, "x[1][0]": {}}
        assert resolve(one, ([X, [Y]],), {"x": None}) == {"x[0]": {}, "x[1][0]": {}}

    def test_entries_of_a_dict_may_be_left_out(self) -> None:
        assert resolve(one, ({"a": X, "b": Y},), {"x": {"b": {0: B}}}) == {
            "x['a']": {},
            "x['b']": {0: B},
        }

    def test_namedtuple(self) -> None:
        point = collections.namedtuple("point", "a b")
        found = resolve(one, (point(X, Y),), {"x": {"b": {0: B}}})
        assert list(found.values()) == [{}, {0: B}]
        assert list(resolve(one, (point(X, Y),), {"x": [None, {0: B}]}).values()) == [{}, {0: B}]

    def test_torch_exports_own_dims(self) -> None:
        export = pytest.importorskip("torch.export")
        root = export.Dim("d", min=2)
        found = resolve(one, (torch.zeros(3, 7, 4),), {"x": (root, 2 * root + 1, export.Dim.AUTO)})
        d = Dim("d", min=2)
        assert found == {"x": {0: d, 1: 2 * d + 1, 2: Dim.AUTO}}
        assert resolve(one, (X,), {"x": {0: export.Dim("d", max=5), 1: export.Dim.STATIC}}) == {
            "x": {0: Dim("d", max=5)}
        }


@dataclasses.dataclass
class Pair:
    left: Any
    right: Any


class Opaque:
    """A container registered without keys."""

    def __init__(self, a: Any, b: Any) -> None:
        self.a, self.b = a, b


class Cache:
    """A container that pytree sees as a dict of lists."""

    def __init__(self, keys: list[Any], values: list[Any]) -> None:
        self.keys, self.values = keys, values


def _cache_pairs(c: Cache) -> Any:
    return [(pytree.MappingKey("key"), c.keys), (pytree.MappingKey("value"), c.values)], None


pytree.register_dataclass(Pair)
pytree.register_pytree_node(Opaque, lambda o: ([o.a, o.b], None), lambda c, _: Opaque(*c))
pytree.register_pytree_node(
    Cache,
    lambda c: ([c.keys, c.values], None),
    lambda c, _: Cache(*c),
    flatten_with_keys_fn=_cache_pairs,
)


@pytest.mark.spec("1.25")
class TestRegisteredContainers:
    def test_dataclass_by_field_or_alike(self) -> None:
        want = {"x.left": {0: B}, "x.right": {}}
        for spec in ({"left": {0: B}}, [{0: B}, None], Pair({0: B}, None)):
            assert resolve(one, (Pair(X, Y),), {"x": spec}) == want

    def test_without_keys_by_position(self) -> None:
        assert resolve(one, (Opaque(X, [Y]),), {"x": (None, [{0: B}])}) == {
            "x[0]": {},
            "x[1][0]": {0: B},
        }

    def test_cache_by_position_or_key(self) -> None:
        cache = Cache([X, X], [Y, Y])
        kv = {0: B}
        want = dict.fromkeys(["x['key'][0]", "x['key'][1]", "x['value'][0]", "x['value'][1]"], kv)
        assert resolve(one, (cache,), {"x": [[kv, kv], [kv, kv]]}) == want
        assert resolve(one, (cache,), {"x": {"value": [kv, kv], "key": (kv, kv)}}) == want

    def test_order_is_the_flatten_order(self) -> None:
        args = (Cache([X], [Y, 3]), {"k": Pair(1, X)})
        found = resolve_spec(variadic, args, {"more": X, "flag": [Y]}, None)
        assert all(
            a.leaf is b
            for a, b in zip(
                found, pytree.tree_leaves((args, {"more": X, "flag": [Y]})), strict=True
            )
        )


# -- errors of the spec ---------------------------------------------------------------------------


@pytest.mark.spec("1.27")
class TestErrors:
    def test_unknown_name(self) -> None:
        with refused("names 'xx', which is no argument of the call", "x, y", "did you mean 'x'?"):
            resolve(two, (X, Y), {"xx": {0: B}})
        with refused("names 'scale', which is no argument of the call", "the call has: x, y"):
            resolve(two, (X, Y), {"scale": None})

    def test_wrong_number_by_position(self) -> None:
        with refused("has 1 entries by position, and the call has 2 arguments: x, y.", "{'x':"):
            resolve(two, (X, Y), ({0: B},))

    def test_wrong_top_level(self) -> None:
        with refused("must be a dict by argument name or a tuple by position, got Dim('batch'"):
            resolve(one, (X,), B)

    def test_wrong_rank(self) -> None:
        with refused(
            "x has 2 dims (shape (3, 8)), and its spec has 3 entries", "one entry per dim"
        ):
            resolve(one, (X,), {"x": (B, None, None)})

    def test_dim_out_of_range(self) -> None:
        with refused("x has no dim 2.", "it has 2 dims (shape (3, 8))"):
            resolve(one, (X,), {"x": {2: B}})
        with refused("x[0] has no dim -3."):
            resolve(one, ([X],), {"x": [{-3: B}]})
        with refused("x has no dim 0.", "0 dims"):
            resolve(one, (torch.tensor(1.0),), {"x": {0: B}})

    def test_two_specs_for_one_dim(self) -> None:
        with refused("x has two specs for dim 1."):
            resolve(one, (X,), {"x": {1: S, -1: B}})

    def test_key_that_is_no_dim(self) -> None:
        with refused("x is a tensor of shape (3, 8); its spec has the key 'batch'", "ints"):
            resolve(one, (X,), {"x": {"batch": B}})

    def test_dim_without_its_dict(self) -> None:
        with refused(
            "x is a tensor of shape (3, 8); its spec is Dim('batch'", "fix: {0: Dim('batch'"
        ):
            resolve(one, (X,), {"x": B})

    def test_wrong_dim(self) -> None:
        with refused("dim 0 of x is 'batch'.", "fix: Dim('batch')"):
            resolve(one, (X,), {"x": {0: "batch"}})
        with refused("dim 0 of x is True."):
            resolve(one, (X,), {"x": {0: True}})

    def test_wrong_container(self) -> None:
        with refused("x is a list; its spec is {0:", "expected a list or tuple of 2 specs"):
            resolve(one, ([X, Y],), {"x": {0: B}})
        with refused("x is a dict; its spec is [None]", "expected a dict with keys from ['a']"):
            resolve(one, ({"a": X},), {"x": [None]})
        with refused(
            "x[0] is a tuple; its spec is Dim('batch'", "expected a spec of the same form"
        ):
            resolve(one, ([(X,)],), {"x": [B]})
        with refused("kw is a dict; its spec is [None]", "a dict by keyword: more"):
            resolve(variadic, (X,), {"kw": [None]}, more=X)

    def test_wrong_length(self) -> None:
        with refused("x is a list with 2 entries, and its spec has 1.", "use None for those"):
            resolve(one, ([X, Y],), {"x": [None]})

    def test_unknown_entry(self) -> None:
        with refused("x has no entry 'key'.", "a dict has: keys", "did you mean 'keys'?"):
            resolve(one, ({"keys": X},), {"x": {"key": None}})
        with refused("kw has no keyword 'mor'.", "did you mean 'more'?"):
            resolve(variadic, (X,), {"kw": {"mor": None}}, more=X)

    def test_two_specs_for_one_keyword(self) -> None:
        with refused("gives two specs for the argument more."):
            resolve(variadic, (X,), {"kw": {"more": None}, "more": None}, more=X)

    def test_spec_of_a_number(self) -> None:
        assert resolve_spec(one, (3,), {}, {"x": B})[0].number == B
        assert resolve_spec(one, (2.5,), {}, {"x": Dim.DYNAMIC})[0].number is Dim.DYNAMIC
        assert resolve_spec(one, (3,), {}, {"x": 3})[0].number is None
        with refused("x is 65 in the example, outside the range"):
            resolve_spec(one, (65,), {}, {"x": B})
        with refused("x is the int 3; its spec is {0:", "an int that varies is a Dim"):
            resolve(one, (3,), {"x": {0: B}})

    def test_a_hint_for_everything_below(self) -> None:
        auto = {0: Dim.AUTO, 1: Dim.AUTO}
        assert resolve(two, (X, Y), Dim.AUTO) == {"x": auto, "y": auto}
        assert resolve(one, ([X, {"a": Y}],), {"x": [None, Dim.AUTO]}) == {
            "x[0]": {},
            "x[1]['a']": auto,
        }
        assert resolve(one, ([X, 3, "text"],), {"x": Dim.AUTO}) == {
            "x[0]": auto, "x[1]": None, "x[2]": None,
        }  # fmt: skip

    @pytest.mark.parametrize("value", [2.5, True, "text", None])
    def test_tensor_spec_for_a_constant(self, value: Any) -> None:
        with refused(f"x is {value!r}, not a tensor; its spec is {{0:", "use None for x"):
            resolve(one, (value,), {"x": {0: B}})
        assert resolve(one, (value,), {"x": None}) == {"x": None}

    def test_two_ranges_for_one_name(self) -> None:
        with refused(
            "the dim 'batch' has two ranges: Dim('batch', min=1, max=64) for x.size(0), "
            "Dim('batch') for y.size(0)."
        ):
            resolve(two, (X, Y), {"x": {0: B}, "y": {0: Dim("batch")}})
        with refused("the dim 'batch' has two ranges", "x.size(0)", "y.size(0)"):
            resolve(two, (X, torch.zeros(6)), {"x": {0: B}, "y": {0: 2 * Dim("batch", min=3)}})

    def test_example_outside_the_range(self) -> None:
        with refused(
            "x.size(0) is 3 in the example, outside the range of Dim('n', min=4)", "4 or more"
        ):
            resolve(one, (X,), {"x": {0: Dim("n", min=4)}})
        with refused("x.size(1) is 8", "Dim('n', max=7)", "n is 0 to 7"):
            resolve(one, (X,), {"x": {1: Dim("n", max=7)}})

    def test_example_not_of_the_derived_form(self) -> None:
        with refused(
            "y.size(1) is 17 in the example, which is not of the form 2*s.", "no integer s"
        ):
            resolve(two, (X, Y), {"y": {1: 2 * Dim("s")}})
        with refused("x.size(1) is 8", "4*s needs s = 2, outside the range of Dim('s', min=3)"):
            resolve(one, (X,), {"x": {1: 4 * Dim("s", min=3)}})

    def test_derived_dim_that_can_be_negative(self) -> None:
        with refused("declared as s - 5, which is negative for s = 0.", "Dim('s', min=5, ...)"):
            resolve(one, (X,), {"x": {0: Dim("s") - 5}})
        assert resolve(one, (X,), {"x": {0: Dim("s", min=5) - 5}})

    def test_two_sizes_for_one_name(self) -> None:
        n = Dim("n")
        with refused("the dim 'n' has two sizes in the example: 8 at x.size(1); 17 at y.size(1)."):
            resolve(two, (X, Y), {"x": {1: n}, "y": {1: n}})
        with refused("8 at x.size(1); 16 at y.size(1) (n + 1 = 17)"):
            resolve(two, (X, Y), {"x": {1: n}, "y": {1: n + 1}})
        assert resolve(two, (X, Y), {"x": {1: n}, "y": {1: 2 * n + 1}})

    def test_constant_that_is_not_the_example(self) -> None:
        with refused("x.size(1) is declared as the constant 9, and the example has 8.", "write 8"):
            resolve(one, (X,), {"x": {1: 9}})

    def test_foreign_derived_dim_that_is_not_linear(self) -> None:
        export = pytest.importorskip("torch.export")
        odd = type(2 * export.Dim("d"))("d*d", export.Dim("d"), lambda d: d * d)
        with refused("is not a derived dim."):
            resolve(one, (torch.zeros(9),), {"x": {0: odd}})


# -- arguments ------------------------------------------------------------------------------------


@pytest.mark.spec("1.26")
class TestCombineArgs:
    def test_signature_order(self) -> None:
        found = combine_args(variadic, (1, 2, 3), {"more": 4, "flag": 5})
        assert found == {"x": 1, "rest": (2, 3), "flag": 5, "kw": {"more": 4}}
        assert list(found) == ["x", "rest", "flag", "kw"]
        assert list(combine_args(two, (), {"y": 1, "x": 2})) == ["x", "y"]

    def test_module_and_torchscript(self) -> None:
        assert combine_args(torch.nn.Linear(2, 2), (X,), None) == {"input": X}
        assert combine_args(torch.nn.Linear(2, 2), (X,), None, torchscript=True) == (X,)

    @pytest.mark.spec("2.7")
    def test_kwargs_none_is_empty(self) -> None:
        assert [leaf.path for leaf in resolve_spec(one, (X,), None, None)] == ["x"]

    def test_function_without_signature(self) -> None:
        assert combine_args(torch.sin, (X,), {"out": None}) == {"arg0": X, "out": None}

    def test_missing_and_surplus(self) -> None:
        with refused("missing a required argument: 'y'", "the function takes (x: "):
            combine_args(two, (X,), {})
        with refused("got an unexpected keyword argument 'z'"):
            combine_args(two, (X, Y), {"z": 1})
        with refused("too many positional arguments", "Linear.forward takes"):
            resolve_spec(torch.nn.Linear(2, 2), (X, X), None, None)


# -- ShapesCollection -----------------------------------------------------------------------------


@pytest.mark.spec("1.28", "2.8")
class TestShapesCollection:
    def test_by_identity(self) -> None:
        deep = {"a": [X, X.clone()], "b": Pair(Y, 1)}
        shapes = ShapesCollection()
        shapes[deep["a"][1]] = {0: B}
        shapes[Y] = (None, S)
        assert shapes.dynamic_shapes(one, (deep,)) == {
            "x": {"a": [None, {0: B}], "b": [(None, S), None]}
        }
        found = {s.path: s.dims for s in resolve_spec(one, (deep,), None, shapes)}
        assert found == {
            "x['a'][0]": {},
            "x['a'][1]": {0: B},
            "x['b'].left": {1: S},
            "x['b'].right": None,
        }
        assert (len(shapes), Y in shapes, X in shapes, shapes[Y]) == (2, True, False, (None, S))

    def test_variadic_arguments(self) -> None:
        shapes = ShapesCollection()
        shapes[X] = {0: B}
        found = {s.path: s.dims for s in resolve_spec(variadic, (1, X), {"more": X}, shapes)}
        assert found == {"x": None, "rest[0]": {0: B}, "more": {0: B}}

    def test_entry_that_is_no_input(self) -> None:
        shapes = ShapesCollection()
        shapes[torch.zeros(5)] = {0: B}
        with refused("a spec for a tensor that is no input: shape (5,), spec {0: Dim('batch'"):
            resolve_spec(one, (X,), None, shapes)

    def test_two_specs_for_one_tensor(self) -> None:
        shapes = ShapesCollection()
        shapes[X] = {0: B}
        shapes[X] = {0: B}
        with refused("two specs for one tensor of shape (3, 8): {0: Dim('batch'"):
            shapes[X] = {0: S}

    def test_key_that_is_no_tensor(self) -> None:
        with refused("takes tensors as keys, got 'x'."):
            ShapesCollection()["x"] = {0: B}  # type: ignore[index]


def test_leaf_spec_is_compared_by_identity() -> None:
    """Tensors in it have no truth value to compare by."""
    assert LeafSpec("x", X, {}) != LeafSpec("x", X, {})
