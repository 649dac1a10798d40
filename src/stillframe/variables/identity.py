"""Which tensor object an operator gives back: a new one, or maybe its operand itself.

``x.float()`` is ``x`` if it has that dtype already, ``dropout`` in evaluation is its input. The
capture sees one call; which of both it was is decided when the graph runs, so the program may not
ask ``is`` of such a pair.
"""

from __future__ import annotations

from typing import Any

import torch

from stillframe.fake.tensor import FakeTensor
from stillframe.trace.recorder import Recorder

#: Operators that may return their first operand, or one of a list.
_MAY_RETURN_OPERAND = frozenset(
    """contiguous to type_as dropout feature_dropout alpha_dropout feature_alpha_dropout flatten
    conj _conj real resolve_conj resolve_neg positive atleast_1d atleast_2d atleast_3d to_dense
    sum_to_size _cast_Byte _cast_Char _cast_Double _cast_Float _cast_Int _cast_Long _cast_Short
    _cast_Half lift_fresh lift pin_memory cartesian_prod chain_matmul linalg_multi_dot align_to
    align_as broadcast_tensors expand_as matrix_power linalg_matrix_power einsum float half cpu cuda
    data _autocast_to_reduced_precision _autocast_to_full_precision float_power""".split()
)


def may_be(recorder: Recorder, tensor: Any) -> set[torch.fx.Node | int]:
    """The tensors that a tensor may be: the nodes that made them, or identities of others."""
    if not isinstance(tensor, FakeTensor) or tensor.fx_node is None:
        return {id(tensor)}
    found: set[torch.fx.Node | int] = set()
    waiting = [recorder.operand(tensor)]
    while waiting:
        node = waiting.pop()
        if node in found:
            continue
        if not _writes_in_place(node):
            found.add(node)
        waiting += _maybe_returned(node)
    return found


def _maybe_returned(node: torch.fx.Node) -> list[torch.fx.Node]:
    """The operands that a node may give back as they are."""
    maker = node.args[0] if _name(node) == "getitem" else node
    if not isinstance(maker, torch.fx.Node):
        return []
    if _name(maker) not in _MAY_RETURN_OPERAND and not _writes_in_place(maker):
        return []
    first = maker.args[0] if maker.args else None
    given = first if isinstance(first, (list, tuple)) else [first]
    return [one for one in given if isinstance(one, torch.fx.Node)]


def _writes_in_place(node: torch.fx.Node) -> bool:
    name = _name(node)
    return name.endswith("_") and not name.endswith("__")


def _name(node: torch.fx.Node) -> str:
    packet = getattr(node.target, "overloadpacket", node.target)
    return str(getattr(packet, "__name__", ""))
