"""The module hierarchy of a program: calls, their bodies, and the modules that run them."""
