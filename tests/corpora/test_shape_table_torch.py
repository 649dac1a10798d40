"""torch.export on the same rows: the comparison that the table states is true.

In a file of its own so that two workers share the table between them.
"""

from __future__ import annotations

import pytest
import torch
from tests.corpora.shape_programs import Program, torch_verdict
from tests.corpora.shape_programs_all import PROGRAMS

#: Statistics of too few numbers and what torch deprecates are no matter here.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.skipif(
    not torch.__version__.startswith("2.13."), reason="the table states what torch 2.13 does"
)
@pytest.mark.parametrize("row", [pytest.param(row, id=row.name) for row in PROGRAMS])
def test_torch_export(row: Program) -> None:
    """The verdict of torch.export is the row's."""
    assert torch_verdict(row) == row.torch
