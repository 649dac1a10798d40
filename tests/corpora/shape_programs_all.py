"""All rows of the table of symbolic-shape programs."""

from __future__ import annotations

from tests.corpora import (
    shape_programs_data,
    shape_programs_inputs,
    shape_programs_layers,
    shape_programs_numbers,
    shape_programs_tensors,
)
from tests.corpora.shape_programs import Program

PROGRAMS: list[Program] = [
    *shape_programs_tensors.PROGRAMS,
    *shape_programs_layers.PROGRAMS,
    *shape_programs_numbers.PROGRAMS,
    *shape_programs_inputs.PROGRAMS,
    *shape_programs_data.PROGRAMS,
]
