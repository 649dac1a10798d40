"""``make_fx``: a function of tensors as a plain ``torch.fx.GraphModule``, by dispatch.

The function runs once. A dispatch mode below autograd and ``torch.func`` sees every operator that
kernels would see, so a backward pass, ``vmap`` and the like are in the graph as plain operators.
Unlike ``stillframe.export`` nothing is promised about other inputs than those of the sizes that
the placeholders' ``val`` and the guards of ``shape_env`` admit; nothing is lifted, renamed or
checked at run time.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import Any

import torch
from torch.utils import _pytree as pytree

from stillframe import stack, torch_private
from stillframe.errors import DataDependentError, InvalidInput, NotSupported, StillframeError
from stillframe.fake.mode import FakeMode, mode_of
from stillframe.fake.script_objects import FakeScriptObject
from stillframe.fake.tensor import FakeTensor
from stillframe.shapes.env import ShapeEnv, to_size
from stillframe.symbolic import Expr
from stillframe.trace.dispatch import DispatchRecorder, Options
from stillframe.trace.functions import FunctionMode
from stillframe.trace.recorder import RecordingMode, new_placeholder
from stillframe.trace.scope import ModuleScope, module_paths
from stillframe.trace.wrapping import InputWrapper

TRACING_MODES = ("real", "fake", "symbolic")

aten = torch.ops.aten


def make_fx(
    f: Callable[..., Any],
    decomposition_table: Mapping[Any, Callable[..., Any]] | None = None,
    tracing_mode: str = "real",
    *,
    pre_dispatch: bool = False,
    record_module_stack: bool = False,
    allow_non_fake_inputs: bool = False,
    allow_fake_constant: bool = False,
    error_on_data_dependent_ops: bool = True,
) -> Callable[..., torch.fx.GraphModule]:
    """A function that traces ``f`` on its positional arguments and returns the graph.

    Args:
        f: a function of tensors, numbers and containers of these.
        decomposition_table: operator overload -> a function of the same arguments that is traced
            in its place. Composite operators take themselves apart, except before dispatch.
        tracing_mode: ``"real"`` runs the real kernels, in-place operators on the arguments
            included; ``"fake"`` needs no data; ``"symbolic"`` also leaves the sizes of inputs open
            (equal sizes share a symbol, 0 and 1 are fixed), and integers among the inputs.
        pre_dispatch: record operators before autograd and composite operators take effect. The
            function may then not ask for gradients itself.
        record_module_stack: write ``nn_module_stack``; ``f`` is a module or has one as
            ``_orig_mod``.
        allow_non_fake_inputs: in fake and symbolic mode, real tensors that ``f`` closes over
            become attributes of the graph instead of an error.
        allow_fake_constant: fakes of another trace become attributes instead of an error.
        error_on_data_dependent_ops: in real mode, refuse ``item()`` and the like on tensors whose
            value depends on the inputs, instead of keeping the example's answer.

    Returns:
        A function; the graph module it returns takes and gives the same containers as ``f``. In
        fake and symbolic mode it has the attribute ``shape_env``, whose guards say what the trace
        assumed of the sizes.

    Raises:
        InvalidInput: an unknown tracing mode.
    """
    if tracing_mode not in TRACING_MODES:
        raise InvalidInput(
            f"tracing_mode is one of {', '.join(TRACING_MODES)}; got {tracing_mode!r}."
        )
    options = Options(
        table=with_default_entries(decomposition_table or {}),
        mode=tracing_mode,
        pre_dispatch=pre_dispatch,
        record_module_stack=record_module_stack,
        allow_non_fake_inputs=allow_non_fake_inputs,
        allow_fake_constant=allow_fake_constant,
        error_on_data_dependent_ops=error_on_data_dependent_ops,
    )

    def trace(*args: Any) -> torch.fx.GraphModule:
        with disable_proxy_modes_tracing() as outer:
            return _Trace(f, args, options, outer, sys._getframe(1)).run()

    return trace


def with_default_entries(
    table: Mapping[Any, Callable[..., Any]],
) -> dict[Any, Callable[..., Any]]:
    """The caller's table, and the number of elements as a product of sizes. A new dict."""
    return {aten.sym_numel.default: _numel, **table}


def _numel(tensor: torch.Tensor) -> Any:
    total: Any = 1
    for size in tensor.shape:
        total = total * size
    return total


def get_isolated_graphmodule(
    f: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any] | None = None,
    tracing_mode: str = "real",
    decomposition_table: Mapping[Any, Callable[..., Any]] | None = None,
) -> torch.fx.GraphModule:
    """The graph of ``f(*args, **kwargs)``; a trace that is in progress sees nothing of it.

    Keyword arguments become further inputs, in order.
    """
    of_leaves, flat = flat_call(f, args, kwargs or {})
    return make_fx(of_leaves, decomposition_table, tracing_mode)(*flat)


