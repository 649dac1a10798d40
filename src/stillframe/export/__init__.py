"""The export pipeline, ExportedProgram, signature, passes, verifier. Nothing is imported here:
``stillframe.export`` is also the name of the function, see ``stillframe/__init__.py``."""
