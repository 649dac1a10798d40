"""What the user promised of sizes, against what the capture came to rely on."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator

from stillframe.errors import ConstraintViolationError
from stillframe.shapes.env import Guard, ShapeEnv
from stillframe.source import TensorProperty, TensorPropertySource
from stillframe.symbolic import Expr, Facts, Range, substitute, symbol, to_python
from stillframe.variables.dynamism import RelaxedUnspecConstraint, StrictMinMaxConstraint
from stillframe.variables.graph_inputs import TrackedFake

Promise = RelaxedUnspecConstraint | StrictMinMaxConstraint


def check_constraints(
    env: ShapeEnv, tracked: Iterable[TrackedFake], dim_names: dict[str, str]
) -> None:
    """Compare each constraint with the guards on its size.

    Args:
        env: has the guards.
        tracked: the inputs, with their symbolic contexts.
        dim_names: the user's names of sizes, by the name of the size's source.

    Raises:
        ConstraintViolationError: a guard narrows a size more than its constraint allows.
    """
    for name, size, constraint in _constrained(tracked):
        broken = _violation(env, size, constraint)
        if broken is None:
            continue
        error = _error(dim_names.get(name, name), size, constraint, broken)
        if not constraint.warn_only:
            raise error
        warnings.warn(str(error), stacklevel=4)


def _constrained(
    tracked: Iterable[TrackedFake],
) -> Iterator[tuple[str, Expr, Promise]]:
    for one in tracked:
        if one.symbolic_context is None:
            continue
        for dim, constraint in enumerate(one.symbolic_context.constraint_sizes):
            size = one.fake.sizes[dim]
            if constraint is not None and isinstance(size, Expr):
                name = TensorPropertySource(one.source, TensorProperty.SIZE, dim).name()
                yield name, size, constraint


def _violation(env: ShapeEnv, size: Expr, constraint: Promise) -> Guard | None:
    """The guard that breaks a constraint; None: it is kept."""
    about = [guard for guard in env.guards if size in guard.expr.free_symbols]
    if isinstance(constraint, RelaxedUnspecConstraint):
        fixed = env.facts.simplify(size).is_constant
        return about[-1] if fixed and about else None
    facts = Facts()
    for known, info in env.symbols.items():
        if known.sort == "int":
            facts.set_range(known, info.declared)
    return next((guard for guard in about if facts.decide(guard.expr) is not True), None)


def _error(name: str, size: Expr, constraint: Promise, broken: Guard) -> ConstraintViolationError:
    shown = to_python(substitute(broken.expr, {size: symbol("size")}))
    if isinstance(constraint, RelaxedUnspecConstraint):
        promised = "was promised to vary" if not constraint.warn_only else "has varied before"
    else:
        promised = f"was promised to be any of {_range_text(constraint.range)}"
    return ConstraintViolationError(
        f"The size {name} {promised}, but the program asks for `{shown}`.",
        why="it is right for other sizes only if it never asks",
        where=broken.where,
        hints=[f"take the promise about {name} back, or do without the question"],
    )


def _range_text(bounds: Range) -> str:
    return f"{bounds.lower}..{bounds.upper}"
