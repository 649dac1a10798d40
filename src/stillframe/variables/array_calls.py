"""What calls of NumPy become: torch's functions, checked against NumPy itself.

torch ships NumPy's functions written on tensors (``torch._numpy``). They agree with NumPy in most
cases only, so NumPy itself is asked at each call: it is run on small arrays of the same dtypes,
sizes and strides, and tells the dtype and the sizes of the result, whether it is a scalar, and
whether it shares memory with an argument. What the tensors give must be the same, or the call is
refused; on these small arrays they must give the same values, too. Which functions may be called at
all is a table (:mod:`stillframe.variables.array_table`): those whose values were compared with
NumPy's.
"""

from __future__ import annotations

import functools
import operator
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from stillframe.errors import FrameError, StillframeError
from stillframe.fake.tensor import FakeTensor
from stillframe.guards import install_guard
from stillframe.guards.kinds.ambient import AmbientKind
from stillframe.source import GlobalStateSource
from stillframe.variables import array_table as table
from stillframe.variables.array_functions import OTHERWISE
from stillframe.variables.array_question import (
    Question,
    cast_all,
    dtype_on_tensors,
    mapped,
    torch_unseen,
)
from stillframe.variables.array_table import tnp
from stillframe.variables.arrays import DTYPES, TORCH_DTYPES, FakeArray, FakeScalar, numbers_in

if TYPE_CHECKING:
    from stillframe.variables.translator import Translator


