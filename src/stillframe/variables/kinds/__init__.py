"""The kinds of variables, a file per family. Importing this package registers all of them."""

from stillframe.variables.kinds import (
    autograd,
    constants,
    contexts,
    devices,
    distributed,
    functions,
    higher_order,
    modules,
    numbers,
    optimizers,
    python_modules,
    random_state,
    results,
    sequences,
    tables,
    tensor_calls,
    tensor_subclasses,
    tensors,
    torch_calls,
    torch_objects,
    user_objects,
    wrappers,
)
from stillframe.variables.numpy_link import HAS_NUMPY

if HAS_NUMPY:
    from stillframe.variables.kinds import numpy_arrays as numpy_arrays

__all__ = [
    "autograd",
    "constants",
    "contexts",
    "devices",
    "distributed",
    "functions",
    "higher_order",
    "modules",
    "numbers",
    "optimizers",
    "python_modules",
    "random_state",
    "results",
    "sequences",
    "tables",
    "tensor_calls",
    "tensor_subclasses",
    "tensors",
    "torch_calls",
    "torch_objects",
    "user_objects",
    "wrappers",
]
