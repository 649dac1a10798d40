"""``python -m stillframe.cli``, the same as ``stillframe``."""

from stillframe.cli import main

main()
