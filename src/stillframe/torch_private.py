"""Every private name of torch that the package leans on, each in one place.

torch moves these between releases. Each entry says what it does for us; a test in
``tests/test_torch_private.py`` calls every one, so that a move fails loudly there and not inside
somebody's capture.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.utils import _pytree as pytree
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


def switch_gradients_unseen(enabled: bool) -> bool:
    """Set the grad mode without any function mode seeing it; returns the old one."""
    with torch._C.DisableTorchFunction():
        old = torch.is_grad_enabled()
        set_grad_enabled(enabled)
    return old


# Whether autocast is on for any kind of device: one call, cheap enough for every run of a program.
any_autocast_enabled: Callable[[], bool] = torch._C._is_any_autocast_enabled

# In the handler of a dispatch mode: entering it restores what its caller had switched on and off
# (autocast is off in handlers).
modes_of_caller: Callable[[], contextlib.AbstractContextManager[None]] = (
    torch._C._RestorePythonTLSSnapshot  # type: ignore[attr-defined]
)


def is_cast_itself(op: torch._ops.OpOverload, device: str) -> bool:
    """Whether autocast casts the arguments of the operator itself for this kind of device."""
    key = f"Autocast{device.upper()}"
    if key not in torch._C.DispatchKey.__members__:
        return False
    return torch._C._dispatch_has_kernel_for_dispatch_key(op.name(), key)


# What function modes are shown for ``tensor.data = other``.
set_data = vars(torch._C.TensorBase)["data"].__set__

# The same for ``tensor.requires_grad = value`` and ``tensor.grad``.
set_requires_grad = vars(torch._C.TensorBase)["requires_grad"].__set__
get_grad = vars(torch._C.TensorBase)["grad"].__get__
set_grad = vars(torch._C.TensorBase)["grad"].__set__
get_data = vars(torch._C.TensorBase)["data"].__get__
get_is_leaf = vars(torch._C.TensorBase)["is_leaf"].__get__
get_grad_fn = vars(torch._C.TensorBase)["grad_fn"].__get__

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


def composite_in_python(op: torch._ops.OpOverload) -> Callable[..., Any]:
    """torch's Python form of a composite operator that has one beside its C++ form."""
    importlib.import_module("torch._decomp.decompositions")  # registers them
    kernel = python_kernel(op, "CompositeImplicitAutograd")
    if kernel is None:
        raise KeyError(f"{op} has no kernel in Python")
    return kernel


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


def names_of_generated_code() -> frozenset[str]:
    """The globals that fx puts into the code of every graph."""
    from torch.fx.graph import _custom_builtins

    return frozenset(_custom_builtins)


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


def function_modes() -> list[Any]:
    """The active function modes of this thread, outermost first."""
    from torch.overrides import _get_current_function_mode_stack

    return list(_get_current_function_mode_stack())


@contextlib.contextmanager
def modes_taken_off(matches: Callable[[Any], bool]) -> Iterator[list[Any]]:
    """The dispatch and function modes that match are off inside; the others keep their order.

    Yields the modes that were taken off, dispatch modes first, outermost first.
    """
    from torch.overrides import _pop_mode, _push_mode
    from torch.utils import _python_dispatch

    dispatch, functions = dispatch_modes(), function_modes()
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


def specified_elements(tensor: torch.Tensor) -> int:
    """How many elements of a sparse tensor are specified."""
    return int(tensor._nnz())


# -- script objects: instances of torch.classes.* --------------------------------------------------


def _fake_script_object_base() -> Any:
    from torch._library.fake_class_registry import FakeScriptObject

    return FakeScriptObject


#: Operators that take script objects accept instances of it, too, and then dispatch in Python.
FakeScriptObjectBase = _fake_script_object_base()


def is_script_object(value: Any) -> bool:
    """Whether a value is an instance of a class of ``torch.classes``."""
    if not isinstance(value, torch.ScriptObject):
        return False
    return script_class_name(value).startswith("__torch__.torch.classes.")


def script_class_name(value: torch.ScriptObject) -> str:
    """The qualified name of the class of a script object."""
    return str(value._type().qualified_name())


def has_method(value: torch.ScriptObject, name: str) -> bool:
    """Whether the class of a script object has a method."""
    return bool(value._has_method(name))  # type: ignore[attr-defined]


