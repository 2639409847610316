"""The version that peers, users and scripts see.

Clients of the API and of the wire compare it with what they know of the original, so it is that of
the release whose behaviour this node has; the version of this distribution is in its metadata.
"""

VERSION = (1, 14, 1)
BUILD = 0
TEXT = "1.14.1"
