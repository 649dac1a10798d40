"""Results that forward leaves on the module: a note where no later call looks, else refused."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

import stillframe as sf


class Leaving(torch.nn.Module):
    def __init__(self, run: Callable[..., Any]) -> None:
        super().__init__()
        self.run = run
        self.calls = 0
        self.last: Any = None
        self.one: Any = [1.0]
        self.other: Any = [1.0]
        self.chosen = self.one
        self.register_buffer("weight", torch.ones(2))

    def forward(self, x: torch.Tensor) -> Any:
        return self.run(self, x)


def a_result(self: Any, x: torch.Tensor) -> Any:
    self.last = x * 2
    return self.last + 1


def a_list(self: Any, x: torch.Tensor) -> Any:
    self.made = [x, x + 1]
    return x + self.made[0].sum()


def a_constant(self: Any, x: torch.Tensor) -> Any:
    self.scale = 2.0
    return x * self.scale


def a_counter(self: Any, x: torch.Tensor) -> Any:
    self.calls += 1
    return x + self.calls


def a_number_read_before(self: Any, x: torch.Tensor) -> Any:
    y = x + torch.tensor(self.calls)
    self.calls = 5
    return y


def a_size_of_the_last(self: Any, x: torch.Tensor) -> Any:
    y = x if self.last is None else x + self.last.shape[0]
    self.last = x
    return y


def a_cache(self: Any, x: torch.Tensor) -> Any:
    if not hasattr(self, "cache"):
        self.cache = x * 2
    return x + self.cache


def a_comparison_of_sizes(self: Any, x: torch.Tensor) -> Any:
    old = getattr(self, "old", None)
    if old is not None and old.shape[0] != x.shape[0]:
        return x
    self.old = x
    return x + 1


def whether_there_was_one(self: Any, x: torch.Tensor) -> Any:
    if isinstance(getattr(self, "old", None), torch.Tensor):
        x = x + 1
    self.old = x
    return x


def a_toggle(self: Any, x: torch.Tensor) -> Any:
    self.flag = not getattr(self, "flag", False)
    return x


def how_many(self: Any, x: torch.Tensor) -> Any:
    y = x + len(getattr(self, "history", ()))
    self.history = [x]
    return y


def a_size(self: Any, x: torch.Tensor) -> Any:
    self.calls = x.shape[0]
    return x


def a_dtype(self: Any, x: torch.Tensor) -> Any:
    self.input_dtype, self.input_device = x.dtype, x.device
    return x.double().to(self.input_dtype)


def a_dict(self: Any, x: torch.Tensor) -> Any:
    self.found = {"double": x * 2, "pair": (x + 1, "name")}
    return self.found["double"] + self.found["pair"][0]


def a_part_of_a_result(self: Any, x: torch.Tensor) -> Any:
    self.first, rest = x.split(1, dim=1)
    return self.first + rest


def twice_the_same(self: Any, x: torch.Tensor) -> Any:
    self.last = self.made = x * 2
    return x + self.last


def none_again(self: Any, x: torch.Tensor) -> Any:
    self.last = None
    if self.last is None:
        self.last = torch.zeros_like(x)
    self.last = self.last + x
    return self.last * 2


def whether_its_class_is_tensor(self: Any, x: torch.Tensor) -> Any:
    y = x + 1 if type(self.last) is torch.Tensor else x
    self.last = x * 2
    return y


def whether_it_is_a_parameter(self: Any, x: torch.Tensor) -> Any:
    y = x + 1 if self.last and isinstance(self.last[0], torch.nn.Parameter) else x
    self.last = [torch.nn.Parameter(x.detach() * 2)]
    return y


def an_attribute_of_it(self: Any, x: torch.Tensor) -> Any:
    y = x + getattr(self.last, "step", 0)
    self.last = x * 2
    self.last.step = 3
    return y


def whether_two_are_one(self: Any, x: torch.Tensor) -> Any:
    y = x + 1 if self.last is not None and self.last is self.made else x
    self.last = self.made = x * 2
    return y


def whether_two_lists_are_one(self: Any, x: torch.Tensor) -> Any:
    y = x + 1 if self.last is not None and self.last is self.made else x
    self.last = self.made = [x * 2]
    return y


def another_list_of_the_module(self: Any, x: torch.Tensor) -> Any:
    y = x + 1 if self.chosen is self.one else x + 2
    self.chosen = self.other
    return y


def one_list_inside_of_another(self: Any, x: torch.Tensor) -> Any:
    y = x + 1 if self.last is not None and self.last[0] is self.other else x
    self.last = [self.other]
    return y


def a_dotted_name(self: Any, x: torch.Tensor) -> Any:
    old = vars(self).get("other.one")
    if old is None:
        old = x * 2
        setattr(self, "other.one", old)
    return x + old


def a_sign_of_zero(self: Any, x: torch.Tensor) -> Any:
    self.sign = -getattr(self, "sign", 0.0)
    return x


def one_of_two_calls(self: Any, x: torch.Tensor) -> Any:
    y = x + 1 if self.last is None else x
    self.last = None if self.last is not None else x * 2
    return y


def after_the_second_call(self: Any, x: torch.Tensor) -> Any:
    y = x + 1 if getattr(self, "b", False) else x
    self.b = getattr(self, "a", False)
    self.a = True
    return y


def a_hidden_list(self: Any, x: torch.Tensor) -> Any:
    y = x + len(self.last[0]) if self.last else x
    self.last = ([x * 2],)
    return y


def how_often_as_keys(self: Any, x: torch.Tensor) -> Any:
    self.last = {**(self.last or {}), len(self.last or {}): x * 2}
    return x


def inside_a_function_of_a_condition(self: Any, x: torch.Tensor) -> Any:
    old = self.last
    self.last = x * 2
    if old is None:
        return torch.cond(x.sum() > 0, lambda x: x + 1, lambda x: x - 1, (x,))
    return torch.cond(x.sum() > 0, lambda x: x + old.dim(), lambda x: x - 1, (x,))


def inside_vmap(self: Any, x: torch.Tensor) -> Any:
    old = x.new_zeros(2) if self.last is None else self.last
    self.last = x * 2
    return torch.vmap(lambda row: row + old.dim())(x)


def a_buffer_by_another_name(self: Any, x: torch.Tensor) -> Any:
    y = x + 1 if self.last is not None and self.last[0] is self.weight else x
    self.last = [self.weight.contiguous()]
    return y


# -- what plain tracing cannot see: which object it is


def an_input(self: Any, x: torch.Tensor) -> Any:
    if x is not self.last:
        self.last = x
        self.made = x * 2
    return x + self.made


def an_input_handed_back(self: Any, x: torch.Tensor) -> Any:
    y = x + 1 if x is self.last else x
    self.last = x.contiguous()
    return y


def an_input_handed_back_among_others(self: Any, x: torch.Tensor) -> Any:
    y = x + 1 if x is self.last else x
    self.last = torch.broadcast_tensors(x, x)[1]
    return y + self.last


def an_input_in_a_list(self: Any, x: torch.Tensor) -> Any:
    y = x + 1 if self.last is not None and self.last[0] is x else x
    self.last = [x]
    return y


def a_result_that_comes_back(self: Any, x: torch.Tensor) -> Any:
    y = x + 1 if x is self.last else x + 2
    self.last = y
    return y


def a_result_handed_back(self: Any, x: torch.Tensor) -> Any:
    y = x + 1 if x is self.last else x + 2
    self.last = y
    return torch.dropout(y, 0.5, False)


def a_list_that_comes_back(self: Any, xs: Any) -> Any:
    x = xs[0]
    y = [x + 1] if xs is self.last else [x + 2]
    self.last = y
    return y


NOTED_BY_BOTH = [
    a_result, a_constant, a_dtype, a_dict, a_part_of_a_result, twice_the_same, none_again,
]  # fmt: skip
NOTED = [*NOTED_BY_BOTH, a_list]
REFUSED = [
    a_counter, a_number_read_before, a_size_of_the_last, a_cache, a_comparison_of_sizes,
    whether_there_was_one, a_toggle, how_many, a_size, whether_its_class_is_tensor,
    whether_it_is_a_parameter, an_attribute_of_it, whether_two_are_one, whether_two_lists_are_one,
    another_list_of_the_module, one_list_inside_of_another, a_dotted_name, a_sign_of_zero,
    one_of_two_calls, after_the_second_call, a_hidden_list, how_often_as_keys,
    inside_a_function_of_a_condition, inside_vmap, a_buffer_by_another_name,
]  # fmt: skip
#: Python compares objects: strict capture sees it, plain tracing refuses what could be compared.
BY_IDENTITY = [
    an_input, an_input_handed_back, an_input_handed_back_among_others, an_input_in_a_list,
    a_result_that_comes_back, a_result_handed_back,
]  # fmt: skip
DYNAMIC = {"x": {0: sf.Dim("rows", min=1)}}
both_modes = pytest.mark.parametrize("strict", [True, False], ids=["strict", "plain"])


@pytest.mark.parametrize(
    ("run", "strict"),
    [*((run, True) for run in NOTED), *((run, False) for run in NOTED_BY_BOTH)],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_what_no_call_looks_at_is_noted(run: Callable[..., Any], strict: bool) -> None:
    module = Leaving(run)
    before = dict(module.__dict__)
    program = sf.export(module, (torch.ones(3, 2),), dynamic_shapes=DYNAMIC, strict=strict)
    assert module.__dict__ == before
    assert program.notes
    assert all("no call looks at it" in note for note in program.notes)
    for rows in (1, 4, 4):
        x = torch.rand(rows, 2)
        torch.testing.assert_close(program.module()(x), module(x))


@both_modes
@pytest.mark.parametrize("run", [*REFUSED, *BY_IDENTITY], ids=lambda f: f.__name__)
def test_what_a_call_looks_at_is_refused(run: Callable[..., Any], strict: bool) -> None:
    module = Leaving(run)
    before = dict(module.__dict__)
    with pytest.raises(sf.SideEffectError, match="self.") as caught:
        sf.export(module, (torch.ones(3, 2),), dynamic_shapes=DYNAMIC, strict=strict)
    cause = caught.value.__cause__  # the error of the second capture, if it had one
    assert cause is None or isinstance(cause, sf.StillframeError)
    assert module.__dict__ == before


TOUCHES: dict[str, Callable[[torch.Tensor], Any]] = {
    "size": lambda last: last.shape[0],
    "rank": lambda last: last.dim(),
    "dtype": lambda last: last.dtype is torch.float32,
    "requires_grad": lambda last: last.requires_grad,
    "text": lambda last: len(str(last)),
    "length": lambda last: len(last),
    "number": lambda last: last.sum().item(),
    "operator": lambda last: last.new_zeros(2),
    "argument": lambda last: torch.zeros(2).add(last),
    "in a list": lambda last: torch.stack([torch.zeros(2), last]),
    "in place": lambda last: last.zero_(),
    "transposed": lambda last: last.T,
    "index": lambda last: torch.zeros(2)[last],
    "gradient": lambda last: 1 if last.grad is None else 0,
}


@both_modes
@pytest.mark.parametrize("touch", TOUCHES.values(), ids=list(TOUCHES))
def test_every_touch_is_seen(touch: Callable[[torch.Tensor], Any], strict: bool) -> None:
    def run(self: Any, x: torch.Tensor) -> Any:
        if self.last is not None:
            touch(self.last)
        self.last = x * 2
        return x + 1

    with pytest.raises(sf.SideEffectError, match="self.last") as caught:
        sf.export(Leaving(run), (torch.ones(3, 2),), strict=strict)
    assert "that an earlier call left on the module" in str(caught.value.__cause__)


@both_modes
def test_containers_that_the_caller_gets_are_refused(strict: bool) -> None:
    module = Leaving(a_list_that_comes_back)
    with pytest.raises(sf.SideEffectError, match="self.last"):
        sf.export(module, ([torch.ones(3, 2)],), strict=strict)


def test_plain_tracing_refuses_an_input_that_is_left() -> None:
    with pytest.raises(sf.SideEffectError, match="use strict=True"):
        sf.export(Leaving(a_list), (torch.ones(3, 2),), dynamic_shapes=DYNAMIC)


@both_modes
def test_a_tensor_set_to_itself_is_no_change(strict: bool) -> None:
    """``self.table = self.table.to(x.device)`` gives the module the tensor that it has."""

    def run(self: Any, x: torch.Tensor) -> Any:
        self.table = self.table.to(x.device)
        return x + self.table

    module = Leaving(run)
    module.__dict__["table"] = torch.arange(2.0)
    program = sf.export(module, (torch.ones(3, 2),), dynamic_shapes=DYNAMIC, strict=strict)
    assert not any("forward sets" in note for note in program.notes)
    x = torch.rand(4, 2)
    torch.testing.assert_close(program.module()(x), module(x))


@both_modes
@pytest.mark.parametrize("other", ["self.table.clone()", "self.table.to(torch.float64)"])
def test_a_copy_of_what_was_there_is_a_change(other: str, strict: bool) -> None:
    def run(self: Any, x: torch.Tensor) -> Any:
        self.table = eval(other)
        return x + self.table

    module = Leaving(run)
    module.__dict__["table"] = torch.arange(2.0)
    with pytest.raises(sf.SideEffectError, match="self.table"):
        sf.export(module, (torch.ones(3, 2),), strict=strict)


@both_modes
def test_what_an_input_is_handed_back_as_is_the_input(strict: bool) -> None:
    def run(self: Any, x: torch.Tensor) -> Any:
        y = x.to(torch.float32)
        return x + 1 if y is x else x + 2

    x = torch.rand(3, 2)
    program = sf.export(Leaving(run), (x,), strict=strict)
    assert torch.equal(program.module()(x), x + 1)
