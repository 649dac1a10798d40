"""Every source: its name is an expression, its code loads the same value, its marks are kept."""

from __future__ import annotations

import collections
import types
import weakref
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tests.source.machine import StackMachine

from stillframe.errors import InternalError
from stillframe.guards.helpers import HELPERS
from stillframe.source import (
    AttrSource,
    BackwardStateSource,
    CallMethodItemSource,
    ChainedSource,
    ClassEntrySource,
    ConstantSource,
    ConstDictKeySource,
    ContentSource,
    ConvertIntSource,
    DefaultsSource,
    EphemeralSource,
    FlattenScriptObjectSource,
    FloatTensorSource,
    FSDPNNModuleSource,
    GetItemSource,
    GlobalSource,
    GlobalStateSource,
    GradSource,
    GuardSource,
    InstanceDictSource,
    LocalSource,
    NNModuleSource,
    NumpyTensorSource,
    OptimizerSource,
    RandomValueSource,
    ScriptObjectQualifiedNameSource,
    ShapeEnvSource,
    Source,
    SubclassAttrListSource,
    SyntheticLocalSource,
    TensorProperty,
    TensorPropertySource,
    TupleIteratorGetItemSource,
    TypeSource,
    ViewedDictSource,
    WeakRefCallSource,
    chain,
    is_cell_contents,
    is_constant_source,
    is_from_defaults,
    is_from_flatten_script_object_source,
    is_from_local_source,
    is_from_optimizer_source,
    placeholder_name,
)

X = LocalSource("x")


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    return type(a) is type(b) and a == b


def reads(source: Source, value: Any, **more: Any) -> Any:
    """What the name reads and the code loads where ``L['x']`` is ``value``; both must agree."""
    scope = {"L": {"x": value, **more.get("L", {})}, "G": more.get("G", {})}
    by_name = eval(source.name(), dict(HELPERS), scope)
    by_code = StackMachine(scope["L"], scope["G"], HELPERS).run(source)
    assert same(by_name, by_code), (by_name, by_code)
    return by_name


def having(name: str, value: Any) -> Any:
    """An object with an attribute of any name."""
    thing = SimpleNamespace()
    setattr(thing, name, value)
    return thing


def function(a: int, b: str = "second", *, c: float = 2.5) -> None:
    """Something with defaults."""


KEY = object()