class NumpyCalls:
    """Answers NumPy's functions and methods for one capture.

    Args:
        tx: the translator whose program calls them.

    Attributes:
        is_computing: torch's functions in place of NumPy's run; tensors that these make of numbers
            are constants.
    """

    def __init__(self, tx: Translator) -> None:
        self.tx = tx
        self.is_computing = False
        self._holders: dict[int, Any] = {}
        self._relies_on_errors = False

    def refusal(self, what: str, hints: list[str] | None = None, why: str = "") -> FrameError:
        """The error for what cannot be done with arrays."""
        why = why or "arrays are captured as tensors, on which this is not known to be the same"
        return self.tx.graph_break(what, why=why, hints=hints or ["use torch's function"])

    def read(self, value: Any) -> Any:
        """A value as the program sees it; items of lists and tuples are read where they are."""
        value = self.tx.here(value)
        if type(value) in (list, tuple):
            return type(value)(self.read(item) for item in self.tx.elements(value))
        return value

    def _read_all(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return tuple(map(self.read, args)), {key: self.read(v) for key, v in kwargs.items()}

    # -- containers that hold arrays ----------------------------------------------------------

    def note_held(self, container: Any, item: Any) -> None:
        """A container from outside holds ``item``. Code of C sees the array itself there."""
        if isinstance(item, (np.ndarray, np.generic)) or id(item) in self._holders:
            self._holders[id(container)] = container

    def refuse_reader(self, name: str, values: tuple[Any, ...]) -> None:
        """Refuse code of C that may look at the elements of arrays in a container.

        Raises:
            FrameError: it may, and no guard is on them.
        """
        if not self._holders or name in _LOOKS_AT_NO_ARRAY:
            return
        if any(id(value) in self._holders for value in values):
            raise self.refusal(
                f"Code that is not watched ({name}) gets a container of arrays.",
                why="what it reads of them would be fixed",
                hints=["do it for each array in a loop"],
            )

    # -- arrays from other values -------------------------------------------------------------

    def of_tensor(self, tensor: Any) -> FakeArray:
        """The array that shares the memory of a tensor: ``tensor.numpy()``."""
        if tensor.requires_grad:
            raise RuntimeError(
                "Can't call numpy() on Tensor that requires grad. "
                "Use tensor.detach().numpy() instead."
            )
        if tensor.dtype not in DTYPES or tensor.device.type != "cpu":
            raise self.refusal(f"A tensor of {tensor.dtype} on {tensor.device} becomes an array.")
        fake = tensor if type(tensor) is FakeTensor else self.tx.here(tensor)
        return FakeArray(self, fake)

    def torch_call(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A function of torch that is given an array: one that makes a tensor of it.

        Raises:
            FrameError: any other function, or one that the graph would have to ask for data.
        """
        array = args[0]
        if isinstance(array, FakeArray) and len(args) == 1 and kwargs.keys() <= {"dtype"}:
            shares = function in (torch.from_numpy, torch.as_tensor)
            if shares and array.writeable:
                shared = torch.ops.aten.alias.default(array.tensor)  # an object of its own
                return shared.to(**kwargs) if kwargs else shared
            if function is torch.tensor or (
                function is torch.as_tensor and type(array) is FakeScalar
            ):
                copied = array.tensor.clone()
                return copied.to(**kwargs) if kwargs else copied
        given = [value for value in (*args, *kwargs.values()) if isinstance(value, FakeArray)]
        if all(isinstance(value, FakeScalar) for value in given):
            args, kwargs = numbers_in((args, kwargs))
            return self.tx.call_plainly(function, args, kwargs)
        raise self.refusal(
            f"{getattr(function, '__name__', function)}() of torch takes an array.",
            ["torch.from_numpy(array) is the array as a tensor"],
        )

    def constant(self, value: Any) -> Any:
        """A value that NumPy computed now, as the program gets it.

        An array is a constant of the graph, copied whenever the graph runs: it may be written.
        """
        if type(value) in (tuple, list):
            made: dict[int, Any] = {}  # one array may be there twice
            for item in value:
                if id(item) not in made:
                    made[id(item)] = self.constant(item)
            return type(value)(made[id(item)] for item in value)
        if not isinstance(value, np.ndarray):
            return value
        if type(value) is not np.ndarray or value.dtype not in TORCH_DTYPES:
            raise self.refusal(f"The frame makes an array of dtype {value.dtype}.")
        held = self._held(self.real_tensor(np.array(value, order="K", copy=True)))
        return FakeArray(self, torch.ops.aten.clone.default(held), value.flags.writeable)

    def real_tensor(self, value: Any) -> torch.Tensor:
        """The tensor that shares an array's memory, or has a scalar's value."""
        with torch_unseen(self.tx), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of arrays that are read-only
            return torch.as_tensor(value)

    def _held(self, real: torch.Tensor) -> FakeTensor:
        fake = FakeTensor.like_real(self.tx.env, real)
        fake.fx_node = self.hold(real, fake)
        return fake

    def hold(self, real: torch.Tensor, fake: FakeTensor) -> torch.fx.Node:
        """The node of a tensor that the graph keeps."""
        return self.tx.inputs.constant(real, fake)

    # -- calls --------------------------------------------------------------------------------

    def call(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """``function(*args, **kwargs)`` for a function of NumPy.

        Raises:
            FrameError: the function is not in the table, or does not do on tensors what NumPy does.
        """
        args, kwargs = self._read_all(args, kwargs)
        name = table.name_of(function)
        if name is None:
            text = getattr(function, "__name__", repr(function))
            raise self.refusal(f"{text}() of NumPy is not captured.")
        question = Question(self)
        if function in table.CONVERSIONS:
            args, kwargs = mapped(self._tensor_as_array, args), kwargs
        seen = question.ask(function, args, kwargs)
        if not question.arrays and not question.is_symbolic:
            return self.constant(seen)
        if name in table.ABOUT and not question.is_symbolic:
            return seen
        special = table.refusal_of(name, args, kwargs)
        if special:
            raise self.refusal(f"{name}() of NumPy: {special}.")
        if name == "copyto" and question.storages < 2:
            raise self.refusal("copyto() of NumPy between arrays that may share memory.")
        if name in table.CONVERSIONS_BY_NAME and question.same(seen) is not None:
            return question.same(seen)
        if isinstance(function, np.ufunc) and kwargs.keys() <= {"out"}:
            dtypes = _loop(function, args)
            question.cast(dtypes)
            args = cast_all(args, dtypes)
        return self._compute(question, seen, name, args, kwargs)

    def method(self, array: FakeArray, name: str, *args: Any, **kwargs: Any) -> Any:
        """``array.name(*args, **kwargs)``."""
        args, kwargs = self._read_all(args, kwargs)
        question = Question(self)
        seen = question.ask(operator.methodcaller, (array, *args), kwargs, method=name)
        special = table.refusal_of(name, (array, *args), kwargs)
        if special:
            raise self.refusal(f".{name}() of an array: {special}.")
        if name in _MAY_GIVE_ITSELF and question.same(seen) is not None:
            return question.same(seen)
        return self._compute(question, seen, f".{name}", (array, *args), kwargs)

    def unbound(self, method: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A method of NumPy's classes, called with the array as its first argument."""
        name = method.__name__
        if name not in table.METHODS:
            raise self.refusal(f"The frame calls {method.__objclass__.__name__}.{name} of NumPy.")
        return self.method(args[0], name, *args[1:], **kwargs)

    def attribute(self, array: FakeArray, name: str) -> Any:
        """``array.name`` for an attribute that is an array."""
        question = Question(self)
        seen = question.ask(getattr, (array, name), {})
        if question.same(seen) is not None:
            return question.same(seen)
        return question.answer(seen, self._run(f".{name}", getattr, (array, name), {}), name)

    def get_item(self, array: FakeArray, key: Any) -> Any:
        """``array[key]``."""
        key = mapped(self._as_key, self.read(key))
        self._check_key(key, reads=True)
        question = Question(self)
        seen = question.ask(operator.getitem, (array, key), {})
        return question.answer(seen, self._run("[]", operator.getitem, (array, key), {}), "[]")

    def set_item(self, array: FakeArray, key: Any, value: Any) -> None:
        """``array[key] = value``."""
        key, value = mapped(self._as_key, self.read(key)), self.read(value)
        self._check_key(key, reads=False)
        question = Question(self)
        question.ask(operator.setitem, (array, key, value), {})
        if isinstance(value, FakeArray) and value.tensor.storage_ is array.tensor.storage_:
            value = FakeArray(self, value.tensor.clone())  # NumPy copies what overlaps first
        self._run("[]", operator.setitem, (array, key, value), {})

    def _as_key(self, part: Any) -> Any:
        if isinstance(part, FakeScalar):
            raise self.refusal("An array is read at a place that only the data can tell.")
        return int(part) if isinstance(part, np.integer) else part

    def _check_key(self, key: Any, reads: bool) -> None:
        parts = key if type(key) is tuple else (key,)
        advanced = [i for i, part in enumerate(parts) if isinstance(part, (FakeArray, list))]
        for part in parts:
            if isinstance(part, slice) and not _is_forward(part.step):
                raise self.refusal("An array is read backwards (a negative step).")
            if isinstance(part, FakeArray) and part.dtype == np.bool_ and reads:
                raise self.refusal(
                    "An array is read by a mask.", why="how much that is only the data can tell"
                )
        if advanced and len(parts) > 1:
            raise self.refusal("An array is read by arrays among other indices.")

    # -- the answer ---------------------------------------------------------------------------

    def _compute(
        self, question: Question, seen: Any, name: str, args: Any, kwargs: dict[str, Any]
    ) -> Any:
        otherwise = OTHERWISE.get(name)
        function = table.on_tensors(name) if otherwise is None else otherwise
        if otherwise is not None:
            function = functools.partial(otherwise, seen)
        question.rehearse(function, seen, name)
        return question.answer(seen, self._run(name, function, args, kwargs), name)

    def _rely_on_errors(self) -> None:
        """NumPy was told to let a division by 0 and the like pass. Tensors always do."""
        if _raises_errors():
            raise self.refusal("NumPy was told to raise errors (np.seterr).")
        if not self._relies_on_errors:
            self._relies_on_errors = True
            install_guard(GlobalStateSource().make_guard(_ERRORS))

    def _run(self, name: str, function: Any, args: Any, kwargs: Any) -> Any:
        """The function on tensors."""
        self._rely_on_errors()
        old, self.is_computing = self.is_computing, True
        try:
            return function(*mapped(self._operand, args), **mapped(self._operand, kwargs))
        except StillframeError:
            raise
        except Exception as e:
            raise self.refusal(f"{name} of NumPy on tensors: {type(e).__name__}: {e}") from e
        finally:
            self.is_computing = old

    def _operand(self, value: Any) -> Any:
        if isinstance(value, FakeArray):
            return tnp.ndarray(value.tensor)
        if isinstance(value, np.generic) and value.dtype in TORCH_DTYPES:
            return tnp.ndarray(self._held(self.real_tensor(np.array(value))))
        return dtype_on_tensors(value)

    def _tensor_as_array(self, value: Any) -> Any:
        return self.of_tensor(value) if isinstance(value, torch.Tensor) else value


def _raises_errors() -> bool:
    """Whether NumPy does more than a warning about a division by 0 and the like."""
    return any(mode not in ("ignore", "warn") for mode in np.geterr().values())


#: A guard on what NumPy does about a division by 0 and the like.
_ERRORS = AmbientKind("NUMPY_ERRORS", _raises_errors)

#: Functions of C that hand on what a container holds, and do not look at it, or get it item by item
#: from the machine.
_LOOKS_AT_NO_ARRAY = frozenset(
    """all any append appendleft callable clear copy dict enumerate extend extendleft filter get
    getattr hasattr id insert isinstance items iter keys len list map max min pop popitem popleft
    reverse reversed rotate setattr setdefault sorted sum tuple type update values zip __getitem__
    __iter__ __len__""".split()
)

#: Methods that may give the array itself.
_MAY_GIVE_ITSELF = ("astype", "conj", "conjugate")


def _loop(function: np.ufunc, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The dtypes in which NumPy computes."""
    asked = [_kind(value) for value in args[: function.nin]]
    try:
        chosen = function.resolve_dtypes((*asked, *(None,) * function.nout))
    except (TypeError, ValueError):
        return ()
    return tuple(chosen[: function.nin])


def _kind(value: Any) -> Any:
    """What NumPy chooses a loop by: a dtype, or the class of a number of Python."""
    if isinstance(value, (FakeArray, np.generic)):
        return value.dtype
    sizes = {torch.SymInt: int, torch.SymFloat: float}
    return np.dtype(bool) if type(value) is bool else sizes.get(type(value), type(value))


def _is_forward(step: Any) -> bool:
    return step is None or (isinstance(step, int) and step > 0)
