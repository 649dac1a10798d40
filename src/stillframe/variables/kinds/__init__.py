"""The kinds of variables, a file per family. Importing this package registers all of them."""

from stillframe.variables.kinds import (
    comptime,
    constants,
    descriptors,
    functions,
    lambdas,
    logs,
    modules,
    numbers,
    python_modules,
    python_objects,
    sequences,
    tables,
    tensors,
    trace_rules,
    user_objects,
    wrappers,
)

__all__ = [
    "comptime",
    "constants",
    "descriptors",
    "functions",
    "lambdas",
    "logs",
    "modules",
    "numbers",
    "python_modules",
    "python_objects",
    "sequences",
    "tables",
    "tensors",
    "trace_rules",
    "user_objects",
    "wrappers",
]
