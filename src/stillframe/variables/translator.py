"""Translator: the policy under which a frame is captured with guards.

Every value from outside is reached by a read, and every read has a source: a local or global of the
frame, an attribute or an item of another value. The translator hands the value and its source to
:class:`VariableBuilder`, which notes what is relied on there, and gives the program what stands for
the value: a fake for a tensor, a symbol for a number that varies, else the value itself. Writes to
what was there before go through :class:`SideEffects`.
"""

from __future__ import annotations

import _collections_abc
import collections
import contextlib
import functools
import operator
import os
import sys
import traceback
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import (
    BuiltinFunctionType,
    CellType,
    CodeType,
    FunctionType,
    GeneratorType,
    MethodType,
    ModuleType,
)
from typing import TYPE_CHECKING, Any

import torch

from stillframe.context import TracingContext
from stillframe.errors import FrameError
from stillframe.fake.tensor import FakeTensor
from stillframe.frames import Policy
from stillframe.frames.arithmetic import has_python_equality
from stillframe.frames.frame import NULL, Frame
from stillframe.frames.lookup import C_KINDS, python_special, type_lookup
from stillframe.guards import install_guard
from stillframe.guards.kinds.registry import kind as guard_kind
from stillframe.shapes.env import ShapeEnv
from stillframe.source import (
    AttrSource,
    DefaultsSource,
    GetItemSource,
    GlobalSource,
    LocalSource,
    ModuleSource,
    Source,
    TypeSource,
    has_exact_form,
)
from stillframe.trace.recorder import Recorder
from stillframe.variables.base import LazyVariableTracker, VariableTracker
from stillframe.variables.behaviour import Behaviour, is_library_class, is_library_function
from stillframe.variables.c_code import (
    CHANGE_ARGUMENTS,
    COMPARED,
    COMPARING,
    DICTS,
    FORMATTING,
    JOINING,
    KEEPING,
    LOOKS_AWAY,
    MUTATORS,
    SEARCHING,
    TEXT,
    hashed_items,
    is_compared_by_c,
    is_of_c,
    owner_of,
    raw_items,
    with_items,
)
from stillframe.variables.callbacks import Bodies, Callback, calls_modules, is_callback
from stillframe.variables.dynamism import (
    FrameState,
)
from stillframe.variables.foreign import (
    ALONE,
    check,
    check_result,
    refuse_hidden_code,
    refuse_opaque,
    refuse_traceback,
)
from stillframe.variables.getters import GETTERS, call_getter
from stillframe.variables.identity import may_be
from stillframe.variables.inputs import GraphInputs
from stillframe.variables.module_stack import FrameModuleScope
from stillframe.variables.numpy_link import array_calls, array_class
from stillframe.variables.options import Options
from stillframe.variables.paths import (
    CONSTANTS,
    MODULE_TABLES,
    SEQUENCES,
    instance_dict,
    is_library,
    is_plain,
    is_torch,
    lasting_source,
    lasts,
    library_source,
    name_of,
)
from stillframe.variables.registry import is_known_object
from stillframe.variables.side_effects import CONTAINERS, SideEffects, contents_of
from stillframe.variables.tensor_attributes import TensorAttributes
from stillframe.variables.tensor_functions import TrackedFunctions, TrackedMode, requires_grad
from stillframe.variables.texts import TEXTS, told_parts, told_value

if TYPE_CHECKING:
    from stillframe.variables.builder import VariableBuilder

TUPLE_ITERATOR: type = type(iter(()))

_TORCH = os.path.dirname(torch.__file__) + os.sep
_STILLFRAME = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep

_LIBRARIES = (_TORCH, _STILLFRAME)

#: Python of torch, and of ours around it, that is run by the machine: it reads the user's objects.
_INLINED = (
    os.path.join(_TORCH, "nn", "init.py"),
    os.path.join(_TORCH, "nn", "modules", ""),
    os.path.join(_TORCH, "nn", "parallel", ""),
    os.path.join(_TORCH, "nn", "utils", ""),
    os.path.join(_TORCH, "optim", ""),
    os.path.join(_TORCH, "utils", "_contextlib.py"),
    os.path.join(_TORCH, "autograd", "function.py"),
    os.path.join(_TORCH, "random.py"),
    os.path.join(_TORCH, "utils", "_pytree.py"),
    os.path.join(_STILLFRAME, "trace", "transformer.py"),
)

#: Of these, what counts the classes that were made, and reads no object of the user's.
_COUNTS = frozenset({torch.autograd.function.FunctionMeta.__init__.__code__})

#: Packages whose compiled functions may be called: they work on tensors, which are recorded.
_TRUSTED = frozenset({"torch", "torchvision", "stillframe", "numpy"})

#: What stands for an array of NumPy.
_ARRAY: Any = array_class()

_SYMBOLIC = (torch.SymInt, torch.SymFloat, torch.SymBool)
_NATIVE = (torch.Tensor, *_SYMBOLIC)
_NUMBERS: dict[type, type] = {torch.SymInt: int, torch.SymFloat: float, torch.SymBool: bool}


#: Methods of a dict that take a key. (The default that some take, too, comes back as it is here.)
_BY_KEY = frozenset("get pop setdefault move_to_end __contains__ __getitem__ fromkeys".split())


class TrackedRecorder(Recorder):
    """A recorder that makes an input of a tensor from outside when an operator first uses it."""

    realize: Any
    functions: TrackedFunctions

    def __init__(self, tx: Translator) -> None:
        super().__init__(tx.env, tx.scope, tx.refuse_constant)
        self.realize = tx.realize_tensor
        self.functions = TrackedFunctions(self)
        self.functions.tx = tx
        self.mode = TrackedMode(tx, self)

    def _node_of(self, fake: FakeTensor, real: torch.Tensor | None = None) -> torch.fx.Node:
        if fake.fx_node is None:
            self.realize(fake if real is None else real)
        return super()._node_of(fake, real)

    def _apply_function(self, cls: Any, args: tuple[Any, ...], run: Any) -> Any:
        """A function whose backward is not in the graph would lose gradients in silence."""
        noted = len(self.notes)
        result = super()._apply_function(cls, args, run)
        if len(self.notes) > noted and result is not NotImplemented and requires_grad(args):
            raise self.functions.tx.graph_break(
                f"The backward of {cls.__qualname__} cannot be captured.",
                why=self.notes[-1],
                hints=["compute without gradients, or pass the tensors that forward reads"],
            )
        return result


