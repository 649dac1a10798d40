"""Guards on all of a nested value notice every change, and nothing else."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.guards.holding import X, guard_on, holds

from stillframe.guards.checks import compile_checks
from stillframe.source import AttrSource, GetItemSource, Guard, Source, has_exact_form

CONSTANTS = [
    0,
    1,
    True,
    False,
    None,
    0.0,
    -0.0,
    float("nan"),
    1.0,
    "a",
    "",
    b"a",
    (),
    (1,),
    (True,),
]
SHAPES = [(2, 3), (3, 2), (2, 3, 1)]
KEYS = ["a", "b", 1, 2.5, None, (1, "k")]


def tensor(rng: random.Random) -> torch.Tensor:
    dtype = rng.choice([torch.float32, torch.float64])
    made = torch.zeros(rng.choice(SHAPES), dtype=dtype)
    if rng.random() < 0.2:
        made = made.t().contiguous().t() if made.dim() == 2 else made
    return made.requires_grad_(rng.random() < 0.2)


def value(rng: random.Random, depth: int) -> Any:
    """A random nested value."""
    pick = rng.randrange(8 if depth else 4)
    if pick < 3:
        return rng.choice(CONSTANTS)
    if pick == 3:
        return tensor(rng)
    items = [value(rng, depth - 1) for _ in range(rng.randrange(4))]
    if pick == 4:
        return items
    if pick == 5:
        return tuple(items)
    if pick == 6:
        return dict(zip(rng.sample(KEYS, len(items)), items, strict=True))
    return SimpleNamespace(**dict(zip("pqrs", items, strict=False)))


def guards_on(source: Source, seen: Any) -> list[Guard]:
    """Guards on everything in a value, as a capture that looked at all of it makes them."""
    if isinstance(seen, torch.Tensor):
        return [guard_on(source, "TENSOR_MATCH")]
    if isinstance(seen, SimpleNamespace):
        present = [guard_on(source, "HASATTR", attr=name) for name in "pqrs"]
        inside = [guards_on(AttrSource(source, n), v) for n, v in vars(seen).items()]
        return [guard_on(source, "TYPE_MATCH"), *present, *sum(inside, [])]
    if isinstance(seen, dict):
        inside = [guards_on(GetItemSource(source, k), v) for k, v in seen.items()]
        return [guard_on(source, "DICT_CONST_KEYS", ordered=True), *sum(inside, [])]
    if isinstance(seen, (list, tuple)) and not (seen and has_exact_form(seen)):
        inside = [guards_on(GetItemSource(source, i), v) for i, v in enumerate(seen)]
        return [guard_on(source, "SEQUENCE_LENGTH"), *sum(inside, [])]
    kind = "EQUALS_MATCH" if isinstance(seen, (list, tuple)) else "CONSTANT_MATCH"
    return [guard_on(source, kind)]


def look(seen: Any) -> str:
    """All that a program can see of a value but for identities and data; another way to say it."""
    if isinstance(seen, torch.Tensor):
        return f"T{tuple(seen.shape)}{seen.stride()}{seen.dtype}{seen.requires_grad}"
    if isinstance(seen, SimpleNamespace):
        return f"N{ {k: look(v) for k, v in sorted(vars(seen).items())} }"
    if isinstance(seen, dict):
        return f"D{[(repr(k), look(v)) for k, v in seen.items()]}"
    if isinstance(seen, (list, tuple)):
        return f"{type(seen).__name__}{[look(v) for v in seen]}"
    return repr(seen)


@pytest.mark.spec("4.17", "4.19", "4.20", "4.24", "4.27", "4.29", "4.32")
@pytest.mark.parametrize("seed", range(40))
def test_a_check_of_everything_tells_values_apart(seed: int) -> None:
    captured = value(random.Random(seed), 3)
    checks = compile_checks(guards_on(X, captured), {"x": captured}, {})
    assert holds(checks, x=value(random.Random(seed), 3))  # made again
    rng = random.Random(1000 + seed)
    for _ in range(20):
        other = value(rng, 3)
        assert holds(checks, x=other) is (look(other) == look(captured)), (captured, other)


def changed(rng: random.Random, seen: Any) -> Any:
    """The value with one thing in it replaced."""
    if isinstance(seen, (list, tuple)) and seen:
        at = rng.randrange(len(seen))
        return type(seen)(changed(rng, v) if i == at else v for i, v in enumerate(seen))
    if isinstance(seen, dict) and seen:
        at = rng.choice(list(seen))
        return {k: changed(rng, v) if k == at else v for k, v in seen.items()}
    if isinstance(seen, SimpleNamespace) and vars(seen):
        return SimpleNamespace(**changed(rng, vars(seen)))
    return value(rng, 1)


@pytest.mark.spec("4.17", "4.19", "4.20", "4.24", "4.27", "4.29", "4.32")
@pytest.mark.parametrize("seed", range(40))
def test_one_change_is_noticed(seed: int) -> None:
    captured = value(random.Random(seed), 4)
    checks = compile_checks(guards_on(X, captured), {"x": captured}, {})
    rng = random.Random(2000 + seed)
    for _ in range(20):
        other = changed(rng, captured)
        assert holds(checks, x=other) is (look(other) == look(captured)), (captured, other)
