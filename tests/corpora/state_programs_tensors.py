"""State on tensors: which one it is, attributes that were set on it, gradients, modes of torch."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from tests.corpora.soundness_programs import X2, X3, X, call, x_
from tests.corpora.state_programs import Made, net, program
from torch import nn


def apart() -> Any:
    return call(x_(3, 4), x_(3, 4, seed=1))


def same() -> Any:
    x = x_(3, 4)
    return call(x, x)


def marked() -> Any:
    x = x_(3, 4)
    x.flag = 3  # type: ignore[attr-defined]
    return call(x)


IDENTITY = "Python compares two objects and no operator runs"
QUESTION = "a question to a Python object runs no operator"

# -- which tensor is it ---------------------------------------------------------------------------


@program(apart, same, unseen=IDENTITY)
def one_tensor_twice() -> nn.Module:
    return net(lambda self, x, y: x * 5 if x is y else x + y)


@program(same, apart, unseen=IDENTITY)
def two_tensors_after_one_twice() -> nn.Module:
    return net(lambda self, x, y: x * 5 if x is y else x + y)


@program(apart, same, unseen=IDENTITY)
def tensors_told_apart_by_is_not() -> nn.Module:
    return net(lambda self, x, y: x + y if x is not y else x * 5)


@program(apart, same, unseen=IDENTITY)
def tensor_in_a_tuple() -> nn.Module:
    return net(lambda self, x, y: x * 5 if any(x is t for t in (y,)) else x + y)


@program(same, apart, unseen=IDENTITY)
def tensor_found_by_in() -> nn.Module:
    """Of two tensors torch would compare the numbers, and refuse."""
    return net(lambda self, x, y: x * 5 if x in (None, y)[1:] else x + y)


@program(apart, same, unseen=IDENTITY)
def tensors_in_a_dict() -> nn.Module:
    return net(lambda self, x, y: x * len({x: 1, y: 2}))


@program(apart, same, unseen=IDENTITY)
def tensors_in_a_set() -> nn.Module:
    return net(lambda self, x, y: x * len({x, y}))


@program(apart, same, unseen=IDENTITY)
def tensors_stored_under_themselves() -> nn.Module:
    def forward(self: Any, x: Any, y: Any) -> Any:
        memo: dict[Any, int] = {}
        for t in (x, y):
            memo[t] = memo.get(t, 0) + 1
        return x * memo[x]

    return net(forward)


@program(apart, same, unseen=IDENTITY)
def tensors_by_id() -> nn.Module:
    return net(lambda self, x, y: x * 5 if id(x) == id(y) else x + y)


@program(apart, same, unseen=IDENTITY)
def tensors_by_operator_is() -> nn.Module:
    import operator

    return net(lambda self, x, y: x * 5 if operator.is_(x, y) else x + y)


@program(apart, same, unseen=IDENTITY)
def results_that_are_an_input() -> nn.Module:
    return net(lambda self, x, y: x * 5 if x.contiguous() is y else x + y)


@program(apart, same)
def memory_asked_for() -> nn.Module:
    return net(lambda self, x, y: x * 5 if x.data_ptr() == y.data_ptr() else x + y)


KEPT = torch.ones(3, 4)


@program(X, lambda: call(KEPT), unseen=IDENTITY)
def global_tensor_given_as_an_input() -> nn.Module:
    return net(lambda self, x: x * 5 if x is KEPT else x)


@program()
def tensor_of_the_last_call_by_is() -> Made:
    kept: list[Any] = [None]

    def forward(self: Any, x: Any) -> Any:
        again = kept[0] is x
        kept[0] = x
        return x * 2 if again else x * 3

    return Made(net(forward), lambda: kept[0] is None)


@program(X, lambda: call(nn.Parameter(x_(3, 4))), unseen=QUESTION)
def class_of_an_input() -> nn.Module:
    return net(lambda self, x: x * 2 if type(x) is torch.Tensor else x * 3)


@program(X, lambda: call(nn.Parameter(x_(3, 4))), unseen=QUESTION)
def class_of_an_input_by_its_attribute() -> nn.Module:
    return net(lambda self, x: x * 2 if x.__class__ is torch.Tensor else x * 3)


@program(X, lambda: call(nn.Parameter(x_(3, 4))), runs=True)
def tensors_of_any_class() -> nn.Module:
    return net(lambda self, x: x * 2 if isinstance(x, torch.Tensor) else x * 3)


@program()
def weak_reference_to_an_input() -> Made:
    seen: list[Any] = []

    def forward(self: Any, x: Any) -> Any:
        seen.append(weakref.ref(x))
        return x * len(seen)

    return Made(net(forward), lambda: len(seen))


# -- attributes of tensors ------------------------------------------------------------------------


@program()
def attribute_set_on_an_input() -> nn.Module:
    def forward(self: Any, x: Any) -> Any:
        x.flag = 1
        return x * 2

    return net(forward)


@program()
def attribute_set_on_an_input_by_setattr() -> nn.Module:
    def forward(self: Any, x: Any) -> Any:
        setattr(x, "fl" + "ag", 1)
        return x * 2

    return net(forward)


@program(runs=True)
def attribute_set_and_taken_back() -> nn.Module:
    def forward(self: Any, x: Any) -> Any:
        x.flag = 2
        y = x * x.flag
        del x.flag
        return y

    return net(forward)


@program(runs=True)
def attribute_set_on_a_result() -> nn.Module:
    def forward(self: Any, x: Any) -> Any:
        y = x * 2
        y.flag = 3
        return y * y.flag

    return net(forward)


@program()
def attribute_set_on_a_parameter() -> nn.Module:
    def forward(self: Any, x: Any) -> Any:
        w = self.lin.weight
        w.calls = getattr(w, "calls", 0) + 1
        return x * w.calls

    return net(forward)


@program()
def attribute_set_on_a_global_tensor() -> Made:
    table = torch.ones(4)

    def forward(self: Any, x: Any) -> Any:
        table.calls = getattr(table, "calls", 0) + 1  # type: ignore[attr-defined]
        return x * table.calls  # type: ignore[attr-defined]

    return Made(net(forward), lambda: getattr(table, "calls", 0))


@program(marked, X, unseen=QUESTION)
def attribute_of_an_input_read() -> nn.Module:
    return net(lambda self, x: x * getattr(x, "flag", 2))


@program(X, marked, unseen=QUESTION)
def attribute_of_an_input_that_comes_later() -> nn.Module:
    return net(lambda self, x: x * 2 if hasattr(x, "flag") else x * 3)


@program(runs=True)
def attribute_of_a_parameter_read() -> nn.Module:
    mod = net(lambda self, x: x * getattr(self.lin.weight, "scale", 2))
    mod.lin.weight.scale = 3  # type: ignore[union-attr]
    return mod


# -- gradients and modes --------------------------------------------------------------------------


@program()
def gradient_written() -> nn.Module:
    def forward(self: Any, x: Any) -> Any:
        w = self.lin.weight
        n = 1 if w.grad is None else 2
        w.grad = torch.ones_like(w)
        return x * n

    return net(forward)


@program()
def gradient_mode_switched() -> Made:
    def forward(self: Any, x: Any) -> Any:
        n = 2 if torch.is_grad_enabled() else 3
        torch.set_grad_enabled(False)
        return x * n

    return Made(net(forward), torch.is_grad_enabled, done=lambda: torch.set_grad_enabled(True))


@program()
def default_dtype_switched() -> Made:
    def forward(self: Any, x: Any) -> Any:
        n = torch.tensor(1.5).dtype.itemsize
        torch.set_default_dtype(torch.float64)
        return x * n

    return Made(
        net(forward), torch.get_default_dtype, done=lambda: torch.set_default_dtype(torch.float32)
    )


@program()
def generator_of_torch_seeded() -> Made:
    def forward(self: Any, x: Any) -> Any:
        torch.manual_seed(5)
        return x * torch.rand(())

    return Made(net(forward), lambda: int(torch.get_rng_state().sum()))


@program(X, X2, X3, runs=True)
def draws_of_torch() -> nn.Module:
    return net(lambda self, x: x * torch.rand(3, 4))


@program()
def plain_tensor_written() -> nn.Module:
    def forward(self: Any, x: Any) -> Any:
        self.n.add_(1)
        return x * self.n

    return net(forward, n=torch.zeros(1))


@program()
def plain_tensor_replaced() -> nn.Module:
    def forward(self: Any, x: Any) -> Any:
        self.n = self.n + 1
        return x * self.n

    return net(forward, n=torch.zeros(1))
