"""Modules of ``torch.nn`` in a captured frame."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from tests.variables.checking import agrees, assert_same, guards_of, new_translator, refuses
from tests.variables.kinds.tracked import kinds_of
from torch import nn

import stillframe as sf
from stillframe.variables import FrameCapture, Options, SourcelessBuilder, capture_frame


def run(model: nn.Module, x: torch.Tensor) -> Any:
    return model(x)


def rows() -> torch.Tensor:
    return torch.arange(6.0).reshape(2, 3)


def filled(model: nn.Module) -> Any:
    """The module with parameters that are the same each time."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model


def world(make: Callable[[], nn.Module]) -> Callable[[], tuple[nn.Module, torch.Tensor]]:
    """Makes a module and its input, anew each time."""
    return lambda: (filled(make()), rows())


def same_as_eager(model: nn.Module, calls: int = 2) -> FrameCapture:
    """Capture a module, and compare some calls and the state after them."""
    before = copy.deepcopy(model.state_dict())
    capture = capture_frame(model, (rows(),))
    assert_same(dict(model.state_dict()), dict(before))
    runs = []
    for call in (capture, model):
        model.load_state_dict(before)
        torch.manual_seed(0)
        runs.append(([call(rows()) for _ in range(calls)], copy.deepcopy(model.state_dict())))
    assert_same(runs[0][0], runs[1][0])
    assert_same(dict(runs[0][1]), dict(runs[1][1]))
    return capture


# -- which kind ------------------------------------------------------------------------------------


@pytest.mark.spec("5.37", "5.45")
def test_a_module_is_known_by_its_class_and_what_is_read_of_it() -> None:
    capture = agrees(run, world(lambda: nn.Linear(3, 3)))
    found = guards_of(capture)
    assert "TYPE_MATCH L['model']" in found
    assert not any(guard.startswith("NN_MODULE") for guard in found)
    kinds = kinds_of(run, world(lambda: nn.Linear(3, 3))())
    assert kinds["L['model']"] == "UnspecializedNNModuleVariable"
    assert not any("in_features" in guard for guard in found)  # nobody has read it
    wide = nn.Linear(3, 3)
    wide.in_features = 4
    assert capture.failure(wide, rows()) is None
    assert "TYPE_MATCH" in refuses(capture, nn.Bilinear(3, 3, 3), rows())
    sources = {g.name: g.originating_source for g in capture.guards if g.name}
    assert sources["L['model'].weight"].is_nn_module()


@pytest.mark.spec("5.37")
def test_a_specialised_module_is_this_very_one_in_this_mode() -> None:
    model = filled(nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5))).eval()
    options = Options(inline_inbuilt_nn_modules=False)
    capture = agrees(run, lambda: (model, rows()), options=options)
    assert "NN_MODULE L['model']" in guards_of(capture)
    kinds = kinds_of(run, (model, rows()), options=options)
    assert kinds["L['model']"] == "NNModuleVariable"
    assert "NN_MODULE" in refuses(capture, copy.deepcopy(model), rows())
    model[1].note = "nobody reads this"
    assert capture.failure(model, rows()) is None
    model.train()
    assert "training" in refuses(capture, model, rows())
    model.eval()
    model[0].weight = nn.Parameter(torch.zeros(3, 3))
    assert_same(capture(model, rows()), model(rows()))


@pytest.mark.spec("5.37")
def test_modules_that_cannot_run_yet_are_refused() -> None:
    empty = nn.Linear.__new__(nn.Linear)
    with pytest.raises(sf.FrameError, match="without attributes"):
        capture_frame(run, (empty, rows()))
    with pytest.raises(sf.FrameError, match="LazyLinear whose parameters have no sizes"):
        capture_frame(run, (nn.LazyLinear(3), rows()))
    lazy = nn.LazyLinear(3)
    lazy(rows())
    agrees(run, lambda: (lazy, rows()))
    with pytest.raises(sf.FrameError, match="TorchScript"):
        capture_frame(run, (torch.jit.script(nn.Linear(3, 3)), rows()))
    for layer in (nn.RNN, nn.GRU, nn.LSTM):
        with pytest.raises(sf.FrameError, match=rf"class {layer.__name__}.[\s\S]*allow_rnn"):
            capture_frame(run, (layer(3, 3), rows()))
        agrees(run, world(lambda layer=layer: layer(3, 3)), options=Options(allow_rnn=True))


