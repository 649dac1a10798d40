"""Several captures in one program: dispatch, modes, methods, and the state that they share."""

from __future__ import annotations

import copy
import pickle
import random
from typing import Any

import pytest
import torch
from torch import nn

import stillframe as sf

LARGE = {"x": {0: sf.Dim("batch", min=2)}}
ANY = {"x": {0: sf.Dim("batch", min=1)}}


class Model(nn.Module):
    """Branches on the batch, a flag and None; writes buffers in train mode; has two methods."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.norm = nn.BatchNorm1d(4)
        self.head = nn.Linear(4, 4)
        self.head.weight = self.first.weight

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        return self.first(x) * torch.tensor(2.0)

    def forward(
        self, x: torch.Tensor, mask: torch.Tensor | None = None, negate: bool = False
    ) -> torch.Tensor:
        y = self.head(self.norm(self.encode(x)))
        if x.shape[0] == 1:
            y = y + torch.tensor(3.0)
        if mask is not None:
            y = y * mask
        return -y if negate else y


@pytest.fixture
def model() -> Model:
    torch.manual_seed(0)
    return Model().eval()


def rows(n: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(n, 4, generator=torch.Generator().manual_seed(n)).to(dtype)


def both_modes(model: Model) -> sf.ProgramSet:
    model.eval()
    evaluation = sf.export(model, (rows(3),), dynamic_shapes=LARGE)
    model.train()
    training = sf.export(model, (rows(3),), dynamic_shapes=LARGE)
    model.eval()
    return sf.combine(evaluation, training)


# -- which graph takes a call ---------------------------------------------------------------------


def test_a_call_goes_to_the_graph_for_its_sizes(model: Model) -> None:
    one = sf.export(model, (rows(1),))
    many = sf.export(model, (rows(3),), dynamic_shapes=LARGE)
    for programs in (sf.combine(one, many), sf.combine(many, one)):
        module = programs.module()
        for n in (1, 2, 5):
            torch.testing.assert_close(module(rows(n)), model(rows(n)), rtol=0, atol=0)
        torch.testing.assert_close(module(x=rows(1)), model(rows(1)), rtol=0, atol=0)


def test_dispatch_on_none_flags_and_dtypes(model: Model) -> None:
    mask = torch.tensor([1.0, 0.0, 1.0, 1.0])
    double = copy.deepcopy(model).double()
    programs = [
        sf.export(model, (rows(3),), dynamic_shapes=LARGE),
        sf.export(model, (rows(3), mask), dynamic_shapes={**LARGE, "mask": None}),
        sf.export(model, (rows(3),), {"negate": True}, dynamic_shapes={**LARGE, "negate": None}),
    ]
    module = sf.combine(*programs).module()
    for args, kwargs in (
        ((rows(4),), {}),
        ((rows(4), mask), {}),
        ((rows(4),), {"negate": True}),
        ((rows(4), None, True), {}),
    ):
        torch.testing.assert_close(module(*args, **kwargs), model(*args, **kwargs), rtol=0, atol=0)  # type: ignore[arg-type]
    with pytest.raises(sf.CallError):
        module(rows(4), mask, True)
    with pytest.raises(sf.InvalidInput, match="not the same tensor"):
        sf.combine(programs[0], sf.export(double, (rows(3, torch.float64),), dynamic_shapes=LARGE))

    def scale(x: torch.Tensor) -> torch.Tensor:
        return x * 2 if x.dtype is torch.float64 else x + 1

    either = sf.combine(
        sf.export(scale, (rows(2),)), sf.export(scale, (rows(2, torch.float64),))
    ).module()
    assert torch.equal(either(rows(2)), rows(2) + 1)
    assert torch.equal(either(rows(2, torch.float64)), rows(2, torch.float64) * 2)


def test_dispatch_on_ranks_and_containers() -> None:
    def total(x: Any) -> torch.Tensor:
        return x.sum() if isinstance(x, torch.Tensor) else x["a"] * 10

    module = sf.combine(
        sf.export(total, (torch.ones(2),)),
        sf.export(total, (torch.ones(2, 2),)),
        sf.export(total, ({"a": torch.ones(2)},)),
    ).module()
    assert module(torch.ones(2)) == 2
    assert module(torch.ones(2, 2)) == 4
    assert torch.equal(module({"a": torch.ones(2)}), torch.full((2,), 10.0))
    with pytest.raises(sf.CallError, match="graph 3"):
        module(None)


def test_dispatch_on_guards_and_modes_of_torch() -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        y = x * 2 if x.shape[0] % 2 == 0 else x * 3
        return y + 1 if torch.is_grad_enabled() else y

    s = sf.Dim("s", min=1)
    even = sf.export(f, (torch.ones(4),), dynamic_shapes=({0: s},), assume=["s % 2 == 0"])
    odd = sf.export(f, (torch.ones(5),), dynamic_shapes=({0: s},), assume=["s % 2 == 1"])
    with torch.no_grad():
        quiet = sf.export(f, (torch.ones(4),), dynamic_shapes=({0: s},), assume=["s % 2 == 0"])
    module = sf.combine(even, odd, quiet).module()
    for n in (4, 5, 6, 7):
        assert torch.equal(module(torch.ones(n)), f(torch.ones(n)))
    with torch.no_grad():
        assert torch.equal(module(torch.ones(6)), f(torch.ones(6)))
        with pytest.raises(sf.CallError, match="grad mode is False"):
            module(torch.ones(5))


def test_dispatch_on_what_forward_asks_of_a_parameter() -> None:
    class Asks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.ones(2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.w if self.w.requires_grad else x - self.w

    mod = Asks()
    trained = sf.export(mod, (torch.ones(2),))
    mod.w.requires_grad_(False)
    frozen = sf.export(mod, (torch.ones(2),))
    module = sf.combine(trained, frozen).module()
    assert torch.equal(module(torch.ones(2)), torch.zeros(2))
    module.get_parameter("w").requires_grad_(True)
    assert torch.equal(module(torch.ones(2)), torch.ones(2))


def test_inputs_that_share_memory_go_to_the_graph_that_reads() -> None:
    def f(x: torch.Tensor, y: torch.Tensor, write: bool) -> torch.Tensor:
        if write:
            x.add_(1)
        return x + y

    writes = sf.export(f, (torch.ones(2), torch.ones(2), True))
    reads = sf.export(f, (torch.ones(2), torch.ones(2), False))
    module = sf.combine(writes, reads).module()
    t = torch.ones(2)
    assert torch.equal(module(t, t, False), torch.full((2,), 2.0))
    with pytest.raises(sf.CallError, match=r"graph 1: x and y share memory"):
        module(t, t, True)
    assert torch.equal(t, torch.ones(2))


class Branches(nn.Module):
    """Another result in each branch; the buffer counts the calls that were not quiet."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.arange(3.0))
        self.register_buffer("calls", torch.zeros(()))

    def forward(
        self, x: torch.Tensor, y: torch.Tensor | None = None, *, quiet: bool = False
    ) -> torch.Tensor:
        out = x * self.weight if x.dtype is torch.float32 else x.float() + 7
        out = out + 1 if x.shape[0] == 1 else out - 1 if x.shape[0] % 2 else out
        out = out if y is None else out * y.sum() if y.dim() == 2 else out + y
        if not quiet:
            self.calls += 1
        return out - self.calls if self.training else out


