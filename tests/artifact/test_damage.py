"""Files that are not what was written: every one is refused clearly, or is the same program."""

from __future__ import annotations

import io
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from tests.artifact.forging import forged
from torch import nn

import stillframe as sf
from stillframe.artifact import reader, schema
from stillframe.artifact.archive import ALIGNMENT

X = torch.arange(8.0).reshape(2, 4)


@pytest.fixture(scope="module")
def original(tmp_path_factory: Any) -> Path:
    torch.manual_seed(0)
    m = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.BatchNorm1d(3)).eval()
    program = sf.export(m, (X,), dynamic_shapes=({0: sf.Dim("batch", min=1)},))
    path: Path = tmp_path_factory.mktemp("damage") / "m.still"
    sf.save(program, path)
    return path


def outcome(path: Path) -> Any:
    program = sf.load(path)
    return str(program), program.module()(X)


# -- bits and bytes -------------------------------------------------------------------------------


def test_a_flipped_bit_anywhere(original: Path, tmp_path: Path) -> None:
    """Each is refused, or hits bytes that mean nothing (padding, times) and changes nothing."""
    data = bytearray(original.read_bytes())
    text, result = outcome(original)
    rng = random.Random(0)
    path = tmp_path / "flipped.still"
    refused = 0
    for place in rng.sample(range(len(data)), min(len(data), 1500)):
        bit = 1 << rng.randrange(8)
        data[place] ^= bit
        path.write_bytes(data)
        try:
            found_text, found = outcome(path)
        except sf.ArtifactError:
            refused += 1
        else:
            assert found_text == text and torch.equal(found, result), f"byte {place}, bit {bit}"
        data[place] ^= bit
    assert refused > 1000


def test_every_bit_of_the_directory(original: Path, tmp_path: Path) -> None:
    data = bytearray(original.read_bytes())
    text, result = outcome(original)
    path = tmp_path / "flipped.still"
    for place in range(data.rindex(b"manifest.json") - 300, len(data)):
        data[place] ^= 0x10
        path.write_bytes(data)
        try:
            found_text, found = outcome(path)
        except sf.ArtifactError:
            pass
        else:
            assert found_text == text and torch.equal(found, result), f"byte {place}"
        data[place] ^= 0x10


@pytest.mark.parametrize("part", [0.0, 0.01, 0.3, 0.6, 0.9, 0.999])
def test_truncated(original: Path, tmp_path: Path, part: float) -> None:
    data = original.read_bytes()
    path = tmp_path / "short.still"
    path.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(sf.ArtifactError, match=r"short\.still"):
        sf.load(path)


def test_swapped_chunks_and_added_bytes(original: Path, tmp_path: Path) -> None:
    data = original.read_bytes()
    middle = len(data) // 2
    path = tmp_path / "moved.still"
    path.write_bytes(data[middle:] + data[:middle])
    with pytest.raises(sf.ArtifactError):
        sf.load(path)


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"", "is empty"),
        (b"hello, this is text", "not a stillframe artifact"),
        (b"PK\x05\x06" + bytes(18), "not a stillframe artifact"),
        (b"\x80\x04\x95", "not a stillframe artifact"),
    ],
    ids=["empty", "text", "empty zip", "pickle"],
)
def test_foreign_files(content: bytes, part: str, tmp_path: Path) -> None:
    path = tmp_path / "foreign.still"
    path.write_bytes(content)
    with pytest.raises(sf.ArtifactError, match=part):
        sf.load(path)


def test_files_of_torch_are_recognised(tmp_path: Path) -> None:
    torch.save({"a": X}, tmp_path / "a.pt")
    m = nn.Linear(4, 4)
    torch.export.save(torch.export.export(m, (X,)), tmp_path / "a.pt2")
    for name in ("a.pt", "a.pt2"):
        with pytest.raises(sf.ArtifactError, match="not a stillframe artifact") as caught:
            sf.load(tmp_path / name)
        assert "load it with torch" in str(caught.value)


