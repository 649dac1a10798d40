"""The kinds of guard: what each remembers of a value, how it is checked, how it is said.

A file per theme; ``registry`` has the table. Each kind is a ``create_fn`` of guards:
``source.make_guard(TYPE_MATCH)``, or with parameters ``partial(HASATTR, attr="weight")``.
"""
