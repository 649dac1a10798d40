"""The kinds of variables, a file per family. Importing this package registers all of them."""

from stillframe.variables.kinds import (
    constants,
    dataclass_fields,
    functions,
    iterators,
    made,
    modules,
    named_tuples,
    numbers,
    python_modules,
    ranges,
    sequences,
    sets,
    tables,
    tensors,
    user_objects,
    views,
)

__all__ = [
    "constants",
    "dataclass_fields",
    "functions",
    "iterators",
    "made",
    "modules",
    "named_tuples",
    "numbers",
    "python_modules",
    "ranges",
    "sequences",
    "sets",
    "tables",
    "tensors",
    "user_objects",
    "views",
]
