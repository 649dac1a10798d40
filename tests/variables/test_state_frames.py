"""Programs with Python state, as frames: each call is right, or the frame is refused by type.

``python -m tests.variables.test_state_frames`` prints what becomes of each.
"""

from __future__ import annotations

import sys
import warnings
from typing import Any

import pytest
import torch
from tests.corpora import (
    state_programs_containers,
    state_programs_names,
    state_programs_objects,
    state_programs_tensors,
)
from tests.corpora.soundness_programs import difference
from tests.corpora.state_programs import PROGRAMS, Made, Program
from tests.variables.recapturing import Recapturing
from torch.utils import _pytree as pytree

from stillframe.errors import StillframeError

_FILES = (
    state_programs_containers,
    state_programs_names,
    state_programs_objects,
    state_programs_tensors,
)  # fmt: skip  (importing them fills PROGRAMS)


def outcome(item: Program) -> tuple[str, str]:
    """``("right", "")``, ``("refused", message)`` or ``("WRONG", difference)``."""
    expected = _calls(item, None)
    got = _calls(item, Recapturing)
    for number, (want, have) in enumerate(zip(expected, got, strict=False)):
        if isinstance(have, AssertionError):
            return "WRONG", str(have)
        if isinstance(have, StillframeError):
            return "refused", f"call {number}: {type(have).__name__}: {have}"
        if isinstance(have, Exception):
            if isinstance(want, Exception) and type(want) is type(have):
                return "right", f"call {number} raises"
            return "WRONG", f"call {number}: {type(have).__name__}: {have}"
        if isinstance(want, Exception):
            return "WRONG", f"call {number}: eager raises {want!r}"
        if found := difference(want, have):
            return "WRONG", f"call {number}: {found}"
    return "right", ""


def _calls(item: Program, wrapper: Any) -> list[Any]:
    torch.manual_seed(3)
    made = item.make()
    try:
        callee = made.module if wrapper is None else wrapper(made.module, made.look)
        found: list[Any] = []
        for number, thunk in enumerate(item.calls):
            found.append(_observed(made, callee, thunk, number))
            if isinstance(found[-1], Exception):
                break
        return found
    finally:
        made.done()


def _observed(made: Made, callee: Any, thunk: Any, number: int) -> Any:
    args, kwargs = thunk()
    torch.manual_seed(7)
    try:
        outputs = callee(*args, **kwargs)
    except Exception as e:
        return e
    inputs = [v for v in pytree.tree_leaves((args, kwargs)) if isinstance(v, torch.Tensor)]
    seen = {
        "outputs": [v.detach().clone() if isinstance(v, torch.Tensor) else v
                    for v in pytree.tree_leaves(outputs)],
        "buffers": [b.clone() for b in made.module.buffers()],
        "inputs": [v.detach().clone() for v in inputs],
        "attributes of inputs": [repr(sorted(vars(v))) for v in inputs],
        "gradients": [v.grad is None for v in [*inputs, *made.module.parameters()]],
        "outside": repr(made.look()),
    }  # fmt: skip
    made.between(number)
    return seen


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("item", [pytest.param(p, id=p.name) for p in PROGRAMS])
def test_a_frame_is_right_or_refused(item: Program) -> None:
    verdict, text = outcome(item)
    assert verdict != "WRONG", text


def main() -> None:
    """Print the outcome of every program, and how many there are of each."""
    warnings.simplefilter("ignore")
    counts = {"WRONG": 0, "right": 0, "refused": 0}
    for item in PROGRAMS:
        if len(sys.argv) > 1 and sys.argv[1] not in item.name:
            continue
        verdict, text = outcome(item)
        counts[verdict] += 1
        print(f"{item.name:50} {verdict:8} {text}"[:230].replace("\n", " "))
    print(f"{len(PROGRAMS)} programs: {counts}")


if __name__ == "__main__":
    main()
