"""The table of symbolic-shape programs: what a row is, and how a row is judged.

A :class:`Program` is a small module or function, the dims that are declared of it, and the verdict
expected of the export. Its inputs are made by a small function from sizes, so that a row can name
the calls that the program must take (``inside``) and those that it must refuse (``outside``) by
their sizes alone. A verdict other than :class:`Ok` says how the export is refused and what makes it
pass; the calls are then made on the corrected program.

The rows stand in ``shape_programs_*.py``, by theme; ``test_shape_table.py`` and
``test_shape_table_torch.py`` hold them against stillframe and torch.export.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from tests.corpora.soundness_programs import Call, call, difference, x_
from torch import nn
from torch.utils import _pytree as pytree

import stillframe as sf
from stillframe.symbolic import Expr

__all__ = [
    "Admitted",
    "Case",
    "DataDependent",
    "EXAMPLE_01",
    "NOT_ONE",
    "NOT_ONE_CALL",
    "Narrowed",
    "Ok",
    "Program",
    "Relation",
    "Specialised",
    "Specs",
    "TWO_OR_MORE",
    "Table",
    "UNROLLED",
    "call",
    "function",
    "ints",
    "net",
    "x_",
]

Sizes = tuple[int, ...]
Refusal = TypeVar("Refusal", bound=sf.StillframeError)
Case = tuple[Any, ...]


class Specs:
    """What a row writes its dims with, in the words of one library.

    ``d("b", min=1)`` is a Dim; ``d.AUTO``, ``d.DYNAMIC``, ``d.STATIC`` are the hints;
    ``d.collection({tensor: spec})`` is a ShapesCollection; ``d.args`` and ``d.kwargs`` are the
    example call, for specs that are made by tensor.

    Args:
        library: ``stillframe`` or ``torch.export``.
        replaced: dims to use instead of those that the row declares, by name.
    """

    def __init__(self, library: Any, example: Call, replaced: Mapping[str, Any]) -> None:
        self.library = library
        self.args, self.kwargs = example
        self.replaced = replaced
        self.AUTO, self.DYNAMIC = library.Dim.AUTO, library.Dim.DYNAMIC
        self.STATIC = library.Dim.STATIC

    def __call__(self, name: str, min: int = 0, max: int | None = None) -> Any:
        if name in self.replaced:
            return self.replaced[name]
        return self.library.Dim(name, min=min, max=max)

    def collection(self, pairs: Sequence[tuple[torch.Tensor, Any]]) -> Any:
        found = self.library.ShapesCollection()
        for tensor, spec in pairs:
            found[tensor] = spec
        return found


Dims = Callable[[Specs], Any]


# -- verdicts -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ok:
    """It exports, and every declared dim stays dynamic."""

    kind = "ok"

    def admit(self, row: Program) -> Admitted:
        program = export(row.make(), row.example_call, row.dims)
        static = [note for note in program.notes if " is static " in note]
        assert not static, static
        assert not program.guards or _has_free_dims(row.spec())
        return Admitted(program, row.make)


def _has_free_dims(spec: Any) -> bool:
    """Whether the program is to find out some dims, so that it may have conditions of its own."""
    return "AUTO" in str(spec) or "DYNAMIC" in str(spec)


@dataclass(frozen=True)
class Narrowed:
    """Refused: a declared range is too wide. The spec that the error suggests exports.

    Attributes:
        requires: the condition that the message must state.
        suggests: what the spec of the error must say, as text: ``b = Dim('b', min=2)``.
    """

    requires: str
    suggests: str
    kind = "narrowed"

    def admit(self, row: Program) -> Admitted:
        error = refused(row, sf.ConstraintViolationError)
        assert self.requires in error.what, error
        assert self.suggests in error.spec, error
        return Admitted(export_pasted(row, error), row.make)


@dataclass(frozen=True)
class Relation:
    """Refused: two declared dims are tied. Both the spec that the error suggests and ours export.

    Attributes:
        requires: the relation that the message must state.
        dims: a corrected spec by hand; the calls are made on the program of the suggested one.
        kind: ``equality`` for equal dims, ``derived`` for ``k*d + c``.
    """

    requires: str
    dims: Dims
    kind: str = "equality"

    def admit(self, row: Program) -> Admitted:
        error = refused(row, sf.ConstraintViolationError)
        assert self.requires in error.what, error
        by_hand = self.dims(Specs(sf, row.example_call, {}))
        guards = export(row.make(), row.example_call, self.dims).guards
        assert not guards or _has_free_dims(by_hand), guards
        return Admitted(export_pasted(row, error), row.make)


@dataclass(frozen=True)
class Specialised:
    """Refused: a declared dim must be one constant. With ``Dim.AUTO`` it is static, and reported.

    Attributes:
        dim: the declared dim's name.
        source: where it stands, as messages name it: ``x.size(1)``.
        value: the constant.
    """

    dim: str
    source: str
    value: int
    kind = "specialised"

    def admit(self, row: Program) -> Admitted:
        error = refused(row, sf.ConstraintViolationError)
        assert f"{self.source} must be {self.value}" in "; ".join(error.hints), error
        auto = {self.dim: sf.Dim.AUTO}
        program = export(row.make(), row.example_call, row.dims, auto)
        static = f"{self.source} is static ({self.value})"
        assert any(note.startswith(static) for note in program.notes), program.notes
        return Admitted(program, row.make)


@dataclass(frozen=True)
class DataDependent:
    """Refused: Python asks for what only the data can tell. With a check it exports.

    Attributes:
        suggests: what the error must suggest.
        make: the program with the check, or written without the question.
    """

    suggests: str
    make: Callable[[], nn.Module]
    kind = "data-dependent"

    def admit(self, row: Program) -> Admitted:
        error = refused(row, sf.DataDependentError)
        assert self.suggests in "; ".join(error.hints), error
        assert any(__package__.replace(".", "/") in line for line in error.where), error
        return Admitted(export(self.make(), row.example_call, row.dims), self.make)


Verdict = Ok | Narrowed | Relation | Specialised | DataDependent


@dataclass(frozen=True)
class Admitted:
    """A program that took the export, and the module it must equal."""

    program: sf.ExportedProgram
    make: Callable[[], nn.Module]


# -- rows -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Program:
    """One row.

    Attributes:
        make: makes the module; its parameters are the same each time.
        inputs: sizes -> the call.
        dims: the declared dims; see :class:`Specs`.
        example: sizes of the example call.
        inside: sizes of calls at which the (corrected) program does what the module does.
        outside: sizes of calls that it refuses -> path of the argument that the error names. Where
            the export is refused because of sizes, the first are sizes that the row declares.
        verdict: of stillframe.
        torch: the verdict of torch.export, see :func:`torch_verdict`.
        why: where torch's differs, why ours is right.
        xfail: why ours is not yet what the row says (then the test is expected to fail).
    """

    name: str
    make: Callable[[], nn.Module]
    inputs: Callable[..., Call]
    dims: Dims
    example: Case
    inside: Sequence[Case]
    outside: Mapping[Case, str]
    verdict: Verdict = field(default_factory=Ok)
    torch: str = "ok"
    why: str = ""
    xfail: str = ""

    @property
    def example_call(self) -> Call:
        return self.inputs(*self.example)

    def spec(self, library: Any = sf) -> Any:
        """The declared ``dynamic_shapes``."""
        return self.dims(Specs(library, self.example_call, {}))


class Table(list[Program]):
    """Rows of one theme; calling it adds one."""

    def __call__(
        self,
        name: str,
        make: Any,
        inputs: Callable[..., Call],
        dims: Dims,
        example: Any,
        inside: Sequence[Any],
        outside: Mapping[Any, str],
        verdict: Verdict | None = None,
        **options: Any,
    ) -> None:
        """Sizes of one number need no tuple; ``make`` may be a plain function of the inputs."""
        self.append(
            Program(
                name,
                make if getattr(make, "makes_module", False) else function(make),
                inputs,
                dims,
                _sizes(example),
                [_sizes(s) for s in inside],
                {_sizes(s): path for s, path in outside.items()},
                verdict or Ok(),
                **options,
            )
        )


def _sizes(given: Any) -> Case:
    return given if isinstance(given, tuple) else (given,)


def net(forward: Callable[..., Any], **layers: Callable[[], Any]) -> Callable[[], nn.Module]:
    """Makes a module in eval mode with these layers and this ``forward`` of self and the inputs."""

    def init(self: nn.Module) -> None:
        nn.Module.__init__(self)
        torch.manual_seed(3)
        for name, layer in layers.items():
            setattr(self, name, layer())

    cls = type("Net", (nn.Module,), {"__init__": init, "forward": forward})

    def make() -> nn.Module:
        return cls().eval().requires_grad_(False)

    make.makes_module = True  # type: ignore[attr-defined]
    return make


def function(forward: Callable[..., Any]) -> Callable[[], nn.Module]:
    """Makes a module whose forward is this function of the inputs."""
    cls = type("Function", (nn.Module,), {"forward": staticmethod(forward)})
    return lambda: cls()


def ints(*shape: int, below: int, seed: int = 0) -> torch.Tensor:
    """A tensor of integers in ``[0, below)`` that is the same each time it is made."""
    generator = torch.Generator().manual_seed(seed + 7 * sum(shape))
    return torch.randint(0, below, shape, generator=generator)


# -- reasons that several rows share --------------------------------------------------------------

EXAMPLE_01 = (
    "theirs makes a constant of an example size of 0 or 1; the declared range says that it varies"
)
NOT_ONE = (
    "theirs assumes that an inner size is not 0 or 1 and refuses the range for it; "
    "the program does not ask"
)
NOT_ONE_CALL = (
    "theirs exports, then refuses declared sizes at which an inner size is 0 or 1; "
    "the program does not ask"
)
TWO_OR_MORE = (
    "theirs takes every dynamic size for 2 or more and checks that nowhere: "
    "another number at 1 or 0"
)
UNROLLED = (
    "theirs takes the recurrent operator apart and unrolls time; the kernel runs at every length"
)


# -- stillframe -----------------------------------------------------------------------------------


def export(
    mod: nn.Module, example: Call, dims: Dims, replaced: Mapping[str, Any] | None = None
) -> sf.ExportedProgram:
    args, kwargs = example
    spec = dims(Specs(sf, example, replaced or {}))
    return sf.export(mod, args, kwargs, dynamic_shapes=spec, strict=False)


def refused(row: Program, error: type[Refusal]) -> Refusal:
    """The error with which the row's export is refused; it must be of this class."""
    try:
        export(row.make(), row.example_call, row.dims)
    except error as e:
        return e
    raise AssertionError(f"{row.name}: exports; expected {error.__name__}")


