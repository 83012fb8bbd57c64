"""The SQL of the store on disk: the schema, the one statement that writes a batch, the one that reads, the sweep."""

from __future__ import annotations

from typing import Final

from router.store.memory import HEAD_GRACE

SCHEMA_VERSION: Final = 1

# Bodies come last, so that a look at the expiry of a row with a long body does not read its overflow pages.
# Without rowid: one tree instead of a table and its index, and a device's items lie together.
SCHEMA: Final = f"""
BEGIN IMMEDIATE;
CREATE TABLE inbox (device TEXT NOT NULL, slot TEXT NOT NULL, version INTEGER NOT NULL, seq INTEGER NOT NULL,
    expires INTEGER NOT NULL, urgency INTEGER NOT NULL, body TEXT,
    PRIMARY KEY (device, slot)) STRICT, WITHOUT ROWID;
CREATE TABLE record (space TEXT NOT NULL, key TEXT NOT NULL, expires INTEGER NOT NULL, value TEXT NOT NULL,
    PRIMARY KEY (space, key)) STRICT, WITHOUT ROWID;
CREATE TABLE head (channel TEXT NOT NULL PRIMARY KEY, epoch INTEGER NOT NULL, last INTEGER NOT NULL,
    expires INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE event (channel TEXT NOT NULL, position INTEGER NOT NULL, expires INTEGER NOT NULL,
    body TEXT NOT NULL, PRIMARY KEY (channel, position)) STRICT, WITHOUT ROWID;
CREATE TABLE meta (epoch INTEGER NOT NULL) STRICT;
INSERT INTO meta VALUES ({{epoch}});
PRAGMA user_version = {SCHEMA_VERSION};
COMMIT;
"""

# The temporary half of the schema, made anew by each start, so that it may hold limits and call into Python.
BATCH: Final = """
CREATE TEMP TABLE refused (device TEXT NOT NULL, slot TEXT NOT NULL);
CREATE TEMP VIEW batch AS SELECT 0 AS kind, '' AS key, '' AS name, 0 AS version, 0 AS seq, 0 AS expires,
    0 AS urgency, '' AS body, 0 AS now;

CREATE TEMP TRIGGER removal INSTEAD OF INSERT ON batch WHEN NEW.kind = 0 BEGIN
    DELETE FROM inbox WHERE device = NEW.key AND slot = NEW.name AND version <= NEW.version;
END;

CREATE TEMP TRIGGER put INSTEAD OF INSERT ON batch WHEN NEW.kind = 1 BEGIN
    INSERT INTO refused SELECT NEW.key, NEW.name
        WHERE EXISTS (SELECT 1 FROM main.inbox WHERE device = NEW.key AND expires > NEW.now
                      LIMIT 1 OFFSET {inbox_limit} - 1)
        AND NOT EXISTS (SELECT 1 FROM main.inbox
                        WHERE device = NEW.key AND slot = NEW.name AND expires > NEW.now);
    SELECT CASE (SELECT max(rowid) FROM temp.refused) WHEN 1 THEN note_refusal() END, RAISE(IGNORE)
        WHERE changes() > 0;
    INSERT INTO inbox VALUES (NEW.key, NEW.name, NEW.version, NEW.seq, NEW.expires, NEW.urgency, NEW.body)
        ON CONFLICT (device, slot) DO UPDATE SET version = excluded.version, seq = excluded.seq,
            expires = excluded.expires, urgency = excluded.urgency, body = excluded.body;
END;

CREATE TEMP TRIGGER record_written INSTEAD OF INSERT ON batch WHEN NEW.kind = 2 BEGIN
    DELETE FROM record WHERE NEW.body IS NULL AND space = NEW.name AND key = NEW.key;
    INSERT INTO record SELECT NEW.name, NEW.key, NEW.expires, NEW.body WHERE NEW.body IS NOT NULL
        ON CONFLICT (space, key) DO UPDATE SET expires = excluded.expires, value = excluded.value;
END;

CREATE TEMP TRIGGER event_appended INSTEAD OF INSERT ON batch WHEN NEW.kind = 3 BEGIN
    INSERT INTO head VALUES (NEW.key, (SELECT epoch FROM main.meta), 1, NEW.expires)
        ON CONFLICT (channel) DO UPDATE SET last = last + 1, expires = max(expires, excluded.expires);
    INSERT INTO event SELECT channel, last, NEW.expires, NEW.body FROM main.head WHERE channel = NEW.key;
    DELETE FROM event WHERE channel = NEW.key
        AND position <= (SELECT last FROM main.head WHERE channel = NEW.key) - {log_limit};
END;
"""