def takes_script_object(op: Any) -> bool:
    """Whether an operator has an argument that is a script object."""
    return isinstance(op, torch._ops.TorchBindOpOverload)


def owner_of(method: Any) -> Any:
    """The object that a bound method of TorchScript belongs to."""
    return method.raw_owner


def registered_fake_class(name: str) -> Any:
    """The class given to ``register_fake_class`` for a qualified name, or None."""
    from torch._library.fake_class_registry import global_fake_class_registry as registry

    return registry.get_impl(name) if registry.has_impl(name) else None


def has_ordered_effect(op: Any) -> bool:
    """Whether an operator is registered to have a side effect whose order counts.

    torch registers a check of linear algebra so, too, to keep it alive; it needs no order.
    """
    from torch._library.simple_registry import singleton

    if isinstance(op, torch._ops.HigherOrderOperator):
        return op is call_torchbind()
    if (
        not isinstance(op, torch._ops.OpOverload)
        or op is torch.ops.aten._linalg_check_errors.default
    ):
        return False
    aliasing = any(a.alias_info for a in (*op._schema.arguments, *op._schema.returns))
    if aliasing:
        return False
    entry = singleton.get(op.name())  # torch makes one when an effect or a fake is registered
    return takes_script_object(op) if entry is None else entry.effect.effect is not None


def with_effects() -> Any:
    """The operator that orders effects: ``(token, op, *args) -> (token, result)``."""
    return torch.ops.higher_order.with_effects


def call_torchbind() -> Any:
    """The operator that calls a method of a script object: ``(object, name, *args)``."""
    return torch.ops.higher_order.call_torchbind


def take_over(tensor: torch.Tensor, other: torch.Tensor) -> None:
    """``tensor.data = other``: sizes, strides and memory of ``other``; no mode sees it."""
    with torch._C.DisableTorchFunction():
        tensor.data = other


def is_functorch_wrapper(tensor: torch.Tensor) -> bool:
    """Whether a transform of ``torch.func`` wrapped the tensor; operators see what is inside."""
    return bool(torch._C._functorch.is_functorch_wrapped_tensor(tensor))


def is_innermost_function_mode(mode: Any) -> bool:
    """Whether ``mode`` sees the next call of a torch function in this thread first."""
    modes = torch.overrides._get_current_function_mode_stack()
    return bool(modes) and modes[-1] is mode


def inside_transform() -> bool:
    """Whether code runs inside ``torch.vmap``, ``torch.func.grad`` or the like."""
    return torch._C._functorch.peek_interpreter_stack() is not None


_held: dict[tuple[int, str], tuple[Any, int]] = {}  # what an attribute was before, and for how many
_held_lock = threading.Lock()


def _hold(owner: Any, name: str, make: Callable[[Any], Any]) -> None:
    """An attribute of torch is ``make(what it was)`` until the last that held it puts it back."""
    with _held_lock:
        before, count = _held.get((id(owner), name)) or (getattr(owner, name), 0)
        _held[id(owner), name] = before, count + 1
        if not count:
            setattr(owner, name, make(before))


def _put_back(owner: Any, name: str) -> None:
    with _held_lock:
        before, count = _held.pop((id(owner), name))
        if count > 1:
            _held[id(owner), name] = before, count - 1
        else:
            setattr(owner, name, before)


@contextlib.contextmanager
def _flags_up(owner: Any, *names: str) -> Iterator[None]:
    """Flags of the process are True inside; threads that raise them at one time share them."""
    for name in names:
        _hold(owner, name, lambda _: True)
    try:
        yield
    finally:
        for name in names:
            _put_back(owner, name)


class _StandIns(threading.local):
    """What stands in for functions in this thread: (owner, name) -> a stack."""

    def __init__(self) -> None:
        self.stacks: dict[tuple[int, str], list[Callable[..., Any]]] = {}


_active = _StandIns()


@contextlib.contextmanager
def functions_replaced(owner: Any, stand_ins: Mapping[str, Callable[..., Any]]) -> Iterator[None]:
    """Functions of a module or class of torch are others inside, in this thread.

    Args:
        stand_ins: name -> what is called instead, with the function itself before its arguments.
    """
    for name, stand_in in stand_ins.items():
        _hold(owner, name, functools.partial(_for_one_thread, (id(owner), name)))
        _active.stacks.setdefault((id(owner), name), []).append(stand_in)
    try:
        yield
    finally:
        for name in stand_ins:
            _active.stacks[id(owner), name].pop()
            _put_back(owner, name)


