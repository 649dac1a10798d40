"""Every private name of torch that the package leans on, each in one place.

torch moves these between releases. Each entry says what it does for us; a test in
``tests/test_torch_private.py`` calls every one, so that a move fails loudly there and not inside
somebody's capture.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

# Makes a tensor subclass instance with given sizes and no storage of its own. Sizes may be SymInts.
make_wrapper_subclass: Callable[..., torch.Tensor] = torch.Tensor._make_wrapper_subclass

# As ``__torch_function__``: the subclass takes no part in function overriding.
disabled_torch_function = torch._C._disabled_torch_function_impl

# Entering it excludes the autograd keys, so that dispatch modes see composite operators whole, and
# the key below them that ties views to their base (fakes track that themselves).
below_autograd = torch._C._AutoDispatchBelowADInplaceOrView

# The function behind ``torch.no_grad`` and friends; a TorchFunctionMode sees its calls.
set_grad_enabled = torch._C._set_grad_enabled

# Whether autocast is on for any kind of device: one call, cheap enough for every run of a program.
any_autocast_enabled: Callable[[], bool] = torch._C._is_any_autocast_enabled


# What function modes are shown for ``tensor.data = other``.
set_data = vars(torch._C.TensorBase)["data"].__set__

# The argument-parsing bindings behind ``torch.add`` and ``torch.nn.functional.linear``: the
# shortest way from Python into an operator.
variable_functions = torch._C._VariableFunctions
nn_functions = torch._C._nn


def global_module_hooks() -> list[dict[int, Any]]:
    """The tables of hooks that run on every module's call."""
    from torch.nn.modules import module

    return [
        module._global_forward_hooks,
        module._global_forward_pre_hooks,
        module._global_backward_hooks,
        module._global_backward_pre_hooks,
    ]


def registered_overloads(qualified_name: str) -> set[str]:
    """The overload names of an operator (``"aten::add"``) that this process has registered."""
    schemas = torch._C._jit_get_schemas_for_operator(qualified_name)
    return {s.overload_name or "default" for s in schemas}


# Tables of Python shape functions and decompositions, used as data.
def python_meta_tables() -> tuple[dict[Any, Callable[..., Any]], dict[Any, Callable[..., Any]]]:
    """``(metas, decompositions)``: operator overload to Python function."""
    import torch._decomp
    import torch._meta_registrations

    return torch._decomp.meta_table, torch._decomp.decomposition_table


def python_kernel(op: torch._ops.OpOverload, key: str) -> Callable[..., Any] | None:
    """The Python kernel registered on ``op`` for a dispatch key such as ``"Meta"``, or None."""
    return op.py_kernels.get(getattr(torch._C.DispatchKey, key))


def primitive_meta(op: torch._ops.OpOverload) -> Callable[..., Any] | None:
    """The shape function of an operator of the ``prims`` namespace, or None."""
    return getattr(op, "prim_meta_impl", None)


def registered_fake(op: torch._ops.OpOverload) -> Callable[..., Any] | None:
    """The function given to ``register_fake`` for a custom operator, or None."""
    from torch._library.custom_ops import OPDEFS
    from torch._library.simple_registry import singleton

    definition = OPDEFS.get(op.name())
    if definition is not None:  # torch registers a stand-in for those without a fake
        fake: Callable[..., Any] | None = definition._abstract_fn
        return fake
    entry = singleton.get(op.name())
    kernel = entry.fake_impl.kernel if entry is not None else None
    return _unchecked(kernel.func) if kernel is not None else None


def _unchecked(fake: Callable[..., Any]) -> Callable[..., Any]:
    """The author's function, out of the one that torch puts around it to look for C++ stubs."""
    if not fake.__qualname__.startswith("_check_pystubs_once."):
        return fake
    return inspect.getclosurevars(fake).nonlocals["func"]  # type: ignore[no-any-return]


def kernel_without_data(op: torch._ops.OpOverload) -> Callable[..., Any] | None:
    """The kernel that runs where tensors have no data, or None: one for ``Meta``, or for all."""
    has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key
    if not any(has_kernel(op.name(), key) for key in ("Meta", "CompositeExplicitAutograd")):
        return None
    keys = torch._C.DispatchKeySet(torch._C.DispatchKey.Meta)
    return functools.partial(op.redispatch, keys)


