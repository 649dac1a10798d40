"""Trace torch's samples of higher-order operators: ``python -m tests.trace.sweep_hops``.

Every entry of ``hop_db`` is traced in each mode and the graph is run beside eager; then the graph
is traced again; then, where the entry has a gradient, the gradient is traced. Entries that torch
runs on other devices only are tried on the CPU. With ``--torch`` torch's own ``make_fx`` runs
beside. ``hops_expectations.txt`` lists what is not ``ok``, with reasons; the outcomes are those of
:mod:`tests.trace.sweep_make_fx`.
"""

from __future__ import annotations

import argparse
import collections
import functools
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from tests.trace.sweep_make_fx import (
    MODES,
    SEVERITY,
    Outcome,
    compare,
    name_of,
    surprises,
)
from torch.testing._internal.hop_db import hop_db
from torch.utils import _pytree as pytree

import stillframe as sf

Program = Callable[..., Any]

EXPECTATIONS = Path(__file__).with_name("hops_expectations.txt")

KINDS = ("forward", "again", "backward")

#: What eager refuses although the meaning is plain.
ORACLES: dict[str, Program] = {"invoke_quant_packed.simple": lambda x: torch.sin(x) * 2.0}

#: They have a gradient, whatever the database says.
DIFFERENTIABLE = ("register_hook.simple",)

#: Their tensors must require gradients in forward, too.
NEEDS_GRAD = ("register_hook.simple",)

#: Eager itself refuses these on the CPU, so there is nothing that a graph could be compared with.
NOT_RUNNABLE = {
    "flex_attention.simple:backward": "flex_attention() refuses gradients on the CPU",
    "inline_asm_elementwise.simple:forward": "assembly of a GPU",
    "inline_asm_elementwise.simple:again": "assembly of a GPU",
}


def check_entry(info: Any, mode: str, library: str = "stillframe") -> list[Outcome]:
    """The outcomes of one entry in one mode: one of each kind that applies."""
    return [
        check_kind(info, mode, kind, library)
        for kind in KINDS
        if kind != "backward" or info.supports_autograd or name_of(info) in DIFFERENTIABLE
    ]


def check_kind(info: Any, mode: str, kind: str, library: str) -> Outcome:
    """Trace all samples of one entry in one way."""
    outcome = Outcome(f"{name_of(info)}:{kind}", mode)
    for program, oracle, tensors in programs_of(info, kind):
        check_sample(outcome, program, oracle, tensors, mode, kind, library)
    return outcome


def programs_of(info: Any, kind: str) -> Iterator[tuple[Program, Program, list[torch.Tensor]]]:
    """Of each sample: what is traced, what it is compared with, and the tensors for both."""
    for sample in info.sample_inputs("cpu", torch.float32, requires_grad=False):
        leaves, spec = pytree.tree_flatten(((sample.input, *sample.args), sample.kwargs))
        at = [i for i, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)]

        def call(
            function: Program, *tensors: Any, leaves: Any = leaves, at: Any = at, spec: Any = spec
        ) -> Any:
            filled = list(leaves)
            for i, tensor in zip(at, tensors, strict=True):
                filled[i] = tensor
            args, kwargs = pytree.tree_unflatten(filled, spec)
            return function(*args, **kwargs)

        program = functools.partial(call, info.op)
        oracle = functools.partial(call, ORACLES.get(name_of(info), info.op))
        tensors = [leaves[i].detach() for i in at]
        if kind == "backward":
            program, oracle = gradients_of(program), gradients_of(oracle)
        elif name_of(info) in NEEDS_GRAD:
            tensors = [t.requires_grad_() for t in tensors]
        yield program, oracle, tensors


def eager_refuses(info: Any, kind: str) -> bool:
    """Whether eager raises on all samples."""
    for _, oracle, tensors in programs_of(info, kind):
        try:
            oracle(*tensors)
        except Exception:
            continue
        return False
    return True


def gradients_of(function: Program) -> Program:
    """The gradients of the sum of the results, for all floating-point arguments."""

    def run(*tensors: Any) -> Any:
        inputs = [t.detach().requires_grad_(t.is_floating_point()) for t in tensors]
        results = [r for r in pytree.tree_leaves(function(*inputs)) if r.requires_grad]
        wanted = [t for t in inputs if t.requires_grad]
        return torch.autograd.grad(sum(r.sum() for r in results), wanted)

    return run


def check_sample(
    outcome: Outcome,
    program: Program,
    oracle: Program,
    tensors: list[torch.Tensor],
    mode: str,
    kind: str,
    library: str,
) -> None:
    """Trace, run, compare."""

    def copies() -> list[torch.Tensor]:
        return [t.detach().clone().requires_grad_(t.requires_grad) for t in tensors]

    make_fx = tracer(mode, library)
    try:
        graph = make_fx(program)(*copies())
        if kind == "again":
            graph = make_fx(graph)(*copies())
    except sf.StillframeError as error:
        outcome.add("refused", f"{type(error).__name__}: {error.what}")
        return
    except Exception as error:
        found = "refused" if _raises(type(error), oracle, copies()) else "error"
        outcome.add(found, f"{type(error).__name__}: {error}"[:400])
        return
    try:
        compare(graph(*copies()), oracle(*copies()), metadata_only=False)
    except Exception as error:
        outcome.add("wrong", f"{type(error).__name__}: {error}"[:400])
        return
    outcome.add("ok")


def _raises(kind: type[Exception], function: Program, args: list[Any]) -> bool:
    """Whether eager raises an error of this kind as well."""
    try:
        function(*args)
    except kind:
        return True
    return False


def tracer(mode: str, library: str) -> Program:
    """``make_fx`` of one of the libraries in one mode."""
    if library == "stillframe":
        return lambda f: sf.make_fx(f, tracing_mode=mode, allow_non_fake_inputs=True)
    from torch.fx.experimental.proxy_tensor import make_fx

    return lambda f: make_fx(f, tracing_mode=mode, _allow_non_fake_inputs=True)


def main() -> int:
    p = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    p.add_argument("--entries", default="", help="only these names, with commas")
    p.add_argument("--torch", action="store_true", help="torch's own make_fx beside it")
    p.add_argument("--details", action="store_true", help="the first failure of each outcome")
    options = p.parse_args()
    warnings.filterwarnings("ignore")
    wanted = [name for name in options.entries.split(",") if name]
    entries = [i for i in hop_db if not wanted or i.name in wanted or name_of(i) in wanted]
    unexpected: list[str] = []
    for library in ("stillframe", *(["torch"] if options.torch else [])):
        found = [o for i in entries for mode in MODES for o in check_entry(i, mode, library)]
        worst = collections.Counter(o.worst for o in found)
        print(f"{library:12}" + "  ".join(f"{kind} {worst[kind]}" for kind in SEVERITY))
        runnable = [o for o in found if o.op not in NOT_RUNNABLE]
        fine = sum(o.worst == "ok" for o in runnable)
        print(f"{'':12}of the {len(runnable)} that eager runs here, {fine} ok")
        for outcome in found:
            if options.details and outcome.worst != "ok":
                text = " ".join(outcome.first[outcome.worst].split())
                print(f"  {outcome.op} {outcome.mode} {outcome.worst}  # {text}")
        if library == "stillframe":
            unexpected = surprises(found, "float32", EXPECTATIONS)
    print(f"{len(unexpected)} surprises" + "".join(f"\n  {line}" for line in unexpected))
    return 1 if unexpected else 0


if __name__ == "__main__":
    sys.exit(main())
