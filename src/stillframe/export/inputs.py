"""Example inputs to fakes: one symbol for each declared dim, one fake for each tensor leaf.

Every declared dim is a symbol of its own with the declared range; dims of one name are one symbol,
and a derived dim ``k*d + c`` is that expression of its root's symbol. So nothing is left to be
proved equal afterwards. The example's sizes are only hints.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch

from stillframe.errors import InvalidInput, NotSupported
from stillframe.fake.tensor import FakeTensor
from stillframe.shapes.dims import DerivedDim, Dim, DimHint, LeafSpec
from stillframe.shapes.env import ShapeEnv, Size
from stillframe.symbolic import Expr, Range, unwrap

_CONSTANTS = (int, float, bool, str, type(None))


@dataclass
class FakeInputs:
    """The leaves of ``(args, kwargs)`` as the capture runs on them.

    Attributes:
        leaves: fakes for tensors, the very objects for constants.
        dim_names: symbol name -> the user's name of the dim.
        derived: (symbol, size, scale, offset) for dims declared as ``scale*d + offset``.
    """

    leaves: list[Any] = field(default_factory=list)
    dim_names: dict[str, str] = field(default_factory=dict)
    derived: list[tuple[Expr, Expr, int, int]] = field(default_factory=list)


def make_fake_inputs(env: ShapeEnv, specs: list[LeafSpec]) -> FakeInputs:
    """Fakes for all leaves, in flatten order.

    Raises:
        InvalidInput: a leaf that is neither a tensor nor a plain constant, by its path.
    """
    inputs = FakeInputs()
    symbols: dict[str, Expr] = {}
    for spec in specs:
        leaf = spec.leaf
        if isinstance(leaf, torch.Tensor):
            inputs.leaves.append(_fake_tensor(env, spec, symbols, inputs))
        elif isinstance(leaf, _CONSTANTS):
            inputs.leaves.append(leaf)
        elif isinstance(leaf, (torch.dtype, torch.device, torch.layout)):
            inputs.leaves.append(leaf)
        else:
            raise InvalidInput(
                f"{spec.path}: an input of type {type(leaf).__module__}.{type(leaf).__qualname__} "
                "cannot be captured.",
                why="inputs are tensors, None, numbers, strings, and containers of these",
                hints=[
                    "register its class as a container: torch.utils._pytree.register_pytree_node"
                ],
            )
    return inputs


def _fake_tensor(
    env: ShapeEnv, spec: LeafSpec, symbols: dict[str, Expr], inputs: FakeInputs
) -> FakeTensor:
    real = spec.leaf
    sizes: list[Size] = list(real.shape)
    for dim, declared in (spec.dims or {}).items():
        size = _declared_size(env, spec, dim, declared, symbols, inputs)
        if size is not None:
            sizes[dim] = size
    try:
        return FakeTensor.like_real(env, real, sizes)
    except NotSupported as e:
        raise NotSupported(f"{spec.path}: {e.what}", why=e.why, hints=e.hints) from None


def _declared_size(
    env: ShapeEnv,
    spec: LeafSpec,
    dim: int,
    declared: Any,
    symbols: dict[str, Expr],
    inputs: FakeInputs,
) -> Size | None:
    hint = spec.leaf.shape[dim]
    source = f"{spec.path}.size({dim})"
    if isinstance(declared, DerivedDim):
        root = declared.root
        symbol = _root_symbol(
            env, root, (hint - declared.offset) // declared.scale, source, symbols, inputs
        )
        size: Size = unwrap(symbol * declared.scale + declared.offset)
        if isinstance(size, Expr):
            inputs.derived.append((symbol, size, declared.scale, declared.offset))
        return size
    if isinstance(declared, Dim):
        return _root_symbol(env, declared, hint, source, symbols, inputs)
    if declared is DimHint.AUTO or declared is DimHint.DYNAMIC:
        name = f"{_identifier(spec.path)}_dim{dim}"
        policy = "auto" if declared is DimHint.AUTO else "dynamic"
        symbol = env.new_symbol(name, hint, Range(0, math.inf), policy=policy, source=source)
        inputs.dim_names[str(symbol)] = name
        return symbol
    return None


def _root_symbol(
    env: ShapeEnv, dim: Dim, hint: int, source: str, symbols: dict[str, Expr], inputs: FakeInputs
) -> Expr:
    name = dim.__name__
    symbol = symbols.get(name)
    if symbol is None:
        upper = math.inf if dim.max is None else dim.max
        symbol = symbols[name] = env.new_symbol(name, hint, Range(dim.min, upper), source=source)
        inputs.dim_names[str(symbol)] = name
    return symbol


def _identifier(path: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in path).strip("_")
