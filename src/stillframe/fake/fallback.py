"""What answers an operator that has no shape rule.

Where all sizes are static, the meta kernel of an operator that is not composite runs on meta
tensors. Otherwise the operator is taken apart: a composite one into its parts, one with a Python
shape function or decomposition in torch's tables into that. These run under the fake mode again, so
only the leaves need rules. Custom operators are asked for what their author registered
(``fake/custom.py``).

The answer is kept as a :class:`Recipe`, which can be replayed for other tensors of the same
metadata. This is the one file outside ``interop/`` whose callees may import torch's capture stack:
torch's own Python shape functions import what they import.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.utils import _pytree as pytree

from stillframe import torch_private
from stillframe.errors import NotSupported, StillframeError
from stillframe.fake import custom
from stillframe.fake.tensor import FakeTensor
from stillframe.symbolic import Expr

if TYPE_CHECKING:
    from stillframe.fake.mode import FakeMode

_META = torch.device("meta")

#: What a wrapper with symbolic sizes is asked when a kernel wants plain ones.
_PLAIN_SIZES = frozenset({torch.ops.aten.size.default, torch.ops.aten.stride.default})


@dataclass(frozen=True)
class Made:
    """An output tensor; ``source`` is the input it is (``whole``) or shares memory with."""

    source: int | None
    whole: bool
    sizes: tuple[Any, ...] = ()
    strides: tuple[Any, ...] = ()
    offset: Any = 0
    dtype: torch.dtype = torch.float32
    device: torch.device = torch.device("cpu")


@dataclass(frozen=True)
class Recipe:
    """Outputs as :class:`Made` or plain values, and the structure around them."""

    leaves: tuple[Any, ...]
    spec: Any

    def follow(self, mode: FakeMode, inputs: list[FakeTensor]) -> Any:
        """New outputs for these inputs."""
        grad = mode.ctx.requires_grad
        out = []
        for leaf in self.leaves:
            if not isinstance(leaf, Made):
                out.append(leaf)
            elif leaf.whole:
                out.append(inputs[leaf.source or 0])
            else:
                storage = None if leaf.source is None else inputs[leaf.source].storage_
                out.append(
                    FakeTensor.make(
                        mode.env,
                        leaf.sizes,
                        leaf.strides,
                        leaf.offset,
                        leaf.dtype,
                        leaf.device,
                        grad and (leaf.dtype.is_floating_point or leaf.dtype.is_complex),
                        storage,
                    )
                )
        return pytree.tree_unflatten(out, self.spec)


_static_recipes: dict[Any, Recipe] = {}


def run(mode: FakeMode, func: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
    """Answer ``func`` without a rule; arguments as rules take them.

    Raises:
        NotSupported: nothing covers the operator; names it and says what to add.
    """
    if func in _PLAIN_SIZES:
        raise NotSupported(
            f"A kernel in C++ reads sizes as plain numbers ({func}), and they are symbolic.",
            hints=["declare the dims that reach it static (leave them out of dynamic_shapes)"],
        )
    if custom.is_custom(func):
        return custom.run(mode, func, args, kwargs)
    inputs: list[FakeTensor] = []
    key = (func, _key(args, inputs), _key(kwargs, inputs), torch.get_default_dtype())
    static = not _has_symbols(key)
    recipes = _static_recipes if static else mode.recipes
    recipe = recipes.get(key)
    if recipe is None:
        grad = mode.ctx.requires_grad
        symbols_before = len(mode.env.symbols)
        composite = torch_private.is_composite_implicit(func)
        recipe = _run_meta(func, args, kwargs) if static and not composite else None
        if recipe is None:
            result = _take_apart(mode, func, args, kwargs)
            mode.ctx.requires_grad = grad
            if len(mode.env.symbols) > symbols_before:
                return result  # its symbols are new each time
            recipe = _describe(result, inputs)
        recipes[key] = recipe
    return recipe.follow(mode, inputs)


def _key(value: Any, inputs: list[FakeTensor]) -> Any:
    if type(value) is FakeTensor:
        for i, seen in enumerate(inputs):
            if seen is value:
                return ("same", i)
        inputs.append(value)
        return (value.sizes, value.strides, value.offset, value.dtype, value.device)
    if isinstance(value, (list, tuple)):
        return tuple(_key(v, inputs) for v in value)
    if isinstance(value, dict):
        return tuple((k, _key(v, inputs)) for k, v in value.items())
    try:
        hash(value)
    except TypeError:
        return ("object", id(value))
    return (type(value), value)


def _has_symbols(key: Any) -> bool:
    if isinstance(key, tuple):
        return any(_has_symbols(k) for k in key)
    return isinstance(key, Expr)


# -- static: the meta kernel --------------------------------------------------------------------


def _run_meta(func: Any, args: list[Any], kwargs: dict[str, Any]) -> Recipe | None:
    """Run the operator on meta tensors; None if it has no kernel for them."""
    metas: dict[int, torch.Tensor] = {}
    order: list[tuple[FakeTensor, torch.Tensor]] = []

    def to_meta(value: Any) -> Any:
        if isinstance(value, FakeTensor):
            if id(value) not in metas:
                meta = torch.empty(0, dtype=value.dtype, device=_META)
                meta = torch.as_strided(meta.new_empty(_extent(value)), *_static(value))
                metas[id(value)] = meta
                order.append((value, meta))
            return metas[id(value)]
        return value

    with torch.no_grad():
        meta_args = pytree.tree_map(to_meta, args)
        meta_kwargs = pytree.tree_map(to_meta, kwargs)
        device = kwargs.get("device")
        wants_device = any(a.name == "device" for a in func._schema.arguments)
        if wants_device and (device is not None or not order):
            meta_kwargs["device"] = _META
        shapes = [(m.shape, m.stride()) for _, m in order]
        try:
            result = func(*meta_args, **meta_kwargs)
        except NotImplementedError:
            return None
    if shapes != [(m.shape, m.stride()) for _, m in order]:
        raise NotSupported(
            f"{func} changes the sizes or strides of its input in place.",
            hints=["use the out-of-place operator"],
        )
    out_device = (
        torch.device(device) if device is not None else _common_device([f for f, _ in order])
    )
    storages = [m.untyped_storage()._cdata for _, m in order]

    def made(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        if value.layout is not torch.strided:
            raise NotSupported(f"{func} makes a sparse tensor, which cannot be captured.")
        for i, (_, meta) in enumerate(order):
            if meta is value:
                return Made(i, True)
        cdata = value.untyped_storage()._cdata
        source = storages.index(cdata) if cdata in storages else None
        return Made(
            source,
            False,
            tuple(value.shape),
            value.stride(),
            value.storage_offset(),
            value.dtype,
            out_device,
        )

    leaves, spec = pytree.tree_flatten(result)
    return Recipe(tuple(made(v) for v in leaves), spec)


def _static(fake: FakeTensor) -> tuple[list[int], list[int], int]:
    """Sizes, strides and offset of a fake without symbols."""
    return [int(s) for s in fake.sizes], [int(s) for s in fake.strides], int(fake.offset)


def _extent(fake: FakeTensor) -> int:
    """How many elements its storage needs."""
    sizes, strides, offset = _static(fake)
    if 0 in sizes:
        return 0
    return offset + 1 + sum((n - 1) * s for n, s in zip(sizes, strides, strict=True))


def _common_device(fakes: list[FakeTensor]) -> torch.device:
    for fake in fakes:
        if fake.sizes:
            return fake.device
    return fakes[0].device if fakes else torch.device("cpu")


# -- symbolic: take the operator apart ------------------------------------------------------------


def _take_apart(mode: FakeMode, func: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
    env = mode.env
    args = pytree.tree_map(env.wrap, args)
    kwargs = pytree.tree_map(env.wrap, kwargs)
    with mode.computing():
        for attempt in (_composite, _python_meta, _decomposition):
            body = attempt(func)
            if body is None:
                continue
            try:
                result = body(*args, **kwargs)
            except NotImplementedError as e:
                if isinstance(e, NotSupported):
                    raise
                continue
            except (AttributeError, AssertionError, TypeError) as e:
                raise NotSupported(
                    f"{func} has no shape rule, and torch's own shape function cannot answer it.",
                    why=f"{type(e).__name__}: {e}",
                    hints=["declare the dims that reach it static"],
                ) from e
            if result is not NotImplemented:
                return result
    raise NotSupported(
        f"{func} has no shape rule that covers this call.",
        hints=["declare the dims that reach it static (leave them out of dynamic_shapes)"],
    )


def _composite(func: Any) -> Callable[..., Any] | None:
    return func.decompose if torch_private.is_composite_implicit(func) else None


def _python_meta(func: Any) -> Callable[..., Any] | None:
    metas, _ = torch_private.python_meta_tables()
    primitive = torch_private.primitive_meta(func)
    if primitive is not None:
        returns = func._schema.returns
        is_view = len(returns) == 1 and returns[0].alias_info is not None
        return _as_view(primitive) if is_view else primitive
    return torch_private.python_kernel(func, "Meta") or metas.get(func)


def _as_view(meta: Callable[..., Any]) -> Callable[..., Any]:
    """The shape functions of view primitives return fresh tensors; put them over the operand."""

    def view(base: FakeTensor, *args: Any, **kwargs: Any) -> Any:
        result = meta(base, *args, **kwargs)
        if isinstance(result, FakeTensor):
            result.storage_ = base.storage_
        return result

    return view


def _decomposition(func: Any) -> Callable[..., Any] | None:
    _, decompositions = torch_private.python_meta_tables()
    return decompositions.get(func)


def _describe(result: Any, inputs: list[FakeTensor]) -> Recipe:
    """A recipe from fakes that were just made."""
    storages = {id(t.storage_): i for i, t in reversed(list(enumerate(inputs)))}

    def made(value: Any) -> Any:
        if not isinstance(value, FakeTensor):
            if isinstance(value, torch.Tensor):
                raise StillframeError(f"a shape function returned a real tensor: {value}")
            return value
        for i, seen in enumerate(inputs):
            if seen is value:
                return Made(i, True)
        return Made(
            storages.get(id(value.storage_)),
            False,
            value.sizes,
            value.strides,
            value.offset,
            value.dtype,
            value.device,
        )

    leaves, spec = pytree.tree_flatten(result)
    return Recipe(tuple(made(v) for v in leaves), spec)
