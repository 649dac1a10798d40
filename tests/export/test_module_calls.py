"""``preserve_module_call_signature``: how submodules are called, as part of a program."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils import _pytree as pytree

import stillframe as sf
from stillframe.trace import scope

BATCH = {0: sf.Dim("batch")}


def example(n: int = 3) -> torch.Tensor:
    return torch.randn(n, 4)


def exported(module: nn.Module, *names: str, strict: bool = False) -> sf.ExportedProgram:
    return sf.export(
        module, (example(),), dynamic_shapes=({**BATCH},), strict=strict,
        preserve_module_call_signature=names,
    )  # fmt: skip


def signatures(program: sf.ExportedProgram) -> dict[str, sf.ModuleCallSignature]:
    return {e.fqn: e.signature for e in program.module_call_graph if e.fqn and e.signature}


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(4, 4)

    def forward(self, x: Any, scale: float = 1.0, *, more: Any = None) -> Any:
        hidden = self.lin(x["a"]) * scale
        return hidden, [hidden.sum(), x["a"].size(0), None, "text"]


class Outer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.ModuleList([Inner(), Inner()])
        self.head = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for inner in self.encoder:
            x, _ = inner({"a": x}, 2.0, more=[x + 1])
        return self.head(x)


# -- collecting -----------------------------------------------------------------------------------


@pytest.mark.spec("2.88")
@pytest.mark.spec("2.89")
@pytest.mark.parametrize("strict", [False, True])
def test_a_signature_names_the_values_in_order(strict: bool) -> None:
    program = exported(Outer(), "encoder.1", strict=strict)
    (signature,) = signatures(program).values()
    relevant = {n.name: n for n in program.graph.nodes}
    x, scale, more = signature.inputs
    assert isinstance(x, sf.TensorArgument) and isinstance(more, sf.TensorArgument)
    assert scale == sf.ConstantArgument("", 2.0)
    assert relevant[more.name].args == (relevant[x.name], 1)
    hidden, total, size, none, text = signature.outputs
    assert relevant[total.name].args == (relevant[hidden.name],)
    assert isinstance(size, sf.SymIntArgument)
    assert (none, text) == (sf.ConstantArgument("", None), sf.ConstantArgument("", "text"))
    _, spec = pytree.tree_flatten((({"a": 0}, 2.0), {"more": [0]}))
    assert signature.in_spec == spec
    assert signature.out_spec == pytree.tree_structure((0, [0, 0, None, 0]))
    assert signature.forward_arg_names == ["x", "scale", "more"]


@pytest.mark.spec("2.88")
def test_values_that_nobody_else_needs_are_kept() -> None:
    plain, program = exported(Outer()), exported(Outer(), "encoder.0")
    names = {n.name for n in program.graph.nodes}
    (signature,) = signatures(program).values()
    for argument in (*signature.inputs, *signature.outputs):
        assert isinstance(argument, sf.ConstantArgument) or argument.name in names
    assert len(program.graph.nodes) > len(plain.graph.nodes)
    assert signatures(plain) == {}


@pytest.mark.spec("2.26")
@pytest.mark.spec("2.46")
@pytest.mark.parametrize("strict", [False, True])
def test_paths_are_those_that_the_user_wrote(strict: bool) -> None:
    program = exported(Outer(), "encoder.0", "encoder.0.lin", "head", strict=strict)
    assert set(signatures(program)) == {"encoder.0", "encoder.0.lin", "head"}
    fqns = [e.fqn for e in program.module_call_graph]
    assert fqns == [path for path, _ in Outer().named_modules()]
    assert all(
        isinstance(n.target, torch._ops.OpOverload) or n.op != "call_function"
        for n in program.graph.nodes
    )  # nothing marks the calls in the graph


@pytest.mark.spec("2.88")
def test_each_call_of_a_module_has_an_entry() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lin = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.lin(self.lin(x))

    found = signatures(exported(Twice(), "lin"))
    assert list(found) == ["lin", "lin@1"]
    assert found["lin"].outputs == found["lin@1"].inputs


def test_hooks_of_the_user_belong_to_the_call() -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    module[1].register_forward_pre_hook(lambda m, args: (args[0] * 2,))
    module[1].register_forward_hook(lambda m, args, out: out + 1)
    signature = signatures(exported(module, "1"))["1"]
    assert [a.name for a in (*signature.inputs, *signature.outputs)] == ["linear", "add"]


@pytest.mark.spec("2.88")
def test_nothing_stays_behind() -> None:
    class Fails(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lin = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.lin(x).sum() > 0:
                return x
            return -x

    for module in (Fails(), Outer()):
        hooks = [{k: v for k, v in m.__dict__.items() if "hooks" in k} for m in module.modules()]
        before, call = copy.deepcopy(hooks), nn.Module.__call__
        if isinstance(module, Fails):
            with pytest.raises(sf.DataDependentError):
                exported(module, "lin")
        else:
            exported(module, "head")
        assert hooks == before
        assert nn.Module.__call__ is call and scope.current() is None


# -- errors ---------------------------------------------------------------------------------------


@pytest.mark.spec("2.88")
@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("encoder.2",), "names 'encoder.2', and the module has no submodule of that path"),
        (("",), "names the root"),
        ("head", "must be a tuple of paths of submodules, got 'head'"),
    ],
)
def test_names_that_make_no_sense(names: Any, message: str) -> None:
    with pytest.raises(sf.InvalidInput, match=message):
        sf.export(Outer(), (example(),), preserve_module_call_signature=names)


def test_an_unknown_path_is_told_the_nearest() -> None:
    with pytest.raises(sf.InvalidInput, match=r"did you mean .*'encoder.1'"):
        exported(Outer(), "encodr.1")


class Calls(nn.Module):
    """Calls a submodule by a function that a test gives."""

    def __init__(self, inner: nn.Module, call: Any) -> None:
        super().__init__()
        self.inner = inner
        self.call = call

    def forward(self, x: torch.Tensor) -> Any:
        return self.call(self.inner, x)


class Passes(nn.Module):
    def forward(self, x: Any, *rest: Any) -> Any:
        return (x * 2, *rest)


class Thing:
    def __repr__(self) -> str:
        return "<a thing>"


@pytest.mark.spec("2.88")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, x: m(x, Thing())[0], "an input of self.inner is <a thing>, of .*Thing"),
        (lambda m, x: m(x)[0] + m(x, 1)[0], "self.inner is called with arguments of two"),
        (
            lambda m, x: torch.cond(x.sum() > 0, lambda x: m(x)[0], lambda x: x * 1, (x,)),
            "self.inner is called inside a function of a higher-order operator",
        ),
    ],
)
def test_calls_that_no_signature_describes(call: Any, message: str) -> None:
    with pytest.raises(sf.NotSupported, match=message):
        exported(Calls(Passes(), call), "inner")
    exported(Calls(Passes(), call))


@pytest.mark.spec("2.88")
def test_results_of_two_structures() -> None:
    class Moody(nn.Module):
        def forward(self, x: torch.Tensor, flag: bool) -> Any:
            return (x * 2,) if flag else [x * 3]

    module = Calls(Moody(), lambda m, x: m(x, True)[0] + m(x, False)[0])
    with pytest.raises(sf.NotSupported, match="self.inner returns results of two structures"):
        exported(module, "inner")


# -- other forms ----------------------------------------------------------------------------------


def test_signatures_are_saved(tmp_path: Any) -> None:
    program = exported(Outer(), "encoder.0", "head")
    sf.save(program, tmp_path / "x.still")
    assert signatures(sf.load(tmp_path / "x.still")) == signatures(program)


class Writes(nn.Module):
    """The value of an argument changes between the calls."""

    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x * 2
        rows = y[1:]
        first = self.lin(rows)
        y.add_(1)
        second = self.lin(rows)
        rows.mul_(3)
        return first + second + rows


def test_signatures_follow_decompositions() -> None:
    program = sf.export(
        Writes(), (example(5),), dynamic_shapes=({0: sf.Dim("batch", min=2)},),
        preserve_module_call_signature=("lin",),
    ).run_decompositions()  # fmt: skip
    x = example(6)
    values: dict[str, Any] = {}

    class Keep(torch.fx.Interpreter):
        def run_node(self, n: torch.fx.Node) -> Any:
            values[n.name] = super().run_node(n)
            return values[n.name]

    Keep(program.graph_module).run(*program.state_dict.values(), x)
    found = signatures(program)
    torch.testing.assert_close(values[found["lin"].inputs[0].name], x[1:] * 2)
    torch.testing.assert_close(values[found["lin@1"].inputs[0].name], x[1:] * 2 + 1)


def test_a_call_without_operators_loses_its_signature() -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.Identity(), nn.Linear(4, 2))
    program = exported(module, "1")
    note = "the call of self.1 has no operators: an unflattened program does not call it"
    assert note in program.notes
    assert signatures(program)["1"].inputs == signatures(program)["1"].outputs
    decomposed = program.run_decompositions()
    assert signatures(decomposed) == {}
    assert "the call signature of self.1 was dropped: the call has no operators" in decomposed.notes


def test_a_module_that_is_not_called_is_noted() -> None:
    module = Outer()
    module.spare = nn.Linear(1, 1)
    program = exported(module, "spare")
    assert "the call signature of self.spare is not known: the module was not called" in (
        program.notes
    )
    assert signatures(program) == {}


def test_a_signature_that_does_not_fit_the_graph_is_refused() -> None:
    program = exported(Outer(), "head")
    signature = signatures(program)["head"]
    signature.replace_all_uses(signature.inputs[0].name, "elsewhere")
    with pytest.raises(sf.SpecViolationError, match="head names elsewhere, which is no node"):
        copy.deepcopy(program)
