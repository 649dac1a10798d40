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
import functools
import operator
import os
import sys
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

from stillframe.errors import FrameError
from stillframe.fake.tensor import FakeTensor
from stillframe.frames import Policy
from stillframe.frames.arithmetic import has_python_equality
from stillframe.frames.frame import NULL, Frame
from stillframe.frames.lookup import python_special
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
    has_exact_form,
)
from stillframe.trace.recorder import Recorder
from stillframe.trace.scope import ModuleScope
from stillframe.variables.base import LazyVariableTracker, VariableTracker
from stillframe.variables.c_code import (
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
from stillframe.variables.dynamism import (
    FrameState,
)
from stillframe.variables.inputs import GraphInputs
from stillframe.variables.options import Options
from stillframe.variables.paths import (
    CONSTANTS,
    SEQUENCES,
    is_library,
    is_torch,
    lasting_source,
    lasts,
    library_source,
)
from stillframe.variables.registry import is_known_object
from stillframe.variables.side_effects import CONTAINERS, SideEffects, contents_of

if TYPE_CHECKING:
    from stillframe.variables.builder import VariableBuilder

TUPLE_ITERATOR: type = type(iter(()))

_TORCH = os.path.dirname(torch.__file__) + os.sep
_STILLFRAME = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep

#: Python of torch, and of ours around it, that is run by the machine: it reads the user's objects.
_INLINED = (
    os.path.join(_TORCH, "nn", "modules", ""),
    os.path.join(_TORCH, "utils", "_contextlib.py"),
    os.path.join(_STILLFRAME, "trace", "transformer.py"),
)

#: Packages whose compiled functions may be called: they work on tensors, which are recorded.
_TRUSTED = frozenset({"torch", "torchvision", "stillframe", "numpy"})

_SYMBOLIC = (torch.SymInt, torch.SymFloat, torch.SymBool)
_NATIVE = (torch.Tensor, *_SYMBOLIC)
_NUMBERS: dict[type, type] = {torch.SymInt: int, torch.SymFloat: float, torch.SymBool: bool}


class TrackedRecorder(Recorder):
    """A recorder that makes an input of a tensor from outside when an operator first uses it."""

    realize: Any

    def _node_of(self, fake: FakeTensor, real: torch.Tensor | None = None) -> torch.fx.Node:
        if fake.fx_node is None:
            self.realize(fake if real is None else real)
        return super()._node_of(fake, real)


class Translator(Policy):
    """Runs one frame.

    Args:
        function: the frame's function; its globals are ``G``.
        frame_state: what the frame's inputs were in earlier compilations.
        options: what is specialised.

    Attributes:
        env: symbols of sizes and numbers.
        recorder: makes the graph.
        effects: the objects that were there before, and writes to them.
        wrapped: what goes with a value read at a source: ``(id, source)`` -> value, tracker.
        inputs: the inputs of the graph.
        numbers: symbolic numbers, by the name of the source.
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
        self.recorder = TrackedRecorder(self.env, ModuleScope([]), self._refuse_constant)
        self.recorder.realize = self._realize_tensor
        self.effects = SideEffects()
        self.wrapped: dict[tuple[int, Source], tuple[Any, VariableTracker]] = {}
        self.inputs = GraphInputs(self.env, self.recorder, frame_state, options)
        self.numbers: dict[str, VariableTracker] = {}
        self._pending: dict[int, LazyVariableTracker] = {}
        self._root: Frame | None = None
        self._own: dict[int, Any] = {}
        self._cells: dict[int, tuple[CellType, Source]] = {}
        self._globals: dict[int, tuple[dict[str, Any], Source | None]] = {}
        self._exposed: dict[int, tuple[Any, bool]] = {}
        self._code_constants: dict[int, Any] = {}
        self._entered: dict[int, Any] = {}
        self._inlined: dict[CodeType, bool] = {}

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
            self.expose_item(item, place)
            if deep:
                self.expose(item)

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

    def _realize_tensor(self, value: Any) -> None:
        self.variable(value)

    def _refuse_constant(self, real: torch.Tensor, fake: FakeTensor) -> torch.fx.Node:
        known = self.variable(real)
        if known is not None:
            return known.value.fx_node  # type: ignore[no-any-return]
        raise self.graph_break(
            "An operator got a tensor from an unknown place.",
            why="code that was not watched has kept it, and no guard could name it",
            hints=["pass it as an argument, or keep it in a global or an attribute"],
        )

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

    def elements(self, values: Sequence[Any]) -> Sequence[Any]:
        values = self.here(values)
        if self.source(values) is None:
            return [self.here(value) for value in values]
        return [self.load_item(values, index) for index in range(len(values))]

    # -- names --------------------------------------------------------------------------------

    def load_global(self, frame: Frame, name: str) -> Any:
        value = super().load_global(frame, name)
        if self.effects.wrote(frame.globals, name):
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
        self._note_global(frame, name)
        super().delete_global(frame, name)

    def _note_global(self, frame: Frame, name: str) -> None:
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

    def store_cell(self, frame: Frame, cell: CellType, name: str, value: Any) -> None:
        if id(cell) not in self._own:
            source = self._cell_source(cell, name)
            if not isinstance(source, AttrSource):
                raise self.graph_break(
                    f"The frame sets the variable {name} of an enclosing function.",
                    why="the caller of the frame has no way to its cell",
                )
            self.effects.cell(cell, source.base)
        super().store_cell(frame, cell, name, value)

    def new_cell(self, cell: CellType) -> None:
        self._own[id(cell)] = cell

    def new_function(self, function: FunctionType) -> None:
        self._own[id(function)] = function

    # -- attributes ---------------------------------------------------------------------------

    def load_attr(self, value: Any, name: str) -> Any:
        value = self.here(value)
        if isinstance(value, torch.Tensor):
            return self._class_of(value) if name == "__class__" else getattr(value, name)
        variable = self.variable(value)
        if variable is None:
            return self.here(super().load_attr(value, name))
        return variable.var_getattr(self, name)

    def read_attribute(self, variable: VariableTracker, name: str) -> Any:
        """An attribute of a value from outside; Python code behind it is run by the machine."""
        value, source = variable.value, variable.source
        if source is None:
            return self.here(super().load_attr(value, name))
        if isinstance(value, ModuleType):
            source = ModuleSource(value.__name__)
        try:
            found = super().load_attr(value, name)
        except AttributeError:
            if not is_library(source):
                absent = functools.partial(guard_kind("HASATTR"), attr=name)
                install_guard(source.make_guard(absent))
            raise
        if self.effects.wrote(value, name) or not lasts(value, name, found):
            return self.here(found)
        return self.wrap(found, AttrSource(source, name))

    def set_attribute(self, target: Any, name: str, value: Any) -> None:
        self._note_attribute(target, name)
        super().set_attribute(target, name, value)

    def unset_attribute(self, target: Any, name: str) -> None:
        self._note_attribute(target, name)
        super().unset_attribute(target, name)

    def _note_attribute(self, target: Any, name: str) -> None:
        variable = self.variable(target)
        if variable is None or variable.source is None:
            return
        if variable.mutable is None:
            raise self.graph_break(
                f"The frame sets the attribute {name} of {variable.source.name()}.",
                why=f"{type(target).__qualname__} has its own way of setting attributes",
            )
        self.effects.attribute(target, name, variable.source)

    def store_attr(self, target: Any, name: str, value: Any) -> None:
        target = self.here(target)
        if isinstance(target, torch.Tensor):
            raise self.graph_break(f"The frame sets the attribute {name} of a tensor.")
        super().store_attr(target, name, value)

    # -- items --------------------------------------------------------------------------------

    def load_item(self, container: Any, key: Any) -> Any:
        container, key = self.here(container), self.here(key)
        if isinstance(container, torch.Tensor):
            return container[self.for_torch(key)]
        variable = self.variable(container)
        if variable is None or variable.source is None:
            self.hash_key(container, key)
            return self.here(super().load_item(container, key))
        return variable.load_item(self, key)

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
        if isinstance(key, torch.Tensor) and any(
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
            container[self.for_torch(key)] = self.here(value)
            return
        self._note_contents(container)
        self.hash_key(container, key)
        super().store_item(container, key, value)

    def delete_item(self, container: Any, key: Any) -> None:
        container, key = self.here(container), self.here(key)
        self._note_contents(container)
        self.hash_key(container, key)
        super().delete_item(container, key)

    def _note_contents(self, container: Any) -> None:
        variable = self.variable(container)
        source = None if variable is None else variable.source
        if variable is None or source is None:
            return
        variable.before_change(self)
        if isinstance(container, CONTAINERS):
            self.effects.contents(container, source)

    def hashed(self, values: Sequence[Any]) -> None:
        self.settle(*values)

    def contains(self, container: Any, value: Any) -> bool:
        container, value = self.here(container), self.here(value)
        if isinstance(value, _NATIVE) and type(container) in SEQUENCES:
            self.expose(container, deep=False)
            is_equal = super().contains
            held = [self.here(item) for item in container]
            return any(item is value or is_equal((item,), value) for item in held)
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
        return self.here(left) is self.here(right)

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
        if op.sign in ("%", "%=") and isinstance(left, str | bytes):
            right = self.definite(right)
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
        return super().compare(op, left, right)

    def unary(self, method: str, native: Any, value: Any) -> Any:
        value = self.here(value)
        return native(value) if isinstance(value, _NATIVE) else super().unary(method, native, value)

    def truth(self, value: Any) -> bool:
        value = self.here(value)
        return bool(value) if isinstance(value, _NATIVE) else super().truth(value)

    # -- calls --------------------------------------------------------------------------------

    def inline(self, function: FunctionType) -> bool:
        code = function.__code__
        known = self._inlined.get(code)
        if known is None:
            name = code.co_filename
            self.note_constants(code.co_consts)
            users = not name.startswith((_TORCH, _STILLFRAME))
            known = self._inlined[code] = users or name.startswith(_INLINED)
        if known:
            self._enter(function)
        return known

    def _enter(self, function: FunctionType) -> None:
        """A function from outside is about to be run: its cells and defaults have sources."""
        if id(function) in self._own or id(function) in self._entered:
            return
        self._entered[id(function)] = function
        source = self.source(function) or lasting_source(function)
        if source is None:
            return
        for index, cell in enumerate(function.__closure__ or ()):
            place = GetItemSource(AttrSource(source, "__closure__"), index)
            self._cells.setdefault(id(cell), (cell, AttrSource(place, "cell_contents")))
        defaults = enumerate(function.__defaults__ or ())
        named = (function.__kwdefaults__ or {}).items()
        found: list[tuple[Any, Any]] = [*defaults, *named]
        for key, value in found:
            place_of_default = DefaultsSource(source, key, isinstance(key, str))
            self.expose_item(value, place_of_default)

    def note_cells(self, function: FunctionType) -> None:
        """The variables around the frame's own function are locals of the frame."""
        self._entered[id(function)] = function
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
        kind = type(function)
        if kind is FunctionType or kind is MethodType:
            code = getattr(getattr(function, "__func__", function), "__code__", None)
            if code is None or not self.inline(getattr(function, "__func__", function)):
                return self._call_native(function, args, kwargs)
            return super().call(function, args, kwargs)
        if function is type and len(args) == 1:
            return self._class_of(self.here(args[0]))
        if isinstance(function, torch.nn.Module):
            return self._call_module(function, args, kwargs)
        return self._call_native(function, args, kwargs)

    def _call_native(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Code that is not run by the machine gets what stands for the values."""
        if function in _IDENTITY and len(args) == 2:
            return self.same(*args) is (function is operator.is_)
        if type(function) in (type, BuiltinFunctionType) and function in LOOKS_AWAY:
            return self._look_away(function, args, kwargs)
        owner, given = owner_of(function, args)
        owner = self.here(owner)
        name = getattr(function, "__name__", "")
        if function in TEXT or (isinstance(owner, str) and name in FORMATTING):
            args = tuple(self.definite(value) for value in args)
            kwargs = {key: self.definite(value) for key, value in kwargs.items()}
        if isinstance(owner, CONTAINERS) and name in MUTATORS:
            self._note_contents(owner)
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
        of_torch = is_torch(function)
        args = tuple(self._given(value, of_torch) for value in args)
        kwargs = {key: self._given(value, of_torch) for key, value in kwargs.items()}
        return self.here(super().call(function, args, kwargs))

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
        key = self.here(key)
        self.hash_key(table, key)
        if not dict.__contains__(table, key):
            return self.here(default)
        variable = self.variable(table)
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
        if isinstance(value, FakeTensor):
            return torch.nn.Parameter if isinstance(value, torch.nn.Parameter) else torch.Tensor
        return _NUMBERS.get(type(value), type(value))

    def _call_module(
        self, module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """``nn.Module.__call__`` in Python; what it reads of the module is read here."""
        return self.call(type(module)._call_impl, (module, *args), kwargs)


#: ``is`` as functions.
_IDENTITY = (operator.is_, operator.is_not)
