"""Control flow on data for strict capture: ``if`` and ``while`` on tensors become operators."""

from stillframe.export.converting.policy import ConvertingPolicy

__all__ = ["ConvertingPolicy"]
