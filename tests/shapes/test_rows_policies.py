"""What may become of a size: declared, Dim.DYNAMIC, Dim.AUTO, static; equal sizes, 0 and 1."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import stillframe as sf
from stillframe import Dim

Module = Callable[..., Any]


def t(*shape: int) -> torch.Tensor:
    return torch.arange(float(torch.Size(shape).numel())).reshape(shape)


def asks_nothing(x: torch.Tensor) -> torch.Tensor:
    return x * 2


def asks_for_a_range(x: torch.Tensor) -> torch.Tensor:
    return x * 2 if x.shape[0] > 4 else x


def asks_for_one_size(x: torch.Tensor) -> torch.Tensor:
    return x * 2 if x.shape[0] == 6 else x


POLICIES: list[tuple[str, Any, list[str]]] = [
    # the policy, and what becomes of the three functions above
    ("declared", Dim("b"), ["as declared", "violation", "violation"]),
    ("dynamic", Dim.DYNAMIC, ["as declared", "narrowed", "violation"]),
    ("auto", Dim.AUTO, ["as declared", "narrowed", "static"]),
    ("static", Dim.STATIC, ["static", "static", "static"]),
    ("none", None, ["static", "static", "static"]),
    ("int", 6, ["static", "static", "static"]),
]


@pytest.mark.spec("5.124", "5.132", "5.133")
@pytest.mark.parametrize(
    ("how", "expected"), [p[1:] for p in POLICIES], ids=[p[0] for p in POLICIES]
)
def test_what_a_guard_does_to_a_size_is_its_policy(how: Any, expected: list[str]) -> None:
    outcomes = []
    for f in (asks_nothing, asks_for_a_range, asks_for_one_size):
        try:
            program = sf.export(f, (t(6),), dynamic_shapes=({0: how},))
        except sf.ConstraintViolationError:
            outcomes.append("violation")
            continue
        outcomes.append(program.verdicts[0].outcome)
        assert program.module()(t(6)).tolist() == f(t(6)).tolist()
        if outcomes[-1] == "static":
            with pytest.raises(sf.CallError):
                program.module()(t(7))
        else:
            assert program.module()(t(7)).tolist() == f(t(7)).tolist()
    assert outcomes == expected


@pytest.mark.spec("5.132")
def test_a_hinted_size_that_became_static_is_a_note_with_the_line() -> None:
    program = sf.export(asks_for_one_size, (t(6),), dynamic_shapes=({0: Dim.AUTO},))
    (note,) = program.notes
    assert note.startswith("x.size(0) is static (6)") and "if x.shape[0] == 6" in note
    assert sf.export(asks_for_one_size, (t(6),), dynamic_shapes=({0: Dim.STATIC},)).notes == []


@pytest.mark.spec("5.128")
def test_static_wins_over_everything_below() -> None:
    program = sf.export(lambda x, y: x + y.sum(), (t(3, 4), t(5)), dynamic_shapes=Dim.STATIC)
    assert {v.outcome for v in program.verdicts} == {"static"}
    assert program.range_constraints == {} and program.guards == []


@pytest.mark.spec("5.133")
@pytest.mark.parametrize("how", [Dim.AUTO, Dim.DYNAMIC, "named"])
def test_equal_sizes_are_equal_only_if_the_program_says_so(how: Any) -> None:
    def f(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x.sum(1) + y

    if how == "named":
        spec: Any = ({0: Dim("p"), 1: Dim("q")}, {0: Dim("p")})
    else:
        spec = ([how, how], [how])
    program = sf.export(f, (t(5, 5), t(5)), dynamic_shapes=spec)
    torch.testing.assert_close(program.module()(t(3, 7), t(3)), f(t(3, 7), t(3)))
    with pytest.raises(sf.CallError):
        program.module()(t(3, 7), t(7))


@pytest.mark.spec("5.124")
def test_a_size_that_depends_on_the_data_has_no_example_to_decide_by() -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        return x.nonzero() * 2 if x.nonzero().shape[0] != 1 else x

    with pytest.raises(sf.DataDependentError, match="depends on the data"):
        sf.export(f, (t(6),))


@pytest.mark.spec("5.131")
def test_constraints_on_one_size_intersect_under_its_first_name() -> None:
    b = Dim("b", min=2, max=64)
    program = sf.export(
        lambda x, y: x + y, (t(8), t(8)), dynamic_shapes=({0: b}, {0: b}), assume=[b >= 4, b < 33]
    )
    (bounds,) = program.range_constraints.values()
    assert (bounds.lower, bounds.upper) == (4, 32)
    for size in (3, 33):
        with pytest.raises(sf.CallError, match=r"x: dim 0 \(b\)"):
            program.module()(t(size), t(size))
    with pytest.raises(sf.InvalidInput, match="the dim 'b' has two ranges"):
        sf.export(asks_nothing, (t(8),), dynamic_shapes=({0: b},), assume=[Dim("b", min=4) < 33])
    with pytest.raises(sf.InvalidInput, match="false for the example"):
        sf.export(asks_nothing, (t(8),), dynamic_shapes=({0: b},), assume=[b > 8, b < 8])


# -- what varied between examples -----------------------------------------------------------------


@pytest.mark.spec("5.130")
def test_what_differs_between_examples_varies() -> None:
    def f(x: torch.Tensor, n: int, y: torch.Tensor) -> torch.Tensor:
        return x[:, :n] + y.sum()

    more = sf.AdditionalInputs()
    program = sf.export(f, (t(3, 8), 2, t(4)), dynamic_shapes=more)
    assert {v.outcome for v in program.verdicts} == {"static"}
    more.add((t(3, 9), 2, t(4)))
    program = sf.export(f, (t(3, 8), 2, t(4)), dynamic_shapes=more)
    outcomes = {v.place: v.outcome for v in program.verdicts}
    assert outcomes["x.size(1)"] == "as declared" and outcomes["x.size(0)"] == "static"
    more.add((t(5, 8), 3, t(4)))
    program = sf.export(f, (t(3, 8), 2, t(4)), dynamic_shapes=more)
    assert [v.outcome for v in program.verdicts] == ["as declared"] * 3 + ["static"]
    torch.testing.assert_close(program.module()(t(1, 6), 4, t(4)), f(t(1, 6), 4, t(4)))
    more.add((t(3, 8, 1), 2, t(4)))
    with pytest.raises(sf.InvalidInput, match="x is a tensor of shape"):
        sf.export(f, (t(3, 8), 2, t(4)), dynamic_shapes=more)


# -- 0 and 1 --------------------------------------------------------------------------------------

HOW: list[tuple[str, Any, bool]] = [
    ("declared", Dim("b"), True),
    ("from zero to one", Dim("b", max=1), True),
    ("auto", Dim.AUTO, True),
    ("static", None, False),
]


@pytest.mark.spec("5.135")
@pytest.mark.parametrize("example", [0, 1, 2])
@pytest.mark.parametrize(("how", "varies"), [h[1:] for h in HOW], ids=[h[0] for h in HOW])
def test_zero_and_one_are_sizes_like_others(how: Any, varies: bool, example: int) -> None:
    if isinstance(how, Dim) and how.max is not None and example > how.max:
        with pytest.raises(sf.InvalidInput, match="outside the range"):
            sf.export(asks_nothing, (t(example, 3),), dynamic_shapes=({0: how},))
        return

    def f(x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, x * 2], 1).transpose(0, 1).contiguous()

    program = sf.export(f, (t(example, 3),), dynamic_shapes=({0: how},))
    for size in (0, 1, 2, 5):
        if not varies and size != example or isinstance(how, Dim) and not how.admits(size):
            with pytest.raises(sf.CallError, match="dim 0"):
                program.module()(t(size, 3))
        else:
            torch.testing.assert_close(program.module()(t(size, 3)), f(t(size, 3)))


@pytest.mark.spec("5.135")
def test_a_size_of_one_that_matters_is_a_condition() -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        return x.squeeze(0)

    with pytest.raises(sf.ConstraintViolationError, match="b"):
        sf.export(
            lambda x: f(x) if x.shape[0] == 1 else x, (t(1, 3),), dynamic_shapes=[{0: Dim("b")}]
        )
    program = sf.export(f, (t(1, 3),), dynamic_shapes=({0: Dim.AUTO, 1: Dim.AUTO},))
    assert program.module()(t(1, 5)).shape == (5,)
    with pytest.raises(sf.CallError, match=r"x: dim 0 .* is 2"):
        program.module()(t(2, 5))


# -- views and unusual tensors --------------------------------------------------------------------


@pytest.mark.spec("5.126")
def test_an_input_that_is_a_view_is_an_input_of_its_own() -> None:
    def f(x: torch.Tensor) -> Any:
        return x.reshape(-1) * 2, x.t().contiguous()

    base = torch.randn(6, 8)
    spec = ({0: Dim("p"), 1: Dim("q")},)
    for example in (base, base.t(), base[2:]):
        program = sf.export(f, (example,), dynamic_shapes=spec)
        (x,) = (n.meta["val"] for n in program.graph.nodes if n.op == "placeholder")
        assert x._base is None, "the base is no input"
        for other in (torch.randn(5, 3), base[:3], torch.randn(3, 5).t(), base[::2, 1::3]):
            for got, want in zip(program.module()(other), f(other), strict=True):
                assert torch.equal(got, want) and got.stride() == want.stride()


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_tensors_that_are_not_plain_are_refused_by_path() -> None:
    from torch.testing._internal.two_tensor import TwoTensor

    parts = [torch.ones(2), torch.ones(3)]
    nested = torch.nested.nested_tensor(parts)
    jagged = torch.nested.nested_tensor(parts, layout=torch.jagged)
    two = TwoTensor(torch.ones(3), torch.ones(3))
    for value, message in (
        (nested, "nested tensor"), (jagged, "nested tensor"), (two, "subclass .*TwoTensor"),
    ):  # fmt: skip
        with pytest.raises(sf.NotSupported, match=rf"^xs\[0\]: .*{message}"):
            sf.export(lambda xs: xs[0] * 2, ([value],))