def is_defined_by_decorator(op: torch._ops.OpOverload) -> bool:
    """Whether ``torch.library.custom_op`` made the operator."""
    from torch._library.custom_ops import OPDEFS

    return op.name() in OPDEFS


@contextlib.contextmanager
def fake_context(getter: Callable[[], Any]) -> Iterator[None]:
    """``torch.library.get_ctx()`` gives what ``getter`` returns inside."""
    from torch._library.fake_impl import set_ctx_getter

    with set_ctx_getter(getter):
        yield


# Entering it turns autocast off for all kinds of device.
autocast_off = torch._C._DisableAutocast

# Entering it turns function modes and overridden functions of tensor classes off.
no_torch_function = torch._C.DisableTorchFunction


def lazy_graph_module(
    graph: torch.fx.Graph,
    root: torch.nn.Module | None = None,
    class_name: str = "GraphModule",
) -> torch.fx.GraphModule:
    """A graph module whose Python code is generated when first needed.

    It gets those attributes of ``root`` that the graph reads.
    """
    from torch.fx._lazy_graph_module import _LazyGraphModule

    return _LazyGraphModule(torch.nn.Module() if root is None else root, graph, class_name)


def container_code(argument_names: list[str], in_spec: Any, out_spec: Any) -> Any:
    """The code generator of a graph that takes and returns containers, given their structure."""
    from torch.fx.graph import _PyTreeCodeGen, _PyTreeInfo

    return _PyTreeCodeGen(_PyTreeInfo(argument_names, in_spec, out_spec))


