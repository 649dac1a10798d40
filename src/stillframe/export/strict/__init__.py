"""Strict capture: the user's Python is run by the frame machine, torch's own is called on fakes.

Plain tracing sees operators only. Here every read of a global, a closure variable or an attribute
goes through the policy, and so does every write.
"""

from stillframe.export.strict.policy import StrictPolicy
from stillframe.export.strict.running import run

__all__ = ["StrictPolicy", "run"]
