"""Inputs of a capture: paths and order, constants, symbols, and what surrounds the call."""

from __future__ import annotations

import collections
import gc
from typing import Any, NamedTuple

import pytest
import torch
from tests.spying import note, taken
from torch import nn
from torch.utils import _pytree as pytree

import stillframe as sf
from stillframe import Dim
from stillframe.export.inputs import InputMaker
from stillframe.fake.tensor import FakeTensor
from stillframe.shapes.dims import resolve_spec
from stillframe.shapes.env import ShapeEnv

B = Dim("b", max=64)


class Pair(NamedTuple):
    left: torch.Tensor
    right: torch.Tensor


class Box:
    """A container without names for its children."""

    def __init__(self, a: Any, b: Any) -> None:
        self.a, self.b = a, b


@pytest.fixture
def box() -> Any:
    pytree.register_pytree_node(Box, lambda b: ([b.a, b.b], None), lambda c, _: Box(*c))
    yield Box
    pytree._deregister_pytree_node(Box)


def t(*shape: int) -> torch.Tensor:
    return torch.arange(float(torch.Size(shape).numel())).reshape(shape)


def placeholders(program: sf.ExportedProgram) -> dict[str, Any]:
    """Name -> ``val``, in order."""
    return {n.name: n.meta["val"] for n in program.graph.nodes if n.op == "placeholder"}


# -- paths and order ------------------------------------------------------------------------------


@pytest.mark.spec("1.1", "1.10")
def test_every_leaf_has_its_path_positional_before_keyword() -> None:
    def f(x: Any, pair: Pair, *rest: Any, key: Any, **more: Any) -> torch.Tensor:
        return x["a"][0] + x["a"][1] + pair.left + pair.right + rest[0] + key + more["z"]

    v = torch.ones(2)
    program = sf.export(
        f, ({"a": [v, v]}, Pair(v, v), v), {"z": v, "key": v}, dynamic_shapes=sf.auto
    )
    paths = ["x['a'][0]", "x['a'][1]", "pair.left", "pair.right", "rest[0]", "z", "key"]
    assert [v.place for v in program.verdicts] == [f"{path}.size(0)" for path in paths]
    assert list(placeholders(program)) == [
        "x_a_0", "x_a_1", "pair_left", "pair_right", "rest_0", "z", "key",
    ]  # fmt: skip
    three = torch.ones(3)
    with pytest.raises(sf.CallError, match=r"pair\.right: dtype is int64"):
        program.module()(
            {"a": [three, three]}, Pair(three, three.long()), three, z=three, key=three
        )


@pytest.mark.spec("1.2")
def test_children_without_keys_are_numbered(box: Any) -> None:
    def f(x: Box) -> torch.Tensor:
        return x.a + x.b

    program = sf.export(f, (box(t(3), t(3)),), dynamic_shapes={"x": [{0: B}, {0: B}]})
    assert [v.place for v in program.verdicts] == ["x[0].size(0)", "x[1].size(0)"]
    with pytest.raises(sf.CallError, match=r"x\[1\]: dim 0 is 4, must be b = 5"):
        program.module()(box(t(5), t(4)))
    with pytest.raises(sf.InvalidInput, match=r"x\[1\] is a tensor of shape \(3,\)"):
        sf.export(f, (box(t(3), t(3)),), dynamic_shapes={"x": [None, "wrong"]})


@pytest.mark.spec("1.21")
def test_forward_gets_the_containers_of_the_call(box: Any) -> None:

    def f(pair: Any, table: Any, items: Any, boxed: Any, *, named: Any) -> torch.Tensor:
        note((pair, table, items, boxed, named))
        return pair.left * 2

    v = torch.ones(2)
    args = (Pair(v, v), collections.OrderedDict(b=v, a=v), [v, (v,)], box(v, 3))
    sf.export(f, args, {"named": {"k": v}})
    ((pair, table, items, boxed, named),) = taken()
    assert type(pair) is Pair and type(table) is collections.OrderedDict
    assert list(table) == ["b", "a"] and type(items) is list and type(items[1]) is tuple
    assert type(boxed) is Box and boxed.b == 3 and type(named) is dict
    leaves = pytree.tree_leaves((pair, table, items, boxed.a, named))
    assert len(leaves) == 8 and all(isinstance(leaf, FakeTensor) for leaf in leaves)


