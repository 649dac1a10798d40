"""Programs of other systems, turned into programs of this one."""
