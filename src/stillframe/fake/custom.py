"""Custom operators: answered by what their author registered, and checked against the schema.

``torch.library.custom_op`` and ``Library.define`` make operators that we cannot know. Their fakes
are user code: they run under the fake mode, may make sizes that only the data can tell
(``torch.library.get_ctx().new_dynamic_size()``), and may be wrong. What a fake returns is
therefore held against the operator's schema, so that a mistake is told with the operator's name
at the place of the call, and not far behind it.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch.utils import _pytree as pytree

from stillframe import stack, torch_private
from stillframe.errors import CustomOperatorError, InternalError, NotSupported, StillframeError
from stillframe.fake.tensor import FakeTensor
from stillframe.shapes.env import ShapeEnv, to_size
from stillframe.symbolic import Expr, eq, ge, le

if TYPE_CHECKING:
    from stillframe.fake.mode import FakeMode

_BUILTIN_NAMESPACES = ("aten", "prim", "prims")
_SCALARS: dict[str, tuple[type, ...]] = {
    "int": (int, torch.SymInt),
    "SymInt": (int, torch.SymInt),
    "float": (float, int, torch.SymFloat, torch.SymInt),
    "bool": (bool, torch.SymBool),
    "number": (int, float, complex, torch.SymInt, torch.SymFloat),
    "Scalar": (int, float, complex, torch.SymInt, torch.SymFloat),
    "str": (str,),
}


def is_custom(func: Any) -> bool:
    """Whether an operator comes from outside of torch's own operator set."""
    return func.namespace not in _BUILTIN_NAMESPACES


