"""``getattr`` and its family."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

from stillframe.frames import attributes
from stillframe.frames.lookup import MISSING, python_special
from stillframe.frames.natives.registry import native

if TYPE_CHECKING:
    from stillframe.frames.machine import Machine


@native(getattr)
def _getattr(machine: Machine, value: Any, name: Any, default: Any = MISSING, *rest: Any) -> Any:
    if not isinstance(name, str) or rest:
        return getattr(value, name, *rest)
    if default is MISSING:
        return machine.policy.load_attr(value, name)
    return machine.policy.load_attr_or(value, name, default)


@native(hasattr)
def _hasattr(machine: Machine, value: Any, name: Any) -> bool:
    if not isinstance(name, str):
        return hasattr(value, name)
    return machine.policy.load_attr_or(value, name, MISSING) is not MISSING


@native(setattr)
def _setattr(machine: Machine, target: Any, name: Any, value: Any) -> None:
    machine.policy.store_attr(target, name, value)


@native(delattr)
def _delattr(machine: Machine, target: Any, name: Any) -> None:
    machine.policy.delete_attr(target, name)


@native(object.__getattribute__, type.__getattribute__)
def _getattribute(machine: Machine, value: Any, name: str) -> Any:
    return attributes.generic_load(machine.policy, value, name)


@native(object.__setattr__)
def _object_setattr(machine: Machine, target: Any, name: str, value: Any) -> None:
    attributes.generic_store(machine.policy, target, name, value)


@native(object.__delattr__)
def _object_delattr(machine: Machine, target: Any, name: str) -> None:
    attributes.generic_delete(machine.policy, target, name)


@native(property.__get__)
def _property_get(machine: Machine, prop: Any, value: Any, cls: Any = None) -> Any:
    if value is None or prop.fget is None:
        return property.__get__(prop, value, cls)
    return machine.policy.call(prop.fget, (value,), {})


@native(property.__set__)
def _property_set(machine: Machine, prop: Any, target: Any, value: Any) -> None:
    if prop.fset is None:
        property.__set__(prop, target, value)
    else:
        machine.policy.call(prop.fset, (target, value), {})


@native(vars)
def _vars(machine: Machine, *args: Any) -> Any:
    from stillframe.frames.natives.scopes import current_locals

    if len(args) == 1 and hasattr(type(args[0]), "__dict__"):
        return machine.policy.load_attr_or(args[0], "__dict__", MISSING) or vars(*args)
    return vars(*args) if args else current_locals(machine)


@native(dir)
def _dir(machine: Machine, *args: Any) -> Any:
    from stillframe.frames.natives.scopes import current_locals

    if not args:
        return sorted(current_locals(machine))
    listed = attributes.call_special(machine.policy, args[0], "__dir__")
    return dir(*args) if listed is MISSING else sorted(machine.policy.native_iterable(listed))


def _register_operators() -> None:
    from stillframe.frames.versions import BINARY, COMPARE

    for op in BINARY:
        native(op.native)(lambda machine, a, b, op=op: machine.policy.binary(op, a, b))
    for op in COMPARE.values():
        native(op.native)(lambda machine, a, b, op=op: machine.policy.compare(op, a, b))
    native(operator.contains)(lambda machine, a, b: machine.policy.contains(a, b))
    native(operator.getitem)(lambda machine, a, b: machine.policy.load_item(a, b))
    native(operator.setitem)(lambda machine, a, b, c: machine.policy.store_item(a, b, c))
    native(operator.delitem)(lambda machine, a, b: machine.policy.delete_item(a, b))
    native(operator.truth)(lambda machine, a: machine.policy.boolean(a))
    native(operator.not_)(lambda machine, a: machine.policy.negated(a))
    for function, method in (
        (operator.neg, "__neg__"), (operator.pos, "__pos__"), (operator.invert, "__invert__"),
    ):  # fmt: skip
        native(function)(
            lambda machine, a, function=function, method=method: machine.policy.unary(
                method, function, a
            )
        )


_register_operators()


@native(divmod)
def _divmod(machine: Machine, left: Any, right: Any) -> Any:
    return _by_method(machine, divmod, "__divmod__", "__rdivmod__", left, right)


@native(pow)
def _pow(machine: Machine, base: Any, exp: Any, mod: Any = None) -> Any:
    from stillframe.frames.versions import BINARY

    if mod is None:
        return machine.policy.binary(BINARY[8], base, exp)
    found = attributes.call_special(machine.policy, base, "__pow__", exp, mod)
    return pow(base, exp, mod) if found is MISSING else found


def _by_method(
    machine: Machine, function: Any, name: str, reflected: str, left: Any, right: Any
) -> Any:
    found = attributes.call_special(machine.policy, left, name, right)
    if found is not MISSING and found is not NotImplemented:
        return found
    if python_special(type(right), reflected):
        return attributes.call_special(machine.policy, right, reflected, left)
    return function(left, right)
