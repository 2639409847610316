"""What happens inside one transaction: the same statements on SQLite and PostgreSQL.

Plain functions of an open connection. Writers hold the database's writer lock (an immediate
transaction on SQLite, an advisory lock on PostgreSQL) from their first read to the commit, so what
they have read cannot change under them.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

from sqlalchemy import (
    Column,
    Connection,
    Text,
    and_,
    bindparam,
    column,
    delete,
    func,
    insert,
    literal,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from zt.controller.storage import schema
from zt.controller.storage.interface import (
    Applied,
    Change,
    Conflict,
    Event,
    Key,
    LoginRow,
    ObjectRow,
    SightingRow,
    TokenRow,
)

T = TypeVar("T")

PORTION = 500
"""Rows or keys per statement, below every database's limit of parameters."""


def apply(connection: Connection, batch: Sequence[Change], origin: str) -> Applied:
    """Store the changes of a batch that still fit."""
    revisions = _revisions(connection, [change.key for change in batch])
    owners = _owners_of(connection, batch)
    outcomes: list[Conflict | None] = []
    accepted: list[Change] = []
    granted: list[dict[str, str]] = []
    for change in batch:
        conflict = _conflict(change, revisions, owners)
        outcomes.append(conflict)
        if conflict is not None:
            continue
        accepted.append(change)
        revisions[change.key] = change.revision if change.document is not None else 0
        granted += _grant(change, owners)
    seq = last_seq(connection)
    _write(connection, accepted, granted)
    _log_changes(connection, accepted, seq, origin)
    return Applied(outcomes, seq + 1, seq + len(accepted))


def _conflict(
    change: Change, revisions: dict[Key, int], owners: dict[tuple[str, str], str]
) -> Conflict | None:
    nwid, member = change.key
    if revisions.get(change.key, 0) != change.expected:
        return Conflict()
    if member and change.document is not None and not revisions.get((nwid, "")):
        return Conflict()
    taken = {}
    for claim in change.claims:
        owner = owners.get((nwid, claim.ip), member)
        if claim.exclusive and owner != member:
            taken[claim.ip] = owner
    return Conflict(taken) if taken else None


def _grant(change: Change, owners: dict[tuple[str, str], str]) -> list[dict[str, str]]:
    """Updates `owners` for an accepted change; returns the rows to insert."""
    nwid, member = change.key
    for ip in change.releases:
        if owners.get((nwid, ip)) == member:
            del owners[nwid, ip]
    rows = []
    wanted = [(claim.ip, member) for claim in change.claims]
    for ip, heir in [*wanted, *change.heirs]:
        if owners.setdefault((nwid, ip), heir) == heir:
            rows.append({"nwid": nwid, "ip": ip, "member": heir})
    return rows


def _revisions(connection: Connection, keys: Sequence[Key]) -> dict[Key, int]:
    members = [key for key in keys if key[1]]
    networks = sorted({nwid for nwid, _ in keys})
    found: dict[Key, int] = {}
    for portion in portions(networks):
        query = select(schema.network.c.nwid, schema.network.c.revision)
        for nwid, revision in connection.execute(query.where(schema.network.c.nwid.in_(portion))):
            found[nwid, ""] = revision
    table = schema.member.c
    columns = (table.nwid, table.address, table.revision)
    for nwid, address, revision in _rows_of(connection, columns, members):
        found[nwid, address] = revision
    return found


def _owners_of(connection: Connection, batch: Sequence[Change]) -> dict[tuple[str, str], str]:
    wanted = {
        (change.key[0], ip)
        for change in batch
        for ip in (*(claim.ip for claim in change.claims), *change.releases)
    }
    table = schema.ip_owner.c
    rows = _rows_of(connection, (table.nwid, table.ip, table.member), sorted(wanted))
    return {(nwid, ip): member for nwid, ip, member in rows}