@pytest.mark.parametrize(
    ("source", "name", "value", "expected"),
    [
        pytest.param(X, "L['x']", 3, 3, marks=pytest.mark.spec("4.68")),
        pytest.param(AttrSource(X, "real"), "L['x'].real", 3, 3, marks=pytest.mark.spec("4.70")),
        pytest.param(
            AttrSource(X, "a.b"),
            "L['x'].a.b",
            SimpleNamespace(a=SimpleNamespace(b=7)),
            7,
            marks=pytest.mark.spec("4.70"),
        ),
        pytest.param(
            AttrSource(X, "not a name"),
            "getattr(L['x'], 'not a name')",
            having("not a name", 7),
            7,
            marks=pytest.mark.spec("4.70"),
        ),
        # a keyword is an identifier to str.isidentifier, and no attribute in an expression
        pytest.param(
            AttrSource(X, "class"),
            "getattr(L['x'], 'class')",
            having("class", 7),
            7,
            marks=pytest.mark.spec("4.70"),
        ),
        # Python would read this attribute under another name: it normalises identifiers
        pytest.param(
            AttrSource(X, "\ufb01"),
            "getattr(L['x'], '\ufb01')",
            having("\ufb01", 7),
            7,
            marks=pytest.mark.spec("4.70"),
        ),
        pytest.param(
            GradSource(X),
            "L['x'].grad",
            SimpleNamespace(grad=None),
            None,
            marks=pytest.mark.spec("4.71"),
        ),
        pytest.param(
            GetItemSource(X, "k"), "L['x']['k']", {"k": 5}, 5, marks=pytest.mark.spec("4.72")
        ),
        pytest.param(
            GetItemSource(X, slice(1, None)),
            "L['x'][slice(1, None, None)]",
            [1, 2, 3],
            [2, 3],
            marks=pytest.mark.spec("4.72"),
        ),
        pytest.param(
            GetItemSource(X, ConstDictKeySource(X, 1)),
            "L['x'][list(dict.keys(L['x']))[1]]",
            {"a": 5, KEY: 6},
            6,
            marks=pytest.mark.spec("4.72", "4.73"),
        ),
        pytest.param(
            ConstDictKeySource(X, 1),
            "list(dict.keys(L['x']))[1]",
            {"a": 5, "b": 6},
            "b",
            marks=pytest.mark.spec("4.73"),
        ),
        pytest.param(
            TensorPropertySource(X, TensorProperty.SIZE, 1),
            "L['x'].size()[1]",
            torch.ones(2, 3),
            3,
            marks=pytest.mark.spec("4.75"),
        ),
        pytest.param(
            TensorPropertySource(X, TensorProperty.STRIDE, 0),
            "L['x'].stride()[0]",
            torch.ones(2, 3),
            3,
            marks=pytest.mark.spec("4.75"),
        ),
        pytest.param(
            TensorPropertySource(X, TensorProperty.STORAGE_OFFSET),
            "L['x'].storage_offset()",
            torch.ones(4)[2:],
            2,
            marks=pytest.mark.spec("4.75"),
        ),
        pytest.param(
            CallMethodItemSource(X),
            "L['x'].item()",
            torch.tensor(4),
            4,
            marks=pytest.mark.spec("4.76"),
        ),
        pytest.param(
            NumpyTensorSource(X),
            "array_as_tensor(L['x'])",
            np.arange(3),
            torch.arange(3),
            marks=pytest.mark.spec("4.77"),
        ),
        pytest.param(
            FloatTensorSource(X),
            "number_as_tensor(L['x'])",
            0.1,
            torch.tensor(0.1, dtype=torch.float64),
            marks=pytest.mark.spec("4.78"),
        ),
        pytest.param(
            ConvertIntSource(X), "bool_as_int(L['x'])", True, 1, marks=pytest.mark.spec("4.79")
        ),
        pytest.param(OptimizerSource(X), "L['x']", 3, 3, marks=pytest.mark.spec("4.82")),
        pytest.param(
            DefaultsSource(X, 0),
            "L['x'].__defaults__[0]",
            function,
            "second",
            marks=pytest.mark.spec("4.83"),
        ),
        pytest.param(
            DefaultsSource(X, "c", is_kw=True),
            "L['x'].__kwdefaults__['c']",
            function,
            2.5,
            marks=pytest.mark.spec("4.83"),
        ),
        pytest.param(NNModuleSource(X), "L['x']", 3, 3, marks=pytest.mark.spec("4.88")),
        pytest.param(FSDPNNModuleSource(X), "L['x']", 3, 3, marks=pytest.mark.spec("4.88")),
        pytest.param(
            WeakRefCallSource(X),
            "L['x']()",
            weakref.ref(function),
            function,
            marks=pytest.mark.spec("4.89"),
        ),
        (InstanceDictSource(X), "instance_dict(L['x'])", function, function.__dict__),
        (TypeSource(X), "class_of(L['x'])", 3, int),
        (ClassEntrySource(X, "real"), "L['x'].__dict__['real']", int, vars(int)["real"]),
    ],
    ids=lambda p: type(p).__name__ if isinstance(p, Source) else None,
)
def test_name_and_code_read_the_same(source: Source, name: str, value: Any, expected: Any) -> None:
    assert source.name() == name
    assert same(reads(source, value), expected)


@pytest.mark.spec("4.68")
def test_a_local_knows_its_cell() -> None:
    cell = LocalSource("x", is_cell_or_freevar=True)
    assert cell.guard_source() is GuardSource.LOCAL and cell != X
    machine = StackMachine({"x": 1}, {}, {})
    assert machine.run(cell) == 1 and machine.cells_loaded == ["x"]


@pytest.mark.spec("4.69")
def test_global() -> None:
    source = GlobalSource("scale")
    assert source.name() == "G['scale']" and source.guard_source() is GuardSource.GLOBAL
    assert reads(source, 0, G={"scale": 9}) == 9


