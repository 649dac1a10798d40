"""What a capture relied on outside of itself, and functions that check it again.

``guards_set`` holds the guards of a capture, ``install`` adds to them, ``kinds`` says what can be
relied on, and ``checks`` turns a set into one function. This module needs no torch, nor do the
kinds about plain Python values.
"""

from stillframe.guards.guards_set import GuardsCheckpointState, GuardsContext, GuardsSet
from stillframe.guards.install import install_guard, make_dupe_guard

__all__ = [
    "GuardsCheckpointState",
    "GuardsContext",
    "GuardsSet",
    "install_guard",
    "make_dupe_guard",
]
