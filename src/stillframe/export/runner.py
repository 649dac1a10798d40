"""A program as a module again: callable, with state under its original names.

:func:`build_module` puts parameters, buffers and constants into plain holder modules under their
dotted names, writes the program as Python (:mod:`~stillframe.export.codegen`), and makes a class
whose ``__call__`` goes straight to that code while nothing is hooked. Of several graphs under one
method, each passes a call that does not fit it on to the next.
"""

from __future__ import annotations

import copy
import itertools
import linecache
import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import CodeType
from typing import Any, NoReturn

import torch

from stillframe import torch_private
from stillframe.errors import CallError, NotSupported, SpecViolationError
from stillframe.export import call_spec as calls
from stillframe.export.call_spec import CallSpec
from stillframe.export.codegen.program import HOOK_TABLES, Generated, ProgramCode
from stillframe.export.door import same_constant
from stillframe.export.signature import InputKind

_counter = itertools.count(1)

Methods = Mapping[str, Sequence[Any]]  # name of a method -> its programs, in order of preference


@dataclass(frozen=True)
class StateEntry:
    """One tensor of the module: its dotted name, and where it sits."""

    fqn: str
    kind: InputKind
    persistent: bool = True


@dataclass(frozen=True)
class GraphCode:
    """The code of one graph.

    Attributes:
        generated: the text, and what its names are bound to.
        code: the text, compiled.
        filename: under which tracebacks find the text.
        call_spec: the parameters of the method.
    """

    generated: Generated
    code: CodeType
    filename: str
    call_spec: CallSpec


@dataclass(frozen=True)
class Plan:
    """Everything of a program's module but its tensors; shared by copies.

    Attributes:
        class_name: of the module that was exported.
        paths: submodules to make, in the original order.
        entries: the state.
        methods: name of a method -> its graphs, in the order in which they are tried.
        modes: the captured modes, as values of ``training``; the module begins in the first.
    """

    class_name: str
    paths: tuple[str, ...]
    entries: tuple[StateEntry, ...]
    methods: Mapping[str, tuple[GraphCode, ...]]
    modes: tuple[bool, ...]

    @property
    def graphs(self) -> list[GraphCode]:
        """All graphs."""
        return [graph for graphs in self.methods.values() for graph in graphs]


def build_module(program: Any) -> torch.nn.Module:
    """The program as a module.

    Calls take what the original forward takes and are checked: what does not fit raises
    :class:`~stillframe.errors.CallError`. The tensors are those of ``program.state_dict`` and
    ``program.constants``, not copies.

    Raises:
        SpecViolationError: graph, signature and state disagree.
        NotSupported: the program holds something that is not run yet.
    """
    return build_module_of({"forward": [program]})


def build_module_of(methods: Methods) -> torch.nn.Module:
    """The same for several programs of one module, which hold the same tensors."""
    plan = make_plan(methods)
    programs = [program for programs in methods.values() for program in programs]
    tensors = {entry.fqn: _value(entry, programs) for entry in plan.entries}
    return _instantiate(plan, tensors)


def _value(entry: StateEntry, programs: Sequence[Any]) -> Any:
    for program in programs:
        for table in (program.state_dict, program.constants):
            if entry.fqn in table:
                return table[entry.fqn]
    raise SpecViolationError(f"{entry.kind.name} {entry.fqn} has no value in the program.")


def make_plan(methods: Methods) -> Plan:
    """The programs without their tensors."""
    programs = [program for programs in methods.values() for program in programs]
    modes = tuple(dict.fromkeys(bool(program.training) for program in programs))
    in_mode = len(modes) > 1
    codes = {
        name: tuple(_graph_code(p, len(graphs) > 1 or in_mode, in_mode) for p in graphs)
        for name, graphs in methods.items()
    }
    entries: dict[str, StateEntry] = {}
    for program in programs:
        for entry in state_entries(program):
            entries.setdefault(entry.fqn, entry)
    needed = {prefix for fqn in entries for prefix in _prefixes(fqn.rpartition(".")[0])}
    paths = [e.fqn for program in programs for e in program.module_call_graph if e.fqn in needed]
    return Plan(
        programs[0].root_class, tuple(dict.fromkeys(paths)), tuple(entries.values()), codes, modes
    )


