"""The first schema."""

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    ForeignKey,
    Index,
    LargeBinary,
    MetaData,
    Table,
    Text,
)


def apply(connection: Connection) -> None:
    metadata = MetaData()
    Table(
        "setting",
        metadata,
        Column("name", Text, primary_key=True),
        Column("value", Text, nullable=False),
    )
    Table("migration", metadata, Column("name", Text, primary_key=True))
    Table(
        "network",
        metadata,
        Column("nwid", Text, primary_key=True),
        Column("revision", BigInteger, nullable=False),
        Column("document", LargeBinary, nullable=False),
    )
    Table(
        "member",
        metadata,
        Column("nwid", Text, ForeignKey("network.nwid", ondelete="CASCADE"), primary_key=True),
        Column("address", Text, primary_key=True),
        Column("revision", BigInteger, nullable=False),
        Column("document", LargeBinary, nullable=False),
    )
    Table(
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
    Table(
        "sighting",
        metadata,
        Column("nwid", Text, primary_key=True),
        Column("member", Text, primary_key=True),
        Column("last_seen_ms", BigInteger, nullable=False),
        Column("physical", Text, nullable=False),
        Column("version", Text, nullable=False),
        Column("platform", Text, nullable=False),
    )
    Table(
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
    metadata.create_all(connection)
