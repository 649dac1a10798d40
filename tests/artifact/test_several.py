"""Files of several programs: round trips, tensors once, old files, forged files."""

from __future__ import annotations

import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.artifact.forging import forged
from torch import nn

import stillframe as sf
from stillframe.artifact import reader, schema

X = torch.arange(12.0).reshape(3, 4)
LARGE = {"x": {0: sf.Dim("batch", min=2)}}


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 64)
        self.norm = nn.BatchNorm1d(64)
        self.scale = torch.full((64,), 2.0)
        self.register_buffer("offset", torch.arange(64.0), persistent=False)

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        return self.first(x) * self.scale * torch.tensor(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.encode(x)) + self.offset


def make() -> tuple[Model, sf.ProgramSet]:
    torch.manual_seed(0)
    model = Model().eval()
    graphs = [sf.export(model, (X[:1],)), sf.export(model, (X,), dynamic_shapes=LARGE)]
    graphs.append(sf.export(model.train(), (X,), dynamic_shapes=LARGE))
    model.eval()
    return model, sf.combine(*graphs, encode=sf.export(model.encode, (X,), dynamic_shapes=LARGE))


@pytest.fixture(scope="module")
def original(tmp_path_factory: Any) -> Path:
    path: Path = tmp_path_factory.mktemp("several") / "m.still"
    sf.save(make()[1], path)
    return path


def outcome(path: Path) -> Any:
    programs = sf.load(path)
    module = programs.module()
    return str(programs), [module(X), module(X[:1]), module.encode(X)]


# -- round trips ----------------------------------------------------------------------------------


def test_it_comes_back_as_it_was(original: Path) -> None:
    model, programs = make()
    loaded = sf.load(original)
    assert isinstance(loaded, sf.ProgramSet)
    assert str(loaded) == str(programs)
    module = loaded.module()
    for n in (1, 3, 2):
        assert torch.equal(module(X[:n]), model(X[:n]))
    assert torch.equal(module.encode(X), model.encode(X))
    module.train()
    model.train()
    assert torch.equal(module(X), model(X))
    module.eval()
    model.eval()
    assert torch.equal(module(X), model(X))
    torch.testing.assert_close(module.state_dict(), model.state_dict(), rtol=0, atol=0)


def test_tensors_are_written_once_and_shared(original: Path, tmp_path: Path) -> None:
    first, *others = sf.load(original).programs
    for other in others:
        assert all(other.state_dict[k] is v for k, v in first.state_dict.items())
    with zipfile.ZipFile(original) as archive:
        assert archive.namelist()[0] == "programs.json"
        weights = archive.getinfo("weights.safetensors").file_size
    sf.save(others[-1], tmp_path / "one.still")
    with zipfile.ZipFile(tmp_path / "one.still") as archive:
        assert archive.namelist()[0] == "program.json"
        assert archive.getinfo("weights.safetensors").file_size == weights


def test_saved_twice_is_the_same_file(original: Path, tmp_path: Path) -> None:
    sf.save(sf.load(original), tmp_path / "again.still")
    with zipfile.ZipFile(original) as one, zipfile.ZipFile(tmp_path / "again.still") as two:
        for name in ("programs.json", "weights.safetensors"):
            assert one.read(name) == two.read(name)


def test_every_graph_keeps_its_example(original: Path) -> None:
    shapes = [tuple(p.example_inputs[0][0].shape) for p in sf.load(original).programs]
    assert shapes == [(1, 4), (3, 4), (3, 4), (3, 4)]
    model, _ = make()
    assert len(sf.load(original).verify(model)) == 4


def test_one_program_under_two_names(tmp_path: Path) -> None:
    mod = nn.Linear(4, 2)
    program = sf.export(mod, (X,))
    sf.save(sf.combine(program, again=program), tmp_path / "p.still")
    loaded = sf.load(tmp_path / "p.still")
    assert loaded.methods["forward"][0] is loaded.methods["again"][0]
    assert torch.equal(loaded.module().again(X), mod(X))


