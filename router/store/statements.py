"""The SQL of the store on disk: the schema, the one statement that writes a batch, the one that reads, the sweep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from router.common.messages import EVERYTHING
from router.common.numbers import MAX_ROUTERS, ROUTER_BITS
from router.common.settings import StoreOptions
from router.store.base import LARGE_BODY, MAX_OFFSET
from router.store.changes import KEEP_EXPIRY
from router.store.log_statements import FEW_DROPPED, FROM_FIRST, HEAD_ENDED, LOG_BATCH, LOG_TABLES, NEVER
from router.store.memory import crowd

MIGRATIONS: Final = (FROM_FIRST,)
"""What makes a schema of the one before, in order: the first makes the second. Another one comes behind, with what it
changes in SCHEMA. Each may name the epoch for logs that begin now. All that a file needs are one transaction."""
SCHEMA_VERSION: Final = 1 + len(MIGRATIONS)

# Bodies come last, so that a look at the expiry of a row with a long body does not read its overflow pages.
# `urgency` holds the body's length in bytes too, 8 times that is added to it: to know the length of a text, SQLite
# would read all of it.
# Without rowid: one tree instead of a table and its index, and a device's items lie together.
SCHEMA: Final = f"""
BEGIN IMMEDIATE;
CREATE TABLE inbox (device TEXT NOT NULL, slot TEXT NOT NULL, version INTEGER NOT NULL, seq INTEGER NOT NULL,
    expires INTEGER NOT NULL, urgency INTEGER NOT NULL, body TEXT,
    PRIMARY KEY (device, slot)) STRICT, WITHOUT ROWID;
CREATE TABLE record (space TEXT NOT NULL, key TEXT NOT NULL, expires INTEGER NOT NULL, value TEXT NOT NULL,
    PRIMARY KEY (space, key)) STRICT, WITHOUT ROWID;
{LOG_TABLES}
CREATE TABLE meta (epoch INTEGER NOT NULL) STRICT;
INSERT INTO meta VALUES ({{epoch}});
PRAGMA user_version = {SCHEMA_VERSION};
COMMIT;
"""


def migration(version: int, epoch: int, steps: Sequence[str] = MIGRATIONS) -> str:
    """What brings a file of this schema up to date. epoch: for logs that begin now."""
    work = "".join(step.format(epoch=epoch) for step in steps[version - 1 :])
    return f"BEGIN IMMEDIATE;{work}PRAGMA user_version = {1 + len(steps)};\nCOMMIT;"


# The temporary half of the schema, made anew by each start, so that it may hold limits and call into Python.
# Of the three triggers for a put, the last is for an item that may take the place of others where there may be no room:
# the second tells that at less cost, and if its own item makes the difference, the last one puts it once more. What an
# item lacks, if it lacks room, goes to a table whose triggers refuse it or make the room. Mostly a few have to go:
# those are found in one pass, without sorting all of the inbox; only if these were not enough all is looked at.
_BATCH: Final = """
CREATE TEMP TABLE refused (device TEXT NOT NULL, slot TEXT NOT NULL);
CREATE TEMP TABLE evicted (number INTEGER NOT NULL);
CREATE TEMP TABLE lack (id INTEGER PRIMARY KEY, device TEXT NOT NULL, slot TEXT NOT NULL, urgency INTEGER NOT NULL,
    now INTEGER NOT NULL, size INTEGER NOT NULL, items INTEGER NOT NULL, bytes INTEGER NOT NULL,
    items_to_go INTEGER NOT NULL, bytes_to_go INTEGER NOT NULL);
CREATE TEMP VIEW batch AS SELECT 0 AS kind, '' AS key, '' AS name, 0 AS version, 0 AS seq, 0 AS expires,
    0 AS urgency, '' AS body, 0 AS now, '' AS more;

CREATE TEMP TRIGGER removal INSTEAD OF INSERT ON batch WHEN NEW.kind = 0 BEGIN
    DELETE FROM inbox WHERE device = NEW.key AND slot = NEW.name AND version <= NEW.version;
END;

CREATE TEMP TRIGGER put INSTEAD OF INSERT ON batch WHEN NEW.kind = 1 AND NEW.urgency <= 0 BEGIN
    INSERT INTO refused SELECT NEW.key, NEW.name
        WHERE EXISTS (SELECT 1 FROM main.inbox WHERE device = NEW.key AND expires > NEW.now
                      LIMIT 1 OFFSET {inbox_limit} - 1)
        AND NOT EXISTS (SELECT 1 FROM main.inbox
                        WHERE device = NEW.key AND slot = NEW.name AND expires > NEW.now);
    SELECT CASE (SELECT max(rowid) FROM temp.refused) WHEN 1 THEN note_refusal() END, RAISE(IGNORE)
        WHERE changes() > 0;
    {put}
END;

CREATE TEMP TRIGGER put_with_room INSTEAD OF INSERT ON batch
WHEN NEW.kind = 1 AND NEW.urgency > 0 AND NOT {crowded} BEGIN
    {put}
END;

