"""The dim language in one import: what a user writes for ``dynamic_shapes``, and what it means.

The pieces: :mod:`~stillframe.shapes.dimension` (Dim and its arithmetic), :mod:`~stillframe.shapes.spec`
(a spec matched with the inputs), :mod:`~stillframe.shapes.examples` (the sizes of the examples).
"""

from __future__ import annotations

from stillframe.shapes.dimension import DerivedDim, Dim, DimHint, DimSpec, dims
from stillframe.shapes.spec import LeafSpec, ShapesCollection, combine_args, resolve_spec

__all__ = [
    "DerivedDim",
    "Dim",
    "DimHint",
    "DimSpec",
    "LeafSpec",
    "ShapesCollection",
    "combine_args",
    "dims",
    "resolve_spec",
]