def run(mode: FakeMode, func: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
    """The answer of a custom operator.

    Args:
        mode: the mode that answers what the fake calls.
        func: the overload.
        args, kwargs: as rules take them.

    Raises:
        NotSupported: its author registered no fake.
        CustomOperatorError: the fake fails, or returns what the schema does not allow.
        DataDependentError: it asks Python for a value that only the data can tell.
    """
    body = _body(func)
    if body is None:
        raise _missing_fake(mode.env, func)
    call_args = [_as_python(mode.env, a) for a in args]
    call_kwargs = {k: _as_python(mode.env, v) for k, v in kwargs.items()}
    call_args, call_kwargs = _fitted(mode, func, body, call_args, call_kwargs)
    grad = mode.ctx.requires_grad
    made_before = len(mode.env.symbols)
    result = _call(mode, func, body, call_args, call_kwargs)
    mode.ctx.requires_grad = grad
    if torch_private.takes_script_object(func):
        result = pytree.tree_map_only(FakeTensor, lambda t: as_another(mode, t), result)
    checker = _ResultCheck(mode, func, call_args, call_kwargs)
    checker.check(result)
    if len(mode.env.symbols) > made_before:
        _drop_unused_symbols(mode, func, result)
    if mode.sets_requires_grad:
        for tensor in checker.fresh:
            differentiable = tensor.dtype.is_floating_point or tensor.dtype.is_complex
            tensor.requires_grad_(grad and differentiable)
    return result


def as_another(mode: FakeMode, tensor: FakeTensor) -> FakeTensor:
    """A tensor that came out of a script object, as an object of its own.

    It may be one that the program put in; whether it is at the next call, nobody knows.
    """
    result = mode.ctx.alias(tensor)
    result.base = None
    return result


def _as_python(env: ShapeEnv, value: Any) -> Any:
    """An argument as the author of a fake expects it: SymInts in place of expressions."""
    if isinstance(value, list):
        return [_as_python(env, v) for v in value]
    return env.wrap(value)


# -- what answers ---------------------------------------------------------------------------------


def _body(func: Any) -> Callable[..., Any] | None:
    """What says what the operator returns: a fake, its parts, a kernel; None if nothing does."""
    fake = torch_private.registered_fake(func)
    if fake is not None:
        return fake
    if torch_private.takes_script_object(func):  # code in C++ cannot take a stand-in
        return torch_private.python_kernel(func, "Meta")
    if torch_private.is_composite_implicit(func):
        return func.decompose  # type: ignore[no-any-return]
    if _returns_only_what_it_writes(func):
        return lambda *args, **kwargs: _written_returns(func, args, kwargs)
    if torch_private.is_defined_by_decorator(func):  # its kernel for "Meta" only refuses
        return None
    return torch_private.kernel_without_data(func)


def _returns_only_what_it_writes(func: Any) -> bool:
    """Such an operator needs no fake: nothing new comes out of it."""
    return all(r.alias_info is not None and r.alias_info.is_write for r in func._schema.returns)


def _written_returns(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    given = arguments_by_name(func, args, kwargs)
    names = [_aliased_arguments(func, r)[0] for r in func._schema.returns]
    results = tuple(given[name] for name in names)
    return None if not results else results[0] if len(results) == 1 else results


def arguments_by_name(func: Any, args: Any, kwargs: Any) -> dict[str, Any]:
    """The arguments of a call by their names in the schema; those left out by their defaults."""
    given: dict[str, Any] = {}
    for i, argument in enumerate(func._schema.arguments):
        if i < len(args) and not argument.kwarg_only:
            given[argument.name] = args[i]
        elif argument.name in kwargs:
            given[argument.name] = kwargs[argument.name]
        elif argument.has_default_value():
            given[argument.name] = argument.default_value
    return given


def _aliased_arguments(func: Any, returned: Any) -> list[str]:
    """The names of the arguments that a return may share memory with, by the schema."""
    sets = returned.alias_info.before_set
    return [
        a.name
        for a in func._schema.arguments
        if a.alias_info is not None and a.alias_info.before_set & sets
    ]


# -- the call -------------------------------------------------------------------------------------


def _fitted(
    mode: FakeMode, func: Any, body: Callable[..., Any], args: list[Any], kwargs: dict[str, Any]
) -> tuple[list[Any], dict[str, Any]]:
    """The arguments in the form that the fake takes.

    The dispatcher leaves out arguments that equal their defaults, and a fake need not repeat the
    defaults of its operator.
    """
    try:
        signature = inspect.signature(body)
    except (TypeError, ValueError):
        return args, kwargs
    if _binds(signature, args, kwargs):
        return args, kwargs
    given = arguments_by_name(func, args, kwargs)
    keyword_only = {a.name for a in func._schema.arguments if a.kwarg_only}
    full = [v for k, v in given.items() if k not in keyword_only]
    full_kwargs = {k: v for k, v in given.items() if k in keyword_only}
    if _binds(signature, full, full_kwargs):
        return full, full_kwargs
    raise _mistake(
        mode, func, f"takes {signature}, and the operator is called with {', '.join(given)}"
    )


def _binds(signature: inspect.Signature, args: list[Any], kwargs: dict[str, Any]) -> bool:
    try:
        signature.bind(*args, **kwargs)
    except TypeError:
        return False
    return True


def _call(
    mode: FakeMode, func: Any, body: Callable[..., Any], args: list[Any], kwargs: dict[str, Any]
) -> Any:
    """Run the fake; nothing that it does is recorded."""
    context = FakeContext(mode.env, func)
    try:
        with mode.unrecorded(), torch_private.fake_context(lambda: context):
            return body(*args, **kwargs)
    except (StillframeError, InternalError):
        raise
    except Exception as e:
        raise _mistake(mode, func, f"fails: {type(e).__name__}: {e}") from e


class FakeContext:
    """What ``torch.library.get_ctx()`` gives to a fake."""

    def __init__(self, env: ShapeEnv, func: Any) -> None:
        self._env = env
        self._func = func

    def new_dynamic_size(self, *, min: int = 0, max: int | None = None) -> torch.SymInt:
        """A size that only the data can tell, between ``min`` and ``max``.

        The program checks the bounds when it runs.

        Raises:
            CustomOperatorError: the bounds are not plain integers with ``0 <= min <= max``.
        """
        if type(min) is not int or (max is not None and type(max) is not int):
            raise self._refuse(min, max, "the bounds are plain integers")
        if min < 0 or (max is not None and max < min):
            raise self._refuse(min, max, "a size is not negative, and min is at most max")
        size = self._env.new_unbacked(0, math.inf)
        name = self._func.name()
        if min > 0:
            self._env.expect_true(ge(size, min), f"{name}: a size is below {min}")
        if max is not None:
            self._env.expect_true(le(size, max), f"{name}: a size is above {max}")
        return self._env.wrap(size)  # type: ignore[no-any-return]

    def create_unbacked_symint(self, *, min: int = 2, max: int | None = None) -> torch.SymInt:
        """The older name of :meth:`new_dynamic_size`, with its older default."""
        return self.new_dynamic_size(min=min, max=max)

    def _refuse(self, min: Any, max: Any, why: str) -> CustomOperatorError:
        return CustomOperatorError(
            f"The fake of {self._func.name()} asks for new_dynamic_size(min={min}, max={max}).",
            operator=self._func.name(),
            why=why,
        )


def _mistake(mode: FakeMode, func: Any, what: str) -> CustomOperatorError:
    name = func.name()
    return CustomOperatorError(
        f"The fake of the operator {name} {what}.",
        operator=name,
        why=f"its schema is {func._schema}",
        where=stack.summary(stack.raw_stack(mode.env.stack_floor)),
        hints=[
            f'correct what is registered with torch.library.register_fake("{name}"); '
            "torch.library.opcheck compares it with the kernel"
        ],
    )


# -- the result -----------------------------------------------------------------------------------


class _ResultCheck:
    """Holds what a fake returned against the schema.

    Attributes:
        fresh: the result tensors that are no arguments.
    """

    def __init__(self, mode: FakeMode, func: Any, args: list[Any], kwargs: dict[str, Any]) -> None:
        self.mode = mode
        self.func = func
        self.given = arguments_by_name(func, args, kwargs)
        self.owners: dict[int, str] = {}
        for name, value in self.given.items():
            for tensor in _tensors(value):
                self.owners.setdefault(id(tensor.storage_), name)
        self.on_meta = any(t.is_meta for v in self.given.values() for t in _tensors(v))
        self.fresh: list[FakeTensor] = []

    def check(self, result: Any) -> None:
        """Raise for the first part of the result that the schema does not allow."""
        returns = self.func._schema.returns
        if not returns:
            if result is not None and result != ():
                self._refuse(f"returns {_kind(result)}, where the operator returns nothing")
            return
        if len(returns) == 1:
            self._check_value("its result", returns[0], returns[0].type, result)
            return
        if not isinstance(result, (tuple, list)) or len(result) != len(returns):
            count = len(result) if isinstance(result, (tuple, list)) else _kind(result)
            self._refuse(f"returns {count}, where the operator returns {len(returns)} values")
        for i, (value, returned) in enumerate(zip(result, returns, strict=True)):
            self._check_value(f"result {i}", returned, returned.type, value)

    def _check_value(self, place: str, returned: Any, kind: Any, value: Any) -> None:
        if isinstance(kind, torch.OptionalType):
            if value is None:
                return
            kind = kind.getElementType()
        if isinstance(kind, torch.ListType):
            if not isinstance(value, (list, tuple)):
                self._refuse(f"returns {_kind(value)} for {place}, where the schema says a list")
            for i, item in enumerate(value):
                self._check_value(f"{place}[{i}]", returned, kind.getElementType(), item)
        elif isinstance(kind, torch.TensorType):
            self._check_tensor(place, returned, value)
        else:
            allowed = _SCALARS.get(str(kind), (object,))
            if not isinstance(value, allowed):
                self._refuse(f"returns {_kind(value)} for {place}, where the schema says {kind}")

    def _check_tensor(self, place: str, returned: Any, value: Any) -> None:
        if not isinstance(value, FakeTensor):
            real = "a tensor that it did not make" if isinstance(value, torch.Tensor) else ""
            self._refuse(f"returns {real or _kind(value)} for {place}")
        if value.is_meta and not self.on_meta:
            self._refuse(
                f"returns a tensor on the device meta for {place}; make it with x.new_empty(...) "
                "or device=x.device"
            )
        owner = self.owners.get(id(value.storage_))
        if returned.alias_info is not None:
            self._check_alias(place, returned, owner, value)
        elif owner is not None:
            self._refuse(
                f"returns {owner} or a view of it for {place}, where the schema promises new memory"
            )
        if owner is None:
            self.owners[id(value.storage_)] = place
            self.fresh.append(value)

    def _check_alias(self, place: str, returned: Any, owner: str | None, value: Any) -> None:
        names = _aliased_arguments(self.func, returned)
        if owner not in names:
            self._refuse(f"returns other memory for {place} than that of {' or '.join(names)}")
        if returned.alias_info.is_write and not any(value is self.given[n] for n in names):
            self._refuse(f"does not return {' or '.join(names)} itself for {place}")

    def _refuse(self, what: str) -> None:
        raise _mistake(self.mode, self.func, what)


def _kind(value: Any) -> str:
    return "None" if value is None else f"{type(value).__name__} {value!r}"


def _tensors(value: Any) -> Iterator[FakeTensor]:
    if isinstance(value, FakeTensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)


def _drop_unused_symbols(mode: FakeMode, func: Any, result: Any) -> None:
    """Forget new sizes that the result does not show: nothing can depend on them.

    Raises:
        CustomOperatorError: a new size shows only inside of a formula that does not tell it.
    """
    shown: set[Expr] = set()
    used: set[Expr] = set()
    for value in _sizes(result):
        used |= value.free_symbols
        shown |= {s for s in value.free_symbols if value is s or value is eq(s, 1)}
    fresh = mode.env.take_fresh_unbacked()
    for symbol in fresh:
        if symbol in used and symbol not in shown:
            raise _mistake(
                mode, func, f"makes the size {symbol} and returns it only as a part of others"
            )
    mode.env.keep_fresh_unbacked([s for s in fresh if s in shown])


def _sizes(result: Any) -> Iterator[Expr]:
    """The symbolic sizes and numbers in a result."""
    if isinstance(result, FakeTensor):
        yield from (s for s in result.sizes if isinstance(s, Expr))
    elif isinstance(result, (list, tuple)):
        for item in result:
            yield from _sizes(item)
    else:
        number = to_size(result)
        if isinstance(number, Expr):
            yield number


def _missing_fake(env: ShapeEnv, func: Any) -> NotSupported:
    """The error for a custom operator that nobody described."""
    name = func.name()
    return NotSupported(
        f"The operator {name} has no fake, so what it returns is not known while capturing.",
        why=f"its schema is {func._schema}",
        where=stack.summary(stack.raw_stack(env.stack_floor)),
        hints=[
            f'@torch.library.register_fake("{name}")\n'
            "def _(...):  # the arguments of the operator\n"
            "    return torch.empty_like(...)  # the dtype and the sizes of what it returns"
        ],
    )
