"""TorchScript, scripted or traced, to a program.

A TorchScript module keeps its state and its code in C++, where neither can be followed. So its
tree is mirrored by Python modules that hold the same tensors under the same names, and whose
forward runs the graphs (:mod:`~stillframe.interop.script_machine`). That tree is then exported as
any module.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from stillframe.errors import NotSupported
from stillframe.export.pipeline import export
from stillframe.export.program import ExportedProgram
from stillframe.interop import script_graph, script_machine
from stillframe.interop.script_machine import Method
from stillframe.interop.script_values import check_result, signature_of, to_script

_Script = torch._C.ScriptModule


def from_torchscript(
    script: Any,
    args: Any,
    kwargs: dict[str, Any] | None = None,
    *,
    dynamic_shapes: Any = None,
    assume: Sequence[Any] = (),
    prefer_deferred_runtime_asserts_over_guards: bool = False,
) -> ExportedProgram:
    """Convert a TorchScript module, method or function to a program.

    The name is the field's for taking over what another system made (``from_numpy``,
    ``from_dlpack``). TorchScript's own interpreter does not run: the graphs are run here, so that
    ``if x.size(0) > 3`` and loops over sizes become conditions of the program, and branches on
    data are refused. The script is not changed.

    Tensor attributes that are no parameters are buffers of the program. What the script assigns to
    one is copied into it, so its size must stay what it is: where a first call makes the state,
    make that call before.

    Args:
        script: what ``torch.jit.script``, ``torch.jit.trace`` or ``torch.jit.load`` returned, a
            method of one (``module.encode``), or a Python module or function, of which submodules
            may be TorchScript.
        args: example inputs: a tuple; a list is taken as one, and a single tensor, number or
            (without ``kwargs``) dict is the only input.
        kwargs: keyword example inputs.
        dynamic_shapes, assume, prefer_deferred_runtime_asserts_over_guards: as for
            :func:`stillframe.export`; argument names are those of the script's schema.

    Returns:
        The program.

    Raises:
        NotSupported: an operator of TorchScript that is not run, with its line; or hooks.
        DataDependentError: the script branches on data.
        SideEffectError: the script changes an attribute that is no tensor.
    """
    import stillframe.interop.script_functions  # noqa: F401  (functions that Python calls)

    with _as_python(script) as module:
        return export(
            module,
            _as_tuple(args, kwargs),
            kwargs,
            dynamic_shapes=dynamic_shapes,
            assume=assume,
            prefer_deferred_runtime_asserts_over_guards=prefer_deferred_runtime_asserts_over_guards,
        )


def _as_tuple(args: Any, kwargs: dict[str, Any] | None) -> Any:
    """The positional inputs as ``export`` takes them."""
    if isinstance(args, list):
        return tuple(args)
    if isinstance(args, tuple) or (isinstance(args, dict) and kwargs):
        return args
    return (args,)


@contextlib.contextmanager
def _as_python(script: Any) -> Iterator[Any]:
    """What to export in place of ``script``."""
    if isinstance(script, torch.jit.ScriptFunction):
        yield convert_function(script)
    elif isinstance(script, torch.jit.ScriptModule):
        yield convert_module(script)
    elif isinstance(script, _Script):
        yield convert_module(torch.jit._recursive.wrap_cpp_module(script))
    elif isinstance(script, torch._C.ScriptMethod):
        owner = torch.jit._recursive.wrap_cpp_module(script.owner)
        yield convert_module(owner, method=script.name)
    elif isinstance(script, torch.nn.Module):
        with _submodules_replaced(script):
            yield script
    else:
        yield script


@contextlib.contextmanager
def _submodules_replaced(root: torch.nn.Module) -> Iterator[None]:
    """TorchScript submodules of a Python module are converted ones inside."""
    replaced: list[tuple[dict[str, Any], str, Any]] = []
    converted: dict[int, torch.nn.Module] = {}
    try:
        for parent in list(root.modules()):
            if isinstance(parent, torch.jit.ScriptModule):
                continue
            for name, child in parent._modules.items():
                if isinstance(child, torch.jit.ScriptModule):
                    if id(child) not in converted:
                        converted[id(child)] = convert_module(child)
                    replaced.append((parent._modules, name, child))
                    parent._modules[name] = converted[id(child)]
        yield
    finally:
        for table, name, child in replaced:
            table[name] = child


# -- modules --------------------------------------------------------------------------------------


class ConvertedModule(torch.nn.Module):
    """The Python side of a TorchScript module: its state, its plain attributes, its methods.

    Attributes:
        methods: the decoded methods by name; of the class, since code is not state.
    """

    methods: dict[str, Method] = {}


def convert_module(script: torch.jit.ScriptModule, method: str = "forward") -> ConvertedModule:
    """The tree of a TorchScript module as Python modules, with the same tensors.

    Args:
        script: the module.
        method: what a call of the result runs.

    Raises:
        NotSupported: the module has hooks, or no such method.
    """
    tree = _Tree(script._c)
    kept = set(script.state_dict())
    root = tree.convert(script._c, "", kept)
    schemas = {name: script._c._get_method(name).schema for name in script._c._method_names()}
    if method not in schemas:
        raise NotSupported(f"The TorchScript module {script.original_name} has no {method}().")
    cls = type(root)
    setattr(cls, "forward", _forward_of(schemas[method], cls.methods[method]))
    _refuse_hooks(script)
    return root


def _refuse_hooks(script: torch.jit.ScriptModule) -> None:
    """Hooks of the outermost module run around its graph; those of submodules are in a graph."""
    if script._forward_hooks or script._forward_pre_hooks or script._c._get_forward_hooks():
        raise NotSupported(
            f"The TorchScript module {script.original_name} has hooks on its own call.",
            hints=["script a module that has it as a submodule"],
        )
    for module in script.modules():
        if not isinstance(module, torch.jit.ScriptModule):
            raise NotSupported(f"{type(module).__name__} inside of TorchScript is not converted.")


class _Tree:
    """One conversion of a tree of modules."""

    def __init__(self, root: Any) -> None:
        scripts = list(_walk(root))
        decoder = script_graph.Decoder({s._type().qualified_name() for s in scripts})
        self._methods = script_graph.TypeTable()
        for script in scripts:
            if self._methods.get("", [script._type()]) is None:
                self._methods.put("", [script._type()], _methods_of(script, decoder))
        self._attributes = {
            name
            for methods in self._methods
            for method in methods.values()
            for name in script_graph.attributes_of(method.block)
        }
        self._made: dict[int, list[tuple[Any, ConvertedModule]]] = {}

    def convert(self, script: Any, path: str, kept: set[str]) -> ConvertedModule:
        """The module and all below it; a shared one is made once."""
        known = self._made.setdefault(hash(script), [])
        for other, module in known:
            if other == script:
                return module
        module = self._class_of(script)()
        known.append((script, module))
        for name, parameter in _entries(torch._C.ParameterDict(script)):
            module._parameters[name] = parameter
        for name, buffer in _entries(torch._C.BufferDict(script)):
            self._put_buffer(module, name, buffer, is_kept=path + name in kept)
        for name, child in _entries(torch._C.ModuleDict(script)):
            module._modules[name] = self.convert(child, f"{path}{name}.", kept)
        for name in sorted(self._attributes):
            if script_machine.read_attribute(module, name) is script_machine.MISSING:
                self._put_attribute(module, script, name)
        module.training = bool(script.getattr("training")) if script.hasattr("training") else True
        return module

    def _class_of(self, script: Any) -> type[ConvertedModule]:
        kind = script._type()
        name = kind.qualified_name()
        methods = self._methods.get("", [kind])
        body = {"methods": methods, "__module__": name.rpartition(".")[0]}
        return type(kind.name(), (ConvertedModule,), body)

    def _put_attribute(self, module: ConvertedModule, script: Any, name: str) -> None:
        if not script.hasattr(name):
            return
        value = script.getattr(name)
        if isinstance(value, torch.Tensor):
            self._put_buffer(module, name, value, is_kept=False)
        elif _is_readable(value):
            module.__dict__[name] = value

    @staticmethod
    def _put_buffer(module: ConvertedModule, name: str, value: Any, *, is_kept: bool) -> None:
        module._buffers[name] = value
        if not is_kept:
            module._non_persistent_buffers_set.add(name)


def _entries(table: Any) -> list[tuple[str, Any]]:
    """Name and value of each entry of a table in C++."""
    return list(table.items())


def _walk(script: Any) -> Iterator[Any]:
    yield script
    for _, child in _entries(torch._C.ModuleDict(script)):
        yield from _walk(child)


def _is_readable(value: Any) -> bool:
    """Whether an attribute holds no object of C++."""
    if isinstance(value, (list, tuple)):
        return all(_is_readable(v) for v in value)
    if isinstance(value, dict):
        return all(_is_readable(v) for v in value.values())
    return not isinstance(value, torch._C.ScriptObject)


def _methods_of(script: Any, decoder: script_graph.Decoder) -> dict[str, Method]:
    """The decoded methods of a type of module."""
    found = {name: script._get_method(name) for name in script._method_names()}
    return {
        name: Method(
            decoder.decode(method.graph, name), [a.type for a in method.schema.arguments[1:]]
        )
        for name, method in found.items()
    }


# -- calls ----------------------------------------------------------------------------------------


def _forward_of(schema: Any, method: Method) -> Callable[..., Any]:
    """The ``forward`` of a root: it takes what the schema says."""
    signature = signature_of(schema, is_method=True)

    def forward(self: ConvertedModule, *args: Any, **kwargs: Any) -> Any:
        values = _bind(signature, method.types, args, kwargs)
        return check_result(script_machine.run(method.block, (self, *values)))

    whole = [inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)]
    whole += signature.parameters.values()
    forward.__signature__ = inspect.Signature(whole)  # type: ignore[attr-defined]
    return forward


def _bind(
    signature: inspect.Signature, types: list[Any], args: Any, kwargs: dict[str, Any]
) -> list[Any]:
    bound = signature.bind(*args, **kwargs)
    bound.apply_defaults()
    pairs = zip(bound.arguments.items(), types, strict=True)
    return [to_script(value, type_, name) for (name, value), type_ in pairs]


def convert_function(script: Any) -> ConvertedModule:
    """A TorchScript function as a module without state."""
    block = script_graph.Decoder().decode(script.graph, script.name)
    types = [argument.type for argument in script.schema.arguments]
    signature = signature_of(script.schema, is_method=False)

    def forward(*args: Any, **kwargs: Any) -> Any:
        values = _bind(signature, types, args, kwargs)
        return check_result(script_machine.run(block, tuple(values)))

    forward.__signature__ = signature  # type: ignore[attr-defined]
    body = {"forward": staticmethod(forward), "__module__": "__torch__"}
    module: ConvertedModule = type(script.name, (ConvertedModule,), body)()
    return module