CREATE TEMP TRIGGER put_for_others INSTEAD OF INSERT ON batch
WHEN NEW.kind = 1 AND NEW.urgency > 0 AND {crowded} BEGIN
    INSERT OR REPLACE INTO lack SELECT 1, NEW.key, NEW.name, NEW.urgency, NEW.now, {size}, * FROM (
            SELECT count(*) + 1 - {inbox_limit} AS items, total(urgency >> 3) + {size} - {inbox_bytes} AS bytes,
                count(*) FILTER (WHERE (urgency & 7) BETWEEN 1 AND NEW.urgency) AS items_to_go,
                total(urgency >> 3) FILTER (WHERE (urgency & 7) BETWEEN 1 AND NEW.urgency) AS bytes_to_go
            FROM main.inbox
            WHERE device = NEW.key AND slot <> NEW.name AND expires > NEW.now)
        WHERE items > 0 OR bytes > 0;
    SELECT RAISE(IGNORE) WHERE changes() > 0
        AND (SELECT items > items_to_go OR bytes > bytes_to_go FROM temp.lack);
    {put}
END;

CREATE TEMP TRIGGER no_room AFTER INSERT ON lack WHEN NEW.items > NEW.items_to_go OR NEW.bytes > NEW.bytes_to_go BEGIN
    INSERT INTO refused VALUES (NEW.device, NEW.slot);
    SELECT note_refusal() WHERE (SELECT max(rowid) FROM temp.refused) = 1;
END;

CREATE TEMP TRIGGER make_room AFTER INSERT ON lack
WHEN NEW.items <= NEW.items_to_go AND NEW.bytes <= NEW.bytes_to_go BEGIN
    DELETE FROM inbox WHERE device = NEW.device AND slot IN (SELECT slot FROM (
            SELECT slot, row_number() OVER worth - 1 AS items,
                total(urgency >> 3) OVER worth - (urgency >> 3) AS bytes
            FROM (SELECT slot, urgency, seq FROM main.inbox
                WHERE device = NEW.device AND slot <> NEW.slot AND expires > NEW.now
                    AND (urgency & 7) BETWEEN 1 AND NEW.urgency
                ORDER BY urgency & 7, seq, slot LIMIT {few})
            WINDOW worth AS (ORDER BY urgency & 7, seq, slot ROWS UNBOUNDED PRECEDING))
        WHERE items < NEW.items OR bytes < NEW.bytes);
    INSERT INTO evicted SELECT changes();
    SELECT note_refusal() WHERE (SELECT max(rowid) FROM temp.evicted) = 1;
    DELETE FROM inbox WHERE device = NEW.device AND slot IN (SELECT slot FROM (
            SELECT i.slot AS slot, (i.urgency & 7) BETWEEN 1 AND NEW.urgency AS goes,
                row_number() OVER worth AS items, total(i.urgency >> 3) OVER worth AS bytes
            FROM (SELECT 1 WHERE (SELECT number FROM temp.evicted ORDER BY rowid DESC LIMIT 1) = {few})
                CROSS JOIN main.inbox AS i
            WHERE i.device = NEW.device AND i.slot <> NEW.slot AND i.expires > NEW.now
            WINDOW worth AS (ORDER BY (i.urgency & 7) BETWEEN 1 AND NEW.urgency, i.urgency & 7 DESC, i.seq DESC,
                i.slot DESC ROWS UNBOUNDED PRECEDING))
        WHERE goes AND (items >= {inbox_limit} OR bytes + NEW.size > {inbox_bytes}));
    INSERT INTO evicted SELECT changes() WHERE changes() > 0;
END;

CREATE TEMP TRIGGER record_written INSTEAD OF INSERT ON batch WHEN NEW.kind = 2 BEGIN
    DELETE FROM record WHERE NEW.body IS NULL AND space = NEW.name AND key = NEW.key;
    INSERT INTO record SELECT NEW.name, NEW.key, NEW.expires, NEW.body WHERE NEW.body IS NOT NULL
            AND (NEW.expires <> {keep_expiry}
                OR EXISTS (SELECT 1 FROM main.record WHERE space = NEW.name AND key = NEW.key))
        ON CONFLICT (space, key) DO UPDATE SET value = excluded.value,
            expires = CASE excluded.expires WHEN {keep_expiry} THEN expires ELSE excluded.expires END;
