"""Multipath bonding: several paths to one peer used together (ch. 03, 9).

`settings` is what the operator configured, `member` one path of a bond, `measure` what is known of
its quality, `backup` the choice of the active path, `bond` the state of one peer, `bonds` all of
them with their timers, packets and tables. The choice per packet is the data plane's
(`_fast/kernels/table_bond.h`).
"""
