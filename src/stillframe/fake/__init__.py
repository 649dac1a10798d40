"""Tensors without data: FakeTensor, the mode that runs operators on them, shape rules."""
