"""Where members are in single sign-on."""

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    ForeignKeyConstraint,
    Index,
    MetaData,
    Table,
    Text,
)


def apply(connection: Connection) -> None:
    metadata = MetaData()
    # The other end of the reference; it exists.
    Table(
        "member",
        metadata,
        Column("nwid", Text, primary_key=True),
        Column("address", Text, primary_key=True),
    )
    login = Table(
        "login",
        metadata,
        Column("nonce", Text, primary_key=True),
        Column("nwid", Text, nullable=False),
        Column("member", Text, nullable=False),
        Column("nonce_expires_ms", BigInteger, nullable=False),
        Column("session_ends_ms", BigInteger, nullable=False),
        ForeignKeyConstraint(
            ["nwid", "member"], ["member.nwid", "member.address"], ondelete="CASCADE"
        ),
    )
    Index("login_of", login.c.nwid, login.c.member)
    metadata.create_all(connection)
