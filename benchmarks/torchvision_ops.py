"""Make ``import torchvision`` work where its compiled extension does not load.

With the CPU build of torch the extension of the torchvision wheel does not load, and the import
then stops at fake kernels for operators that nobody declared. Import this module before
torchvision, timm or transformers. No benchmark model calls one of the operators.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


def extension_loads() -> bool:
    """Whether torchvision's own extension can declare its operators itself."""
    found = importlib.util.find_spec("torchvision")  # finds the package without running it
    if found is None or found.origin is None:
        return False
    for library in Path(found.origin).parent.glob("_C*.so"):
        try:
            torch.ops.load_library(library)  # type: ignore[no-untyped-call]
        except OSError:  # built against another torch
            continue
        return hasattr(torch.ops.torchvision, "nms")
    return False


def declare() -> torch.library.Library | None:
    """Define the schemas, unless the extension has; the definitions live as long as the result."""
    if extension_loads():
        return None
    fragment = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for schema in _SCHEMAS:
        if not hasattr(torch.ops.torchvision, schema.partition("(")[0]):
            fragment.define(schema)  # type: ignore[no-untyped-call]
    return fragment


_declared = declare()