def flat_call(
    f: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Callable[..., Any], list[Any]]:
    """``f`` as a function of the leaves of its arguments, and the leaves: for keyword arguments."""
    flat, spec = pytree.tree_flatten((tuple(args), kwargs))

    def of_leaves(*leaves: Any) -> Any:
        call_args, call_kwargs = pytree.tree_unflatten(list(leaves), spec)
        return f(*call_args, **call_kwargs)

    return of_leaves, flat


def get_innermost_proxy_mode() -> RecordingMode | None:
    """The recording mode of the trace in progress, or None. Its ``recorder`` is the trace."""
    for mode in reversed(torch_private.dispatch_modes()):
        if isinstance(mode, RecordingMode):
            return mode
    return None


@contextlib.contextmanager
def disable_proxy_modes_tracing() -> Iterator[RecordingMode | None]:
    """Traces in progress see nothing of what happens inside; yields the innermost of them."""
    innermost = get_innermost_proxy_mode()
    with torch_private.modes_taken_off(lambda m: isinstance(m, (RecordingMode, FunctionMode))):
        yield innermost


class _Trace:
    """One call of what ``make_fx`` returns."""

    def __init__(
        self,
        f: Callable[..., Any],
        args: tuple[Any, ...],
        options: Options,
        outer: RecordingMode | None,
        floor: FrameType,
    ) -> None:
        self.f = f
        self.args = args
        self.options = options
        self.leaves, self.in_spec = pytree.tree_flatten(args)
        fake_mode = _shared_fake_mode(self.leaves, outer)
        self.env = ShapeEnv() if fake_mode is None else fake_mode.env
        if fake_mode is None and options.mode != "real":
            fake_mode = FakeMode(self.env)
        self.root = _traced_module(f) if options.record_module_stack else None
        scope = ModuleScope([] if self.root is None else module_paths(self.root))
        self.recorder = DispatchRecorder(options, self.env, fake_mode, scope, floor, self.root)
        self.argument_names = _argument_names(f, len(args))

    def run(self) -> torch.fx.GraphModule:
        values = self._make_placeholders()
        try:
            with self.recorder.recording():
                args = pytree.tree_unflatten(values, self.in_spec)
                outputs, out_spec = pytree.tree_flatten(self.f(*args))
                self.recorder.flush_asserts()
                operands = [self._output(value) for value in outputs]
        except StillframeError:
            raise
        except RuntimeError as e:
            refusal = self._refusal(e)
            if refusal is None:
                raise
            raise refusal from e
        finally:
            self.recorder.attributes.check_gradients()
        self._make_output(operands, out_spec)
        self.recorder.finish()
        return self._build()

    # -- inputs ---------------------------------------------------------------------------------

    def _make_placeholders(self) -> list[Any]:
        recorder = self.recorder
        wrapper = InputWrapper(self.env, self.options.mode)
        values: list[Any] = []
        for name, leaf in zip(self._placeholder_names(), self.leaves, strict=True):
            value = self._wrapped(wrapper, leaf, name)
            node = new_placeholder(recorder.graph, name)
            values.append(value)
            if isinstance(value, torch.Tensor):
                recorder.bind_tensor(value, node)
                recorder.describe(node, value)
                self._bind_symbols(value, node)
            elif isinstance(value, (torch.ScriptObject, FakeScriptObject)):
                recorder.objects.bind(value, node)
                node.meta["val"] = value
            elif isinstance(to_size(value), Expr):
                recorder.symbols.bind(to_size(value), node)
                node.meta["val"] = value
        return values

    def _wrapped(self, wrapper: InputWrapper, leaf: Any, name: str) -> Any:
        """The value that stands for one leaf."""
        if isinstance(leaf, torch_private.FakeScriptObjectBase):
            raise InvalidInput(f"{name} is a stand-in for a script object, of another trace.")
        if self.options.mode != "real" and torch_private.is_script_object(leaf):
            return self.recorder.objects.fake_of(leaf, f"The input {name}")
        return wrapper.wrap(leaf, name)

    def _bind_symbols(self, value: torch.Tensor, node: torch.fx.Node) -> None:
        """Where symbols can be read off an input: sizes first, then strides and offset."""
        symbols = self.recorder.symbols

        def thunk() -> torch.fx.Node:
            return node

        sizes, strides, offset = _layout(value)
        symbols.bind_sizes(sizes, thunk)
        symbols.bind_specified(value, thunk)
        for dim, stride in enumerate(strides):
            if isinstance(stride, Expr):
                symbols.bind_query(stride, aten.sym_stride.int, thunk, dim)
        if isinstance(offset, Expr):
            symbols.bind_query(offset, aten.sym_storage_offset.default, thunk)

    def _placeholder_names(self) -> list[str]:
        """``x_1`` for the argument ``x``; ``x_1, x_2, ...`` for the leaves of a container."""
        names: list[str] = []
        for name, arg in zip(self.argument_names, self.args, strict=True):
            names += [f"{name}_{i + 1}" for i in range(len(pytree.tree_leaves(arg)))]
        return names

    # -- outputs --------------------------------------------------------------------------------

    def _output(self, value: Any) -> Any:
        handles = (torch.Tensor, torch.ScriptObject, FakeScriptObject)
        if isinstance(value, handles) or isinstance(to_size(value), Expr):
            return self.recorder.operand(value)
        return value

    def _make_output(self, operands: list[Any], out_spec: pytree.TreeSpec) -> None:
        """Containers that fx knows stay in the output node; others need generated code."""
        graph = self.recorder.graph
        plain = all(pytree.tree_structure(arg).is_leaf() for arg in self.args)
        if plain and has_only_fx_containers(out_spec):
            graph.output(pytree.tree_unflatten(operands, out_spec))
            return
        graph.output(operands)
        graph.set_codegen(torch_private.container_code(self.argument_names, self.in_spec, out_spec))

    def _build(self) -> torch.fx.GraphModule:
        graph = self.recorder.graph
        name = getattr(self.f, "__name__", type(self.f).__name__)
        module = torch_private.lazy_graph_module(
            graph, self.recorder.attributes.root, _identifier(name)
        )
        if self.options.mode != "real":
            setattr(module, "shape_env", self.env)
        return module

    def _refusal(self, error: RuntimeError) -> StillframeError | None:
        """A typed error for what torch says where C++ code needs sizes as numbers, or data."""
        if self.options.mode == "real":
            return None
        message = str(error).splitlines()[0] if str(error) else ""
        where = stack.summary(stack.of_traceback(error.__traceback__))
        if "symbolic sizes/strides" in message:
            return NotSupported(
                "An operator of torch has no form for symbolic sizes.",
                why=message,
                where=where,
                hints=['trace with tracing_mode="fake"'],
            )
        if "data is not allocated" in message or "invalid python storage" in message:
            return DataDependentError(
                "Code outside of torch's operators asked for the data of a tensor.",
                why=message,
                where=where,
            )
        return None