class Translator(Policy):
    """Runs one frame.

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
    """

    def __init__(self, function: FunctionType, frame_state: FrameState, options: Options) -> None:
        super().__init__()
        self.open_containers = frozenset({str, bytes})
        self.open_iterators = False
        self.open_operands = frozenset({int, float, complex, bool, type(None)})
        self.function = function
        self.frame_state = frame_state
        self.options = options
        self.env = ShapeEnv()
        self.env.fixes_texts = True
        self.scope = FrameModuleScope(self.source)
        self.recorder = TrackedRecorder(self)
        self.effects = SideEffects()
        self.behaviour = Behaviour(self)
        self.wrapped: dict[tuple[int, Source], tuple[Any, VariableTracker]] = {}
        self.inputs = GraphInputs(self.env, self.recorder, frame_state, options)
        self.numbers: dict[str, VariableTracker] = {}
        self.bodies = Bodies(self)
        self.arrays = array_calls(self)
        self.tensors = TensorAttributes(self)
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

    # -- sources and trackers -----------------------------------------------------------------

    def build(self, value: Any, source: Source) -> VariableTracker:
        """What goes with a value read at a source; installs its guards."""
        return self.builder(source)(value)

    def builder(self, source: Source) -> VariableBuilder:
        """The builder for what is read at a source."""
        from stillframe.variables.builder import VariableBuilder

        return VariableBuilder(self, source)

    def wrap(self, value: Any, source: Source) -> Any:
        """What the program gets for a value that it reads at a source."""
        return self.build(value, source).value

    def variable(self, value: Any) -> VariableTracker | None:
        """What goes with a value from outside; None for a constant, or one of the program's own."""
        if type(value) in CONSTANTS:
            return None
        found = self.effects.tracker(value)
        return found.realize(self) if isinstance(found, LazyVariableTracker) else found

    def tracker(self, value: Any) -> VariableTracker:
        """What goes with any value."""
        from stillframe.variables.sourceless import SourcelessBuilder

        return self.variable(value) or SourcelessBuilder.create(self, value)

    def tracker_as_it_is(self, value: Any) -> VariableTracker:
        """What goes with a value that is only handed on: a lazy one stays lazy."""
        found = None if type(value) in CONSTANTS else self.effects.tracker(value)
        if isinstance(found, LazyVariableTracker) and not found.is_realized:
            return found
        return self.tracker(value)

    def here(self, value: Any) -> Any:
        """The value as the program sees it; C code may have handed out the real thing."""
        found = self.variable(value)
        return value if found is None else found.value

    def there(self, value: Any) -> Any:
        """What a value is outside: the real tensor for which a fake stands."""
        if not isinstance(value, FakeTensor):
            return value
        real = getattr(self.effects.tracker(value), "real", None)
        return value if real is None else real

    def source(self, value: Any) -> Source | None:
        """Where a value came from; None for one of the program's own."""
        found = self.variable(value)
        return None if found is None else found.source

    def is_own_function(self, function: FunctionType) -> bool:
        """Whether the program made a function."""
        return id(function) in self._own

    def graph_break(self, what: str, why: str = "", hints: Sequence[str] = ()) -> FrameError:
        """The error for what the graph of one frame cannot hold."""
        return self.machine.refuse(what, why, hints)

    def tell_place(self) -> None:
        """Tell the tracing context where in the program the machine is."""
        context, frame = TracingContext.get(), self.machine.current
        frames: list[traceback.FrameSummary] = []
        while frame is not None:
            code = frame.decoded.code
            line = frame.decoded.line(frame.pc)
            summary = traceback.FrameSummary(
                code.co_filename, line, code.co_name, lookup_line=False
            )
            frames.append(summary)
            frame = frame.back
        context.frame_summary_stack = frames[::-1]

    def expose(self, value: Any, *, deep: bool = True) -> None:
        """C code sees all that a container from outside holds: what is constant is relied on, the
        rest is known by its identity.

        Args:
            deep: it looks into containers in the container, too.
        """
        variable = self.variable(value)
        if variable is None or variable.source is None:
            return
        exposed = self._exposed.get(id(value))
        if exposed is not None and (exposed[1] or not deep):
            return
        self._exposed[id(value)] = value, deep
        variable.rely_on_order(self)
        if self.effects.has_other_contents(value):
            if deep:  # what was there before is known
                for item in contents_of(value):
                    self.expose(item)
            return
        for item, place in variable.contents():
            if variable.handles_items and variable.is_own(self, place):
                continue
            self.expose_item(item, place)
            if deep:
                self.expose(item)
            self.arrays.note_held(value, item)

    def _fix(self, value: Any, source: Source) -> None:
        """C code sees a constant itself: it cannot be one that varies."""
        from stillframe.variables.builder import VariableBuilder

        VariableBuilder(self, source).install_guards("CONSTANT_MATCH")

    def expose_item(self, item: Any, place: Source) -> None:
        """C code sees what is read at a place."""
        if type(item) in CONSTANTS or isinstance(item, torch.dtype | torch.device | torch.layout):
            self.builder(place).install_guards("CONSTANT_MATCH")
            return
        known = self.effects.tracker(item)
        if known is None:
            self.effects.track(item, LazyVariableTracker(item, place))
        else:
            self.builder(place).same_object(item, known)

    def settle(self, *values: Any) -> None:
        """C code is about to compare or hash values: it must not meet Python code, and what it sees
        of objects from outside is relied on.

        Raises:
            FrameError: it would run a comparison in Python.
        """
        met: set[int] = set()
        pending = list(values)
        while pending:
            value = pending.pop()
            is_nan = type(value) is float and value != value  # C takes one NaN for itself
            if (type(value) in CONSTANTS and not is_nan) or isinstance(value, _NATIVE):
                continue
            if id(value) in met:
                continue
            met.add(id(value))
            if not isinstance(value, set):  # its elements are known, their order is not seen
                self.expose(value)
            variable = self.variable(value)
            cls = type(value) if variable is None else variable.python_type()
            if isinstance(value, (*CONTAINERS, tuple, frozenset)):
                pending += raw_items(value)
            if not is_nan and is_compared_by_c(cls):
                continue
            raise self.graph_break(
                f"C code compares or hashes a value of class {cls.__qualname__}.",
                why="the class has a comparison of its own, and what it reads would not be seen",
                hints=["compare in Python: any(item == value for item in items)"],
            )

    def is_code_constant(self, value: Any) -> bool:
        """Whether a tuple or frozenset is one that the program's code, or a key, may give, too."""
        return id(value) in self._code_constants

    def note_constants(self, values: Iterable[Any]) -> None:
        """The program gets these constants without reading a place."""
        for value in values:
            if type(value) not in (tuple, frozenset) or id(value) in self._code_constants:
                continue
            self._code_constants[id(value)] = value
            self.note_constants(value)
            known = self.effects.tracker(value)
            if known is not None and known.source is not None:
                self.builder(known.source).install_guards("ID_MATCH")

    # -- tensors that operators meet ----------------------------------------------------------

    def realize_tensor(self, value: Any) -> None:
        self.variable(value)

    def refuse_constant(self, real: torch.Tensor, fake: FakeTensor) -> torch.fx.Node:
        known = self.variable(real)
        if known is not None:
            return known.value.fx_node  # type: ignore[no-any-return]
        if self.arrays.is_computing:
            return self.arrays.hold(real, fake)  # type: ignore[no-any-return]
        if self._makes_constants:
            return self.inputs.constant(real, fake)
        raise self.graph_break(
            "An operator got a tensor from an unknown place.",
            why="code that was not watched has kept it, and no guard could name it",
            hints=["pass it as an argument, or keep it in a global or an attribute"],
        )

    @contextlib.contextmanager
    def fresh_constants(self) -> Iterator[None]:
        """Real tensors that operators meet inside were made from numbers that are known."""
        before, self._makes_constants = self._makes_constants, True
        try:
            yield
        finally:
            self._makes_constants = before

    # -- the frame's own locals ---------------------------------------------------------------

    def keep_back(self, frame: Frame, locals_: Mapping[str, Any]) -> None:
        """The locals of the root frame have their values at the first use only."""
        self._root = frame
        for index, name in enumerate(frame.decoded.local_names):
            if name in locals_ and frame.locals[index] is not NULL:
                self._pending[index] = LazyVariableTracker(locals_[name], LocalSource(name))
                frame.locals[index] = NULL

    def kept_back(self, frame: Frame, index: int) -> Any:
        lazy = self._pending.pop(index, None) if frame is self._root else None
        return NULL if lazy is None else lazy.realize(self).value

    def unused_local(self, frame: Frame, index: int) -> LazyVariableTracker | None:
        """What was kept back of a local until now."""
        return self._pending.get(index) if frame is self._root else None

    def elements(self, values: Sequence[Any]) -> Sequence[Any]:
        values = self.here(values)
        if self.source(values) is None:
            return [self.here(value) for value in values]
        return [self.load_item(values, index) for index in range(len(values))]

    # -- names --------------------------------------------------------------------------------

    def load_global(self, frame: Frame, name: str) -> Any:
        value = super().load_global(frame, name)
        if self.effects.wrote(frame.globals, name) or _is_of_namedtuple(frame.globals):
            return self.here(value)
        if name == "_tuple_new" and str(frame.globals.get("__name__")).startswith("namedtuple_"):
            return value  # the globals of a function that collections.namedtuple has made
        if name in frame.globals:
            return self.wrap(value, self._global_source(frame.globals, name))
        return self.wrap(value, AttrSource(ModuleSource("builtins"), name))

    def _table_source(self, table: dict[str, Any]) -> Source | None:
        """Where a module's table of globals is read; None for the frame's own."""
        if table is self.function.__globals__:
            return None
        known = self._globals.get(id(table))
        if known is None:
            name = table.get("__name__")
            if table is vars(_collections_abc):
                name = "_collections_abc"  # it calls itself collections.abc
            module = sys.modules.get(name) if isinstance(name, str) else None
            if module is None or vars(module) is not table:
                raise self.graph_break(
                    f"A function reads globals that belong to no imported module ({name!r}).",
                    why="no guard could name them",
                )
            known = self._globals[id(table)] = table, ModuleSource(str(name))
        return known[1]

    def _global_source(self, table: dict[str, Any], name: str) -> Source:
        module = self._table_source(table)
        return GlobalSource(name) if module is None else AttrSource(module, name)

    def store_global(self, frame: Frame, name: str, value: Any) -> None:
        self._note_global(frame, name)
        super().store_global(frame, name, value)

    def delete_global(self, frame: Frame, name: str) -> None:
        if name in frame.globals and not self.effects.wrote(frame.globals, name):
            module = self._table_source(frame.globals)
            table = ModuleSource(frame.globals["__name__"]) if module is None else module
            present = functools.partial(guard_kind("DICT_CONTAINS"), key=name)
            install_guard(AttrSource(table, "__dict__").make_guard(present))
        self._note_global(frame, name)
        super().delete_global(frame, name)

    def _may_change(self, target: Any) -> None:
        refusal = self.bodies.refusal(target)
        if refusal is not None:
            raise refusal

    def _note_global(self, frame: Frame, name: str) -> None:
        if self.bodies.is_inside:
            raise self.graph_break(
                f"A function that an operator is given sets the global {name}.",
                why="it is traced once, and may run never or many times when the graph runs",
            )
        module = self._table_source(frame.globals)
        table = ModuleSource(frame.globals["__name__"]) if module is None else module
        self.effects.entry(frame.globals, name, AttrSource(table, "__dict__"))

    def load_cell(self, frame: Frame, cell: CellType, name: str) -> Any:
        value = super().load_cell(frame, cell, name)
        if value is NULL or id(cell) in self._own:
            return value
        if self.effects.is_written(cell):
            return self.here(value)
        if id(cell) not in self._cells and frame.decoded.code.co_filename == collections.__file__:
            return value  # the methods that collections.namedtuple makes share a few built-ins
        return self.wrap(value, self._cell_source(cell, name))

    def _cell_source(self, cell: CellType, name: str) -> Source:
        known = self._cells.get(id(cell))
        if known is None:
            raise self.graph_break(
                f"The variable {name} belongs to a function of which it is not known where it is.",
                why="no guard could name it",
            )
        return known[1]

    def place_of_cell(self, cell: CellType) -> Source | None:
        """Where a variable from outside is read; None for one of the program's own."""
        known = self._cells.get(id(cell))
        return None if known is None else known[1]

    def store_cell(self, frame: Frame, cell: CellType, name: str, value: Any) -> None:
        self._may_change(cell)
        if id(cell) not in self._own:
            source = self._cell_source(cell, name)
            if not isinstance(source, AttrSource):
                raise self.graph_break(
                    f"The frame sets the variable {name} of an enclosing function.",
                    why="the caller of the frame has no way to its cell",
                )
            self.wrote_cells = True
            self.effects.cell(cell, source.base)
        super().store_cell(frame, cell, name, value)

    def new_cell(self, cell: CellType) -> None:
        self._own[id(cell)] = cell

    def new_function(self, function: FunctionType) -> None:
        self._own[id(function)] = function

    # -- attributes ---------------------------------------------------------------------------

    def load_attr(self, value: Any, name: str) -> Any:
        value = self.here(value)
        if isinstance(value, FakeTensor):
            return self.tensors.load(value, name)
        if name == "__traceback__":
            refuse_traceback(self)
        variable = self.variable(value)
        if variable is None:
            return self._attribute_of_own(value, name)
        return variable.var_getattr(self, name)

    def _attribute_of_own(self, value: Any, name: str) -> Any:
        """An attribute of an object that the program made: its class may be from outside."""
        found = super().load_attr(value, name)
        if is_plain(found):
            source = self.behaviour.entry(value, name, found)
            if source is not None:
                return self.wrap(found, source)
        return self.here(found)

    def read_attribute(self, variable: VariableTracker, name: str) -> Any:
        """An attribute of a value from outside; Python code behind it is run by the machine."""
        value, source = variable.value, variable.source
        if source is None:
            return self.here(super().load_attr(value, name))
        if isinstance(value, ModuleType) and sys.modules.get(value.__name__) is value:
            source = ModuleSource(value.__name__)
        if name == "__dict__" and isinstance(value, type):
            self.behaviour.expose(value)
        elif name == "__dict__" and self.effects.has_attributes_of(value):
            raise self.graph_break(
                f"The frame reads the __dict__ of {source.name()}, whose attributes it has set.",
                why="each shows what is written to the other",
                hints=["use getattr and hasattr"],
            )
        try:
            found = super().load_attr(value, name)
        except AttributeError:
            if not is_library(source):
                absent = functools.partial(guard_kind("HASATTR"), attr=name)
                install_guard(source.make_guard(absent))
            raise
        if isinstance(found, FakeTensor) or self._has_written(value, name):
            return self.here(found)  # of the program's own
        if is_in_written_table(self.effects, value, name):
            return self.here(found)
        if not lasts(value, name, found):
            if not is_library(source):
                self.behaviour.rely_on_absence(value, name, source)
            return self.here(found)
        return self.wrap(found, AttrSource(source, name))

    def _has_written(self, value: Any, name: str) -> bool:
        """Whether the program has set an attribute of an object, or of its class."""
        classes = value.__mro__ if isinstance(value, type) else type(value).__mro__
        return any(self.effects.wrote(owner, name) for owner in (value, *classes))

    def set_attribute(self, target: Any, name: str, value: Any) -> None:
        self._note_attribute(target, name)
        super().set_attribute(target, name, value)

    def unset_attribute(self, target: Any, name: str) -> None:
        self._note_attribute(target, name)
        super().unset_attribute(target, name)

    def _note_attribute(self, target: Any, name: str) -> None:
        self._may_change(target)
        variable = self.variable(target)
        if variable is None or variable.source is None:
            return
        if variable.mutable is None:
            raise self.graph_break(
                f"The frame sets the attribute {name} of {variable.source.name()}.",
                why=f"{type(target).__qualname__} has its own way of setting attributes",
            )
        self._refuse_own_dict(target, variable.source)
        self.effects.attribute(target, name, variable.source)
        self.written_objects.append(target)

    def _refuse_own_dict(self, target: Any, source: Source) -> None:
        """An object is written whose ``__dict__`` was read as a dict, from elsewhere."""
        names = instance_dict(target)
        known = self.effects.tracker(names) if isinstance(names, dict) else None
        if known is not None and not known.handles_items and not isinstance(target, type):
            raise self.graph_break(
                f"The frame changes attributes of {source.name()}, of which it has the __dict__.",
                why="each shows what is written to the other, in ways that no guard could tell",
                hints=["use getattr and setattr"],
            )

    def store_attr(self, target: Any, name: str, value: Any) -> None:
        target = self.here(target)
        if isinstance(target, FakeTensor):
            self.tensors.store(target, name, self.here(value))
            return
        if isinstance(target, _ARRAY):
            raise self.graph_break(f"The frame sets the attribute {name} of an array.")
        super().store_attr(target, name, value)

    def delete_attr(self, target: Any, name: str) -> None:
        target = self.here(target)
        if isinstance(target, FakeTensor):
            self.tensors.delete(target, name)
            return
        super().delete_attr(target, name)

    # -- items --------------------------------------------------------------------------------

    def load_item(self, container: Any, key: Any) -> Any:
        container, key = self.here(container), self.here(key)
        if isinstance(container, torch.Tensor):
            return container[self.for_torch(key)]
        variable = self.variable(container)
        if variable is None or variable.source is None:
            self.hash_key(container, key)
            return self.here(super().load_item(container, key))
        return variable.load_item(self, self._key(container, key))

    def plain_item(self, container: Any, key: Any) -> Any:
        """``container[key]`` as Python does it; methods in Python are run by the machine."""
        return super().load_item(container, key)

    def hash_key(self, container: Any, key: Any) -> None:
        """A key is about to be looked up in a dict or set, by C code."""
        if not isinstance(container, (dict, set, frozenset)) or type(key) in CONSTANTS:
            return
        self.settle(key)
        if self.source(container) is not None and not all(map(has_exact_form, container)):
            self._pin(key)
        if isinstance(key, FakeTensor) and any(
            isinstance(held, torch.Tensor) and not isinstance(held, FakeTensor)
            for held in container
        ):
            raise self.graph_break(
                "A tensor is looked up among the keys of a container from outside.",
                why="what stands for the tensor is another object",
                hints=["use names for keys"],
            )

    def _pin(self, key: Any) -> None:
        """The key is compared with objects that are known by their identity: so is the key."""
        if type(key) is tuple:
            for part in key:
                self._pin(part)
        source = None if has_exact_form(key) else self.source(key)
        if source is not None:
            self.builder(source).install_guards("ID_MATCH")

    def store_item(self, container: Any, key: Any, value: Any) -> None:
        container, key = self.here(container), self.here(key)
        if isinstance(container, torch.Tensor):
            value = self.here(value)
            if type(value) in (int, float, bool, complex):  # torch would make a real tensor of it
                value = torch.full((), value, dtype=container.dtype, device=container.device)
            container[self.for_torch(key)] = value
            return
        key = self._key(container, key)
        self._note_item(container, key)
        self.hash_key(container, key)
        super().store_item(container, key, value)

    def delete_item(self, container: Any, key: Any) -> None:
        container = self.here(container)
        key = self._key(container, self.here(key))
        self._note_item(container, key)
        self.hash_key(container, key)
        super().delete_item(container, key)

    def _by_key(self, container: Any) -> VariableTracker | None:
        """What goes with a container whose items are known one by one."""
        found = self.variable(container) if isinstance(container, dict) else None
        return found if found is not None and found.handles_items else None

    def _note_item(self, container: Any, key: Any) -> None:
        by_key = self._by_key(container)
        if by_key is None:
            self._note_contents(container)
        else:
            by_key.note_item(self, key)

    def _key(self, container: Any, key: Any) -> Any:
        """The key by which a dict from outside has an item: of a tensor, the real one."""
        if isinstance(container, dict) and self.source(container) is not None:
            return self.there(key)
        return key

    def _note_contents(self, container: Any) -> None:
        self._may_change(container)
        variable = self.variable(container)
        source = None if variable is None else variable.source
        if variable is None or source is None:
            return
        if variable.handles_items:
            raise self.graph_break(
                f"The frame changes all of {source.name()} at once.",
                why="its items are attributes, which are relied on one by one",
                hints=["set the attributes: setattr(object, name, value)"],
            )
        variable.before_change(self)
        if isinstance(container, CONTAINERS):
            self.effects.contents(container, source)

    def hashed(self, values: Sequence[Any]) -> None:
        self.settle(*values)

    def contains(self, container: Any, value: Any) -> bool:
        container, value = self.here(container), self.here(value)
        self.arrays.refuse_reader("in", (container, value))
        if isinstance(value, _NATIVE) and type(container) in SEQUENCES:
            self.expose(container, deep=False)
            is_equal = super().contains
            held = [self.here(item) for item in container]
            return any(self.same(item, value) or is_equal((item,), value) for item in held)
        value = self._key(container, value)
        variable = self.variable(container)
        if variable is not None and variable.source is not None:
            known = variable.has(self, value)
            if known is not None:
                return known
        if python_special(type(container), "__contains__") is None:
            self._settle_compared(container, value)
        return super().contains(container, value)

    def _settle_compared(self, container: Any, value: Any) -> None:
        """C code compares values with the items of a container, unless their own code does."""
        self.expose(container)
        if isinstance(container, dict | set | frozenset):
            self.hash_key(container, value)
        elif isinstance(container, (*CONTAINERS, tuple)):
            if not (type(container) in SEQUENCES and has_python_equality(container, value)):
                self.settle(container, value)

    def same(self, left: Any, right: Any) -> bool:
        left, right = self.here(left), self.here(right)
        if left is not right and isinstance(left, FakeTensor) and isinstance(right, FakeTensor):
            if may_be(self.recorder, left) & may_be(self.recorder, right):
                raise self.graph_break(
                    "The frame asks whether two tensors are one.",
                    why="one was made by a function that may return its operand, or a copy",
                )
        return left is right

    # -- iteration ----------------------------------------------------------------------------

    def iterate(self, value: Any) -> Any:
        value = self.here(value)
        if isinstance(value, torch.Tensor):
            return iter(value)
        self._refuse_iterator(value)
        variable = self._iterated(value)
        return super().iterate(value if variable is None else variable.iterated(self))

    def _iterated(self, value: Any) -> VariableTracker | None:
        """What goes with a value from outside that C code iterates over."""
        variable = self.variable(value)
        if variable is None or variable.source is None:
            return None
        return None if python_special(type(value), "__iter__") else variable

    def each(self, values: Sequence[Any]) -> Iterator[Any]:
        """The items of a sequence from outside, each read when its turn comes."""
        index = 0
        while index < len(values):
            yield self.load_item(values, index)
            index += 1

    def advance(self, iterator: Any, default: Any) -> Any:
        iterator = self.here(iterator)
        self._refuse_iterator(iterator)
        return self.here(super().advance(iterator, default))

    def next(self, iterator: Any) -> Any:
        iterator = self.here(iterator)
        self._refuse_iterator(iterator)
        return self.here(super().next(iterator))

    def native_iterable(self, value: Any) -> Any:
        value = self.here(value)
        self._refuse_iterator(value)
        variable = self._iterated(value)
        return super().native_iterable(value if variable is None else variable.iterable(self))

    def native_mapping(self, value: Any) -> Any:
        value = self.here(value)
        if self.source(value) is not None and type(value) in DICTS:
            self.expose(value, deep=False)
            return {self.here(key): self.load_item(value, key) for key in value}
        return super().native_mapping(value)

    def _refuse_iterator(self, value: Any) -> None:
        """An iterator from outside would be used up."""
        source = self.source(value)
        if source is None or type(value) is TUPLE_ITERATOR:
            return
        if type(value) is GeneratorType or hasattr(type(value), "__next__"):
            if python_special(type(value), "__next__") is not None:
                return  # an object with a method like any other
            raise self.graph_break(
                f"The frame takes items from the iterator {source.name()}.",
                why="they would be gone after the capture",
                hints=["make a list of it first"],
            )

    # -- operators ----------------------------------------------------------------------------

    def binary(self, op: Any, left: Any, right: Any) -> Any:
        left, right = self.here(left), self.here(right)
        if type(left) is bytes and _has_tensor(right):
            raise self.graph_break(
                "The frame makes a text of a tensor.",
                why="its numbers are not known while it is captured",
            )
        if isinstance(left, str) and op.native in (operator.mod, operator.imod):
            right = told_parts(self, right)
        if isinstance(left, _NATIVE) or isinstance(right, _NATIVE):
            return op.native(left, right)
        deep = op.sign not in JOINING
        if op.in_place and isinstance(left, CONTAINERS):
            self._note_contents(left)
        else:
            self.expose(left, deep=deep)
        self.expose(right, deep=deep)
        if not isinstance(left, list | tuple) and not isinstance(left, str):
            self._settle_sets(left, right)
        return super().binary(op, left, right)

    def _settle_sets(self, left: Any, right: Any) -> None:
        hashed = (set, frozenset, dict)
        if isinstance(left, hashed) and isinstance(right, hashed):
            self.settle(*hashed_items(left), *hashed_items(right))

    def compare(self, op: Any, left: Any, right: Any) -> Any:
        left, right = self.here(left), self.here(right)
        if isinstance(left, _NATIVE) or isinstance(right, _NATIVE):
            return op.native(left, right)
        if isinstance(left, COMPARED) and isinstance(right, COMPARED):
            if python_special(type(left), op.method) is None:
                self.settle(left, right)
        self.expose(left)
        self.expose(right)
        self.arrays.refuse_reader("a comparison", (left, right))
        return super().compare(op, left, right)

    def unary(self, method: str, native: Any, value: Any) -> Any:
        value = self.here(value)
        return native(value) if isinstance(value, _NATIVE) else super().unary(method, native, value)

    def truth(self, value: Any) -> bool:
        value = self.here(value)
        return bool(value) if isinstance(value, _NATIVE) else super().truth(value)

    # -- calls --------------------------------------------------------------------------------

    def inline(self, function: FunctionType) -> bool:
        known = self.is_run_here(function)
        if known:
            self._enter(function)
        return known

    def is_run_here(self, function: FunctionType) -> bool:
        """Whether the machine runs a function; else it is called."""
        code = function.__code__
        known = self._inlined.get(code)
        if known is None:
            name = code.co_filename
            self.note_constants(code.co_consts)
            users = not name.startswith(_LIBRARIES)
            runs = users or name.startswith(_INLINED) or _is_of_compiled_module(function)
            known = self._inlined[code] = runs and code not in _COUNTS
        if known:
            self._enter(function)
        return known

    def _enter(self, function: FunctionType) -> None:
        """A function from outside is about to be run: its cells and defaults have sources."""
        if id(function) in self._own or id(function) in self._entered:
            return
        self._entered[id(function)] = function
        source = self.source(function) or lasting_source(function)
        if not is_library_function(function):
            self.behaviour.rely_on_function(function, source)
        if source is None:
            return
        for index, cell in enumerate(function.__closure__ or ()):
            place = GetItemSource(AttrSource(source, "__closure__"), index)
            known = self._cells.setdefault(id(cell), (cell, AttrSource(place, "cell_contents")))
            if isinstance(known[1], AttrSource) and known[1].base != place:
                self.builder(place).one_object(known[1].base)
        defaults = enumerate(function.__defaults__ or ())
        named = (function.__kwdefaults__ or {}).items()
        found: list[tuple[Any, Any]] = [*defaults, *named]
        for key, value in found:
            place_of_default = DefaultsSource(source, key, isinstance(key, str))
            if not is_plain(value):
                self.expose_item(value, place_of_default)
            elif isinstance(key, str) or not self.behaviour.knows_defaults(function):
                self.build(value, place_of_default)

    def note_cells(self, function: FunctionType) -> None:
        """The variables around the frame's own function are locals of the frame."""
        if not is_library_function(function):
            self.behaviour.rely_on_function(function, None)
        self.note_constants(function.__code__.co_consts)
        for name, cell in zip(
            function.__code__.co_freevars, function.__closure__ or (), strict=True
        ):
            self._cells[id(cell)] = cell, LocalSource(name, is_cell_or_freevar=True)

    def may_call(self, module: str, function: Any) -> bool:
        return module.partition(".")[0] in _TRUSTED or super().may_call(module, function)

    def call(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        variable = self.variable(function)
        if variable is None and is_known_object(function):
            variable = self.build(function, library_source(function))
        if variable is not None and variable.handles_calls:
            return variable.call_function(self, args, kwargs)
        return self.call_plainly(function, args, kwargs)

    def call_plainly(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call whose function has no way of its own."""
        name = name_of(function)
        refuse_opaque(self, function, "A call")
        refuse_hidden_code(self, function, args)
        if args and name in TEXTS:
            told = told_value(self, args[0])
            if told is not args[0]:
                of_class = function.__name__.startswith("__")
                function = getattr(type(told), function.__name__) if of_class else function
                return function(told, *args[1:])
        if name == "__getattribute__" and type(function) in C_KINDS:
            owner = getattr(function, "__self__", None)
            asked = args if owner is None else (owner, *args)
            if len(asked) == 2 and self.source(asked[0]) is not None:
                return self.behaviour.read_past_hooks(function, args, *asked)
        kind = type(function)
        if kind in GETTERS:
            return call_getter(self, function, *args)
        if kind is MethodType and _is_own_apply(function):
            from stillframe.variables.kinds.autograd import apply

            return apply(self, function.__self__, args, kwargs)
        if kind is MethodType and (
            _has_own_way(function.__func__) or self._is_run(function.__func__)
        ):
            return self.call(function.__func__, (function.__self__, *args), kwargs)
        if kind is FunctionType or kind is MethodType:
            if _is_module_call(function) and args:
                return self._call_module(args[0], args[1:], kwargs)
            if kind is MethodType or not self.inline(function):
                return self._call_native(function, args, kwargs)
            return super().call(function, args, kwargs)
        if function is type and len(args) == 1:
            return self._class_of(self.here(args[0]))
        if isinstance(function, torch.nn.Module):
            if call_of_module(type(function)) is not type(function)._call_impl:
                return self.call(self.load_attr(function, "__call__"), args, kwargs)
            return self._call_module(function, args, kwargs)
        return self._call_native(function, args, kwargs)

    def call_c(self, function: Any, *args: Any) -> Any:
        """A call of a function of C, whatever it reads."""
        return self._call_native(function, args, {})

    def _is_run(self, function: Any) -> bool:
        """Whether what a method is made of is run by the machine, or has its own way of calls."""
        if type(function) is FunctionType:
            return self.inline(function)
        variable = self.variable(function)
        return not is_torch(function) or (variable is not None and variable.handles_calls)

    def _call_native(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Code that is not run by the machine gets what stands for the values."""
        if function in _OF_THE_OBJECT and any(
            isinstance(a, torch.Tensor) for a in map(self.here, args)
        ):
            raise self.graph_break(
                f"The frame asks for the {function.__name__} of a tensor.",
                why="it is an address, another one at each call",
                hints=["compare tensors by `is`, or keep them in a dict or a set"],
            )
        if getattr(function, "__func__", None) is _BASE_TORCH_FUNCTION:
            return self.tensors.base_torch_function(function.__self__, *_operands(*args, **kwargs))
        if function in _IDENTITY and len(args) == 2:
            return self.same(*args) is (function is operator.is_)
        if function is globals:
            return self._table_of_globals()
        if type(function) in (type, BuiltinFunctionType) and function in LOOKS_AWAY:
            return self._look_away(function, args, kwargs)
        owner, given = owner_of(function, args)
        owner = self.here(owner)
        name = name_of(function)
        check(self, function, owner, args, kwargs)
        if function in TEXT or (isinstance(owner, str) and name in FORMATTING):
            args = tuple(self.definite(value) for value in args)
            kwargs = {key: self.definite(value) for key, value in kwargs.items()}
        if isinstance(owner, CONTAINERS) and name in MUTATORS:
            self._note_contents(owner)
        if getattr(function, "__module__", None) in CHANGE_ARGUMENTS and is_of_c(function):
            for value in args:
                if isinstance(value, CONTAINERS):
                    self._note_contents(value)
        if isinstance(owner, (*CONTAINERS, tuple, frozenset)) and is_of_c(function):
            if name == "get" and len(given) in (1, 2) and not kwargs and isinstance(owner, dict):
                return self._get(owner, *given)
            if name in COMPARING:
                self._settle_method(owner, name, given)
            if name not in MUTATORS:
                self.expose(owner, deep=False)
            if name in KEEPING:
                return self.here(super().call(function, tuple(map(self.here, args)), kwargs))
        else:
            self.expose(owner)
        if name in _COPIES_STATE and self.source(owner) is not None:
            self.expose(self.load_attr(owner, "__dict__"))
        of_torch = is_torch(function)
        if of_torch:
            modules = calls_modules(function)
            args = tuple(self.callback(value, modules) for value in args)
            kwargs = {key: self.callback(value, modules) for key, value in kwargs.items()}
        args = tuple(self._given(value, of_torch) for value in args)
        if isinstance(owner, dict) and name in _BY_KEY:
            args = tuple(self._key(owner, value) for value in args)
        kwargs = {key: self._given(value, of_torch) for key, value in kwargs.items()}
        if not of_torch:
            self.arrays.refuse_reader(name, (owner, *args, *kwargs.values()))
        if of_torch and any(isinstance(value, _ARRAY) for value in args):
            return self.arrays.torch_call(function, args, kwargs)
        if args and isinstance(args[0], _ARRAY) and hasattr(function, "__objclass__"):
            return self.arrays.unbound(function, args, kwargs)
        found = super().call(function, args, kwargs)
        self._note_region(function, args)
        is_alone = sys.getrefcount(found) <= ALONE
        check_result(self, function, (owner, *args, *kwargs.values()), found, is_alone)
        result = self.here(found)
        if name in _ABSTRACT_CHECKS and getattr(function, "__module__", None) == "_abc":
            cls = args[1] if name == "_abc_subclasscheck" else self._class_of(args[1])
            self.behaviour.rely_on_subclass(cls, args[0], bool(result))
        if type(result) is str and "FakeTensor(" in result:  # of a container that C shows
            raise self.graph_break("The frame makes text of a tensor in a container.")
        return result

    def _note_region(self, function: Any, args: tuple[Any, ...]) -> None:
        """A block of torch, such as ``autocast``, was entered or left."""
        name = name_of(function)
        if name not in ("__enter__", "__exit__") or type(function) is MethodType:
            return  # of a method the function is called next
        region = getattr(function, "__self__", args[0] if args else None)
        if name == "__enter__":
            self._regions.append(region)
        else:
            self._regions = [entered for entered in self._regions if entered is not region]

    def cells_from_outside(self) -> dict[int, Source]:
        """The variables of enclosing functions that may be read: where their cells are."""
        return {
            key: source.base
            for key, (_, source) in self._cells.items()
            if isinstance(source, AttrSource)
        }

    def leave_regions(self) -> None:
        """The capture has failed: its error passes the program's blocks by, so that those of torch
        are left here."""
        while self._regions:
            self._regions.pop().__exit__(None, None, None)

    def _table_of_globals(self) -> Any:
        """``globals()``: the names of the module, known by the module."""
        assert self.machine.current is not None
        table = self.machine.current.globals
        name = table.get("__name__")
        module = sys.modules.get(name) if isinstance(name, str) else None
        if module is None or vars(module) is not table:
            raise self.graph_break("globals() of a function that belongs to no imported module.")
        return self.wrap(table, AttrSource(ModuleSource(module.__name__), "__dict__"))

    def callback(self, value: Any, modules: bool) -> Any:
        """An argument for torch's code; a function of the program's runs on the machine."""
        return Callback(self, value) if is_callback(self, value, modules) else value

    def definite(self, value: Any, inside: tuple[Any, ...] = ()) -> Any:
        """A value of which C code makes text: symbolic numbers are fixed.

        Args:
            inside: the containers that it is in, one of which it may be.

        Raises:
            FrameError: the text would show what is in a tensor.
        """
        value = self.here(value)
        if isinstance(value, torch.Tensor):
            raise self.graph_break(
                "The frame makes text of a tensor.",
                why="what is in it is not known",
                hints=["use its shape or dtype"],
            )
        if type(value) in _NUMBERS:
            return _NUMBERS[type(value)](value)
        variable = self.variable(value)
        if variable is not None and variable.source is not None:
            self.expose(value)
        if isinstance(value, COMPARED) and not any(value is outer for outer in inside):
            inside = (*inside, value)
            held = list(dict.values(value)) if isinstance(value, dict) else raw_items(value)
            items = [self.definite(item, inside) for item in held]
            same = all(map(operator.is_, items, held))
            return value if same else with_items(value, items)
        return value

    def _look_away(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A function of C that does not look into containers, or reads them by the policy."""
        args = tuple(map(self.here, args))
        kwargs = {key: self.here(value) for key, value in kwargs.items()}
        if function is isinstance and type(args[0]) in _NUMBERS:
            return issubclass(_NUMBERS[type(args[0])], args[1])
        if function is isinstance and self.tensors.subclass_of(args[0]) is not None:
            return issubclass(self._class_of(args[0]), args[1])
        if function in (tuple, frozenset) and len(args) == 1 and type(args[0]) is function:
            return args[0]
        if function is reversed and args:
            self.expose(args[0], deep=False)
        if function in (set, frozenset) and args and self.is_iterable(args[0]):
            found = [self.here(item) for item in self.native_iterable(args[0])]
            self.settle(*found)
            args = (found, *args[1:])
        return self.here(super().call(function, args, kwargs))

    def _get(self, table: Any, key: Any, default: Any = None) -> Any:
        """``dict.get``: one item is read."""
        key = self._key(table, self.here(key))
        self.hash_key(table, key)
        variable = self.variable(table)
        if variable is not None and variable.handles_items:
            return variable.load_item(self, key) if variable.has(self, key) else self.here(default)
        if not dict.__contains__(table, key):
            return self.here(default)
        if variable is None or variable.source is None:
            return self.here(dict.__getitem__(table, key))
        return (
            variable.load_item(self, key)
            if type(table) in DICTS
            else self.here(self._exposed_item(table, key))
        )

    def _exposed_item(self, table: Any, key: Any) -> Any:
        self.expose(table, deep=False)
        return dict.__getitem__(table, key)

    def _settle_method(self, owner: Any, name: str, given: tuple[Any, ...]) -> None:
        if isinstance(owner, (list, tuple, collections.deque)) and name in SEARCHING:
            if isinstance(self.here(given[0]) if given else None, _NATIVE):
                raise self.graph_break(
                    f"C code looks for a tensor or a symbolic number in a list ({name}).",
                    why="it compares by values, which are not known",
                    hints=["compare in Python: any(item is x for item in items)"],
                )
            self.settle(owner, *given[:1])
        elif isinstance(owner, dict) and name != "update":
            self.hash_key(owner, self.here(given[0]) if given else None)
        elif isinstance(owner, (set, frozenset)):
            for value in given:
                for item in (value, *hashed_items(self.here(value))):
                    if type(item) not in COMPARED:
                        self.hash_key(owner, self.here(item))

    def _given(self, value: Any, of_torch: bool) -> Any:
        """An argument for code that is not watched."""
        value = self.here(value)
        if of_torch:
            return self.for_torch(value)
        self.expose(value)
        return value

    def for_torch(self, value: Any) -> Any:
        """A container for a function of torch, with what stands for the items in place of them.

        One in which nothing is replaced is given as it is, which a function may fill.
        """
        value = self.here(value)
        if isinstance(value, dict):
            held = list(dict.values(value))
        elif isinstance(value, (list, tuple)):
            held = raw_items(value)
        else:
            self.expose(value)
            return value
        variable = self.variable(value)
        is_outside = variable is not None and variable.source is not None
        if is_outside and type(value) in SEQUENCES:
            items = [self.for_torch(item) for item in self.each(value)]
        else:
            self.expose(value)
            items = [self.for_torch(item) for item in held]
        if all(map(operator.is_, items, held)):
            return value
        return with_items(value, items)

    def _class_of(self, value: Any) -> type:
        """The class that a value has when the frame runs."""
        if isinstance(value, _ARRAY):
            return value.numpy_class  # type: ignore[no-any-return]
        if isinstance(value, FakeTensor):
            subclass = self.tensors.subclass_of(value)
            if subclass is not None:
                return subclass
            return torch.nn.Parameter if isinstance(value, torch.nn.Parameter) else torch.Tensor
        cls: type = _NUMBERS.get(type(value), type(value))
        source = None if is_library_class(cls) else self.source(value)
        if source is not None:
            self.wrap(cls, TypeSource(source))
        return cls

    def _call_module(
        self, module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """``nn.Module.__call__`` in Python; what it reads of the module is read here."""
        self.scope.enter(module)
        try:
            return self.call(type(module)._call_impl, (module, *args), kwargs)
        finally:
            self.scope.leave()


def call_of_module(cls: type[torch.nn.Module]) -> FunctionType:
    """What a call of a module runs: the user's own ``__call__``, else that of ``nn.Module``."""
    call = type_lookup(cls, "__call__")
    if type(call) is FunctionType and not call.__code__.co_filename.startswith(_LIBRARIES):
        return call
    return cls._call_impl  # type: ignore[return-value]


def _is_module_call(function: Any) -> bool:
    """Whether a function is ``nn.Module.__call__``, or what stands there during a capture."""
    return function is torch.nn.Module.__call__ or function is torch.nn.Module._wrapped_call_impl


def _has_own_way(function: Any) -> bool:
    return is_known_object(function) or _is_module_call(function)


def is_in_written_table(effects: SideEffects, holder: Any, name: str) -> bool:
    """Whether an attribute is in a table of an object that the program has written to."""
    names = getattr(holder, "__dict__", {})
    tables = [names]
    if isinstance(holder, torch.nn.Module):
        tables += [names.get(table, {}) for table in MODULE_TABLES]
    return any(name in table and effects.is_written(table) for table in tables)


def _is_of_namedtuple(table: dict[str, Any]) -> bool:
    """Whether globals are those of the code that makes a named tuple, which nobody can reach."""
    name = table.get("__name__")
    return isinstance(name, str) and name.startswith("namedtuple_") and name not in sys.modules


def _is_of_compiled_module(function: FunctionType) -> bool:
    """Whether a function is a method of what ``torch.compile`` makes of a module."""
    in_dynamo = function.__module__ == "torch._dynamo.eval_frame"
    return in_dynamo and function.__qualname__.startswith("OptimizedModule.")


def _has_tensor(value: Any) -> bool:
    """Whether a value, or an item of a tuple, is a tensor."""
    held = value if type(value) is tuple else (value,)
    return any(isinstance(item, torch.Tensor) for item in held)


#: What a ``__torch_function__`` of the user's calls to have the function done.
_BASE_TORCH_FUNCTION = vars(torch.Tensor)["__torch_function__"].__func__


def _operands(func: Any, types: Any, args: Any = (), kwargs: Any = None) -> tuple[Any, Any, Any]:
    return func, args, kwargs


#: What a stand-in answers otherwise than the object itself.
_OF_THE_OBJECT = (id, hash, dir)


def _is_own_apply(method: MethodType) -> bool:
    """``apply`` of a ``torch.autograd.Function`` that is not tracked: the program made it."""
    owner = method.__self__
    if not isinstance(owner, type) or not issubclass(owner, torch.autograd.Function):
        return False
    return method.__name__ == "apply"


#: What abstract classes do for ``isinstance`` and ``issubclass``.
_ABSTRACT_CHECKS = frozenset({"_abc_instancecheck", "_abc_subclasscheck"})

#: Methods of C that hand out all that an object holds, to make another of it.
_COPIES_STATE = frozenset({"__reduce_ex__", "__reduce__", "__getstate__"})

#: ``is`` as functions.
_IDENTITY = (operator.is_, operator.is_not)
