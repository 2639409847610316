"""Bytes to values and back; no behaviour, no I/O, no clock."""
