"""What a capture specialises and what it lets vary."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stillframe.variables.dynamism import ExportConstraint


@dataclass(frozen=True)
class Options:
    """The field's names, and its defaults.

    Attributes:
        specialize_int: every integer is fixed; else one that was seen with two values varies.
        specialize_float: every float is fixed; else it is an input of the graph.
        assume_static_by_default: a size that has had one value only is fixed.
        automatic_dynamic_shapes: a size that was seen with two values varies.
        trace_numpy: arrays and functions of NumPy are captured as tensors and operators.
        allow_rnn: ``nn.RNN``, ``nn.GRU`` and ``nn.LSTM`` are captured.
        force_parameter_static_shapes: sizes of parameters are fixed.
        force_nn_module_property_static_shapes: sizes of tensors that modules hold are fixed.
        allow_ignore_mark_dynamic: a mark that a dim is dynamic is a wish and no promise.
        capture_sparse_compute: sparse tensors are captured.
        inline_inbuilt_nn_modules: the capture holds for every module of the same class with the
            same attributes; else for the very modules that it was made with.
        skip_fsdp_guards: modules that FSDP manages have no guards.
        traceable_tensor_subclasses: subclasses whose ``__torch_function__`` is run by the trace.
        reorderable_logging_functions: those of ``print``, ``warnings.warn`` and ``logging`` that
            may be called after the graph instead; others are refused.
        ignored_logger_methods: methods of loggers whose calls are left out; others are refused.
        export: the capture is for an exported program: no inputs but the caller's.
        constraints: what an exported program promises of sizes.
    """

    specialize_int: bool = False
    specialize_float: bool = True
    assume_static_by_default: bool = True
    automatic_dynamic_shapes: bool = True
    trace_numpy: bool = True
    allow_rnn: bool = False
    force_parameter_static_shapes: bool = True
    force_nn_module_property_static_shapes: bool = True
    allow_ignore_mark_dynamic: bool = False
    capture_sparse_compute: bool = False
    inline_inbuilt_nn_modules: bool = True
    skip_fsdp_guards: bool = True
    traceable_tensor_subclasses: frozenset[type] = frozenset()
    reorderable_logging_functions: frozenset[Any] = frozenset({print, warnings.warn})
    ignored_logger_methods: frozenset[Any] = frozenset()
    export: bool = False
    constraints: tuple[ExportConstraint, ...] = ()