def _for_one_thread(key: tuple[int, str], original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def call(*args: Any, **kwargs: Any) -> Any:
        stack = _active.stacks.get(key)
        return stack[-1](original, *args, **kwargs) if stack else original(*args, **kwargs)

    return call


def compiling_flags() -> contextlib.AbstractContextManager[None]:
    """``torch.compiler.is_compiling()`` and ``is_exporting()`` answer True inside.

    Libraries ask them to leave out what cannot be captured. They are flags of the process, so
    threads that capture at one time share them.
    """
    return _flags_up(torch.compiler, "_is_compiling_flag", "_is_exporting_flag")


# The higher-order operators that a graph may call; all but the last one take subgraphs.
HIGHER_ORDER = (
    "cond", "while_loop", "while_loop_stack_output", "map_impl", "scan", "associative_scan",
    "flex_attention", "invoke_subgraph", "hints_wrapper", "strict_mode", "invoke_quant",
    "invoke_quant_packed", "foreach_map", "print", "autograd_function_apply",
)  # fmt: skip


def higher_order_operators() -> dict[str, Any]:
    """The higher-order operators that a graph may call, by name."""
    return {name: getattr(torch.ops.higher_order, name) for name in HIGHER_ORDER}


def has_transform_rule(op: Any) -> bool:
    """Whether the innermost transform of ``torch.func`` knows a higher-order operator."""
    interpreter = torch._C._functorch.peek_interpreter_stack()
    return interpreter is not None and interpreter.key() in op.functorch_table


def is_listened_to(op: Any) -> bool:
    """Whether someone wants to see this operator that takes functions: a trace, a transform."""
    if inside_transform():
        return True
    return any(
        mode.supports_higher_order_operators or type(mode) in op.python_key_table
        for mode in dispatch_modes()
    )


# Answers a call of a higher-order operator, given the operator and its arguments.
OperatorHandler = Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]


def _compile_and_call(compiled: Any, function: Any, args: Any, kwargs: Any = None) -> Any:
    """In place of torch's function that compiles a call of a higher-order operator."""
    return function(*args, **(kwargs or {}))


def _cond(compiled: Any, pred: Any, true_fn: Any, false_fn: Any, operands: Any = ()) -> Any:
    """In place of ``torch.cond``, which would import all of torch's compiler."""
    if isinstance(pred, (bool, int, float)):
        return (true_fn if pred else false_fn)(*operands)
    leaves, spec = pytree.tree_flatten(tuple(operands))

    def of_leaves(function: Any) -> Any:
        return lambda *values: function(*pytree.tree_unflatten(values, spec))

    functions = [of_leaves(function) for function in (true_fn, false_fn)]
    return torch.ops.higher_order.cond(pred, *functions, tuple(leaves))


def _compile_region(compiled: Any, function: Any, *args: Any, **kwargs: Any) -> Any:
    """In place of what ``mark_compile_region`` calls: the region becomes one operator."""
    leaves, spec = pytree.tree_flatten((args, kwargs))
    tensors = [i for i, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)]
    out_specs: list[pytree.TreeSpec] = []

    def of_tensors(*values: Any) -> Any:
        given = list(leaves)
        for i, value in zip(tensors, values, strict=True):
            given[i] = value
        inner_args, inner_kwargs = pytree.tree_unflatten(given, spec)
        results, out_spec = pytree.tree_flatten(function(*inner_args, **inner_kwargs))
        out_specs.append(out_spec)
        return tuple(results)

    operator = torch.ops.higher_order.invoke_subgraph
    results = operator(of_tensors, None, *(leaves[i] for i in tensors))
    return pytree.tree_unflatten(results, out_specs[0])


def call_unanswered(op: Any, *args: Any, **kwargs: Any) -> Any:
    """Call a higher-order operator through torch's dispatcher; what that calls may be answered."""
    owner = torch._ops.HigherOrderOperator
    call, _ = _held.get((id(owner), "__call__")) or (owner.__call__, 0)
    return call(op, *args, **kwargs)


def _call_base(checked: Any, op: Any, function: Any, *operands: Any, **options: Any) -> Any:
    """In place of a check that functions are graph modules: a capture makes them such."""
    return torch._ops.HigherOrderOperator.__call__(op, function, *operands, **options)


