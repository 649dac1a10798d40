"""FunctionalRecorder: records a program so that no node of the graph writes.

Tensors of the program have an identity and memory that views share; nodes of the graph are values.
The recorder keeps the two together. The tensor that a piece of memory began with is its *root*, and
the root's node is always the value that the memory holds now. Every view knows the tensor it was
made from and how (:class:`~stillframe.trace.views.View`). A write to a tensor

1. records the functional operator in the place of the one that writes,
2. goes up the chain of views to the root; at each step the viewed tensor's new value is recorded
   (``slice_scatter`` for a slice, a transpose back for a transpose),
3. counts the write. A view that is used afterwards sees that its node is older, and is made anew
   from the tensor it views.

The value after a write has exactly the metadata that the tensor had; where the functional operator
gives another dtype or layout, ``aten.copy`` puts it right. So everything that was known of the
program's tensors remains true of the nodes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from stillframe.errors import NotSupported
from stillframe.fake.tensor import FakeStorage, FakeTensor
from stillframe.shapes import layout
from stillframe.shapes.continued import ContinuedEnv
from stillframe.shapes.env import Size, to_size
from stillframe.symbolic import eq
from stillframe.trace import operators
from stillframe.trace.decompositions import Decompositions
from stillframe.trace.functional_forms import (
    LAYOUT_DECIDES,
    MEMORY_CHANGES,
    METADATA_CHANGES,
    Form,
    functional_form,
)
from stillframe.trace.recorder import LiftConstant, Recorder
from stillframe.trace.scope import ModuleScope
from stillframe.trace.templates import Step, Template, TemplateTracer, distinct_tensors, key_of
from stillframe.trace.views import UPDATES, View

aten = torch.ops.aten

_LIFTS = frozenset({aten.lift_fresh.default, aten.lift_fresh_copy.default})

# View operators that programs often use where they change nothing.
_MAY_DO_NOTHING = frozenset(
    {
        aten.alias.default, aten.detach.default, aten.expand.default, aten.view.default,
        aten.slice.Tensor,
    }
)  # fmt: skip

_META = ("nn_module_stack", "stack_trace", "torch_fn")


class FunctionalRecorder(Recorder):
    """Records functional operators, taking apart those that are in a table.

    Args:
        env: what is known of the symbols.
        table: operator -> what is run in its place.
        lift_constant: makes the placeholder of a tensor that a decomposition brings along.

    Attributes:
        left_whole: operators that could not be taken apart for the sizes of the program, and why.
        needs_layout: whether a write shows elsewhere depends on how inputs are laid out: memory is
            written of which ``reshape`` or the like gave a view or a copy; or the program counts
            in memory itself (``as_strided``).
        loses_gradients: something was written whose gradient no functional program has: under
            ``no_grad``, or through ``detach``, to a tensor that requires grad.
    """

    env: ContinuedEnv

    def __init__(
        self, env: ContinuedEnv, table: Decompositions, lift_constant: LiftConstant
    ) -> None:
        super().__init__(env, ModuleScope([]), lift_constant)
        self.table = table
        self.loses_gradients = False
        self.left_whole: dict[Any, str] = {}
        self.needs_layout = False
        self._depth = 0  # of decompositions that are being followed
        self._by_layout: dict[int, FakeStorage] = {}
        self._twins: dict[int, list[FakeStorage]] = {}
        self._doubtful: dict[int, FakeStorage] = {}
        self._kept: dict[int, FakeStorage] = {}  # read by a backward later
        self._templates: dict[Any, Template] = {}
        self._unwritten: dict[int, FakeStorage] = {}

    # -- nodes ----------------------------------------------------------------------------------

    def locate(self, node: torch.fx.Node) -> None:
        """A node comes from where the node that is being run came from."""
        node.meta.update((k, self.origin[k]) for k in _META if k in self.origin)

    def operand(self, value: Any) -> Any:
        """As for every recorder; the node of a tensor is the one of its present value."""
        if type(value) is FakeTensor:
            if value.storage_.written:
                self._refresh(value)
            if self._doubtful:
                self.check_memory(value)
        return super().operand(value)

    def _refresh(self, tensor: FakeTensor) -> None:
        """Make a view anew if its memory was written since its node was made."""
        view: View | None = tensor.view_of
        if view is None:
            return
        writes, grad = tensor.storage_.written, torch.is_grad_enabled()
        lost = view.grad and grad and not view.seen[1]  # made anew where gradients were off
        if view.seen[0] == writes and not lost:
            return
        if grad and not view.grad and view.parent.requires_grad:
            self.loses_gradients = True
        if not isinstance(view.func, torch._ops.OpOverload):
            raise self.refuse(
                f"The memory that a result of {view.func} shows is written in place.",
                "how the result changes is not known for this operator",
                "write to a clone",
            )
        if view.func is aten.as_strided.default:
            self.refuse_unless_whole(view.parent, "as_strided")
        result = super().record(view.func, view.args, view.kwargs)
        for i in view.path:
            result = result[i]
        tensor.fx_node = result.fx_node
        view.seen = (writes, grad)

    # -- one operator -----------------------------------------------------------------------------

    def record(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Record an operator of the program in functional form."""
        result = self._record(func, args, kwargs)
        if self._depth == 0 and func in LAYOUT_DECIDES and isinstance(result, FakeTensor):
            self._note_layout(args[0], result)
        return result

    def _note_layout(self, tensor: FakeTensor, result: FakeTensor) -> None:
        """``result`` is a view of ``tensor`` or a copy of it, by layout and sizes of 1."""
        one, other = tensor.storage_, result.storage_
        self._by_layout.update({id(one): one, id(other): other})
        if one is not other and any(type(n) is not int for n in tensor.sizes):
            self._twins.setdefault(id(one), []).append(other)
            self._twins.setdefault(id(other), []).append(one)

    def keep_unwritten(self, values: Any) -> None:
        """From now on the memory of these tensors may not be written."""
        for tensor in distinct_tensors(values):
            self._unwritten[id(tensor.storage_)] = tensor.storage_

    def check_memory(self, tensor: FakeTensor) -> None:
        """Refuse to use a tensor that shows a write to another one at some sizes only."""
        if id(tensor.storage_) in self._doubtful:
            raise self.refuse(
                "A tensor is used after a write to what reshape or contiguous made of it.",
                "at some of the program's sizes that is a view, at others a copy",
                "write to a clone: x.reshape(...).clone()",
            )

    def _record(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if func in _LIFTS:
            return self._lift(args[0])
        if func is aten.copy.default:
            return self._copied(args[0], args[1])
        facts = operators.facts_of(func)
        if facts.writes and operators.written_arguments(facts, args, kwargs):
            return self._record_write(func, args, kwargs)
        body = self.table.get(func)
        if body is not None:
            template = self._template(func, args, kwargs)
            if template is not None:
                return self._follow(template, args, kwargs)
        return self._record_plain(func, args, kwargs)

    def _lift(self, tensor: torch.Tensor) -> Any:
        """A copy of a constant. A number that a decomposition brings along is made in the graph."""
        if not isinstance(tensor, FakeTensor) and tensor.numel() == 1:
            made = aten.full.default
            sizes, place = list(tensor.shape), {"dtype": tensor.dtype, "device": tensor.device}
            return self.record(made, (sizes, tensor.item()), place)
        return self.record(aten.clone.default, (tensor,), {})

    def _record_plain(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if func is aten.as_strided.default and self._depth == 0:
            self.needs_layout = True
        if func in _MAY_DO_NOTHING and self._does_nothing(func, args, kwargs):
            return self._same_again(func, args, kwargs)
        result = super().record(func, args, kwargs)
        self._note_views(func, args, kwargs, result)
        return result

    def _does_nothing(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether a view operator gives all of its argument, as it is."""
        if args[0].requires_grad and not torch.is_grad_enabled():
            return False  # no gradient goes through
        if func is aten.alias.default:
            return True
        if func is aten.detach.default:
            return not args[0].requires_grad
        wanted = args[1] if func is not aten.slice.Tensor else None
        tensor = args[0]
        if wanted is None:
            wanted = self.fake_mode.run(func, args, kwargs).sizes
        if len(wanted) != len(tensor.sizes):
            return False
        return all(to_size(w) is s or w == -1 for w, s in zip(wanted, tensor.sizes, strict=True))

    def _same_again(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> FakeTensor:
        """The same tensor as another object, without a node."""
        result: FakeTensor = self.fake_mode.run(aten.alias.default, args[:1], {})
        result.fx_node = self.operand(args[0])
        self._note_views(aten.alias.default, args[:1], {}, result)
        return result

    def _note_views(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any
    ) -> None:
        """Remember how results over the memory of an argument were made."""
        for path, tensor in _tensors(result, ()):
            for parent in distinct_tensors(args, kwargs):
                if parent is tensor:
                    break
                if tensor.storage_ is parent.storage_:
                    grad = torch.is_grad_enabled()
                    seen = (tensor.storage_.written, grad)
                    tensor.view_of = View(parent, func, args, kwargs, path, grad, seen)
                    break

    # -- writes -----------------------------------------------------------------------------------

    def _record_write(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        view = METADATA_CHANGES.get(func)
        if view is not None:  # whatever comes later uses the view, not the tensor as it was
            self._note_lost_gradient(args[0])
            return self.record(view, args, kwargs)
        if func in MEMORY_CHANGES:
            raise self.refuse(
                f"{func} changes the sizes or the memory of a tensor in place.",
                "a functional program has values, not memory",
                "use an operator that returns a view or a new tensor",
            )
        if func is aten.copy_.default or func is aten.fill_.Tensor:
            self.write(args[0], args[1])
            return args[0]
        form = functional_form(func)
        if form is not None:
            return self._write_result(func, form, args, kwargs)
        if self.table.ways(func):
            template = self._template(func, args, kwargs)
            if template is not None:
                return self._follow(template, args, kwargs)
        raise self.refuse(
            f"{func} writes its arguments in place, and torch has no functional form of it.",
            "a functional program cannot express the call",
            "give the decomposition of it in the table",
        )

    def _write_result(
        self, func: Any, form: Form, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        names = [a.name for a in func._schema.arguments]
        targets = [args[i] if i < len(args) else kwargs.get(n) for i, n in form.targets]
        result = self.record(form.op, *form.arguments(names, args, kwargs))
        values = [result] if len(targets) == 1 else list(result)[-len(targets) :]
        for target, value in zip(targets, values, strict=True):
            self._write_all(target, value)
        returns = func._schema.returns
        if not returns:
            return None
        return targets[0] if len(returns) == 1 else tuple(targets)

    def _write_all(self, target: Any, value: Any) -> None:
        if isinstance(target, (list, tuple)):
            for t, v in zip(target, value, strict=True):
                self._write_all(t, v)
        elif isinstance(target, FakeTensor):
            self.write(target, value)

    def write(self, target: FakeTensor, value: FakeTensor) -> None:
        """``target`` holds ``value`` from now on, and so do all tensors over its memory."""
        if value is target:
            return
        if id(target.storage_) in self._unwritten:
            raise self.refuse(
                "A tensor that a script object was given, or gave, is written in place.",
                "the object may still hold it, and a functional program makes a new value",
                "give the object a clone of it",
            )
        self._note_lost_gradient(target)
        if id(target.storage_) in self._kept:
            raise self.refuse(
                "The backward of a torch.autograd.Function reads a tensor that is written later.",
                "eager's backward sees what was written, that of a functional program would not",
                "write to a clone",
            )
        if id(target.storage_) in self._by_layout:
            self.needs_layout = True
        for storage in self._twins.get(id(target.storage_), ()):
            self._doubtful[id(storage)] = storage
        grad = torch.is_grad_enabled()
        held: list[tuple[FakeTensor, torch.fx.Node]] = []
        tensor = target
        while (view := tensor.view_of) is not None:
            value = self._fitted(value, tensor)
            if self._same_metadata(value, tensor):
                held.append((tensor, self.operand(value)))
            if view.parent.requires_grad and not tensor.requires_grad:
                self.loses_gradients = True
            value = self._updated(view, tensor, value)
            tensor = view.parent
        if not self._same_metadata(value, tensor):
            value = self._copied(tensor, value)
        held.append((tensor, self.operand(value)))
        target.storage_.written += 1
        for holder, node in held:
            holder.fx_node = node
            if holder.view_of is not None:
                holder.view_of.seen = (target.storage_.written, grad)

    def _updated(self, view: View, tensor: FakeTensor, value: FakeTensor) -> FakeTensor:
        """The new value of the viewed tensor."""
        update = UPDATES.get(view.func)
        if update is None:
            raise self.refuse(
                f"A view that {view.func} made is written in place.",
                "how the viewed tensor changes is not known for this operator",
                "write to a clone of the view",
            )
        return update(self, view, tensor, value)

    def _note_lost_gradient(self, target: FakeTensor) -> None:
        """Without grad mode a write leaves the history of a tensor; a new value has none."""
        if target.requires_grad and not torch.is_grad_enabled():
            self.loses_gradients = True

    def _fitted(self, value: FakeTensor, target: FakeTensor) -> FakeTensor:
        """``value`` in the sizes and the dtype of ``target``, laid out as it may be."""
        if not self._same_sizes(value, target):
            sizes = self.env.wrap_sizes(target.sizes)
            value = self.record(aten.expand.default, (value, sizes), {})
        if value.dtype is not target.dtype or value.device != target.device:
            place = {"dtype": target.dtype, "device": target.device}
            value = self.record(aten._to_copy.default, (value,), place)
        return value

    def _copied(self, target: FakeTensor, value: FakeTensor) -> FakeTensor:
        """``value`` as ``target.copy_(value)`` leaves it: broadcast, cast, laid out as the target.

        ``aten.copy`` says just that. It has no derivative, so it is left for odd layouts.
        """
        order = layout.stride_order(target.sizes, target.strides)
        if order is None:
            copied: FakeTensor = super().record(aten.copy.default, (target, value), {})
            return copied
        value = self._fitted(value, target)
        outward = [*reversed(order)]
        back = [outward.index(d) for d in range(len(outward))]
        contiguous = {"memory_format": torch.contiguous_format}
        if back == outward == sorted(outward):
            result: FakeTensor = self.record(aten.clone.default, (value,), contiguous)
            return result
        value = self.record(aten.permute.default, (value, outward), {})
        value = self.record(aten.clone.default, (value,), contiguous)
        result = self.record(aten.permute.default, (value, back), {})
        return result

    def keep_for_backward(self, tensor: FakeTensor) -> None:
        """The memory of a tensor may not be written any more."""
        self._kept[id(tensor.storage_)] = tensor.storage_

    def laid_out_like(self, value: FakeTensor, like: FakeTensor) -> FakeTensor:
        """``value``, or a copy of it in the strides of ``like``; sizes and dtype are the same."""
        if self._same_metadata(value, like):
            return value
        if layout.stride_order(like.sizes, like.strides) is None:
            raise self.refuse(
                "A subgraph takes or returns a tensor with gaps in its memory.",
                "taken apart, the tensor is laid out in another way",
                "pass or return a copy: x.contiguous()",
            )
        return self._copied(like, value)

    @contextlib.contextmanager
    def inside_subgraph(self) -> Iterator[None]:
        """What operators are taken apart into, by what is known inside, is forgotten afterwards."""
        old, self._templates = self._templates, dict(self._templates)
        enabled = torch.is_grad_enabled()
        try:
            yield
        finally:
            self._templates = old
            torch.set_grad_enabled(enabled)

    def _same_sizes(self, value: FakeTensor, target: FakeTensor) -> bool:
        return self._equal(value.sizes, target.sizes)

    def _same_metadata(self, value: FakeTensor, target: FakeTensor) -> bool:
        kinds = (value.dtype, value.device) == (target.dtype, target.device)
        sizes = kinds and self._same_sizes(value, target)
        return sizes and self._equal(value.strides, target.strides)

    def _equal(self, a: Sequence[Size], b: Sequence[Size]) -> bool:
        known = self.fake_mode.ctx.known
        return len(a) == len(b) and all(
            m is n or m == n or known(eq(m, n)) is True for m, n in zip(a, b, strict=True)
        )

    def refuse_unless_whole(self, tensor: FakeTensor, name: str) -> None:
        """``as_strided`` counts in memory: after a write, the new value must be laid out alike."""
        node = self.operand(tensor)
        now = node.meta["val"]
        whole = tensor.offset == 0 == now.offset and layout.is_non_overlapping_and_dense(
            tensor.sizes, tensor.strides
        )
        if not whole or tensor.storage_.given:
            raise self.refuse(
                f"Memory that {name} views is written in place.",
                "the view counts in memory, and a new value is laid out anew",
                "use slices and views by dims",
            )

    def refuse(self, what: str, why: str, hint: str) -> NotSupported:
        """The error for something that no functional program expresses, at the user's lines."""
        trace = self.origin.get("stack_trace") or ""
        where = tuple(line.strip() for line in trace.splitlines() if line.strip())[-2:]
        return NotSupported(what, why=why, where=where, hints=[hint])

    # -- decompositions ---------------------------------------------------------------------------

    def _template(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The steps that ``func`` is taken apart into, or None if it declines.

        Remembered by everything that the decomposition can see: metadata and aliasing of tensors,
        the other arguments, and the modes.
        """
        key = key_of(func, args, kwargs)
        memo: dict[Any, Any] | None = None
        if key is not None:
            memo = self.table.templates if key.static else self._templates
            found = memo.get(key, memo)
            if found is not memo:
                return found
        planned = list(self.env.planned)
        try:
            template = TemplateTracer(self.env, self.fake_mode, self.table).trace(
                func, args, kwargs
            )
        except NotSupported as e:
            self.left_whole[func] = e.why or e.what
            self.env.plan(planned)
            template = None
        if template is not None and template.fresh:
            self.env.plan([*template.fresh, *planned[len(template.fresh) :]])
        elif memo is not None and (template is None or template.reusable):
            memo[key] = template
        return template

    def _follow(self, template: Template, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Record the steps for these arguments."""
        values = template.inputs(args, kwargs)
        self._depth += 1
        try:
            for step in template.steps:
                self._follow_step(step, values)
        finally:
            self._depth -= 1
        self.env.deferred.extend(template.asserts)
        return template.result(values)

    def _follow_step(self, step: Step, values: list[Any]) -> None:
        result = self.record(step.func, step.arguments(values), step.keywords(values))
        step.store(result, values)


def _tensors(value: Any, path: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], FakeTensor]]:
    if type(value) is FakeTensor:
        yield path, value
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            yield from _tensors(item, (*path, i))