@pytest.mark.spec("1.14", "1.27")
def test_a_wrong_spec_is_told_before_forward_runs() -> None:
    runs: list[int] = []

    def f(x: torch.Tensor, y: Any) -> torch.Tensor:
        runs.append(1)
        return x + 1

    for args, spec in (
        ((t(3), 1), {"z": None}),
        ((t(3), 1), {"x": {3: B}}),
        ((t(65), 1), {"x": {0: B}}),
        ((t(3), object()), {"x": {0: B}}),
    ):
        with pytest.raises(sf.InvalidInput) as caught:
            sf.export(f, args, dynamic_shapes=spec)
        assert caught.value.kind is sf.UserErrorKind.INVALID_INPUT
    assert runs == []


@pytest.mark.spec("1.14")
def test_what_the_input_maker_gives() -> None:
    def f(x: torch.Tensor, n: int, y: torch.Tensor) -> None: ...

    half = Dim("half", min=1, max=8)
    spec = {"x": {0: 2 * half}, "y": {0: half + 1}}
    env = ShapeEnv()
    made = InputMaker(env, resolve_spec(f, (t(6, 2), 7, t(4)), {}, spec)).make()
    x, n, y = made.leaves
    assert n == 7 and [str(s) for s in x.sizes] == ["2*s0", "2"]
    assert [str(s) for s in y.sizes] == ["s0 + 1"]
    assert made.dim_names == {"s0": "half"}
    assert [(scale, offset) for _, _, scale, offset in made.derived] == [(2, 0), (1, 1)]
    (info,) = env.symbols.values()
    assert (info.declared.lower, info.declared.upper, info.example) == (1, 8, 3)


# -- constants ------------------------------------------------------------------------------------


class Colour(str):
    """A string with an identity of its own."""


@pytest.mark.spec("1.3", "2.62")
def test_constants_are_handed_through_and_stay_constants() -> None:
    name = Colour("red")
    given = (None, 12345, 2.5, True, name)

    def f(x: torch.Tensor, *rest: Any) -> torch.Tensor:
        note(rest)
        return x * rest[1] if rest[3] is True else x

    program = sf.export(f, (t(3), *given), dynamic_shapes=sf.auto)
    assert all(a is b for a, b in zip(taken()[0], given, strict=True))
    values = list(placeholders(program).values())
    assert isinstance(values[0], FakeTensor)
    assert all(a is b for a, b in zip(values[1:], given, strict=True))
    assert program.graph_signature.user_inputs == ("x", *given)
    assert program.module()(t(5), *given).tolist() == (t(5) * 12345).tolist()
    for other in ((None, 12345, 2.5, 1, name), (None, 12346, 2.5, True, name)):
        with pytest.raises(sf.CallError, match="rest"):
            program.module()(t(3), *other)


# -- symbols --------------------------------------------------------------------------------------


@pytest.mark.spec("1.5", "1.49", "1.41", "2.16")
def test_without_a_spec_everything_is_static() -> None:
    program = sf.export(lambda x, y: x + y[:2].sum(), (t(3, 4), t(5)))
    assert program.range_constraints == {} and program.guards == [] and program.dim_names == {}
    sizes = [s for val in placeholders(program).values() for s in val.sizes]
    assert sizes == [3, 4, 5] and all(type(s) is int for s in sizes)
    for args in ((t(3, 5), t(5)), (t(3, 4), t(6))):
        with pytest.raises(sf.CallError, match="dim"):
            program.module()(*args)


@pytest.mark.spec("1.6", "1.8")
def test_only_declared_dims_vary_and_keep_the_users_name() -> None:
    program = sf.export(
        lambda x: x * 2, (t(3, 4, 5),), dynamic_shapes={"x": {0: B, -1: Dim("width", min=2)}}
    )
    (x,) = placeholders(program).values()
    assert [type(s) is int for s in x.sizes] == [False, True, False]
    assert program.module()(t(7, 4, 2)).shape == (7, 4, 2)
    with pytest.raises(sf.CallError, match=r"dim 2 \(width\) is 1") as caught:
        program.module()(t(7, 4, 1))
    assert "s0" not in str(caught.value) and "s1" not in str(caught.value)
    with pytest.raises(sf.CallError, match="x: dim 1 is 3"):
        program.module()(t(7, 3, 5))