def export_pasted(row: Program, error: sf.ConstraintViolationError) -> sf.ExportedProgram:
    """The row exported with the spec that the error suggests, read as the Python it is."""
    assert error.spec in "\n".join(error.hints), "the spec is part of the message"
    names: dict[str, Any] = {"Dim": sf.Dim}
    exec(error.spec, names)
    args, kwargs = row.example_call
    return sf.export(
        row.make(),
        args,
        kwargs,
        dynamic_shapes=names["dynamic_shapes"],
        assume=names.get("assume", []),
        strict=False,
    )


def wrong_inside(row: Program, admitted: Admitted) -> list[str]:
    """Calls inside at which the program does not equal the module, each as a sentence."""
    module, found, ran = admitted.program.module(), [], 0
    for sizes in row.inside:
        want = observed(admitted.make(), row.inputs(*sizes))
        got = observed(module, row.inputs(*sizes))
        if isinstance(want, Exception):
            text = "" if isinstance(got, Exception) else f"the module itself raises {want!r}"
        else:
            text = repr(got) if isinstance(got, Exception) else difference(want, got)
            ran += 1
        found += [f"{sizes}: {text}"] if text else []
    return found if ran >= 5 else [*found, f"the module runs at {ran} of the sizes only"]


def wrong_outside(row: Program, admitted: Admitted) -> list[str]:
    """Calls outside that are not refused, or without naming the argument, each as a sentence."""
    module, found = admitted.program.module(), []
    for sizes, path in row.outside.items():
        got = observed(module, row.inputs(*sizes))
        if not isinstance(got, sf.CallError):
            found.append(f"{sizes}: {got!r} instead of a CallError")
        elif f"{path}: " not in got.what and f" of {path}" not in got.what:
            found.append(f"{sizes}: the message does not name {path}: {got}")
    return found