@pytest.mark.spec("5.37")
def test_what_compile_makes_of_a_module_does_what_the_module_does() -> None:
    layer = filled(nn.Linear(3, 3))
    compiled = torch.compile(layer, backend="eager")

    def ask(model: Any, x: torch.Tensor) -> Any:
        return model(x), model.weight * 2, model.training, model.in_features

    with torch.no_grad():
        kinds = kinds_of(ask, (compiled, rows()))
        capture = capture_frame(ask, (compiled, rows()))
        want = layer(rows()), layer.weight * 2, True, 3
    assert kinds["L['model']"] == "CompiledNNModuleVariable"
    assert "TYPE_MATCH L['model']" in guards_of(capture)
    with torch.no_grad():
        assert_same(capture(compiled, rows()), want)
        layer.eval()
        assert "training" in refuses(capture, compiled, rows())


@pytest.mark.spec("5.37")
def test_a_module_kept_from_compilers_breaks_only_when_it_is_called() -> None:
    kept = torch.compiler.disable(filled(nn.Linear(3, 3)))

    def read(model: Any, x: torch.Tensor) -> Any:
        return x * model.in_features

    agrees(read, lambda: (kept, rows()))
    assert kinds_of(read, (kept, rows()))["L['model']"] == "DelayGraphBreakVariable"
    with pytest.raises(sf.FrameError, match="class Linear that is kept from compilers"):
        capture_frame(run, (kept, rows()))


class Managed(nn.Linear):
    """A layer with the marks that FSDP leaves."""

    _is_fsdp_managed_module = True
    _fsdp_use_orig_params = True

    def __init__(self, original: bool = True) -> None:
        super().__init__(3, 3)
        self.__dict__["_is_fsdp_managed_module"] = True
        self.__dict__["_fsdp_use_orig_params"] = original
        self.training_state = "idle"


@pytest.mark.spec("5.37")
def test_a_module_that_fsdp_manages_is_read_through_its_own_source() -> None:
    capture = agrees(run, world(Managed))
    assert kinds_of(run, world(Managed)())["L['model']"] == "FSDPManagedNNModuleVariable"
    assert "TYPE_MATCH L['model']" in guards_of(capture)
    sources = {g.name: g.originating_source for g in capture.guards if g.name}
    assert sources["L['model'].weight"].guard_source().is_fsdp_module()
    busy = filled(Managed())
    busy.training_state = "forward"
    assert "of FSDP" in refuses(capture, busy, rows())
    with pytest.raises(sf.FrameError, match="use_orig_params=True"):
        capture_frame(run, (Managed(original=False), rows()))


# -- what changes between calls --------------------------------------------------------------------


def changes() -> Iterator[tuple[str, Callable[[Any], Any], str | None]]:
    """A change of a module after its capture; what refuses the call, None for nothing."""

    def new_weight(model: Any) -> None:
        model[0].weight = nn.Parameter(torch.ones(3, 3))

    def frozen(model: Any) -> None:
        model[0].weight.requires_grad_(False)

    def own_forward(model: Any) -> None:
        model[0].forward = lambda x: x

    def other_layer(model: Any) -> None:
        model[0] = nn.Identity()

    yield "a new weight", new_weight, None
    yield "a number nobody read", lambda model: setattr(model[0], "note", 1), None
    yield "a frozen weight", frozen, "requires_grad"
    yield "a forward of its own", own_forward, "no key 'forward'"
    yield "another layer", other_layer, "TYPE_MATCH"
    yield "another mode", lambda model: model.eval(), "training"
    yield "one more layer", lambda model: model.append(nn.ReLU()), "_modules"
    yield "no bias", lambda model: setattr(model[0], "bias", None), "bias"
    yield "a hook", lambda model: model[0].register_forward_hook(lambda *_: None), "_forward_hooks"