def _graph_code(program: Any, several: bool, in_mode: bool) -> GraphCode:
    generated = ProgramCode(program, one_of_several=several, in_mode=in_mode).generate()
    filename = f"<stillframe {program.root_class} {next(_counter)}>"
    linecache.cache[filename] = (
        len(generated.text), None, generated.text.splitlines(keepends=True), filename,
    )  # fmt: skip
    code = compile(generated.text, filename, "exec")
    graph = GraphCode(generated, code, filename, program.call_spec)
    weakref.finalize(graph, linecache.cache.pop, filename, None)
    return graph


def _prefixes(path: str) -> Iterable[str]:
    """``a``, ``a.b``, ``a.b.c`` for ``a.b.c``."""
    return itertools.accumulate(path.split("."), lambda head, name: f"{head}.{name}")


def state_entries(program: Any) -> Iterable[StateEntry]:
    """The state of a program's module: what the graph takes, then the rest of its state_dict."""
    signature = program.graph_signature
    kept = (
        InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR, InputKind.CUSTOM_OBJ,
    )  # fmt: skip
    seen = set()
    for spec in signature.input_specs:
        if spec.kind in kept and spec.target is not None:
            seen.add(spec.target)
            yield StateEntry(spec.target, spec.kind, spec.persistent is not False)
    for fqn in program.state_dict:
        if fqn not in seen:
            is_parameter = isinstance(program.state_dict[fqn], torch.nn.Parameter)
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


class SwitchedHolder(Holder):
    """A submodule where graphs of both modes are in: only the whole module switches."""

    def train(self, mode: bool = True) -> Any:
        """Do nothing if ``mode`` is the present one, else refuse."""
        if bool(mode) != self.training:
            wanted = "train" if mode else "eval"
            raise NotSupported(
                "A part of a program does not change its mode alone.",
                why="each graph was captured with the whole module in one mode",
                hints=[f"call {wanted}() on the whole module"],
            )
        return self


class ProgramModule(_Mode):
    """Base of the modules that :func:`build_module` returns; each has a class of its own."""

    _plan: Plan

    @property
    def code(self) -> str:
        """The program as Python; of several graphs, one after the other."""
        parts = []
        for name, graphs in self._plan.methods.items():
            for number, graph in enumerate(graphs, 1):
                title = f"# {name}, graph {number} of {len(graphs)}\n"
                alone = len(self._plan.graphs) == 1
                parts.append(
                    ("" if alone else title) + f"{graph.generated.preamble}\n{graph.generated.text}"
                )
        return "\n".join(parts)

    def train(self, mode: bool = True) -> Any:
        """Switch to a mode that was captured, with all submodules.

        Raises:
            NotSupported: no graph was captured in that mode.
        """
        if bool(mode) not in self._plan.modes:
            return super().train(mode)
        for part in self.modules():
            part.training = bool(mode)
        return self

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
        result.train(self.training)
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
    holder = Holder if len(plan.modes) == 1 else SwitchedHolder
    for path in (*plan.paths, *(entry.fqn.rpartition(".")[0] for entry in plan.entries)):
        _submodule(module, path, holder)
    for entry in plan.entries:
        path, _, name = entry.fqn.rpartition(".")
        place(_submodule(module, path), name, entry, tensors[entry.fqn])
    for part in module.modules():
        part.training = plan.modes[0]
    _bind_code(plan, cls, module)
    return module


def _submodule(root: torch.nn.Module, path: str, holder: type[Holder] = Holder) -> torch.nn.Module:
    """The submodule at ``path``, made with all above it if it is not there.

    The tables are written directly: a name may be one that ``add_module`` refuses, because this
    class has an attribute of that name and the original had not.
    """
    module = root
    for name in path.split(".") if path else ():
        child = module._modules.get(name)
        if child is None:
            child = module._modules[name] = holder()
        module = child
    return module


