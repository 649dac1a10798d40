"""Second half of the demo: load the file in a process that has never seen the model's code.

    python examples/demo_run.py [minilm.still]

Neither transformers nor the module's class is imported here: the program, its weights and its
checks are all in the file. Tokens come from the ``tokenizers`` package.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from minilm import model_files
from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer

import stillframe as sf

SENTENCES = [
    "How do I reset my password?",
    "I forgot my login and cannot get into my account.",
    "The weather in Lisbon is sunny today.",
    "It will not rain in Portugal this afternoon.",
    "A cat is sleeping on the sofa.",
]


def tokenize(sentences: list[str]) -> dict[str, torch.Tensor]:
    """The inputs of the program, padded to the longest sentence."""
    tokenizer = Tokenizer.from_file(str(model_files() / "tokenizer.json"))
    tokenizer.enable_padding()
    tokenizer.enable_truncation(256)
    encoded = tokenizer.encode_batch(sentences)
    return {
        "input_ids": torch.tensor([e.ids for e in encoded]),
        "attention_mask": torch.tensor([e.attention_mask for e in encoded]),
        "token_type_ids": torch.tensor([e.type_ids for e in encoded]),
    }


def embed(module: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """One vector of length 1 per sentence: the mean over its tokens."""
    with torch.no_grad():
        states = first_tensor(module(**inputs))
    mask = inputs["attention_mask"].unsqueeze(-1).to(states.dtype)
    mean = (states * mask).sum(1) / mask.sum(1)
    return torch.nn.functional.normalize(mean, dim=1)


def first_tensor(result: object) -> torch.Tensor:
    """The last hidden state, whatever container the program gives its results in."""
    tensor = torch.utils._pytree.tree_leaves(result)[0]
    assert isinstance(tensor, torch.Tensor)
    return tensor


def main(path: Path) -> None:
    """Load, embed the sentences, print their similarities."""
    program = sf.load(path)
    vectors = embed(program.module(), tokenize(SENTENCES))
    assert "transformers" not in sys.modules, "the model's library must not be needed here"
    similarity = vectors @ vectors.T

    title = f"similarity, by {path.name} without transformers"
    table = Table(title=title, title_justify="left")
    table.add_column("sentence")
    for i in range(len(SENTENCES)):
        table.add_column(str(i + 1), justify="right")
    for i, sentence in enumerate(SENTENCES):
        cells = [f"{value:.2f}" for value in similarity[i].tolist()]
        table.add_row(f"{i + 1} {sentence}", *(_marked(c, j == i) for j, c in enumerate(cells)))
    Console().print(table)


def _marked(cell: str, itself: bool) -> str:
    style = "dim" if itself else "bold green" if float(cell) >= 0.4 else ""
    return f"[{style}]{cell}[/]" if style else cell


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("minilm.still"))
