"""wrap_fx_proxy: what goes with the value of a graph node.

A node is an input, and its example a tensor that was there before; or torch has computed it during
the trace. What a result may be is a list of wrappers, the first that fits is taken: the files in
``kinds/`` register theirs. The value itself is kept on the node as ``example_value``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from stillframe import torch_private
from stillframe.errors import InternalError
from stillframe.fake.tensor import FakeTensor
from stillframe.guards import install_guard
from stillframe.source import Source

if TYPE_CHECKING:
    from stillframe.variables.base import VariableTracker
    from stillframe.variables.translator import Translator

ResultTest = Callable[[torch.fx.Node, Any], bool]
ResultWrapper = Callable[..., "VariableTracker"]
W = TypeVar("W", bound=ResultWrapper)

_RESULTS: dict[float, tuple[str, ResultTest, ResultWrapper, bool]] = {}

#: Where a node keeps the value that stands for it.
EXAMPLE = "example_value"


def wraps_result(
    place: float, name: str, test: ResultTest, *, stored: bool = True
) -> Callable[[W], W]:
    """Register what wraps a result: ``(tx, node, value, **options) -> tracker``.

    Args:
        place: its place in the list; lower ones are asked first.
        name: what it wraps, for a reader of the list.
        test: ``(node, value)``: whether it does.
        stored: whether the value is kept on the node.
    """

    def register(wrapper: W) -> W:
        if place in _RESULTS:
            raise InternalError(f"two wrappers of results: {_RESULTS[place][0]} and {name}")
        _RESULTS[place] = name, test, wrapper, stored
        return wrapper

    return register


def wrap_fx_proxy(
    tx: Translator,
    proxy: Any,
    example_value: Any = None,
    subclass_type: type | None = None,
    **options: Any,
) -> VariableTracker:
    """What goes with the value of a node of the graph.

    Args:
        proxy: the node, or an ``fx.Proxy`` of it.
        example_value: for an input: the tensor from outside, or the fake that stands for it.
            Without, the node is run on fakes, unless the recorder has done that.
        subclass_type: the class that the program sees, one with a ``__torch_function__``.
        options: ``source`` of an input, ``guards`` to install; the rest is for the kind.

    Raises:
        InternalError: the node has a value already, or the value is of another fake mode.
        FrameError: a graph cannot have such a result; names its class and the operator.
    """
    node = proxy.node if isinstance(proxy, torch.fx.Proxy) else proxy
    if EXAMPLE in node.meta:
        raise InternalError(f"the node {node} has a value already")
    install_guard(*options.pop("guards", ()))
    if example_value is None:
        value = _result_of(tx, node)
    else:
        value = _example(tx, node, example_value, options.get("source"))
    _check_mode(tx, value)
    if subclass_type is not None:
        options["subclass_type"] = subclass_type
    for place in sorted(_RESULTS):
        _, test, wrapper, stored = _RESULTS[place]
        if test(node, value):
            if stored:
                node.meta[EXAMPLE] = value
            return wrapper(tx, node, value, **options)
    raise tx.graph_break(
        f"A graph has no results of class {type(value).__qualname__}, as {node.op} "
        f"{_shown(node.target)} gives."
    )


def _shown(target: Any) -> str:
    return target if isinstance(target, str) else getattr(target, "__name__", str(target))


def _example(tx: Translator, node: torch.fx.Node, value: Any, source: Source | None) -> Any:
    """The fake for an input; one of this trace is kept."""
    if not isinstance(value, torch.Tensor) or _is_ours(tx, value):
        return value
    if source is None:
        raise InternalError("a tensor becomes an input, and it is not known where it is read")
    if tx.options.export:
        tx.inputs.real_values[node] = clone_with_strides(value)
    return tx.inputs.fake_and_record(source, value, node)


def clone_with_strides(value: torch.Tensor) -> torch.Tensor:
    """A copy with the same sizes and strides, gaps and overlaps included, and no history.

    Fakes and nested tensors are given back as they are: there is nothing to keep, or no strides.
    """
    if isinstance(value, FakeTensor) or value.is_nested:
        return value
    with torch_private.no_torch_function(), torch_private.no_torch_dispatch(), torch.no_grad():
        extent = 1 + sum(
            (size - 1) * stride for size, stride in zip(value.shape, value.stride(), strict=True)
        )
        flat = value.as_strided((extent if value.numel() else 0,), (1,))
        return flat.clone().as_strided(value.shape, value.stride(), 0)


def _is_ours(tx: Translator, value: Any) -> bool:
    return isinstance(value, FakeTensor) and value.env is tx.env


def _check_mode(tx: Translator, value: Any) -> None:
    if isinstance(value, (tuple, list)):
        for item in value:
            _check_mode(tx, item)
    elif isinstance(value, torch.Tensor) and not _is_ours(tx, value):
        raise InternalError(f"a value of the graph is no fake of this trace: {type(value)}")


def _result_of(tx: Translator, node: torch.fx.Node) -> Any:
    """The value of a node: what the recorder found, else what it gives for fakes now."""
    if "val" in node.meta:
        return node.meta["val"]
    if node.op == "placeholder":
        raise InternalError(f"the input {node} has no example")
    with tx.recorder.fake_mode.unrecorded():
        if node.op == "get_attr":
            found = _attribute(tx.recorder.root, str(node.target))
            return tx.recorder.fake_mode.adopt(found) if isinstance(found, torch.Tensor) else found
        args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), lambda n: n.meta["val"])
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        return node.target(*args, **kwargs)  # type: ignore[operator]


def _attribute(root: Any, path: str) -> Any:
    for name in path.split("."):
        root = getattr(root, name)
    return root