def random_call(rng: random.Random) -> tuple[tuple[Any, ...], dict[str, Any]]:
    x = torch.randn(rng.choice([1, 2, 3, 4]), 3)
    y = rng.choice([None, None, torch.randn(3), torch.randn(2, 3)])
    x = x.double() if rng.random() < 0.2 else x
    return (x, y), {"quiet": rng.random() < 0.3}


def test_any_set_of_graphs_takes_what_one_of_them_takes() -> None:
    """Random captures in random order: a call gives what eager gives, or no graph takes it."""
    rng = random.Random(3)
    torch.manual_seed(3)
    taken = refused = 0
    for _ in range(10):
        mod = Branches()
        programs = []
        for _ in range(rng.randrange(2, 9)):
            args, kwargs = random_call(rng)
            mod.train(rng.random() < 0.5)
            shapes = {"x": {0: sf.Dim.AUTO}, "y": None, "quiet": None}
            programs.append(sf.export(mod, args, kwargs, dynamic_shapes=shapes))
        module = sf.combine(*programs).module()
        alone = [(p.training, copy.deepcopy(p).module()) for p in programs]
        for _ in range(25):
            args, kwargs = random_call(rng)
            training = rng.choice(alone)[0]
            module.train(training)
            reference = copy.deepcopy(mod).train(training)
            reference.load_state_dict(module.state_dict())
            if any(accepts(single, args, kwargs) for mode, single in alone if mode == training):
                expected = reference(*args, **kwargs)
                torch.testing.assert_close(module(*args, **kwargs), expected, rtol=0, atol=0)
                assert torch.equal(module.get_buffer("calls"), reference.calls)
                taken += 1
            else:
                with pytest.raises(sf.CallError):
                    module(*args, **kwargs)
                refused += 1
    assert min(taken, refused) > 30, (taken, refused)


