"""What can be set about a controller, with its defaults."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """See docs/controller.md."""

    workers: int = 2
    """Threads that build and sign configs."""
    waiting_limit: int = 10_000
    """Members per network that nobody has authorized, refused or changed since a stranger's first
    request made them; about 1 KiB of memory each."""
    waiting_days: int = 30
    """After so many days without a request such a member is forgotten."""
    log_days: int = 365
    log_entries: int = 100_000
    """Log entries are kept for that many days, and in any case the newest of that number."""
    login_url: str = ""
    """Where browsers go after a login at the identity provider (`ssoRedirectURL`)."""
    login_key: bytes | None = None
    """What login states are made with (``ZT_SSO_PSK``); None: a key kept in the database."""
    requests_limit: int = 10_000
    """Requests that may wait for an answer; more are dropped, nodes ask again."""
