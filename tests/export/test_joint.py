"""Joint graphs: gradients and a training step equal eager's; the signature; what is refused."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

import stillframe as sf
from stillframe.trace import operators

BATCH = sf.Dim("batch", min=2, max=32)


class Classifier(nn.Module):
    """Convolution, batch statistics, dropout, attention-like products, and in-place operators."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.act = nn.ReLU(inplace=True)
        self.drop = nn.Dropout(0.2)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.scale = nn.LayerNorm(8)
        self.head = nn.Linear(8, 5)
        self.unused = nn.Parameter(torch.ones(2))

    def forward(self, x: Any, target: Any) -> Any:
        y = self.drop(self.act(self.norm(self.conv(x))))
        y = y.flatten(2).transpose(1, 2)
        y = self.scale(y + self.attention(y, y, y, need_weights=False)[0])
        logits = self.head(y.mean(1))
        return nn.functional.cross_entropy(logits, target), logits.argmax(-1)


def inputs(batch: int) -> tuple[Any, ...]:
    return torch.randn(batch, 3, 4, 4), torch.randint(0, 5, (batch,))


def joint_of(module: nn.Module, table: Any = None) -> sf.ExportedProgram:
    dims = {"x": {0: BATCH}, "target": {0: BATCH}}
    return sf.export(module, inputs(4), dynamic_shapes=dims).joint(0, table)


@pytest.mark.parametrize("table", [None, {}], ids=["core", "functional"])
@pytest.mark.spec("2.59")
def test_gradients_equal_those_of_eager(table: Any) -> None:
    module = Classifier()
    joint = joint_of(module, table).module()
    for batch in (4, 2, 9):
        args = inputs(batch)
        torch.manual_seed(batch)
        loss, best = module(*args)
        named = {n: p for n, p in module.named_parameters() if n != "unused"}
        expected = dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))
        torch.manual_seed(batch)
        result = joint(*args)
        torch.testing.assert_close(result.result[0], loss.detach())
        assert torch.equal(result.result[1], best)
        assert result.parameter_gradients.keys() == expected.keys()
        for name, gradient in expected.items():
            torch.testing.assert_close(
                result.parameter_gradients[name], gradient, rtol=1e-4, atol=1e-5, msg=name
            )
        assert not result.input_gradients
    torch.testing.assert_close(
        dict(joint.named_buffers())["norm.running_mean"], module.norm.running_mean
    )


def test_training_steps_equal_those_of_eager() -> None:
    module = Classifier()
    reference = copy.deepcopy(module)
    joint = joint_of(module).module()
    optimizer = torch.optim.SGD(reference.parameters(), lr=0.1)
    data = [inputs(4) for _ in range(3)]
    for step, args in enumerate(data):
        torch.manual_seed(step)
        optimizer.zero_grad()
        reference(*args)[0].backward()
        optimizer.step()
        torch.manual_seed(step)
        gradients = joint(*args).parameter_gradients
        with torch.no_grad():
            for name, parameter in joint.named_parameters():
                if name in gradients:
                    parameter -= 0.1 * gradients[name]
    state = joint.state_dict()
    for name, expected in reference.state_dict().items():
        torch.testing.assert_close(state[name], expected, rtol=1e-4, atol=1e-5, msg=name)


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(0.5, 1, 4))
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Any, y: Any) -> Any:
        self.calls.add_(1)
        z = (x * self.weight - y) ** 2
        return z.detach(), z.mean(), "text"


def two() -> tuple[Any, ...]:
    return torch.rand(3, 4, requires_grad=True), torch.rand(3, 4)


@pytest.mark.spec("2.59", "2.63")
def test_the_signature() -> None:
    joint = sf.export(Two(), two()).joint(loss_index=1)
    kinds = sf.OutputKind
    specs = joint.graph_signature.output_specs
    assert [(s.kind, s.target) for s in specs] == [
        (kinds.BUFFER_MUTATION, "calls"),
        (kinds.USER_OUTPUT, None),
        (kinds.LOSS_OUTPUT, None),
        (kinds.USER_OUTPUT, None),
        (kinds.GRADIENT_TO_PARAMETER, "weight"),
        (kinds.GRADIENT_TO_USER_INPUT, "x"),
    ]
    backward = joint.graph_signature.backward_signature
    assert backward is not None
    # the loss is named although a mutation stands before it
    assert backward.loss_output == specs[2].arg.name
    assert backward.gradients_to_parameters == {specs[4].arg.name: "weight"}
    assert backward.gradients_to_user_inputs == {specs[5].arg.name: "x"}


