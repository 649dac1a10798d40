"""``export``: from a module and example inputs to an ExportedProgram.

The order: check the arguments and read the dims spec (``request``); make fake inputs; run the
module once under the recorder, with fakes for its state (``recorded_run``); compare the module with
what it was before (``state_changes``); check the guards against the declared dims (``conditions``);
clean the graph and build the program (``building``). Here is what decides how often that is done,
and from which hints.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch

from stillframe import torch_private, usage
from stillframe.errors import NotSupported
from stillframe.export import effects, left_constants, leftovers
from stillframe.export.program import ExportedProgram
from stillframe.export.recorded_run import Capture
from stillframe.export.request import Request, make_request


def _flags(*, strict: bool = False, **_: Any) -> tuple[str, ...]:
    return ("strict" if strict else "non_strict", "pre_dispatch")


def _operators(program: ExportedProgram) -> dict[str, int]:
    """How many nodes call each function, subgraphs included."""
    graphs = [g for g in program.graph_module.modules() if isinstance(g, torch.fx.GraphModule)]
    nodes = (node for graph in graphs for node in graph.graph.nodes if node.op == "call_function")
    return dict(Counter(_name(node.target) for node in nodes))


def _name(target: Any) -> str:
    if isinstance(target, (torch._ops.OpOverload, torch._ops.HigherOrderOperator)):
        return str(target)
    return f"{target.__module__}.{target.__qualname__}"


@usage.reported("export", _flags, _operators)
def export(
    mod: torch.nn.Module | Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any] | None = None,
    *,
    dynamic_shapes: Any = None,
    strict: bool = False,
    control_flow: str = "refuse",
    preserve_module_call_signature: tuple[str, ...] = (),
    assume: Sequence[Any] = (),
    prefer_deferred_runtime_asserts_over_guards: bool = False,
    runtime_asserts: bool | None = None,
    verify: bool | int = False,
) -> ExportedProgram:
    """The work behind :func:`stillframe.export`; arguments and errors are described there."""
    request = make_request(
        mod,
        args,
        kwargs,
        sys._getframe(1),
        dynamic_shapes=dynamic_shapes,
        strict=strict,
        preserved=preserve_module_call_signature,
        assume=assume,
        prefer_asserts=prefer_deferred_runtime_asserts_over_guards,
        control_flow=control_flow,
        runtime_asserts=runtime_asserts,
    )
    with torch_private.ambient_modes_off():
        program = most_general(request, Capture)
    if verify:
        program.verify(request.callee, samples=3 if verify is True else int(verify))
    return program


def most_general(request: Request, make: type[Capture]) -> ExportedProgram:
    """Capture with hints that are not 0 or 1, so that an example of such a size decides nothing.

    If the program does not run so, or is then not for the example, the sizes that may be moved are
    found one by one, starting from the example itself.
    """
    capture = make(request, moved=None)
    if not capture.inputs.moved:
        return _run(capture)
    moved = capture.inputs.moved
    try:
        program = _run(capture)
        if capture.admits_example():
            return program
    except Exception:  # whatever it was, the example's own sizes say it better
        pass
    best = _run(make(request, moved=frozenset()))
    kept: frozenset[str] = frozenset()
    for key in moved if len(moved) > 1 else ():
        attempt = make(request, moved=kept | {key})
        try:
            program = _run(attempt)
        except Exception:
            continue
        if attempt.admits_example():
            best, kept = program, kept | {key}
    return best


def _run(capture: Capture) -> ExportedProgram:
    """Run a capture, a second time if a function of torch wants a plain boolean of sizes.

    torch's own argument parser refuses a symbolic one before anybody else sees the call. Then
    comparisons of sizes are decided when they are made, with guards where facts leave them open.
    """
    try:
        program = capture.run()
    except NotSupported as e:
        if "bool, not SymBool" not in str(e.__cause__):
            raise
        capture.restart()
        capture.env.decide_at_once = True
        program = capture.run()
    if capture.left and not capture.stale:
        _check_left(capture, program)
    return program


def _check_left(capture: Capture, program: ExportedProgram) -> None:
    """What forward leaves on the module must mean nothing to a later call.

    Raises:
        SideEffectError: it does, or nobody can tell; names the first attribute.
    """
    again = type(capture)(capture.request, capture.moved, capture.left, capture.made)
    try:
        other = _run(again)
    except Exception as e:
        raise effects.refusal(capture.left[0]) from e
    if not leftovers.leave_the_same(capture.left, again.left):
        raise effects.refusal(capture.left[0])
    if leftovers.are_the_same(program, other):
        return
    if not left_constants.has_constants_instead(program, other, capture.made):
        raise effects.refusal(capture.left[0])
