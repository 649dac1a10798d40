"""Tensors and symbolic numbers: values for which torch, or a symbol, answers."""

from __future__ import annotations

import torch

#: Values on which operators are done as they are: what they do is recorded.
NATIVE = (torch.Tensor, torch.SymInt, torch.SymFloat, torch.SymBool)

#: The class that a symbolic number has for the program.
NUMBERS: dict[type, type] = {torch.SymInt: int, torch.SymFloat: float, torch.SymBool: bool}
