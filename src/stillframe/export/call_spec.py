"""How a program is called: the parameters of the original ``forward``, and what was given for them.

A program takes what its module takes: positional or by keyword, defaults left out. So the call
spec keeps the whole signature, and for each argument that the export was given its structure and
the names of its leaves. Leaves are in the order of ``tree_flatten((args, kwargs))``.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch.utils import _pytree as pytree

from stillframe.errors import InvalidInput
from stillframe.shapes.arguments import BoundInputs
from stillframe.shapes.containers import children_of, key_name, key_text

_Kind = inspect.Parameter
POSITIONAL_ONLY = "positional_only"
POSITIONAL_OR_KEYWORD = "positional_or_keyword"
VAR_POSITIONAL = "var_positional"
KEYWORD_ONLY = "keyword_only"
VAR_KEYWORD = "var_keyword"
KINDS = {
    _Kind.POSITIONAL_ONLY: POSITIONAL_ONLY,
    _Kind.POSITIONAL_OR_KEYWORD: POSITIONAL_OR_KEYWORD,
    _Kind.VAR_POSITIONAL: VAR_POSITIONAL,
    _Kind.KEYWORD_ONLY: KEYWORD_ONLY,
    _Kind.VAR_KEYWORD: VAR_KEYWORD,
}


class _Opaque:
    """Stands for a default that a file cannot hold: only leaving the argument out gives it."""

    def __repr__(self) -> str:
        return "<default>"

    def __reduce__(self) -> str:
        return "OPAQUE_DEFAULT"


OPAQUE_DEFAULT = _Opaque()


@dataclass(frozen=True)
class CallParameter:
    """A parameter of the original ``forward``, without ``self``.

    Attributes:
        name: its name.
        kind: one of the five kinds of :mod:`inspect`, as text.
        has_default: whether it may be left out.
        default: its default, or :data:`OPAQUE_DEFAULT` where a file could not keep it.
    """

    name: str
    kind: str
    has_default: bool = False
    default: Any = None


@dataclass(frozen=True)
class GivenArgument:
    """One element of ``args`` or ``kwargs`` of the export call.

    Attributes:
        parameter: name of the parameter that takes it.
        key: its index in ``*rest`` or its keyword in ``**kw``; None for ordinary parameters.
        path: how a person names it: ``x``, ``rest[0]``.
        spec: its structure.
        leaf_names: placeholder names wished for its leaves (see :attr:`CallSpec.leaf_names`).
        leaf_paths: how a person names its leaves: ``past['key_cache'][0]``.
    """

    parameter: str
    key: int | str | None
    path: str
    spec: pytree.TreeSpec
    leaf_names: tuple[str, ...]
    leaf_paths: tuple[str, ...]


@dataclass(frozen=True)
class CallSpec:
    """The calling convention of a program.

    Attributes:
        parameters: of the original ``forward``, in order.
        given: what the export was given, in flatten order. Parameters without an entry were left
            to their defaults (or are an empty ``*rest`` or ``**kw``).
        positional: how many of ``given`` the export passed by position; they come first.
    """

    parameters: tuple[CallParameter, ...]
    given: tuple[GivenArgument, ...]
    positional: int

    @classmethod
    def from_call(
        cls, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> CallSpec:
        """The spec of calling ``forward(*args, **kwargs)``.

        Raises:
            InvalidInput: the arguments do not fit the signature.
        """
        bound = BoundInputs(forward, args, kwargs)
        try:
            signature: inspect.Signature | None = inspect.signature(forward)
        except ValueError:  # built-in functions need not have one
            signature = None
        values = [*args, *kwargs.values()]
        paths = [entry.path for entry in bound.inputs]
        if signature is None:
            parameters = [CallParameter(p, POSITIONAL_ONLY) for p in paths[: len(args)]]
            parameters += [CallParameter(p, KEYWORD_ONLY) for p in paths[len(args) :]]
            homes: list[tuple[str, int | str | None]] = [(p, None) for p in paths]
        else:
            parameters = [_parameter(p) for p in signature.parameters.values()]
            homes = list(_homes(parameters, len(args), kwargs))
        given = [
            _given(home, path, value)
            for home, path, value in zip(homes, paths, values, strict=True)
        ]
        return cls(tuple(parameters), tuple(given), len(args))

    @property
    def leaf_names(self) -> list[str]:
        """Wished placeholder names of all leaves: the path, lower-cased, joined by ``_``.

        They need not be unique: ``a_b`` and ``a['b']`` ask for the same name.
        """
        return [name for given in self.given for name in given.leaf_names]

    @property
    def leaf_paths(self) -> list[str]:
        """How a person names each leaf: ``past_key_values['key_cache'][0]``."""
        return [path for given in self.given for path in given.leaf_paths]

    @property
    def in_spec(self) -> pytree.TreeSpec:
        """The structure of ``(args, kwargs)`` as the export was called."""
        args, kwargs = self.given[: self.positional], self.given[self.positional :]
        names = [g.parameter if g.key is None else g.key for g in kwargs]
        return pytree.TreeSpec(
            tuple,
            None,
            [
                pytree.TreeSpec(tuple, None, [g.spec for g in args]),
                pytree.TreeSpec(dict, names, [g.spec for g in kwargs]),
            ],
        )

    @property
    def omitted(self) -> list[CallParameter]:
        """Parameters that the export left to their defaults."""
        taken = {g.parameter for g in self.given}
        stars = (VAR_POSITIONAL, VAR_KEYWORD)
        return [p for p in self.parameters if p.name not in taken and p.kind not in stars]

    def __str__(self) -> str:
        return f"({', '.join(_parameter_text(p) for p in self.parameters)})"


def _parameter(parameter: inspect.Parameter) -> CallParameter:
    if parameter.default is inspect.Parameter.empty:
        return CallParameter(parameter.name, KINDS[parameter.kind])
    return CallParameter(parameter.name, KINDS[parameter.kind], True, parameter.default)


def _homes(
    parameters: list[CallParameter], positional: int, kwargs: dict[str, Any]
) -> Iterator[tuple[str, int | str | None]]:
    """For each element of args, then of kwargs: the parameter that takes it, and the key there."""
    plain = [p.name for p in parameters if p.kind in (POSITIONAL_ONLY, POSITIONAL_OR_KEYWORD)]
    rest = next((p.name for p in parameters if p.kind == VAR_POSITIONAL), None)
    keywords = next((p.name for p in parameters if p.kind == VAR_KEYWORD), None)
    by_name = {p.name for p in parameters if p.kind in (POSITIONAL_OR_KEYWORD, KEYWORD_ONLY)}
    for i in range(positional):
        if i < len(plain):
            yield plain[i], None
        else:
            assert rest is not None
            yield rest, i - len(plain)
    for name in kwargs:
        if name in by_name:
            yield name, None
        else:
            assert keywords is not None
            yield keywords, name


def _given(home: tuple[str, int | str | None], path: str, value: Any) -> GivenArgument:
    parameter, key = home
    prefix = parameter if key is None else key if isinstance(key, str) else f"{parameter}_{key}"
    names: list[str] = []
    paths: list[str] = []
    for leaf_name, leaf_path in _leaves(prefix, path, value):
        names.append(placeholder_name(leaf_name))
        paths.append(leaf_path)
    spec = pytree.tree_structure(value)
    return GivenArgument(parameter, key, path, spec, tuple(names), tuple(paths))


def _leaves(name: str, path: str, value: Any) -> Iterator[tuple[str, str]]:
    children = children_of(value)
    if children is None:
        yield name, path
        return
    for key, child in children:
        yield from _leaves(f"{name}_{key_name(key)}", path + key_text(key), child)


def placeholder_name(text: str) -> str:
    """``text`` lower-cased, what is no letter or digit replaced by ``_``, never starting with one.

    Raises:
        InvalidInput: nothing of ``text`` can be part of a name.
    """
    name = re.sub(r"[^a-z0-9_]", "_", text.lower())
    if not name:
        raise InvalidInput("an argument has an empty name.")
    return f"_{name}" if name[0].isdigit() else name


def _parameter_text(parameter: CallParameter) -> str:
    stars = {VAR_POSITIONAL: "*", VAR_KEYWORD: "**"}.get(parameter.kind, "")
    default = f"={parameter.default!r}" if parameter.has_default else ""
    return f"{stars}{parameter.name}{default}"
