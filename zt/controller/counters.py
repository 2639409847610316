"""What the controller counts; the service's metrics show it (ch. 05, 15)."""

from dataclasses import dataclass


@dataclass(slots=True)
class Counters:
    """Since the start of the process."""

    network_changes: int = 0
    member_changes: int = 0
    authorizations: int = 0
    deauthorizations: int = 0
    requests: int = 0
    requests_dropped: int = 0
    """Not answered because too many were waiting."""
    login_checks: int = 0
    login_timeouts: int = 0
    network_reads: int = 0
    """Looked up in memory by the API, as are those below."""
    member_reads: int = 0
    """Also by requests of nodes."""
    network_lists: int = 0
    member_lists: int = 0
