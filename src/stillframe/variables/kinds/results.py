"""Results of graph nodes that are no tensors: constants of the trace, and refused ones."""

from __future__ import annotations

from typing import Any

import torch

from stillframe.variables.base import VariableTracker
from stillframe.variables.kinds.constants import ConstantVariable
from stillframe.variables.proxies import wraps_result
from stillframe.variables.translator import Translator

#: What gives an integer that is the same at every call that the guards admit.
_FIXED_INTEGERS = frozenset(
    """sym_int getattr getitem element_size seed mod _vmap_increment_nesting get_rank
    get_world_size sym_constrain_range_for_size _constrain_as_size""".split()
)


def name_of(target: Any) -> str:
    """The name of what a node calls, an operator's without its overload."""
    if isinstance(target, str):
        return target
    packet = getattr(target, "overloadpacket", target)
    return str(getattr(packet, "__name__", ""))


def _is_nothing(node: torch.fx.Node, value: Any) -> bool:
    return value is None or name_of(node.target) == "manual_seed"


@wraps_result(107, "nothing", _is_nothing, stored=False)
def wrap_nothing(tx: Translator, node: torch.fx.Node, value: Any, **options: Any) -> Any:
    """A call for its effect."""
    return ConstantVariable(None)


def _is_fixed_integer(node: torch.fx.Node, value: Any) -> bool:
    return type(value) is int and name_of(node.target) in _FIXED_INTEGERS


def _is_of_script_object(node: torch.fx.Node, value: Any) -> bool:
    return type(value) in (int, float, bool) and name_of(node.target) == "call_torchbind"


@wraps_result(113, "fixed integer", _is_fixed_integer)
@wraps_result(116, "number of a script object", _is_of_script_object)
def wrap_number(tx: Translator, node: torch.fx.Node, value: Any, **options: Any) -> VariableTracker:
    """A plain number that a node gives."""
    return ConstantVariable(value)
