"""A program as a module again: callable, with state under its original names.

:func:`build_module` puts parameters, buffers and constants into plain holder modules under their
dotted names, writes the program as Python (:mod:`~stillframe.export.codegen`), and makes a class
whose ``__call__`` goes straight to that code while nothing is hooked.
"""

from __future__ import annotations

import copy
import itertools
import linecache
import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from types import CodeType, FunctionType
from typing import Any

import torch

from stillframe import torch_private
from stillframe.errors import NotSupported, SpecViolationError
from stillframe.export import call_spec as calls
from stillframe.export.call_spec import CallSpec
from stillframe.export.codegen import HOOK_TABLES, Generated, ProgramCode
from stillframe.export.door import same_constant
from stillframe.export.signature import InputKind

_counter = itertools.count(1)


@dataclass(frozen=True)
class StateEntry:
    """One tensor of the module: its dotted name, and where it sits."""

    fqn: str
    kind: InputKind
    persistent: bool = True


@dataclass(frozen=True)
class Plan:
    """Everything of a program's module but its tensors; shared by copies.

    Attributes:
        class_name: of the module that was exported.
        paths: submodules to make, in the original order.
        entries: the state.
        generated: the text, and what its names are bound to.
        code: the text, compiled.
        filename: under which tracebacks find the text.
        call_spec: the parameters of forward.
        training: the captured mode.
    """

    class_name: str
    paths: tuple[str, ...]
    entries: tuple[StateEntry, ...]
    generated: Generated
    code: CodeType
    filename: str
    call_spec: CallSpec
    training: bool


def build_module(program: Any) -> torch.nn.Module:
    """The program as a module.

    Calls take what the original forward takes and are checked: what does not fit raises
    :class:`~stillframe.errors.CallError`. The tensors are those of ``program.state_dict`` and
    ``program.constants``, not copies.

    Raises:
        SpecViolationError: graph, signature and state disagree.
        NotSupported: the program holds something that is not run yet.
    """
    plan = make_plan(program)
    tensors = {}
    for entry in plan.entries:
        source = program.state_dict if entry.fqn in program.state_dict else program.constants
        if entry.fqn not in source:
            raise SpecViolationError(f"{entry.kind.name} {entry.fqn} has no value in the program.")
        tensors[entry.fqn] = source[entry.fqn]
    return _instantiate(plan, tensors)


def make_plan(program: Any) -> Plan:
    """The program without its tensors."""
    generated = ProgramCode(program).generate()
    filename = f"<stillframe {program.root_class} {next(_counter)}>"
    linecache.cache[filename] = (
        len(generated.text), None, generated.text.splitlines(keepends=True), filename,
    )  # fmt: skip
    entries = list(_entries(program))
    needed = {prefix for e in entries for prefix in _prefixes(e.fqn.rpartition(".")[0])}
    paths = [e.fqn for e in program.module_call_graph if e.fqn in needed]
    plan = Plan(
        program.root_class,
        tuple(paths),
        tuple(entries),
        generated,
        compile(generated.text, filename, "exec"),
        filename,
        program.call_spec,
        bool(program.training),
    )
    weakref.finalize(plan, linecache.cache.pop, filename, None)
    return plan


def _prefixes(path: str) -> Iterable[str]:
    """``a``, ``a.b``, ``a.b.c`` for ``a.b.c``."""
    return itertools.accumulate(path.split("."), lambda head, name: f"{head}.{name}")


def _entries(program: Any) -> Iterable[StateEntry]:
    signature = program.graph_signature
    kept = (
        InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR, InputKind.CUSTOM_OBJ,
    )  # fmt: skip
    seen = set()
    for spec in signature.input_specs:
        if spec.kind in kept and spec.target is not None:
            seen.add(spec.target)
            yield StateEntry(spec.target, spec.kind, spec.persistent is not False)
    for fqn, value in program.state_dict.items():
        if fqn not in seen:
            is_parameter = isinstance(value, torch.nn.Parameter)
            yield StateEntry(fqn, InputKind.PARAMETER if is_parameter else InputKind.BUFFER)


# -- the module -----------------------------------------------------------------------------------


class _Mode(torch.nn.Module):
    """Refuses to change between training and evaluation: the program was captured in one mode."""

    def train(self, mode: bool = True) -> Any:
        """Do nothing if ``mode`` is the captured one, else refuse."""
        if bool(mode) != self.training:
            captured = "train" if self.training else "eval"
            wanted = "train" if mode else "eval"
            raise NotSupported(
                f"This program was captured in {captured} mode, not {wanted} mode.",
                why="dropout, batch norm and the like are captured as they ran",
                hints=[f"call {wanted}() on the original module and export it again"],
            )
        return self


class Holder(_Mode):
    """A submodule of a program: it holds state under its original name and has no forward."""


