"""Example inputs bound to the signature of ``forward``: their names, and the path of each."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from stillframe.errors import InvalidInput

_POSITIONAL, _KEYWORDS = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD


def combine_args(
    mod: torch.nn.Module | Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None,
    *,
    torchscript: bool = False,
) -> Any:
    """The arguments by name, in the order of the signature of ``forward`` (or of the callable).

    ``*rest`` is one tuple entry, ``**kw`` one dict entry; defaults are not filled in. In
    TorchScript mode there is no such signature, and ``args`` is returned as it is.

    Raises:
        InvalidInput: missing or surplus arguments, in the signature's own words.
    """
    if torchscript:
        return args
    return dict(BoundInputs(mod, args, dict(kwargs or {})).arguments)


@dataclass(frozen=True)
class Input:
    """One element of ``args`` or ``kwargs`` and how a person names it."""

    path: str
    value: Any


class BoundInputs:
    """The example inputs bound to the signature.

    Attributes:
        arguments: parameter name -> value, in signature order.
        inputs: one entry for each element of ``args``, then of ``kwargs``, with its path.
        keywords: name of the ``**kw`` parameter that took keywords, or None.
        rest: name of the ``*rest`` parameter that took values, or None.
    """

    def __init__(
        self,
        mod: torch.nn.Module | Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        self.rest: str | None = None
        self.keywords: str | None = None
        function = mod.forward if isinstance(mod, torch.nn.Module) else mod
        try:
            signature = inspect.signature(function)
        except ValueError:  # built-in functions need not have one
            positional = {f"arg{i}": value for i, value in enumerate(args)}
            self.arguments: dict[str, Any] = {**positional, **kwargs}
            self.inputs = [Input(name, value) for name, value in self.arguments.items()]
            return
        try:
            self.arguments = dict(signature.bind(*args, **kwargs).arguments)
        except TypeError as e:
            raise InvalidInput(
                f"The example inputs do not fit the signature: {e}.",
                why=_signature_text(mod, signature),
            ) from None
        self.inputs = list(self._name_inputs(signature, args, kwargs))

    def _name_inputs(
        self, signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Iterator[Input]:
        names: list[str] = []
        for name in self.arguments:
            kind = signature.parameters[name].kind
            if kind is _POSITIONAL:
                self.rest = name
            elif kind is _KEYWORDS:
                self.keywords = name
            else:
                names.append(name)
        for i, value in enumerate(args):
            if self.rest is not None and i >= len(args) - len(self.arguments[self.rest]):
                first = len(args) - len(self.arguments[self.rest])
                yield Input(f"{self.rest}[{i - first}]", value)
            else:
                yield Input(names[i], value)
        for name, value in kwargs.items():
            yield Input(name, value)


def _signature_text(mod: object, signature: inspect.Signature) -> str:
    name = f"{type(mod).__name__}.forward" if isinstance(mod, torch.nn.Module) else "the function"
    return f"{name} takes {signature}"
