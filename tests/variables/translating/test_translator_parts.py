"""The layers of the translator: each part of the policy is overridden in one of them."""

from __future__ import annotations

from collections import Counter

from stillframe.frames import Policy
from stillframe.variables import Translator


def test_a_method_is_in_one_layer_only() -> None:
    """So ``super()`` in a layer is the plain policy, wherever the layer stands."""
    classes = Translator.__mro__[: Translator.__mro__.index(Policy)]
    names = Counter(name for cls in classes for name in vars(cls) if not name.startswith("__"))
    assert "load_item" in names
    assert [name for name, count in names.items() if count > 1] == []
