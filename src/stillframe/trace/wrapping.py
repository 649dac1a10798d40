"""The inputs of a trace by dispatch: what the traced function is called with.

In fake and symbolic mode each tensor becomes a fake. In symbolic mode sizes become symbols: equal
sizes share one (duck shaping), and sizes 0 and 1 stay numbers. Strides that follow from the sizes
are expressions of them; others, and storage offsets, are symbols too.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from stillframe import symbolic as sym
from stillframe import torch_private
from stillframe.errors import NotSupported
from stillframe.fake import sparse
from stillframe.fake.tensor import FakeTensor, refuse_exotic
from stillframe.shapes.env import ShapeEnv, Size
from stillframe.symbolic import Expr, Range, evaluate, unwrap

aten = torch.ops.aten


class InputWrapper:
    """Turns the leaves of the inputs into values of one trace.

    Args:
        env: the environment of the fakes.
        mode: ``"real"``, ``"fake"`` or ``"symbolic"``.
    """

    def __init__(self, env: ShapeEnv, mode: str) -> None:
        self.env = env
        self.mode = mode
        self._symbols: dict[int, Expr] = {}  # duck shaping: by size
        self._fakes: dict[int, Any] = {}  # one fake for a tensor that is passed twice

    def wrap(self, value: Any, name: str) -> Any:
        """The value that stands for one leaf; ``name`` is that of its placeholder.

        Raises:
            NotSupported: a kind of tensor that cannot be traced.
        """
        if isinstance(value, torch.Tensor):
            if torch_private.is_functorch_wrapper(value):
                raise NotSupported(
                    f"The input {name} is a tensor inside a transform of torch.func.",
                    why="operators see what is inside of it, so the trace could not follow it",
                    hints=["trace the transformed function: make_fx(torch.vmap(f))(x)"],
                )
            return value if self.mode == "real" else self._fake_of(value, name)
        if self.mode == "symbolic" and type(value) is int:
            return self.env.wrap(self._size(value, name))
        return value

    def _fake_of(self, tensor: torch.Tensor, name: str) -> Any:
        if isinstance(tensor, FakeTensor):
            return tensor
        known = self._fakes.get(id(tensor))
        if known is None:
            known = self._fakes[id(tensor)] = self._make(tensor, name)
        return known

    def _make(self, tensor: torch.Tensor, name: str) -> Any:
        flatten = getattr(tensor, "__tensor_flatten__", None)
        if flatten is not None:
            return self._make_subclass(tensor, flatten, name)
        if tensor.layout in sparse.PARTS:
            return self._make_sparse(tensor, name)
        if self.mode == "fake":
            return FakeTensor.like_real(self.env, tensor)
        refuse_exotic(tensor)
        sizes = tuple(self._size(n, f"{name}.size({d})") for d, n in enumerate(tensor.shape))
        strides = self._strides(tensor, sizes, name)
        offset = self._size(int(tensor.storage_offset()), f"{name}.storage_offset()")
        fake = FakeTensor.make(
            self.env, sizes, strides, offset, tensor.dtype, tensor.device, tensor.requires_grad
        )
        if isinstance(tensor, torch.nn.Parameter):
            fake._is_param = True
        return fake

    def _make_sparse(self, tensor: torch.Tensor, name: str) -> FakeTensor:
        """How many elements are specified is a size like any other."""
        nnz = torch_private.specified_elements(tensor)
        if self.mode == "fake":
            return sparse.like_real(self.env, tensor, None, nnz)
        sizes = tuple(self._size(n, f"{name}.size({d})") for d, n in enumerate(tensor.shape))
        return sparse.like_real(self.env, tensor, sizes, self._size(nnz, f"{name}._nnz()"))

    def _make_subclass(self, tensor: torch.Tensor, flatten: Any, name: str) -> Any:
        """The same subclass around fakes of its inner tensors."""
        names, context = flatten()
        inner = {attr: self._fake_of(getattr(tensor, attr), f"{name}.{attr}") for attr in names}
        sizes: tuple[Any, ...] = tuple(tensor.shape)
        strides: tuple[Any, ...] = tensor.stride()
        if self.mode == "symbolic":
            like = [n for n in names if getattr(tensor, n).shape == tensor.shape]
            same = [n for n in like if getattr(tensor, n).stride() == strides]
            if not same:
                raise NotSupported(
                    f"The input {name} is a {type(tensor).__name__} whose sizes are not those of "
                    "an inner tensor.",
                    hints=['trace it with tracing_mode="fake"'],
                )
            sizes, strides = inner[same[0]].shape, inner[same[0]].stride()
        rebuild = type(tensor).__tensor_unflatten__  # type: ignore[attr-defined]
        wrapped = rebuild(inner, context, sizes, strides)
        return wrapped.requires_grad_(tensor.requires_grad)

    def _size(self, value: int, source: str) -> Size:
        if value in (0, 1):
            return value
        known = self._symbols.get(value)
        if known is None:
            bounds = Range(2, math.inf) if value > 0 else Range(-math.inf, -1)
            known = self._symbols[value] = self.env.new_symbol(
                source, value, bounds, policy="dynamic", source=source
            )
        return known

    def _strides(self, tensor: torch.Tensor, sizes: tuple[Size, ...], name: str) -> list[Size]:
        """Expressions of the sizes as long as the memory is dense in some order of the dims."""
        strides: list[Size] = list(tensor.stride())
        expected: Size = 1
        for d in sorted(range(tensor.dim()), key=lambda d: (tensor.stride(d), -d)):
            here = tensor.stride(d)
            if here == self._hint(expected):
                strides[d] = expected
            elif here not in (0, 1):
                strides[d] = self._size(here, f"{name}.stride({d})")
            if here != 0:
                expected = _product(strides[d], sizes[d])
        return strides

    def _hint(self, size: Size) -> int:
        return int(evaluate(size, self.env.hints)) if isinstance(size, Expr) else size


def _product(a: Size, b: Size) -> Size:
    if type(a) is int and type(b) is int:
        return a * b
    return unwrap(sym.mul(a, b))  # type: ignore[no-any-return]