def accepts(module: nn.Module, args: Any, kwargs: Any) -> bool:
    try:
        module(*args, **kwargs)
    except sf.CallError:
        return False
    return True


def test_a_refusal_says_of_each_graph_why(model: Model) -> None:
    one = sf.export(model, (rows(1),))
    many = sf.export(model, (rows(3),), dynamic_shapes=LARGE)
    module = sf.combine(one, many).module()
    with pytest.raises(sf.CallError) as caught:
        module(rows(2).double())
    text = str(caught.value)
    assert "forward: no graph of this program takes the call." in text
    assert "graph 1: x: dtype is float64" in text and "graph 2: x: dtype is float64" in text
    assert caught.value.__context__ is None
    with pytest.raises(sf.CallError) as caught:
        module(torch.randn(0, 4))
    assert "graph 1: x: dim 0 is 0, the program takes 1." in str(caught.value)
    assert "graph 2: x: dim 0 (batch) is 0, outside 2.." in str(caught.value)


def test_an_input_that_raises_when_it_is_looked_at(model: Model) -> None:
    class Broken(dict[str, torch.Tensor]):
        @property
        def dtype(self) -> Any:
            raise RuntimeError("no dtype today")

    module = sf.combine(
        sf.export(model, (rows(1),)), sf.export(model, (rows(3),), dynamic_shapes=LARGE)
    ).module()
    with pytest.raises(sf.CallError, match="graph 2"):
        module(Broken())


def test_errors_of_an_operator_are_its_own() -> None:
    """A graph that fits and fails is not passed over."""

    def f(x: torch.Tensor, i: torch.Tensor) -> torch.Tensor:
        return x[i]

    x, i = torch.ones(3), torch.tensor([0])
    module = sf.combine(sf.export(f, (x, i)), sf.export(f, (torch.ones(3, 2), i))).module()
    with pytest.raises(IndexError) as caught:
        module(torch.ones(3, 2), torch.tensor([7]))
    assert caught.value.__context__ is None


def test_hooks_are_called_once_whichever_graph_runs(model: Model) -> None:
    module = sf.combine(
        sf.export(model, (rows(1),)), sf.export(model, (rows(3),), dynamic_shapes=LARGE)
    ).module()
    calls: list[int] = []
    module.register_forward_hook(lambda mod, args, out: calls.append(len(args[0])))
    module(rows(1))
    module(rows(3))
    assert calls == [1, 3]


def test_gradients_reach_the_one_set_of_parameters(model: Model) -> None:
    module = sf.combine(
        sf.export(model, (rows(1),)), sf.export(model, (rows(3),), dynamic_shapes=LARGE)
    ).module()
    module(rows(1)).sum().backward()
    module(rows(3)).sum().backward()
    reference = copy.deepcopy(model)
    reference.zero_grad()
    reference(rows(1)).sum().backward()
    reference(rows(3)).sum().backward()
    assert [n for n, _ in module.named_parameters()] == [n for n, _ in model.named_parameters()]
    for name, parameter in reference.named_parameters():
        torch.testing.assert_close(module.get_parameter(name).grad, parameter.grad)


