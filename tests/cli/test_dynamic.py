"""The text of --dynamic: its grammar, and a caret at every mistake."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from stillframe.cli.dynamic import dynamic_spec, parse_dynamic
from stillframe.errors import InvalidInput
from stillframe.shapes.dims import Dim, resolve_spec

SEQ = Dim("seq", min=2, max=512)


@pytest.mark.parametrize(
    ("options", "want"),
    [
        (["x=0:batch,1:seq:2..512"], {"x": {0: Dim("batch"), 1: SEQ}}),
        (["x = 0 : batch , -1 : seq : 2 .. 512"], {"x": {0: Dim("batch"), -1: SEQ}}),
        (["x=1:8*seq:2..512"], {"x": {1: 8 * SEQ}}),
        (["x=1:2*seq-3:2..512,0:seq+1"], {"x": {1: 2 * SEQ - 3, 0: SEQ + 1}}),
        (["x=0:n:..64,1:m:3.."], {"x": {0: Dim("n", max=64), 1: Dim("m", min=3)}}),
        (["x=0:n:..", "y=0:n"], {"x": {0: Dim("n")}, "y": {0: Dim("n")}}),
        (["x=0:auto,1:dynamic,2:static"], {"x": {0: Dim.AUTO, 1: Dim.DYNAMIC, 2: Dim.STATIC}}),
        (["y=0:seq", "x=0:seq:2..512"], {"y": {0: SEQ}, "x": {0: SEQ}}),
        (["x=0:seq:2..512", "x=1:seq:2..512"], {"x": {0: SEQ, 1: SEQ}}),
        (["kv['a=b'][0].k=2:seq:2..512"], {"kv['a=b'][0].k": {2: SEQ}}),
        ([], {}),
    ],
)
def test_grammar(options: list[str], want: Any) -> None:
    assert parse_dynamic(options) == want


@pytest.mark.parametrize(
    ("option", "column", "what"),
    [
        ("x", 1, "expected the name of an input and '='."),
        ("=0:b", 0, "expected the name of an input and '='."),
        ("x=", 2, "expected the number of a dim."),
        ("x=q:b", 2, "expected the number of a dim."),
        ("x=0", 3, "expected ':' after the dim."),
        ("x=0:", 4, "expected the name of a size"),
        ("x=0:4", 4, "a constant size needs no entry"),
        ("x=0:0*b", 4, "the factor of a size must be 1 or more."),
        ("x=0:8*", 6, "expected the name of a size"),
        ("x=0:b+c", 6, "expected a number after '+'."),
        ("x=0:b:3", 6, "expected a range: 2..512, 2.. or ..512."),
        ("x=0:b:9..2", 6, "the range is empty: 9 is larger than 2."),
        ("x=0:auto:2..3", 9, "auto, dynamic and static have no range of their own."),
        ("x=0:b 1:c", 6, "expected ',' between dims."),
        ("x=0:b;", 5, "expected ',' between dims."),
        ("x=0:b,", 6, "expected the number of a dim."),
        ("x=0:b,0:c", 6, "dim 0 is given twice."),
        ("x=0:b:1..2,1:b+1:1..3", 17, "b has two ranges: 1..2 and 1..3."),
    ],
)
def test_a_caret_below_the_mistake(option: str, column: int, what: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        parse_dynamic([option])
    assert raised.value.what.startswith(f"--dynamic: {what}")
    assert raised.value.where == (option, " " * column + "^")
    assert raised.value.hints == ("for example: input_ids=0:batch,1:seq:2..512",)


def test_mistakes_across_options() -> None:
    with pytest.raises(InvalidInput, match=r"b has two ranges: 1\.\.2 and 1\.\.3"):
        parse_dynamic(["x=0:b:1..2", "y=0:b:1..3"])
    with pytest.raises(InvalidInput, match="two specs for dim 0 of x"):
        parse_dynamic(["x=0:b", "x=0:c"])


def forward(x: Any, *rest: Any, **kw: Any) -> Any:
    return x


def test_paths_name_inputs() -> None:
    args = ({"a": [torch.zeros(3, 4), torch.zeros(5)]}, torch.zeros(3))
    kwargs = {"mask": torch.zeros(3, 4)}
    dims = parse_dynamic(["x['a'][0]=0:b", "rest[0]=0:b", "mask=-1:m"])
    spec = dynamic_spec(forward, args, kwargs, dims)
    found = {leaf.path: leaf.dims for leaf in resolve_spec(forward, args, kwargs, spec)}
    b = Dim("b")
    assert found == {
        "x['a'][0]": {0: b},
        "x['a'][1]": {},
        "rest[0]": {0: b},
        "mask": {1: Dim("m")},
    }


def test_path_of_no_input() -> None:
    with pytest.raises(InvalidInput, match="names 'y', which is no input") as raised:
        dynamic_spec(forward, (torch.zeros(3),), {}, parse_dynamic(["y=0:b"]))
    assert raised.value.why == "the inputs are: x"
