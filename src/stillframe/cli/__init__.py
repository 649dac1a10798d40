"""The ``stillframe`` command: export, inspect, run and verify programs."""

from __future__ import annotations

from stillframe.cli.app import app, main

__all__ = ["app", "main"]
