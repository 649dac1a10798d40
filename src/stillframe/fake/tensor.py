"""FakeTensor: dtype, device, symbolic sizes and strides, which storage; no data.

A fake is a wrapper subclass without storage of its own (the alternative, a meta tensor in disguise,
rejects symbolic sizes in C++ meta kernels). torch holds the sizes as SymInts for C++ and for
``x.shape`` in user code; the same facts stand beside them as plain Python (``sizes``, ``strides``,
``offset``: ints and expressions), which is what shape rules read.

Which tensors share memory is ours to track: a :class:`FakeStorage` is compared by identity.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from stillframe import torch_private
from stillframe.errors import NotSupported
from stillframe.shapes.env import ShapeEnv, Size

if TYPE_CHECKING:
    from stillframe.fake.mode import FakeMode


class FakeStorage:
    """A piece of memory that fakes share.

    ``written`` counts in-place operators on it. ``given``: it is an input's, which may begin
    anywhere in its storage at the next call.
    """

    __slots__ = ("given", "written")

    def __init__(self, given: bool = False) -> None:
        self.written = 0
        self.given = given


@dataclass(frozen=True)
class Sparsity:
    """What a sparse tensor is made of; see :mod:`stillframe.fake.sparse`.

    Attributes:
        layout: ``torch.sparse_coo`` or ``torch.sparse_csr``.
        parts: its index tensors and its values, by name.
        sparse_dim: how many dims the indices speak of.
        coalesced: whether COO indices are known to be sorted and distinct.
    """

    layout: torch.layout
    parts: dict[str, FakeTensor]
    sparse_dim: int
    coalesced: bool

    @property
    def nnz(self) -> Size:
        """How many elements are specified."""
        return self.parts["values"].sizes[0]


class FakeTensor(torch.Tensor):
    """A tensor without data. Make one with :meth:`make` or :meth:`like_real`.

    Attributes:
        env: the shape environment of its symbols.
        sizes, strides, offset: ints and expressions.
        storage: the memory; views of one tensor have the same object.
        base: the tensor that it is a differentiable view of; None for others.
        constant: the real value, for scalars that the program itself made (``torch.tensor(3)``).
        symbolic_value: the value, for scalars that the program made from sizes, and from integers
            of the module's state.
        relies_on: the buffers and constants whose integers that value follows from.
        known_ratio: of a float scalar made from the same, the quotient that it is near to.
        fx_node: the fx node that produced it in the current recording, if any.
        sparse: what it is made of, for sparse tensors, which have no strides and no offset.
        view_of: how it views another tensor, where a functional recording follows that.
    """

    env: ShapeEnv
    sizes: tuple[Size, ...]
    strides: tuple[Size, ...]
    offset: Size
    storage_: FakeStorage
    base: FakeTensor | None = None
    sparse: Sparsity | None = None
    view_of: Any = None
    relies_on: tuple[FakeTensor, ...] = ()
    known_ratio: Any = None
    constant: torch.Tensor | None
    symbolic_value: Size | None
    fx_node: Any

    __torch_function__ = torch_private.disabled_torch_function  # type: ignore[assignment]

    @staticmethod
    def make(
        env: ShapeEnv,
        sizes: Sequence[Size],
        strides: Sequence[Size],
        offset: Size,
        dtype: torch.dtype,
        device: torch.device,
        requires_grad: bool = False,
        storage: FakeStorage | None = None,
    ) -> FakeTensor:
        """A fake with the given metadata; ``storage=None`` means memory of its own."""
        fake = torch_private.make_wrapper_subclass(
            FakeTensor,
            env.wrap_sizes(sizes),
            strides=env.wrap_sizes(strides),
            storage_offset=env.wrap(offset),
            dtype=dtype,
            device=device,
            requires_grad=requires_grad,
            storage_size=0,
        )
        assert isinstance(fake, FakeTensor)
        fake.env = env
        fake.sizes = tuple(sizes)
        fake.strides = tuple(strides)
        fake.offset = offset
        fake.storage_ = FakeStorage() if storage is None else storage
        fake.constant = None
        fake.symbolic_value = None
        fake.fx_node = None
        return fake

    @staticmethod
    def like_real(
        env: ShapeEnv, real: torch.Tensor, sizes: Sequence[Size] | None = None
    ) -> FakeTensor:
        """A fake with the metadata of ``real``; ``sizes`` replaces its sizes by symbolic ones.

        With symbolic sizes the strides keep the order that the example has; they are dense.

        Raises:
            NotSupported: sparse, quantised, nested or functorch-wrapped tensors, and symbolic
                sizes on a tensor whose memory has gaps or overlaps.
        """
        refuse_exotic(real)
        strides: Sequence[Size] = real.stride()
        offset: Size = int(real.storage_offset())
        if sizes is None or all(type(s) is int for s in sizes):
            sizes = tuple(real.shape)
        else:
            strides = _symbolic_strides(env, real, sizes)
        fake = FakeTensor.make(
            env, sizes, strides, offset, real.dtype, real.device, real.requires_grad
        )
        if isinstance(real, torch.nn.Parameter):
            fake._is_param = True
        return fake

    def contiguous(  # type: ignore[override]
        self, *, memory_format: torch.memory_format = torch.contiguous_format
    ) -> torch.Tensor:
        """Always the operator. torch's method would skip it where the layout allows.

        To know that it asks whether sizes are 0 or 1, which would be guards; and a later input may
        be laid out otherwise than the example.
        """
        return torch.ops.aten.contiguous.default(  # type: ignore[no-any-return]
            self, memory_format=memory_format
        )

    def become(self, other: FakeTensor) -> None:
        """Take layout and memory of ``other``, as ``squeeze_`` and ``set_`` do."""
        requires_grad = self.requires_grad
        torch_private.take_over(self, other)
        if self.requires_grad != requires_grad:
            self.requires_grad_(requires_grad)
        self.sizes, self.strides, self.offset = other.sizes, other.strides, other.offset
        self.storage_ = other.storage_
        self.constant = self.symbolic_value = self.known_ratio = (
            None  # known in the old layout only
        )

    def snapshot(self) -> FakeTensor:
        """Another fake over the same memory, without autograd history."""
        if self.sparse is not None:
            return self._sparse_snapshot(self.sparse)
        return FakeTensor.make(
            self.env,
            self.sizes,
            self.strides,
            self.offset,
            self.dtype,
            self.device,
            storage=self.storage_,
        )

    def _sparse_snapshot(self, sparsity: Sparsity) -> FakeTensor:
        from stillframe.fake.sparse import make

        return make(self.env, self.sizes, sparsity)

    def __getattr__(self, name: str) -> Any:
        """Strides and offset of a sparse tensor, wherever somebody counts on them."""
        if name in ("strides", "offset"):
            raise NotSupported(
                f"A sparse tensor came where only strided ones can be captured: {self}.",
                hints=["take it apart (indices and values), or make it dense: x.to_dense()"],
            )
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __hash__(self) -> int:
        """By identity. Of a fake that may stand for another's tensor, who watches may refuse it."""
        if self.env.watches_hash is not None:
            self.env.watches_hash(self)
        return id(self)

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        sizes = ", ".join(str(s) for s in self.sizes)
        kind = "" if self.sparse is None else f"{str(self.sparse.layout).removeprefix('torch.')}, "
        dtype = str(self.dtype).removeprefix("torch.")
        return f"FakeTensor([{sizes}], {kind}{dtype}, {self.device})"

    def __reduce_ex__(self, proto: Any) -> Any:
        raise NotSupported(
            "A fake tensor cannot be pickled or copied.",
            hints=["save programs with stillframe.save(program, path)"],
        )

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        from stillframe.fake.mode import mode_of

        mode: FakeMode = mode_of(args, kwargs or {})
        return mode.run(func, args, kwargs or {})


