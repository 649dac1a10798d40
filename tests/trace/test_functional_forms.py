"""In-place operators find the functional operator that computes what they write."""

from __future__ import annotations

import torch

from stillframe.trace.functional_forms import MEMORY_CHANGES, METADATA_CHANGES, functional_form

aten = torch.ops.aten


def test_forms_by_name_and_schema() -> None:
    expected = {
        aten.add_.Tensor: aten.add.Tensor,
        aten.add_.Scalar: aten.add.Scalar,
        aten.index_put_.default: aten.index_put.default,
        aten.scatter_.value_reduce: aten.scatter.value_reduce,
        aten.__iand__.Tensor: aten.__and__.Tensor,
        aten.normal_.default: aten.normal_functional.default,
        aten._foreach_add_.Scalar: aten._foreach_add.Scalar,
        aten.add.out: aten.add.Tensor,
        aten.max.dim_max: aten.max.dim,
    }
    for op, functional in expected.items():
        form = functional_form(op)
        assert form is not None and form.op is functional, op


def test_every_form_takes_what_the_operator_takes() -> None:
    for name in torch._C._dispatch_get_all_op_names():
        if not name.startswith("aten::"):
            continue
        packet, _, overload = name.removeprefix("aten::").partition(".")
        op = getattr(getattr(aten, packet, None), overload or "default", None)
        form = functional_form(op) if op is not None else None
        if form is None:
            continue
        given = [a.name for a in op._schema.arguments if a.name not in form.dropped]
        assert [a.name for a in form.op._schema.arguments] == given, name
        assert not any(
            a.alias_info is not None and a.alias_info.is_write for a in form.op._schema.arguments
        ), name
        assert len(form.op._schema.returns) >= 1


def test_arguments_that_say_where_to_write_are_dropped() -> None:
    form = functional_form(aten.add.out)
    assert form is not None
    names = [a.name for a in aten.add.out._schema.arguments]
    args, kwargs = form.arguments(names, (1, 2), {"alpha": 3, "out": 4})
    assert (args, kwargs) == ((1, 2), {"alpha": 3})


def test_operators_without_a_form() -> None:
    assert functional_form(aten.add.Tensor) is None  # writes nothing
    assert functional_form(aten.bernoulli_.float) is None  # bernoulli.p draws otherwise
    assert functional_form(aten._native_batch_norm_legit.default) is None

    library = torch.library.Library("functional_forms_test", "DEF")
    library.define("bump(Tensor x) -> Tensor")
    library.define("bump_(Tensor(a!) x) -> Tensor(a!)")
    assert functional_form(torch.ops.functional_forms_test.bump_.default) is None


def test_changes_of_metadata_are_no_writes() -> None:
    assert set(METADATA_CHANGES) <= MEMORY_CHANGES
    assert aten.resize_.default in MEMORY_CHANGES
    assert aten.add_.Tensor not in MEMORY_CHANGES
    for op, view in METADATA_CHANGES.items():
        assert view._schema.returns[0].alias_info is not None
        assert op._schema.name == f"{view._schema.name}_"