def _write_sql(text: str) -> str:
    """The one statement of a batch. `text` wraps whatever may hold U+0000."""

    def taken(path: str) -> str:
        return text.format(f"value ->> '{path}'")

    return f"""
    INSERT INTO batch
    SELECT 0, value ->> '$[0][0]', {taken("$[0][1]")}, value ->> '$[1]', 0, 0, 0, NULL, ?5
        FROM json_each(CAST(?1 AS TEXT))
    UNION ALL
    SELECT 1, value ->> '$[0][0]', {taken("$[0][1]")}, value ->> '$[1][1]', value ->> '$[1][2]',
        value ->> '$[1][3]', value ->> '$[1][4]', {taken("$[1][5]")}, ?5 FROM json_each(CAST(?2 AS TEXT))
    UNION ALL
    SELECT 2, value ->> '$[0][1]', {taken("$[0][0]")}, 0, 0, value ->> '$[1][1]', 0, value ->> '$[1][0]', ?5
        FROM json_each(CAST(?3 AS TEXT))
    UNION ALL
    SELECT 3, value ->> '$[0]', NULL, 0, 0, value ->> '$[1]', 0, {taken("$[2]")}, ?5
        FROM json_each(CAST(?4 AS TEXT))
    """


WRITE: Final = _write_sql("{}")
WRITE_NUL: Final = _write_sql("replace({}, ?6, char(0))")

# As blobs, so that the texts are not decoded into a str only to be encoded again. CROSS JOIN fixes the order:
# from the few keys asked for into the tables, never the other way.
READ: Final = """
SELECT
    (SELECT CAST(json_group_array(json_array(i.device,
            json_array(i.slot, i.version, i.seq, i.expires, i.urgency, i.body))) AS BLOB)
        FROM json_each(CAST(?1 AS TEXT)) AS q CROSS JOIN inbox AS i ON i.device = q.value
        WHERE i.expires > ?5),
    (SELECT CAST(json_group_array(json_array(json_array(r.space, r.key), r.value)) AS BLOB)
        FROM json_each(CAST(?2 AS TEXT)) AS q CROSS JOIN record AS r
            ON r.space = q.value ->> 0 AND r.key = q.value ->> 1 WHERE r.expires = 0 OR r.expires > ?5),
    (SELECT CAST(json_group_array(json_array(q.value ->> 0, json_array(
            coalesce(h.epoch, (SELECT epoch FROM meta)),
            coalesce((SELECT e.position FROM event AS e WHERE e.channel = h.channel AND e.expires > ?5
                ORDER BY e.position LIMIT 1), 0),
            coalesce(h.last, 0),
            json((SELECT json_group_array(json_array(e.position, e.expires, e.body)) FROM event AS e
                WHERE e.channel = h.channel AND e.position > q.value ->> 1 AND e.expires > ?5))))) AS BLOB)
        FROM json_each(CAST(?3 AS TEXT)) AS q LEFT JOIN head AS h ON h.channel = q.value ->> 0),
    (SELECT CAST(json_group_array(json_array(h.channel, h.last)) AS BLOB)
        FROM json_each(CAST(?4 AS TEXT)) AS q CROSS JOIN head AS h ON h.channel = q.value)
"""

# Tables that a sweep goes through: name, key columns, where the key begins, what an expired row looks like.
# `head` comes after `event`; a position goes only long after its events.
SWEPT: Final[tuple[tuple[str, tuple[str, ...], tuple[str | int, ...], str], ...]] = (
    ("inbox", ("device", "slot"), ("", ""), "expires <= :now"),
    ("record", ("space", "key"), ("", ""), "expires > 0 AND expires <= :now"),
    ("event", ("channel", "position"), ("", -1), "expires <= :now"),
    ("head", ("channel",), ("",), f"expires <= :now - {HEAD_GRACE}"),
)