def refuse_exotic(real: torch.Tensor) -> None:
    """Raise :class:`NotSupported` for kinds of tensor that have no fake yet, naming the kind."""
    kind = None
    if real.layout is not torch.strided:
        kind = f"layout {real.layout}"
    elif real.is_quantized:
        kind = "a quantised dtype"
    elif real.is_nested:
        kind = "nested sizes"
    elif type(real) not in (torch.Tensor, torch.nn.Parameter) and not isinstance(real, FakeTensor):
        if not _is_plain(type(real)):
            kind = f"the tensor subclass {type(real).__module__}.{type(real).__qualname__}"
    if kind is not None:
        raise NotSupported(
            f"A tensor with {kind} cannot be captured yet.",
            hints=["convert it to a plain strided tensor before the call"],
        )


def _is_plain(cls: type[torch.Tensor]) -> bool:
    """Whether operators and functions on the class are those on tensors."""
    functions = getattr(cls.__torch_function__, "__func__", cls.__torch_function__)
    return cls.__torch_dispatch__ is torch.Tensor.__torch_dispatch__ and (
        functions in _PLAIN_FUNCTIONS
    )


_PLAIN_FUNCTIONS = (
    torch.Tensor.__torch_function__.__func__,  # type: ignore[attr-defined]
    torch_private.disabled_torch_function,
)


def _symbolic_strides(env: ShapeEnv, real: torch.Tensor, sizes: Sequence[Size]) -> tuple[Size, ...]:
    """Dense strides over symbolic sizes, in the memory order of the example.

    Where the example's strides leave the order open (sizes of 1), row-major order is taken.
    """
    from stillframe.shapes.layout import permuted_strides

    order = sorted(range(real.dim()), key=lambda d: (real.stride(d), -d))
    expected = 1
    for d in order:
        if real.shape[d] > 1 and real.stride(d) != expected:
            raise NotSupported(
                f"A tensor of sizes {tuple(real.shape)} and strides {real.stride()} has gaps or "
                "overlaps in memory, and a dim of it is dynamic.",
                hints=["pass x.contiguous() as the example, or keep its dims static"],
            )
        expected *= max(real.shape[d], 1)
    return permuted_strides(sizes, order)
