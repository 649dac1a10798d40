"""stillframe: turn a running PyTorch program into a graph that can be trusted.

    import stillframe as sf

    program = sf.export(module, (x,), dynamic_shapes={"x": {0: sf.Dim("batch", min=1)}})
    program.module()(other_x)
    sf.save(program, "model.still")

The names below are the public ones. They are loaded on first use, so that the floors that need no
torch (``stillframe.symbolic``) can be used without it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

# The package must be loaded before the function of the same name is bound below: from then on,
# importing its modules leaves the name alone.
import stillframe.export as _export_package

__version__ = "0.1.0"

_HOMES = {
    "ExportedProgram": "stillframe.export.program",
    "ProgramSet": "stillframe.export.several",
    "combine": "stillframe.export.several",
    "VerificationReport": "stillframe.export.verify",
    "comptime": "stillframe.capture_time",
    "save": "stillframe.artifact",
    "load": "stillframe.artifact",
    "from_torchscript": "stillframe.interop.torchscript",
    "make_fx": "stillframe.trace.make_fx",
    "default_decompositions": "stillframe.trace.decompositions",
    **dict.fromkeys(
        ("PatternMatch", "find_pattern", "replace_pattern"), "stillframe.export.surgery.patterns"
    ),
    "insert_observer": "stillframe.export.surgery.observers",
    "extract": "stillframe.export.surgery.extraction",
    **dict.fromkeys(("ProgramDiff", "compare"), "stillframe.export.surgery.comparison"),
    **dict.fromkeys(
        ("AdditionalInputs", "Dim", "ShapesCollection", "auto", "dims"), "stillframe.shapes.dims"
    ),
    **dict.fromkeys(
        (
            "InputKind", "OutputKind", "InputSpec", "OutputSpec", "TensorArgument",
            "SymIntArgument", "SymFloatArgument", "SymBoolArgument", "ConstantArgument",
            "TokenArgument", "CustomObjArgument", "ExportGraphSignature", "ModuleCallEntry",
            "ModuleCallSignature",
        ),
        "stillframe.export.signature",
    ),
    **dict.fromkeys(
        (
            "StillframeError", "UserError", "UserErrorKind", "InvalidInput",
            "ConstraintViolationError", "DataDependentError", "ConversionError", "SideEffectError",
            "NotSupported", "FrameError", "CustomOperatorError", "CallError", "VerificationError",
            "SpecViolationError", "ArtifactError", "InternalError",
        ),
        "stillframe.errors",
    ),
}  # fmt: skip

__all__ = ["__version__", "capture", "export", "unflatten", *_HOMES]

if TYPE_CHECKING:
    import torch

    from stillframe.artifact import load, save
    from stillframe.capture_time import comptime
    from stillframe.errors import (
        ArtifactError,
        CallError,
        ConstraintViolationError,
        ConversionError,
        CustomOperatorError,
        DataDependentError,
        FrameError,
        InternalError,
        InvalidInput,
        NotSupported,
        SideEffectError,
        SpecViolationError,
        StillframeError,
        UserError,
        UserErrorKind,
        VerificationError,
    )
    from stillframe.export.program import ExportedProgram
    from stillframe.export.several import ProgramSet, combine
    from stillframe.export.signature import (
        ConstantArgument,
        CustomObjArgument,
        ExportGraphSignature,
        InputKind,
        InputSpec,
        ModuleCallEntry,
        ModuleCallSignature,
        OutputKind,
        OutputSpec,
        SymBoolArgument,
        SymFloatArgument,
        SymIntArgument,
        TensorArgument,
        TokenArgument,
    )
    from stillframe.export.surgery.comparison import ProgramDiff, compare
    from stillframe.export.surgery.extraction import extract
    from stillframe.export.surgery.observers import insert_observer
    from stillframe.export.surgery.patterns import PatternMatch, find_pattern, replace_pattern
    from stillframe.export.verify import VerificationReport
    from stillframe.interop.torchscript import from_torchscript
    from stillframe.shapes.dims import (
        AdditionalInputs,
        Dim,
        ShapesCollection,
        dims,
    )
    from stillframe.shapes.dims import auto as auto
    from stillframe.trace.decompositions import default_decompositions
    from stillframe.trace.make_fx import make_fx


def export(
    mod: torch.nn.Module | Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any] | None = None,
    *,
    dynamic_shapes: Any = None,
    strict: bool = False,
    control_flow: str = "refuse",
    preserve_module_call_signature: tuple[str, ...] = (),
    assume: Sequence[Any] = (),
    prefer_deferred_runtime_asserts_over_guards: bool = False,
    runtime_asserts: bool | None = None,
    verify: bool | int = False,
) -> ExportedProgram:
    """Capture ``mod`` as a program for all inputs that the example and the dims spec admit.

    The module runs once, on fakes of the example inputs; nothing of it is changed. The graph is
    pre-dispatch ATen: ``aten.linear``, ``aten.layer_norm`` and the like stay whole, in-place
    operators stay in place.

    Args:
        mod: the module, a method of it (``model.encode``), or a function of tensors.
        args: positional example inputs, a tuple.
        kwargs: keyword example inputs.
        dynamic_shapes: which dims may vary, in the format of ``torch.export``: by argument name
            or position, ``{dim: Dim}`` or a list per tensor, containers mirrored. Sizes without
            a spec are static. A ``Dim`` or hint for an int argument, or a hint for a float, makes
            it a variable. :data:`auto` leaves all sizes open: the program's ``proposed_spec``
            then declares what it admits.
        strict: run the module's Python on the frame machine, which sees every read and write of
            globals, closures and objects: a change outside of the program is refused by its path.
        control_flow: what becomes of an ``if``, ``while`` or ``assert`` on data in strict capture:
            ``"refuse"`` is an error with the line; ``"convert"`` makes operators of them, and the
            error (:class:`ConversionError`) is for what no operator can stand for.
        preserve_module_call_signature: paths of submodules whose way of being called is kept in
            ``program.module_call_graph``: :func:`unflatten` gives them their own arguments.
        assume: relations between the dims that hold for every call, and are checked then:
            ``[b % 2 == 0, h == w, s <= 4 * b]``, or the same as text.
        prefer_deferred_runtime_asserts_over_guards: a condition that the program needs beyond what
            is declared becomes a check of every call instead of an error, unless it fixes a size.
        runtime_asserts: False leaves out the checks of numbers that only the data tell
            (``torch._check(n < 4)``), and the checks that take the place of errors by
            ``prefer_deferred_runtime_asserts_over_guards``. What they say is believed, and listed
            in ``program.notes``. None is what the environment variable
            ``STILLFRAME_RUNTIME_ASSERTS`` says, 0 or 1; 1 if it is not set.
        verify: also run :meth:`ExportedProgram.verify` (an int: that many samples).

    Returns:
        The program. It equals ``mod`` on every input that it accepts; without run-time asserts,
        on every one for which they would hold.

    Raises:
        InvalidInput: arguments or spec that do not fit; raised before anything is traced.
        ConstraintViolationError: the program does not work for all declared sizes.
        DataDependentError: Python needs a value that only the data can tell.
        SideEffectError: forward changes something that a program cannot express.
        NotSupported: a construct that is not captured yet, by name.
    """
    from stillframe.export.pipeline import export as run

    # it has captures run the graphs of TorchScript functions; by name, as all of _HOMES
    importlib.import_module("stillframe.interop.script_functions")
    return run(
        mod,
        args,
        kwargs,
        dynamic_shapes=dynamic_shapes,
        strict=strict,
        control_flow=control_flow,
        preserve_module_call_signature=preserve_module_call_signature,
        assume=assume,
        prefer_deferred_runtime_asserts_over_guards=prefer_deferred_runtime_asserts_over_guards,
        runtime_asserts=runtime_asserts,
        verify=verify,
    )


def capture(
    mod: torch.nn.Module | Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any] | None = None,
    *,
    dynamic_shapes: Any = None,
    level: str = "torch",
    strict: bool = False,
    preserve_module_call_signature: tuple[str, ...] = (),
) -> torch.fx.GraphModule:
    """Capture ``mod`` as a plain ``torch.fx`` graph of the calls that its code makes.

    The run and its checks are those of :func:`export`. The graph's nodes are torch functions
    (``torch.nn.functional.relu``), methods (``call_method view``), operators of Python
    (``operator.add``) and properties (``getattr(x, "T")``), as the code calls them; what torch's
    own Python calls inside of a function is not shown. Submodule calls are inlined; nodes know them
    (``nn_module_stack``). Parameters and buffers are the module's own, read by their names.

    Args:
        mod, args, kwargs, dynamic_shapes, strict, preserve_module_call_signature: as for
            :func:`export`.
        level: ``"torch"``, or ``"aten"`` for the operators that the functions call.

    Returns:
        A graph module with the signature of ``mod``. Called, it refuses arguments that the capture
        excludes. ``meta`` has ``"forward_arg_names"``, ``"range_constraints"``,
        ``"inline_constraints"`` (ranges of what only data tells) and ``"module_call_specs"``
        (path -> structures of inputs and outputs, for the preserved submodules).

    Raises:
        As for :func:`export`; ``InvalidInput`` also for an unknown level.
    """
    from stillframe.export.capture import capture as run

    return run(
        mod,
        args,
        kwargs,
        dynamic_shapes=dynamic_shapes,
        level=level,
        strict=strict,
        preserve_module_call_signature=preserve_module_call_signature,
    )


def unflatten(program: ExportedProgram) -> torch.nn.Module:
    """A program as a tree of modules, with the names of the module that it was made from.

    Every submodule that was called is a module with the operators captured in it, and parameters
    and buffers are where they were. The result takes what ``program.module()`` takes, with the
    same checks, and gives the same numbers. The tensors are those of the program, not copies.

    Submodules can be replaced (``model.encoder = other``): those of
    ``preserve_module_call_signature`` are called as the original was, others if they take one
    value and give one.

    Args:
        program: what :func:`export` returned; also one that was decomposed or loaded.

    Raises:
        InvalidInput: ``program`` is no program.
        NotSupported: as for ``program.module()``.
    """
    from stillframe.export.unflatten import unflatten as run

    return run(program)


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'stillframe' has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
