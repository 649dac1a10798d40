"""What all tests share: one thread each, the same random numbers, and where other programs lie."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent

# The same examples in every run: what fails in the continuous integration fails here too.
hypothesis.settings.register_profile(
    "repeatable", derandomize=True, deadline=None, print_blob=True, database=None
)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))


def pytest_configure(config: pytest.Config) -> None:
    """One thread: the tests run beside each other, and float sums stay the same.

    Seeded, because test modules draw tensors for their parameters, and parallel workers must
    collect the same tests.
    """
    torch.set_num_threads(1)
    random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    """The random numbers of a test do not depend on the tests before it."""
    random.seed(0)
    torch.manual_seed(0)
    yield


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the repository."""
    return ROOT