@pytest.mark.spec("5.37")
@pytest.mark.parametrize(
    ("name", "change", "refusal"), list(changes()), ids=[row[0] for row in changes()]
)
def test_a_change_of_the_module_is_seen(
    name: str, change: Callable[[Any], Any], refusal: str | None
) -> None:
    model = filled(nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5)))
    capture = capture_frame(model, (rows(),))
    change(model)
    if refusal is not None:
        assert refusal in refuses(capture, rows())
        return
    torch.manual_seed(0)
    ours = capture(rows())
    torch.manual_seed(0)
    assert_same(ours, model(rows()))


@pytest.mark.spec("5.37")
def test_hooks_for_all_modules_are_seen() -> None:
    model = filled(nn.Linear(3, 3))
    capture = capture_frame(model, (rows(),))
    handle = nn.modules.module.register_module_forward_hook(lambda module, args, result: -result)
    try:
        assert "_global_forward_hooks" in refuses(capture, rows())
        assert_same(capture_frame(model, (rows(),))(rows()), model(rows()))
    finally:
        handle.remove()
    assert capture.failure(rows()) is None


@pytest.mark.spec("5.37")
def test_a_method_of_the_users_class_that_is_replaced_is_seen() -> None:
    class Layer(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.factor

        @property
        def factor(self) -> int:
            return 2

    capture = capture_frame(Layer(), (rows(),))
    Layer.factor = property(lambda self: 3)  # type: ignore[assignment]
    assert "factor" in refuses(capture, rows())
    capture = capture_frame(Layer(), (rows(),))
    Layer.forward = lambda self, x: x  # type: ignore[method-assign]
    assert "forward" in refuses(capture, rows())


# -- what forward does to its module ---------------------------------------------------------------


class Running(nn.Module):
    """Replaces its buffer, reads it back, counts."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("running", torch.zeros(3))
        self.inner = nn.Linear(3, 3)
        self.count = 0

    def forward(self, x: torch.Tensor) -> Any:
        old = self.running
        self.running = self.running + x.mean(0)
        self.running += 1
        self.count += 1
        return self.running, old, self.running is old, self.inner(x) * self.running


class Swaps(nn.Module):
    """Swaps its layers, and deletes one."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(3, 3), nn.Linear(3, 3), nn.ReLU()

    def forward(self, x: torch.Tensor) -> Any:
        self.first, self.second = self.second, self.first
        del self.third
        return self.first(x), self.first is self.second, hasattr(self, "third")


class Caches(nn.Module):
    """Keeps what it computed, in an attribute and in a table."""

    def __init__(self) -> None:
        super().__init__()
        self.last: Any = None
        self.table: dict[str, Any] = {}

    def forward(self, x: torch.Tensor) -> Any:
        if self.last is None:
            self.last = x * 2
        if "key" not in self.table:
            self.table["key"] = x + 1
        return self.last + self.table["key"]


class Registers(nn.Module):
    """Makes its buffer, and a layer, in forward."""

    def forward(self, x: torch.Tensor) -> Any:
        self.register_buffer("total", x.sum(0), persistent=False)
        self.add_module("layer", nn.ReLU())
        self.weight = nn.Parameter(x * 1)
        return self.layer(self.total - 5) + self.weight, [n for n, _ in self.named_parameters()]


class Evaluates(nn.Module):
    """Switches its own mode, and back."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.drop = nn.BatchNorm1d(3), nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> Any:
        self.eval()
        y = self.drop(self.norm(x))
        self.train()
        return y, self.norm.training


@pytest.mark.spec("5.37", "5.45")
@pytest.mark.parametrize("make", [Running, Swaps, Caches, Registers, Evaluates])
def test_what_forward_sets_is_read_back_and_left_behind(make: Callable[[], nn.Module]) -> None:
    capture = agrees(run, world(make))
    if make is Running:
        model = filled(Running())
        capture(model, rows())
        assert "count" in refuses(capture, model, rows())


def test_a_buffer_that_is_deleted_is_gone() -> None:
    def drop(model: Any, x: torch.Tensor) -> Any:
        y = x * model.running
        del model.running
        return y, hasattr(model, "running")

    agrees(drop, world(Running))


# -- containers, names, attributes -----------------------------------------------------------------


class Containers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(3, 3) for _ in range(3)])
        self.by_name = nn.ModuleDict({"relu": nn.ReLU(), "tanh": nn.Tanh()})
        self.scales = nn.ParameterList([nn.Parameter(torch.ones(3))])
        self.named = nn.ParameterDict({"shift": nn.Parameter(torch.ones(3))})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for index, layer in enumerate(self.layers):
            x = layer(x) + index
        for name, layer in self.by_name.items():
            x = layer(x) + len(name)
        for layer in self.layers[1:]:
            x = layer(x)
        for scale in self.scales:
            x = x * scale
        return self.layers[-1](x) * self.named["shift"] + len(self.layers)


class Table(nn.Module):
    """Finds attributes in a table of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.table = {"scale": 2.0}

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return self.__dict__["table"][name]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) * self.scale


