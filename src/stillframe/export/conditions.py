"""What the run assumed, against what was declared: the conditions of every call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from stillframe.export import constraints
from stillframe.export.inputs import FakeInputs
from stillframe.export.request import Request
from stillframe.export.verdicts import Verdict, verdicts
from stillframe.shapes.dims import spec_from_leaves
from stillframe.shapes.env import Guard, ShapeEnv
from stillframe.shapes.solve import solve
from stillframe.symbolic import Facts


@dataclass(frozen=True, eq=False)
class Conditions:
    """What holds in every call of a program.

    Attributes:
        guards: what each call checks.
        verdicts: what became of each size.
        proposed_spec: a dims spec that says so; empty where the declared one does.
        notes: a sentence for each condition that no call checks.
    """

    guards: list[Guard]
    verdicts: list[Verdict]
    proposed_spec: str
    notes: list[str]


def conditions(request: Request, env: ShapeEnv, baseline: Facts, inputs: FakeInputs) -> Conditions:
    """The conditions of every call, after the run.

    Args:
        baseline: the facts before the run: what was declared.

    Raises:
        ConstraintViolationError: the program does not work for all declared sizes.
    """
    guards, violations = constraints.check_guards(
        env, baseline, prefer_asserts=request.prefer_asserts
    )
    solution = solve(env, env.facts)
    found = verdicts(env, inputs, solve(env, baseline), solution)
    spec = ""
    if violations or any(i.policy == "auto" for i in env.symbols.values()):
        spec = constraints.spec_text(solution, inputs, _mirror(request))
    if violations:
        raise constraints.violation(env, violations, found, spec)
    if request.runtime_asserts:
        return Conditions(guards, found, spec, [])
    believed = constraints.narrowing(env)
    notes = constraints.belief_notes(env, believed)
    return Conditions([g for g in guards if g not in believed], found, spec, notes)


def _mirror(request: Request) -> Callable[[Callable[[int], Any]], dict[str, Any]]:
    """A function that makes a spec by argument name with ``entry(index)`` at each leaf."""
    index = {spec.path: i for i, spec in enumerate(request.leaf_specs)}

    def mirror(entry: Callable[[int], Any]) -> dict[str, Any]:
        return spec_from_leaves(
            request.callee, request.args, request.kwargs, lambda path, _: entry(index[path])
        )

    return mirror