def _write(
    connection: Connection, changes: Sequence[Change], granted: Sequence[dict[str, str]]
) -> None:
    releases = [
        {"b_nwid": change.key[0], "b_ip": ip, "b_member": change.key[1]}
        for change in changes
        for ip in change.releases
    ]
    _many(connection, _RELEASE, releases)
    # Members follow the network they belong to, so runs of different kinds keep their order.
    for statement, documents in _runs(changes):
        _many(connection, statement, documents)
    gone = [change.key for change in changes if change.document is None]
    _many(connection, _FORGET_SIGHTING, [{"b_nwid": n, "b_member": m} for n, m in gone if m])
    _many(connection, _FORGET_SIGHTINGS, [{"b_nwid": n} for n, m in gone if not m])
    dropped = {nwid for nwid, address in gone if not address}
    rows = [row for row in granted if row["nwid"] not in dropped]
    _many(connection, _upsert(connection, schema.ip_owner, ("nwid", "ip")), rows)


def _log_changes(connection: Connection, changes: Sequence[Change], seq: int, origin: str) -> None:
    _many(
        connection,
        insert(schema.event),
        [
            {
                "seq": seq + offset,
                "time_ms": change.time_ms,
                "actor": change.actor,
                "action": change.action,
                "nwid": change.key[0],
                "member": change.key[1],
                "detail": change.detail,
                "origin": origin,
            }
            for offset, change in enumerate(changes, 1)
        ],
    )


def _runs(changes: Sequence[Change]) -> Iterator[tuple[Any, list[dict[str, Any]]]]:
    """Consecutive changes of one kind, as one statement with many rows."""
    statement: Any = None
    rows: list[dict[str, Any]] = []
    for change in changes:
        nwid, address = change.key
        row: dict[str, Any] = {"b_nwid": nwid, "nwid": nwid}
        if address:
            row |= {"b_address": address, "address": address}
        row |= {"revision": change.revision, "document": change.document}
        table = "member" if address else "network"
        kind = "delete" if change.document is None else "update" if change.expected else "insert"
        wanted = _OBJECT_STATEMENTS[table, kind]
        if wanted is not statement and rows:
            yield statement, rows
            rows = []
        statement = wanted
        names = _OBJECT_PARAMETERS[kind]
        rows.append({name: value for name, value in row.items() if name in names})
    if rows:
        yield statement, rows


_OBJECT_STATEMENTS: dict[tuple[str, str], Any] = {
    ("network", "insert"): insert(schema.network),
    ("network", "update"): update(schema.network).where(
        schema.network.c.nwid == bindparam("b_nwid")
    ),
    ("network", "delete"): delete(schema.network).where(
        schema.network.c.nwid == bindparam("b_nwid")
    ),
    ("member", "insert"): insert(schema.member),
    ("member", "update"): update(schema.member).where(
        schema.member.c.nwid == bindparam("b_nwid"),
        schema.member.c.address == bindparam("b_address"),
    ),
    ("member", "delete"): delete(schema.member).where(
        schema.member.c.nwid == bindparam("b_nwid"),
        schema.member.c.address == bindparam("b_address"),
    ),
}
_OBJECT_PARAMETERS = {
    "insert": {"nwid", "address", "revision", "document"},
    "update": {"b_nwid", "b_address", "revision", "document"},
    "delete": {"b_nwid", "b_address"},
}
_RELEASE = delete(schema.ip_owner).where(
    schema.ip_owner.c.nwid == bindparam("b_nwid"),
    schema.ip_owner.c.ip == bindparam("b_ip"),
    schema.ip_owner.c.member == bindparam("b_member"),
)
_FORGET_SIGHTING = delete(schema.sighting).where(
    schema.sighting.c.nwid == bindparam("b_nwid"),
    schema.sighting.c.member == bindparam("b_member"),
)
_FORGET_SIGHTINGS = delete(schema.sighting).where(schema.sighting.c.nwid == bindparam("b_nwid"))