@pytest.mark.spec("5.45")
def test_containers_of_modules_and_ways_to_attributes() -> None:
    agrees(run, world(Containers))
    capture = agrees(run, world(Table))
    other = filled(Table())
    other.table["scale"] = 3.0
    assert "table" in refuses(capture, other, rows())
    other = filled(Table())
    other.scale = 3.0
    assert "no key 'scale'" in refuses(capture, other, rows())


@pytest.mark.spec("5.45")
def test_loops_over_names_see_every_module_and_parameter() -> None:
    def ask(model: nn.Module, x: torch.Tensor) -> Any:
        total = x.sum()
        for name, parameter in model.named_parameters():
            if "weight" in name:
                total = total + parameter.sum()
        for name, buffer in model.named_buffers():
            total = total + buffer.sum() + len(name)
        names = [name for name, _ in model.named_modules()]
        return total, names, sum(1 for _ in model.parameters()), dict(model.named_children())

    make = world(lambda: nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)))
    capture = agrees(ask, make)
    more = make()
    more[0][0].register_parameter("extra", nn.Parameter(torch.ones(1)))
    assert "_parameters" in refuses(capture, *more)


@pytest.mark.spec("5.45")
def test_a_shared_module_is_one_object() -> None:
    def shared() -> nn.Module:
        layer = nn.Linear(3, 3)
        return nn.Sequential(layer, nn.ReLU(), layer)

    def ask(model: Any, x: torch.Tensor) -> Any:
        return model(x), model[0] is model[2], {model[0]: 1}[model[2]]

    capture = agrees(ask, world(shared))
    two = filled(nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3)))
    assert "same object" in refuses(capture, two, rows())


@pytest.mark.spec("5.37")
def test_an_absent_attribute_stays_absent() -> None:
    def ask(model: Any, x: torch.Tensor) -> Any:
        return x + model.extra if hasattr(model, "extra") else x

    capture = agrees(ask, world(lambda: nn.Linear(3, 3)))
    other = filled(nn.Linear(3, 3))
    other.extra = 1.0
    assert "extra" in refuses(capture, other, rows())


# -- hooks, parametrizations, wrappers -------------------------------------------------------------


def hooked() -> nn.Module:
    model = filled(nn.Linear(3, 3))
    model.register_forward_pre_hook(lambda module, args: (args[0] + 1,))
    model.register_forward_hook(lambda module, args, result: result * 2)
    model.register_forward_hook(
        lambda module, args, kwargs, result: result + len(kwargs), with_kwargs=True
    )
    model.register_forward_hook(lambda module, args, result: result - 1, always_call=True)
    return model


