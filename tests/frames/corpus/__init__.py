"""Small programs, one per feature of the language or idiom of its library.

A program is a function without arguments whose name starts with ``case_``, or an entry of a
module's ``EXPRESSIONS``. They need nothing but the interpreter: ``runner.py`` runs all of them
without pytest, also on other Pythons.
"""
