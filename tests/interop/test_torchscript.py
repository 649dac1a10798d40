"""TorchScript becomes programs that equal the script at other sizes too."""

from __future__ import annotations

import collections
import copy
import io
import itertools
import math
import operator
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.interop.script_programs import PROGRAMS, OptionalInput, WrittenBuffer, scaled, x
from torch import nn
from torch.utils import _pytree as pytree

import stillframe as sf
from stillframe.interop import script_machine, script_operators


def same(program_result: Any, script_result: Any) -> None:
    """Equal leaves, in equal containers; a named tuple is one by name and fields."""
    ours, theirs = (pytree.tree_leaves(r) for r in (program_result, script_result))
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        if isinstance(a, torch.Tensor):
            assert a.dtype is b.dtype
            torch.testing.assert_close(a, b, rtol=0, atol=0)
        else:
            assert a == b and type(a) is type(b)
    assert form(program_result) == form(script_result)


def form(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: form(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        kind = type(value).__name__, getattr(value, "_fields", ())
        return (*kind, *map(form, value))
    return type(value)


def check(script: Any, program: sf.ExportedProgram, *inputs: tuple[Any, ...]) -> None:
    """The program equals the script on inputs, called one after another."""
    module = program.module()
    reference = copy.deepcopy(script) if isinstance(script, nn.Module) else script
    for given in inputs:
        same(module(*copy.deepcopy(given)), reference(*copy.deepcopy(given)))


def reloaded(script: Any) -> Any:
    buffer = io.BytesIO()
    torch.jit.save(script, buffer)
    buffer.seek(0)
    return torch.jit.load(buffer)


@pytest.mark.spec("1.19", "2.99")
@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("source", ["scripted", "loaded"])
def test_programs_equal_the_script_at_other_sizes(name: str, source: str) -> None:
    case = PROGRAMS[name]
    torch.manual_seed(0)
    script = torch.jit.script(case.make().eval())
    if source == "loaded":
        script = reloaded(script)
    program = sf.from_torchscript(script, case.inputs, dynamic_shapes=case.dims)
    program.verify(script, samples=1)
    check(script, program, case.inputs, *case.others, case.inputs)


@pytest.mark.spec("2.99")
def test_functions_and_traces() -> None:
    script = torch.jit.script(scaled)
    program = sf.from_torchscript(script, (x(4), 2.0), dynamic_shapes=({0: sf.Dim("n")}, None))
    assert program.root_class == "scaled"
    check(script, program, (x(4), 2.0), (x(9), 2.0))

    def flatten(x: torch.Tensor) -> torch.Tensor:
        return x.view(x.size(0) * 2, -1) + torch.arange(x.shape[1] // 2) * 2.5

    trace = torch.jit.trace(flatten, x(2, 4))
    dims = ({0: sf.Dim("b"), 1: 2 * sf.Dim("k", min=1)},)
    for traced in (trace, reloaded(trace)):
        program = sf.from_torchscript(traced, x(2, 4), dynamic_shapes=dims)
        check(traced, program, (x(5, 6),), (x(1, 2),))


@pytest.mark.spec("2.10", "2.94", "2.99", "2.101")
def test_traced_modules_keep_names_and_scopes() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    traced = torch.jit.trace(model, x(2, 3))
    program = sf.from_torchscript(traced, (x(2, 3),), dynamic_shapes=({0: sf.Dim("b")},))
    assert program.state_dict.keys() == model.state_dict().keys()
    check(traced, program, (x(2, 3),), (x(7, 3),))
    linear = next(n for n in program.graph.nodes if "linear" in n.name)
    paths = [path for path, _ in linear.meta["nn_module_stack"].values()]
    assert paths == ["", "0"]
    assert "linear.py" not in linear.meta.get("stack_trace", "")  # torch's own line is no user line


class TwoMethods(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 3)

    def forward(self, x):  # type: ignore[no-untyped-def]
        return self.inner(x)

    @torch.jit.export
    def encode(self, x, twice: bool = True):  # type: ignore[no-untyped-def]
        y = self.inner(x)
        return self.inner(y) if twice else y


@pytest.mark.spec("2.99")
def test_a_method_of_a_module() -> None:
    script = torch.jit.script(TwoMethods())
    program = sf.from_torchscript(script.encode, (x(2, 3),), dynamic_shapes=({0: sf.Dim("b")},))
    same(program.module()(x(5, 3)), script.encode(x(5, 3)))
    assert "inner.weight" in program.state_dict
    same(script(x(5, 3)), script.inner(x(5, 3)))  # forward is what it was


@pytest.mark.spec("2.99")
def test_python_around_torchscript() -> None:
    class Around(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scripted = torch.jit.script(nn.Linear(3, 3))
            self.again = self.scripted

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.again(self.scripted(x)) + 1

    model = Around()
    before = model.scripted
    program = sf.from_torchscript(model, (x(2, 3),), dynamic_shapes=({0: sf.Dim("b")},))
    assert model.scripted is before and model.again is before
    same(program.module()(x(4, 3)), model(x(4, 3)))
    program = sf.from_torchscript(lambda a, b: a + b, (x(2), x(2)))  # any callable
    same(program.module()(x(2), x(2)), x(2) * 2)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_functions_that_python_calls_do_what_their_graphs_do() -> None:
    def rows(x: torch.Tensor) -> torch.Tensor:
        return x.new_ones(int(x.size(0))) if x.dim() == 2 else x

    traced = torch.jit.trace(rows, x(2, 3), check_trace=False)  # returns two ones, always
    source = "def above(x):\n  if x.size(0) > 3:\n    return x * 2\n  return x\n"
    unit = torch.jit.CompilationUnit(source)
    dims = ({0: sf.Dim("b", min=4)},)
    for function in (traced, unit.above, torch.jit.script(scaled)):
        rest = (3.0,) if function.name == "scaled" else ()
        model = _Calls(function, rest)
        for convert in (sf.export, sf.from_torchscript):
            program = convert(model, (x(4, 3),), dynamic_shapes=dims)
            same(program.module()(x(6, 3)), function(x(6, 3), *rest))
    with pytest.raises(sf.ConstraintViolationError):
        sf.export(_Calls(unit.above, ()), (x(4, 3),), dynamic_shapes=({0: sf.Dim("b")},))
    same(traced(x(2, 3)), torch.ones(2))  # as it was


class _Calls(nn.Module):
    def __init__(self, function: Any, rest: tuple[Any, ...]) -> None:
        super().__init__()
        self.function = function
        self.rest = rest

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(x, *self.rest)


@pytest.mark.spec("2.100")
def test_inputs_in_other_forms() -> None:
    @torch.jit.script
    def of_dict(table: dict[str, torch.Tensor]) -> torch.Tensor:
        return table["a"] + table["b"]

    table = {"a": x(2), "b": x(2)}
    same(sf.from_torchscript(of_dict, table).module()(table), of_dict(table))
    with pytest.raises(sf.InvalidInput, match="args must be a tuple"):
        sf.from_torchscript(of_dict, table, {"b": x(2)})
    double = torch.jit.script(nn.ReLU())
    for args in (x(3), [x(3)], (x(3),)):
        same(sf.from_torchscript(double, args).module()(x(3)), double(x(3)))
    program = sf.from_torchscript(torch.jit.script(scaled), (), {"x": x(3), "factor": 2})
    same(program.module()(x=x(3), factor=2), scaled(x(3), 2.0))


@pytest.mark.spec("1.26")
def test_inputs_of_a_wrong_type_are_refused_by_name() -> None:
    with pytest.raises(sf.InvalidInput, match="factor must be a float, got str"):
        sf.from_torchscript(torch.jit.script(scaled), (x(3), "2"))
    with pytest.raises(sf.InvalidInput, match="missing a required argument: 'factor'"):
        sf.from_torchscript(torch.jit.script(scaled), (x(3),))


# -- what is refused ------------------------------------------------------------------------------


@pytest.mark.spec("1.35")
def test_a_branch_on_a_size_is_a_guard_with_the_line() -> None:
    script = torch.jit.script(PROGRAMS["GuardedBySize"].make())
    with pytest.raises(sf.ConstraintViolationError) as caught:
        sf.from_torchscript(script, (x(5, 3),), dynamic_shapes=({0: sf.Dim("b")},))
    assert "b >= 3" in str(caught.value)
    assert any("if x.size(0) > 2:" in line for line in caught.value.where)
    program = sf.from_torchscript(script, (x(2, 3),), dynamic_shapes=({0: sf.Dim("b", max=2)},))
    check(script, program, (x(1, 3),), (x(2, 3),))
    with pytest.raises(sf.CallError):
        program.module()(x(3, 3))


class LoopOverRows(nn.Module):
    def forward(self, x):  # type: ignore[no-untyped-def]
        total = torch.zeros(3)
        for i in range(x.size(0)):
            total = total * 2 + x[i]
        return total


def test_a_loop_over_a_size_fixes_it() -> None:
    script = torch.jit.script(LoopOverRows())
    with pytest.raises(sf.ConstraintViolationError, match="b == 4"):
        sf.from_torchscript(script, (x(4, 3),), dynamic_shapes=({0: sf.Dim("b")},))
    check(script, sf.from_torchscript(script, (x(4, 3),)), (x(4, 3),))


class BranchOnData(nn.Module):
    def forward(self, x):  # type: ignore[no-untyped-def]
        if x.sum() > 0:
            return x
        return -x


class NumberFromData(nn.Module):
    def forward(self, x):  # type: ignore[no-untyped-def]
        n = int(x.max().item())
        return torch.ones(n + 1), n


def test_branches_on_data_are_refused_and_numbers_from_data_are_symbols() -> None:
    with pytest.raises(sf.DataDependentError) as caught:
        sf.from_torchscript(torch.jit.script(BranchOnData()), (x(3),))
    assert any("if x.sum() > 0:" in line for line in caught.value.where)
    script = torch.jit.script(NumberFromData())
    program = sf.from_torchscript(script, (torch.tensor([2, 3]),))
    check(script, program, (torch.tensor([2, 3]),), (torch.tensor([7, 0]),))


class Counter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x):  # type: ignore[no-untyped-def]
        self.calls += 1
        return x + self.calls


class GrowingState(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.state = torch.zeros(0)

    def forward(self, x):  # type: ignore[no-untyped-def]
        if self.state.numel() == 0:
            self.state = torch.zeros_like(x)
        self.state = self.state + x
        return self.state


def test_state_that_a_program_cannot_keep_is_refused() -> None:
    script = torch.jit.script(Counter())
    with pytest.raises(sf.SideEffectError, match=r"self\.calls"):
        sf.from_torchscript(script, (x(3),))
    assert script.calls == 0
    script = torch.jit.script(GrowingState())
    with pytest.raises(sf.StillframeError):
        sf.from_torchscript(script, (x(3),))
    script(x(3))  # makes the state
    check(script, sf.from_torchscript(script, (x(3),)), (x(3),), (x(3) + 1,))


def test_an_export_leaves_the_script_alone() -> None:
    script = torch.jit.script(WrittenBuffer())
    before = {k: v.clone() for k, v in script.state_dict().items()}
    program = sf.from_torchscript(script, (x(4, 3),))
    program.module()(x(4, 3))
    same(dict(script.state_dict()), before)


@pytest.mark.parametrize(
    ("function", "args", "named"),
    [
        (lambda: _seeds, (x(2),), "aten::manual_seed"),
        (lambda: _powers, (x(2),), "aten::pow.int"),
        (lambda: _compares_texts, (x(2),), "aten::eq.str"),
    ],
)
def test_unknown_operators_are_named_with_their_line(
    function: Any, args: tuple[Any, ...], named: str
) -> None:
    script = torch.jit.script(function())
    with pytest.raises(sf.NotSupported) as caught:
        sf.from_torchscript(script, args, dynamic_shapes=({0: sf.Dim("n", min=1)},))
    assert f"The TorchScript operator {named} is not supported" in str(caught.value)
    assert "<--- HERE" in str(caught.value)


def _seeds(x: torch.Tensor) -> torch.Tensor:
    torch.manual_seed(3)
    return x


def _powers(x: torch.Tensor) -> torch.Tensor:
    return x * (x.size(0) ** 2)


def _compares_texts(x: torch.Tensor) -> torch.Tensor:
    return x + 1 if f"{x.size(0)}" == "2" else x


def test_questions_are_conditions_of_every_call() -> None:
    @torch.jit.script
    def asks(x: torch.Tensor) -> torch.Tensor:
        if x.requires_grad or not torch.is_grad_enabled():
            return x * 2
        return x.contiguous() if x.is_contiguous() else x + 1

    module = sf.from_torchscript(asks, (x(3, 3),)).module()
    same(module(x(3, 3)), asks(x(3, 3)))
    with pytest.raises(sf.CallError, match="requires_grad"):
        module(x(3, 3).requires_grad_())
    with pytest.raises(sf.CallError, match="is_contiguous"):
        module(x(3, 3).t())
    with pytest.raises(sf.CallError, match="grad mode"), torch.no_grad():
        module(x(3, 3))


def test_the_identity_of_inputs_is_refused() -> None:
    @torch.jit.script
    def compares(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x * 2 if x is y else x + y

    with pytest.raises(sf.NotSupported, match="aten::__is__"):
        sf.from_torchscript(compares, (x(3), x(3)))


def test_regions_of_autocast_are_refused() -> None:
    @torch.jit.script
    def region(x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu"):
            y = torch.mm(x, x)
        return y

    with pytest.raises(sf.NotSupported, match="autocast"):
        sf.from_torchscript(region, (x(3, 3),))


def test_text_of_sizes_may_be_in_messages_only() -> None:
    @torch.jit.script
    def tells(x: torch.Tensor) -> tuple[torch.Tensor, str]:
        return x, f"{x.size(0)} rows"

    with pytest.raises(sf.NotSupported, match="text with numbers"):
        sf.from_torchscript(tells, (x(2),), dynamic_shapes=({0: sf.Dim("n")},))

    @torch.jit.script
    def asserts(x: torch.Tensor) -> torch.Tensor:
        torch._assert(x.dim() == 2, f"a matrix of {x.size(0)} rows, not {x.shape}")
        return x

    program = sf.from_torchscript(asserts, (x(2, 3),), dynamic_shapes=({0: sf.Dim("n")},))
    check(asserts, program, (x(5, 3),))


def test_what_the_script_raises_is_raised() -> None:
    script = torch.jit.script(PROGRAMS["EarlyReturnAndAssert"].make())
    with pytest.raises(torch.jit.Error, match="six features, got 5"):
        sf.from_torchscript(script, (x(4, 5),))


def test_hooks_of_the_outermost_module_are_refused() -> None:
    def hook(self, args: tuple[torch.Tensor], result: torch.Tensor) -> torch.Tensor:  # type: ignore[no-untyped-def]
        return result + 1

    inner = nn.ReLU()
    inner.register_forward_hook(hook)
    with pytest.raises(sf.NotSupported, match="hooks"):
        sf.from_torchscript(torch.jit.script(inner), (x(3),))
    script = torch.jit.script(nn.Sequential(inner))
    check(script, sf.from_torchscript(script, (x(3),)), (x(3),))


# -- constants ------------------------------------------------------------------------------------


def test_scalar_constants_have_the_dtype_that_torch_s_executor_gives() -> None:
    half = torch.tensor(2.5, dtype=torch.float64)
    functions = (
        lambda x: x * 2.5, lambda x: x + half, lambda x: x - half, lambda x: x / half,
        lambda x: half - x, lambda x: torch.maximum(x, half), lambda x: x**half,
    )  # fmt: skip
    for function, example in itertools.product(functions, (torch.arange(3), torch.tensor(3))):
        trace = torch.jit.trace(function, (example,), check_trace=False)
        for traced in (trace, reloaded(trace)):
            check(traced, sf.from_torchscript(traced, (example,)), (example,), (example + 1,))


def test_a_constant_that_is_written_stays_one_tensor() -> None:
    table = torch.zeros(())

    def counts(x: torch.Tensor) -> torch.Tensor:
        table.add_(1.0)
        return x + table

    script = torch.jit.trace(counts, (x(3),), check_trace=False)
    value = script.graph.findAllNodes("prim::Constant")
    assert any(n.output().type().kind() == "TensorType" for n in value)
    program = sf.from_torchscript(script, (x(3),))
    module = program.module()
    first, second = module(x(3)), module(x(3))
    same(second - first, torch.ones(3))


# -- the tables -----------------------------------------------------------------------------------


def test_arithmetic_on_symbols_is_torch_s_arithmetic() -> None:
    """On plain numbers, each function of the table gives what torch's operator gives."""
    numbers = {"int": (-7, -1, 1, 3, 12), "float": (-2.5, 0.5, 3.0), "bool": (True, False)}
    checked = 0
    for op, function in script_operators.ON_SYMBOLS.items():
        overload = script_machine.overload_of(op)
        kinds = [a.type.str() for a in overload._schema.arguments]
        if not all(kind in numbers for kind in kinds):
            continue
        for args in itertools.product(*(numbers[kind] for kind in kinds)):
            try:
                expected = overload(*args)
            except RuntimeError:  # a root of a negative number
                continue
            if isinstance(expected, float) and math.isnan(expected):
                continue
            result = function(*args)
            assert result == expected, (op, args)
            checked += 1
    assert checked > 500


def test_every_function_is_of_an_operator_that_torch_has() -> None:
    for op in (*script_operators.BUILTINS, *script_operators.ON_SYMBOLS):
        if op.startswith("aten::") and op != "aten::wait":
            assert script_machine.overload_of(op) is not None, op


def test_containers_behave_as_in_torchscript() -> None:
    values = [1, 2]
    assert script_operators.BUILTINS["aten::append.t"](values, 3) is values
    assert script_operators.BUILTINS["aten::add_.t"](values, [4]) is values
    assert values == [1, 2, 3, 4]
    assert script_operators.BUILTINS["aten::slice.t"](values, None, -1, 2) == [1, 3]
    ordered = collections.OrderedDict(a=1)
    assert script_operators.BUILTINS["aten::items.str"](ordered) == [("a", 1)]
    assert operator.index(script_operators.BUILTINS["aten::len.t"](values)) == 4


# -- a real network -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def voice_detector() -> Any:
    """The TorchScript file of silero-vad; nothing of the package's code is run."""
    from importlib.metadata import files

    found = next(f for f in files("silero-vad") or () if f.name == "silero_vad.jit")
    return torch.jit.load(str(Path(str(found.locate())))).eval()


def test_a_voice_detector_carries_its_state(voice_detector: Any) -> None:
    script = copy.deepcopy(voice_detector)
    sound = [x(2, 512) / (i + 1) for i in range(5)]
    # the first call makes the state: a buffer of another shape, which no program can hold
    with pytest.raises(sf.SideEffectError, match=r"self\._context") as caught, torch.no_grad():
        sf.from_torchscript(script, (sound[0], 16000))
    assert "if only the first call does this: call the module once" in str(caught.value)
    with torch.no_grad():
        script(sound[0], 16000)
        module = sf.from_torchscript(script, (sound[0], 16000)).module()
        for chunk in sound:
            same(module(chunk, 16000), script(chunk, 16000))
    with pytest.raises(sf.CallError):
        module(sound[0], 8000)


def test_the_network_inside_takes_any_batch(voice_detector: Any) -> None:
    inner = voice_detector._model
    batch = sf.Dim("batch")
    with torch.no_grad():
        program = sf.from_torchscript(
            inner, (x(3, 576), torch.zeros(2, 3, 128)), dynamic_shapes=({0: batch}, {1: batch})
        )
        module = program.module()
        for size in (1, 4):
            ours = theirs = torch.zeros(2, size, 128)
            for _ in range(3):
                a, ours = module(x(size, 576), ours)
                b, theirs = inner(x(size, 576), theirs)
                same((a, ours), (b, theirs))


def test_a_program_of_a_script_is_saved_and_loaded(tmp_path: Path) -> None:
    case = PROGRAMS["NamedResults"]
    program = sf.from_torchscript(
        torch.jit.script(case.make()), case.inputs, dynamic_shapes=case.dims
    )
    sf.save(program, tmp_path / "script.still")
    loaded = sf.load(tmp_path / "script.still").module()
    ours, theirs = loaded(x(6, 3)), program.module()(x(6, 3))
    same(pytree.tree_leaves(ours), pytree.tree_leaves(theirs))


def test_optional_inputs_are_fixed_by_the_example() -> None:
    script = torch.jit.script(OptionalInput())
    program = sf.from_torchscript(script, (x(4, 3),))
    with pytest.raises(sf.CallError):
        program.module()(x(4, 3), x(4, 3))
