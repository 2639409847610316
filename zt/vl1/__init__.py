"""Peers, paths, roots, relays: time and bytes in, actions out."""
