"""Strict capture: the same graph as non-strict capture, and no side effect goes unseen."""

from __future__ import annotations

import array
import collections
import contextlib
import heapq
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

import stillframe as sf

SCALE = 2.5
COUNT = 0
TABLE: dict[str, Any] = {"n": 0}
GROUPS: dict[str, list[int]] = collections.defaultdict(list)
COUNTS = collections.Counter("a")
NUMBERS = array.array("i", [1])
SETTINGS = types.SimpleNamespace(depth=1, flags=[1, 2])
X = torch.ones(3, 4)


class Registry:
    total = 0
    seen: list[int] = []


class Block(nn.Module):
    def __init__(self, forward: Callable[..., Any] | None = None) -> None:
        super().__init__()
        self.lin = nn.Linear(4, 4)
        self.names = ["a", "b"]
        self.table = {"inner": [1]}
        self.config = types.SimpleNamespace(step=1)
        self.queue = collections.deque([1])
        self.register_buffer("n", torch.zeros(()))
        self.run = forward

    def forward(self, x: torch.Tensor) -> Any:
        return self.run(self, x) if self.run is not None else x


# -- the same graph ---------------------------------------------------------------------------


class Net(nn.Module):
    """Python of many kinds around the operators."""

    def __init__(self) -> None:
        super().__init__()
        self.seq = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), Block(lambda self, x: self.lin(x) + 1))
        self.layers = nn.ModuleList([nn.Linear(4, 4) for _ in range(2)])
        self.register_buffer("calls", torch.zeros(()))
        self.cache: dict[str, Any] = {}

    @property
    def scale(self) -> float:
        return SCALE

    def parts(self, x: torch.Tensor) -> Iterator[torch.Tensor]:
        for layer in self.layers:
            yield layer(x)

    @torch.no_grad()
    def frozen(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2

    def forward(self, x: torch.Tensor, flag: bool = True) -> dict[str, Any]:
        y = self.seq(x) * self.scale
        match y.shape:
            case (rows, 4) if rows > 2 and flag:
                y = y + rows
        found = sorted(((p.sum(), i) for i, p in enumerate(self.parts(y))), key=lambda p: -p[1])
        self.calls = self.calls + 1
        with torch.no_grad():
            total = sum(p for p, _ in found)
        try:
            self.cache["missing"]
        except KeyError as e:
            y = y * len(e.args)
        return {"y": y, "total": total, **{f"part{i}": p for p, i in found}, "f": self.frozen(y)}


def listing(program: sf.ExportedProgram) -> list[Any]:
    """The graph as text, with where each node came from."""
    nodes = program.graph_module.graph.nodes
    meta = [(n.name, n.meta.get("stack_trace"), n.meta.get("nn_module_stack")) for n in nodes]
    return [program.graph_module.code, meta]


@pytest.mark.spec("2.11")
@pytest.mark.spec("2.33")
@pytest.mark.spec("2.35")
def test_graph_and_metadata_are_those_of_non_strict_capture() -> None:
    dims = {"x": {0: sf.Dim("rows", min=3)}}
    strict = sf.export(Net().eval(), (X,), dynamic_shapes=dims, strict=True)
    plain = sf.export(Net().eval(), (X,), dynamic_shapes=dims)
    assert listing(strict) == listing(plain)


def test_the_program_equals_the_module() -> None:
    net = Net().eval()
    program = sf.export(net, (X,), dynamic_shapes=({0: sf.Dim("rows", min=3)},), strict=True)
    for rows in (3, 8):
        x = torch.randn(rows, 4)
        want, got = net(x), program.module()(x)
        assert want.keys() == got.keys()
        for name in want:
            torch.testing.assert_close(got[name], want[name])


def test_a_function_with_a_closure() -> None:
    shift = 3
    program = sf.export(lambda x: x + shift, (X,), strict=True)
    assert torch.equal(program.module()(X), X + 3)
    assert any("the variable shift around" in n and "is 3" in n for n in program.notes)


def test_numbers_read_from_globals_are_noted() -> None:
    program = sf.export(Block(lambda self, x: x * SCALE), (X,), strict=True)
    assert f"the global {__name__}.SCALE is 2.5, as it was at export" in program.notes


# -- side effects -----------------------------------------------------------------------------


def sets_global(self: Any, x: Any) -> Any:
    global COUNT
    COUNT += 1
    return x * COUNT


def sets_new_global(self: Any, x: Any) -> Any:
    global NEW
    NEW = 1
    return x


def sets_item(self: Any, x: Any) -> Any:
    TABLE["n"] += 1
    return x


def updates_by_method(self: Any, x: Any) -> Any:
    TABLE.update(n=5)
    return x


def deletes_item(self: Any, x: Any) -> Any:
    del TABLE["n"]
    return x


def sets_attribute(self: Any, x: Any) -> Any:
    SETTINGS.depth += 1
    return x


def sets_by_setattr(self: Any, x: Any) -> Any:
    setattr(SETTINGS, "new" + "est", 1)
    return x


def sets_by_vars(self: Any, x: Any) -> Any:
    vars(SETTINGS)["depth"] = 9
    return x


def sets_by_object(self: Any, x: Any) -> Any:
    object.__setattr__(SETTINGS, "depth", 9)
    return x


def adds_in_place(self: Any, x: Any) -> Any:
    SETTINGS.flags += [3]
    return x


def sets_class_attribute(self: Any, x: Any) -> Any:
    Registry.total += 1
    return x


def appends_to_class_attribute(self: Any, x: Any) -> Any:
    Registry.seen.append(1)
    return x


def appends_deeply(self: Any, x: Any) -> Any:
    for _, values in self.table.items():
        values.append(2)
    return x


def sets_object_of_self(self: Any, x: Any) -> Any:
    self.config.step = 2
    return x


def appends_to_deque(self: Any, x: Any) -> Any:
    self.queue.append(x)
    return x


def sets_module_attribute(self: Any, x: Any) -> Any:
    types.brand_new = 1  # type: ignore[attr-defined]
    return x


def appends_from_c(self: Any, x: Any) -> Any:
    list(map(Registry.seen.append, [1]))
    return x


def appends_by_class(self: Any, x: Any) -> Any:
    list.append(Registry.seen, 1)
    return x


def pushes_on_heap(self: Any, x: Any) -> Any:
    heapq.heappush(Registry.seen, 1)
    return x


def fills_default_dict(self: Any, x: Any) -> Any:
    return x * len(GROUPS["new"])


def counts(self: Any, x: Any) -> Any:
    COUNTS.update("ab")
    return x


def sets_array_item(self: Any, x: Any) -> Any:
    NUMBERS[0] = 5
    return x


def writes_globals_by_dict(self: Any, x: Any) -> Any:
    globals()["COUNT"] = 7
    return x


def writes_globals_by_exec(self: Any, x: Any) -> Any:
    exec("COUNT = 7", globals())
    return x


def counter() -> Callable[..., Any]:
    n = 0

    def sets_variable(self: Any, x: Any) -> Any:
        nonlocal n
        n += 1
        return x * n

    return sets_variable


@pytest.mark.parametrize(
    ("forward", "text"),
    [
        (sets_global, "sets the global {m}.COUNT"),
        (sets_new_global, "sets the global {m}.NEW"),
        (sets_item, "changes the global {m}.TABLE"),
        (updates_by_method, "calls .update() of the global {m}.TABLE"),
        (deletes_item, "changes the global {m}.TABLE"),
        (sets_attribute, "sets the global {m}.SETTINGS.depth"),
        (sets_by_setattr, "sets the global {m}.SETTINGS.newest"),
        (sets_by_vars, "changes the global {m}.SETTINGS.__dict__"),
        (sets_by_object, "sets the global {m}.SETTINGS.depth"),
        (adds_in_place, "changes the global {m}.SETTINGS.flags"),
        (sets_class_attribute, "sets Registry.total"),
        (appends_to_class_attribute, "calls .append() of Registry.seen"),
        (appends_from_c, "calls .append() of Registry.seen"),
        (appends_by_class, "calls .append() of Registry.seen"),
        (pushes_on_heap, "calls heappush() on Registry.seen"),
        (fills_default_dict, "changes the global {m}.GROUPS"),
        (counts, "calls _count_elements() on the global {m}.COUNTS"),
        (sets_array_item, "changes the global {m}.NUMBERS"),
        (writes_globals_by_dict, "changes the globals of {m}"),
        (writes_globals_by_exec, "sets the global {m}.COUNT"),
        (appends_deeply, "calls .append() of self.table['inner']"),
        (sets_object_of_self, "sets self.config.step"),
        (appends_to_deque, "calls .append() of self.queue"),
        (sets_module_attribute, "sets types.brand_new"),
        (counter(), "sets the variable n around counter.<locals>.sets_variable"),
    ],
    ids=lambda v: getattr(v, "__name__", ""),
)
def test_a_side_effect_is_refused_and_undone(forward: Any, text: str) -> None:
    block = Block(forward)
    before = _picture(block)
    with pytest.raises(sf.SideEffectError) as caught:
        sf.export(block, (X,), strict=True)
    assert f"forward {text.format(m=__name__)}, which was there" in caught.value.what
    assert any(f"in {forward.__qualname__}" in line for line in caught.value.where)
    assert caught.value.where[-1].strip("^ ") == "" or "<string>" in caught.value.where[-1]
    assert _picture(block) == before


def _picture(block: Any) -> str:
    cells = [cell.cell_contents for cell in block.run.__closure__ or ()]
    outside = [COUNT, TABLE, SETTINGS, GROUPS, COUNTS, NUMBERS, Registry.total, Registry.seen]
    added = ["NEW" in globals(), hasattr(types, "brand_new")]
    return repr((outside, block.table, block.config, block.queue, added, cells))


@contextlib.contextmanager
def deeper() -> Iterator[None]:
    SETTINGS.depth += 1
    try:
        yield
    finally:
        SETTINGS.depth -= 1


def test_a_change_that_is_taken_back_is_none() -> None:
    def forward(self: Any, x: Any) -> Any:
        with deeper():
            TABLE["n"] += 1
            y = x * SETTINGS.depth
            TABLE["n"] -= 1
        return y

    program = sf.export(Block(forward), (X,), strict=True)
    assert torch.equal(program.module()(X), X * 2)
    assert SETTINGS.depth == 1


def test_what_the_program_made_it_may_change() -> None:
    class Local:
        count = 0

    def forward(self: Any, x: Any) -> Any:
        n = 0

        def step() -> None:
            nonlocal n
            n += 1

        class Own:
            total = 0

        step()
        Own.total += n
        box = types.SimpleNamespace(items=[*self.names])
        box.items.append("c")
        copied = dict(self.table)
        copied["more"] = len(box.items)
        return x * (n + Own.total + copied["more"])

    assert torch.equal(sf.export(Block(forward), (X,), strict=True).module()(X), X * 5)


def test_attributes_of_modules_are_judged_as_without_strict() -> None:
    def rebinds(self: Any, x: Any) -> Any:
        self.n = self.n + 1
        return x + self.n

    module = sf.export(Block(rebinds), (X,), strict=True).module()
    assert [float(module(X)[0, 0]) for _ in range(2)] == [2.0, 3.0]

    def assigns(self: Any, x: Any) -> Any:
        self.extra = getattr(self, "extra", 0) + 1
        return x

    with pytest.raises(sf.SideEffectError, match="attribute self.extra"):
        sf.export(Block(assigns), (X,), strict=True)


def test_side_effects_inside_containers_of_modules_are_seen() -> None:
    for make in (nn.Sequential, lambda block: nn.Sequential(nn.Sequential(block), nn.ReLU())):
        with pytest.raises(sf.SideEffectError, match=r"sets the global .*COUNT"):
            sf.export(make(Block(sets_global)), (X,), strict=True)
        with pytest.raises(sf.SideEffectError, match=r"sets self.*config\.step"):
            sf.export(make(Block(sets_object_of_self)), (X,), strict=True)


# -- refusals and errors ----------------------------------------------------------------------


def test_unknown_compiled_code_is_refused() -> None:
    import _ctypes

    def forward(self: Any, x: Any) -> Any:
        return x * _ctypes.sizeof(_ctypes.Array)

    with pytest.raises(sf.FrameError, match=r"_ctypes\.sizeof is not known"):
        sf.export(Block(forward), (X,), strict=True)


def test_a_branch_on_data_is_refused_with_the_line() -> None:
    def forward(self: Any, x: Any) -> Any:
        if x.sum() > 0:
            return x
        return -x

    with pytest.raises(sf.DataDependentError) as caught:
        sf.export(Block(forward), (X,), strict=True)
    assert "if x.sum() > 0:" in str(caught.value)


def test_an_error_of_the_program_is_its_own() -> None:
    def forward(self: Any, x: Any) -> Any:
        COUNT_ALIAS = TABLE["no such key"]
        return x * COUNT_ALIAS

    with pytest.raises(KeyError, match="no such key"):
        sf.export(Block(forward), (X,), strict=True)


def test_an_error_comes_before_the_side_effects_that_it_interrupts() -> None:
    def forward(self: Any, x: Any) -> Any:
        SETTINGS.depth += 1
        vars(SETTINGS).update(flags=[])
        raise ValueError("its own")

    before = repr(SETTINGS)
    with pytest.raises(ValueError, match="its own"):
        sf.export(Block(forward), (X,), strict=True)
    assert repr(SETTINGS) == before


def test_a_guard_names_the_line() -> None:
    def forward(self: Any, x: Any) -> Any:
        return x if x.shape[0] > 10 else x + 1

    with pytest.raises(sf.ConstraintViolationError) as caught:
        sf.export(Block(forward), (X,), dynamic_shapes=({0: sf.Dim("b")},), strict=True)
    assert "x.shape[0] > 10" in str(caught.value)
