"""Script objects to test with: the classes that torch's own tests register, where they are built.

``_Foo(x, y)``: ``add_tensor(z)`` is ``(x + y) * z``. ``_TensorQueue(initial)``: ``push``, ``pop``,
``size``.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch


def load() -> Any:
    """``torch.classes._TorchScriptTesting``; skips the module that asks if it is not built."""
    from torch.testing._internal import torchbind_impls

    try:
        torchbind_impls.init_torchbind_implementations()
    except RuntimeError as e:
        pytest.skip(f"torch has no test classes here: {e}", allow_module_level=True)
    return torch.classes._TorchScriptTesting
