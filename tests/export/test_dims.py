"""Declared sizes in an export: relations, sets, numbers, open sizes, edge examples, verdicts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import stillframe as sf
from stillframe import Dim

B, H, W, S, N = Dim("b"), Dim("h"), Dim("w"), Dim("s"), Dim("n", min=1)


def t(*shape: int) -> torch.Tensor:
    return torch.arange(float(torch.Size(shape).numel())).reshape(shape)


def pasted(spec: str) -> dict[str, Any]:
    """The keyword arguments that a suggested spec declares."""
    names: dict[str, Any] = {"Dim": Dim}
    exec(spec, names)
    return {k: names[k] for k in ("dynamic_shapes", "assume") if k in names}


def same(program: sf.ExportedProgram, f: Callable[..., Any], *args: Any) -> None:
    torch.testing.assert_close(program.module()(*args), f(*args))


def refused(program: sf.ExportedProgram, *args: Any, match: str) -> None:
    with pytest.raises(sf.CallError, match=match):
        program.module()(*args)


# -- relations ------------------------------------------------------------------------------------


class TestAssume:
    def test_a_multiple(self) -> None:
        def f(x: torch.Tensor) -> torch.Tensor:
            return x.view(-1, 2)

        program = sf.export(f, (t(4),), dynamic_shapes=({0: B},), assume=[B % 2 == 0])
        same(program, f, t(10))
        same(program, f, t(0))
        refused(program, t(5), match=r"b % 2 == 0; this call has b=5")

    def test_equal_sizes_by_text(self) -> None:
        def f(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return x + y

        program = sf.export(f, (t(4), t(4)), dynamic_shapes=({0: H}, {0: W}), assume=["h == w"])
        same(program, f, t(7), t(7))
        refused(program, t(7), t(6), match="h == w")

    def test_sums_and_bounds(self) -> None:
        def f(x: torch.Tensor, y: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
            return (torch.cat([x, y]) + z)[: 4 * x.shape[0]]

        program = sf.export(
            f, (t(3), t(5), t(8)), dynamic_shapes=({0: H}, {0: W}, {0: S}),
            assume=[H + W == S, W <= 2 * H],
        )  # fmt: skip
        same(program, f, t(4), t(1), t(5))
        refused(program, t(4), t(9), t(13), match=r"w <= 2\*h")
        refused(program, t(4), t(2), t(7), match=r"h \+ w == s")

    @pytest.mark.parametrize(
        ("assume", "message"),
        [
            ([True], "assume has True, which is no relation between dims"),
            ("b == 4", "assume must be a list of relations, got str"),
            (["b =="], "cannot be read"),
            (["b + 1"], "is no condition"),
            (["b == q"], "about the dim 'q', which no input has"),
            ([B == 5], "`b == 5` is false for the example, b = 4"),
            ([B != 4], "`b != 4` is false for the example"),
            ([Dim("b", min=2) != 3], "the dim 'b' has two ranges"),
        ],
    )
    def test_what_does_not_fit(self, assume: Any, message: str) -> None:
        with pytest.raises(sf.InvalidInput, match=message.replace("(", r"\(")):
            sf.export(torch.relu, (t(4),), dynamic_shapes=[{0: B}], assume=assume)


def test_one_of_a_set() -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        return x * 2

    program = sf.export(f, (t(8),), dynamic_shapes=({0: Dim("b", values=(1, 8, 32))},))
    for size in (1, 8, 32):
        same(program, f, t(size))
    for size in (0, 2, 31, 33):
        refused(program, t(size), match="b")


# -- numbers --------------------------------------------------------------------------------------


class TestNumbers:
    def test_an_int_that_varies(self) -> None:
        def f(x: torch.Tensor, n: int) -> torch.Tensor:
            return x[:n] * n

        program = sf.export(f, (t(6), 3), dynamic_shapes=({0: B}, Dim.DYNAMIC))
        for n in (0, 2, 6, 9, -2, -7):
            same(program, f, t(6), n)
        refused(program, t(6), 2.0, match="n: is 2.0, the program takes an int")
        refused(program, t(6), True, match="n: is True, the program takes an int")

    def test_an_int_with_a_range_that_is_a_size(self) -> None:
        def f(x: torch.Tensor, n: int) -> torch.Tensor:
            return x.view(n, -1)

        spec = {"x": {0: 4 * Dim("n", min=1)}, "n": Dim("n", min=1)}
        program = sf.export(f, (t(12), 3), dynamic_shapes=spec)
        same(program, f, t(20), 5)
        refused(program, t(0), 0, match="n")
        refused(program, t(20), 4, match="x: dim 0")

    def test_a_float_that_varies(self) -> None:
        def f(x: torch.Tensor, scale: float) -> torch.Tensor:
            return x * scale + scale

        program = sf.export(f, (t(3), 0.5), dynamic_shapes=(None, Dim.DYNAMIC))
        same(program, f, t(3), 2.75)
        refused(program, t(3), 2, match="scale: is 2, the program takes a float")

    def test_a_question_about_a_float_is_checked(self) -> None:
        def f(x: torch.Tensor, scale: float) -> torch.Tensor:
            return x * scale if scale > 0.25 else -x

        program = sf.export(f, (t(3), 0.5), dynamic_shapes=(None, Dim.AUTO))
        same(program, f, t(3), 0.3)
        refused(program, t(3), 0.2, match=r"scale > 0.25; this call has scale=0.2")

    def test_numbers_survive_a_file(self, tmp_path: Path) -> None:
        def f(x: torch.Tensor, n: int, scale: float) -> torch.Tensor:
            return x[:n] * scale

        program = sf.export(f, (t(6), 3, 0.5), dynamic_shapes=(None, Dim.DYNAMIC, Dim.DYNAMIC))
        sf.save(program, tmp_path / "m.still")
        loaded = sf.load(tmp_path / "m.still")
        same(loaded, f, t(6), 5, 0.25)
        assert str(loaded.explain()) == str(program.explain())


def test_additional_inputs_tell_what_varies() -> None:
    def f(x: torch.Tensor, n: int, tables: list[torch.Tensor]) -> torch.Tensor:
        return x[:, :n] + tables[0]

    more = sf.AdditionalInputs()
    more.add((t(5, 8), 1, [t(1)]))
    program = sf.export(f, (t(3, 8), 1, [t(1)]), dynamic_shapes=more)
    assert [v.outcome for v in program.verdicts] == ["as declared", "static", "static"]
    same(program, f, t(9, 8), 1, [t(1)])
    more.add((t(5, 8), 4, [t(1)]))
    same(sf.export(f, (t(3, 8), 1, [t(1)]), dynamic_shapes=more), f, t(2, 8), 3, [t(1)])
    for args, message in (
        ((t(5, 8, 1), 1, [t(1)]), "same number of dims"),
        ((t(5, 8), "a", [t(1)]), "n is 1 and 'a'"),
        ((t(5, 8), 1, []), r"has no tables\[0\]"),
        ((t(5, 8), 1, [t(1), t(1)]), r"tables\[1\], which the first has not"),
    ):
        other = sf.AdditionalInputs()
        other.add(args)
        with pytest.raises(sf.InvalidInput, match=message):
            sf.export(f, (t(3, 8), 1, [t(1)]), dynamic_shapes=other)


# -- examples never decide ------------------------------------------------------------------------


class TestExamplesAtTheEdge:
    @pytest.mark.parametrize("size", [0, 1, 2, 64])
    def test_any_example_size(self, size: int) -> None:
        def f(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return torch.cat([x + y, x], 1).relu()

        dim = Dim("b", min=0, max=64)
        program = sf.export(f, (t(size, 3), t(1, 3)), dynamic_shapes=({0: dim}, None))
        assert program.guards == []
        for n in (0, 1, 2, 5, 64):
            same(program, f, t(n, 3), t(1, 3))
        refused(program, t(65, 3), t(1, 3), match="outside 0..64")

    def test_auto_stays_dynamic_for_a_batch_of_one(self) -> None:
        program = sf.export(torch.nn.Linear(4, 2), (t(1, 4),), dynamic_shapes=[{0: Dim.AUTO}])
        assert program.verdicts[0].outcome == "as declared"

    def test_a_question_is_answered_for_the_example(self) -> None:
        def f(x: torch.Tensor) -> torch.Tensor:
            return x + 1 if x.shape[0] == 1 else x

        program = sf.export(f, (t(1, 4),), dynamic_shapes=({0: Dim.AUTO, 1: Dim.AUTO},))
        assert [v.outcome for v in program.verdicts] == ["static", "as declared"]
        (note,) = program.notes
        assert "x.size(0) is static (1)" in note and "if x.shape[0] == 1" in note
        same(program, f, t(1, 7))
        refused(program, t(2, 4), match="x: dim 0")

    def test_sizes_that_broadcast_are_found_one_by_one(self) -> None:
        def f(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return x * 2 + y

        # dim 0 of x must be 1 beside the 4 of y, dim 1 of both may be anything
        program = sf.export(f, (t(1, 1, 3), t(4, 1, 3)), dynamic_shapes=sf.auto)
        outcomes = {v.place: v.outcome for v in program.verdicts}
        assert outcomes["x.size(0)"] == "static" and outcomes["y.size(0)"] == "as declared"
        same(program, f, t(1, 6, 3), t(9, 6, 3))


# -- verdicts -------------------------------------------------------------------------------------


class TestOpenSizes:
    def test_the_proposed_spec_declares_what_is_admitted(self) -> None:
        def f(x: torch.Tensor, deep: dict[str, Any]) -> torch.Tensor:
            y, z = deep["y"], deep["more"][0]
            return (x @ y).view(-1, 4).sum() + (z[::2] + x[0]).sum()

        args = (t(2, 6), {"y": t(6, 8), "more": [t(12)]})
        program = sf.export(f, args, dynamic_shapes=sf.auto)
        spec = pasted(program.proposed_spec)
        again = sf.export(f, args, **spec)
        assert again.range_constraints
        for n, m, k in ((2, 6, 8), (4, 3, 2), (1, 10, 4)):
            inputs = (t(n, m), {"y": t(m, k), "more": [t(2 * m)]})
            same(program, f, *inputs)
            same(again, f, *inputs)
        bad = (t(3, 2), {"y": t(2, 2), "more": [t(4)]})
        refused(program, *bad, match="% 4 == 0")
        refused(again, *bad, match="% 4 == 0")

    def test_named_dims_are_kept(self) -> None:
        program = sf.export(
            lambda x, y: x + y, (t(4, 3), t(4, 3)), dynamic_shapes=({0: B}, Dim.AUTO)
        )
        assert [v.outcome for v in program.verdicts] == [
            "related", "static", "equal", "static",
        ]  # fmt: skip
        assert "b = Dim('b')" in program.proposed_spec

    def test_numbers_are_part_of_it(self) -> None:
        def f(x: torch.Tensor, scale: float, shift: int) -> torch.Tensor:
            return x * scale + shift

        declared = ({0: B}, Dim.AUTO, Dim.AUTO)
        program = sf.export(f, (t(3, 4), 0.5, 3), dynamic_shapes=declared)
        spec = pasted(program.proposed_spec)
        assert spec["dynamic_shapes"]["scale"] is Dim.AUTO
        same(sf.export(f, (t(3, 4), 0.5, 3), **spec), f, t(5, 4), 0.25, 7)


CORRECTED: list[tuple[str, Callable[..., Any], tuple[Any, ...], Any, str]] = [
    ("range", lambda x: x + 1 if x.shape[0] > 4 else x, (t(8),), ({0: B},), "Dim('b', min=5)"),
    ("multiple", lambda x: x.view(-1, 8), (t(16),), ({0: B},), "{0: 8*_b}"),
    ("remainder", lambda x: x[1:].view(-1, 4), (t(9),), ({0: N},), "{0: 4*_n + 1}"),
    ("equal", lambda x, y: x + y, (t(3), t(3)), ({0: H}, {0: W}), "'y': {0: h}"),
    ("derived", lambda x, y: x + y[:-1], (t(3), t(4)), ({0: H}, {0: N}), "{0: h + 1}"),
    ("half", lambda x, y: x[::2] + y, (t(6), t(3)), ({0: H}, {0: W}), "w == (h + 1)//2"),
    ("product", lambda x: x.view(-1, 4), (t(2, 6),), ({0: H, 1: W},), "h*w % 4 == 0"),
    ("static", lambda x: x.expand(3), (t(3),), ({0: B},), "dynamic_shapes = {}"),
    ("two", lambda x, y: torch.cat([x, y]).view(4, -1), (t(2), t(6)), ({0: H}, {0: W}), "% 4"),
]


@pytest.mark.spec("1.34", "1.35", "1.37", "1.38")
@pytest.mark.parametrize(
    ("f", "args", "spec", "expected"), [c[1:] for c in CORRECTED], ids=[c[0] for c in CORRECTED]
)
def test_the_corrected_spec_exports(
    f: Callable[..., Any], args: tuple[Any, ...], spec: Any, expected: str
) -> None:
    with pytest.raises(sf.ConstraintViolationError) as caught:
        sf.export(f, args, dynamic_shapes=spec)
    assert expected in caught.value.spec
    assert caught.value.spec.splitlines()[-1] in str(caught.value), "it is shown"
    same(sf.export(f, args, **pasted(caught.value.spec)), f, *args)


def test_conditions_by_way_of_an_auto_dim_are_violations() -> None:
    def f(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (x + y).view(-1, 4) if y.shape[0] > 8 else x

    with pytest.raises(sf.ConstraintViolationError) as caught:
        sf.export(f, (t(12), t(12)), dynamic_shapes=({0: B}, {0: Dim.AUTO}))
    assert "y.shape[0] > 8" in str(caught.value)


class TestPreferAsserts:
    def export(self, f: Callable[..., Any], *args: Any) -> sf.ExportedProgram:
        return sf.export(
            f, args, dynamic_shapes=[{0: Dim(n)} for n, _ in zip("hw", args, strict=False)],
            prefer_deferred_runtime_asserts_over_guards=True,
        )  # fmt: skip

    @pytest.mark.spec("1.18", "1.39")
    def test_complex_conditions_are_checked_when_called(self) -> None:
        def f(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return torch.cat([x, y]).view(-1, 4)

        program = self.export(f, t(6), t(2))
        same(program, f, t(3), t(5))
        refused(program, t(3), t(4), match=r"\(h \+ w\) % 4 == 0")

    @pytest.mark.spec("1.38")
    def test_a_condition_with_one_solution_too_but_not_a_fixed_size(self) -> None:
        def f(x: torch.Tensor) -> torch.Tensor:
            return x + 1 if x.shape[0] // 4 == 2 else x

        program = self.export(f, t(8))
        same(program, f, t(11))
        refused(program, t(12), match=r"x: dim 0 \(h\) is 12, outside 8..11")
        with pytest.raises(sf.ConstraintViolationError, match="h == 8"):
            self.export(lambda x: x + 1 if x.shape[0] == 8 else x, t(8))


# -- explain --------------------------------------------------------------------------------------


class TestExplain:
    def program(self) -> sf.ExportedProgram:
        def f(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            found = (x + y).nonzero()
            torch._check(found.shape[0] > 2)
            return found if y.shape[1] > 3 else -found

        spec = ({0: Dim("b", min=1), 1: S}, {0: Dim("b", min=1), 1: Dim.AUTO})
        return sf.export(f, (t(2, 6), t(2, 6)), dynamic_shapes=spec, assume=[S > 4])

    def test_each_size_and_condition_has_its_line(self) -> None:
        text = str(self.program().explain())
        assert "x.size(0): b, 1..   (declared Dim('b', min=1))" in text
        assert "y.size(1): s, 5..   (declared Dim.AUTO; equal)" in text
        assert "s >= 5   as assumed" in text
        assert "found = (x + y).nonzero()" in text
        assert "u0 >= 3   because of" in text and "torch._check(found.shape[0] > 2)" in text

    def test_about_one_name(self) -> None:
        explanation = self.program().explain("y")
        assert [v.place for v in explanation.sizes] == ["y.size(0)", "y.size(1)"]
        assert explanation.checks == ()
        with pytest.raises(sf.InvalidInput, match=r"no size called 'q'.*\n.*x.size\(0\)"):
            self.program().explain("q")

    def test_static_sizes_say_so(self) -> None:
        program = sf.export(torch.relu, (t(3),), dynamic_shapes=None)
        assert "size(0): static, 3   (not declared)" in str(program.explain())