@pytest.mark.spec("1.15", "1.22", "1.24")
def test_one_name_is_one_size_in_all_inputs() -> None:
    def f(x: torch.Tensor, y: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        return x + y + z.sum()

    spec = {"x": {0: B}, "y": {0: B}, "z": {0: 2 * B}}
    program = sf.export(f, (t(3), t(3), t(6)), dynamic_shapes=spec)
    x, y, z = placeholders(program).values()
    assert x.sizes[0] is y.sizes[0] and program.guards == []
    torch.testing.assert_close(program.module()(t(4), t(4), t(8)), f(t(4), t(4), t(8)))
    with pytest.raises(sf.CallError, match=r"y: dim 0 is 5, must be b = 4 .*dim 0 of x"):
        program.module()(t(4), t(5), t(8))
    with pytest.raises(sf.CallError, match=r"z: dim 0 is 9, must be 2\*b = 8"):
        program.module()(t(4), t(4), t(9))


@pytest.mark.spec("1.24")
def test_derived_dims_share_a_root_that_no_input_has() -> None:
    half = Dim("half", min=2, max=8)
    program = sf.export(
        lambda x, y: (x * 2, y * 2), (t(6), t(4)), dynamic_shapes=({0: 2 * half}, {0: half + 1})
    )
    assert [r.numel() for r in program.module()(t(10), t(6))] == [10, 6]
    for args, message in (
        ((t(10), t(5)), "y: dim 0"),
        ((t(7), t(4)), "x: dim 0"),
        ((t(18), t(10)), "half"),
        ((t(2), t(2)), "half"),
    ):
        with pytest.raises(sf.CallError, match=message):
            program.module()(*args)


@pytest.mark.spec("1.7")
def test_a_tensor_passed_twice_is_two_inputs() -> None:
    def f(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, y])

    both = t(3)
    shapes = sf.ShapesCollection()
    shapes[both] = {0: B}
    program = sf.export(f, (both, both), dynamic_shapes=shapes)
    assert program.module()(t(5), -t(5)).tolist() == f(t(5), -t(5)).tolist()
    with pytest.raises(sf.CallError, match=r"y: dim 0 is 4, must be b = 5"):
        program.module()(t(5), t(4))
    program = sf.export(f, (both, both), dynamic_shapes={"x": {0: B}})
    assert program.module()(t(5), t(3)).numel() == 8
    with pytest.raises(sf.CallError, match="y: dim 0 is 5"):
        program.module()(t(5), t(5))


@pytest.mark.spec("1.9")
@pytest.mark.parametrize("form", ["plain", "transposed", "grad", "parameter", "int", "offset"])
def test_a_fake_has_the_metadata_of_the_example(form: str) -> None:
    example: torch.Tensor = {
        "plain": t(3, 4),
        "transposed": t(4, 3).t(),
        "grad": t(3, 4).requires_grad_(),
        "parameter": nn.Parameter(t(3, 4)),
        "int": t(3, 4).to(torch.int16),
        "offset": t(5, 4)[2:],
    }[form]

    def f(x: torch.Tensor) -> torch.Tensor:
        note((x.dtype, x.device, x.requires_grad, x.is_leaf, tuple(x.shape), x.stride()))
        return x + 1

    program = sf.export(f, (example,))
    assert taken() == [
        (
            example.dtype, example.device, example.requires_grad, example.is_leaf,
            tuple(example.shape), example.stride(),
        )
    ]  # fmt: skip
    assert placeholders(program)["x"].requires_grad == example.requires_grad


@pytest.mark.spec("1.11")
def test_a_spec_is_never_inherited_by_the_id_of_a_dead_tensor() -> None:
    shapes = sf.ShapesCollection()
    for _ in range(50):
        shapes[torch.zeros(4)] = {0: B}
    gc.collect()
    assert len(shapes) == 50, "the collection keeps its tensors alive"
    fresh = [torch.zeros(4) for _ in range(50)]
    assert not any(x in shapes for x in fresh)
    with pytest.raises(sf.InvalidInput, match="a tensor that is no input"):
        sf.export(lambda *xs: xs[0] + 1, tuple(fresh), dynamic_shapes=shapes)