@pytest.mark.spec("4.70")
def test_a_dotted_member_nests() -> None:
    dotted = AttrSource(X, "a.b.c")
    assert dotted == AttrSource(AttrSource(AttrSource(X, "a"), "b"), "c")
    assert [s.name() for s in chain(dotted)] == ["L['x'].a.b.c", "L['x'].a.b", "L['x'].a", "L['x']"]
    with pytest.raises(InternalError, match="without a name"):
        AttrSource(X, "")


@pytest.mark.spec("4.72")
def test_slices_are_kept_hashable() -> None:
    source = GetItemSource(X, slice(1, 5, 2))
    assert source.index == (1, 5, 2) and source.index_is_slice
    assert hash(source) == hash(GetItemSource(X, slice(1, 5, 2)))
    assert source != GetItemSource(X, (1, 5, 2))
    with pytest.raises(TypeError, match="unhashable"):
        GetItemSource(X, [1])
    with pytest.raises(InternalError, match="not the key of a dictionary"):
        GetItemSource(X, LocalSource("i"))


@pytest.mark.spec("4.72")
def test_a_key_whose_text_cannot_be_made() -> None:
    class Rude:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    assert "Rude at 0x" in GetItemSource(X, Rude()).name()


@pytest.mark.spec("4.73")
def test_dict_keys_stay_dict_keys() -> None:
    key = ConstDictKeySource(X, 0)
    assert key.is_dict_key() and AttrSource(key, "a").is_dict_key()
    assert not GetItemSource(X, key).is_dict_key() and not X.is_dict_key()


@pytest.mark.spec("4.74")
def test_tuple_iterator_item_counts_what_is_left() -> None:
    source = TupleIteratorGetItemSource(X, 1)
    iterator = iter((10, 20, 30, 40))
    next(iterator)
    assert reads(source, iterator) == 30
    assert next(iterator) == 20  # reading did not move it
    next(iterator), next(iterator)
    with pytest.raises(IndexError):
        reads(source, iterator)
    assert list(iterator) == []
    with pytest.raises(IndexError):  # an exhausted iterator has let its tuple go
        reads(TupleIteratorGetItemSource(X, 0), iterator)


def test_content_is_read_past_the_class_of_the_container() -> None:
    class Odd(list):  # type: ignore[type-arg]
        def __getitem__(self, index: Any) -> Any:
            return None

        def __iter__(self) -> Any:
            return iter(())

    ordered = collections.OrderedDict(a=1, b=2)
    ordered.move_to_end("a")
    for container, expected in (
        (Odd([1, 2]), 2), ((1, 2), 2), ({"a": 1, "b": 2}, 2), (ordered, 1), ({5}, None),
        (collections.deque([1, 2]), 2), (frozenset([8]), None),
    ):  # fmt: skip
        if expected is None:
            with pytest.raises(IndexError):
                reads(ContentSource(X, 1), container)
        else:
            assert reads(ContentSource(X, 1), container) == expected
    assert ContentSource(X, 1).name() == f"content({X.name()}, 1)"


def test_a_view_leads_to_its_dict() -> None:
    for table in ({"a": 1}, collections.OrderedDict(a=1)):
        for view in (table.keys(), table.values(), table.items(), types.MappingProxyType(table)):
            assert reads(ViewedDictSource(X), view) is table


@pytest.mark.spec("4.75")
@pytest.mark.parametrize(
    ("prop", "index"),
    [
        (TensorProperty.SIZE, None),
        (TensorProperty.STRIDE, None),
        (TensorProperty.STORAGE_OFFSET, 0),
    ],
)
def test_tensor_property_index(prop: TensorProperty, index: int | None) -> None:
    with pytest.raises(InternalError, match=prop.name):
        TensorPropertySource(X, prop, index)


@pytest.mark.spec("4.77")
def test_array_tensor_shares_memory() -> None:
    array = np.zeros(2)
    reads(NumpyTensorSource(X), array)[0] = 5
    assert array[0] == 5


@pytest.mark.spec("4.78")
def test_number_keeps_its_precision_under_any_default() -> None:
    old = torch.get_default_dtype()
    torch.set_default_dtype(torch.float16)
    try:
        assert reads(FloatTensorSource(X), 0.1).item() == 0.1
        assert reads(FloatTensorSource(X), 2**40).item() == 2**40
    finally:
        torch.set_default_dtype(old)


