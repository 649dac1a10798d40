"""After the run: guards, held violations, and the ranges that a program declares."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.spying import note, taken
from torch import nn

import stillframe as sf
from stillframe import Dim

B = Dim("b", max=64)


def t(*shape: int) -> torch.Tensor:
    return torch.arange(float(torch.Size(shape).numel())).reshape(shape)


def ranges(program: sf.ExportedProgram) -> dict[str, tuple[float, float]]:
    """Expression in the user's names -> (lower, upper), in order."""
    found = {}
    for expr, bounds in program.range_constraints.items():
        text = str(expr)
        for symbol, name in program.dim_names.items():
            text = text.replace(symbol, name)
        found[text] = (bounds.lower, bounds.upper)
    return found


# -- guards and violations ------------------------------------------------------------------------


@pytest.mark.spec("1.30")
def test_static_sizes_that_nobody_looked_at_are_checked() -> None:
    def f(x: torch.Tensor, unused: torch.Tensor, deep: dict[str, torch.Tensor]) -> torch.Tensor:
        return x * 2

    program = sf.export(f, (t(3), t(4), {"a": t(2, 2)}), dynamic_shapes={"x": {0: B}})
    run = program.module()
    assert run(t(5), t(4), {"a": t(2, 2)}).shape == (5,)
    with pytest.raises(sf.CallError, match="unused: dim 0 is 5"):
        run(t(5), t(5), {"a": t(2, 2)})
    with pytest.raises(sf.CallError, match=r"deep\['a'\]: dim 1 is 3"):
        run(t(5), t(4), {"a": t(2, 3)})


