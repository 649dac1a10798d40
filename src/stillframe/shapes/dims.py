"""The dim language in one import: what a user writes for ``dynamic_shapes``, and what it means.

The pieces: :mod:`~stillframe.shapes.dimension` (Dim and its arithmetic),
:mod:`~stillframe.shapes.arguments` (inputs and their names), :mod:`~stillframe.shapes.containers`
(pytrees by level), :mod:`~stillframe.shapes.collection` (specs by tensor),
:mod:`~stillframe.shapes.spec` (a spec matched with the inputs), and
:mod:`~stillframe.shapes.examples` (do the example sizes fit).
"""

from __future__ import annotations

from stillframe.shapes.arguments import combine_args
from stillframe.shapes.collection import AdditionalInputs, ShapesCollection, spec_from_leaves
from stillframe.shapes.dimension import (
    DerivedDim,
    Dim,
    DimExpression,
    DimHint,
    DimSpec,
    Relation,
    dims,
)
from stillframe.shapes.spec import LeafSpec, resolve_spec

#: As ``dynamic_shapes``: every size of every tensor is left open, and the program says what it
#: admits.
auto = Dim.AUTO

__all__ = [
    "AdditionalInputs",
    "DerivedDim",
    "Dim",
    "DimExpression",
    "DimHint",
    "DimSpec",
    "LeafSpec",
    "Relation",
    "ShapesCollection",
    "auto",
    "combine_args",
    "dims",
    "resolve_spec",
    "spec_from_leaves",
]
