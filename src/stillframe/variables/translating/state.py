"""What the translator of a frame knows: the state on which its layers work."""

from __future__ import annotations

import warnings
from types import CellType, CodeType, FunctionType
from typing import TYPE_CHECKING, Any, cast

import torch

from stillframe.fake.tensor import FakeTensor
from stillframe.frames import Policy
from stillframe.frames.frame import Frame
from stillframe.shapes.env import ShapeEnv
from stillframe.source import Source
from stillframe.variables.base import LazyVariableTracker, VariableTracker
from stillframe.variables.behaviour import Behaviour
from stillframe.variables.callbacks import Bodies
from stillframe.variables.dynamism import FrameState
from stillframe.variables.inputs import GraphInputs
from stillframe.variables.module_stack import FrameModuleScope
from stillframe.variables.numpy_link import array_calls
from stillframe.variables.options import Options
from stillframe.variables.side_effects import SideEffects
from stillframe.variables.tensor_attributes import TensorAttributes
from stillframe.variables.translating.recorder import TrackedRecorder

if TYPE_CHECKING:
    from stillframe.variables.translator import Translator


class State(Policy):
    """What is known of a frame that is run.

    Args:
        function: the frame's function; its globals are ``G``.
        frame_state: what the frame's inputs were in earlier compilations.
        options: what is specialised.

    Attributes:
        env: symbols of sizes and numbers.
        scope: the calls of modules in progress.
        recorder: makes the graph.
        effects: the objects that were there before, and writes to them.
        behaviour: the classes and functions from outside that are run.
        wrapped: what goes with a value read at a source: ``(id, source)`` -> value, tracker.
        inputs: the inputs of the graph.
        numbers: symbolic numbers, by the name of the source.
        open_streams: the nodes that made a stream of a device current, of blocks that are open.
        bodies: the functions of higher-order operators that are being traced.
        arrays: answers what is done with arrays of NumPy.
        tensors: attributes of tensors.
        results: what goes with tensors that the graph computes, by identity.
        has_user_defined_allowed_in_graph: a function of the user's is a node of the graph.
        warning_filters: the filters of warnings before the capture.
        shown: tensors that will be printed when the graph has run, and how often each was written.
        tx: the whole translator, of which this is the lowest layer; for those who are given one.
        wrote_cells: the program has set a variable of an enclosing function.
        written_objects: the objects whose attributes the program has set or deleted.
    """

    tx: Translator

    def __init__(self, function: FunctionType, frame_state: FrameState, options: Options) -> None:
        super().__init__()
        self.tx = cast("Translator", self)  # the layers are of use in a translator only
        self.open_containers = frozenset({str, bytes})
        self.open_iterators = False
        self.open_operands = frozenset({int, float, complex, bool, type(None)})
        self.function = function
        self.frame_state = frame_state
        self.options = options
        self.env = ShapeEnv()
        self.env.fixes_texts = True
        self.scope = FrameModuleScope(self.tx.source)
        self.recorder = TrackedRecorder(self.tx)
        self.effects = SideEffects()
        self.behaviour = Behaviour(self.tx)
        self.wrapped: dict[tuple[int, Source], tuple[Any, VariableTracker]] = {}
        self.inputs = GraphInputs(self.env, self.recorder, frame_state, options)
        self.numbers: dict[str, VariableTracker] = {}
        self.bodies = Bodies(self.tx)
        self.arrays = array_calls(self.tx)
        self.tensors = TensorAttributes(self.tx)
        self.env.watches_hash = self.tensors.refuse_ambiguous_key
        self.results: dict[int, VariableTracker] = {}
        self._pending: dict[int, LazyVariableTracker] = {}
        self._root: Frame | None = None
        self._own: dict[int, Any] = {}
        self._cells: dict[int, tuple[CellType, Source]] = {}
        self._globals: dict[int, tuple[dict[str, Any], Source | None]] = {}
        self.wrote_cells = False
        self.written_objects: list[Any] = []
        self._regions: list[Any] = []  # blocks of torch that the program is in
        self._exposed: dict[int, tuple[Any, bool]] = {}
        self._code_constants: dict[int, Any] = {}
        self._entered: dict[int, Any] = {}
        self._inlined: dict[CodeType, bool] = {}
        self._makes_constants = False
        self.open_streams: list[torch.fx.Node] = []
        self.has_user_defined_allowed_in_graph = False
        self.warning_filters = list(warnings.filters)
        self.shown: list[tuple[FakeTensor, int]] = []