@pytest.mark.spec("4.79")
def test_a_symbolic_bool_is_not_asked() -> None:
    from stillframe.shapes.env import ShapeEnv
    from stillframe.symbolic import Range

    env = ShapeEnv()
    size = env.wrap(env.new_symbol("n", 5, Range(0, 100)))
    as_int = HELPERS["bool_as_int"](size > 3)
    assert isinstance(as_int, torch.SymInt) and env.guards == []


@pytest.mark.spec("4.80")
def test_inner_tensor_names() -> None:
    class Pair(torch.Tensor):
        def __tensor_flatten__(self) -> tuple[list[str], None]:
            return ["left", "right"], None

    source = SubclassAttrListSource(X)
    value = torch.ones(1).as_subclass(Pair)
    assert eval(source.name(), dict(HELPERS), {"L": {"x": value}}) == ["left", "right"]
    assert StackMachine({"x": value}, {}, HELPERS).run(source) == ["left", "right"]


@pytest.mark.spec("4.81")
def test_script_objects() -> None:
    queue = SimpleNamespace(
        __obj_flatten__=lambda: (("items", 3),),
        _type=lambda: SimpleNamespace(qualified_name=lambda: "__torch__.torch.classes.q.Queue"),
    )
    assert reads(FlattenScriptObjectSource(X), queue) == (("items", 3),)
    assert reads(ScriptObjectQualifiedNameSource(X), queue).endswith("q.Queue")


@pytest.mark.spec("4.84", "4.66")
def test_constants() -> None:
    source = ConstantSource("const_0")
    assert source.name() == "const_0" and source.guard_source() is GuardSource.CONSTANT
    assert StackMachine({}, {"const_0": 3}, {}).run(source) == 3
    for constant in (source, AttrSource(source, "a")):
        with pytest.raises(NotImplementedError, match="needs no guard"):
            constant.make_guard(print)


@pytest.mark.spec("4.85")
def test_random_value() -> None:
    source = RandomValueSource(2)
    assert source.name() == "random_value_2"
    assert source.guard_source() is GuardSource.RANDOM_VALUE
    machine = StackMachine({}, {}, {}, random_values=[0.1, 0.2, 0.3])
    assert machine.run(source) == 0.3


@pytest.mark.spec("4.86")
@pytest.mark.parametrize(
    ("source", "begin"),
    [
        (ShapeEnvSource(), GuardSource.SHAPE_ENV),
        (GlobalStateSource(), GuardSource.GLOBAL),
        (BackwardStateSource(), GuardSource.BACKWARD_STATE),
    ],
)
def test_places_without_a_name(source: Source, begin: GuardSource) -> None:
    assert source.name() == "" and source.guard_source() is begin
    with pytest.raises(NotImplementedError, match="no code loads"):
        source.reconstruct(StackMachine({}, {}, {}))


@pytest.mark.spec("4.87", "4.65")
def test_synthetic_and_ephemeral() -> None:
    synthetic = SyntheticLocalSource("tmp")
    assert synthetic.name() == "SYNTHETIC_LOCAL['tmp']"
    assert synthetic.guard_source() is GuardSource.SYNTHETIC_LOCAL
    assert not synthetic.subguards_allowed()
    assert not AttrSource(synthetic, "a").subguards_allowed() and X.subguards_allowed()
    assert not synthetic.is_ephemeral()

    ephemeral = EphemeralSource("a view")
    assert ephemeral.name() == "<ephemeral: a view>" and EphemeralSource().name() == "<ephemeral>"
    assert ephemeral.guard_source() is GuardSource.EPHEMERAL
    for source in (ephemeral, GetItemSource(ephemeral, 0)):  # also what hangs off it
        assert source.is_ephemeral()
        with pytest.raises(NotImplementedError, match="ephemeral"):
            source.make_guard(print)


