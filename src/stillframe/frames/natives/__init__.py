"""C functions that call back into Python, or look at the frame that called: one registry.

Their handlers do the same with the callbacks on the machine. All other C functions are called as
they are.
"""

from stillframe.frames.natives import attributes, classes, conversions, iterables, methods, scopes
from stillframe.frames.natives.registry import CONTAINER_ARGUMENTS, METHOD_NAMES, find, native

__all__ = [
    "CONTAINER_ARGUMENTS",
    "METHOD_NAMES",
    "attributes",
    "classes",
    "conversions",
    "find",
    "iterables",
    "methods",
    "native",
    "scopes",
]
