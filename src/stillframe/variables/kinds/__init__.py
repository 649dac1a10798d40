"""The kinds of variables, a file per family. Importing this package registers all of them."""

from stillframe.variables.kinds import (
    autograd,
    constants,
    contexts,
    functions,
    higher_order,
    modules,
    numbers,
    numpy_arrays,
    python_modules,
    random_state,
    sequences,
    tables,
    tensors,
    torch_objects,
    user_objects,
    wrappers,
)

__all__ = [
    "autograd",
    "constants",
    "contexts",
    "functions",
    "higher_order",
    "modules",
    "numbers",
    "numpy_arrays",
    "python_modules",
    "random_state",
    "sequences",
    "tables",
    "tensors",
    "torch_objects",
    "user_objects",
    "wrappers",
]
