"""Guards on tensors: metadata, marks, aliases."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tests.guards.holding import X, checks_of, failure, guard_on, holds
from torch.overrides import TorchFunctionMode

from stillframe.errors import InternalError, NotSupported
from stillframe.guards.checks import Checks, compile_checks
from stillframe.source import GetItemSource, LocalSource
from stillframe.symbolic import symbol


class Sub(torch.Tensor):
    """Another class."""


def base() -> torch.Tensor:
    return torch.ones(2, 3)


def marked(**marks: set[int]) -> torch.Tensor:
    tensor = base()
    for name, dims in marks.items():
        setattr(tensor, f"_dynamo_{name}_indices", dims)
    return tensor


def inference() -> torch.Tensor:
    with torch.inference_mode():
        return base()


CHANGES: dict[str, tuple[Any, str]] = {
    "class": (torch.nn.Parameter(base(), requires_grad=False), "cls"),
    "subclass": (base().as_subclass(Sub), "cls"),
    "dtype": (base().double(), "dtype"),
    "device": (torch.ones(2, 3, device="meta"), "device"),
    "requires_grad": (base().requires_grad_(), "requires_grad True and not False"),
    "rank": (torch.ones(2, 3, 1), "sizes"),
    "size": (torch.ones(3, 3), "sizes (3, 3) and not (2, 3)"),
    "stride": (torch.ones(3, 2).t(), "strides (1, 2) and not (3, 1)"),
    "sparse": (base().to_sparse(), "layout"),
    "inference": (inference(), "keys"),
    "negated": (torch.ones(2, 3, dtype=torch.cfloat).conj().imag, "keys"),
    "marked": (marked(dynamic={0}), "marks"),
}


@pytest.mark.spec("4.32")
@pytest.mark.parametrize("change", CHANGES)
def test_metadata(change: str) -> None:
    checks = checks_of(base(), "TENSOR_MATCH")
    assert holds(checks, x=torch.zeros(2, 3))
    other, said = CHANGES[change]
    found = failure(checks, x=other)
    assert said in found.found, found
    # and the other way around, with what differs as the captured tensor
    assert not holds(checks_of(other, "TENSOR_MATCH"), x=base()) or change == "marked"


@pytest.mark.spec("4.32")
def test_what_is_no_tensor() -> None:
    checks = checks_of(base(), "TENSOR_MATCH")
    for other in (None, 1, [1.0], torch.Tensor):
        assert not holds(checks, x=other)
    with pytest.raises(InternalError, match="TENSOR_MATCH of 1"):
        checks_of(1, "TENSOR_MATCH")
    nested = torch.nested.nested_tensor([torch.ones(1), torch.ones(2)], layout=torch.jagged)
    with pytest.raises(NotSupported, match="nested tensor"):
        checks_of(nested, "TENSOR_MATCH")


@pytest.mark.spec("4.32")
@pytest.mark.filterwarnings("ignore:Sparse CSR")
def test_layouts_of_one_dispatch_key() -> None:
    checks = checks_of(torch.eye(2).to_sparse_csr(), "TENSOR_MATCH")
    assert holds(checks, x=torch.eye(2).to_sparse_csr())
    assert not holds(checks, x=torch.eye(2).to_sparse_csc())


@pytest.mark.spec("4.32")
def test_dynamic_sizes_are_left_open() -> None:
    n = symbol("s0")
    checks = checks_of(base(), "TENSOR_MATCH", sizes=(n, 3), strides=(3, 1))
    assert holds(checks, x=torch.ones(7, 3)) and holds(checks, x=torch.ones(0, 3))
    assert "strides (4, 1) and not (3, 1)" in str(failure(checks, x=torch.ones(7, 4)))
    assert not holds(checks, x=torch.ones(7, 3, 1)) and not holds(checks, x=torch.ones(3))
    both = checks_of(base(), "TENSOR_MATCH", sizes=(n, n), strides=(n, 1))
    assert holds(both, x=torch.ones(7, 4)) and not holds(both, x=torch.ones(4, 7).t())


@pytest.mark.spec("4.32")
def test_marks_may_be_taken_back_and_not_added() -> None:
    checks = checks_of(marked(dynamic={0, 1}), "TENSOR_MATCH")
    assert holds(checks, x=base()) and holds(checks, x=marked(dynamic={1}))
    for other in (marked(static={0}), marked(unbacked={0}), marked(weak_dynamic={0})):
        assert "marks" in str(failure(checks, x=other))
    torch._dynamo.mark_dynamic(asked := base(), 1)
    assert not holds(checks_of(base(), "TENSOR_MATCH"), x=asked)
    unmarked = base()
    unmarked.note = "an attribute of the user's"  # type: ignore[attr-defined]
    assert holds(checks, x=unmarked)


def both(a: torch.Tensor, b: torch.Tensor) -> Checks:
    y = LocalSource("y")
    guards = [guard_on(X, "TENSOR_MATCH"), guard_on(y, "TENSOR_MATCH")]
    return compile_checks(guards, {"x": a, "y": b}, {})


@pytest.mark.spec("4.32")
def test_tensors_do_not_alias_unless_they_did() -> None:
    one, two = base(), base()
    apart = both(one, two)
    assert holds(apart, x=two, y=one)
    for alias in (one, one.view(2, 3), one.detach()):
        found = failure(apart, x=one, y=alias)
        assert "L['y'] now aliases L['x']" in str(found)

    same = both(one, one)
    assert holds(same, x=two, y=two)
    assert "L['y'] no longer aliases L['x']" in str(failure(same, x=one, y=two))
    assert not holds(same, x=one, y=one.view(2, 3))  # the same memory, another object

    views = both(one, one.view(2, 3))
    assert holds(views, x=two, y=two.view(2, 3))
    assert not holds(views, x=one, y=one) and not holds(views, x=one, y=two)


@pytest.mark.spec("4.32")
def test_parts_of_one_memory_alias() -> None:
    whole = torch.ones(4, 3)
    assert not holds(both(base(), base()), x=whole[:2], y=whole[2:])
    parts = both(whole[:2], whole[2:])
    assert holds(parts, x=whole[:2], y=whole[2:]) and not holds(parts, x=base(), y=base())


@pytest.mark.spec("4.32")
def test_empty_tensors_are_apart() -> None:
    empty = both(torch.ones(0), torch.ones(0))
    assert holds(empty, x=torch.ones(0), y=torch.ones(0))
    one = torch.ones(0)
    assert not holds(empty, x=one, y=one)


@pytest.mark.spec("4.32")
def test_aliases_among_many() -> None:
    shared = base()
    tensors = [base(), shared, base(), shared, shared.view(2, 3)]
    guards = [guard_on(GetItemSource(X, i), "TENSOR_MATCH") for i in range(5)]
    checks = compile_checks(guards, {"x": tensors}, {})
    other = base()
    assert holds(checks, x=[base(), other, base(), other, other.view(2, 3)])
    found = failure(checks, x=[base(), other, other, other, other.view(2, 3)])
    assert "L['x'][2] now aliases L['x'][1]" in str(found)


@pytest.mark.spec("4.32")
def test_memory_is_compared_by_address() -> None:
    array = np.zeros(8, dtype=np.float32)
    apart = both(torch.zeros(4), torch.zeros(4))
    # two storages over one buffer, which begin at different addresses
    one, two = torch.from_numpy(array[:4]), torch.from_numpy(array[2:6])
    assert not holds(apart, x=one, y=two) and not holds(apart, x=two, y=one)
    assert holds(apart, x=torch.from_numpy(array[:4]), y=torch.from_numpy(array[4:]))


@pytest.mark.spec("4.32")
def test_tensors_without_memory_alias_by_storage() -> None:
    def meta() -> torch.Tensor:
        return torch.ones(2, device="meta")

    apart, one = both(meta(), meta()), meta()
    assert holds(apart, x=meta(), y=meta())
    assert not holds(apart, x=one, y=one.view(2))


@pytest.mark.spec("4.32")
@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
def test_parts_of_sparse_tensors_alias() -> None:
    values = torch.ones(2)

    def sparse(values: torch.Tensor) -> torch.Tensor:
        indices = torch.tensor([[0, 1]])
        return torch.sparse_coo_tensor(indices, values, (2,), is_coalesced=True)

    apart = both(sparse(torch.ones(2)), torch.ones(2))
    assert holds(apart, x=sparse(torch.ones(2)), y=values)
    assert not holds(apart, x=sparse(values), y=values)


@pytest.mark.spec("4.32")
def test_chains_of_overlaps_are_one_group() -> None:
    array = np.zeros(12, dtype=np.float32)

    def over(*places: int) -> dict[str, Any]:
        return {"x": [torch.from_numpy(array[i : i + 4]) for i in places]}

    guards = [guard_on(GetItemSource(X, i), "TENSOR_MATCH") for i in range(3)]
    chained = compile_checks(guards, over(0, 3, 6), {})
    assert holds(chained, **over(6, 3, 0)) and holds(chained, **over(0, 6, 3))
    assert not holds(chained, **over(0, 4, 8)) and not holds(chained, **over(0, 3, 8))
    found = failure(compile_checks(guards, over(0, 3, 8), {}), **over(0, 8, 3))
    assert "L['x'][1] no longer aliases L['x'][0]" in str(found)


@pytest.mark.spec("4.33")
def test_data_ptr() -> None:
    tensor = base()
    checks = checks_of(tensor, "DATA_PTR_MATCH")
    assert holds(checks, x=tensor) and holds(checks, x=tensor.view(3, 2))
    assert not holds(checks, x=base()) and not holds(checks, x=tensor[1])


@pytest.mark.spec("4.32")
def test_nobody_sees_the_reads() -> None:
    seen: list[Any] = []

    class Spy(TorchFunctionMode):
        def __torch_function__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            seen.append(func)
            return func(*args, **(kwargs or {}))

    class Loud(torch.Tensor):
        @classmethod
        def __torch_function__(
            cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            seen.append(func)
            return super().__torch_function__(func, types, args, kwargs or {})

    loud = base().as_subclass(Loud)
    checks = checks_of(loud, "TENSOR_MATCH")
    other = base()
    seen.clear()
    with Spy():
        assert checks({"x": loud}, {})
        assert checks.failure({"x": loud}, {}) is None
        assert not checks({"x": other}, {})
    assert seen == []