def test_gradients_of_inputs() -> None:
    module = Two()
    joint = sf.export(module, two()).joint(loss_index=1).module()
    x, y = two()
    result = joint(x, y)
    _, loss, _ = module(x, y)
    expected = torch.autograd.grad(loss, [x, module.weight])
    torch.testing.assert_close(result.input_gradients["x"], expected[0])
    torch.testing.assert_close(result.parameter_gradients["weight"], expected[1])
    assert result.result[2] == "text"
    assert not result.parameter_gradients["weight"].requires_grad


def test_a_joint_graph_is_functional_and_has_no_autograd_left() -> None:
    joint = joint_of(Classifier())
    assert joint.dialect == "core"
    assert not [n for n in joint.graph.nodes if operators.writes(n)]
    assert not [n for n in joint.graph.nodes if n.target is torch.ops.aten.detach.default]


def test_writes_and_grad_regions() -> None:
    class Writes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.linspace(0.5, 1, 4))
            self.register_buffer("peak", torch.zeros(()))

        def forward(self, x: Any) -> Any:
            y = x * self.weight
            with torch.no_grad():
                self.peak.copy_(y.abs().max())
            y[:, 0] = y[:, 1] * 2
            y.t()[2].mul_(self.weight[0])
            y[1:].copy_(y[1:].double() ** 2)
            return (y / self.peak).sum()

    module = Writes()
    joint = sf.export(module, (torch.rand(3, 4),)).joint(0).module()
    x = torch.rand(3, 4)
    loss = module(x)
    (expected,) = torch.autograd.grad(loss, [module.weight])
    result = joint(x)
    torch.testing.assert_close(result.result, loss.detach())
    torch.testing.assert_close(result.parameter_gradients["weight"], expected)


def test_files_and_printing(tmp_path: Any) -> None:
    module = Two()
    joint = sf.export(module, two()).joint(loss_index=1)
    sf.save(joint, tmp_path / "joint.still")
    loaded = sf.load(tmp_path / "joint.still")
    args = two()
    expected, actual = joint.module()(*args), loaded.module()(*args)
    torch.testing.assert_close(actual.parameter_gradients, expected.parameter_gradients)
    assert loaded.graph_signature.backward_signature == joint.graph_signature.backward_signature
    text = str(loaded)
    backward = joint.graph_signature.backward_signature
    assert backward is not None
    assert "(core dialect)" in text.splitlines()[0]
    assert f"    calls becomes {joint.graph_signature.output_specs[0].arg.name}" in text
    (gradient,) = backward.gradients_to_parameters
    assert f"    weight has the gradient {gradient}" in text


# -- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize("index", [None, -1, 3, True])
@pytest.mark.spec("2.59")
def test_the_loss_must_be_named(index: Any) -> None:
    program = sf.export(Two(), two())
    with pytest.raises(sf.InvalidInput, match=r"place of the loss among the 3 outputs"):
        program.joint(index)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (lambda w, x: (x * w).sum(0), "no scalar tensor"),
        (lambda w, x: x.sum(), "does not require grad"),
        (lambda w, x: ((x * w).sum(), x * w), "Output 1 requires grad, and only the loss may"),
        (lambda w, x: (3, (x * w).sum().detach()), "no scalar tensor"),
    ],
)
@pytest.mark.spec("2.59")
def test_outputs_that_do_not_fit(result: Any, message: str) -> None:
    class Returns(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(4))

        def forward(self, x: Any) -> Any:
            return result(self.weight, x)

    program = sf.export(Returns(), (torch.rand(3, 4),))
    with pytest.raises(sf.InvalidInput, match=message):
        program.joint(0)


def test_a_joint_graph_has_no_joint_graph() -> None:
    with pytest.raises(sf.InvalidInput, match="already"):
        sf.export(Two(), two()).joint(1).joint(1)


def test_a_write_that_hides_from_autograd_is_refused() -> None:
    class Hides(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(4))

        def forward(self, x: Any) -> Any:
            y = x * self.weight
            y.data.mul_(2)
            return (y * y).sum()

    program = sf.export(Hides(), (torch.rand(3, 4),))
    with pytest.raises(sf.NotSupported, match="under no_grad, or through detach"):
        program.joint(0)


def test_a_constant_computed_from_parameters_is_refused() -> None:
    class Caching(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(3))
            self.cache = [self.weight * 2]

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x * self.cache[0]).sum()

    program = sf.export(Caching(), (torch.ones(3),))
    assert any("no gradient goes on to them" in note for note in program.notes)
    with pytest.raises(sf.NotSupported, match="was computed from tensors that require grad"):
        program.joint(0)
