"""flex_attention as a node with two subgraphs: equal to eager at other lengths, layouts kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.attention import flex_attention as module
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

import stillframe as sf

higher_order = torch.ops.higher_order
MODES = ("real", "fake", "symbolic", "export")


@pytest.fixture(autouse=True)
def _uncompiled(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Eager calls, the oracle, run the operator itself."""
    monkeypatch.setattr(module, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True)
    yield


def queries(length: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Batch, length, heads, width: the heads are not dense."""
    generator = torch.Generator().manual_seed(length)
    return torch.randn(2, length, 2, 8, generator=generator, dtype=dtype)


BIAS = torch.randn(2)
TABLE = torch.randn(2, 80)
DOCUMENTS = torch.arange(64) // 5


def scored(q: torch.Tensor) -> Any:
    q = q.transpose(1, 2)
    return flex_attention(q, q * 2, q + 1, score_mod=lambda s, b, h, i, j: s + (i - j) + BIAS[h])


def looked_up(q: torch.Tensor) -> Any:
    """Indices that are computed, and the logarithms of the sums beside the output."""
    q = q.transpose(1, 2).contiguous()

    def score(s: Any, b: Any, h: Any, i: Any, j: Any) -> Any:
        return torch.where(i >= j, s * TABLE[h, i - j], -1.0)

    return flex_attention(q, q * 2, q + 1, score_mod=score, return_lse=True)


def causal(q: torch.Tensor) -> Any:
    q = q.transpose(1, 2)
    mask = create_block_mask(
        lambda b, h, i, j: i >= j, None, None, q.shape[2], q.shape[2], device="cpu"
    )
    return flex_attention(q, q, q, block_mask=mask)


def packed_documents(q: torch.Tensor) -> Any:
    q = q.transpose(1, 2)
    mask = create_block_mask(
        lambda b, h, i, j: DOCUMENTS[i] == DOCUMENTS[j], None, None,
        q.shape[2], q.shape[2], device="cpu",
    )  # fmt: skip
    return flex_attention(q, q, q, block_mask=mask, scale=0.5)


def shared_keys(q: torch.Tensor) -> Any:
    q = q.transpose(1, 2)
    return flex_attention(torch.cat([q, q], 1), q, q, enable_gqa=True)


def wider_values(q: torch.Tensor) -> Any:
    q = q.transpose(1, 2)
    return flex_attention(q, q, torch.cat([q, q], -1))


PROGRAMS: dict[str, Callable[[torch.Tensor], Any]] = {
    f.__name__: f for f in (scored, looked_up, causal, packed_documents, shared_keys, wider_values)
}


def trace(f: Callable[..., Any], mode: str, q: torch.Tensor) -> Callable[..., Any]:
    if mode == "export":
        return sf.export(f, (q,), dynamic_shapes=({1: sf.Dim.AUTO},)).module()
    return sf.make_fx(f, tracing_mode=mode, allow_non_fake_inputs=True)(q)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", PROGRAMS)
def test_attention_equals_eager(mode: str, name: str) -> None:
    f = PROGRAMS[name]
    graph = trace(f, mode, queries(16))
    for length in (16, 20, 37) if mode in ("symbolic", "export") else (16,):
        q = queries(length)
        torch.testing.assert_close(graph(q), f(q), check_stride=True)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_dtypes(dtype: torch.dtype) -> None:
    graph = sf.make_fx(scored, tracing_mode="symbolic", allow_non_fake_inputs=True)(
        queries(16, dtype)
    )
    q = queries(20, dtype)
    torch.testing.assert_close(graph(q), scored(q))
    (node,) = graph.graph.find_nodes(op="call_function", target=higher_order.flex_attention)
    want = torch.float64 if dtype is torch.float64 else torch.float32
    assert [v.dtype for v in node.meta["val"]] == [dtype, want, want]


def test_metadata_is_that_of_the_kernel() -> None:
    graph = sf.make_fx(wider_values, tracing_mode="fake")(queries(16))
    (node,) = graph.graph.find_nodes(op="call_function", target=higher_order.flex_attention)
    real = torch.fx.Interpreter(graph)
    real.run(queries(16))
    q = queries(16).transpose(1, 2)
    results = higher_order.flex_attention(
        q, q, torch.cat([q, q], -1), lambda s, *_: s,
        (16, 16, *[None] * 8, 16, 16, lambda b, h, i, j: b >= 0), 1.0, {},
    )  # fmt: skip
    for fake, result in zip(node.meta["val"], results, strict=True):
        assert (fake.shape, fake.stride(), fake.dtype) == (
            result.shape, result.stride(), result.dtype,
        )  # fmt: skip


def test_a_program_with_attention_is_saved(tmp_path: Path) -> None:
    q = queries(16)
    program = sf.export(looked_up, (q,), dynamic_shapes=({1: sf.Dim.AUTO},))
    sf.save(program, tmp_path / "p.still")
    loaded = sf.load(tmp_path / "p.still")
    assert str(loaded) == str(program)
    again = sf.export(loaded.module(), (q,), dynamic_shapes=({1: sf.Dim.AUTO},))
    for run in (queries(16), queries(30)):
        torch.testing.assert_close(loaded.module()(run), looked_up(run))
        torch.testing.assert_close(again.module()(run), looked_up(run))


def test_tensors_that_scores_look_into_are_operands() -> None:
    graph = sf.make_fx(looked_up, allow_non_fake_inputs=True)(queries(16))
    (node,) = graph.graph.find_nodes(op="call_function", target=higher_order.flex_attention)
    (buffer,), () = node.args[7:]
    assert getattr(graph, buffer.target) is TABLE
    score = getattr(graph, node.args[3].target).graph
    assert torch.ops.aten.index.Tensor in [n.target for n in score.nodes]


REFUSED: dict[str, tuple[type[Exception], Callable[[torch.Tensor], Any]]] = {
    "score_mod .* reads a number": (
        sf.NotSupported,
        lambda q: flex_attention(q, q, q, score_mod=lambda s, b, h, i, j: s + TABLE[0, i]),
    ),
    "must return one score": (
        sf.InvalidInput,
        lambda q: flex_attention(q, q, q, score_mod=lambda s, b, h, i, j: i >= j),
    ),
    "changes a tensor from outside": (
        sf.SideEffectError,
        lambda q: flex_attention(q, q, q, score_mod=lambda s, b, h, i, j: s + BIAS.add_(1)[0]),
    ),
    "do not fit": (
        sf.InvalidInput,
        lambda q: higher_order.flex_attention(
            q, q, q[:, :, 1:], lambda s, *_: s, (1, 1, lambda b, *_: b >= 0), 1.0, {}
        ),
    ),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_attention_cannot_be(message: str) -> None:
    error, f = REFUSED[message]
    with pytest.raises(error, match=message):
        sf.make_fx(f, tracing_mode="fake", allow_non_fake_inputs=True)(queries(16))


# -- gradients ------------------------------------------------------------------------------------

MASK = create_block_mask(lambda b, h, i, j: i >= j, None, None, 16, 16, device="cpu").as_tuple()
HEADS = torch.tensor([0.5, -1.0, 2.0, 1.5])

SCORES: dict[str, Callable[..., Any]] = {
    "as it is": lambda s, b, h, i, j: s,
    "curved": lambda s, b, h, i, j: s.sin() * 2 + i,
    "by head": lambda s, b, h, i, j: s * HEADS[h],
    "selected": lambda s, b, h, i, j: torch.where(i >= j + 2, s * TABLE[b, i - j], -1.0),
    "constant": lambda s, b, h, i, j: (i - j) * 0.1 + s * 0,
}
SIZES = ("alike", "one batch of keys", "shared keys")


def attention_gradients(score: str, sizes: str) -> Callable[..., Any]:
    """Of the output and of the logarithms, by the operator itself: eager has them on the CPU."""

    def f(q: torch.Tensor) -> Any:
        q = q.transpose(1, 2)
        k, v = q * 2, q + 1
        if sizes == "one batch of keys":
            k, v = k[:1], v[:1]
        leaves = q, k, v = [t.detach().requires_grad_() for t in (q, k, v)]
        queries = torch.cat([q, q], 1) if sizes == "shared keys" else q
        out, lse, _ = higher_order.flex_attention(queries, k, v, SCORES[score], MASK, 0.3, {})
        return torch.autograd.grad(out.sin().sum() + lse.cos().sum(), leaves)

    return f


@pytest.mark.parametrize("mode", MODES[:3])
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("score", SCORES)
def test_gradients_equal_eager(mode: str, sizes: str, score: str) -> None:
    f = attention_gradients(score, sizes)
    graph = trace(f, mode, queries(16))
    for traced in (graph, trace(graph, mode, queries(16))):
        for length in (16, 20) if mode == "symbolic" else (16,):
            q = queries(length) * 0.5
            torch.testing.assert_close(traced(q), f(q), check_stride=True)
        target = higher_order.flex_attention_backward
        assert len(traced.graph.find_nodes(op="call_function", target=target)) == 1


LOOKED_INTO: dict[str, Callable[..., Any]] = {
    "one number of each head": lambda s, b, h, i, j, t, u: s * t[h].sin() + u[0 * b, 0 * b],
    "a table of distances": lambda s, b, h, i, j, t, u: torch.where(
        i >= j + 2, s * u[h, i - j], t[h]
    ),
}
HIDING = create_block_mask(  # the first row as a whole
    lambda b, h, i, j: (i >= j) & (i > 0), None, None, 16, 16, device="cpu"
).as_tuple()


@pytest.mark.parametrize("mode", MODES[:3])
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("score", LOOKED_INTO)
def test_gradients_of_what_scores_look_into(mode: str, sizes: str, score: str) -> None:
    def f(q: torch.Tensor, t: torch.Tensor) -> Any:
        q, t = (x.detach().requires_grad_() for x in (q.transpose(1, 2), t))
        k, v = (q * 2)[: 1 if sizes == "one batch of keys" else 2], (q + 1)[:1].expand_as(q)
        v = v[: k.shape[0]]
        queries = torch.cat([q, q], 1) if sizes == "shared keys" else q
        buffers = (t * 2, (t[:, None] - TABLE[:1]))  # one is made of what the other is made of
        out, lse, _ = higher_order.flex_attention(
            queries, k, v, LOOKED_INTO[score], HIDING, 0.3, {}, buffers
        )
        return torch.autograd.grad(out.sin().sum() + lse[:, :, 1:].cos().sum(), [q, t])

    tracer = sf.make_fx(f, tracing_mode=mode, allow_non_fake_inputs=True)
    graph = tracer(queries(16), HEADS)
    for length in (16, 20) if mode == "symbolic" else (16,):
        q = queries(length) * 0.5
        torch.testing.assert_close(graph(q, HEADS), f(q, HEADS), check_stride=True)


def test_a_program_that_calls_the_backward_itself() -> None:
    def joint(s: Any, b: Any, h: Any, i: Any, j: Any, g: Any) -> list[Any]:
        return [g * HEADS[h], None, None, None, None]

    def f(q: torch.Tensor) -> Any:
        q = q.transpose(1, 2)
        out, lse, _ = higher_order.flex_attention(q, q, q, SCORES["by head"], MASK, 0.3, {})
        return higher_order.flex_attention_backward(
            q, q, q, out, lse, out.cos(), None, SCORES["by head"], joint, MASK, 0.3, {}, (), ()
        )

    graph = trace(f, "symbolic", queries(16))
    again = trace(graph, "symbolic", queries(16))
    for traced in (graph, again):
        torch.testing.assert_close(traced(queries(16)), f(queries(16)), check_stride=True)


def _gradient(f: Callable[..., Any], *leaves: torch.Tensor, twice: bool = False) -> Any:
    inputs = [t.detach().requires_grad_() for t in leaves]
    found = torch.autograd.grad(f(*inputs).sum(), inputs, create_graph=twice)
    return torch.autograd.grad(found[0].sum(), inputs[0]) if twice else found


def _attention(q: torch.Tensor, k: torch.Tensor, score: Any = None, joint: Any = None) -> Any:
    return higher_order.flex_attention(q, k, k, score or SCORES["as it is"], MASK, 0.3, {})[0]


REFUSED_GRADIENTS: dict[str, tuple[type[Exception], Callable[[torch.Tensor], Any]]] = {
    "Second derivatives of flex_attention by a tensor": (
        sf.NotSupported,
        lambda q: _gradient(
            lambda q, t: _attention(q, q, lambda s, b, h, i, j: s * t[h]), q, HEADS, twice=True
        ),
    ),
    "with the gradient of a tensor that score_mod looks into": (
        sf.NotSupported,
        lambda q: higher_order.flex_attention_backward(
            q,
            q,
            q,
            q,
            q[..., 0],
            q,
            None,
            lambda s, b, h, i, j, t: s * t[h],
            None,
            MASK,
            0.3,
            {},
            (HEADS.clone().requires_grad_(),),
        ),
    ),
    "gradient of flex_attention_backward is not supported": (
        sf.NotSupported,
        lambda q: _gradient(lambda q: _attention(q, q).sin(), q, twice=True),
    ),
    "of one dtype": (sf.InvalidInput, lambda q: _gradient(lambda q: _attention(q.half(), q), q)),
    "joint_graph of flex_attention_backward must return": (
        sf.InvalidInput,
        lambda q: higher_order.flex_attention_backward(
            q, q, q, q, q[..., 0], q, None, SCORES["as it is"], lambda *_: (None,), MASK, 0.3, {}
        ),
    ),
}


@pytest.mark.parametrize("message", REFUSED_GRADIENTS)
def test_what_gradients_of_attention_cannot_be(message: str) -> None:
    error, f = REFUSED_GRADIENTS[message]
    with pytest.raises(error, match=message):
        sf.make_fx(f, tracing_mode="fake", allow_non_fake_inputs=True)(queries(16).transpose(1, 2))
