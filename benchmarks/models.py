"""The models that the benchmarks capture: real architectures, random weights, dynamic shapes.

Each is a :class:`Model`: how to build the module, its inputs at a given size, and which dims vary,
as a function of a library's ``Dim`` class so that every library gets the same declaration.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import torch
import torchvision_ops  # noqa: F401  (before anything that imports torchvision)
from torch import nn

warnings.filterwarnings("ignore")

Inputs = tuple[tuple[Any, ...], dict[str, Any]]
Sizes = Mapping[str, int]

VOCABULARY = 1000


@dataclass(frozen=True)
class Model:
    """One benchmark subject.

    ``dims(Dim)`` is the ``dynamic_shapes`` argument of ``export``; ``inputs(**sizes)`` gives
    ``(args, kwargs)``; ``sizes`` holds the example's sizes first and then others, inside the
    declared ranges, at which a program is checked against eager.
    """

    name: str
    make: Callable[[], nn.Module]
    inputs: Callable[..., Inputs]
    dims: Callable[[Callable[..., Any]], Any]
    sizes: tuple[Sizes, ...]

    def build(self) -> nn.Module:
        """A fresh module in eval mode; the same weights every time."""
        torch.manual_seed(0)
        return self.make().eval()

    def example(self) -> Inputs:
        """The inputs to export with."""
        return self._at(self.sizes[0])

    def others(self) -> list[Inputs]:
        """Inputs of other sizes that the declared dims admit."""
        return [self._at(sizes) for sizes in self.sizes[1:]]

    def _at(self, sizes: Sizes) -> Inputs:
        torch.manual_seed(sum(sizes.values()))
        return self.inputs(**sizes)


# --- text ----------------------------------------------------------------------------------------


def _text(batch: int, seq: int) -> Inputs:
    """Token ids and a right-padded mask, by keyword."""
    ids = torch.randint(3, VOCABULARY, (batch, seq))
    lengths = torch.randint(max(1, seq // 2), seq + 1, (batch, 1))
    mask = (torch.arange(seq)[None] < lengths).long()
    return (), {"input_ids": ids, "attention_mask": mask}


def _text_dims(Dim: Callable[..., Any]) -> Any:
    both = {0: Dim("batch", min=2, max=64), 1: Dim("seq", min=4, max=256)}
    return {"input_ids": both, "attention_mask": both}


_TEXT_SIZES = ({"batch": 3, "seq": 32}, {"batch": 2, "seq": 17}, {"batch": 5, "seq": 64})


def bert(layers: int = 12) -> Model:
    """transformers ``BertModel``: hidden 128, 4 heads, intermediate 256."""

    def make() -> nn.Module:
        from transformers import BertConfig, BertModel

        return BertModel(
            BertConfig(
                vocab_size=VOCABULARY,
                hidden_size=128,
                num_hidden_layers=layers,
                num_attention_heads=4,
                intermediate_size=256,
                max_position_embeddings=256,
            )
        )

    return Model(f"bert_{layers}", make, _text, _text_dims, _TEXT_SIZES)


def llama(layers: int = 4) -> Model:
    """transformers ``LlamaForCausalLM``: hidden 128, grouped-query attention, no cache."""

    def make() -> nn.Module:
        from transformers import LlamaConfig, LlamaForCausalLM

        return LlamaForCausalLM(
            LlamaConfig(
                vocab_size=VOCABULARY,
                hidden_size=128,
                num_hidden_layers=layers,
                num_attention_heads=4,
                num_key_value_heads=2,
                intermediate_size=256,
                max_position_embeddings=256,
                use_cache=False,
            )
        )

    return Model(f"llama_{layers}", make, _text, _text_dims, _TEXT_SIZES)


# --- images --------------------------------------------------------------------------------------


def _image(batch: int) -> Inputs:
    return (torch.randn(batch, 3, 224, 224),), {}


def _batch_only(Dim: Callable[..., Any]) -> Any:
    return ({0: Dim("batch", min=2, max=64)},)


_IMAGE_SIZES = ({"batch": 3}, {"batch": 2}, {"batch": 5})


def vit_tiny() -> Model:
    """timm ``vit_tiny_patch16_224``, as published, random weights."""

    def make() -> nn.Module:
        import timm

        return timm.create_model("vit_tiny_patch16_224", pretrained=False)

    return Model("vit_tiny", make, _image, _batch_only, _IMAGE_SIZES)


def resnet18() -> Model:
    """torchvision ``resnet18``, random weights."""

    def make() -> nn.Module:
        from torchvision.models import resnet18 as build

        return build(weights=None)  # type: ignore[no-any-return]

    return Model("resnet18", make, _image, _batch_only, _IMAGE_SIZES)


# --- small ones ----------------------------------------------------------------------------------


def chain(length: int, width: int = 8) -> Model:
    """``length`` tiny ``Linear`` layers in a row: a call is nearly all overhead."""

    def make() -> nn.Module:
        return nn.Sequential(*(nn.Linear(width, width) for _ in range(length)))

    def inputs(batch: int) -> Inputs:
        return (torch.randn(batch, width),), {}

    def dims(Dim: Callable[..., Any]) -> Any:
        return {"input": {0: Dim("batch", min=2, max=64)}}

    return Model(f"linear_{length}", make, inputs, dims, ({"batch": 4}, {"batch": 2}, {"batch": 9}))


class _Many(nn.Module):
    """Pools each of several inputs of its own length and mixes them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mix = nn.Linear(width, width)

    def forward(self, xs: list[torch.Tensor]) -> torch.Tensor:
        pooled = [self.mix(x).softmax(0).mean(0) for x in xs]
        return torch.stack(pooled).sum(0)


def many_dims(dynamic: int, total: int = 16) -> Model:
    """The same program over ``total`` inputs, of which the first ``dynamic`` vary in length."""

    def inputs(length: int) -> Inputs:
        fixed = [20] * (total - dynamic)
        return ([torch.randn(n, 8) for n in [length + i for i in range(dynamic)] + fixed],), {}

    def dims(Dim: Callable[..., Any]) -> Any:
        one = [{0: Dim(f"n{i}", min=2, max=512)} if i < dynamic else None for i in range(total)]
        return {"xs": one}

    sizes = ({"length": 30}, {"length": 11}, {"length": 45})
    return Model(f"dims_{dynamic}", lambda: _Many(8), inputs, dims, sizes)


def warm_up() -> Model:
    """A few common operators with a dynamic batch and nothing of interest: exporting it makes a
    library do its lazy imports and fill the tables that it fills once."""

    def make() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
            nn.Linear(4 * 9, 8), nn.LayerNorm(8), nn.GELU(), nn.Softmax(-1),
        )  # fmt: skip

    def inputs(batch: int) -> Inputs:
        return (torch.randn(batch, 3, 8, 8),), {}

    def dims(Dim: Callable[..., Any]) -> Any:
        return {"input": {0: Dim("batch", min=2, max=64)}}

    return Model("warm_up", make, inputs, dims, ({"batch": 4}, {"batch": 2}))


#: The subjects of the export and memory benchmarks, by name.
SUBJECTS: dict[str, Callable[[], Model]] = {
    "bert_12": bert,
    "vit_tiny": vit_tiny,
    "resnet18": resnet18,
    "llama_4": llama,
}