def test_names_in_a_member_are_unique(tmp_path: Path) -> None:
    """A buffer may be called as the file calls the first example."""

    class Clash(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.example = nn.Module()
            self.example.register_buffer("0", torch.ones(2), persistent=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.example.get_buffer("0")

    program = sf.export(Clash(), (torch.full((2,), 7.0),))
    sf.save(program, tmp_path / "p.still")
    loaded = sf.load(tmp_path / "p.still")
    assert torch.equal(loaded.constants["example.0"], torch.ones(2))
    assert torch.equal(loaded.example_inputs[0][0], torch.full((2,), 7.0))


def test_two_files_are_combined_after_sharing_weights(tmp_path: Path) -> None:
    model = Model().eval()
    for name, x in (("one", X[:1]), ("three", X)):
        sf.save(sf.export(model, (x,)), tmp_path / name)
    one, three = sf.load(tmp_path / "one"), sf.load(tmp_path / "three")
    with pytest.raises(sf.InvalidInput, match=r"first\.weight is not the same tensor"):
        sf.combine(one, three)
    module = sf.combine(one, three.with_state_dict(one.state_dict)).module()
    assert torch.equal(module(X), model(X)) and torch.equal(module(X[:1]), model(X[:1]))


def test_views_that_a_graph_writes_are_refused(tmp_path: Path) -> None:
    class Views(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("whole", torch.zeros(4))
            self.register_buffer("part", self.whole[:2])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.whole.add_(1)
            return x + self.part

        def peek(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.part

    mod = Views()
    step, peek = sf.export(mod, (torch.ones(2),)), sf.export(mod.peek, (torch.ones(2),))
    programs = sf.combine(step, peek=peek)
    module = programs.module()
    module(torch.ones(2))
    assert torch.equal(module.peek(torch.ones(2)), torch.full((2,), 2.0))
    with pytest.raises(sf.ArtifactError, match="views of one memory"):
        sf.save(programs, tmp_path / "p.still")


# -- versions -------------------------------------------------------------------------------------


def test_files_of_the_version_before_are_read(tmp_path: Path) -> None:
    mod = nn.Linear(4, 2)
    sf.save(sf.export(mod, (X,)), tmp_path / "p.still")
    path = forged(
        tmp_path / "p.still", tmp_path / "old.still", manifest=lambda doc: doc.update(minor=2)
    )
    assert torch.equal(sf.load(path).module()(X), mod(X))


def test_the_version_says_that_there_may_be_several() -> None:
    assert (schema.MAJOR, schema.MINOR) >= (1, 3)
    assert "- 1.3:" in (schema.__doc__ or "")


# -- damage ---------------------------------------------------------------------------------------


def test_a_flipped_bit_anywhere(original: Path, tmp_path: Path) -> None:
    data = bytearray(original.read_bytes())
    text, results = outcome(original)
    rng = random.Random(0)
    path = tmp_path / "flipped.still"
    refused = 0
    for place in rng.sample(range(len(data)), 150):
        data[place] ^= 4
        path.write_bytes(data)
        try:
            found_text, found = outcome(path)
        except sf.ArtifactError:
            refused += 1
        else:
            assert found_text == text and all(map(torch.equal, found, results)), f"byte {place}"
        data[place] ^= 4
    assert refused > 100


def rename(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda doc: doc["methods"][1].update(name=name)


CHANGES: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "no methods": (lambda doc: doc.update(methods=[]), "make no sense"),
    "an empty method": (
        lambda doc: doc["methods"].append({"name": "more", "programs": []}),
        "at least one program",
    ),
    "no such program": (
        lambda doc: doc["methods"][1].update(programs=[9]),
        "its methods make no sense",
    ),
    "a negative place": (
        lambda doc: doc["methods"][1].update(programs=[-1]),
        "its methods make no sense",
    ),
    "a program that nobody calls": (
        lambda doc: doc["methods"].pop(),
        "its methods make no sense",
    ),
    "a method twice": (rename("forward"), "its methods make no sense"),
    "code as a name": (rename("x(): import os"), "cannot be the name"),
    "a method of modules": (rename("state_dict"), "every module has"),
    "a method of Python": (rename("__class__"), "every module has"),
    "a part of the module": (rename("norm"), "part of the module"),
    "graphs of other parameters": (
        lambda doc: doc["programs"][0]["call_spec"]["parameters"][0].update(name="z"),
        "",
    ),
    "other tensors under one name": (
        lambda doc: doc["programs"][0]["state"][0].__setitem__(1, 1),
        "different tensors for first.weight",
    ),
    "a state that is missing in one": (
        lambda doc: doc["programs"][0]["state"].pop(),
        "not in the state_dict",
    ),
    "another module": (
        lambda doc: doc["programs"][0].update(root_class="Other"),
        "not of one module",
    ),
    "a missing tensor": (lambda doc: doc["objects"].clear(), "no tensor 0"),
    "an unknown operator": (
        lambda doc: doc["programs"][-1].update(
            strings=[
                s.replace("aten::linear", "os::system") for s in doc["programs"][-1]["strings"]
            ]
        ),
        "not registered in this process",
    ),
    "a missing section": (lambda doc: doc.pop("programs"), "cannot be read"),
}


def test_a_forgery_without_change_loads(original: Path, tmp_path: Path) -> None:
    assert outcome(forged(original, tmp_path / "f.still"))[0] == outcome(original)[0]


@pytest.mark.parametrize("name", CHANGES)
def test_forged_files_are_refused(name: str, original: Path, tmp_path: Path) -> None:
    change, part = CHANGES[name]
    with pytest.raises(sf.ArtifactError) as caught:
        sf.load(forged(original, tmp_path / "f.still", change))
    assert part in str(caught.value)


def test_both_kinds_in_one_file_are_refused(original: Path, tmp_path: Path) -> None:
    def both(doc: dict[str, Any]) -> None:
        doc["members"].append({**doc["members"][0], "name": "program.json"})

    with pytest.raises(sf.ArtifactError, match="its manifest lists"):
        sf.load(forged(original, tmp_path / "f.still", manifest=both))


def test_members_of_a_newer_version(original: Path, tmp_path: Path) -> None:
    def newer(doc: dict[str, Any]) -> None:
        doc["minor"] = schema.MINOR + 1
        doc["members"][0]["name"] = "kernels.json"

    with pytest.raises(sf.ArtifactError, match="does not know") as caught:
        sf.load(forged(original, tmp_path / "f.still", manifest=newer))
    assert "kernels.json" in str(caught.value) and "update stillframe" in str(caught.value)


def test_large_files_are_verified_at_first_use(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "EAGER_BYTES", 0)
    weights = sf.load(original).state_dict["first.weight"]
    data = bytearray(original.read_bytes())
    place = data.index(bytes(weights.detach().flatten().view(torch.uint8).tolist()))
    data[place] ^= 1
    path = tmp_path / "bad.still"
    path.write_bytes(data)
    programs = sf.load(path)
    assert "not verified yet" in repr(programs.state_dict)
    with pytest.raises(sf.ArtifactError, match="weights.safetensors differs"):
        programs.module()