def test_functional_programs_too(model: Model) -> None:
    programs = both_modes(model)
    module = sf.combine(*(p.run_decompositions() for p in programs.programs)).module()
    reference = copy.deepcopy(model)
    for mode in (True, False):
        module.train(mode)
        reference.train(mode)
        torch.testing.assert_close(module(rows(3)), reference(rows(3)))
    torch.testing.assert_close(module.state_dict(), reference.state_dict())


def test_functional_graphs_refuse_inputs_over_state_that_they_write(model: Model) -> None:
    programs = both_modes(model)
    module = sf.combine(*(p.run_decompositions() for p in programs.programs)).module()
    module.train()
    with pytest.raises(sf.CallError, match="shares memory with state"):
        module(module.get_buffer("norm.running_mean").expand(3, 4))


# -- modes ----------------------------------------------------------------------------------------


def test_train_and_eval_switch_between_graphs(model: Model) -> None:
    module = both_modes(model).module()
    reference = copy.deepcopy(model)
    assert not module.training
    for mode in (False, True, False):
        assert module.train(mode) is module
        reference.train(mode)
        assert all(part.training is mode for part in module.modules())
        torch.testing.assert_close(module(rows(3)), reference(rows(3)))
    assert module.state_dict().keys() == model.state_dict().keys()
    torch.testing.assert_close(module.state_dict(), reference.state_dict())
    # the module that was exported is left alone
    assert model.get_buffer("norm.num_batches_tracked") == 0


def test_a_part_does_not_switch_alone(model: Model) -> None:
    module = both_modes(model).module()
    with pytest.raises(sf.NotSupported, match="does not change its mode alone"):
        module.get_submodule("norm").train()
    module.get_submodule("norm").eval()
    assert not module.get_submodule("norm").training


def test_a_mode_that_was_not_captured_is_refused(model: Model) -> None:
    module = sf.combine(
        sf.export(model, (rows(1),)), sf.export(model, (rows(3),), dynamic_shapes=LARGE)
    ).module()
    with pytest.raises(sf.NotSupported, match="captured in eval mode"):
        module.train()
    assert module.eval() is module


def test_a_call_in_a_mode_for_which_there_is_no_graph(model: Model) -> None:
    programs = both_modes(model)
    encode = sf.export(model.encode, (rows(3),), dynamic_shapes=ANY)
    module = sf.combine(*programs.programs, encode=encode).module()
    assert torch.equal(module.encode(rows(2)), model.encode(rows(2)))
    module.train()
    with pytest.raises(sf.CallError, match="captured in eval mode, and the module is in train"):
        module.encode(rows(2))


# -- methods --------------------------------------------------------------------------------------


@pytest.mark.parametrize("strict", [False, True])
def test_a_method_is_exported_with_the_module_s_state(model: Model, strict: bool) -> None:
    program = sf.export(model.encode, (rows(3),), dynamic_shapes=ANY, strict=strict)
    assert program.root_class == "Model"
    assert set(program.state_dict) == set(model.state_dict())
    assert program.state_dict["first.weight"] is model.first.weight
    assert torch.equal(program.module()(rows(2)), model.encode(rows(2)))
    assert len(program.verify(model.encode).samples) == 4


def test_methods_share_parameters(model: Model) -> None:
    programs = sf.combine(
        forward=sf.export(model, (rows(3),), dynamic_shapes=LARGE),
        encode=[
            sf.export(model.encode, (rows(1),)),
            sf.export(model.encode, (rows(3),), dynamic_shapes=LARGE),
        ],
    )
    assert list(programs.methods) == ["forward", "encode"]
    module = programs.module()
    with torch.no_grad():
        module.get_parameter("first.weight").mul_(2)  # the model's own
    for n in (1, 3):
        assert torch.equal(module.encode(rows(n)), model.encode(rows(n)))
    assert torch.equal(module(rows(3)), model(rows(3)))
    assert module.head.weight is module.first.weight


