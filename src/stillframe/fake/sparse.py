"""Sparse tensors without data: COO and CSR.

A sparse fake has a shape and parts: fakes of the index tensors and of the values, over the memory
that they share with other tensors. How many elements are specified (``nnz``) is the first size of
the values: an unknown where data tells. Such a fake has no strides and no offset; asking for them
is refused, so nothing that knows strided tensors only can take one for such.

A sparse argument brings a call here: an operator without an entry in :data:`SPARSE_RULES` is
refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from stillframe import torch_private
from stillframe.errors import NotSupported
from stillframe.fake.context import RuleContext
from stillframe.fake.registry import rule
from stillframe.fake.tensor import FakeStorage, FakeTensor, Sparsity
from stillframe.shapes import layout
from stillframe.shapes.env import ShapeEnv, Size
from stillframe.symbolic import unwrap

if TYPE_CHECKING:
    from stillframe.fake.mode import FakeMode

aten = torch.ops.aten
COO, CSR = torch.sparse_coo, torch.sparse_csr

#: What the parts of each layout are called; the values come last.
PARTS: dict[torch.layout, tuple[str, ...]] = {
    COO: ("indices", "values"),
    CSR: ("crow_indices", "col_indices", "values"),
}

SPARSE_RULES: dict[Any, Callable[..., Any]] = {}


Rule = TypeVar("Rule", bound=Callable[..., Any])


def _sparse_rule(*operators: Any) -> Callable[[Rule], Rule]:
    def register(function: Rule) -> Rule:
        for op in operators:
            if op in SPARSE_RULES:
                raise KeyError(f"{op} has two sparse rules")
            SPARSE_RULES[op] = function
        return function

    return register


def run(mode: FakeMode, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """The answer of an operator that has a sparse argument.

    Raises:
        NotSupported: no rule covers the operator, or this call of it.
    """
    found = SPARSE_RULES.get(func)
    if found is None:
        raise NotSupported(
            f"{func} has no shape rule for sparse tensors.",
            why="what it returns for them is not known without data",
            hints=["take the tensor apart (indices and values), or make it dense: x.to_dense()"],
        )
    return found(mode.ctx, *args, **kwargs)


# -- making ----------------------------------------------------------------------------------------


def make(
    env: ShapeEnv, sizes: Sequence[Size], sparsity: Sparsity, requires_grad: bool = False
) -> FakeTensor:
    """The fake. Later changes of the layout of the parts do not reach it."""
    values = sparsity.parts["values"]
    fake = torch_private.make_wrapper_subclass(
        FakeTensor,
        env.wrap_sizes(sizes),
        dtype=values.dtype,
        layout=sparsity.layout,
        device=values.device,
        requires_grad=requires_grad,
        storage_size=0,
        dispatch_layout=sparsity.layout is CSR,  # C++ knows of wrappers that they are COO at most
    )
    assert isinstance(fake, FakeTensor)
    fake.env = env
    fake.sizes = tuple(sizes)
    fake.storage_ = values.storage_
    fake.constant = None
    fake.symbolic_value = None
    fake.fx_node = None
    own = {name: part.snapshot() for name, part in sparsity.parts.items()}
    fake.sparse = replace(sparsity, parts=own)
    return fake


def like_real(
    env: ShapeEnv, real: torch.Tensor, sizes: Sequence[Size] | None, nnz: Size
) -> FakeTensor:
    """The fake of a sparse input, with ``nnz`` specified elements.

    Raises:
        NotSupported: another layout than COO and CSR, or a batch of CSR matrices.
    """
    if real.layout not in PARTS or (real.layout is CSR and real.dim() - real.dense_dim() != 2):
        raise NotSupported(
            f"A tensor with layout {real.layout} and {real.dim()} dims cannot be captured yet.",
            hints=["pass it as COO, or as a CSR matrix: x.to_sparse(), x.to_sparse_csr()"],
        )
    shape = tuple(real.shape) if sizes is None else tuple(sizes)
    rank = real.dim() - real.dense_dim()
    values = _dense(env, (nnz, *shape[rank:]), real.dtype, real.device)
    parts: dict[str, FakeTensor] = {}
    if real.layout is COO:
        parts["indices"] = _dense(env, (rank, nnz), torch.int64, real.device)
        coalesced = real.is_coalesced()
    else:
        integers = real.crow_indices().dtype
        parts["crow_indices"] = _dense(env, (unwrap(shape[0] + 1),), integers, real.device)
        parts["col_indices"] = _dense(env, (nnz,), integers, real.device)
        coalesced = False
    parts["values"] = values
    return make(env, shape, Sparsity(real.layout, parts, rank, coalesced), real.requires_grad)


def _dense(
    env: ShapeEnv, sizes: Sequence[Size], dtype: torch.dtype, device: torch.device
) -> FakeTensor:
    strides = layout.contiguous_strides(sizes)
    return FakeTensor.make(env, sizes, strides, 0, dtype, device, storage=FakeStorage(given=True))


def _sparsity(x: FakeTensor) -> Sparsity:
    assert x.sparse is not None
    return x.sparse


def _coo(
    ctx: RuleContext,
    sizes: Sequence[Size],
    sparse_dim: int,
    nnz: Size,
    *,
    dtype: torch.dtype,
    device: torch.device,
    coalesced: bool,
    capacity: Size | None = None,
) -> FakeTensor:
    """New COO memory. ``capacity``: kernels cut indices out of memory for so many elements."""
    wide = nnz if capacity is None else capacity
    grad, ctx.requires_grad = ctx.requires_grad, False
    rows = ctx.empty((sparse_dim, nnz), dtype=torch.int64, device=device, strides=(wide, 1))
    values = ctx.empty((nnz, *sizes[sparse_dim:]), dtype=dtype, device=device)
    ctx.requires_grad = grad
    parts = {"indices": rows, "values": values}
    sparsity = Sparsity(COO, parts, sparse_dim, coalesced)
    return make(ctx.env, sizes, sparsity, grad and dtype.is_floating_point)


def _csr(
    ctx: RuleContext,
    sizes: Sequence[Size],
    nnz: Size,
    *,
    dtype: torch.dtype,
    device: torch.device,
    integers: torch.dtype,
) -> FakeTensor:
    grad, ctx.requires_grad = ctx.requires_grad, False
    parts = {
        "crow_indices": ctx.empty((sizes[0] + 1,), dtype=integers, device=device),
        "col_indices": ctx.empty((nnz,), dtype=integers, device=device),
        "values": ctx.empty((nnz, *sizes[2:]), dtype=dtype, device=device),
    }
    ctx.requires_grad = grad
    sparsity = Sparsity(CSR, parts, 2, coalesced=False)
    return make(ctx.env, sizes, sparsity, grad and dtype.is_floating_point)


def _alike(
    ctx: RuleContext, x: FakeTensor, *, nnz: Size | None = None, coalesced: bool | None = None
) -> FakeTensor:
    """New memory with the pattern of ``x``, but for what is given."""
    sparsity = _sparsity(x)
    count = sparsity.nnz if nnz is None else nnz
    if sparsity.layout is CSR:
        integers = sparsity.parts["crow_indices"].dtype
        return _csr(ctx, x.sizes, count, dtype=x.dtype, device=x.device, integers=integers)
    kept = sparsity.coalesced if coalesced is None else coalesced
    return _coo(
        ctx, x.sizes, sparsity.sparse_dim, count, dtype=x.dtype, device=x.device, coalesced=kept
    )


def _floats(ctx: RuleContext, *tensors: FakeTensor) -> None:
    """Only floating-point tensors of one dtype: others are promoted in ways not followed here."""
    dtypes = {t.dtype for t in tensors}
    if len(dtypes) > 1 or not all(d.is_floating_point for d in dtypes):
        raise ctx.unsupported(f"An operator on sparse tensors of the dtypes {dtypes}.")


# -- from dense tensors ----------------------------------------------------------------------------


@rule(aten.to_sparse.default, aten._to_sparse.default)
def to_sparse(
    ctx: RuleContext,
    x: FakeTensor,
    *,
    layout: torch.layout | None = None,
    blocksize: Any = None,
    dense_dim: int | None = None,
) -> FakeTensor:
    """What is not zero; ``dense_dim`` last dims are kept whole."""
    if blocksize is not None or layout not in (None, COO, CSR):
        raise ctx.unsupported(f"to_sparse to the layout {layout} has no shape rule.")
    if layout is CSR:
        return to_sparse_csr(ctx, x, dense_dim)
    return to_sparse_dims(ctx, x, len(x.sizes) - (dense_dim or 0))


@rule(aten.to_sparse.sparse_dim, aten._to_sparse.sparse_dim)
def to_sparse_dims(ctx: RuleContext, x: FakeTensor, sparse_dim: int) -> FakeTensor:
    if not x.sizes or not 0 < sparse_dim <= len(x.sizes):
        raise ctx.unsupported(f"to_sparse of {len(x.sizes)} dims with {sparse_dim} sparse ones.")
    nnz = ctx.unbacked()
    return _coo(ctx, x.sizes, sparse_dim, nnz, dtype=x.dtype, device=x.device, coalesced=True)


@rule(aten.to_sparse_csr.default, aten._to_sparse_csr.default)
def to_sparse_csr(ctx: RuleContext, x: FakeTensor, dense_dim: int | None = None) -> FakeTensor:
    if len(x.sizes) != 2 or dense_dim:
        raise ctx.unsupported("to_sparse_csr has a shape rule for matrices only.")
    nnz = ctx.unbacked()
    return _csr(ctx, x.sizes, nnz, dtype=x.dtype, device=x.device, integers=torch.int64)


@rule(aten.sparse_coo_tensor.indices_size, aten._sparse_coo_tensor_unsafe.default)
def sparse_coo_tensor(
    ctx: RuleContext,
    indices: FakeTensor,
    values: FakeTensor,
    size: Sequence[Size],
    *,
    dtype: torch.dtype | None = None,
    layout: torch.layout | None = None,
    device: torch.device | None = None,
    pin_memory: bool | None = None,
    is_coalesced: bool | None = None,
) -> FakeTensor:
    """The given tensors are the parts; nothing is copied, so dtypes must be right already."""
    if len(indices.sizes) != 2 or type(indices.sizes[0]) is not int:
        raise ctx.unsupported("sparse_coo_tensor: the rows of the indices must be a plain number.")
    if indices.dtype is not torch.int64 or dtype not in (None, values.dtype):
        raise ctx.unsupported("sparse_coo_tensor has a shape rule for int64 indices, without cast.")
    if not values.sizes:
        raise ctx.unsupported("sparse_coo_tensor of a value without dims has no shape rule.")
    sparse_dim = indices.sizes[0]
    if len(size) != sparse_dim + len(values.sizes) - 1:
        raise RuntimeError(
            f"number of dimensions must be sparse_dim ({sparse_dim}) + dense_dim "
            f"({len(values.sizes) - 1}), but got {len(size)}"
        )
    message = "sparse_coo_tensor: indices and values differ in number"
    ctx.require_same(indices.sizes[1], values.sizes[0], message)
    for given, wanted in zip(values.sizes[1:], size[sparse_dim:], strict=True):
        ctx.require_same(given, wanted, "sparse_coo_tensor: values have incorrect size")
    parts = {"indices": indices, "values": values}
    sparsity = Sparsity(COO, parts, sparse_dim, bool(is_coalesced))
    return make(ctx.env, size, sparsity, ctx.requires_grad and values.requires_grad)


@rule(aten._sparse_coo_tensor_with_dims_and_tensors.default)
def sparse_coo_tensor_with_dims(
    ctx: RuleContext,
    sparse_dim: int,
    dense_dim: int,
    size: Sequence[Size],
    indices: FakeTensor,
    values: FakeTensor,
    **options: Any,
) -> FakeTensor:
    return sparse_coo_tensor(ctx, indices, values, size, **options)


@rule(
    aten.sparse_csr_tensor.crow_col_value_size, aten.sparse_compressed_tensor.comp_plain_value_size
)
def sparse_csr_tensor(
    ctx: RuleContext,
    crow_indices: FakeTensor,
    col_indices: FakeTensor,
    values: FakeTensor,
    size: Sequence[Size],
    *,
    dtype: torch.dtype | None = None,
    layout: torch.layout | None = CSR,
    device: torch.device | None = None,
    pin_memory: bool | None = False,
) -> FakeTensor:
    """The given tensors are the parts."""
    ranks = (len(crow_indices.sizes), len(col_indices.sizes), len(values.sizes), len(size))
    if layout not in (CSR, None) or ranks != (1, 1, 1, 2):
        raise ctx.unsupported("Compressed sparse tensors other than CSR matrices have no rule.")
    if crow_indices.dtype is not col_indices.dtype or dtype not in (None, values.dtype):
        raise ctx.unsupported("sparse_csr_tensor has a shape rule without casts only.")
    message = "sparse_csr_tensor: the sizes of the parts do not fit"
    ctx.require_same(crow_indices.sizes[0], unwrap(size[0] + 1), message)
    ctx.require_same(col_indices.sizes[0], values.sizes[0], message)
    parts = {"crow_indices": crow_indices, "col_indices": col_indices, "values": values}
    sparsity = Sparsity(CSR, parts, 2, coalesced=False)
    return make(ctx.env, size, sparsity, ctx.requires_grad and values.requires_grad)


# -- questions and parts ---------------------------------------------------------------------------


@_sparse_rule(aten._nnz.default)
def nnz(ctx: RuleContext, x: FakeTensor) -> Size:
    return _sparsity(x).nnz


@_sparse_rule(torch.ops.prim.layout.default)
def layout_of(ctx: RuleContext, x: FakeTensor) -> torch.layout:
    return _sparsity(x).layout


@_sparse_rule(aten.sparse_dim.default)
def sparse_dim(ctx: RuleContext, x: FakeTensor) -> int:
    return _sparsity(x).sparse_dim


@_sparse_rule(aten.dense_dim.default)
def dense_dim(ctx: RuleContext, x: FakeTensor) -> int:
    return len(x.sizes) - _sparsity(x).sparse_dim


@_sparse_rule(aten.is_coalesced.default)
def is_coalesced(ctx: RuleContext, x: FakeTensor) -> bool:
    _expect(x, COO)
    return _sparsity(x).coalesced


def _expect(x: FakeTensor, wanted: torch.layout) -> None:
    if _sparsity(x).layout is not wanted:
        raise RuntimeError(f"expected a tensor of layout {wanted}, got {_sparsity(x).layout}")


def _part(ctx: RuleContext, x: FakeTensor, name: str, *, gradient: bool = False) -> FakeTensor:
    part = _sparsity(x).parts[name]
    made = FakeTensor.make(
        ctx.env, part.sizes, part.strides, part.offset, part.dtype, part.device,
        gradient and ctx.requires_grad and x.requires_grad, part.storage_,
    )  # fmt: skip
    made.base = x
    return made


@_sparse_rule(aten._indices.default)
def raw_indices(ctx: RuleContext, x: FakeTensor) -> FakeTensor:
    _expect(x, COO)
    return _part(ctx, x, "indices")


@_sparse_rule(aten._values.default)
def raw_values(ctx: RuleContext, x: FakeTensor) -> FakeTensor:
    _expect(x, COO)
    return _part(ctx, x, "values")


@_sparse_rule(aten.indices.default)
def indices(ctx: RuleContext, x: FakeTensor) -> FakeTensor:
    _expect_coalesced(x)
    return raw_indices(ctx, x)


@_sparse_rule(aten.values.default)
def values(ctx: RuleContext, x: FakeTensor) -> FakeTensor:
    if _sparsity(x).layout is COO:
        _expect_coalesced(x)
    return _part(ctx, x, "values", gradient=True)


def _expect_coalesced(x: FakeTensor) -> None:
    _expect(x, COO)
    if not _sparsity(x).coalesced:
        raise RuntimeError("Cannot get indices or values of an uncoalesced tensor: .coalesce() it")


@_sparse_rule(aten.crow_indices.default)
def crow_indices(ctx: RuleContext, x: FakeTensor) -> FakeTensor:
    _expect(x, CSR)
    return _part(ctx, x, "crow_indices")


@_sparse_rule(aten.col_indices.default)
def col_indices(ctx: RuleContext, x: FakeTensor) -> FakeTensor:
    _expect(x, CSR)
    return _part(ctx, x, "col_indices")


@_sparse_rule(aten.coalesce.default)
def coalesce(ctx: RuleContext, x: FakeTensor) -> FakeTensor:
    _expect(x, COO)
    return x if _sparsity(x).coalesced else new_coalesced(ctx, x)


@_sparse_rule(aten._coalesce.default)
def new_coalesced(ctx: RuleContext, x: FakeTensor) -> FakeTensor:
    """Sums of equal indices. The kernel makes room for all of them and cuts off the rest."""
    _expect(x, COO)
    sparsity = _sparsity(x)
    return _coo(
        ctx, x.sizes, sparsity.sparse_dim, ctx.unbacked(), dtype=x.dtype, device=x.device,
        coalesced=True, capacity=sparsity.nnz,
    )  # fmt: skip


@_sparse_rule(aten.to_dense.default, aten._to_dense.default)
def to_dense(
    ctx: RuleContext,
    x: FakeTensor,
    dtype: torch.dtype | None = None,
    *_: Any,
    masked_grad: bool | None = None,
) -> FakeTensor:
    if dtype is not None:
        raise RuntimeError("dtype argument is not supported by to_dense of a sparse tensor")
    return ctx.empty(x.sizes, dtype=x.dtype, device=x.device)


@_sparse_rule(aten.detach.default, aten.alias.default)
def detach(ctx: RuleContext, x: FakeTensor) -> FakeTensor:
    made = x.snapshot()
    made.base = x
    return made


@_sparse_rule(aten.clone.default)
def clone(
    ctx: RuleContext, x: FakeTensor, *, memory_format: torch.memory_format | None = None
) -> FakeTensor:
    if memory_format not in (None, torch.preserve_format):
        raise RuntimeError(f"unsupported memory format for a sparse tensor: {memory_format}")
    return _alike(ctx, x)


# -- elementwise -----------------------------------------------------------------------------------

# Zeros stay zeros, so the pattern stays; COO kernels coalesce first.
_UNARY = """
abs sign sin sinh asin asinh tan tanh atan atanh sqrt expm1 log1p relu ceil floor round trunc
""".split()


@_sparse_rule(*(getattr(aten, name).default for name in _UNARY))
def unary(ctx: RuleContext, x: FakeTensor) -> FakeTensor:
    _floats(ctx, x)
    if _sparsity(x).layout is CSR or _sparsity(x).coalesced:
        return _alike(ctx, x)
    return _alike(ctx, x, nnz=ctx.unbacked(), coalesced=True)


@_sparse_rule(aten.neg.default)
def neg(ctx: RuleContext, x: FakeTensor) -> FakeTensor:
    _floats(ctx, x)
    return _alike(ctx, x)


@_sparse_rule(aten.div.Tensor, aten.div.Scalar)
def divided(ctx: RuleContext, x: Any, other: Any) -> FakeTensor:
    """A COO tensor over a number; torch has no such kernel for CSR."""
    if isinstance(x, FakeTensor) and x.sparse is not None:
        _expect(x, COO)
    return scaled(ctx, x, other)


@_sparse_rule(aten.mul.Tensor, aten.mul.Scalar)
def scaled(ctx: RuleContext, x: Any, other: Any) -> FakeTensor:
    """A sparse tensor times a number."""
    if not isinstance(x, FakeTensor) or isinstance(other, (FakeTensor, complex)):
        raise ctx.unsupported("mul and div of sparse tensors have a rule for numbers only.")
    _floats(ctx, x)
    return _alike(ctx, x)


@_sparse_rule(aten.add.Tensor, aten.sub.Tensor)
def add(ctx: RuleContext, x: Any, other: Any, *, alpha: Any = 1) -> FakeTensor:
    """Two COO tensors. Their indices are merged, in memory for all of both."""
    coo = all(
        isinstance(t, FakeTensor) and t.sparse is not None and t.sparse.layout is COO
        for t in (x, other)
    )
    if not coo:
        raise ctx.unsupported("add and sub of sparse tensors have a rule for two COO tensors only.")
    _floats(ctx, x, other)
    one, two = _sparsity(x), _sparsity(other)
    if len(x.sizes) != len(other.sizes) or one.sparse_dim != two.sparse_dim:
        raise ctx.unsupported("add of sparse tensors of different dims has no shape rule.")
    for m, n in zip(x.sizes, other.sizes, strict=True):
        ctx.require_same(m, n, "add: sparse tensors of different sizes")
    return _coo(
        ctx, x.sizes, one.sparse_dim, ctx.unbacked(), dtype=x.dtype, device=x.device,
        coalesced=one.coalesced and two.coalesced, capacity=unwrap(one.nnz + two.nnz),
    )  # fmt: skip


@_sparse_rule(aten.transpose.int)
def transpose(ctx: RuleContext, x: FakeTensor, dim0: int, dim1: int) -> FakeTensor:
    """Two sparse dims change places, in new memory."""
    sparsity, rank = _sparsity(x), len(x.sizes)
    first, second = sorted((dim0 % rank, dim1 % rank))
    if sparsity.layout is not COO or second >= sparsity.sparse_dim or first == second:
        raise ctx.unsupported("transpose of sparse tensors has a rule for two sparse COO dims.")
    sizes = list(x.sizes)
    sizes[first], sizes[second] = sizes[second], sizes[first]
    return _coo(
        ctx, sizes, sparsity.sparse_dim, sparsity.nnz, dtype=x.dtype, device=x.device,
        coalesced=False,
    )  # fmt: skip


@_sparse_rule(aten.t.default)
def t(ctx: RuleContext, x: FakeTensor) -> FakeTensor:
    if len(x.sizes) != 2:
        raise ctx.unsupported("t of sparse tensors has a shape rule for matrices only.")
    return transpose(ctx, x, 0, 1)


# -- products --------------------------------------------------------------------------------------


@_sparse_rule(aten.mm.default, aten._sparse_mm.default)
def mm(ctx: RuleContext, a: FakeTensor, b: FakeTensor) -> FakeTensor:
    """A sparse matrix times a dense one, contiguous."""
    if a.sparse is None or b.sparse is not None or _sparsity(a).sparse_dim != 2:
        raise ctx.unsupported("mm has a shape rule for a sparse matrix times a dense one.")
    if len(a.sizes) != 2 or len(b.sizes) != 2:
        raise RuntimeError("mm: both tensors must be matrices")
    _floats(ctx, a, b)
    ctx.require_same(a.sizes[1], b.sizes[0], "mm: inner sizes differ")
    return ctx.empty((a.sizes[0], b.sizes[1]), dtype=a.dtype, device=a.device)


@_sparse_rule(aten.mv.default)
def mv(ctx: RuleContext, a: FakeTensor, b: FakeTensor) -> FakeTensor:
    if a.sparse is None or b.sparse is not None or len(b.sizes) != 1 or len(a.sizes) != 2:
        raise ctx.unsupported("mv has a shape rule for a sparse matrix times a dense vector.")
    _floats(ctx, a, b)
    ctx.require_same(a.sizes[1], b.sizes[0], "mv: inner sizes differ")
    return ctx.empty((a.sizes[0],), dtype=a.dtype, device=a.device)


@_sparse_rule(aten.matmul.default)
def matmul(ctx: RuleContext, a: FakeTensor, b: FakeTensor) -> FakeTensor:
    return (mv if len(b.sizes) == 1 else mm)(ctx, a, b)


@_sparse_rule(aten.addmm.default, aten._sparse_addmm.default)
def addmm(
    ctx: RuleContext, x: FakeTensor, a: FakeTensor, b: FakeTensor, *, beta: Any = 1, alpha: Any = 1
) -> FakeTensor:
    """``beta * x + alpha * a @ b`` with a sparse ``a``."""
    if x.sparse is not None or len(x.sizes) > 2:
        raise ctx.unsupported("addmm has a shape rule for a dense first argument.")
    _floats(ctx, x, a)
    product = mm(ctx, a, b)
    for given, wanted in zip(reversed(x.sizes), reversed(product.sizes), strict=False):
        if not (type(given) is int and given == 1):
            ctx.require_same(given, wanted, "addmm: the first argument does not fit")
    return product


@_sparse_rule(aten.sparse_sampled_addmm.default)
def sampled_addmm(
    ctx: RuleContext, x: FakeTensor, a: FakeTensor, b: FakeTensor, *, beta: Any = 1, alpha: Any = 1
) -> FakeTensor:
    """``a @ b`` where the CSR matrix ``x`` has elements."""
    if x.sparse is None or a.sparse is not None or b.sparse is not None or len(a.sizes) != 2:
        raise ctx.unsupported("sparse_sampled_addmm has a shape rule for CSR and dense matrices.")
    _expect(x, CSR)
    _floats(ctx, x, a, b)
    ctx.require_same(a.sizes[1], b.sizes[0], "sparse_sampled_addmm: inner sizes differ")
    for given, wanted in zip((a.sizes[0], b.sizes[1]), x.sizes, strict=True):
        ctx.require_same(given, wanted, "sparse_sampled_addmm: sizes differ")
    return _alike(ctx, x)