@pytest.mark.spec("5.37")
def test_hooks_of_the_forward_are_run_and_of_the_backward_are_refused() -> None:
    model = nn.Sequential(hooked())
    same_as_eager(model)
    model[0].register_full_backward_hook(lambda *_: None)
    with pytest.raises(sf.FrameError, match="remove the hooks before the capture"):
        capture_frame(model, (rows(),))


class Symmetric(nn.Module):
    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight.triu() + weight.triu(1).T


def parametrized() -> nn.Module:
    model = nn.Linear(3, 3)
    nn.utils.parametrize.register_parametrization(model, "weight", Symmetric())
    return model


@pytest.mark.spec("5.37")
@pytest.mark.parametrize(
    "make",
    [
        parametrized,
        lambda: nn.utils.parametrizations.weight_norm(nn.Linear(3, 3)),
        lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(3, 3)),
        lambda: nn.DataParallel(nn.Linear(3, 3)),
        lambda: nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5)),
        lambda: torch.fx.symbolic_trace(nn.Sequential(nn.Linear(3, 3), nn.ReLU())),
    ],
    ids=["parametrize", "weight_norm", "spectral_norm", "data_parallel", "norm", "fx"],
)
def test_wrapped_modules_equal_eager_in_both_modes(make: Callable[[], nn.Module]) -> None:
    model = filled(make())
    for mode in (False, True):
        same_as_eager(model.train(mode))


class OwnCall(nn.Linear):
    """Has its say around the call of a module."""

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return super().__call__(x) + 100


def test_a_call_of_the_users_own_is_the_one_that_runs() -> None:
    agrees(run, world(lambda: OwnCall(3, 3)))
    model = filled(OwnCall(3, 3))
    assert_same(capture_frame(model, (rows(),))(rows()), model(rows()))


# -- modules that the frame makes ------------------------------------------------------------------


@pytest.mark.spec("5.37")
def test_a_module_that_the_frame_makes_is_a_module_for_the_caller() -> None:
    def make(x: torch.Tensor) -> Any:
        torch.manual_seed(0)
        layer = nn.Linear(3, 2)
        layer.note = "made here"
        with torch.no_grad():
            layer.bias.zero_()
        return layer, layer(x), nn.Parameter(x * 2, requires_grad=False)

    capture = agrees(make, lambda: (rows(),))
    layer, result, _ = capture(rows())
    again, _, _ = capture(rows())
    assert type(layer.weight) is nn.Parameter and layer.weight is not again.weight
    result.sum().backward()
    assert layer.weight.grad is not None and again.weight.grad is None


@pytest.mark.spec("5.37")
def test_a_parallel_module_is_read_but_not_called() -> None:
    class Stand(nn.parallel.DistributedDataParallel):
        def __init__(self) -> None:
            nn.Module.__init__(self)
            self.module = nn.Linear(3, 3)

    def inner(model: Any, x: torch.Tensor) -> Any:
        return model.module(x)

    options = Options(inline_inbuilt_nn_modules=False)
    capture = agrees(inner, world(Stand))
    kinds = kinds_of(inner, world(Stand)(), options=options)
    assert kinds["L['model']"] == "UnspecializedNNModuleVariable"
    assert "TYPE_MATCH L['model']" in guards_of(capture)
    with pytest.raises(sf.FrameError, match="capture the module in it"):
        capture_frame(run, (Stand(), rows()))


# -- where a node comes from -----------------------------------------------------------------------


def stacks(capture: FrameCapture) -> dict[str, dict[str, tuple[str, str]]]:
    """The module stack of each operator's node."""
    nodes = capture.graph_module.graph.nodes
    return {n.name: n.meta["nn_module_stack"] for n in nodes if "nn_module_stack" in n.meta}