def _register_hook(checked: Any, op: Any, *args: Any) -> Any:
    """In place of a call that skips the dispatcher."""
    return torch._ops.HigherOrderOperator.__call__(op, *args)


def keeps_local_maps() -> bool:
    """Whether ``local_map`` is to stay one operator (``defer_inlining`` of torch)."""
    module = sys.modules.get("torch._higher_order_ops.local_map")
    return bool(module and vars(module)["_DEFER_INLINING"])


def promoted_dtype(values: Sequence[Any]) -> torch.dtype:
    """The dtype in which an arithmetic operator computes on these tensors and numbers."""
    from torch._prims_common import ELEMENTWISE_TYPE_PROMOTION_KIND, elementwise_dtypes

    kind = ELEMENTWISE_TYPE_PROMOTION_KIND.DEFAULT
    dtype: torch.dtype = elementwise_dtypes(*values, type_promotion_kind=kind)[0]
    return dtype


@contextlib.contextmanager
def higher_order_answered(handler: OperatorHandler) -> Iterator[None]:
    """``torch.cond``, ``while_loop``, ``scan``... call their operator as it is inside.

    ``handler`` answers the operators that this thread calls, or returns ``NotImplemented``: a
    function mode would see these calls, too, but not those of a backward pass. Outside of a
    recording, in other threads too, torch compiles the functions that the operators are given.
    """
    from torch._higher_order_ops import base_hop, register_hook, utils

    def answer(dispatch: Any, op: Any, /, *args: Any, **kwargs: Any) -> Any:
        found = handler(op, args, kwargs)
        return dispatch(op, *args, **kwargs) if found is NotImplemented else found

    # the package has an operator of the same name
    invoke_subgraph = sys.modules["torch._higher_order_ops.invoke_subgraph"]
    attention = sys.modules.get("torch.nn.attention.flex_attention")
    with contextlib.ExitStack() as held:
        for owner, name, stand_in in (
            (torch, "cond", _cond),
            (utils, "_hop_compile_and_call", _compile_and_call),
            (invoke_subgraph, "invoke_subgraph_placeholder", _compile_region),
            (torch._ops.HigherOrderOperator, "__call__", answer),
            (base_hop.BaseHOP, "__call__", _call_base),
            (register_hook.RegisterHookOp, "__call__", _register_hook),
            (type(torch.ops.higher_order.autograd_function_apply), "__call__", answer),
        ):
            held.enter_context(functions_replaced(owner, {name: stand_in}))
        if attention is not None:  # a flag by which flex_attention calls its operator
            held.enter_context(_flags_up(attention, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG"))
        yield


@contextlib.contextmanager
def autocast_cache_disabled() -> Iterator[None]:
    """Casts made during a trace must not be reused after it, nor older ones inside it."""
    old = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(old)


# Told of an ``autograd.Function`` class, its arguments, and what applies it; may answer instead.
FunctionWatcher = Callable[[Any, tuple[Any, ...], Callable[[], Any]], Any]


class _ThreadWatchers(threading.local):
    """Who wants to know of the ``autograd.Function`` classes that this thread applies."""

    def __init__(self) -> None:
        self.applied: list[FunctionWatcher] = []


_watchers = _ThreadWatchers()
_watchers_lock = threading.Lock()
_watchers_users = 0


@contextlib.contextmanager
def autograd_functions_watched(applied: FunctionWatcher) -> Iterator[None]:
    """``applied`` is called whenever this thread applies a ``torch.autograd.Function`` inside.

    Its answer is the result, unless it is ``NotImplemented``. Who began to watch last is asked
    first. The class below ``Function`` is watched, so that an ``apply`` taken before is seen, too.
    """
    from torch.autograd.function import _SingleLevelFunction as watched

    def apply(cls: Any, *args: Any, **kwargs: Any) -> Any:
        def run() -> Any:
            return super(watched, cls).apply(*args, **kwargs)

        for watcher in reversed(list(_watchers.applied)):
            found = watcher(cls, args, run)
            if found is not NotImplemented:
                return found
        return run()

    global _watchers_users
    with _watchers_lock:
        if _watchers_users == 0:
            setattr(watched, "apply", classmethod(apply))
        _watchers_users += 1
    _watchers.applied.append(applied)
    try:
        yield
    finally:
        _watchers.applied.pop()
        with _watchers_lock:
            _watchers_users -= 1
            if _watchers_users == 0:
                delattr(watched, "apply")


def autocast_watched(
    entered: Callable[[torch.autocast], None], left: Callable[[torch.autocast], None]
) -> contextlib.AbstractContextManager[None]:
    """Whenever a ``torch.autocast`` region begins inside, or ends, a function is called with it.

    Function modes do not see these regions, and one that switches autocast off where it is off
    leaves no other mark.
    """

    def enter(original: Callable[..., Any], region: torch.autocast) -> Any:
        entered(region)
        return original(region)

    def leave(original: Callable[..., Any], region: torch.autocast, *error: Any) -> Any:
        left(region)
        return original(region, *error)

    return functions_replaced(torch.autocast, {"__enter__": enter, "__exit__": leave})


def autocast_switches() -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The functions by which a graph enters a region of autocast, and leaves it."""
    return torch.amp.autocast_mode._enter_autocast, torch.amp.autocast_mode._exit_autocast


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


# -- what guards look at ---------------------------------------------------------------------------


# The dispatch keys of a tensor, a set that can be compared.
dispatch_keys: Callable[[torch.Tensor], Any] = torch._C._dispatch_keys


def storage_identity(storage: torch.UntypedStorage) -> int:
    """A number that two objects for one storage share."""
    return int(storage._cdata)


def sparse_parts(tensor: torch.Tensor) -> list[torch.Tensor]:
    """The strided tensors that a sparse tensor is made of; none for other layouts."""
    if tensor.layout is torch.sparse_coo:
        return [tensor._indices(), tensor._values()]
    if tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        return [tensor.crow_indices(), tensor.col_indices(), tensor.values()]
    if tensor.layout in (torch.sparse_csc, torch.sparse_bsc):
        return [tensor.ccol_indices(), tensor.row_indices(), tensor.values()]
    return []


# Where torch's ``mark_dynamic`` and its relatives write on a tensor which dims they are about.
DIM_MARKS = (
    "_dynamo_dynamic_indices",
    "_dynamo_weak_dynamic_indices",
    "_dynamo_unbacked_indices",
    "_dynamo_strict_unbacked_indices",
    "_dynamo_static_indices",
)

# Whether overriding of functions is on in this thread: all of it, or for modes or subclasses only.
torch_function_state: Callable[[], Any] = vars(torch._C)["_get_torch_function_state"]
set_torch_function_state: Callable[[Any], None] = vars(torch._C)["_set_torch_function_state"]


#: In which operators go to kernels, past modes and subclasses.
no_torch_dispatch = torch._C._DisableTorchDispatch

#: In which no override of a subclass is asked, though modes are.
subclasses_disabled = torch._C.DisableTorchFunctionSubclass


def ignores_torch_function(cls: type[torch.Tensor]) -> bool:
    """Whether torch functions do not care that a tensor is of this subclass."""
    function = cls.__torch_function__
    return getattr(function, "__func__", function) is disabled_torch_function


def asks_subclasses() -> bool:
    """Whether torch functions ask the overrides of subclasses in this thread."""
    return bool(torch_function_state() == vars(torch._C)["_TorchFunctionState"].ENABLED)


def plain_results() -> Any:
    """Functions whose results are not made tensors of the operand's subclass."""
    return torch.overrides.get_default_nowrap_functions()


# How many function modes are active in this thread: cheap, for the usual case of none.
count_function_modes: Callable[[], int] = torch._C._len_torch_function_stack


def default_device_of(mode: Any) -> torch.device | None:
    """The device of a function mode that ``torch.set_default_device`` made, else None."""
    from torch.utils._device import DeviceContext

    return mode.device if type(mode) is DeviceContext else None


def optimizer_numbers() -> tuple[Any, Any]:
    """How ``torch.optim`` reads a number in a tensor, and what it does with a list of such numbers;
    both do something else for compilers."""
    module: Any = sys.modules[torch.optim.Optimizer.__module__]
    return module._get_value, module._stack_if_compiling


def fsdp_training_state(module: torch.nn.Module) -> Any:
    """What FSDP is doing with a module that it manages; None if it does not manage it."""
    get_state = getattr(module, "_get_fsdp_state", None)
    if get_state is None:
        return getattr(module, "training_state", None)
    group = get_state()._fsdp_param_group
    return None if group is None else group._training_state
