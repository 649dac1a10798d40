"""The text of ``--dynamic``: which dims of which input vary.

    input_ids=0:batch,1:seq:2..512

    option := PATH "=" entry ("," entry)*         PATH names an input: x, cache['key'][0], rest[1]
    entry  := DIM ":" size [":" range]            DIM is an int, counted from the end if negative
    size   := [INT "*"] NAME [("+" | "-") INT]    a size by name, or derived from one
            | "auto" | "dynamic" | "static"
    range  := [INT] ".." [INT]                    of the NAME, both ends included

A range given once holds wherever the name is used. Mistakes are shown with a caret below them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import torch

from stillframe.errors import InvalidInput
from stillframe.shapes.dims import Dim, DimHint, DimSpec, resolve_spec, spec_from_leaves

_EXAMPLE = "input_ids=0:batch,1:seq:2..512"
_TOKEN = re.compile(r"\s*(\.\.|[A-Za-z_]\w*|\d+|[-+*:,])")
_PATH = re.compile(r"(?:[^=\[]|\[[^\]]*\])+")


@dataclass(frozen=True)
class _Size:
    """A size as written: a hint, or ``scale*name + offset``."""

    hint: DimHint | None = None
    name: str = ""
    scale: int = 1
    offset: int = 0


@dataclass(frozen=True)
class _Range:
    low: int | None
    high: int | None
    text: str
    at: int


@dataclass(frozen=True)
class _Option:
    text: str
    path: str
    entries: list[tuple[int, _Size]]
    ranges: dict[str, _Range]


def parse_dynamic(options: Sequence[str]) -> dict[str, dict[int, DimSpec]]:
    """Path of an input -> dim -> spec, from all ``--dynamic`` options together.

    Raises:
        InvalidInput: text that is not of the grammar, shown with a caret; a path, dim or range
            given twice and differently.
    """
    parsed = [_Parser(text).option() for text in options]
    roots = _roots(parsed)
    found: dict[str, dict[int, DimSpec]] = {}
    for option in parsed:
        dims = found.setdefault(option.path, {})
        for dim, size in option.entries:
            if dim in dims:
                raise InvalidInput(f"--dynamic gives two specs for dim {dim} of {option.path}.")
            dims[dim] = size.hint or roots[size.name] * size.scale + size.offset
    return found


def dynamic_spec(
    mod: torch.nn.Module | Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    dims: Mapping[str, dict[int, DimSpec]],
) -> dict[str, Any]:
    """``dynamic_shapes`` for the inputs, from :func:`parse_dynamic`'s answer.

    Raises:
        InvalidInput: a path that names no input.
    """
    paths = {leaf.path for leaf in resolve_spec(mod, args, kwargs, None)}
    for path in dims:
        if path not in paths:
            raise InvalidInput(
                f"--dynamic names {path!r}, which is no input.",
                why=f"the inputs are: {', '.join(sorted(paths)) or 'none'}",
            )
    return spec_from_leaves(mod, args, kwargs, lambda path, _leaf: dims.get(path))


def _roots(options: Sequence[_Option]) -> dict[str, Dim]:
    """One Dim for each name, with the range given for it anywhere."""
    ranges: dict[str, _Range] = {}
    for option in options:
        for name, given in option.ranges.items():
            known = ranges.setdefault(name, given)
            if (known.low, known.high) != (given.low, given.high):
                _fail(
                    option.text, given.at, f"{name} has two ranges: {known.text} and {given.text}."
                )
    names = {size.name for o in options for _, size in o.entries if not size.hint}
    dims = {}
    for name in sorted(names):
        given_range = ranges.get(name)
        low, high = (given_range.low, given_range.high) if given_range else (None, None)
        dims[name] = Dim(name, min=low, max=high)
    return dims


def _fail(text: str, at: int, what: str) -> NoReturn:
    raise InvalidInput(
        f"--dynamic: {what}",
        where=[text, " " * at + "^"],
        hints=[f"for example: {_EXAMPLE}"],
    )


class _Parser:
    """One option, read from left to right."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def option(self) -> _Option:
        path = self._path()
        entries: list[tuple[int, _Size]] = []
        ranges: dict[str, _Range] = {}
        while True:
            start = self._start()
            dim = self._dim()
            if any(dim == known for known, _ in entries):
                self._fail(f"dim {dim} is given twice.", start)
            self._expect(":", "after the dim")
            size = self._size()
            entries.append((dim, size))
            if self._take(":"):
                given = self._range(size)
                known = ranges.setdefault(size.name, given)
                if (known.low, known.high) != (given.low, given.high):
                    what = f"{size.name} has two ranges: {known.text} and {given.text}."
                    self._fail(what, given.at)
            if self._peek() is None and self._start() == len(self.text):
                return _Option(self.text, path, entries, ranges)
            self._expect(",", "between dims")

    def _path(self) -> str:
        match = _PATH.match(self.text)
        end = match.end() if match else 0
        if not match or self.text[end : end + 1] != "=":
            self._fail("expected the name of an input and '='.", end)
        self.at = end + 1
        return match.group().strip()

    def _dim(self) -> int:
        start = self._start()
        sign = -1 if self._take("-") else 1
        return sign * self._int("expected the number of a dim", start)

    def _size(self) -> _Size:
        start = self._start()
        token = self._peek() or ""
        scale = 1
        if token.isdigit():
            scale = self._int("", start)
            if not self._take("*"):
                self._fail(
                    "a constant size needs no entry: dims that are not listed stay static.", start
                )
            if scale < 1:
                self._fail("the factor of a size must be 1 or more.", start)
            start, token = self._start(), self._peek() or ""
        if not token.isidentifier():
            self._fail("expected the name of a size, or auto, dynamic, static.", start)
        self._take(token)
        if scale == 1 and token.upper() in DimHint.__members__:
            return _Size(hint=DimHint[token.upper()])
        return _Size(name=token, scale=scale, offset=self._offset())

    def _offset(self) -> int:
        for sign, factor in (("+", 1), ("-", -1)):
            if self._take(sign):
                return factor * self._int(f"expected a number after '{sign}'", self._start())
        return 0

    def _range(self, size: _Size) -> _Range:
        start = self._start()
        if size.hint:
            self._fail("auto, dynamic and static have no range of their own.", start)
        low = self._optional_int()
        if not self._take(".."):
            self._fail("expected a range: 2..512, 2.. or ..512.", start)
        high = self._optional_int()
        if low is not None and high is not None and low > high:
            self._fail(f"the range is empty: {low} is larger than {high}.", start)
        return _Range(low, high, self.text[start : self.at].strip(), start)

    # -- tokens -----------------------------------------------------------------------------------

    def _start(self) -> int:
        """Where the next token begins."""
        return len(self.text) - len(self.text[self.at :].lstrip())

    def _peek(self) -> str | None:
        match = _TOKEN.match(self.text, self.at)
        return match.group(1) if match else None

    def _take(self, token: str) -> bool:
        if self._peek() != token:
            return False
        self.at = self._start() + len(token)
        return True

    def _expect(self, token: str, place: str) -> None:
        if not self._take(token):
            self._fail(f"expected {token!r} {place}.", self._start())

    def _optional_int(self) -> int | None:
        token = self._peek()
        if token is None or not token.isdigit():
            return None
        self._take(token)
        return int(token)

    def _int(self, what: str, at: int) -> int:
        found = self._optional_int()
        if found is None:
            self._fail(f"{what}.", at)
        return found

    def _fail(self, what: str, at: int) -> NoReturn:
        _fail(self.text, at, what)
