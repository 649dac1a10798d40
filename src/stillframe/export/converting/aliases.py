"""Results that may be other tensors: ``y = x if c else x * 2`` and then a write to one of them.

The operator gives a copy where a way hands on a tensor from outside. Nobody can tell, until the
memory of one of the two is written: then the program would differ from the module.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from stillframe.export.converting.refusals import refusal
from stillframe.fake.tensor import FakeStorage, FakeTensor
from stillframe.frames import places
from stillframe.frames.frame import Frame


@dataclass(frozen=True, eq=False)
class _Link:
    """One memory may be another one; and how often each had been written by then."""

    result: FakeStorage
    source: FakeStorage
    shared: bool
    written: tuple[int, int]
    name: str
    where: tuple[str, ...]


class Aliases:
    """All such pairs of one capture."""

    def __init__(self) -> None:
        self._links: list[_Link] = []

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._links)

    def forget(self, count: int) -> None:
        """Leave the first ``count``: what was linked since then did not happen."""
        del self._links[count:]

    def link(
        self, name: str, result: FakeTensor, source: FakeTensor, shared: bool, frame: Frame
    ) -> None:
        """``result`` may be ``source``.

        Args:
            shared: somebody else may hold the memory of ``source``.
        """
        one, other = result.storage_, source.storage_
        where = tuple(places.describe(frame))
        self._links.append(_Link(one, other, shared, (one.written, other.written), name, where))

    def may_be_one(self, left: FakeTensor, right: FakeTensor) -> bool:
        """Whether a branch decides whether two tensors are one."""
        return left.storage_ is not right.storage_ and any(
            {id(left.storage_), id(right.storage_)} <= _members(group) for group in self._groups()
        )

    def check(self) -> None:
        """No memory was written that may be that of another tensor.

        Raises:
            ConversionError: names the value, with the line of the branch.
        """
        for group in self._groups():
            if not any(link.shared for link in group):
                continue
            for link in group:
                if (link.result.written, link.source.written) != link.written:
                    error = refusal(
                        None, "alias", f"{link.name} may be a tensor that was there before the "
                        "branch on data, and one of the two is changed in place afterwards.",
                        why="the operator gives a copy, which would not see the change",
                        hint="copy it in the branch (x.clone()), or change it out of place",
                    )  # fmt: skip
                    error.where = link.where
                    raise error

    def _groups(self) -> Iterable[list[_Link]]:
        """Links that have memory in common."""
        leader: dict[int, int] = {}

        def find(key: int) -> int:
            while leader.setdefault(key, key) != key:
                key = leader[key]
            return key

        for link in self._links:
            leader[find(id(link.result))] = find(id(link.source))
        groups: dict[int, list[_Link]] = {}
        for link in self._links:
            groups.setdefault(find(id(link.result)), []).append(link)
        return groups.values()


def _members(group: Iterable[_Link]) -> set[int]:
    return {id(s) for link in group for s in (link.result, link.source)}
