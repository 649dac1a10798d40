"""Values of ``torch.distributed`` in a captured frame, in a group of one process."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from tests.variables.checking import agrees, guards_of, refuses
from tests.variables.kinds.tracked import kinds_of

import stillframe as sf
from stillframe.variables import capture_frame
from stillframe.variables.kinds import distributed
from stillframe.variables.registry import order

dist = pytest.importorskip("torch.distributed")
if not dist.is_available() or not dist.is_gloo_available():
    pytest.skip("no processes to talk to here", allow_module_level=True)

from torch.distributed import all_reduce  # noqa: E402  (a global of this module)


@pytest.fixture(autouse=True)
def _group() -> Iterator[None]:
    begin()
    yield
    dist.destroy_process_group()


def begin() -> None:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)


def rows() -> torch.Tensor:
    return torch.arange(6.0).reshape(2, 3)


@pytest.mark.spec("5.60")
def test_collectives_are_rewritten_to_their_functional_forms() -> None:
    def reduce(x: torch.Tensor) -> Any:
        y = x + 1
        all_reduce(y)
        dist.all_reduce(x, dist.ReduceOp.MAX)
        return y * 2

    capture = agrees(reduce, lambda: (rows(),))
    called = [str(node.target) for node in capture.graph_module.graph.nodes]
    assert called.count("_c10d_functional.all_reduce.default") == 2
    assert "FUNCTION_MATCH G['all_reduce']" in guards_of(capture)
    kinds = kinds_of(reduce, (rows(),))
    assert kinds["G['all_reduce']"] == "CollectiveFunctionRewriteVariable"
    global all_reduce
    kept, all_reduce = all_reduce, lambda x: None
    try:
        assert "G['all_reduce']" in refuses(capture, rows())
    finally:
        all_reduce = kept


@pytest.mark.spec("5.60")
def test_collectives_fill_what_they_are_given() -> None:
    def gather(x: torch.Tensor) -> Any:
        into, parts, piece = torch.empty_like(x), [torch.empty_like(x)], torch.empty_like(x)
        dist.all_gather_into_tensor(into, x)
        dist.all_gather(parts, x)
        dist.reduce_scatter_tensor(piece, x)
        return into, parts, piece

    agrees(gather, lambda: (rows(),))
    with pytest.raises(sf.FrameError, match="async_op=True"):
        capture_frame(lambda x: dist.all_reduce(x, async_op=True), (rows(),))


@pytest.mark.spec("5.78", "5.79")
def test_the_default_group_is_relied_on() -> None:
    def ask(x: torch.Tensor) -> Any:
        world = dist.group.WORLD
        return x * world.size() + world.rank() + dist.get_world_size(), world

    capture = agrees(ask, lambda: (rows(),))
    assert any(guard.endswith("group.WORLD") for guard in guards_of(capture))
    kinds = kinds_of(ask, (rows(),)).items()
    assert [name for name, kind in kinds if kind == "WorldMetaClassVariable"]
    assert [name for name, kind in kinds if kind == "ProcessGroupVariable"]
    assert not any(guard.endswith(".group") for guard in guards_of(capture))
    dist.destroy_process_group()
    begin()
    assert "group.WORLD" in refuses(capture, rows())


@pytest.mark.spec("5.79")
def test_a_group_is_known_by_its_identity() -> None:
    def reduce(group: Any, x: torch.Tensor) -> Any:
        dist.all_reduce(x, group=group)
        return x * group.size(), dist.get_rank(group), group

    world = dist.group.WORLD
    capture = agrees(reduce, lambda: (world, rows()))
    assert "ID_MATCH L['group']" in guards_of(capture)
    assert kinds_of(reduce, (world, rows()))["L['group']"] == "ProcessGroupVariable"
    assert "ID_MATCH" in refuses(capture, dist.new_group([0]), rows())


@pytest.mark.spec("5.80")
def test_a_mesh_is_known_by_what_it_equals() -> None:
    from torch.distributed.device_mesh import init_device_mesh

    def ask(mesh: Any, x: torch.Tensor) -> Any:
        return x * mesh.ndim, mesh

    mesh = init_device_mesh("cpu", (1,))
    capture = agrees(ask, lambda: (mesh, rows()))
    assert "EQUALS_MATCH L['mesh']" in guards_of(capture)
    assert kinds_of(ask, (mesh, rows()))["L['mesh']"] == "DeviceMeshVariable"
    assert capture.failure(init_device_mesh("cpu", (1,)), rows()) is None
    assert "EQUALS_MATCH" in refuses(capture, init_device_mesh("cpu", (1, 1)), rows())


@pytest.mark.spec("5.81", "5.82")
def test_placements_are_known_by_what_they_equal_and_their_classes_by_identity() -> None:
    from torch.distributed.tensor import Partial, Replicate, Shard

    def ask(placement: Any, cls: Any, x: torch.Tensor) -> Any:
        made = cls(1)
        return x * made.dim, made == placement, isinstance(placement, cls), made, cls

    capture = capture_frame(ask, (Shard(0), Shard, rows()))
    found = guards_of(capture)
    assert "EQUALS_MATCH L['placement']" in found and "ID_MATCH L['cls']" in found
    kinds = kinds_of(ask, (Shard(0), Shard, rows()))
    assert kinds["L['placement']"] == "PlacementVariable"
    assert kinds["L['cls']"] == "PlacementClassVariable"
    ours, theirs = capture(Shard(0), Shard, rows()), ask(Shard(0), Shard, rows())
    torch.testing.assert_close(ours[0], theirs[0])
    assert ours[1:] == theirs[1:]
    assert "Shard(dim=1)" in refuses(capture, Shard(1), Shard, rows())
    assert "EQUALS_MATCH" in refuses(capture, Replicate(), Shard, rows())
    assert "ID_MATCH" in refuses(capture, Shard(0), Partial, rows())


@pytest.mark.spec("5.60", "5.78", "5.79", "5.80", "5.81", "5.82")
def test_nothing_is_recognised_where_the_package_is_absent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = dist.group.WORLD
    for name in [name for name in sys.modules if name.startswith("torch.distributed")]:
        monkeypatch.delitem(sys.modules, name)
    for _, test, wrapper in order():
        if wrapper.__module__ == distributed.__name__:
            assert not any(map(test, (world, dist.group, all_reduce, 1, object)))
