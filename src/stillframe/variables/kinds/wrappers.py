"""Values that stand for another one, or for something to be done when they are called."""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import Any

from stillframe.source import AttrSource, Source
from stillframe.variables.base import VariableTracker
from stillframe.variables.residue import Residue
from stillframe.variables.translator import Translator

Answer = Callable[[Translator, tuple[Any, ...], dict[str, Any]], Any]


class LambdaVariable(VariableTracker):
    """A function that is answered by one of ours.

    Args:
        answer: ``(tx, args, kwargs)`` -> the result.
    """

    handles_calls = True

    def __init__(self, value: Any, answer: Answer, *, source: Source | None = None) -> None:
        super().__init__(value, source=source)
        self.answer = answer

    def call_function(self, tx: Translator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return self.answer(tx, args, kwargs)

    def reconstruct(self, residue: Residue) -> None:
        residue.load_object(self.value)


class GetAttrVariable(VariableTracker):
    """An attribute that means something only when it is called: that is left to its owner.

    Args:
        owner: what the attribute is read of.
        name: of the attribute.
    """

    handles_calls = True

    def __init__(
        self, value: Any, owner: VariableTracker, name: str, *, source: Source | None = None
    ) -> None:
        super().__init__(value, source=source)
        self.owner = owner
        self.name = name

    def call_function(self, tx: Translator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return self.owner.call_method(tx, self.name, args, kwargs)

    def reconstruct(self, residue: Residue) -> None:
        residue.value(self.owner.value)
        residue.load_attr(self.name)

    @staticmethod
    def of(tx: Translator, owner: VariableTracker, method: MethodType, name: str) -> MethodType:
        """The method, from now on known to be the attribute ``name`` of ``owner``."""
        source = None if owner.source is None else AttrSource(owner.source, name)
        tx.effects.track(method, GetAttrVariable(method, owner, name, source=source))
        return method


class WrapperUserFunctionVariable(VariableTracker):
    """A callable of C around a function in Python, which is run in its place.

    Args:
        attribute: where the wrapper keeps the function.
    """

    handles_calls = True

    def __init__(self, value: Any, attribute: str, *, source: Source | None = None) -> None:
        super().__init__(value, source=source)
        self.attribute = attribute

    def call_function(self, tx: Translator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        function = getattr(self.value, self.attribute)
        if self.source is not None:
            function = tx.wrap(function, AttrSource(self.source, self.attribute))
        return tx.call(function, args, kwargs)

    def reconstruct(self, residue: Residue) -> None:
        residue.load_object(self.value)
