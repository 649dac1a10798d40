"""The ``stillframe`` command: export, inspect, run and verify programs."""

from __future__ import annotations


def main() -> None:
    """The entry point of the ``stillframe`` command."""
    from stillframe.cli.app import app

    app()
