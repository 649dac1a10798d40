"""``ExportedProgram.verify``: run the program beside the module on inputs of other sizes.

Sizes are drawn inside the declared ranges (the ends included, large ranges sampled near the
example, so that a check stays about as cheap as a few calls). Values are made from the example's:
integers and booleans are repeated along the new sizes, so that indices stay legal; floats are
drawn anew with the example's mean and spread.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.utils import _pytree as pytree

from stillframe.errors import InvalidInput, VerificationError
from stillframe.export.sampling import Sizes, draw_sizes, example_sizes
from stillframe.export.script_objects import copied
from stillframe.export.signature import InputKind
from stillframe.fake.tensor import FakeTensor
from stillframe.shapes.env import to_size
from stillframe.symbolic import evaluate

if TYPE_CHECKING:
    from stillframe.export.program import ExportedProgram

RTOL = ATOL = 1e-4


@dataclass(frozen=True)
class Sample:
    """One comparison: the sizes of the dims and the largest absolute difference of the outputs."""

    sizes: dict[str, float]
    max_difference: float


@dataclass(frozen=True)
class VerificationReport:
    """What :func:`verify` found: every sample agreed within the tolerance.

    Attributes:
        samples: the comparisons.
        runtime_asserts: whether the program checks the conditions on data that it relies on.
    """

    samples: tuple[Sample, ...]
    runtime_asserts: bool = True

    @property
    def max_difference(self) -> float:
        """The largest absolute difference over all samples and outputs."""
        return max((s.max_difference for s in self.samples), default=0.0)

    def __str__(self) -> str:
        sizes = "; ".join(
            ", ".join(f"{k}={v}" for k, v in s.sizes.items()) or "static" for s in self.samples
        )
        worst = f"largest difference {self.max_difference:.3g}"
        believed = "" if self.runtime_asserts else "; the program has no run-time asserts"
        return f"{len(self.samples)} samples agree ({worst}): {sizes}{believed}"


def verify(
    program: ExportedProgram, mod: Callable[..., Any], samples: int = 3, seed: int = 0
) -> VerificationReport:
    """Compare ``program`` with ``mod`` on the example and on ``samples`` other sets of sizes.

    Raises:
        InvalidInput: the program has no example inputs (it was made or loaded without).
        VerificationError: an output differs in structure, dtype, shape or value.
    """
    if program.example_inputs is None:
        raise InvalidInput("verify needs example inputs, and this program was saved without them.")
    if samples < 0:
        raise InvalidInput(f"samples must be 0 or more, got {samples}.")
    rng = random.Random(seed)
    drawn = [example_sizes(program)]
    for _ in range(samples):
        sizes = draw_sizes(program, rng, drawn)
        if sizes is not None:
            drawn.append(sizes)
    results = []
    for i, sizes in enumerate(drawn):
        args, kwargs = _inputs(program, sizes, seed + i)
        results.append(Sample(_named(program, sizes), _compare(program, mod, args, kwargs, sizes)))
    return VerificationReport(tuple(results), program.runtime_asserts)


# -- inputs ---------------------------------------------------------------------------------------


def _inputs(
    program: ExportedProgram, sizes: Sizes, seed: int
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    generator = torch.Generator().manual_seed(seed)
    leaves, spec = pytree.tree_flatten(program.example_inputs)
    fakes = _user_fakes(program)
    made = [
        _resized(real, fake, sizes, generator)
        if isinstance(fake, FakeTensor)
        else sizes.get(to_size(fake), real)
        for real, fake in zip(leaves, fakes, strict=True)
    ]
    return pytree.tree_unflatten(made, spec)  # type: ignore[no-any-return]


def _user_fakes(program: ExportedProgram) -> list[Any]:
    names = set(_user_names(program))
    return [n.meta["val"] for n in program.graph.nodes if n.op == "placeholder" and n.name in names]


def _user_names(program: ExportedProgram) -> list[str]:
    specs = program.graph_signature.input_specs
    return [s.arg.name for s in specs if s.kind is InputKind.USER_INPUT]


def _named(program: ExportedProgram, sizes: Sizes) -> dict[str, float]:
    return {program.dim_names.get(str(s), str(s)): v for s, v in sizes.items()}


def _resized(
    real: torch.Tensor, fake: FakeTensor, sizes: Sizes, generator: torch.Generator
) -> torch.Tensor:
    wanted = [s if isinstance(s, int) else int(evaluate(s, sizes)) for s in fake.sizes]
    out = real.detach()
    if out.layout is not torch.strided:
        return _resized_sparse(out, wanted)
    for dim, size in enumerate(wanted):
        if out.shape[dim] != size:
            index = torch.arange(size) % max(out.shape[dim], 1)
            out = out.index_select(dim, index.to(out.device))
    if not out.is_floating_point() or out.numel() == 0:
        return out.clone()
    noise = torch.randn(out.shape, generator=generator).to(out.dtype).to(out.device)
    spread = float(real.double().std()) if real.numel() > 1 else 1.0
    return noise * spread + float(real.double().mean())


def _resized_sparse(real: torch.Tensor, wanted: list[int]) -> torch.Tensor:
    """A sparse tensor of other sizes: by way of a dense one, in the same pattern of dims."""
    if list(real.shape) == wanted:
        return real.clone()
    dense = real.to_dense()
    for dim, size in enumerate(wanted):
        index = torch.arange(size) % max(dense.shape[dim], 1)
        dense = dense.index_select(dim, index.to(dense.device))
    if real.layout is torch.sparse_csr:
        return dense.to_sparse_csr()
    made = dense.to_sparse(real.sparse_dim())
    if real.is_coalesced():
        return made
    return torch.sparse_coo_tensor(made.indices(), made.values(), made.shape)


# -- comparing ------------------------------------------------------------------------------------


def _compare(
    program: ExportedProgram, mod: Callable[..., Any], args: Any, kwargs: Any, sizes: Sizes
) -> float:
    apart = program.training or bool(program.graph_signature.lifted_custom_objs)
    of_module, of_program = copied((args, kwargs)), copied((args, kwargs))
    expected = _run(copy.deepcopy(mod) if apart else mod, *of_module)
    actual = _run((copy.deepcopy(program) if apart else program).module(), *of_program)
    label = ", ".join(f"{k}={v}" for k, v in _named(program, sizes).items()) or "the example"
    want, want_spec = pytree.tree_flatten_with_path(expected)
    got, got_spec = pytree.tree_flatten(actual)
    if _outline(want_spec) != _outline(got_spec):
        raise VerificationError(
            f"At {label} the program returns another structure: {got_spec} instead of {want_spec}."
        )
    worst = 0.0
    for (path, a), b in zip(want, got, strict=True):
        worst = max(worst, _difference(a, b, f"output{pytree.keystr(path)}", label))
    given = _attributes(program, of_program)
    for name, value in _attributes(program, of_module).items():
        worst = max(worst, _difference(value, given[name], name, label))
    return worst


def _outline(spec: pytree.TreeSpec) -> Any:
    """A structure as data. TorchScript makes the class of a named tuple anew for every result, so a
    named tuple is one by its name and fields."""
    context = spec.context
    if isinstance(context, type) and hasattr(context, "_fields"):
        context = context.__name__, context._fields
    return spec.type, context, [_outline(child) for child in spec.children()]


def _run(mod: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        return mod(*args, **kwargs)


def _attributes(program: ExportedProgram, call: Any) -> dict[str, Any]:
    """What a call has set on its inputs, as far as the program sets it."""
    leaves = dict(zip(_user_names(program), pytree.tree_leaves(call), strict=True))
    return {
        f"the attribute {spec.attribute} of {spec.target}": vars(leaves[spec.target]).get(
            spec.attribute
        )
        for spec in program.graph_signature.output_specs
        if spec.attribute is not None and spec.target is not None
    }


def _difference(a: Any, b: Any, name: str, label: str) -> float:
    if not isinstance(a, torch.Tensor):
        if type(a) is not type(b) or a != b:
            raise VerificationError(f"At {label}, {name} is {b!r} instead of {a!r}.")
        return 0.0
    if not isinstance(b, torch.Tensor) or a.shape != b.shape or a.dtype != b.dtype:
        found = f"{b.dtype} {tuple(b.shape)}" if isinstance(b, torch.Tensor) else repr(b)
        raise VerificationError(
            f"At {label}, {name} is {found} instead of {a.dtype} {tuple(a.shape)}."
        )
    if a.layout is not b.layout:
        raise VerificationError(
            f"At {label}, {name} has the layout {b.layout} instead of {a.layout}."
        )
    if a.layout is not torch.strided:
        a, b = a.to_dense(), b.to_dense()
    if a.numel() == 0:
        return 0.0
    if not torch.allclose(a, b, rtol=RTOL, atol=ATOL, equal_nan=True):
        if a.dtype is torch.bool:
            raise VerificationError(
                f"At {label}, {name} differs in {int((a != b).sum())} elements."
            )
        worst = float((a.double() - b.double()).abs().max())
        raise VerificationError(
            f"At {label}, {name} differs by up to {worst:.3g}.",
            why=f"the tolerance is rtol={RTOL}, atol={ATOL}",
        )
    if a.dtype is torch.bool or a.is_complex():
        return 0.0
    return float((a.double() - b.double()).abs().nan_to_num().max())