def unvaried(row: Program, admitted: Admitted) -> list[str]:
    """Dims of more than one size that have the same in all calls inside, by path."""
    program = admitted.program
    calls = [pytree.tree_leaves(row.inputs(*sizes)) for sizes in row.inside]
    inputs = [n for n in program.graph.nodes if n.op == "placeholder"][-len(calls[0]) :]
    found = []
    for index, node in enumerate(inputs):
        for dim, size in enumerate(getattr(node.meta["val"], "sizes", ())):
            sizes = program.range_constraints.get(size) if isinstance(size, Expr) else None
            if sizes is not None and not sizes.is_single:
                seen = {leaves[index].shape[dim] for leaves in calls}
                found += [f"{node.name}.size({dim})"] if len(seen) == 1 else []
    return found


def observed(mod: Any, arguments: Call) -> dict[str, Any] | Exception:
    """The outputs of a call and its inputs afterwards, or what it raised."""
    torch.manual_seed(7)
    try:
        outputs = mod(*arguments[0], **arguments[1])
    except Exception as e:
        return e
    leaves, structure = pytree.tree_flatten(outputs)
    after = [v for v in pytree.tree_leaves(arguments) if isinstance(v, torch.Tensor)]
    return {"structure": str(structure), "outputs": leaves, "inputs": after}


