"""The ``.still`` file: a program as a zip of JSON and safetensors. Loading runs no code from it."""

from stillframe.artifact.reader import load
from stillframe.artifact.writer import save

__all__ = ["load", "save"]