class ProgramModule(_Mode):
    """Base of the modules that :func:`build_module` returns; each has a class of its own."""

    _plan: Plan

    @property
    def code(self) -> str:
        """The program as Python."""
        generated = self._plan.generated
        return f"{generated.preamble}\n{generated.text}"

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "forward":  # nn.Module calls an instance's own forward, so ours must
            self.__dict__["_own_forward"][name] = value
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        if name == "forward":
            self.__dict__["_own_forward"].clear()
        super().__delattr__(name)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """As for every module."""
        super().compile(*args, **kwargs)
        self.__dict__["_own_forward"]["compile"] = True

    def __deepcopy__(self, memo: dict[int, Any]) -> ProgramModule:
        tensors = {}
        for entry in self._plan.entries:
            path, _, name = entry.fqn.rpartition(".")
            table = _table(_submodule(self, path), entry.kind)
            tensors[entry.fqn] = copy.deepcopy(table[name], memo)
        result = _instantiate(self._plan, tensors)
        memo[id(self)] = result
        return result

    def __copy__(self) -> Any:
        raise NotSupported(
            "A program's module is not copied shallowly.", hints=["copy.deepcopy(module)"]
        )

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise NotSupported(
            "A program's module is not pickled.",
            hints=["stillframe.save(program, path) and stillframe.load(path).module()"],
        )


def _instantiate(plan: Plan, tensors: dict[str, Any]) -> ProgramModule:
    namespace: dict[str, Any] = {"__module__": __name__, "_plan": plan}
    if any(name.partition(".")[0] == "code" for name in (*plan.paths, *tensors)):
        # the original has an attribute of that name, and it comes first
        namespace["code"] = property(lambda module: module.__getattr__("code"))
    cls = type(plan.class_name, (ProgramModule,), namespace)
    module: ProgramModule = cls()
    module.__dict__["_own_forward"] = {}
    for path in plan.paths:
        _submodule(module, path)
    for entry in plan.entries:
        path, _, name = entry.fqn.rpartition(".")
        _place(_submodule(module, path), name, entry, tensors[entry.fqn])
    for part in module.modules():
        part.training = plan.training
    _bind_code(plan, cls, module)
    return module


def _submodule(root: torch.nn.Module, path: str) -> torch.nn.Module:
    """The submodule at ``path``, made with all above it if it is not there.

    The tables are written directly: a name may be one that ``add_module`` refuses, because this
    class has an attribute of that name and the original had not.
    """
    module = root
    for name in path.split(".") if path else ():
        child = module._modules.get(name)
        if child is None:
            child = module._modules[name] = Holder()
        module = child
    return module


def _table(module: torch.nn.Module, kind: InputKind) -> dict[str, Any]:
    if kind is InputKind.PARAMETER:
        return module._parameters
    return module._buffers if kind is InputKind.BUFFER else module.__dict__


def _place(module: torch.nn.Module, name: str, entry: StateEntry, value: Any) -> None:
    if entry.kind is InputKind.PARAMETER and not isinstance(value, torch.nn.Parameter):
        value = torch.nn.Parameter(value, requires_grad=value.requires_grad)
    _table(module, entry.kind)[name] = value
    if entry.kind is InputKind.BUFFER and not entry.persistent:
        module._non_persistent_buffers_set.add(name)


def _bind_code(plan: Plan, cls: type, module: ProgramModule) -> None:
    """Give the class its code, with globals bound to this module's tables."""
    generated = plan.generated
    namespace: dict[str, Any] = {"__builtins__": __builtins__, **generated.values}
    for table in generated.tables:
        namespace[table.name] = getattr(_submodule(module, table.path), table.attribute)
    namespace[generated.hooked] = _call_with_hooks
    for i, hooks in enumerate(_hook_tables(module)):
        namespace[f"{generated.hooks}_{i}"] = hooks
    exec(plan.code, namespace)
    forward: FunctionType = namespace[generated.forward]
    call: FunctionType = namespace[f"{generated.forward}_unhooked"]
    for function, name in ((forward, "forward"), (call, "__call__")):
        function.__name__ = name
        function.__qualname__ = f"{plan.class_name}.{name}"
        function.__module__ = __name__
        setattr(cls, name, function)


def _hook_tables(module: ProgramModule) -> list[Any]:
    """The tables that are empty while a call may go straight to the code."""
    tables = [
        module._forward_hooks,
        module._forward_pre_hooks,
        module._backward_hooks,
        module._backward_pre_hooks,
        *torch_private.global_module_hooks(),
        module.__dict__["_own_forward"],
    ]
    assert len(tables) == HOOK_TABLES
    return tables


def _call_with_hooks(module: ProgramModule, values: tuple[Any, ...]) -> Any:
    """The call as nn.Module makes it; arguments that were left out stay left out."""
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    by_keyword = False
    for parameter, value in zip(module._plan.call_spec.parameters, values, strict=True):
        if parameter.kind == calls.VAR_POSITIONAL:
            args += value
        elif parameter.kind == calls.VAR_KEYWORD:
            kwargs.update(value)
        elif parameter.has_default and same_constant(value, parameter.default):
            by_keyword = parameter.kind != calls.POSITIONAL_ONLY
        elif by_keyword or parameter.kind == calls.KEYWORD_ONLY:
            kwargs[parameter.name] = value
        else:
            args.append(value)
    return torch.nn.Module.__call__(module, *args, **kwargs)