@pytest.mark.spec("1.12")
def test_state_is_static_whatever_the_inputs_are() -> None:
    class M(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.second = nn.Parameter(torch.ones(4))
            self.first = nn.Parameter(torch.ones(4))
            self.register_buffer("mean", torch.ones(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            note((type(self.first.shape[0]), isinstance(self.first, nn.Parameter)))
            return x + self.first.sum() + self.second.sum() + self.mean.sum()

    program = sf.export(M(), (torch.ones(4),), dynamic_shapes=sf.auto)
    vals = placeholders(program)
    assert list(vals) == ["p_second", "p_first", "b_mean", "x"]
    assert [type(v.sizes[0]) is int for v in vals.values()] == [True, True, True, False]
    assert taken() == [(int, True)]
    assert [v.place for v in program.verdicts] == ["x.size(0)"], "state is no input"


# -- ambient state --------------------------------------------------------------------------------


@pytest.mark.spec("1.16")
def test_the_fakes_of_others_do_not_matter() -> None:
    """A fake mode and a tracing context around the call are not used, and are there after it."""
    from torch._guards import TracingContext, tracing
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.utils._python_dispatch import _get_current_dispatch_mode

    linear, x = nn.Linear(4, 4), torch.randn(3, 4)
    mode = FakeTensorMode()
    with tracing(TracingContext(mode)), mode:
        program = sf.export(linear, (x,), dynamic_shapes=({0: B},))
        assert _get_current_dispatch_mode() is mode
        assert TracingContext.get().fake_mode is mode
    assert program.dim_names == {"s0": "b"}
    torch.testing.assert_close(program.module()(x[:2]), linear(x[:2]))


@pytest.mark.spec("1.17", "5.123")
def test_every_capture_has_an_environment_of_its_own() -> None:
    table = torch.ones(4)

    def f(x: torch.Tensor) -> torch.Tensor:
        return x * table  # a real tensor may meet the fakes

    small = sf.export(f, (t(1, 4),), dynamic_shapes=({0: Dim("small", max=4)},))
    large = sf.export(f, (t(9, 4),), dynamic_shapes=({0: Dim("large", min=5)},))
    assert small.dim_names == {"s0": "small"} and large.dim_names == {"s0": "large"}
    assert [(r.lower, r.upper) for r in small.range_constraints.values()] == [(0, 4)]
    assert small.module()(t(2, 4)).shape == (2, 4) and large.module()(t(6, 4)).shape == (6, 4)
    with pytest.raises(sf.CallError, match="outside 0..4"):
        small.module()(t(6, 4))


@pytest.mark.spec("5.123")
def test_a_repeated_run_leaves_no_symbols_behind() -> None:
    """For an example of size 1 the module may run more than once; the program shows one run."""

    def f(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x + 1 if x.shape[0] == 1 else y

    args, spec = (t(1, 3), t(1, 3)), [[Dim.AUTO, Dim.AUTO], [Dim.AUTO, Dim.AUTO]]
    program = sf.export(f, args, dynamic_shapes=spec)
    assert list(program.dim_names) == ["s0", "s1", "s2", "s3"]
    assert str(program) == str(sf.export(f, args, dynamic_shapes=spec))
    assert [v.outcome for v in program.verdicts] == ["static", *["as declared"] * 3]


@pytest.mark.spec("1.20")
def test_a_module_built_under_a_fake_mode_is_refused_by_name() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode() as mode:
        linear = nn.Linear(4, 4)
    with pytest.raises(sf.NotSupported, match=r"self\.weight: .*FakeTensor") as caught:
        sf.export(linear, (torch.ones(3, 4),))
    assert "torch.device('meta')" in str(caught.value)
    with pytest.raises(sf.NotSupported, match=r"input: .*FakeTensor"):
        sf.export(nn.Linear(4, 4), (mode.from_tensor(torch.ones(3, 4)),))
    with torch.device("meta"):
        linear = nn.Linear(4, 4)
    program = sf.export(linear, (torch.ones(3, 4, device="meta"),), dynamic_shapes=[{0: B}])
    assert program.module()(torch.ones(5, 4, device="meta")).shape == (5, 4)


def test_symbolic_sizes_of_an_outer_capture() -> None:
    """They keep their meaning by being refused; static ones of an inner export go on."""
    inner = nn.Linear(4, 4)

    def f(x: torch.Tensor) -> torch.Tensor:
        return x * len(sf.export(inner, (x,)).graph.nodes)

    with pytest.raises(sf.NotSupported, match="input: has symbolic sizes of a capture in progress"):
        sf.export(f, (t(3, 4),), dynamic_shapes=({0: B},))
    assert sf.export(f, (t(3, 4),)).module()(t(3, 4)).tolist() == (t(3, 4) * 5).tolist()


def test_script_modules_are_refused_by_name() -> None:
    class Holder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = torch.jit.trace(nn.Linear(4, 4), torch.ones(3, 4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x)

    holder = Holder()
    for module, name in ((holder.inner, "mod"), (holder, r"self\.inner")):
        with pytest.raises(sf.NotSupported, match=f"{name} is a TorchScript module"):
            sf.export(module, (torch.ones(3, 4),))