# -- torch.export ---------------------------------------------------------------------------------


def torch_verdict(row: Program) -> str:
    """How torch.export does on the row as it is declared.

    Returns:
        ``refuses <error>``: the export raises.
        ``wrong``: a call, inside or outside, gives another result than the module.
        ``specialises``: a call inside is refused.
        ``narrows``: a size is refused at the call that the row declares (and stillframe's export
        is refused for).
        ``ok``: none of these.
    """
    args, kwargs = row.example_call
    try:
        spec = row.dims(Specs(torch.export, (args, kwargs), {}))
        exported = torch.export.export(row.make(), args, kwargs, dynamic_shapes=spec, strict=False)
    except Exception as e:
        return f"refuses {type(e).__name__}"
    module = exported.module()
    inside = [_torch_call(row, module, sizes) for sizes in row.inside]
    outside = [_torch_call(row, module, sizes) for sizes in row.outside]
    if "wrong" in inside + outside:
        return "wrong"
    if "refused" in inside:
        return "specialises"
    declared = row.verdict.kind not in ("ok", "data-dependent")  # the first outside is declared
    return "narrows" if declared and outside[0] == "refused" else "ok"


def _torch_call(row: Program, module: nn.Module, sizes: Case) -> str:
    want = observed(row.make(), row.inputs(*sizes))
    got = observed(module, row.inputs(*sizes))
    if isinstance(want, Exception):
        return "both raise" if isinstance(got, Exception) else "wrong"
    if isinstance(got, Exception):
        return "refused"
    numbers = [{k: seen[k] for k in ("outputs", "inputs")} for seen in (want, got)]
    return "wrong" if difference(*numbers) else "equal"