class PlainDispatchMode(TorchDispatchMode):
    """A dispatch mode whose handler is called as it is.

    torch would wrap the handler so that its frame evaluator leaves it alone, which costs an import
    of the whole evaluator and some microseconds a call.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False


def is_composite_implicit(op: torch._ops.OpOverload) -> bool:
    """Whether the operator has a kernel made of other operators for every backend."""
    return torch._C._dispatch_has_kernel_for_dispatch_key(op.name(), "CompositeImplicitAutograd")


@contextlib.contextmanager
def ambient_modes_off() -> Iterator[None]:
    """No dispatch mode and no function mode that was active outside sees what happens inside."""
    from torch.overrides import _get_current_function_mode_stack, _pop_mode, _push_mode
    from torch.utils._python_dispatch import _disable_current_modes

    functions = [_pop_mode() for _ in _get_current_function_mode_stack()]
    try:
        with _disable_current_modes():
            yield
    finally:
        for mode in reversed(functions):
            _push_mode(mode)


def dispatch_modes() -> list[TorchDispatchMode]:
    """The active dispatch modes of this thread, outermost first."""
    from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

    return list(_get_current_dispatch_mode_stack())


@contextlib.contextmanager
def modes_taken_off(matches: Callable[[Any], bool]) -> Iterator[list[Any]]:
    """The dispatch and function modes that match are off inside; the others keep their order.

    Yields the modes that were taken off, dispatch modes first, outermost first.
    """
    from torch.overrides import _get_current_function_mode_stack, _pop_mode, _push_mode
    from torch.utils import _python_dispatch

    dispatch, functions = dispatch_modes(), list(_get_current_function_mode_stack())
    off = [mode for mode in (*dispatch, *functions) if matches(mode)]
    if not off:
        yield off
        return

    def replace(old: list[Any], new: list[Any], pop: Any, push: Any) -> None:
        for _ in old:
            pop()
        for mode in new:
            push(mode)

    pop, push = _python_dispatch._pop_mode, _python_dispatch._push_mode
    kept_dispatch = [m for m in dispatch if not matches(m)]
    kept_functions = [m for m in functions if not matches(m)]
    replace(dispatch, kept_dispatch, pop, push)
    replace(functions, kept_functions, _pop_mode, _push_mode)
    try:
        yield off
    finally:
        replace(kept_functions, functions, _pop_mode, _push_mode)
        replace(kept_dispatch, dispatch, pop, push)


# The number of the next node of torch's autograd graph; forward and backward share it.
autograd_sequence_number: Callable[[], int] = vars(torch.autograd)["_get_sequence_nr"]


def storage_of(tensor: torch.Tensor) -> torch.UntypedStorage:
    """The storage of a real tensor; no function mode sees the question."""
    with torch._C.DisableTorchFunction():
        return tensor.untyped_storage()


def take_over(tensor: torch.Tensor, other: torch.Tensor) -> None:
    """``tensor.data = other``: sizes, strides and memory of ``other``; no mode sees it."""
    with torch._C.DisableTorchFunction():
        tensor.data = other


def is_functorch_wrapper(tensor: torch.Tensor) -> bool:
    """Whether a transform of ``torch.func`` wrapped the tensor; operators see what is inside."""
    return bool(torch._C._functorch.is_functorch_wrapped_tensor(tensor))


def inside_transform() -> bool:
    """Whether code runs inside ``torch.vmap``, ``torch.func.grad`` or the like."""
    return torch._C._functorch.peek_interpreter_stack() is not None


@contextlib.contextmanager
def compiling_flags() -> Iterator[None]:
    """``torch.compiler.is_compiling()`` and ``is_exporting()`` answer True inside.

    Model libraries choose branches without data-dependent control flow by asking these.
    """
    compiler = torch.compiler
    old = (compiler._is_compiling_flag, compiler._is_exporting_flag)
    compiler._is_compiling_flag = True
    compiler._is_exporting_flag = True
    try:
        yield
    finally:
        compiler._is_compiling_flag, compiler._is_exporting_flag = old


# Functions that take subgraphs and compile them on entry; a capture has to stand in for them.
CONTROL_FLOW = ("cond", "while_loop")


@contextlib.contextmanager
def control_flow_replaced(stand_in: Callable[[str], Callable[..., Any]]) -> Iterator[None]:
    """``torch.cond`` and ``torch.while_loop`` are ``stand_in(name)`` inside."""
    old = {name: getattr(torch, name) for name in CONTROL_FLOW if hasattr(torch, name)}
    try:
        for name in old:
            setattr(torch, name, stand_in(name))
        yield
    finally:
        for name, function in old.items():
            setattr(torch, name, function)


@contextlib.contextmanager
def autocast_cache_disabled() -> Iterator[None]:
    """Casts made during a trace must not be reused after it, nor older ones inside it."""
    old = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(old)


@contextlib.contextmanager
def autocast_watched(entered: Callable[[], None]) -> Iterator[None]:
    """``entered()`` is called whenever a ``torch.autocast`` region begins inside.

    Function modes do not see these regions, and one that switches autocast off where it is off
    leaves no other mark.
    """
    original = torch.autocast.__enter__

    def enter(region: torch.autocast) -> Any:
        entered()
        return original(region)  # type: ignore[no-untyped-call]

    torch.autocast.__enter__ = enter  # type: ignore[method-assign]
    try:
        yield
    finally:
        torch.autocast.__enter__ = original  # type: ignore[method-assign]


def core_decompositions() -> dict[Any, Callable[..., Any]]:
    """torch's Python decompositions down to its core operators: overload -> function."""
    import torch._decomp

    return dict(torch._decomp._core_aten_decompositions_post_autograd())


def composite_operators() -> list[torch._ops.OpOverload]:
    """The operators of ``aten`` that take themselves apart on every backend."""
    has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key
    found = []
    for name in torch._C._dispatch_get_all_op_names():
        if not name.startswith("aten::") or not has_kernel(name, "CompositeImplicitAutograd"):
            continue
        packet, _, overload = name.removeprefix("aten::").partition(".")
        op = getattr(getattr(torch.ops.aten, packet, None), overload or "default", None)
        if op is not None:
            found.append(op)
    return found


def primitive_body(op: torch._ops.OpOverload) -> Callable[..., Any]:
    """What an operator of the ``prims`` namespace is in terms of others."""
    body: Callable[..., Any] = op.impl_aten  # type: ignore[attr-defined]
    return body
