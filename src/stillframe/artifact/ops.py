"""Targets of graph nodes by name.

A file names operators; a name is only ever looked up among the operators that this process has
registered and in one fixed table of symbolic arithmetic. Nothing is imported to find one.
"""

from __future__ import annotations

import re
from typing import Any

import torch

from stillframe import torch_private
from stillframe.errors import ArtifactError
from stillframe.export.verifier import TARGETS

_NAME = re.compile(r"([A-Za-z_]\w*)::([A-Za-z_]\w*)\.([A-Za-z_]\w*)")

# Operators that reach outside the program: files, the interpreter, the profiler.
_DENIED_NAMESPACES = frozenset({"prim", "profiler", "static_runtime", "debugprims", "_test"})
_DENIED = frozenset({"aten::from_file", "aten::save", "aten::open", "aten::format", "aten::warn"})


def _builtin_name(function: Any) -> str:
    module = (getattr(function, "__module__", None) or "torch._C").removeprefix("_")
    return f"{module}.{function.__name__}"


_BUILTINS: dict[str, Any] = {}
for _function in TARGETS:
    _name = _builtin_name(_function)
    if _name in _BUILTINS:
        raise LookupError(f"two symbolic targets are called {_name}")
    _BUILTINS[_name] = _function


def target_name(target: Any) -> str:
    """The name of a node's target in files.

    Raises:
        ArtifactError: neither an operator nor symbolic arithmetic.
    """
    if isinstance(target, torch._ops.OpOverload):
        return f"{target._schema.name}.{target._overloadname}"
    name = _builtin_name(target) if callable(target) and hasattr(target, "__name__") else ""
    if _BUILTINS.get(name) is not target:
        raise ArtifactError(f"A file cannot hold a graph that calls {target!r}.")
    return name


def resolve_target(name: str) -> Any:
    """The target of that name in this process.

    Raises:
        ArtifactError: no such operator is registered here, or it is not one that a program may
            call.
    """
    if name in _BUILTINS:
        return _BUILTINS[name]
    match = _NAME.fullmatch(name)
    if match is None:
        raise ArtifactError(f"The file calls {name[:80]!r}, which is not the name of an operator.")
    namespace, operator, overload = match.groups()
    full = f"{namespace}::{operator}"
    if namespace in _DENIED_NAMESPACES or full in _DENIED:
        raise ArtifactError(f"The file calls {full}, which a program may not call.")
    known = torch_private.registered_overloads(full)
    if overload not in known:
        hints = [f"import the library that registers {full} before loading"]
        raise ArtifactError(
            f"The file calls the operator {name}, which is not registered in this process.",
            hints=hints
            if namespace != "aten"
            else ["it was written with another version of torch"],
        )
    found = getattr(getattr(getattr(torch.ops, namespace), operator), overload)
    if not isinstance(found, torch._ops.OpOverload):
        raise ArtifactError(f"{name} is not an operator.")
    return found
