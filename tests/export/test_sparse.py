"""Sparse tensors in programs and traces, beside eager on inputs that were not captured."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import stillframe as sf
from stillframe import Dim


def same(got: Any, expected: Any) -> None:
    got, expected = (torch.utils._pytree.tree_leaves(v) for v in (got, expected))
    for a, b in zip(got, expected, strict=True):
        if isinstance(a, torch.Tensor):
            assert a.layout is b.layout
            a, b = (v if v.layout is torch.strided else v.to_dense() for v in (a, b))
            torch.testing.assert_close(a, b, rtol=0, atol=0)
        else:
            assert a == b


def inside(x: torch.Tensor, b: torch.Tensor) -> Any:
    s = x.to_sparse()
    i, v = s._indices(), s._values()
    u = torch.sparse_coo_tensor(i, v * 2, (3, 4))
    w = (u + s).coalesce()
    c = x.to_sparse_csr()
    return w, w.to_dense(), torch.sparse.mm(s, b), c @ b, v.sum(), v.shape[0], c.crow_indices()


def given(s: torch.Tensor, c: torch.Tensor, b: torch.Tensor) -> Any:
    again = torch.sparse_csr_tensor(c.crow_indices(), c.col_indices(), c.values() + 1, (3, 4))
    return s.coalesce().values() * 2, s @ b, again @ b, again, s.is_coalesced(), s.relu()


def matrix(rows: int, keep: float) -> torch.Tensor:
    return torch.randn(rows, 4) * (torch.rand(rows, 4) < keep)


def test_intermediate_values() -> None:
    dims = {"x": None, "b": {1: Dim("k")}}
    program = sf.export(inside, (matrix(3, 0.5), torch.randn(4, 2)), dynamic_shapes=dims)
    for keep in (0.0, 0.3, 1.0):
        x, b = matrix(3, keep), torch.randn(4, 5)
        same(program.module()(x, b), inside(x, b))
    assert "to_sparse: sparse_coo f32[3, 4]" in str(program)
    program.verify(inside)


def test_inputs() -> None:
    sparse, csr = matrix(3, 0.5).to_sparse(), matrix(3, 0.5).to_sparse_csr()
    dims = {"s": {0: Dim("m")}, "c": None, "b": None}
    program = sf.export(given, (sparse, csr, torch.randn(4, 2)), dynamic_shapes=dims)
    program.verify(given)
    for keep, rows in ((0.0, 2), (1.0, 9)):
        args = matrix(rows, keep).to_sparse(), matrix(3, keep).to_sparse_csr(), torch.randn(4, 2)
        same(program.module()(*args), given(*args))


def test_the_door_looks_at_the_pattern() -> None:
    sparse, csr, b = matrix(3, 1.0).to_sparse(), matrix(3, 1.0).to_sparse_csr(), torch.ones(4, 2)
    program = sf.export(given, (sparse, csr, b))
    loose = torch.sparse_coo_tensor(sparse.indices(), sparse.values(), sparse.shape)
    narrow = torch.sparse_csr_tensor(
        csr.crow_indices().int(), csr.col_indices().int(), csr.values(), csr.shape
    )
    hybrid = matrix(3, 1.0).to_sparse(1)
    for args, message in (
        ((loose, csr, b), "s: sparse pattern is"),
        ((hybrid, csr, b), "s: sparse pattern is"),
        ((sparse, narrow, b), "c: sparse pattern is"),
        ((csr, csr, b), "s: layout is sparse_csr"),
        ((sparse.to_dense(), csr, b), "s: layout is strided"),
    ):
        with pytest.raises(sf.CallError, match=message):
            program.module()(*args)


def test_a_written_input_may_not_be_part_of_a_sparse_one() -> None:
    def f(s: torch.Tensor, v: torch.Tensor) -> Any:
        v.add_(1)
        return s._values() * 2

    s, v = matrix(3, 1.0).to_sparse(), torch.ones(12)
    program = sf.export(f, (s, v))
    other = matrix(3, 1.0).to_sparse()
    same(program.module()(other, v.clone()), f(other, v.clone()))
    with pytest.raises(sf.CallError):
        program.module()(other, other._values())


def test_a_write_to_the_values_is_a_write_to_the_tensor() -> None:
    def f(v: torch.Tensor, i: torch.Tensor) -> Any:
        s = torch.sparse_coo_tensor(i, v, (4,))
        s._values().mul_(3)
        return s.to_dense(), v + 0

    i = torch.tensor([[0, 2]])
    program = sf.export(f, (torch.ones(2), i))
    mine, theirs = torch.ones(2), torch.ones(2)
    same(program.module()(mine, i), f(theirs, i))
    same(mine, theirs)


@pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
@pytest.mark.spec("3.8")
def test_traces(mode: str) -> None:
    x, b = matrix(3, 1.0), torch.randn(4, 5)
    graph = sf.make_fx(inside, tracing_mode=mode)(x, b)
    vals = {n.name: n.meta["val"] for n in graph.graph.nodes if n.op == "call_function"}
    if mode == "real":
        assert vals["_to_sparse"] is None
    else:
        assert vals["_to_sparse"].layout is torch.sparse_coo
    other = torch.randn(3, 4)
    same(graph(other, b), inside(other, b))
    args = x.to_sparse(), x.to_sparse_csr(), b
    graph = sf.make_fx(given, tracing_mode=mode)(*args)
    other_args = other.to_sparse(), other.to_sparse_csr(), torch.randn(4, 5)
    same(graph(*other_args), given(*other_args))


def test_a_symbolic_trace_admits_other_numbers_of_elements() -> None:
    def f(s: torch.Tensor) -> Any:
        values = s._values()
        return torch.cat([values, values]), values.shape[0] * 2

    graph = sf.make_fx(f, tracing_mode="symbolic")(matrix(6, 0.9).to_sparse())
    other = torch.eye(6)[:, :4].to_sparse()
    same(graph(other), f(other))


def test_what_is_refused() -> None:
    x = matrix(3, 1.0)
    with pytest.raises(sf.NotSupported, match="aten.softmax.int has no shape rule for sparse"):
        sf.export(lambda x: x.to_sparse().softmax(1), (x,))
    with pytest.raises(sf.DataDependentError):
        sf.export(lambda x: torch.ones(3) if x.to_sparse()._nnz() > 3 else x, (x,))
    program = sf.export(lambda x: x.to_sparse().to_dense(), (x,))
    with pytest.raises(sf.NotSupported, match="to_sparse is a sparse tensor"):
        program.run_decompositions()
    with pytest.raises(sf.ArtifactError, match="to_sparse is a torch.sparse_coo tensor"):
        sf.save(program, "/dev/null")


def test_sparse_state_is_refused() -> None:
    module = torch.nn.Module()
    module.register_buffer("s", torch.eye(3).to_sparse())
    module.forward = lambda x: module.s @ x  # type: ignore[method-assign]
    with pytest.raises(sf.NotSupported, match="layout torch.sparse_coo"):
        sf.export(module, (torch.ones(3, 3),))
    with pytest.raises(sf.NotSupported):
        sf.export(
            lambda x, s: torch.cond(x.sum() > 0, lambda s: s @ x, lambda s: s @ x, (s,)),
            (torch.ones(3, 3), torch.eye(3).to_sparse()),
        )


def test_gradients() -> None:
    i = torch.tensor([[0, 1], [1, 0]])

    def f(v: torch.Tensor, b: torch.Tensor) -> Any:
        s = torch.sparse_coo_tensor(i, v, (2, 2))
        return torch.sparse.mm(s, b).sum()

    v, b = torch.randn(2, requires_grad=True), torch.randn(2, 3)
    program = sf.export(f, (v, b))
    grads = []
    for function in (f, program.module()):
        mine = torch.ones(2, requires_grad=True)
        function(mine, b).backward()
        grads.append(mine.grad)
    same(grads[0], grads[1])
