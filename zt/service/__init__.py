"""The daemon: sockets, TAP devices, routes, local API, metrics, home folder."""