def test_hooks_of_forward_are_not_part_of_a_method(model: Model) -> None:
    def hook(*_: Any) -> None:
        raise AssertionError("called")

    model.register_forward_pre_hook(hook)
    program = sf.export(model.encode, (rows(3),))
    assert torch.equal(program.module()(rows(3)), model.encode(rows(3)))


def test_a_method_may_call_forward(model: Model) -> None:
    class Twice(Model):
        def twice(self, x: torch.Tensor) -> torch.Tensor:
            return self(self(x))

    mod = Twice().eval()
    program = sf.export(mod.twice, (rows(3),), dynamic_shapes=LARGE)
    torch.testing.assert_close(program.module()(rows(5)), mod.twice(rows(5)))


def test_side_effects_of_a_method_are_refused() -> None:
    seen: list[int] = []

    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.calls = 0

        def step(self, x: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            return x + 1

    def attached(self: nn.Module, x: torch.Tensor) -> torch.Tensor:
        seen.append(1)
        return x + 1

    mod = Counts()
    with pytest.raises(sf.SideEffectError, match=r"self\.calls"):
        sf.export(mod.step, (torch.ones(2),))
    assert mod.calls == 0
    with pytest.raises(sf.SideEffectError, match="seen"):
        sf.export(attached.__get__(mod), (torch.ones(2),))
    assert seen == []


def test_a_program_without_forward(model: Model) -> None:
    module = sf.combine(encode=sf.export(model.encode, (rows(3),))).module()
    assert torch.equal(module.encode(rows(3)), model.encode(rows(3)))
    with pytest.raises(sf.NotSupported, match="has no forward; it has encode"):
        module(rows(3))


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("a b", "cannot be the name"),
        ("", "cannot be the name"),
        ("class", "cannot be the name"),
        ("train", "every module has"),
        ("training", "every module has"),
        ("state_dict", "every module has"),
        ("__call__", "every module has"),
        ("__unknown", "every module has"),
        ("code", "every module has"),
        ("first", "part of the module"),
    ],
)
def test_names_that_cannot_be_methods(model: Model, name: str, part: str) -> None:
    program = sf.export(model.encode, (rows(3),))
    with pytest.raises(sf.InvalidInput, match=part):
        sf.combine(**{name: program})


# -- what cannot be combined ----------------------------------------------------------------------


def test_what_is_no_program(model: Model) -> None:
    with pytest.raises(sf.InvalidInput, match="at least one program"):
        sf.combine()
    with pytest.raises(sf.InvalidInput, match="at least one program"):
        sf.combine(encode=[])
    with pytest.raises(sf.InvalidInput, match="takes exported programs, got Model"):
        sf.combine(model)  # type: ignore[arg-type]


def test_programs_of_other_modules(model: Model) -> None:
    program = sf.export(model, (rows(3),))
    with pytest.raises(sf.InvalidInput, match="not of one module: Model and Linear"):
        sf.combine(program, inner=sf.export(model.first, (rows(3),)))
    one, other = nn.Linear(4, 4), nn.Linear(4, 4, bias=False)
    with pytest.raises(sf.InvalidInput, match="only one of them has bias"):
        sf.combine(sf.export(one, (rows(1),)), sf.export(other, (rows(1),)))


def test_other_parameters_under_the_same_names(model: Model) -> None:
    program = sf.export(model, (rows(3),))
    other = sf.export(copy.deepcopy(model), (rows(1),))
    with pytest.raises(sf.InvalidInput, match=r"first\.weight is not the same tensor") as caught:
        sf.combine(program, other)
    assert "with_state_dict" in str(caught.value)
    shared = sf.combine(program, other.with_state_dict(program.state_dict))
    assert torch.equal(shared.module()(rows(1)), model(rows(1)))


def test_buffers_that_have_changed_since(model: Model) -> None:
    programs = both_modes(model).programs
    programs[1].module()(rows(3))
    sf.combine(*programs)  # they share it
    model.train()
    fresh = sf.export(model, (rows(3),), dynamic_shapes=LARGE)
    with pytest.raises(sf.InvalidInput, match=r"norm\.running_mean is not the same tensor"):
        sf.combine(programs[0], fresh)