def test_nodes_know_the_modules_that_they_are_in() -> None:
    inner = nn.Sequential(nn.ReLU(), nn.Linear(3, 3))
    model = nn.Sequential(nn.Linear(3, 3), inner)
    linear = "torch.nn.modules.linear.Linear"
    sequential = "torch.nn.modules.container.Sequential"
    found = stacks(capture_frame(model, (rows(),)))
    assert found["linear_1"] == {
        "L__self__": ("L['self']", sequential),
        "L__self__.1": ("L['self'].1", sequential),
        "L__self__.1.1": ("L['self'].1.1", linear),
    }

    def twice(model: Any, x: torch.Tensor) -> Any:
        y = x + 1
        return model[0](model[0](y)) * 2

    found = stacks(capture_frame(twice, (model, rows())))
    assert found["linear"] == {"L__model__.0": ("L['model'].0", linear)}
    assert list(found["linear_1"]) == ["L__model__.0@1"]
    assert "add" not in found and "mul" not in found


class Attributes(nn.Module):
    """Reads and writes its attributes in every way."""

    scale = torch.full((3,), 2.0)
    table = {"twice": 2}

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.act = nn.Linear(3, 3), torch.relu
        self.register_buffer("total", torch.ones(3))

    def forward(self, x: torch.Tensor) -> Any:
        self.__dict__["first"] = 5
        vars(self)["second"] = 6
        self.third = 7
        self._buffers["total"] = self.total + 1
        names = [name for name in vars(self) if not name.startswith("_")]
        for index in range(2):
            setattr(self, f"part{index}", x * index)
        y = self.act(self.layer(x)) * self.scale * self.table["twice"] + self.total
        return y, self.first + self.second + self.third, self.part1, getattr(self, "no", 3), names


def test_attributes_by_every_way() -> None:
    capture = agrees(run, world(Attributes))
    other = filled(Attributes())
    other.table = {"twice": 3}
    assert "L['model'].__dict__" in refuses(capture, other, rows())  # forward lists the names

    def update(model: Any, x: torch.Tensor) -> Any:
        model.__dict__.update(first=1)
        return x

    with pytest.raises(sf.FrameError, match="all of .*__dict__ at once"):
        capture_frame(update, world(Attributes)())


def test_layers_and_hooks_that_come_and_go_in_the_frame() -> None:
    def grow(model: Any, x: torch.Tensor) -> Any:
        model.append(nn.ReLU())
        model[0].eval()
        handle = model[0].register_forward_hook(lambda module, args, result: result * 2)
        y = model(x)
        handle.remove()
        return y, len(model), len(model[0]._forward_hooks), model[0].training, model.training

    agrees(grow, world(lambda: nn.Sequential(nn.Linear(3, 3))))


def test_a_region_without_gradients_ends_in_the_callers_mode() -> None:
    def inside(model: Any, x: torch.Tensor) -> Any:
        with torch.no_grad():
            y = model(x)
        return model(y)

    for enabled in (False, True):
        with torch.set_grad_enabled(enabled):
            agrees(inside, world(lambda: nn.Linear(3, 3)))
            assert torch.is_grad_enabled() is enabled


class Guarded(nn.Module):
    """Sets attributes by a function of its class that holds another one."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.last = 2
        return x * self.last


def _doubling(original: Any) -> Any:
    def store(self: Any, name: str, value: Any) -> None:
        original(self, name, value * 2 if name == "last" else value)

    return store


Guarded.__setattr__ = _doubling(nn.Module.__setattr__)  # type: ignore[method-assign]


def test_what_sets_attributes_is_relied_on(monkeypatch: pytest.MonkeyPatch) -> None:
    capture = agrees(run, world(Guarded))
    monkeypatch.setattr(Guarded, "__setattr__", nn.Module.__setattr__)
    assert "__setattr__" in refuses(capture, filled(Guarded()), rows())


@pytest.mark.spec("5.138")
def test_a_graph_module_made_in_a_frame_is_not_given_away() -> None:
    tx = new_translator(run)
    made = SourcelessBuilder.create(tx, torch.fx.symbolic_trace(nn.Linear(2, 2)))
    assert type(made).__name__ == "SourcelessGraphModuleVariable" and made.source is None

    def trace(x: torch.Tensor) -> Any:
        return torch.fx.GraphModule(nn.Module(), torch.fx.Graph()), x

    with pytest.raises(sf.FrameError):
        capture_frame(trace, (rows(),))