def test_a_zip_of_something_else(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "z.still", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(sf.ArtifactError, match=r"it has no manifest\.json"):
        sf.load(tmp_path / "z.still")


# -- forged files ---------------------------------------------------------------------------------


def test_a_forgery_without_change_loads(original: Path, tmp_path: Path) -> None:
    text, result = outcome(forged(original, tmp_path / "f.still"))
    assert text == outcome(original)[0] and torch.equal(result, outcome(original)[1])


def target_of(doc: dict[str, Any], text: str) -> int:
    return next(i for i, s in enumerate(doc["strings"]) if text in s)


def set_target(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda doc: doc["strings"].__setitem__(target_of(doc, "aten::relu"), name)


CHANGES: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "os.system": (set_target("os.system"), "not the name of an operator"),
    "a builtin": (set_target("builtins.eval"), "not the name of an operator"),
    "an import": (set_target("torch.hub.load"), "not the name of an operator"),
    "files": (set_target("aten::from_file.default"), "may not call"),
    "the interpreter": (set_target("prim::Print.default"), "may not call"),
    "an unknown operator": (set_target("nothing::here.default"), "not registered in this process"),
    "an unknown overload": (set_target("aten::relu.not_there"), "not registered"),
    "code as a name": (
        lambda doc: doc["nodes"][-2].__setitem__(1, "x; import os"),
        "a node with the name",
    ),
    "code as a parameter": (
        lambda doc: doc["call_spec"]["parameters"][0].update(name="x=print(1)"),
        "a parameter",
    ),
    "code as a size": (
        lambda doc: doc["ranges"][0].update(expr="__import__('os').getcwd()"),
        "a size that cannot be read",
    ),
    "an unknown symbol": (lambda doc: doc["ranges"][0].update(expr="q + 1"), "the symbol q"),
    "a later node": (
        lambda doc: doc["nodes"][-2][3].__setitem__(0, ["node", 10_000]),
        "uses node 10000",
    ),
    "a node of unknown kind": (lambda doc: doc["nodes"][0].__setitem__(0, "z"), "unknown kind 'z'"),
    "no output": (lambda doc: doc["nodes"].pop(), "does not end in an output"),
    "a missing state": (lambda doc: doc["state"].pop(), "not in the state_dict"),
    "a missing tensor": (lambda doc: doc["state"][0].__setitem__(1, 99), "no tensor 99"),
    "an unknown dtype": (lambda doc: doc["stored"][0].__setitem__(2, "load"), "damaged"),
    "too large sizes": (lambda doc: doc["stored"][0].__setitem__(3, [2**40, 4]), "damaged"),
    "negative sizes": (lambda doc: doc["stored"][0].__setitem__(3, [-1, 4]), "damaged"),
    "too large strides": (lambda doc: doc["stored"][0].__setitem__(4, [4000, 1]), "damaged"),
    "an unknown kind of input": (lambda doc: doc["inputs"][0].__setitem__(0, "FILE"), "signature"),
    "an empty range": (lambda doc: doc["ranges"][0].update(lower=5, upper=4), ""),
    "a guard that is a number": (
        lambda doc: doc["guards"].append({"expr": "s0 + 1"}),
        "no condition",
    ),
    "a contradiction": (lambda doc: doc["guards"].append({"expr": "s0 < 0"}), "contradict"),
    "deep nesting": (
        lambda doc: doc["nodes"][-2][3].__setitem__(0, _deep(200)),
        "nested too deeply",
    ),
    "a container of unknown kind": (lambda doc: doc["out_spec"].update(type="module"), "container"),
    "a wrong structure": (
        lambda doc: doc["call_spec"]["given"][0].update(leaf_names=[]),
        "makes no sense",
    ),
    "a missing section": (lambda doc: doc.pop("nodes"), "cannot be read"),
    "another type": (lambda doc: doc.update(nodes={"a": 1}), "cannot be read"),
}


def _deep(depth: int) -> Any:
    value: Any = ["list", []]
    for _ in range(depth):
        value = ["list", [value]]
    return value


@pytest.mark.parametrize("name", CHANGES)
def test_forged_programs_are_refused(name: str, original: Path, tmp_path: Path) -> None:
    change, part = CHANGES[name]
    with pytest.raises(sf.ArtifactError) as caught:
        sf.load(forged(original, tmp_path / "f.still", change))
    assert part in str(caught.value)


# -- subgraphs -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def nested(tmp_path_factory: Any) -> Path:
    def f(x: torch.Tensor) -> torch.Tensor:
        def arm(x: torch.Tensor) -> torch.Tensor:
            return torch.cond(x.max() > 1, torch.sin, torch.cos, (x,))

        return torch.cond(x.sum() > 0, arm, lambda x: x.relu(), (x,))

    path: Path = tmp_path_factory.mktemp("damage") / "nested.still"
    sf.save(sf.export(f, (X,)), path)
    return path


def readers(doc: dict[str, Any]) -> list[Any]:
    """The rows that read subgraphs: those of the program, and of its subgraphs."""
    return [row for rows in (doc["nodes"], *doc["graphs"]) for row in rows if row[0] == "g"]


SUBGRAPH_CHANGES: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "no such subgraph": (lambda doc: readers(doc)[0].__setitem__(3, [99]), "has no subgraph"),
    "itself": (lambda doc: readers(doc)[-1].__setitem__(3, [3]), "has no subgraph"),
    "no number": (lambda doc: readers(doc)[0].__setitem__(3, ["x"]), "has no subgraph"),
    "one for two": (lambda doc: readers(doc)[0].__setitem__(3, [1]), "two readers"),
    "a bad name": (
        lambda doc: doc["strings"].__setitem__(readers(doc)[0][2], "a.b"),
        "a subgraph with the name",
    ),
    "two of a name": (
        lambda doc: readers(doc)[0].__setitem__(2, readers(doc)[1][2]),
        "a subgraph with the name",
    ),
    "an operator inside": (set_target("os.system"), "not the name of an operator"),
    "no output inside": (lambda doc: doc["graphs"][0].pop(), "does not end in an output"),
    "code as a name inside": (
        lambda doc: doc["graphs"][0][0].__setitem__(1, "x; import os"),
        "a node with the name",
    ),
    "a subgraph as a value": (
        lambda doc: doc["nodes"][-1].__setitem__(3, [["tuple", [["node", 3]]]]),
        "",
    ),
}


