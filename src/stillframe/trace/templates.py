"""What an operator is taken apart into, worked out once for the same metadata and followed often.

A decomposition is a Python function, or C++ code behind a composite operator. It sees metadata and
modes only, so for equal metadata it calls the same operators with the same numbers. The calls it
makes are a :class:`Template`: steps over numbered tensors, the inputs first. A step may itself be
an operator that is taken apart; following the template sees to that, with the template of the step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from stillframe import torch_private
from stillframe.errors import DataDependentError, InternalError, NotSupported
from stillframe.fake.mode import FakeMode
from stillframe.fake.tensor import FakeStorage, FakeTensor
from stillframe.shapes.continued import ContinuedEnv
from stillframe.shapes.env import DeferredAssert, to_size
from stillframe.symbolic import Expr
from stillframe.trace.functional_forms import METADATA_CHANGES
from stillframe.trace.recorder import RecordingMode

if TYPE_CHECKING:
    from stillframe.trace.decompositions import Decompositions

aten = torch.ops.aten

# What C++ code and Python functions raise where they need a size as a number.
_FAILURES = (RuntimeError, NotImplementedError, TypeError, DataDependentError, NotSupported)

_LIFTS = (aten.lift_fresh.default, aten.lift_fresh_copy.default)
_READS = (aten._local_scalar_dense.default, aten.item.default, aten.is_nonzero.default)


class Slot(NamedTuple):
    """A tensor of a template, by number."""

    number: int


@dataclass(frozen=True, slots=True)
class Step:
    """One operator call over slots; ``outs`` has the slots of its results."""

    func: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outs: Any

    def arguments(self, values: list[Any]) -> tuple[Any, ...]:
        """The positional arguments for these tensors."""
        return tuple([_filled(a, values) for a in self.args])

    def keywords(self, values: list[Any]) -> dict[str, Any]:
        """The keyword arguments for these tensors."""
        return {k: _filled(v, values) for k, v in self.kwargs.items()} if self.kwargs else {}

    def store(self, result: Any, values: list[Any]) -> None:
        """Put the results into their slots."""
        _store(self.outs, result, values)


def _filled(value: Any, values: list[Any]) -> Any:
    kind = type(value)
    if kind is Slot:
        return values[value.number]
    if kind is list:
        return [_filled(v, values) for v in value]
    return value


def _store(outs: Any, result: Any, values: list[Any]) -> None:
    if type(outs) is Slot:
        values[outs.number] = result
    elif isinstance(outs, list):
        for out, item in zip(outs, result, strict=True):
            _store(out, item, values)


@dataclass
class Template:
    """Steps, and the structure of the result.

    Attributes:
        count: how many slots there are.
        asserts: conditions on data that the decomposition asked for.
        fresh: unbacked symbols that its operators return, in order.
        reusable: whether it may be followed again; symbols of data are new each time.
    """

    steps: list[Step] = field(default_factory=list)
    returned: Any = None
    count: int = 0
    asserts: list[DeferredAssert] = field(default_factory=list)
    fresh: list[Expr] = field(default_factory=list)

    @property
    def reusable(self) -> bool:
        return not self.fresh and not self.asserts

    def inputs(self, args: Any, kwargs: Any) -> list[Any]:
        """The slots, those of the inputs filled."""
        values: list[Any] = [None] * self.count
        for i, tensor in enumerate(distinct_tensors(args, kwargs)):
            values[i] = tensor
        return values

    def result(self, values: list[Any]) -> Any:
        """The result, from filled slots."""
        filled = _filled(self.returned, values)
        return tuple(filled) if isinstance(filled, list) else filled


# -- keys -----------------------------------------------------------------------------------------


class Key(NamedTuple):
    """All that a decomposition can see. ``static``: no symbol is in it."""

    what: Any
    static: bool


def key_of(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Key | None:
    """The key of a call, or None where more than metadata is known of a tensor."""
    tensors: dict[int, int] = {}
    memory: dict[int, int] = {}
    static = True

    def part(value: Any) -> Any:
        nonlocal static
        kind = type(value)
        if kind is FakeTensor:
            place = tensors.setdefault(id(value), len(tensors))
            shared = memory.setdefault(id(value.storage_), len(memory))
            if value.constant is not None or value.symbolic_value is not None:
                raise TypeError
            for size in (*value.sizes, *value.strides, value.offset):
                if type(size) is not int:
                    static = False
            return (
                place, shared, value.storage_.given, value.sizes, value.strides, value.offset,
                value.dtype, value.device, value.requires_grad,
            )  # fmt: skip
        if kind is list or kind is tuple:
            return (kind, *(part(v) for v in value))
        if isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool)):
            static = False
            return ("symbolic", to_size(value))
        if isinstance(value, torch.Tensor):
            raise TypeError
        if kind is float:
            return (kind, value.hex())
        hash(value)
        return (kind, value)

    try:
        parts = (tuple([part(a) for a in args]), tuple([(k, part(v)) for k, v in kwargs.items()]))
    except TypeError:
        return None
    modes = (torch.is_grad_enabled(), torch.get_default_dtype())
    return Key((func, parts, modes), static)


def distinct_tensors(*values: Any) -> list[FakeTensor]:
    """The fakes among arguments, in order, each once."""
    found: dict[int, FakeTensor] = {}

    def walk(value: Any) -> None:
        if type(value) is FakeTensor:
            found.setdefault(id(value), value)
        elif isinstance(value, (list, tuple)):
            for v in value:
                walk(v)
        elif isinstance(value, dict):
            for v in value.values():
                walk(v)

    for value in values:
        walk(value)
    return list(found.values())


# -- tracing --------------------------------------------------------------------------------------


class TemplateTracer:
    """Runs one decomposition on copies of its arguments and notes the operators it calls."""

    def __init__(self, env: ContinuedEnv, fake_mode: FakeMode, table: Decompositions) -> None:
        self.fake_mode = fake_mode
        self.env = env
        self.table = table
        self.template = Template()
        self._slots: dict[int, Slot] = {}
        self._kept: list[FakeTensor] = []
        self._inputs = 0

    def trace(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Template | None:
        """The template of a call, or None if all decompositions of ``func`` decline.

        Raises:
            NotSupported: they cannot be run for such sizes; says why.
        """
        failure: Exception | None = None
        for way in self.table.ways(func):
            try:
                if self._attempt(way, args, kwargs):
                    return self.template
            except _FAILURES as e:
                failure = failure or e
        if failure is None:
            return None
        raise NotSupported(
            f"{func} cannot be taken apart for these sizes.",
            why=f"{type(failure).__name__}: {str(failure).strip().splitlines()[0]}",
            hints=[
                "keep it whole: table = stillframe.default_decompositions(); "
                f"table.pop(torch.ops.{func})"
            ],
        ) from failure

    def _attempt(
        self, way: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> bool:
        env = self.env
        self.template, self._slots, self._kept = Template(), {}, []
        copies = self._copies(distinct_tensors(args, kwargs))
        self._inputs = len(copies)
        deferred = len(env.deferred)
        expected = set(env.planned)
        try:
            with torch_private.below_autograd(), RecordingMode(self):
                result = way(*_replaced(args, copies), **_replaced(kwargs, copies))
        finally:
            self.template.asserts = env.deferred[deferred:]
            del env.deferred[deferred:]
            self.template.fresh = env.take_fresh_unbacked()
        if result is NotImplemented:
            return False
        if any(symbol not in expected for symbol in self.template.fresh):
            raise NotSupported("The decomposition reads a number from the data.")
        self.template.returned = self._encoded(result)
        self.template.count = len(self._kept)
        return True

    def _copies(self, tensors: list[FakeTensor]) -> dict[int, FakeTensor]:
        """Copies over memory of their own that is shared as that of the tensors is."""
        memory: dict[int, FakeStorage] = {}
        copies = {}
        for tensor in tensors:
            storage = memory.setdefault(
                id(tensor.storage_), FakeStorage(given=tensor.storage_.given)
            )
            copy = tensor.snapshot()
            copy.storage_ = storage
            copy.constant = tensor.constant
            copy.symbolic_value = None if tensor.relies_on else tensor.symbolic_value
            if tensor.requires_grad:
                copy.requires_grad_(True)
            copies[id(tensor)] = copy
            self._slot(copy)
        return copies

    def _slot(self, tensor: FakeTensor) -> Slot:
        slot = self._slots.get(id(tensor))
        if slot is None:
            slot = self._slots[id(tensor)] = Slot(len(self._kept))
            self._kept.append(tensor)
        return slot

    def record(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Answer an operator that the decomposition calls, and note it."""
        view = METADATA_CHANGES.get(func)
        if view is not None:
            return self._changed(args[0], view, args, kwargs)
        if func in _LIFTS and not isinstance(args[0], FakeTensor):
            result = self._lifted(args[0])
        elif func in _READS and args[0].constant is not None:
            return args[0].constant.item()
        elif func is aten.is_nonzero.default:
            raise NotSupported("A decomposition asks for the truth value of a tensor.")
        else:
            result = self.fake_mode.run(func, args, kwargs)
        if func._schema.returns and not _holds_tensor(result) and not _fresh(result):
            return result
        encoded = tuple([self._encoded(a) for a in args])
        keywords = {k: self._encoded(v) for k, v in kwargs.items()}
        self.template.steps.append(Step(func, encoded, keywords, self._encoded_result(result)))
        return result

    def _changed(
        self, tensor: FakeTensor, view: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> FakeTensor:
        """``t.unsqueeze_(0)`` on a tensor that the decomposition made: it is the view now."""
        if self._slots[id(tensor)].number < self._inputs:
            raise NotSupported("A decomposition changes the sizes of its argument in place.")
        result: FakeTensor = self.record(view, args, kwargs)
        if result is not tensor:
            tensor.become(result)
            self._slots[id(tensor)] = self._slots[id(result)]
        return tensor

    def _lifted(self, real: torch.Tensor) -> FakeTensor:
        result = FakeTensor.like_real(self.env, real.detach())
        if real.numel() == 1:
            result.constant = real.detach().clone()
        return result

    def _encoded(self, value: Any) -> Any:
        """An operand over slots."""
        if type(value) is FakeTensor:
            slot = self._slots.get(id(value))
            if slot is None:
                raise InternalError("a decomposition uses a tensor that no operator returned")
            return slot
        if isinstance(value, (list, tuple)):
            return [self._encoded(v) for v in value]
        return value

    def _encoded_result(self, value: Any) -> Any:
        if type(value) is FakeTensor:
            return self._slot(value)
        if isinstance(value, (list, tuple)):
            return [self._encoded_result(v) for v in value]
        return None


def _replaced(value: Any, copies: dict[int, FakeTensor]) -> Any:
    if type(value) is FakeTensor:
        return copies[id(value)]
    if isinstance(value, dict):
        return {k: _replaced(v, copies) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)([_replaced(v, copies) for v in value])
    return value


def _holds_tensor(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(_holds_tensor(v) for v in value)
    return isinstance(value, torch.Tensor)


def _fresh(value: Any) -> bool:
    """Whether a result is a number that the data tells."""
    size = to_size(value)
    return isinstance(size, Expr) and size.op == "symbol"
