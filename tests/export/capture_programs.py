"""Small functions for the torch-level capture, by name: ``(function, inputs, other inputs)``.

Dim 0 of every tensor input is dynamic (the same dim where the sizes agree). The other inputs have
other sizes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

PROGRAMS: dict[str, Program] = {}


@dataclass(frozen=True)
class Program:
    """A function, and makers of inputs for a size.

    Attributes:
        function: is captured.
        inputs: size -> inputs.
        dynamic: whether dim 0 is dynamic.
        random: the results are drawn.
    """

    function: Callable[..., Any]
    inputs: Callable[[int], tuple[Any, ...]]
    dynamic: bool = True
    random: bool = False


def _one(n: int) -> tuple[Tensor, ...]:
    return (torch.linspace(-2, 3, n * 4).reshape(n, 4).clone(),)


def _two(n: int) -> tuple[Tensor, ...]:
    a = torch.linspace(-2, 3, n * 4).reshape(n, 4)
    return a.clone(), (a * 0.7 + 0.3).sin()


def _ints(n: int) -> tuple[Tensor, ...]:
    return (torch.arange(n * 4).reshape(n, 4) % 7,)


def _image(n: int) -> tuple[Tensor, ...]:
    return (torch.linspace(-1, 1, n * 3 * 8 * 8).reshape(n, 3, 8, 8),)


def _add(name: str, function: Any, inputs: Any = _one, **options: Any) -> None:
    if name in PROGRAMS:
        raise LookupError(name)
    PROGRAMS[name] = Program(function, inputs, **options)


# -- operators of Python ---------------------------------------------------------------------------

_add("plus", lambda x: x + 1)
_add("plus_reflected", lambda x: 1 + x)
_add("minus_reflected", lambda x: 1 - x)
_add("minus", lambda x, y: x - y, _two)
_add("times", lambda x, y: x * y, _two)
_add("divide", lambda x, y: x / (y + 5), _two)
_add("divide_reflected", lambda x: 2 / (x + 5))
_add("floor_divide", lambda x: x // 2)
_add("floor_divide_reflected", lambda x: 7 // (x + 5))
_add("remainder", lambda x: x % 2)
_add("remainder_reflected", lambda x: 7 % (x + 5))
_add("power", lambda x: x**2)
_add("power_reflected", lambda x: 2**x)
_add("matrix_product", lambda x, y: x @ y.T, _two)
_add("compare", lambda x, y: (x < y, x <= y, x > y, x >= y, x == y, x != y), _two)
_add("bits", lambda x: (x & 3, x | 3, x ^ 3, x << 1, x >> 1, ~x), _ints)
_add("signs", lambda x: (-x, +x, abs(x)))
_add("swapped_operands", lambda x, y: (y - x, x - y, y.sub(x), x.add(y, alpha=2)), _two)


def _in_place(x: Tensor, y: Tensor) -> Tensor:
    z = x.clone()
    z += y
    z *= 2
    z -= 1
    z /= 3
    z.add_(x).relu_()
    return z


def _written_input(x: Tensor) -> Tensor:
    x.mul_(2)
    x[:, 0] = 5
    return x + 1


def _written_view(x: Tensor) -> Tensor:
    y = x.clone()
    view = y[:, 1:3]
    view.add_(10)
    y.T[0].zero_()
    return y


_add("in_place", _in_place, _two)
_add("written_input", _written_input)
_add("written_view", _written_view)

# -- indexing --------------------------------------------------------------------------------------


def _set_items(x: Tensor) -> Tensor:
    y = x.clone()
    y[0] = 1
    y[:, 1] = x[:, 2]
    y[x > 1] = 0
    y[..., -1] += 3
    return y


_add("index", lambda x: (x[0], x[:, 1], x[..., -1], x[None], x[1:], x[:-1], x[::2]))
_add("index_of_sizes", lambda x: (x[x.shape[0] - 1], x[: x.shape[0] // 2], x[x.size(0) // 2 :]))
_add("index_by_tensor", lambda x: (x[torch.tensor([1, 0])], x[:, [0, 2]], x[x > 0]))
_add("set_items", _set_items)
_add("iterate", lambda x: [row * i for i, row in enumerate(x.T)])
_add("unpack", lambda x: (lambda a, b, c, d: a + b * c - d)(*x.unbind(1)))

# -- sizes -----------------------------------------------------------------------------------------

_add("view", lambda x: x.view(x.shape[0] * 2, 2))
_add("view_of_size", lambda x: x.view(x.shape).reshape(x.size()))
_add("arange_of_size", lambda x: x + torch.arange(x.shape[0])[:, None])
_add("size_is_result", lambda x: (x.shape[0], x.numel(), x.sum()))
_add("size_arithmetic", lambda x: x * (x.shape[0] ** 2 % 5 + x.size(0) / 2))
_add("size_is_tensor", lambda x: torch.tensor([x.shape[0], 2]) + torch.tensor(x.shape[0]))
_add("zeros_of_size", lambda x: torch.zeros(x.shape[0], 3) + torch.ones(x.shape).sum())
_add("new_of_size", lambda x: x.new_zeros(x.size(0)) + x.new_full((2, x.shape[0]), 3.0))
_add("expand", lambda x: x[:, None].expand(x.shape[0], 3, -1).flatten(1))
_add("repeat", lambda x: x.repeat(2, x.shape[0]))
_add("len", lambda x: x / len(x), dynamic=False)
_add("torch_size", lambda x: torch.randn(0).new_ones(torch.Size([x.shape[0], 2])))
_add("size_branches", lambda x: x + 1 if x.shape[1] == 4 else x - 1)
_add("sym_max", lambda x: x.new_zeros(torch.sym_max(x.shape[0], 2)))

# -- data-dependent --------------------------------------------------------------------------------


def _item(x: Tensor) -> Tensor:
    k = (x > 0).sum().item()
    torch._check(k > 0)
    return torch.zeros(k) + x.sum()


def _nonzero(x: Tensor) -> tuple[Tensor, Tensor]:
    found = x.nonzero()
    return found, torch.arange(found.shape[0])


_add("item", _item)
_add("nonzero", _nonzero)
_add("mask", lambda x: x.masked_select(x > 0).sum())
_add("item_as_value", lambda x: x * x.sum().item())
_add("tolist", lambda x: x * x[0].tolist()[1])
_add("where", lambda x: torch.where(x > 0, x, -x))
_add("unique", lambda x: torch.unique(x)[0], _ints)

# -- tuples, out=, keywords ------------------------------------------------------------------------


def _out(x: Tensor) -> Tensor:
    result = torch.empty_like(x)
    torch.add(x, 1, out=result)
    torch.mul(result, x, out=result)
    return result


_add("out", _out)
_add("max", lambda x: (x.max(1).values, x.max(dim=1)[1], torch.max(x)))
_add("topk", lambda x: torch.topk(x, 2, dim=-1, largest=False))
_add("sort", lambda x: x.sort(descending=True)[0])
_add("split", lambda x: torch.cat(x.split([1, 3], dim=1)[::-1], 1))
_add("chunk", lambda x: torch.stack(x.chunk(2, 1)))
_add("stack", lambda x, y: torch.stack([x, y], dim=1), _two)
_add("nested_lists", lambda x, y: torch.block_diag(*[x, y]), _two)
_add("einsum", lambda x, y: torch.einsum("bi,bj->ij", x, y), _two)
_add("meshgrid", lambda x: torch.meshgrid(x[0], x[1], indexing="ij"))
_add("svd", lambda x: torch.linalg.svd(x.T @ x + torch.eye(4))[1])
_add("eigen", lambda x: torch.linalg.eigh(x.T @ x).eigenvalues)
_add("aminmax", lambda x: torch.aminmax(x, dim=0).max)
_add("foreach", lambda x, y: torch._foreach_add([x, y], 1.0), _two)
_add("returns_dict", lambda x: {"a": x + 1, "b": [x, (x * 2, 3)]})
_add("returns_input", lambda x: (x, x))
_add("returns_none", lambda x: (None, x + 1, "text", 2.5))

# -- properties and questions ----------------------------------------------------------------------

_add("transposes", lambda x: (x.T, x.mT, x.t(), x.transpose(0, 1)))
_add(
    "complex",
    lambda x: torch.complex(x, x).real + torch.view_as_complex(x.view(-1, 2, 2)).imag.sum(),
)
_add("dtypes", lambda x: x.to(torch.float64).add(1).to(x.dtype).type(torch.float32))
_add(
    "device",
    lambda x: torch.ones(3, device=x.device, dtype=x.dtype) if x.is_floating_point() else x,
)
_add("casts", lambda x: (x.int(), x.double(), x.bool(), x.to("cpu"), x.type_as(x)))
_add("ndim", lambda x: x.sum(tuple(range(1, x.ndim))))
_add("requires_grad", lambda x: x * 2 if not x.requires_grad else x)
_add("detach", lambda x: x.detach() + x.data)
_add("contiguous", lambda x: x.T.contiguous() + 1)
_add("strides", lambda x: torch.as_strided(x, (2, 2), (1, 2)), dynamic=False)

# -- functions of torch.nn.functional --------------------------------------------------------------

_add("relu", lambda x: F.relu(x) + F.gelu(x) + F.silu(x) + F.leaky_relu(x, 0.2))
_add("softmax", lambda x: F.softmax(x, dim=-1) + F.log_softmax(x, -1, dtype=torch.float32))
_add("layer_norm", lambda x: F.layer_norm(x, (4,)))
_add("linear", lambda x: F.linear(x, torch.ones(3, 4), torch.zeros(3)))
_add("conv", lambda x: F.conv2d(x, torch.ones(2, 3, 3, 3), padding="same"), _image)
_add("max_pool", lambda x: F.max_pool2d(x, 2), _image)
_add("max_pool_indices", lambda x: F.max_pool2d(x, 2, return_indices=True), _image)
_add("adaptive_pool", lambda x: F.adaptive_avg_pool2d(x, (2, 3)), _image)
_add("interpolate", lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"), _image)
_add("pad", lambda x: F.pad(x, (1, 2), value=3.0) + F.pad(x, (1, 2), mode="constant"))
_add("unfold", lambda x: F.unfold(x, 3), _image)
_add("grid_sample", lambda x: F.grid_sample(x, x.new_zeros(x.shape[0], 2, 2, 2)), _image)
_add("embedding", lambda i: F.embedding(i, torch.arange(28.0).view(7, 4)), _ints)
_add("one_hot", lambda i: F.one_hot(i, 8).float().mean(0), _ints)
_add("losses", lambda x, y: F.mse_loss(x, y) + F.l1_loss(x, y, reduction="sum"), _two)
_add("cross_entropy", lambda x: F.cross_entropy(x, x.argmax(-1)))
_add("cosine", lambda x, y: F.cosine_similarity(x, y), _two)
_add("normalize", lambda x: F.normalize(x, dim=-1))
_add("attention", lambda x, y: F.scaled_dot_product_attention(x[None], y[None], y[None]), _two)
_add("glu", lambda x: F.glu(x))
_add("dropout_eval", lambda x: F.dropout(x, 0.5, training=False) + 1)
_add("norms", lambda x: (x.norm(), torch.norm(x, dim=1), torch.linalg.vector_norm(x)))
_add("fft", lambda x: torch.fft.rfft(x, dim=1).abs())
_add("special", lambda x: torch.special.expit(x) + torch.special.erf(x))
_add("cumsum", lambda x: x.cumsum(0).flip(0).roll(1, 0))
_add("scatter", lambda x: torch.zeros_like(x).scatter_(1, x.argsort(1), x))
_add("gather", lambda x: x.gather(1, x.argmax(1, keepdim=True)))
_add("index_add", lambda x: torch.zeros(3, 4).index_add(0, torch.arange(x.shape[0]) % 3, x))
_add("triangle", lambda x: torch.tril(x @ x.T) + torch.triu(x @ x.T, 1))
_add("masked_fill", lambda x: x.masked_fill(x < 0, float("-inf")).clamp(min=-10, max=None))
_add("cdist", lambda x, y: torch.cdist(x, y), _two)
_add("bucketize", lambda x: torch.bucketize(x, torch.tensor([0.0, 1.0, 2.0])))

# -- modes -----------------------------------------------------------------------------------------


def _no_grad(x: Tensor) -> Tensor:
    with torch.no_grad():
        y = x * 2
        with torch.enable_grad():
            y = y + x
    return y * x


@torch.no_grad()
def _decorated(x: Tensor) -> Tensor:
    return x * 3


def _grad_switch(x: Tensor) -> Tensor:
    with torch.set_grad_enabled(False):
        y = x + 1
    return y * x


def _autocast(x: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        y = x @ x.T
        with torch.autocast("cpu", enabled=False):
            z = x @ x.T
    return y.float() + z


def _inference(x: Tensor) -> Tensor:
    with torch.inference_mode():
        y = x * 2
    return y + 1


_add("no_grad", _no_grad)
_add("decorated", _decorated)
_add("grad_switch", _grad_switch)
_add("autocast", _autocast)
_add("inference", _inference)

# -- random, constants, custom ---------------------------------------------------------------------

_WEIGHT = torch.linspace(0, 1, 4)


class Doubled(torch.autograd.Function):
    """Twice the input, with a gradient that is not its own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Twice the input."""
        return (x * 2).clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        """Three times the gradient."""
        return grad * 3


_add("random", lambda x: x + torch.rand_like(x) + torch.randn(x.shape[0], 1), random=True)
_add("dropout", lambda x: F.dropout(x, 0.5), random=True)
_add("bernoulli", lambda x: torch.bernoulli(torch.sigmoid(x)), random=True)
_add("uniform", lambda x: torch.empty_like(x).uniform_(0, 1), random=True)
_add("tensor_constant", lambda x: x + torch.tensor([1.0, 2, 3, 4]) + torch.tensor(2))
_add("global_constant", lambda x: x * _WEIGHT)
_add("constant_item", lambda x: x * torch.tensor(3).item())
_add("own_backward", lambda x: Doubled.apply(x) + 1)
_add("operator_call", lambda x: torch.ops.aten.relu(x) + torch.ops.aten.add.Tensor(x, 1))
_add("vmap", lambda x: torch.vmap(lambda row: row.sum() * row)(x))
_add("legacy", lambda x: x + torch.Tensor([1.0, 2.0, 3.0, 4.0]))
_add("set_layout", lambda x: (x + 1).t_().unsqueeze_(0))
_add("checkpoint", lambda x: torch.utils.checkpoint.checkpoint(torch.sin, x, use_reentrant=False))


def _cond(x: Tensor) -> Tensor:
    return torch.cond(x.sum() > 0, lambda a: a * 2, lambda a: a - 1, (x,))


def _closing_cond(x: Tensor) -> Tensor:
    y = x.cos()
    return torch.cond(x.sum() > 0, lambda a: a * y, lambda a: a + x.shape[0], (x,)) + 1


def _while(x: Tensor) -> Tensor:
    from torch._higher_order_ops.while_loop import while_loop

    return while_loop(lambda i, a: i < 3, lambda i, a: (i + 1, a * 2), (torch.tensor(0), x))[1]


_add("cond", _cond)
_add("closing_cond", _closing_cond)
_add("while_loop", _while)