def _shared_fake_mode(leaves: list[Any], outer: RecordingMode | None) -> FakeMode | None:
    """The fakes of the trace around this one, or of the arguments, are also those of this one."""
    if outer is not None:
        recorder = outer.recorder
        return recorder.runs_on if isinstance(recorder, DispatchRecorder) else recorder.fake_mode
    fakes = [leaf for leaf in leaves if isinstance(leaf, FakeTensor)]
    return mode_of(fakes, {}) if fakes else None


def _traced_module(f: Callable[..., Any]) -> torch.nn.Module | None:
    if isinstance(f, torch.nn.Module):
        return f
    original = getattr(f, "_orig_mod", None)
    return original if isinstance(original, torch.nn.Module) else None


def _layout(tensor: torch.Tensor) -> tuple[Any, Any, Any]:
    if isinstance(tensor, FakeTensor):
        if tensor.sparse is not None:
            return tensor.sizes, (), 0
        return tensor.sizes, tensor.strides, tensor.offset
    if tensor.layout is not torch.strided or tensor.is_nested:
        return (), (), 0
    sizes = tuple(to_size(s) for s in tensor.shape)
    return sizes, tuple(to_size(s) for s in tensor.stride()), to_size(tensor.storage_offset())


def _argument_names(f: Callable[..., Any], count: int) -> list[str]:
    """The names of the parameters of a plain function; ``arg0, arg1, ...`` for anything else."""
    code = getattr(f, "__code__", None)
    if inspect.isfunction(f) and code is not None and not code.co_flags & inspect.CO_VARARGS:
        names = list(code.co_varnames[: code.co_argcount])
        if len(names) >= count:
            return names[:count]
    return [f"arg{i}" for i in range(count)]


def has_only_fx_containers(spec: pytree.TreeSpec) -> bool:
    """Whether the generated code of an fx graph can take a structure apart by itself."""
    if spec.is_leaf():
        return True
    known = spec.type in (list, tuple) or (
        spec.type is dict and all(isinstance(key, str) for key in spec.context)
    )
    return known and all(has_only_fx_containers(child) for child in spec.children())


def _identifier(name: str) -> str:
    return name if name.isidentifier() else "GraphModule"
