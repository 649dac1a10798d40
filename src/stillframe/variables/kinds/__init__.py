"""The kinds of variables, a file per family. Importing this package registers all of them."""

from stillframe.variables.kinds import (
    constants,
    devices,
    distributed,
    functions,
    modules,
    numbers,
    optimizers,
    python_modules,
    sequences,
    tables,
    tensors,
    torch_calls,
    user_objects,
)

__all__ = [
    "constants",
    "devices",
    "distributed",
    "functions",
    "modules",
    "numbers",
    "optimizers",
    "python_modules",
    "sequences",
    "tables",
    "tensors",
    "torch_calls",
    "user_objects",
]