def _many(connection: Connection, statement: Any, rows: Sequence[dict[str, Any]]) -> None:
    if rows:
        connection.execute(statement, rows)


def _upsert(connection: Connection, table: Any, key: Sequence[str]) -> Any:
    """Insert, or replace the row with the same key."""
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    statement = dialect.insert(table)
    rest = {c.name: statement.excluded[c.name] for c in table.columns if c.name not in key}
    return statement.on_conflict_do_update(index_elements=list(key), set_=rest)


def last_seq(connection: Connection) -> int:
    return connection.execute(select(func.max(schema.event.c.seq))).scalar() or 0


def log(connection: Connection, event: Event) -> None:
    row = event._replace(seq=last_seq(connection) + 1)._asdict()
    connection.execute(insert(schema.event), row)


def events(connection: Connection, after: int, limit: int, nwid: str, member: str) -> list[Event]:
    query = select(schema.event).where(schema.event.c.seq > after)
    if nwid:
        query = query.where(schema.event.c.nwid == nwid)
    if member:
        query = query.where(schema.event.c.member == member)
    rows = connection.execute(query.order_by(schema.event.c.seq).limit(limit))
    return [Event(*row) for row in rows]


def events_since(connection: Connection, time_ms: int, actions: Sequence[str]) -> list[Event]:
    query = select(schema.event).where(
        schema.event.c.time_ms >= time_ms, schema.event.c.action.in_(actions)
    )
    return [Event(*row) for row in connection.execute(query.order_by(schema.event.c.seq))]


def prune_events(connection: Connection, before_ms: int, keep: int) -> None:
    # The newest entry must stay in any case: its number is where counting goes on.
    newest = last_seq(connection)
    connection.execute(
        delete(schema.event).where(
            schema.event.c.time_ms < before_ms, schema.event.c.seq <= newest - max(keep, 1)
        )
    )


def fetch(connection: Connection, keys: Sequence[Key]) -> dict[Key, ObjectRow]:
    found: dict[Key, ObjectRow] = {}
    n, m = schema.network.c, schema.member.c
    for portion in portions([nwid for nwid, address in keys if not address]):
        for nwid, revision, document in connection.execute(
            select(n.nwid, n.revision, n.document).where(n.nwid.in_(portion))
        ):
            found[nwid, ""] = ObjectRow((nwid, ""), revision, document)
    columns = (m.nwid, m.address, m.revision, m.document)
    members = [key for key in keys if key[1]]
    for nwid, address, revision, document in _rows_of(connection, columns, members):
        found[nwid, address] = ObjectRow((nwid, address), revision, document)
    return found


def _rows_of(
    connection: Connection, columns: Sequence[Column[Any]], keys: Sequence[tuple[str, str]]
) -> Iterator[Any]:
    """These columns of the rows whose first two are one of the keys."""
    if connection.dialect.name == "postgresql":
        # As two arrays. A list of pairs becomes as many conditions there, which may all be tried on
        # every row.
        sides = (literal(list(side), postgresql.ARRAY(Text)) for side in zip(*keys, strict=True))
        named = column("one", Text), column("two", Text)
        wanted = func.unnest(*sides).table_valued(*named).render_derived()
        matches = and_(columns[0] == wanted.c.one, columns[1] == wanted.c.two)
        if keys:
            yield from connection.execute(select(*columns).join(wanted, matches))
        return
    for pairs in portions(keys):
        yield from connection.execute(select(*columns).where(tuple_(*columns[:2]).in_(pairs)))


def networks(connection: Connection) -> list[ObjectRow]:
    rows = connection.execute(select(schema.network).order_by(schema.network.c.nwid))
    return [ObjectRow((nwid, ""), revision, document) for nwid, revision, document in rows]