def test_graphs_of_one_method_take_the_same_parameters(model: Model) -> None:
    with pytest.raises(sf.InvalidInput, match=r"forward: one program takes \(x, mask=None"):
        sf.combine(sf.export(model, (rows(3),)), sf.export(model.encode, (rows(3),)))


def test_a_view_of_a_buffer_that_another_graph_writes() -> None:
    """Kept apart from the buffer, it would not see what the other graph writes."""

    class Views(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("total", torch.zeros(2))
            self.head = self.total[:1]

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.total.add_(x)
            return self.total * 1

        def peek(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.head

    mod = Views()
    step = sf.export(mod, (torch.ones(2),))
    peek = sf.export(mod.peek, (torch.ones(2),))
    with pytest.raises(sf.InvalidInput, match="views of one memory"):
        sf.combine(step, peek=peek)


def test_constants_without_a_name_are_kept_apart(model: Model) -> None:
    one = sf.export(model, (rows(1),))
    encode = sf.export(model.encode, (rows(1),))
    programs = sf.combine(one, encode=encode)
    assert sorted(programs.constants) == ["lifted_tensor_0", "lifted_tensor_1", "lifted_tensor_2"]
    assert [float(programs.constants[k]) for k in sorted(programs.constants)] == [2.0, 3.0, 2.0]
    (note,) = [n for n in programs.methods["encode"][0].notes if n.startswith("constant")]
    assert "lifted_tensor_2" in note


def test_two_graphs_that_write_one_buffer(model: Model) -> None:
    model.train()
    large = sf.export(model, (rows(4),), dynamic_shapes={"x": {0: sf.Dim("batch", min=4)}})
    small = sf.export(model, (rows(3),), dynamic_shapes={"x": {0: sf.Dim("batch", min=2, max=3)}})
    module = sf.combine(large, small).module()
    reference = copy.deepcopy(model)
    for n in (3, 5, 2):
        torch.testing.assert_close(module(rows(n)), reference(rows(n)))
    assert module.get_buffer("norm.num_batches_tracked") == 3
    torch.testing.assert_close(module.state_dict(), reference.state_dict())


# -- copies ---------------------------------------------------------------------------------------


def test_deep_copies(model: Model) -> None:
    programs = both_modes(model)
    module = programs.module().train()
    twin = copy.deepcopy(module)
    assert twin.training and all(part.training for part in twin.modules())
    twin(rows(3))
    assert module.get_buffer("norm.num_batches_tracked") == 0
    assert twin.get_buffer("norm.num_batches_tracked") == 1
    assert twin.head.weight is twin.first.weight
    assert not twin.eval().training and module.training

    other = copy.deepcopy(programs)
    other.module().train()(rows(3))
    assert programs.state_dict["norm.num_batches_tracked"] == 0
    assert other.state_dict["head.weight"] is other.state_dict["first.weight"]


def test_pickling_points_to_save(model: Model) -> None:
    programs = both_modes(model)
    for thing in (programs, programs.module()):
        with pytest.raises(sf.NotSupported, match=r"stillframe\.save"):
            pickle.dumps(thing)
    with pytest.raises(sf.NotSupported, match="not called itself"):
        programs(rows(3))


def test_texts(model: Model) -> None:
    programs = both_modes(model)
    assert repr(programs) == "<ProgramSet of Model (forward: 2); print() shows it>"
    assert str(programs).count("ExportedProgram of Model") == 2
    assert "forward, graph 2 of 2:" in str(programs)
    code = programs.module().code
    assert "# forward, graph 1 of 2" in code and "if self.training is not False" in code
    compile(code, "code", "exec")


def test_verify_takes_each_mode_and_method(model: Model) -> None:
    programs = sf.combine(*both_modes(model).programs, encode=sf.export(model.encode, (rows(2),)))
    model.train()
    reports = programs.verify(model)
    assert list(reports) == ["forward, graph 1 of 2", "forward, graph 2 of 2", "encode"]
    assert model.norm.training and model.training
    with pytest.raises(sf.InvalidInput, match="no method 'encode'"):
        sf.combine(encode=programs.methods["encode"]).verify(nn.Linear(4, 4))
