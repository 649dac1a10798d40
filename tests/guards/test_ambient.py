"""Guards on the state around a capture."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from tests.guards.holding import X, guard_on, holds
from torch.overrides import TorchFunctionMode

from stillframe.context import GLOBAL_STATE_KEYS, GlobalContext
from stillframe.guards.checks import Checks, compile_checks
from stillframe.guards.kinds import ambient
from stillframe.guards.kinds.registry import kind
from stillframe.source import FSDPNNModuleSource, GlobalStateSource, Guard, GuardSource


def one(name: str) -> Checks:
    return compile_checks([GlobalStateSource().make_guard(kind(name))], {}, {})


@contextlib.contextmanager
def deterministic(warn_only: bool) -> Iterator[None]:
    torch.use_deterministic_algorithms(True, warn_only=warn_only)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@contextlib.contextmanager
def no_fill() -> Iterator[None]:
    torch.utils.deterministic.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.utils.deterministic.fill_uninitialized_memory = True


@contextlib.contextmanager
def default_dtype() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextlib.contextmanager
def default_device() -> Iterator[None]:
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_device(None)


class Mode(TorchFunctionMode):
    """A mode that does nothing of note."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


def cast(dtype: torch.dtype = torch.bfloat16, cache: bool = True) -> Any:
    return torch.autocast("cpu", dtype=dtype, cache_enabled=cache)


CHANGES: list[tuple[str, Callable[[], Any]]] = [
    ("GRAD_MODE", torch.no_grad),
    ("GRAD_MODE", torch.inference_mode),
    ("DETERMINISTIC_ALGORITHMS", lambda: deterministic(False)),
    ("DETERMINISTIC_ALGORITHMS", lambda: deterministic(True)),
    ("DETERMINISTIC_ALGORITHMS", no_fill),
    ("TORCH_FUNCTION_STATE", Mode),
    ("TORCH_FUNCTION_STATE", torch._C.DisableTorchFunction),
    ("TORCH_FUNCTION_STATE", torch._C.DisableTorchFunctionSubclass),
    ("DEFAULT_DEVICE", lambda: torch.device("meta")),
    ("DEFAULT_DEVICE", default_device),
    ("DEFAULT_DTYPE", default_dtype),
    ("AUTOCAST", cast),
    ("AUTOCAST", lambda: torch.autocast("cuda", dtype=torch.float16)),
    ("BACKEND", lambda: ambient.backend(print)),
    ("CURRENT_STREAM", lambda: torch.cpu.stream(torch.cpu.Stream())),
]


@pytest.mark.spec("4.39")
@pytest.mark.filterwarnings("ignore:.*CUDA is not available.*")
@pytest.mark.parametrize(("name", "change"), CHANGES)
def test_global_state(name: str, change: Callable[[], Any]) -> None:
    checks = one(name)
    assert holds(checks)
    switched = change()
    with switched:
        if name != "AUTOCAST" or torch.is_autocast_enabled("cpu"):
            assert not holds(checks)
            found = checks.failure({}, {})
            assert found is not None and str(found).startswith(f"{name} is ")
            inside = one(name)
            assert holds(inside)
        else:
            inside = checks  # this machine has no device of the kind: nothing was switched on
    assert holds(checks)
    assert inside is checks or not holds(inside)


@pytest.mark.spec("4.39")
def test_modes_count_by_identity_and_default_devices_by_device() -> None:
    with Mode() as mode:
        checks = one("TORCH_FUNCTION_STATE")
        assert holds(checks)
    with Mode():
        assert not holds(checks)
    with mode:
        assert holds(checks)
        with torch.device("meta"):
            assert not holds(checks)
    with torch.device("meta"):
        device = [one(name) for name in ("TORCH_FUNCTION_STATE", "DEFAULT_DEVICE")]
    with torch.device("meta"):  # another mode object
        assert all(holds(checks) for checks in device)


@pytest.mark.spec("4.39")
def test_autocast_counts_by_dtype_and_cache() -> None:
    with cast():
        checks = one("AUTOCAST")
    with cast():
        assert holds(checks)
    with cast(torch.float16):
        assert not holds(checks)
    with cast(cache=False):
        assert not holds(checks)


@pytest.mark.spec("4.39")
def test_backends_of_threads_and_scopes() -> None:
    with ambient.backend("one"):
        checks = one("BACKEND")
        assert holds(checks) and ambient.current_backend() == "one"
        with pytest.raises(KeyError), ambient.backend("two"):
            assert not holds(checks)
            raise KeyError
        assert holds(checks)
    assert ambient.current_backend() is None


@pytest.mark.spec("4.39")
def test_one_guard_of_each_kind_without_a_name() -> None:
    guards = ambient.ambient_guards()
    assert len({*guards}) == len(guards) == len(ambient.AMBIENT_KINDS)
    assert {g.name for g in guards} == {""} and {g.source for g in guards} == {GuardSource.GLOBAL}
    checks = compile_checks(guards, {}, {})
    assert holds(checks)
    with torch.no_grad():
        assert not holds(checks)


@pytest.mark.spec("4.39")
def test_fsdp_training_state() -> None:
    import torch.distributed as dist
    from torch.distributed.fsdp import fully_shard

    module = torch.nn.Linear(2, 2)
    state = GlobalStateSource().make_guard(kind("FSDP_TRAINING_STATE"))

    def managed() -> Guard:
        return guard_on(FSDPNNModuleSource(X), "NOT_NONE_MATCH")

    plain = compile_checks([managed(), state], {"x": module}, {})
    assert holds(plain, x=module)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        mesh = dist.device_mesh.init_device_mesh("cpu", (1,))
        sharded = fully_shard(torch.nn.Linear(2, 2), mesh=mesh)
        assert not holds(plain, x=sharded)  # it was not managed by FSDP then
        checks = compile_checks([managed(), state], {"x": sharded}, {})
        assert holds(checks, x=sharded)
        answers: list[bool] = []
        sharded.register_forward_hook(
            lambda module, args, result: answers.append(checks({"x": module}, {}))
        )
        sharded(torch.ones(1, 2))
        group = sharded._get_fsdp_state()._fsdp_param_group
        with group.use_training_state(type(group._training_state).FORWARD):
            assert not holds(checks, x=sharded)
            found = checks.failure({"x": sharded}, {})
            assert found is not None and "FORWARD" in found.found and "L['x']" in str(found)
        assert holds(checks, x=sharded) and len(answers) == 1
    finally:
        dist.destroy_process_group()


@pytest.mark.spec("4.50")
@pytest.mark.filterwarnings("ignore:.*CUDA is not available.*")
def test_global_state_comes_back() -> None:
    context = GlobalContext()
    context.global_state = ambient.global_state()
    before = context.copy_graphstate()
    assert set(before.global_state) == GLOBAL_STATE_KEYS
    try:
        torch._C._set_grad_enabled(False)
        torch.set_autocast_enabled("cpu", True)
        torch.set_autocast_enabled("cuda", True)
        torch.set_autocast_dtype("cpu", torch.float16)
        torch.set_autocast_dtype("cuda", torch.bfloat16)
        torch.set_autocast_cache_enabled(False)
        changed = ambient.global_state()
        different = {k for k, v in before.global_state.items() if v != changed[k]}
        assert different == GLOBAL_STATE_KEYS - {"torch_function_enabled"}
        with torch._C.DisableTorchFunction():
            off = ambient.global_state()
            assert off["torch_function_enabled"] != changed["torch_function_enabled"]
    finally:
        context.restore_graphstate(before)
    assert ambient.global_state() == before.global_state
    assert torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu")