END;
"""


FEW_EVICTED: Final = 16
_SIZE: Final = "coalesce(length(CAST(NEW.body AS BLOB)), 0)"
_PUT: Final = f"""INSERT INTO inbox VALUES (NEW.key, NEW.name, NEW.version, NEW.seq, NEW.expires,
            NEW.urgency + 8 * {_SIZE}, NEW.body)
        ON CONFLICT (device, slot) DO UPDATE SET version = excluded.version, seq = excluded.seq,
            expires = excluded.expires, urgency = excluded.urgency, body = excluded.body;"""
_CROWDED: Final = """({size} > {large_body} OR EXISTS (SELECT 1 FROM main.inbox
            WHERE device = NEW.key AND expires > NEW.now LIMIT 1 OFFSET {crowd} - 1))"""


def batch_sql(options: StoreOptions) -> str:
    """The temporary half of the schema for these settings."""
    return (_BATCH + LOG_BATCH).format(
        inbox_limit=options.inbox_limit,
        inbox_bytes=options.inbox_bytes,
        epoch_step=1 << ROUTER_BITS,
        router_mask=MAX_ROUTERS - 1,
        few_dropped=FEW_DROPPED,
        max_offset=MAX_OFFSET,
        never=NEVER,
        keep_expiry=KEEP_EXPIRY,
        size=_SIZE,
        few=FEW_EVICTED,
        crowded=_CROWDED.format(size=_SIZE, large_body=LARGE_BODY, crowd=crowd(options)),
        put=_PUT,
    )


def _write_sql(text: str) -> str:
    """The one statement of a batch. `text` wraps whatever may hold U+0000. The bodies of items stand one after the
    other in a blob, ?6, and an item's row says where: so SQLite reads a long text once and not at each step."""

    def taken(path: str) -> str:
        return text.format(f"value ->> '{path}'")

    return f"""
    INSERT INTO batch
    SELECT 0, value ->> '$[0][0]', {taken("$[0][1]")}, value ->> '$[1]', 0, 0, 0, NULL, ?5, NULL
        FROM json_each(CAST(?1 AS TEXT))
    UNION ALL
    SELECT 1, value ->> '$[0][0]', {taken("$[0][1]")}, value ->> '$[1][1]', value ->> '$[1][2]',
        value ->> '$[1][3]', value ->> '$[1][4]',
        CAST(substr(?6, value ->> '$[1][5]', value ->> '$[1][6]') AS TEXT), ?5, NULL
        FROM json_each(CAST(?2 AS TEXT))
    UNION ALL
    SELECT 2, value ->> '$[0][1]', {taken("$[0][0]")}, 0, 0, value ->> '$[1][1]', 0, value ->> '$[1][0]', ?5, NULL
        FROM json_each(CAST(?3 AS TEXT))
    UNION ALL
    SELECT value ->> '$[0]', value ->> '$[1]', {taken("$[2]")}, value ->> '$[3]', value ->> '$[4]', value ->> '$[5]',
        value ->> '$[6]', {taken("$[7]")}, ?5, value ->> '$[8]'
        FROM json_each(CAST(?4 AS TEXT))
    """


WRITE: Final = _write_sql("{}")
WRITE_NUL: Final = _write_sql("replace({}, ?7, char(0))")

# As blobs, so that the texts are not decoded into a str only to be encoded again. CROSS JOIN fixes the order:
# from the few keys asked for into the tables, never the other way. A part of an inbox ends with the slot that ?4 items
# come before (one number for all parts of a batch, because SQLite takes no column there); a blob is after every text.
READ: Final = f"""
SELECT
    (SELECT CAST(json_group_array(json_array(i.device,
            json_array(i.slot, i.version, i.seq, i.expires, i.urgency & 7, i.body))) AS BLOB)
        FROM json_each(CAST(?1 AS TEXT)) AS q CROSS JOIN inbox AS i ON i.device = q.value ->> 0
            AND i.slot <= coalesce(CASE WHEN q.value ->> 1 < {EVERYTHING} THEN
                (SELECT p.slot FROM inbox AS p WHERE p.device = q.value ->> 0 AND p.expires > ?3
                    ORDER BY p.slot LIMIT 1 OFFSET ?4) END, x'')
        WHERE i.expires > ?3),
    (SELECT CAST(json_group_array(json_array(json_array(r.space, r.key), r.value)) AS BLOB)
        FROM json_each(CAST(?2 AS TEXT)) AS q CROSS JOIN record AS r
            ON r.space = q.value ->> 0 AND r.key = q.value ->> 1 WHERE r.expires = 0 OR r.expires > ?3)
"""

# What conditional changes go by.
READ_RECORDS: Final = """
SELECT CAST(json_group_array(json_array(json_array(r.space, r.key), json_array(r.value, r.expires))) AS BLOB)
    FROM json_each(CAST(?1 AS TEXT)) AS q CROSS JOIN record AS r
        ON r.space = q.value ->> 0 AND r.key = q.value ->> 1
"""

RENEW: Final = """
UPDATE record SET expires = ?3 WHERE space = ?1 AND key IN (SELECT value FROM json_each(CAST(?2 AS TEXT)))
    AND expires > ?5 AND expires < ?4 AND expires < ?3
"""

# Of the file, what is not free for something else. The log beside it comes on top, for a few megabytes.
USED: Final = """
SELECT (page_count - freelist_count) * page_size FROM pragma_page_count, pragma_freelist_count, pragma_page_size
"""

# Tables that a sweep goes through: name, key columns, where the key begins, what an expired row looks like.
# `head` comes after `event`; what is known of a log goes only long after its events, unless all of it has ended.
SWEPT: Final[tuple[tuple[str, tuple[str, ...], tuple[str | int, ...], str], ...]] = (
    ("inbox", ("device", "slot"), ("", ""), "expires <= :now"),
    ("record", ("space", "key"), ("", ""), "expires > 0 AND expires <= :now"),
    ("event", ("channel", "position"), ("", -1), "expires <= :now"),
    ("head", ("channel",), ("",), HEAD_ENDED),
)
