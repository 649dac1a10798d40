"""What becomes of the zoo's programs: decomposed, saved, unflattened, differentiated.

    python benchmarks/zoo_forms.py [--cases 'hf_*,nn_*'] [--forms joint,file] [--jobs 2] [--strict]

Every case of the shared zoo is exported in a process of its own. Each form of the program is
compared with the module itself at the three sizes of the case; a joint graph's gradients with
eager's, for the mean of the squares of all float outputs. A form that differs in float32 is made
and compared again in float64, which tells rounding from wrong numbers. Prints a table and every
failure; exit code 1 when a form gave a wrong number, when one but ``joint`` failed where the case
exported, or when fewer than 90% of the cases with a float output have a joint graph.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import multiprocessing
import os
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from zoo import ROOT, zoo_folder

FORMS = ("module", "core", "file", "core file", "unflatten", "joint")
LEAST_JOINT = 0.9

Row = dict[str, str]


def import_zoo(folder: Path) -> Any:
    """The zoo's table of cases and its comparison, with this checkout importable."""
    sys.path[:0] = [str(ROOT / "src"), str(folder)]
    sys.modules.pop("zoo", None)  # the zoo's own module has the name of our script
    import run_zoo  # type: ignore[import-not-found]
    import torch

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    return run_zoo


# -- one case, in its own process ------------------------------------------------------------------


def run_case(zoo: Any, name: str, forms: list[str], strict: bool, path: Path) -> None:
    """Writes ``{form: "ok" or what is wrong}``; ends the process."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    row: Row = {}
    for form, outcome in outcomes(zoo, zoo.CASES[name], forms, strict):
        row[form] = outcome
        path.write_text(json.dumps(row))
    os._exit(0)  # shutting down the interpreter is slow


class Prepared:
    """A case that is built: the module, its inputs, and what it gives for them.

    Args:
        double: in float64, where a difference is not one of rounding.
    """

    def __init__(self, zoo: Any, case: Any, strict: bool, double: bool = False) -> None:
        self.zoo, self.case, self.strict = zoo, case, strict
        self.module, args, kwargs, self.spec = case.build()
        self.inputs = [(args, kwargs), *case.other_inputs()]
        if double:
            self.module.double()
            self.inputs = [in_doubles(given) for given in self.inputs]
        self.expected = [
            zoo.settled(self.module(*zoo.copied(a), **zoo.copied(k))) for a, k in self.inputs
        ]

    def export(self, module: Any = None) -> Any:
        """A program of the module, or of another one with its inputs."""
        import stillframe as sf

        args, kwargs = self.zoo.copied(self.inputs[0])
        return sf.export(
            self.module if module is None else module,
            args,
            kwargs,
            dynamic_shapes=self.zoo.to_dims(self.spec, sf.Dim),
            strict=self.strict,
        )


def in_doubles(tree: Any) -> Any:
    """Tensors of floats in float64."""
    from torch.utils import _pytree as pytree

    return pytree.tree_map(lambda leaf: leaf.double() if is_float(leaf) else leaf, tree)


def outcomes(zoo: Any, case: Any, forms: list[str], strict: bool) -> Iterator[tuple[str, str]]:
    """Each form and what is wrong with it."""
    prepared = Prepared(zoo, case, strict)
    try:
        program = prepared.export()
    except Exception as e:
        yield "export", described(e)
        return
    yield "export", "ok"
    for form in forms:
        if form == "joint" and not any(is_float(leaf) for leaf in prepared.expected[0][0]):
            continue
        outcome = guarded(lambda form=form: check(form, prepared, program))
        if outcome.startswith("WRONG"):
            precise = guarded(lambda form=form: check_in_doubles(form, zoo, case, strict))
            outcome = "ok" if precise == "ok" else f"{outcome}; in float64: {precise}"
        yield form, outcome


def check_in_doubles(form: str, zoo: Any, case: Any, strict: bool) -> str | None:
    prepared = Prepared(zoo, case, strict, double=True)
    return check(form, prepared, prepared.export())


def check(form: str, prepared: Prepared, program: Any) -> str | None:
    """What is wrong with one form of the program."""
    if form == "joint":
        return joint_difference(prepared)
    return difference(prepared, MAKERS[form](program))


def guarded(check: Callable[[], str | None]) -> str:
    """What a check finds, or the error that it ends in."""
    try:
        found = check()
    except Exception as e:
        return described(e)
    return "ok" if found is None else f"WRONG {found}"


def described(error: Exception) -> str:
    """The error in a line, with the place for one that is not ours."""
    from stillframe.errors import StillframeError

    text = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    if isinstance(error, StillframeError):
        return text
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"not ours: {text} ({Path(last.filename).name}:{last.lineno})"


def difference(prepared: Prepared, form: Any) -> str | None:
    """Where a callable differs from eager."""
    zoo = prepared.zoo
    for i, ((args, kwargs), want) in enumerate(
        zip(prepared.inputs, prepared.expected, strict=True)
    ):
        found = zoo.difference(want, form(*zoo.copied(args), **zoo.copied(kwargs)))
        if found is not None:
            return f"input {i}: {found}"
    return None


def through_file(program: Any) -> Any:
    """The program's module after saving and loading."""
    import stillframe as sf

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "program.still"
        sf.save(program, path)
        return sf.load(path).module()


def unflattened(program: Any) -> Any:
    import stillframe as sf

    return sf.unflatten(program)


MAKERS: dict[str, Callable[[Any], Any]] = {
    "module": lambda program: program.module(),
    "core": lambda program: program.run_decompositions().module(),
    "file": through_file,
    "core file": lambda program: through_file(program.run_decompositions()),
    "unflatten": unflattened,
}


