"""make_fx(tracing_mode="symbolic") beside torch.fx.experimental.proxy_tensor.make_fx.

    python benchmarks/bench_make_fx.py [--check] [--json out.json] [--lib torch]

Two tables, parameters and buffers being inputs in both: the forward pass without gradients, and
the joint graph (forward and ``torch.autograd.grad`` of the sum of the outputs). A forward graph is
run beside eager, at sizes that were not traced too, before anything is timed.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from typing import Any

import torch
import torch.utils._pytree as pytree
from bench_export import cell, mean_of
from common import (
    TOLERANCE,
    Report,
    Target,
    interleaved,
    one_thread,
    parser,
    print_table,
    timed,
)
from models import SUBJECTS, Inputs, Model

import stillframe

MEAN_SPEEDUP = 10.0

Row = dict[str, Any]
Trace = Callable[..., torch.fx.GraphModule]


def tracers(choice: str) -> dict[str, Trace]:
    """The libraries that ``--lib`` names: ``trace(f, *args)`` of each."""
    from torch.fx.experimental.proxy_tensor import make_fx

    found: dict[str, Trace] = {
        "stillframe": lambda f, *args: stillframe.make_fx(f, tracing_mode="symbolic")(*args),
        "torch": lambda f, *args: make_fx(f, tracing_mode="symbolic")(*args),
    }
    return found if choice == "both" else {choice: found[choice]}


def forward(module: torch.nn.Module, inputs: Inputs, state: Any) -> list[torch.Tensor]:
    """The tensors that the module returns, with ``state`` for its parameters and buffers."""
    out = torch.func.functional_call(module, state, *inputs)
    return [t for t in pytree.tree_leaves(out) if isinstance(t, torch.Tensor)]


def subjects(module: torch.nn.Module, spec: pytree.TreeSpec) -> dict[str, Callable[..., Any]]:
    """What is traced: functions of the state and the leaves of the inputs."""

    def inference(state: Any, *leaves: Any) -> Any:
        with torch.no_grad():
            return forward(module, pytree.tree_unflatten(list(leaves), spec), state)

    def joint(state: Any, *leaves: Any) -> Any:
        outputs = forward(module, pytree.tree_unflatten(list(leaves), spec), state)
        loss = sum(t.sum() for t in outputs if t.is_floating_point())
        wanted = [p for p in state.values() if p.requires_grad]
        return torch.autograd.grad(loss, wanted, allow_unused=True)

    return {"forward": inference, "joint": joint}


def measure(model: Model, kind: str, found: dict[str, Trace], rounds: int) -> Row:
    """Check and time one model; seconds per library, nodes, and with both libraries the ratio."""
    module = model.build()
    state = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    runs = [model.example(), *model.others()]
    example = max(runs, key=lambda run: len(set(sharing(state, run))))
    admitted = [run for run in runs if sharing(state, run) == sharing(state, example)]
    leaves, spec = pytree.tree_flatten(example)
    f = subjects(module, spec)[kind]
    row: Row = {"model": model.name, "kind": kind}
    calls: dict[str, Callable[[], object]] = {}
    for name, trace in found.items():
        graph = trace(f, state, *leaves)
        row[f"{name}_nodes"] = len(graph.graph.nodes)
        if kind == "forward":
            check(graph, f, state, admitted)
        calls[name] = lambda trace=trace: trace(f, state, *leaves)
    samples = interleaved(calls, rounds)
    for name, values in samples.items():
        row[f"{name}_s"] = statistics.median(values)
        row[f"{name}_node_s"] = row[f"{name}_s"] / row[f"{name}_nodes"]
    if len(samples) == 2:
        row["ratio"] = row["torch_s"] / row["stillframe_s"]
        each = [t / s for t, s in zip(samples["torch"], samples["stillframe"], strict=True)]
        row["ratio_least"], row["ratio_most"] = min(each), max(each)
    return row


def sharing(state: Any, run: Inputs) -> list[int]:
    """For each size of the inputs, where the same size comes first: equal sizes share a symbol, so
    a graph is for all inputs that share alike."""
    sizes = [n for t in pytree.tree_leaves((state, run)) for n in getattr(t, "shape", ())]
    return [sizes.index(n) if n > 1 else -n - 1 for n in sizes]


def check(graph: Any, f: Callable[..., Any], state: Any, runs: list[Inputs]) -> None:
    """The graph equals eager on every input; its speed would mean nothing otherwise."""
    for run in runs:
        leaves = pytree.tree_leaves(run)
        with torch.no_grad():
            got, want = graph(state, *leaves), f(state, *leaves)
        torch.testing.assert_close(got, want, rtol=TOLERANCE, atol=TOLERANCE)


def show(title: str, names: list[str], rows: list[Row]) -> None:
    """One line per model."""
    header = ["model", *(f"{name} ms" for name in names), *(f"{name} us/node" for name in names)]
    header += ["ratio", "rounds from", "to"] if len(names) == 2 else []
    lines = []
    for row in rows:
        line = [row["model"], *(cell(row, f"{name}_s", 1e3) for name in names)]
        line += [cell(row, f"{name}_node_s", 1e6) for name in names]
        if len(names) == 2:
            line += [cell(row, key, 1, "x") for key in ("ratio", "ratio_least", "ratio_most")]
        lines.append(line)
    print_table(title, header, lines)


def main() -> int:
    """Run, print, judge."""
    p = parser(__doc__)
    p.add_argument("--rounds", type=int, default=5, help="timed traces of each, in turn")
    p.add_argument("--models", default="", help="only these, with commas")
    options = p.parse_args()
    one_thread()
    found = tracers(options.lib)
    for trace in found.values():
        timed(lambda trace=trace: trace(torch.sin, torch.ones(3)))
    report = Report("make_fx")
    names = [name for name in options.models.split(",") if name] or list(SUBJECTS)
    for kind in ("forward", "joint"):
        rows = [measure(SUBJECTS[name](), kind, found, options.rounds) for name in names]
        report.rows += rows
        show(f"make_fx, symbolic, {kind}", list(found), rows)
        if len(found) == 2:
            name = f"speed-up over torch's make_fx, {kind}, geometric mean"
            report.targets.append(Target(name, mean_of(rows, "ratio"), ">=", MEAN_SPEEDUP))
    return report.finish(options)


if __name__ == "__main__":
    sys.exit(main())