def members_after(connection: Connection, after: Key, limit: int) -> list[ObjectRow]:
    """Members in key order beyond a key: how a large table is read in portions."""
    m = schema.member.c
    rows = connection.execute(
        select(m.nwid, m.address, m.revision, m.document)
        .where(tuple_(m.nwid, m.address) > tuple_(*after))
        .order_by(m.nwid, m.address)
        .limit(limit)
    )
    return [
        ObjectRow((nwid, address), revision, document) for nwid, address, revision, document in rows
    ]


def owners(connection: Connection, nwid: str | None) -> list[tuple[str, str, str]]:
    query = select(schema.ip_owner)
    if nwid is not None:
        query = query.where(schema.ip_owner.c.nwid == nwid)
    return [(row.nwid, row.ip, row.member) for row in connection.execute(query)]


def sightings(connection: Connection) -> list[SightingRow]:
    return [SightingRow(*row) for row in connection.execute(select(schema.sighting))]


def save_sightings(connection: Connection, rows: Sequence[SightingRow]) -> None:
    upsert = _upsert(connection, schema.sighting, ("nwid", "member"))
    _many(connection, upsert, [row._asdict() for row in rows])


def tokens(connection: Connection) -> list[TokenRow]:
    return [TokenRow(*row) for row in connection.execute(select(schema.token))]


def save_token(connection: Connection, row: TokenRow) -> None:
    connection.execute(_upsert(connection, schema.token, ("id",)), row._asdict())


def delete_token(connection: Connection, token_id: str) -> None:
    connection.execute(delete(schema.token).where(schema.token.c.id == token_id))


def setting(connection: Connection, name: str, value: str) -> str:
    table = schema.setting
    found = connection.execute(select(table.c.value).where(table.c.name == name)).scalar()
    if found is None:
        connection.execute(insert(table), {"name": name, "value": value})
    return value if found is None else str(found)


def open_login(connection: Connection, row: LoginRow, now_ms: int) -> LoginRow:
    table = schema.login
    found = connection.execute(
        select(table).where(
            table.c.nwid == row.nwid,
            table.c.member == row.member,
            table.c.session_ends_ms == 0,
            table.c.nonce_expires_ms > now_ms,
        )
    ).first()
    if found is not None:
        return LoginRow(*found)
    connection.execute(insert(table), row._asdict())
    return row


def login(connection: Connection, nonce: str) -> LoginRow | None:
    found = connection.execute(select(schema.login).where(schema.login.c.nonce == nonce)).first()
    return None if found is None else LoginRow(*found)


def extend_login(connection: Connection, row: LoginRow, before_ms: int) -> bool:
    table = schema.login
    done = connection.execute(
        update(table)
        .where(table.c.nonce == row.nonce, table.c.session_ends_ms == before_ms)
        .values(session_ends_ms=row.session_ends_ms)
    )
    return done.rowcount == 1


def prune_logins(connection: Connection, unused_ms: int, ended_ms: int) -> None:
    table = schema.login
    used = table.c.session_ends_ms != 0
    connection.execute(delete(table).where(~used, table.c.nonce_expires_ms <= unused_ms))
    connection.execute(delete(table).where(used, table.c.session_ends_ms <= ended_ms))


def copy(source: Connection, target: Connection) -> dict[str, int]:
    """Every row of one database into an empty other one; row counts by table."""
    counts = {}
    for table in schema.metadata.sorted_tables:
        if table is schema.migration:
            continue
        counts[table.name] = 0
        result = source.execute(select(table))
        while rows := result.mappings().fetchmany(PORTION):
            target.execute(insert(table), [dict(row) for row in rows])
            counts[table.name] += len(rows)
    return counts


def clear(connection: Connection) -> None:
    """Empties every table that `copy` fills."""
    for table in reversed(schema.metadata.sorted_tables):
        if table is not schema.migration:
            connection.execute(delete(table))


def portions(values: Sequence[T]) -> Iterator[list[T]]:
    remaining = iter(values)
    while portion := list(islice(remaining, PORTION)):
        yield portion


Transaction = Callable[[Connection], T]