@pytest.mark.spec("1.31")
def test_a_violation_waits_for_what_comes_after_it() -> None:
    """The run goes on after the first one, so the error knows them all and says what works."""

    def f(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        x = x + 1 if x.shape[0] > 2 else x
        note("first")
        y = y.view(-1, 4)
        note("second")
        return x.sum() + y.sum()

    with pytest.raises(sf.ConstraintViolationError) as caught:
        sf.export(f, (t(5), t(8)), dynamic_shapes=({0: B}, {0: Dim("n")}))
    assert taken() == ["first", "second"]
    text = str(caught.value)
    assert "if x.shape[0] > 2" in text and "y = y.view(-1, 4)" in text
    assert caught.value.kind is sf.UserErrorKind.CONSTRAINT_VIOLATION


@pytest.mark.spec("1.33")
def test_a_violation_that_leaves_nothing_dynamic_is_the_same_error() -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        return x.view(2, 3) if x.shape[0] == 6 else x

    with pytest.raises(sf.ConstraintViolationError) as caught:
        sf.export(f, (t(6),), dynamic_shapes=({0: B},))
    assert caught.value.spec == "dynamic_shapes = {}"
    assert "x.size(0) must be 6: leave it static" in str(caught.value)


@pytest.mark.spec("1.36")
def test_no_violation_no_error_and_no_guard() -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        return x + 1 if x.shape[0] <= 64 else x

    program = sf.export(f, (t(6),), dynamic_shapes=({0: B},))
    assert program.guards == [] and program.proposed_spec == ""


@pytest.mark.spec("2.44")
def test_the_state_is_back_when_the_judgement_fails() -> None:
    class M(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.ones(4))
            self.register_buffer("n", torch.zeros(()))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.n = self.n + 1
            return (x * self.w).view(-1, 2, 4)

    module = M()
    w, n = module.w, module.n
    with pytest.raises(sf.ConstraintViolationError):
        sf.export(module, (t(6, 4),), dynamic_shapes=({0: B},))
    assert module.w is w and module.n is n and float(n) == 0


@pytest.mark.spec("2.17", "2.44")
def test_an_error_of_forward_comes_before_the_judgement() -> None:
    def data(x: torch.Tensor) -> torch.Tensor:
        y = x.view(-1, 2)  # narrows the declared dim
        return y if x.sum() > 0 else -y

    def empty(x: torch.Tensor) -> torch.Tensor:
        torch._check(x.shape[0] > 100)
        return x

    with pytest.raises(sf.DataDependentError) as caught:
        sf.export(data, (t(6),), dynamic_shapes=({0: B},))
    assert caught.value.kind is sf.UserErrorKind.ANTI_PATTERN
    with pytest.raises(RuntimeError) as failed:
        sf.export(empty, (t(6),), dynamic_shapes=({0: B},))
    assert not isinstance(failed.value, sf.InternalError)


# -- ranges of the program ------------------------------------------------------------------------


def found(x: torch.Tensor) -> torch.Tensor:
    where = x.nonzero()
    torch._check(where.shape[0] >= 2)
    torch._check(where.shape[0] <= 9)
    return where * 2


@pytest.mark.spec("1.40", "1.41", "2.90")
def test_ranges_of_sizes_that_depend_on_the_data() -> None:
    program = sf.export(found, (t(20),))
    assert ranges(program) == {"u0": (2, 9)}
    program = sf.export(found, (t(20),), dynamic_shapes=({0: Dim("b", min=10)},))
    assert ranges(program) == {"b": (10, math.inf), "u0": (2, 9)}
    assert program.module()(torch.eye(4).reshape(-1)).shape == (4, 1)
    for ones in (1, 10):
        with pytest.raises(RuntimeError, match="u0"):
            program.module()(torch.cat([torch.ones(ones), torch.zeros(20)]))


@pytest.mark.spec("1.42")
@pytest.mark.parametrize("form", [dict, tuple, list])
def test_a_spec_by_position_says_the_same(form: Callable[..., Any]) -> None:
    def f(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x.sum() + y

    entries = {"x": {1: Dim("w", min=3)}, "y": {0: B}}
    spec = entries if form is dict else form(entries.values())
    for args, kwargs in (((t(2, 4), t(5)), {}), ((), {"y": t(5), "x": t(2, 4)})):
        program = sf.export(f, args, kwargs, dynamic_shapes=spec)
        assert sorted(ranges(program).items()) == [("b", (0, 64)), ("w", (3, math.inf))]


@pytest.mark.spec("1.43", "1.44", "2.91")
def test_constants_and_lifted_state_do_not_shift_the_ranges() -> None:
    class M(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 4)
            self.register_buffer("b", torch.ones(4))
            self.c = torch.ones(4)

        def forward(self, flag: bool, none: None, xs: list[torch.Tensor], n: int) -> torch.Tensor:
            return (self.linear(xs[0]) * self.b + self.c).sum() * n + xs[1].sum()

    args = (True, None, [t(3, 4), t(5)], 2)
    spec = {"xs": [None, {0: Dim("second", min=4, max=6)}]}
    program = sf.export(M(), args, dynamic_shapes=spec)
    kinds = [s.kind.name for s in program.graph_signature.input_specs]
    lifted = kinds.index("USER_INPUT")
    assert kinds == ["PARAMETER"] * 2 + ["BUFFER", "CONSTANT_TENSOR"] + ["USER_INPUT"] * 5
    assert ranges(program) == {"second": (4, 6)}
    vals = [n.meta["val"] for n in program.graph.nodes if n.op == "placeholder"]
    assert [v.sizes for v in vals[lifted + 2 : lifted + 3]] == [(3, 4)]
    assert [str(s) for s in vals[lifted + 3].sizes] == ["s0"]


@pytest.mark.spec("1.45")
def test_a_spec_of_a_tensor_that_leaves_a_dim_out() -> None:
    program = sf.export(lambda x: x * 2, (t(2, 3, 4),), dynamic_shapes=({1: B},))
    assert ranges(program) == {"b": (0, 64)}
    with pytest.raises(sf.CallError, match="x: dim 0 is 3"):
        program.module()(t(3, 3, 4))


@pytest.mark.spec("1.46")
def test_a_hinted_dim_has_the_range_that_was_learnt() -> None:
    def f(x: torch.Tensor, y: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        total = x + y  # y has the size of x
        return total * 2 if z.shape[0] > 4 else total

    spec = ({0: B}, {0: Dim.AUTO}, {0: Dim.AUTO})
    program = sf.export(f, (t(3), t(3), t(7)), dynamic_shapes=spec)
    assert ranges(program) == {"b": (0, 64), "y_dim0": (0, 64), "z_dim0": (5, math.inf)}
    run = program.module()
    assert run(t(64), t(64), t(5)).shape == (64,)
    for sizes, message in (((65, 65, 5), "x: dim 0"), ((3, 4, 5), "y"), ((3, 3, 4), "z: dim 0")):
        with pytest.raises(sf.CallError, match=message):
            run(*map(t, sizes))


@pytest.mark.spec("1.47", "1.48", "1.50")
def test_one_mapping_of_expressions_roots_and_data() -> None:
    half = Dim("half", min=2, max=10)

    def f(x: torch.Tensor, y: torch.Tensor, z: torch.Tensor) -> Any:
        return x * 2, y + 1, z.nonzero()

    spec = {"x": {0: 2 * half}, "y": {0: half + 1, 1: B}}
    program = sf.export(f, (t(6), t(4, 2), t(20)), dynamic_shapes=spec)
    assert ranges(program) == {
        "2*half": (4, 20), "half": (2, 10), "half + 1": (3, 11), "b": (0, 64), "u0": (0, 20),
    }  # fmt: skip


# -- the two flags about shapes -------------------------------------------------------------------


@pytest.mark.spec("2.3")
@pytest.mark.spec("2.4")
@pytest.mark.parametrize("strict", [False, True])
def test_relations_become_checks_and_equalities_still_fix_a_size(strict: bool) -> None:
    def f(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x.reshape(-1) + y

    spec = ({0: Dim("a"), 1: Dim("b")}, {0: Dim("c")})
    args = (t(3, 4), t(12))
    with pytest.raises(sf.ConstraintViolationError, match=r"a\*b == c"):
        sf.export(f, args, dynamic_shapes=spec, strict=strict)
    program = sf.export(
        f, args, dynamic_shapes=spec, strict=strict,
        prefer_deferred_runtime_asserts_over_guards=True,
    )  # fmt: skip
    torch.testing.assert_close(program.module()(t(2, 5), t(10)), f(t(2, 5), t(10)))
    with pytest.raises(sf.CallError, match=r"a\*b == c; this call has a=2 .*, b=5 .*, c=11"):
        program.module()(t(2, 5), t(11))

    def fixed(x: torch.Tensor) -> torch.Tensor:
        return x.expand(3)

    with pytest.raises(sf.ConstraintViolationError, match="b == 3"):
        sf.export(
            fixed, (t(3),), dynamic_shapes=({0: B},), strict=strict,
            prefer_deferred_runtime_asserts_over_guards=True,
        )  # fmt: skip
