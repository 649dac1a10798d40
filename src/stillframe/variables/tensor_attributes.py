"""What the program reads and writes of tensors as Python objects.

A fake stands for a tensor's metadata. What else hangs off a tensor is read from the real one, under
a guard: its gradient, attributes that the user has set, whether it is a leaf. What the program sets
is kept here until the frame runs, so that neither the fake nor the real tensor is touched.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any

import torch

from stillframe import torch_private
from stillframe.errors import FrameError
from stillframe.fake.tensor import FakeTensor
from stillframe.frames.lookup import MISSING, type_lookup
from stillframe.guards import install_guard
from stillframe.guards.kinds.registry import kind as guard_kind
from stillframe.source import (
    AttrSource,
    GradSource,
    Source,
    TensorProperty,
    TensorPropertySource,
)
from stillframe.variables.base import VariableTracker
from stillframe.variables.identity import may_be
from stillframe.variables.side_effects import DELETED

if TYPE_CHECKING:
    from stillframe.variables.translator import Translator

#: What tensors have that a graph of operators cannot tell, and why.
_AUTOGRAD = "autograd runs when the captured frame does, and not during the capture"
_MEMORY = "a tensor has no memory while it is captured, and other memory at each call"
_REFUSED = {
    **dict.fromkeys(
        """backward register_hook register_post_accumulate_grad_hook retain_grad _version output_nr
        _backward_hooks _post_accumulate_grad_hooks _base _is_view retains_grad _grad _grad_fn
        grad_dtype""".split(),
        _AUTOGRAD,
    ),
    **dict.fromkeys(
        """data_ptr storage untyped_storage _typed_storage is_shared share_memory_ is_pinned
        pin_memory _cdata __cuda_array_interface__ __array_interface__ __dlpack__ __reduce_ex__
        __reduce__ storage_type names""".split(),
        _MEMORY,
    ),
    "__dict__": "what is in it is known by name only",
}  # fmt: skip

#: What torch and we keep in the ``__dict__`` of a fake.
_OF_FAKES = frozenset(FakeTensor.__annotations__).union(
    *(vars(cls).get("__annotations__", ()) for cls in torch.Tensor.__mro__)
)


class TensorAttributes:
    """The attributes of the tensors of one frame.

    Args:
        tx: runs the frame.

    Attributes:
        any_overrides: whether there is a subclass with a ``__torch_function__`` among them.
    """

    def __init__(self, tx: Translator) -> None:
        self._tx = tx
        self._set: dict[int, tuple[torch.Tensor, dict[str, Any]]] = {}
        self._subclasses: dict[int, tuple[FakeTensor, type]] = {}
        self.any_overrides = False
        self._new_leaves: dict[int, FakeTensor] = {}

    # -- for the program ----------------------------------------------------------------------

    def load(self, tensor: Any, name: str) -> Any:
        """``tensor.name``.

        Raises:
            AttributeError: there is no such attribute, in eager neither.
            FrameError: what it is is not known during a capture.
        """
        if name == "__class__":
            return self._tx.class_of(tensor)
        if name in _REFUSED:
            raise self._refuse(name, _REFUSED[name])
        if name == "as_subclass":
            return functools.partial(self.as_subclass, tensor)
        cls = self.subclass_of(tensor)
        if cls is not None and self._is_of_subclass(cls, name):
            return self._of_subclass(tensor, cls, name)
        if name == "grad" or self.is_custom(tensor, name):
            return self.custom(tensor, name)
        if name in ("is_leaf", "grad_fn", "data"):
            return getattr(self, name)(tensor)
        return getattr(tensor, name)  # what needs a say is seen by the function mode

    @staticmethod
    def _is_of_subclass(cls: type, name: str) -> bool:
        found = type_lookup(cls, name)
        return found is not MISSING and found is not type_lookup(torch.Tensor, name)

    def _of_subclass(self, tensor: Any, cls: type, name: str) -> Any:
        """An attribute that the class has; methods and properties run on the machine."""
        found = self._tx.load_attr(cls, name)
        if isinstance(found, FunctionType):
            static = isinstance(type_lookup(cls, name), staticmethod)
            return found if static else MethodType(found, tensor)
        if type(found) is property and found.fget is not None:
            return self._tx.call(found.fget, (tensor,), {})
        if hasattr(type(found), "__get__") and not isinstance(found, MethodType):
            raise self._refuse(name, f"{cls.__qualname__} has a descriptor for it")
        return found

    def is_custom(self, tensor: Any, name: str) -> bool:
        """Whether an attribute is there only if somebody has set it on the tensor itself."""
        found = type_lookup(torch.Tensor, name)
        if found is MISSING:
            return True
        if hasattr(type(found), "__set__"):
            return False
        real = self._real(tensor)
        return name in self.written(tensor) or (real is not None and name in vars(real))

    def custom(self, tensor: Any, name: str) -> Any:
        """An attribute that the program or the user has set, the gradient included."""
        value = self.written(tensor).get(name, MISSING)
        if value is MISSING:
            self._refuse_ambiguous(tensor, name)
            value = self._from_outside(tensor, name)
        if value is DELETED or value is MISSING:
            if name == "grad":
                return None
            cls = self._tx.class_of(tensor).__name__
            raise AttributeError(f"'{cls}' object has no attribute '{name}'", name=name, obj=tensor)
        return value

    def store(self, tensor: Any, name: str, value: Any) -> None:
        """``tensor.name = value``."""
        if name == "requires_grad":
            self.require_grad(tensor, bool(value))
            return
        if name == "grad":
            self._check_gradient(tensor, value)
        elif type_lookup(torch.Tensor, name) is not MISSING:
            raise self._refuse(name, "it is torch's own", "sets")
        self._write(tensor, name, value)

    def delete(self, tensor: Any, name: str) -> None:
        """``del tensor.name``."""
        if name != "grad" and not self.is_custom(tensor, name):
            raise self._refuse(name, "it is torch's own", "deletes")
        if name != "grad":
            self.custom(tensor, name)
        self._write(tensor, name, DELETED)

    def written(self, tensor: Any) -> dict[str, Any]:
        """What the program has set on a tensor; empty for most."""
        entry = self._set.get(id(tensor))
        return {} if entry is None else entry[1]

    def check_untouched(self, fakes: Iterable[FakeTensor]) -> None:
        """Code that the machine does not run may have set attributes on stand-ins.

        Raises:
            FrameError: it has; names the attribute.
        """
        for fake in fakes:
            for name in vars(fake).keys() - _OF_FAKES:
                raise self._refuse(name, "code did it that was not watched", "sets")

    def _write(self, tensor: Any, name: str, value: Any) -> None:
        if self._tx.recorder.subgraph is not None:
            raise self._refuse(name, "this is the body of a higher-order call", "sets")
        self._refuse_ambiguous(tensor, name)
        written = self._set.setdefault(id(tensor), (tensor, {}))[1]
        variable = self._variable(tensor)
        if variable is not None and variable.source is not None:
            self._tx.effects.buffered(tensor, name, variable.source, written)
        written[name] = value

    def _from_outside(self, tensor: Any, name: str) -> Any:
        variable = self._variable(tensor)
        real = self._real(tensor)
        if variable is None or variable.source is None or real is None:
            return MISSING
        source = variable.source
        if name == "grad":
            return self._gradient(real, source)
        if name in vars(real):
            return self._tx.wrap(vars(real)[name], AttrSource(source, name))
        absent = functools.partial(guard_kind("HASATTR"), attr=name)
        install_guard(source.make_guard(absent))
        return MISSING

    def _gradient(self, real: torch.Tensor, source: Source) -> Any:
        with torch_private.no_torch_function():
            if not real.is_leaf:
                raise self._refuse("grad", f"{source.name()} is no leaf: torch keeps none of it")
            gradient = real.grad
        return self._tx.wrap(gradient, GradSource(source))

    def _check_gradient(self, tensor: Any, value: Any) -> None:
        if value is None:
            return
        fits = isinstance(value, FakeTensor) and isinstance(tensor, FakeTensor)
        fits = fits and value.sizes == tensor.sizes and value.dtype is tensor.dtype
        if not fits or value.device != tensor.device or value is tensor:
            raise self._refuse("grad", "torch takes a gradient of the tensor's kind only", "sets")

    # -- autograd -----------------------------------------------------------------------------

    def is_leaf(self, fake: FakeTensor) -> bool:
        """``fake.is_leaf`` in eager."""
        if not fake.requires_grad:
            return True
        if id(fake) in self._new_leaves:
            return True
        self._refuse_ambiguous(fake, "is_leaf")
        variable, real = self._variable(fake), self._real(fake)
        if variable is None or variable.source is None or real is None:
            return False
        if fake.storage_.written or not real.requires_grad:
            raise self._refuse("is_leaf", "the frame has changed the tensor")
        found: bool = self._tx.wrap(real.is_leaf, AttrSource(variable.source, "is_leaf"))
        return found

    def grad_fn(self, fake: FakeTensor) -> None:
        """``fake.grad_fn`` in eager: None for what has no history."""
        if not self.is_leaf(fake):
            raise self._refuse("grad_fn", _AUTOGRAD)

    def require_grad(self, fake: Any, wanted: bool) -> Any:
        """``fake.requires_grad_(wanted)``: the graph does it, to whatever tensor it is then."""
        if bool(fake.requires_grad) is wanted:
            return fake
        if not isinstance(fake, FakeTensor) or fake.storage_.written:
            raise self._refuse("requires_grad", "its tensor was written before", "sets")
        if not (fake.dtype.is_floating_point or fake.dtype.is_complex) or not self.is_leaf(fake):
            raise self._refuse("requires_grad", "torch allows it for leaves with fractions", "sets")
        self._refuse_ambiguous(fake, "requires_grad")
        recorder = self._tx.recorder
        if recorder.subgraph is not None:
            raise self._refuse("requires_grad", "this is the body of a higher-order call", "sets")
        node = recorder.create(torch.Tensor.requires_grad_, (recorder.operand(fake), wanted), {})
        node.meta["val"] = fake
        with torch_private.no_torch_function():
            fake.requires_grad_(wanted)
        self.note_leaf(fake)
        return fake

    def note_leaf(self, fake: FakeTensor) -> None:
        """The program has made a tensor without history."""
        self._new_leaves[id(fake)] = fake

    def data(self, fake: FakeTensor) -> FakeTensor:
        """``fake.data``: the memory without history, and without a trace of later writes."""
        recorder = self._tx.recorder
        node = recorder.create(getattr, (recorder.operand(fake), "data"), {})
        found = fake.snapshot()
        node.meta["val"] = found
        recorder.track(found, node)
        return found

    # -- subclasses ---------------------------------------------------------------------------

    def mark_subclass(self, fake: FakeTensor, cls: type, overrides: bool) -> None:
        """A fake stands for a tensor of a subclass.

        Args:
            overrides: it has a ``__torch_function__``.
        """
        self._subclasses[id(fake)] = fake, cls
        self.any_overrides = self.any_overrides or overrides

    def subclass_of(self, tensor: Any) -> type | None:
        """The subclass that a fake stands for; None for a plain tensor or parameter."""
        entry = self._subclasses.get(id(tensor))
        return None if entry is None else entry[1]

    def as_subclass(self, fake: FakeTensor, cls: type) -> Any:
        """``fake.as_subclass(cls)``: another tensor over the same memory."""
        known = self._tx.options.traceable_tensor_subclasses
        if cls is not torch.Tensor and cls not in known:
            raise self._refuse("as_subclass", f"{cls.__qualname__} is no listed subclass")
        with torch_private.subclasses_disabled():
            made = torch.ops.aten.alias.default(fake)
        if cls is not torch.Tensor:
            self.mark_subclass(made, cls, not torch_private.ignores_torch_function(cls))
        return made

    def override_among(self, values: Any) -> type | None:
        """The first subclass with a ``__torch_function__`` among operands, nested ones too."""
        for value in values:
            if isinstance(value, FakeTensor):
                cls = self.subclass_of(value)
                if cls is not None and not torch_private.ignores_torch_function(cls):
                    return cls
            elif isinstance(value, (tuple, list)):
                found = self.override_among(value)
                if found is not None:
                    return found
        return None

    def base_torch_function(self, cls: type, func: Any, args: Any, kwargs: Any) -> Any:
        """``torch.Tensor.__torch_function__`` for a subclass: results are of the subclass."""
        with torch_private.subclasses_disabled():
            result = func(*args, **(kwargs or {}))
        return result if func in torch_private.plain_results() else self._converted(result, cls)

    def _converted(self, result: Any, cls: type) -> Any:
        if isinstance(result, FakeTensor) and not issubclass(self._tx.class_of(result), cls):
            self.mark_subclass(result, cls, True)
        if isinstance(result, (tuple, list)):
            return type(result)(self._converted(item, cls) for item in result)
        return result

    # -- layout -------------------------------------------------------------------------------

    def rely_on_offsets(self, fake: FakeTensor) -> None:
        """Somebody asks where a tensor begins: that of the inputs in its memory must stay."""
        for tracked in self._tx.inputs.tracked_fakes:
            if isinstance(tracked.fake, FakeTensor) and tracked.fake.storage_ is fake.storage_:
                offset = TensorPropertySource(tracked.source, TensorProperty.STORAGE_OFFSET)
                install_guard(offset.make_guard(guard_kind("CONSTANT_MATCH")))

    # -- helpers ------------------------------------------------------------------------------

    def _variable(self, tensor: Any) -> VariableTracker | None:
        return self._tx.effects.tracker(tensor)

    def _real(self, tensor: Any) -> torch.Tensor | None:
        found = getattr(self._variable(tensor), "real", None)
        return found if isinstance(found, torch.Tensor) else None

    def _refuse_ambiguous(self, tensor: Any, name: str) -> None:
        """``x.float()`` may be ``x`` itself: whose attribute it is is not known."""
        if len(may_be(self._tx.recorder, tensor)) > 1:
            raise self._refuse(name, "it may be its operand or a copy, and both have attributes")

    def refuse_ambiguous_key(self, tensor: Any) -> None:
        """A tensor becomes a key, which is found by its identity."""
        if len(may_be(self._tx.recorder, tensor)) > 1:
            raise self._tx.graph_break(
                "The frame uses a tensor as a key.",
                "it may be its operand or a copy, and each is another key",
            )

    def _refuse(self, name: str, why: str, does: str = "reads") -> FrameError:
        return self._tx.graph_break(f"The frame {does} the attribute {name} of a tensor.", why)
