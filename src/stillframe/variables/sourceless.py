"""SourcelessBuilder: what goes with a value that the program made itself. No guards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stillframe.errors import InternalError
from stillframe.variables.base import VariableTracker
from stillframe.variables.registry import Test

if TYPE_CHECKING:
    from stillframe.variables.translator import Translator

from collections.abc import Callable

Maker = Callable[["Translator", Any], VariableTracker]

_BY_TYPE: dict[type, Maker] = {}
_IN_ORDER: dict[float, tuple[str, Test, Maker]] = {}


def makes_type(*classes: type) -> Callable[[Maker], Maker]:
    """Register the maker for values of exactly these classes."""

    def register(maker: Maker) -> Maker:
        for cls in classes:
            if cls in _BY_TYPE:
                raise InternalError(f"two makers for values of class {cls.__qualname__}")
            _BY_TYPE[cls] = maker
        return maker

    return register


def makes_if(place: float, name: str, test: Test) -> Callable[[Maker], Maker]:
    """Register a maker in the list that is tried after the table; see ``registry.wraps_if``."""

    def register(maker: Maker) -> Maker:
        if place in _IN_ORDER:
            raise InternalError(f"two makers at place {place}: {_IN_ORDER[place][0]} and {name}")
        _IN_ORDER[place] = name, test, maker
        return maker

    return register


class SourcelessBuilder:
    """Never made: ``SourcelessBuilder.create(tx, value)``."""

    def __init__(self) -> None:
        raise InternalError("SourcelessBuilder is used by its create() only")

    @staticmethod
    def create(tx: Translator, value: Any) -> VariableTracker:
        """What goes with a value that was made during the trace.

        Raises:
            FrameError: nobody knows such values; names the class.
        """
        if isinstance(value, VariableTracker):
            return value
        if tx.is_code_constant(value):
            return SourcelessBuilder.wrap_constant_literal(value)
        maker = _BY_TYPE.get(type(value))
        if maker is None:
            ordered = (_IN_ORDER[place] for place in sorted(_IN_ORDER))
            maker = next((maker for _, test, maker in ordered if test(value)), None)
        if maker is None:
            cls = type(value)
            raise tx.graph_break(
                f"A value of class {cls.__module__}.{cls.__qualname__} has no kind.",
                why="the program made it, and how it is made again is not known",
            )
        return maker(tx, value)

    @staticmethod
    def wrap_constant_literal(value: Any) -> VariableTracker:
        """The tracker of a literal.

        Raises:
            InternalError: it is none.
        """
        from stillframe.variables.kinds.constants import ConstantVariable, is_literal

        if not is_literal(value):
            raise InternalError(f"not a literal: {type(value).__name__}")
        return ConstantVariable(value)
