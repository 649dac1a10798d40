"""Equality by type and bits."""

from __future__ import annotations

import enum
import itertools
import pickle
import struct
from typing import Any

import pytest

from stillframe.errors import InternalError
from stillframe.source import NoExactForm, exact_form, has_exact_form, register_exact


class Color(enum.IntEnum):
    RED = 1
    CRIMSON = 1


DISTINCT: list[Any] = [
    None, True, False, 0, 1, 2**70, 0.0, -0.0, 1.0, float("inf"), float("nan"), 1j,
    complex(0, -0.0), complex(-0.0, 0), "a", b"a", (), (1,), (True,), (1.0,), [1],
    [True], {1}, {True}, {1.0},
    frozenset({1}), slice(1), slice(1.0), slice(None), range(1), range(0, 1, 2), Color.RED, ...,
    "", (0.0,), (-0.0,), ((),), {(1,)}, {(True,)},
]  # fmt: skip


@pytest.mark.spec("4.19")
def test_what_a_program_can_tell_apart_differs() -> None:
    for a, b in itertools.combinations(DISTINCT, 2):
        assert exact_form(a) != exact_form(b), (a, b)


@pytest.mark.spec("4.19")
def test_copies_are_equal() -> None:
    for value in DISTINCT:
        again = pickle.loads(pickle.dumps(value))
        assert exact_form(value) == exact_form(again), value
        assert hash(exact_form(value)) == hash(exact_form(again))
    assert exact_form({1, 2, 3}) == exact_form({3, 2, 1})


@pytest.mark.spec("4.19")
def test_nans_differ_by_their_bits() -> None:
    quiet = struct.unpack("<d", struct.pack("<Q", 0x7FF8000000000001))[0]
    assert exact_form(quiet) != exact_form(float("nan"))
    assert exact_form(quiet) == exact_form(quiet)


@pytest.mark.spec("4.19")
def test_other_classes_are_not_trusted() -> None:
    class Sly(int):
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = int.__hash__

    for value in (Sly(1), object(), (1, Sly(2)), {1: 2}, [object()]):
        assert not has_exact_form(value)
        with pytest.raises(NoExactForm, match="no equality to rely on"):
            exact_form(value)
    with pytest.raises(InternalError, match="already"):
        register_exact(int, id)
