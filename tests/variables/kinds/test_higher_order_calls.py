"""Operators that take functions, called in frames."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest
import torch
import torch.utils.checkpoint
from tests.variables.checking import agrees, guards_of, refuses
from tests.variables.kinds.seen_kinds import watched
from torch._higher_order_ops import associative_scan, scan, while_loop
from torch._higher_order_ops.map import map as map_
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

import stillframe as sf
from stillframe.variables import capture_frame

COND = torch.ops.higher_order.cond
imported_cond = torch.cond


class Settings:
    def __init__(self, k: int = 3) -> None:
        self.k = k
        self.unused = 0


def branches(x: torch.Tensor, s: Settings) -> Any:
    return torch.cond(x.sum() > 0, lambda v: v + s.k, lambda v: v * s.k, (x,))


def branches_by_import(x: torch.Tensor, s: Settings) -> Any:
    return imported_cond(x.sum() > 0, lambda v: v + s.k, lambda v: v * s.k, (x,))


def loops(x: torch.Tensor, s: Settings) -> Any:
    count = torch.zeros((), dtype=torch.int64)
    return while_loop(lambda v, i: i < s.k, lambda v, i: (v * 2, i + 1), (x, count))


def scans(x: torch.Tensor, s: Settings) -> Any:
    return scan(lambda a, b: (a + b * s.k, a * b), x[0], x)


def combines(x: torch.Tensor, s: Settings) -> Any:
    return associative_scan(lambda a, b: a * b * s.k, x[:, None], 0, combine_mode="generic")


def maps(x: torch.Tensor, s: Settings) -> Any:
    return map_(lambda a, b: a * s.k + b, x, x[0] + 1)


def vmaps(x: torch.Tensor, s: Settings) -> Any:
    return torch.vmap(lambda v: v.sin() * s.k)(x)


@pytest.mark.spec("5.68")
@pytest.mark.parametrize("function", [branches, branches_by_import, loops, scans, combines, vmaps])
def test_what_the_functions_read_outside_is_guarded(function: Any) -> None:
    capture = agrees(
        function,
        lambda: (torch.arange(1.0, 5.0), Settings()),
        lambda: (-torch.arange(1.0, 5.0), Settings()),
    )
    found = guards_of(capture)
    assert "CONSTANT_MATCH L['s'].k" in found
    assert not any("unused" in guard for guard in found)
    assert "L['s'].k" in refuses(capture, torch.arange(1.0, 5.0), Settings(4))


@pytest.mark.spec("5.68")
def test_a_map_is_captured_with_guards() -> None:
    capture = capture_frame(maps, (torch.arange(6.0).reshape(3, 2), Settings()))
    x = torch.randn(3, 2)
    torch.testing.assert_close(capture(x, Settings()), x * 3 + (x[0] + 1))
    assert "L['s'].k" in refuses(capture, x, Settings(4))


@pytest.mark.spec("5.68")
def test_an_operator_is_known_by_class_and_name() -> None:
    def calls(x: torch.Tensor) -> Any:
        return COND(x.sum() > 0, lambda v: (v + 1,), lambda v: (v * 2,), (x,))

    with watched() as seen:
        capture = agrees(calls, lambda: (torch.ones(3),), lambda: (-torch.ones(3),))
    assert seen.kind("G['COND']") == "TorchHigherOrderOperatorVariable"
    assert {"TYPE_MATCH G['COND']", "NAME_MATCH G['COND']"} <= set(guards_of(capture))
    with mock.patch.dict(globals(), COND=torch.ops.higher_order.while_loop):
        assert "G['COND']" in refuses(capture, torch.ones(3))


def test_modules_as_arms_are_read_where_they_are() -> None:
    def chooses(x: torch.Tensor, a: torch.nn.Module, b: torch.nn.Module) -> Any:
        return torch.cond(x.sum() > 0, a, b, (x,))

    a, b = torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)
    capture = agrees(chooses, lambda: (torch.ones(3), a, b), lambda: (-torch.ones(3), a, b))
    with torch.no_grad():
        a.weight.mul_(2)
    torch.testing.assert_close(capture(torch.ones(3), a, b), a(torch.ones(3)))


def test_what_an_arm_changes_outside_of_it_is_refused() -> None:
    count, seen = 0, []
    box: dict[str, Any] = {}

    def counts(v: torch.Tensor) -> torch.Tensor:
        nonlocal count
        count += 1
        return v + count

    def appends(v: torch.Tensor) -> torch.Tensor:
        seen.append(1)
        return v + 1

    def stores(v: torch.Tensor) -> torch.Tensor:
        box["a"] = 1
        return v + 1

    for arm, what in ((counts, "cell"), (appends, "list"), (stores, "dict")):

        def chooses(x: torch.Tensor, arm: Any) -> Any:
            return torch.cond(x.sum() > 0, arm, lambda v: v * 2, (x,))

        with pytest.raises(sf.FrameError, match=f"changes a {what} outside"):
            capture_frame(chooses, (torch.ones(2), arm))
    assert (count, seen, box) == (0, [], {})


def test_what_the_program_made_before_an_arm_is_not_changed_in_it() -> None:
    def own_list(x: torch.Tensor) -> Any:
        kept: list[Any] = []

        def arm(v: torch.Tensor) -> torch.Tensor:
            kept.append(1)
            return v + 1

        return torch.cond(x.sum() > 0, arm, lambda v: v * 2, (x,)), len(kept)

    def own_object(x: torch.Tensor) -> Any:
        settings = Settings()

        def arm(v: torch.Tensor) -> torch.Tensor:
            settings.k += 1
            return v + settings.k

        return torch.cond(x.sum() > 0, arm, lambda v: v * 2, (x,)), settings.k

    for function in (own_list, own_object):
        with pytest.raises(sf.FrameError, match="outside of it"):
            capture_frame(function, (torch.ones(2),))


def test_an_arm_may_change_what_it_makes() -> None:
    def arm(v: torch.Tensor) -> torch.Tensor:
        kept = [v]
        kept.append(v * 2)
        return kept[0] + kept[1]

    def chooses(x: torch.Tensor) -> Any:
        return torch.cond(x.sum() > 0, arm, lambda v: v * 2, (x,))

    agrees(chooses, lambda: (torch.ones(2),), lambda: (-torch.ones(2),))


# -- checkpointing ---------------------------------------------------------------------------------


def leaf() -> torch.Tensor:
    return torch.arange(4.0, requires_grad=True)


@pytest.mark.spec("5.52")
@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("needs", [False, True])
def test_a_checkpoint_computes_what_its_function_computes(reentrant: bool, needs: bool) -> None:
    def region(x: torch.Tensor, s: Settings) -> Any:
        return checkpoint(lambda v: v.sin() * s.k, x, use_reentrant=reentrant)

    def world() -> tuple[Any, ...]:
        return (leaf() if needs else torch.arange(4.0)), Settings()

    with watched() as seen:
        capture = agrees(region, world)
    variable = seen.outside["G['checkpoint']"]
    kinds = [cls.__name__ for cls in type(variable).__mro__]
    assert "TorchHigherOrderOperatorVariable" in kinds
    assert "L['s'].k" in refuses(capture, world()[0], Settings(4))
    with mock.patch.dict(globals(), checkpoint=print):
        assert "G['checkpoint']" in refuses(capture, *world())
    if needs:
        ours, theirs = leaf(), leaf()
        capture(ours, Settings()).sum().backward()
        region(theirs, Settings()).sum().backward()
        torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.spec("5.52")
def test_a_checkpointed_module_and_its_random_numbers() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Dropout(0.5))

    def region(model: Any, x: torch.Tensor) -> Any:
        torch.manual_seed(3)
        return torch.utils.checkpoint.checkpoint(model, x, use_reentrant=False), torch.rand(2)

    agrees(region, lambda: (model, torch.ones(2, 4)))


def test_a_checkpoint_with_contexts_is_refused() -> None:
    def region(x: torch.Tensor) -> Any:
        return checkpoint(
            torch.sin,
            x,
            use_reentrant=False,
            context_fn=lambda: create_selective_checkpoint_contexts([]),
        )

    with pytest.raises(sf.FrameError, match="context_fn"):
        capture_frame(region, (leaf(),))
