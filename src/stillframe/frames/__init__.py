"""Symbolic execution of CPython bytecode. The core needs no torch.

:func:`interpret` runs a function on the machine as plain Python. What a value is and what happens
to it is decided by a :class:`Policy`; see ``docs/frames.md``.
"""

from stillframe.frames.machine import Machine, interpret
from stillframe.frames.policy import Policy

__all__ = ["Machine", "Policy", "interpret"]
