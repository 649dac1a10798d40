"""FakeMode: answer an operator call with fakes.

The order of answering: a shape rule, else a recipe remembered from an earlier call with the same
metadata, else the fallbacks of ``fake/fallback.py``. Rules are cheap, so they are not cached; what
the fallbacks work out (slowly) is.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils import _pytree as pytree

from stillframe import stack, torch_private
from stillframe.errors import InternalError, NotSupported
from stillframe.fake import fallback, gradients, outs, sparse
from stillframe.fake.context import RuleContext
from stillframe.fake.registry import RULES, load_rules
from stillframe.fake.tensor import FakeTensor
from stillframe.shapes.env import ShapeEnv, to_size
from stillframe.symbolic import Expr

# A call form that the author of a rule did not think of; the fallbacks are asked instead.
_RULE_DOES_NOT_FIT = (TypeError, AttributeError, KeyError)


class FakeMode:
    """Runs operators on fakes of one environment.

    Attributes:
        env: the environment of all fakes that this mode makes.
        fallbacks: how often each operator was answered by a fallback, for reports.
        sets_requires_grad: whether results get ``requires_grad`` here; False where torch's own
            autograd runs above and sets it.
        made_at: the user's frames when it was made.
        untouchable: real tensors, by identity, that neither operators nor questions may reach.
    """

    def __init__(self, env: ShapeEnv) -> None:
        load_rules()
        self.env = env
        self.made_at = stack.raw_stack()
        self.ctx = RuleContext(env)
        self.fallbacks: Counter[str] = Counter()
        self.sets_requires_grad = True
        self._any_sparse = False  # among the arguments of the call that is being answered
        self.untouchable: dict[int, torch.Tensor] = {}
        self.recipes: dict[Any, fallback.Recipe] = {}
        self._constants: dict[int, tuple[torch.Tensor, FakeTensor]] = {}
        env.fake_mode = self

    def run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The result of ``func(*args, **kwargs)`` as fakes, SymInts and constants.

        Raises:
            NotSupported: no rule and no fallback covers the call.
        """
        grad = self.sets_requires_grad and torch.is_grad_enabled()
        ctx = self.ctx
        ctx.requires_grad = False
        self._any_sparse = False
        plain_args = [self._plain(a, grad) for a in args]
        plain_kwargs = {k: self._plain(v, grad) for k, v in kwargs.items()} if kwargs else {}
        if plain_args and not isinstance(plain_args[0], (FakeTensor, list)):
            plain_args[0] = self._number_as_tensor(func, plain_args[0])
        gradient = gradients.GRADIENTS.get(func) if ctx.requires_grad else None
        if gradient is not None:
            ctx.requires_grad = gradient.flows(plain_args)
        if self._any_sparse:
            return self._wrapped(sparse.run(self, func, plain_args, plain_kwargs))
        rule = RULES.get(func)
        result: Any = NotImplemented
        if rule is not None:
            with contextlib.suppress(*_RULE_DOES_NOT_FIT):
                result = rule(ctx, *plain_args, **plain_kwargs)
        if result is NotImplemented and rule is None and outs.without_out(func) is not None:
            return outs.run(self, func, plain_args, plain_kwargs)
        if result is NotImplemented:
            self.fallbacks[str(func)] += 1
            result = fallback.run(self, func, plain_args, plain_kwargs)
        if type(result) is FakeTensor:
            if ctx.requires_grad and plain_args and result is plain_args[0]:
                gradients.written(func, result)
            return result
        if ctx.requires_grad and gradient is not None:
            gradients.without_gradient(gradient, plain_args, result)
        return self._wrapped(result)

    def _plain(self, value: Any, grad: bool) -> Any:
        """An argument as rules take it; notes on the way whether a tensor requires grad."""
        kind = type(value)
        if kind is FakeTensor:
            if grad and value.requires_grad:
                self.ctx.requires_grad = True
            if value.sparse is not None:
                self._any_sparse = True
            if value.env is not self.env:
                raise InternalError("fakes of two environments met in one operator call")
            return value
        if kind is int or kind is float or kind is bool or value is None:
            return value
        if kind is list or kind is tuple or isinstance(value, (list, tuple)):
            return [self._plain(v, grad) for v in value]
        if isinstance(value, torch.Tensor):
            return self._plain(self.adopt(value), grad)
        return to_size(value)

    def _number_as_tensor(self, func: Any, value: Any) -> Any:
        """``torch.div(size, 2)``: a number where the operator takes a tensor is a 0-dim tensor."""
        first = func._schema.arguments[0]
        if str(first.type) != "Tensor" or first.kwarg_only:
            return value
        if isinstance(value, Expr):
            value = {"int": 0, "float": 0.0, "bool": False}[value.sort]
        if not isinstance(value, (int, float, complex)):
            return value
        return self.ctx.empty((), dtype=torch.result_type(torch.tensor(value), value))

    def _wrapped(self, result: Any) -> Any:
        if isinstance(result, Expr):
            return self.env.wrap(result)
        if isinstance(result, list):
            return [self._wrapped(r) for r in result]
        if isinstance(result, tuple):  # named results too: operators return plain tuples
            return tuple(self._wrapped(r) for r in result)
        return result

    def adopt(self, real: torch.Tensor) -> FakeTensor:
        """The fake that stands for a real tensor met during the run; one per tensor object."""
        if isinstance(real, FakeTensor):
            return real
        known = self._constants.get(id(real))
        if known is None:
            if self.untouchable:
                self.refuse_touch(real)
            known = (real, FakeTensor.like_real(self.env, real))
            self._constants[id(real)] = known  # keeps `real` alive, so that its id stays its own
        return known[1]

    def stand_in(self, real: torch.Tensor, fake: FakeTensor) -> None:
        """From now on, ``fake`` is what :meth:`adopt` returns for ``real``."""
        self._constants[id(real)] = (real, fake)

    def real_of(self, value: Any) -> Any:
        """The real tensor that a fake stands for; other values are themselves."""
        if isinstance(value, FakeTensor):
            return next((real for real, fake in self._constants.values() if fake is value), value)
        return value

    def refuse_touch(self, *values: Any) -> None:
        """See :attr:`untouchable`.

        Raises:
            NotSupported: one of them is in ``values``.
        """
        if any(id(leaf) in self.untouchable for leaf in pytree.tree_leaves(values)):
            raise NotSupported("forward looks at a tensor that an earlier call left on the module.")

    def forget_real_tensors(self) -> None:
        """The run is over: who keeps the graph need not keep the tensors that it met."""
        self._constants.clear()

    @contextlib.contextmanager
    def unrecorded(self) -> Iterator[None]:
        """Code of the user's that stands for a kernel runs inside; nothing of it is recorded."""
        with (
            torch_private.no_torch_function(),
            torch.no_grad(),
            torch_private.below_autograd(),
            self.computing(),
        ):
            yield

    def computing(self) -> torch_private.PlainDispatchMode:
        """A context in which operators are answered by this mode and nothing is recorded."""
        return _Computing(self)


class _Computing(torch_private.PlainDispatchMode):
    def __init__(self, fake_mode: FakeMode) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.fake_mode = fake_mode

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        return self.fake_mode.run(func, args, kwargs or {})


def mode_of(args: Any, kwargs: Any) -> FakeMode:
    """The mode of the first fake among the arguments."""
    stack = [*args, *kwargs.values()]
    while stack:
        value = stack.pop(0)
        if isinstance(value, FakeTensor):
            mode: FakeMode | None = value.env.fake_mode
            return mode if mode is not None else FakeMode(value.env)
        if isinstance(value, (list, tuple)):
            stack.extend(value)
    raise InternalError("no fake tensor among the arguments")
