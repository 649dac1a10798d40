"""A frame captured with guards: its values, where they came from, and what it changes.

``capture_frame`` runs a function on the frame machine and gives back a graph, the guards under
which it is right, and one generated function for the rest: reading the graph's inputs, making the
result, doing the side effects. The kinds of values are in ``kinds/``.
"""

from stillframe.variables.base import (
    ExistingMutable,
    ExistingObject,
    LazyVariableTracker,
    MutableLocal,
    VariableTracker,
    VariableTrackerMeta,
    realize_all,
    typestr,
)
from stillframe.variables.builder import VariableBuilder
from stillframe.variables.capture import FrameCapture, capture_frame
from stillframe.variables.dynamism import FrameState
from stillframe.variables.graph_inputs import BackwardStateGraphArg, GraphArg, TrackedFake
from stillframe.variables.options import Options
from stillframe.variables.residue import Residue
from stillframe.variables.rules import allow_in_graph, disallow_in_graph
from stillframe.variables.side_effects import Effect, SideEffects
from stillframe.variables.sourceless import SourcelessBuilder
from stillframe.variables.translator import Translator

__all__ = [
    "BackwardStateGraphArg",
    "Effect",
    "ExistingMutable",
    "ExistingObject",
    "FrameCapture",
    "FrameState",
    "GraphArg",
    "LazyVariableTracker",
    "MutableLocal",
    "Options",
    "Residue",
    "SideEffects",
    "SourcelessBuilder",
    "TrackedFake",
    "Translator",
    "VariableBuilder",
    "VariableTracker",
    "VariableTrackerMeta",
    "allow_in_graph",
    "capture_frame",
    "disallow_in_graph",
    "realize_all",
    "typestr",
]