# -- joint graphs ----------------------------------------------------------------------------------


def is_float(value: Any) -> bool:
    import torch

    return isinstance(value, torch.Tensor) and value.is_floating_point()


def with_loss(module: Any) -> Any:
    """A module of the same inputs that returns one number that depends on every float output."""
    import torch
    from torch.utils import _pytree as pytree

    class Loss(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = module

        def forward(self, *args: Any, **kwargs: Any) -> Any:
            floats = [v for v in pytree.tree_leaves(module(*args, **kwargs)) if is_float(v)]
            return torch.stack([v.square().mean() for v in floats]).sum()

    wrapped = Loss()
    wrapped.forward = _like(module.forward, wrapped.forward)  # type: ignore[method-assign]
    wrapped.training = module.training  # train() clears caches of some models
    return wrapped


def _like(original: Any, forward: Any) -> Any:
    """``forward`` with the parameters of ``original``, which a dims spec names."""
    import functools

    @functools.wraps(original)
    def call(*args: Any, **kwargs: Any) -> Any:
        return forward(*args, **kwargs)

    return call


def joint_difference(prepared: Prepared) -> str | None:
    """Where the gradients of the joint graph differ from eager's, in relation to the largest."""
    import torch

    zoo = prepared.zoo
    wrapped = with_loss(prepared.module)
    joint = prepared.export(wrapped).joint(0).module()
    for i, (args, kwargs) in enumerate(prepared.inputs):
        wrapped.zero_grad(set_to_none=True)
        loss = wrapped(*zoo.copied(args), **zoo.copied(kwargs))
        loss.backward()
        found = joint(*zoo.copied(args), **zoo.copied(kwargs))
        if not torch.allclose(found.result, loss.detach(), rtol=1e-4, atol=1e-5):
            return f"input {i}: the loss is {float(found.result):.6g} instead of {float(loss):.6g}"
        scale = max(
            [float(p.grad.abs().max()) for p in wrapped.parameters() if p.grad is not None],
            default=1.0,
        )
        for name, parameter in wrapped.named_parameters():
            got = found.parameter_gradients.get(name)
            want = parameter.grad
            if want is None or got is None:
                if (want is None or not want.any()) and (got is None or not got.any()):
                    continue
                return f"input {i}: {name} has a gradient in one of the two only"
            error = float((want - got).abs().max()) if want.numel() else 0.0
            if want.shape != got.shape or error > 1e-3 * scale:
                return f"input {i}: the gradient of {name} differs by {error / scale:.3g}"
    return None


# -- all cases -------------------------------------------------------------------------------------


def run_all(zoo: Any, names: list[str], options: argparse.Namespace) -> dict[str, Row]:
    """The rows by case."""
    context = multiprocessing.get_context("fork")
    forms = options.forms.split(",")

    def one(name: str) -> tuple[str, Row]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "row.json"
            child = context.Process(target=run_case, args=(zoo, name, forms, options.strict, path))
            child.start()
            child.join(options.timeout)
            row: Row = json.loads(path.read_text()) if path.exists() else {}
            if child.is_alive() or child.exitcode != 0:
                why = "timeout" if child.is_alive() else f"died with {child.exitcode}"
                child.kill()
                child.join()
                rest = [form for form in ("export", *forms) if form not in row]
                row[rest[0] if rest else forms[-1]] = f"not ours: {why}"
            return name, row

    rows: dict[str, Row] = {}
    with ThreadPoolExecutor(options.jobs) as pool:
        for i, (name, row) in enumerate(pool.map(one, names)):
            rows[name] = row
            print(f"\r{i + 1}/{len(names)} {name:60}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return rows


def show(rows: dict[str, Row], forms: list[str]) -> bool:
    """Print the table and the failures; whether all is as it must be."""
    counts: dict[str, Counter[str]] = {form: Counter() for form in ("export", *forms)}
    passed = True
    for name, row in rows.items():
        for form, outcome in row.items():
            kind = outcome if outcome == "ok" else outcome.partition(" ")[0]
            counts[form]["ok" if kind == "ok" else "wrong" if kind == "WRONG" else "failed"] += 1
            if kind != "ok":
                print(f"{name}  {form}: {outcome[:230]}")
                bad = kind in ("WRONG", "not") or form not in ("export", "joint")
                passed = passed and not bad
    print(f"\n{'form':12} {'ok':>5} {'failed':>7} {'wrong':>6}")
    for form, count in counts.items():
        print(f"{form:12} {count['ok']:5} {count['failed']:7} {count['wrong']:6}")
    joint = counts.get("joint", Counter())
    return passed and joint["ok"] >= LEAST_JOINT * joint.total()


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cases", default="*", help="globs on names, with commas")
    parser.add_argument("--forms", default=",".join(FORMS))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--timeout", type=float, default=240)
    parser.add_argument("--strict", action="store_true", help="export on the frame machine")
    options = parser.parse_args()
    unknown = set(options.forms.split(",")) - set(FORMS)
    if unknown:
        parser.error(f"unknown forms: {', '.join(sorted(unknown))}")
    folder = zoo_folder()
    if folder is None:
        print("no zoo: set STILLFRAME_ZOO to the folder with zoo.py", file=sys.stderr)
        return 2
    zoo = import_zoo(folder)
    globs = options.cases.split(",")
    names = [n for n in zoo.CASES if any(fnmatch.fnmatch(n, glob) for glob in globs)]
    return 0 if show(run_all(zoo, names, options), options.forms.split(",")) else 1


if __name__ == "__main__":
    sys.exit(main())