def _table(module: torch.nn.Module, kind: InputKind) -> dict[str, Any]:
    if kind is InputKind.PARAMETER:
        return module._parameters
    return module._buffers if kind is InputKind.BUFFER else module.__dict__


def place(module: torch.nn.Module, name: str, entry: StateEntry, value: Any) -> None:
    """Put one tensor of the state where it belongs."""
    if entry.kind is InputKind.PARAMETER and not isinstance(value, torch.nn.Parameter):
        value = torch.nn.Parameter(value, requires_grad=value.requires_grad)
    _table(module, entry.kind)[name] = value
    if entry.kind is InputKind.BUFFER and not entry.persistent:
        module._non_persistent_buffers_set.add(name)


def _bind_code(plan: Plan, cls: type, module: ProgramModule) -> None:
    """Give the class its methods, with globals bound to this module's tables."""
    for name, graphs in plan.methods.items():
        namespaces = [_run_text(graph, module) for graph in graphs]
        _chain(name, graphs, namespaces)
        first, names = namespaces[0], graphs[0].generated
        _define(cls, name, first[names.forward])
        if name == "forward":
            _define(cls, "__call__", first[f"{names.forward}_unhooked"])
    if "forward" not in plan.methods:
        _define(cls, "forward", _no_forward)


def _chain(method: str, graphs: Sequence[GraphCode], namespaces: Sequence[dict[str, Any]]) -> None:
    """Bind what each graph calls with calls that do not fit it: the next one, in the end nobody."""
    pairs = zip(namespaces, graphs, strict=True)
    misfits = [n[g.generated.misfit] for n, g in pairs if g.generated.misfit]
    following: Any = NoneFits(method, misfits)
    for graph, namespace in zip(reversed(graphs), reversed(namespaces), strict=True):
        if graph.generated.otherwise:
            namespace[graph.generated.otherwise] = following
        following = namespace[graph.generated.forward]


def _run_text(graph: GraphCode, module: ProgramModule) -> dict[str, Any]:
    """The globals of a graph's code, once it has run."""
    generated = graph.generated
    namespace: dict[str, Any] = {"__builtins__": __builtins__, **generated.values}
    for table in generated.tables:
        namespace[table.name] = getattr(_submodule(module, table.path), table.attribute)
    namespace[generated.hooked] = _call_with_hooks
    for i, hooks in enumerate(_hook_tables(module)):
        namespace[f"{generated.hooks}_{i}"] = hooks
    exec(graph.code, namespace)
    return namespace


def _define(cls: type, name: str, function: Any) -> None:
    function.__name__ = name
    function.__qualname__ = f"{cls.__name__}.{name}"
    function.__module__ = __name__
    setattr(cls, name, function)


class NoneFits:
    """Called when no graph of a method takes a call: says of each graph why.

    Args:
        method: its name.
        misfits: for each graph, a function that takes the call and raises if it does not fit.
    """

    def __init__(self, method: str, misfits: Sequence[Any]) -> None:
        self.method = method
        self.misfits = misfits

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        reasons = []
        for number, misfit in enumerate(self.misfits, 1):
            reason = _reason(misfit, args, kwargs).replace("\n", "\n  ")
            reasons.append(f"graph {number}: {reason}")
        raise CallError(
            f"{self.method}: no graph of this program takes the call.",
            why="\n    ".join(["none of its graphs fits", *reasons]),
        )


def _reason(misfit: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    try:
        misfit(*args, **kwargs)
    except CallError as error:
        return " ".join([error.what, f"({error.why})" if error.why else ""]).rstrip()
    except Exception as error:  # an input that raises when it is looked at
        return f"{type(error).__name__}: {error}"
    return "the inputs changed while they were checked."


def _no_forward(module: ProgramModule, *args: Any, **kwargs: Any) -> NoReturn:
    """What a call does where forward was not captured."""
    names = list(module._plan.methods)
    raise NotSupported(
        f"This program has no forward; it has {', '.join(names)}.",
        hints=[f"module.{names[0]}(...)", "combine it with an export of the module itself"],
    )


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
    parameters = module._plan.methods["forward"][0].call_spec.parameters
    for parameter, value in zip(parameters, values, strict=True):
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
