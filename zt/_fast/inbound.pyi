"""Half of the switch, for C callers only: see switch.pyx."""
