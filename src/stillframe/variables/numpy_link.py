"""NumPy's place in a capture, where NumPy is installed. Without it there are no arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stillframe.errors import FrameError

if TYPE_CHECKING:
    from stillframe.variables.translator import Translator

try:
    import numpy  # noqa: F401
except ImportError:
    HAS_NUMPY = False
else:
    HAS_NUMPY = True


class NoArray:
    """The class of arrays where there are none."""


class NoArrayCalls:
    """Answers what a capture asks about arrays where there are none."""

    is_computing = False

    def __init__(self, tx: Translator) -> None:
        self.tx = tx

    def note_held(self, container: Any, item: Any) -> None:
        """No item is an array."""

    def refuse_reader(self, name: str, values: tuple[Any, ...]) -> None:
        """No container holds arrays."""

    def of_tensor(self, tensor: Any) -> Any:
        """``tensor.numpy()``, which torch refuses, too."""
        raise self._refusal()

    def _refusal(self) -> FrameError:
        return self.tx.graph_break("The frame makes an array.", why="NumPy is not installed")


def array_class() -> type:
    """The class of what stands for an array."""
    if not HAS_NUMPY:
        return NoArray
    from stillframe.variables.arrays import FakeArray

    return FakeArray


def array_calls(tx: Translator) -> Any:
    """What answers calls with arrays in a capture."""
    if not HAS_NUMPY:
        return NoArrayCalls(tx)
    from stillframe.variables.array_calls import NumpyCalls

    return NumpyCalls(tx)
