"""The tables as they are after every migration; a test compares the two.

Documents and details are bytes: JSON text may contain U+0000, which PostgreSQL's text types refuse.
IDs and addresses are lower-case hexadecimal text: a network ID does not fit a signed 64-bit column.
"""

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    LargeBinary,
    MetaData,
    Table,
    Text,
)

metadata = MetaData()

setting = Table(
    "setting",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", Text, nullable=False),
)

migration = Table(
    "migration",
    metadata,
    Column("name", Text, primary_key=True),
)

network = Table(
    "network",
    metadata,
    Column("nwid", Text, primary_key=True),
    Column("revision", BigInteger, nullable=False),
    Column("document", LargeBinary, nullable=False),
)

member = Table(
    "member",
    metadata,
    Column("nwid", Text, ForeignKey("network.nwid", ondelete="CASCADE"), primary_key=True),
    Column("address", Text, primary_key=True),
    Column("revision", BigInteger, nullable=False),
    Column("document", LargeBinary, nullable=False),
)

ip_owner = Table(
    "ip_owner",
    metadata,
    Column("nwid", Text, ForeignKey("network.nwid", ondelete="CASCADE"), primary_key=True),
    Column("ip", Text, primary_key=True),
    Column("member", Text, nullable=False),
)

event = Table(
    "event",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("time_ms", BigInteger, nullable=False),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("nwid", Text, nullable=False),
    Column("member", Text, nullable=False),
    Column("detail", LargeBinary, nullable=False),
    Column("origin", Text, nullable=False),
)
Index("event_of", event.c.nwid, event.c.member, event.c.seq)

sighting = Table(
    "sighting",
    metadata,
    Column("nwid", Text, primary_key=True),
    Column("member", Text, primary_key=True),
    Column("last_seen_ms", BigInteger, nullable=False),
    Column("physical", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("platform", Text, nullable=False),
)


token = Table(
    "token",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("scope", Text, nullable=False),
    Column("networks", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("expires_ms", BigInteger, nullable=False),
)

login = Table(
    "login",
    metadata,
    Column("nonce", Text, primary_key=True),
    Column("nwid", Text, nullable=False),
    Column("member", Text, nullable=False),
    Column("nonce_expires_ms", BigInteger, nullable=False),
    Column("session_ends_ms", BigInteger, nullable=False),
    ForeignKeyConstraint(["nwid", "member"], ["member.nwid", "member.address"], ondelete="CASCADE"),
)
Index("login_of", login.c.nwid, login.c.member)
