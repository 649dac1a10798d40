"""A program as one Python function: the door, then one line for each operator, then the result."""