def test_subgraphs_are_read(nested: Path, tmp_path: Path) -> None:
    text, result = outcome(forged(nested, tmp_path / "f.still"))
    assert "true_graph_0 = graph" in text and torch.equal(result, X.sin())


@pytest.mark.parametrize("name", SUBGRAPH_CHANGES)
def test_forged_subgraphs_are_refused(name: str, nested: Path, tmp_path: Path) -> None:
    change, part = SUBGRAPH_CHANGES[name]
    with pytest.raises(sf.ArtifactError) as caught:
        sf.load(forged(nested, tmp_path / "f.still", change))
    assert part in str(caught.value)


def test_newer_versions(original: Path, tmp_path: Path) -> None:
    newer = forged(original, tmp_path / "f.still", manifest=lambda doc: doc.update(major=2))
    with pytest.raises(
        sf.ArtifactError, match=r"format version 2\.\d+.*reads\s+version 1"
    ) as caught:
        sf.load(newer)
    assert "update stillframe" in str(caught.value)

    def minor(doc: dict[str, Any]) -> None:
        doc["a_new_section"] = {"x": 1}
        for node in doc["nodes"]:
            node.extend([None] * (10 - len(node)) if len(node) < 10 else [])
            node.append("a new column")
        doc["symbols"][0]["a_new_field"] = 3

    path = forged(
        original, tmp_path / "m.still", minor, lambda doc: doc.update(minor=7, a_new_field=1)
    )
    assert outcome(path)[0] == outcome(original)[0]


def test_another_format(original: Path, tmp_path: Path) -> None:
    path = forged(original, tmp_path / "f.still", manifest=lambda doc: doc.update(format="other"))
    with pytest.raises(sf.ArtifactError, match="'other'"):
        sf.load(path)


def test_a_compressed_member_is_refused(original: Path, tmp_path: Path) -> None:
    path = tmp_path / "c.still"
    with (
        zipfile.ZipFile(original) as source,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out,
    ):
        for name in source.namelist():
            out.writestr(name, source.read(name))
    with pytest.raises(sf.ArtifactError):
        sf.load(path)


# -- verified when first used ---------------------------------------------------------------------


def test_large_files_are_verified_at_first_use(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "EAGER_BYTES", 0)
    data = bytearray(original.read_bytes())
    weights = sf.load(original).state_dict["0.weight"]
    place = data.index(bytes(weights.detach().flatten().view(torch.uint8).tolist()))
    data[place] ^= 1
    path = tmp_path / "bad.still"
    path.write_bytes(data)

    program = sf.load(path)
    assert "0.weight" in program.state_dict and len(program.state_dict) == 7
    assert "not verified yet" in repr(program.state_dict)
    for use in (
        lambda p: p.module(),
        lambda p: p.state_dict["0.weight"],
        lambda p: dict(p.state_dict.items()),
        lambda p: p.state_dict.verify_weights(),
    ):
        with pytest.raises(
            sf.ArtifactError, match="weights.safetensors differs from what was written"
        ):
            use(sf.load(path))
    assert outcome(original)[0]


def test_headers_are_verified_at_once(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "EAGER_BYTES", 0)
    data = bytearray(original.read_bytes())
    place = data.index(b'"data_offsets"')
    data[place + 17] ^= 1
    path = tmp_path / "bad.still"
    path.write_bytes(data)
    with pytest.raises(sf.ArtifactError, match="differs from what was written"):
        sf.load(path)


# -- the form of the file -------------------------------------------------------------------------


def test_it_is_a_zip_of_json_and_safetensors(original: Path) -> None:
    import safetensors.torch

    with zipfile.ZipFile(original) as archive:
        assert archive.testzip() is None
        infos = {i.filename: i for i in archive.infolist()}
        assert list(infos) == [
            "program.json",
            "constants.safetensors",
            "weights.safetensors",
            "manifest.json",
        ]
        assert all(i.compress_type == zipfile.ZIP_STORED for i in infos.values())
        tensors = safetensors.torch.load(archive.read("weights.safetensors"))
        document = msgspec.json.decode(archive.read("program.json"), type=schema.ProgramDoc)
    program = sf.load(original)
    for fqn, value in program.state_dict.items():
        torch.testing.assert_close(tensors[fqn], value.detach(), rtol=0, atol=0)
    assert document.root_class == "Sequential"


def test_tensors_are_aligned(original: Path) -> None:
    for value in sf.load(original).state_dict.values():
        assert value.data_ptr() % ALIGNMENT == 0


def test_there_is_no_pickle_and_no_path_of_the_package(original: Path) -> None:
    data = original.read_bytes()
    assert b"\x80\x04" not in data[:4] and b".pkl" not in data
    assert io.BytesIO(data).read(2) == b"PK"