@pytest.mark.spec("4.88")
def test_modules_change_where_a_path_begins() -> None:
    y = GlobalSource("y")
    assert NNModuleSource(X).guard_source() is GuardSource.LOCAL_NN_MODULE
    assert NNModuleSource(y).guard_source() is GuardSource.GLOBAL_NN_MODULE
    assert FSDPNNModuleSource(X).guard_source() is GuardSource.LOCAL_FSDP_MODULE
    assert FSDPNNModuleSource(y).guard_source() is GuardSource.GLOBAL_FSDP_MODULE
    nested = NNModuleSource(AttrSource(NNModuleSource(X), "child"))
    assert nested.guard_source() is GuardSource.LOCAL_NN_MODULE
    managed = FSDPNNModuleSource(nested)
    assert managed.guard_source() is GuardSource.LOCAL_FSDP_MODULE
    assert NNModuleSource(managed).guard_source() is GuardSource.LOCAL_FSDP_MODULE
    weight = AttrSource(NNModuleSource(X), "weight")
    assert weight.is_nn_module() and not AttrSource(X, "weight").is_nn_module()
    constant = NNModuleSource(ConstantSource("c"))
    assert constant.guard_source() is GuardSource.CONSTANT


@pytest.mark.spec("4.65")
def test_abstract_source() -> None:
    source = Source()
    with pytest.raises(NotImplementedError, match="has no name"):
        source.name()
    with pytest.raises(NotImplementedError, match="where it begins"):
        source.guard_source()
    with pytest.raises(NotImplementedError, match="no code loads"):
        source.reconstruct(StackMachine({}, {}, {}))
    assert not source.is_dict_key() and not source.is_ephemeral()


@pytest.mark.spec("4.65")
def test_sources_are_immutable_and_hashable() -> None:
    with pytest.raises(AttributeError):
        X.local_name = "y"  # type: ignore[misc]
    assert {X, LocalSource("x"), GlobalSource("x")} == {X, GlobalSource("x")}
    guard = X.make_guard(print)
    assert guard.originating_source is X and guard.create_fn is print


@pytest.mark.spec("4.67")
def test_chained_asks_its_base() -> None:
    class Key(LocalSource):
        def is_dict_key(self) -> bool:
            return True

    assert ChainedSource(Key("k")).is_dict_key() and not ChainedSource(X).is_dict_key()
    assert ChainedSource(EphemeralSource()).is_ephemeral() and not ChainedSource(X).is_ephemeral()
    assert ChainedSource(GlobalSource("g")).guard_source() is GuardSource.GLOBAL
    with pytest.raises(InternalError, match="without a base"):
        AttrSource(None, "a")  # type: ignore[arg-type]


@pytest.mark.spec("4.90")
def test_predicates() -> None:
    default = DefaultsSource(X, 0)
    assert is_from_defaults(AttrSource(GetItemSource(default, 1), "a")) and is_from_defaults(
        default
    )
    assert not is_from_defaults(AttrSource(X, "a"))
    assert is_constant_source(ConstantSource("c"))
    assert is_constant_source(AttrSource(ConstantSource("c"), "a")) and not is_constant_source(X)
    assert is_cell_contents(AttrSource(X, "cell_contents"))
    assert not is_cell_contents(AttrSource(AttrSource(X, "cell_contents"), "a"))
    assert not is_cell_contents(GetItemSource(X, "cell_contents"))
    assert is_from_optimizer_source(GetItemSource(AttrSource(OptimizerSource(X), "state"), 0))
    assert not is_from_optimizer_source(GetItemSource(X, 0))
    assert is_from_local_source(AttrSource(X, "a"))
    assert not is_from_local_source(AttrSource(GlobalSource("g"), "a"))
    cell = AttrSource(LocalSource("c", True), "a")
    assert is_from_local_source(cell)
    assert not is_from_local_source(cell, allow_cell_or_freevar=False)
    flat = GetItemSource(FlattenScriptObjectSource(X), 0)
    assert is_from_flatten_script_object_source(flat)
    assert not is_from_flatten_script_object_source(X)


@pytest.mark.spec("4.91")
def test_placeholder_names() -> None:
    assert placeholder_name(X) == "L_x_"
    weight = AttrSource(GetItemSource(AttrSource(LocalSource("self"), "layers"), 0), "weight")
    assert placeholder_name(weight) == "L_self_layers_0_weight"
    assert placeholder_name(LocalSource("\u00b2")) == "L_"  # alphanumeric to str, in no name
