"""run_decompositions, stillframe beside torch.export, in one process.

    python benchmarks/bench_decompositions.py [--check] [--json out.json] [--models bert_12]

Per model: both libraries export it with dynamic shapes and bring the program into core form; the
results are checked against eager at sizes that were not exported; then ``run_decompositions`` alone
is timed, in turn. "first" is the first one of that model in the process. Operators that only one
of the two leaves are printed.

Joint graphs: forward and backward of BERT in one graph, gradients checked against eager. There
is nothing in torch's public interface to set beside it.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from typing import Any

import torch
from common import (
    Library,
    Mismatch,
    Report,
    Target,
    check,
    geometric_mean,
    interleaved,
    libraries,
    one_thread,
    parser,
    print_table,
    timed,
)
from models import SUBJECTS, Model
from torch import nn

MEAN_SPEEDUP = 10.0
LEAST_SPEEDUP = 5.0

Row = dict[str, Any]


def measure(found: list[Library], model: Model, rounds: int) -> Row:
    """Check and time one model; seconds per library and, with both, the ratios."""
    module, example = model.build(), model.example()
    runs = [example, *model.others()]
    row: Row = {"model": model.name}
    calls: dict[str, Callable[[], object]] = {}
    operators: dict[str, set[str]] = {}
    for library in found:
        program = library.capture(module, model, example, dynamic=True)
        row[f"{library.name}_first_s"] = timed(program.run_decompositions)
        core = program.run_decompositions()
        try:
            check(core, module, runs, f"{library.name} on {model.name}")
        except Mismatch as problem:
            print(f"  FAILED {problem}", file=sys.stderr)
            row.setdefault("errors", []).append(str(problem))
            continue
        row[f"{library.name}_nodes"] = len(core.graph.nodes)
        operators[library.name] = {str(n.target) for n in core.graph.nodes if _is_operator(n)}
        calls[library.name] = program.run_decompositions
    for name, values in interleaved(calls, rounds).items():
        row[f"{name}_s"] = statistics.median(values)
    if len(calls) == 2:
        row["ratio"] = row["torch_s"] / row["stillframe_s"]
        row["ratio_first"] = row["torch_first_s"] / row["stillframe_first_s"]
        row["only_stillframe"] = sorted(operators["stillframe"] - operators["torch"])
        row["only_torch"] = sorted(operators["torch"] - operators["stillframe"])
    return row


def _is_operator(node: torch.fx.Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload)


class _Loss(nn.Module):
    """A model and a scalar of its outputs."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, input_ids: Any, attention_mask: Any) -> Any:
        out = self.inner(input_ids=input_ids, attention_mask=attention_mask)
        return sum((t.float() ** 2).mean() for t in out.to_tuple())


def joint(model: Model, rounds: int) -> Row:
    """The joint graph of BERT: gradients checked, then timed beside the export of its forward."""
    import stillframe

    module, (args, kwargs) = _Loss(model.build()), model.example()
    dims = model.dims(stillframe.Dim)
    program = stillframe.export(module, args, kwargs, dynamic_shapes=dims)
    program.joint(0)
    run = program.joint(0).module()
    for args, kwargs in model.others():
        gradients = run(*args, **kwargs).parameter_gradients
        module.zero_grad()
        module(*args, **kwargs).backward()
        expected = {n: p.grad for n, p in module.named_parameters() if p.grad is not None}
        if gradients.keys() != expected.keys():
            raise Mismatch(f"gradients of {gradients.keys() ^ expected.keys()}")
        for name, gradient in expected.items():
            torch.testing.assert_close(gradients[name], gradient, rtol=1e-3, atol=1e-4, msg=name)
    samples = interleaved({"joint": lambda: program.joint(0)}, rounds)["joint"]
    nodes = len(program.joint(0).graph.nodes)
    return {"model": model.name, "joint_s": statistics.median(samples), "nodes": nodes}


def show(found: list[Library], rows: list[Row]) -> None:
    """One line per model, then the operators that only one library leaves."""
    names = [library.name for library in found]
    header = ["model", *(f"{n} ms" for n in names), *(f"{n} nodes" for n in names)]
    header += ["ratio", "first"]
    lines = []
    for row in rows:
        line = [row["model"], *(_cell(row, f"{n}_s", 1e3) for n in names)]
        line += [str(row.get(f"{n}_nodes", "-")) for n in names]
        lines.append([*line, _cell(row, "ratio", 1), _cell(row, "ratio_first", 1)])
    print_table("run_decompositions, dynamic shapes", header, lines)
    for row in rows:
        for name in names:
            only = row.get(f"only_{name}")
            if only:
                print(f"  {row['model']}, only {name} leaves: {', '.join(only)}")


def _cell(row: Row, key: str, scale: float) -> str:
    return f"{row[key] * scale:.1f}" if key in row else "-"


def main() -> int:
    """Run, print, judge."""
    p = parser(__doc__)
    p.add_argument("--rounds", type=int, default=3, help="timed runs of each, in turn")
    p.add_argument("--models", default="", help="only these, with commas")
    p.add_argument("--no-joint", action="store_true", help="leave out the joint graph")
    options = p.parse_args()
    one_thread()
    found = libraries(options.lib)
    names = [name for name in options.models.split(",") if name] or list(SUBJECTS)
    report = Report("decompositions")
    rows = [measure(found, SUBJECTS[name](), options.rounds) for name in names]
    report.rows += rows
    show(found, rows)
    prefix = "run_decompositions, speed-up over torch"
    whole = all("ratio" in row for row in rows)
    mean = geometric_mean([row["ratio"] for row in rows]) if whole else None
    report.targets.append(Target(f"{prefix}, geometric mean", mean, ">=", MEAN_SPEEDUP))
    for row in rows:
        ratio = row.get("ratio")
        report.targets.append(Target(f"{prefix}, {row['model']}", ratio, ">=", LEAST_SPEEDUP))
    if not options.no_joint and any(library.name == "stillframe" for library in found):
        row = joint(SUBJECTS["bert_12"](), options.rounds)
        print(f"  joint graph of bert_12: {row['joint_s']:.2f} s, {row['nodes']} nodes")
        report.rows.append(row)
    return report.finish(options)


if __name__ == "__main__":
    sys.exit(main())
