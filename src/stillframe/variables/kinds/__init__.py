"""The kinds of variables, a file per family. Importing this package registers all of them."""

from stillframe.variables.kinds import (
    constants,
    functions,
    modules,
    numbers,
    python_modules,
    results,
    sequences,
    tables,
    tensor_calls,
    tensor_subclasses,
    tensors,
    user_objects,
)

__all__ = [
    "constants",
    "functions",
    "modules",
    "numbers",
    "python_modules",
    "results",
    "sequences",
    "tables",
    "tensor_calls",
    "tensor_subclasses",
    "tensors",
    "user_objects",
]
