"""Every statement of the SQLite store. Arguments are numbered; all values are integers, texts, floats and bytes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, reduce

from loom.model.run import inbox_of

__all__ = ["GROUP_ROWS", "appends", "list_runs"]

GROUP_ROWS = 64
"""Appends in one statement: each number of them is a statement of its own to prepare and keep."""

IDENTITY = """
SELECT application_id, user_version, schema_version
FROM pragma_application_id, pragma_user_version, pragma_schema_version
"""

BEGIN = "BEGIN IMMEDIATE"
COMMIT = "COMMIT"
ROLLBACK = "ROLLBACK"

# --- logs ------------------------------------------------------------------------------------------------------------

LOG = """
SELECT log.id, spec, log.epoch, epochs, log.first, trimmed, failures, ended, ifnull(tail.last, 0), ifnull(tail.upto, 0)
FROM log LEFT JOIN batch AS tail
    ON tail.id = (SELECT id FROM batch WHERE batch.log = log.id ORDER BY last DESC LIMIT 1)
WHERE name = ?1
"""
LOG_ID = "SELECT id FROM log WHERE name = ?1"
ADD_LOG = "INSERT INTO log(name, spec, opaque, epochs) VALUES (?1, ?2, ?3, ?4) ON CONFLICT(name) DO NOTHING"
# OR FAIL: else SQLite keeps a journal of the statement, which costs more than the rows. Their names are free, as seen.
ADD_LOGS = f"""
INSERT OR FAIL INTO log(name, spec, opaque, epochs) VALUES (?1, ?2, 0, x'5b5d'), (?1 || '{inbox_of("")}', ?3, 0, ?4)
"""
RUN_OF_LOG = "SELECT run.id FROM log JOIN run ON run.id IN (log.id, log.id - 1) WHERE name = ?1"
DROP_LOG = "DELETE FROM log WHERE name = ?1"

EPOCH_OF_TOKEN = "SELECT epoch FROM fence WHERE log = ?1 AND token = ?2"
ADD_TOKEN = "INSERT INTO fence VALUES (?1, ?2, ?3)"
BEGIN_EPOCH = "UPDATE log SET epoch = ?2, epochs = ?3 WHERE id = ?1"
COUNT_FAILURES = "UPDATE log SET failures = ?2 WHERE id = ?1"
END_LOG = "UPDATE log SET ended = 1 WHERE id = ?1"
END_LOGS = "UPDATE OR FAIL log SET ended = 1 WHERE id BETWEEN ?1 AND ?1 + 1"


@lru_cache(GROUP_ROWS)
def appends(count: int) -> str:
    """Appends to `count` different logs in one step: (log, epoch, first, last, payload) each.

    Adds those that continue their open log; `changes()` tells how many.
    """
    values = ", ".join(["(?, ?, ?, ?, ?)"] * count)
    return f"""
INSERT INTO batch(log, epoch, first, last, upto, payload)
SELECT log.id, new.column2, new.column3, new.column4, ifnull(tail.upto, 0) + length(new.column5), new.column5
FROM (VALUES {values}) AS new CROSS JOIN log
    LEFT JOIN batch AS tail ON tail.log = log.id AND tail.last = new.column3 - 1
WHERE log.name = new.column1 AND log.epoch = new.column2 AND NOT log.ended
    AND (new.column3 = new.column4 OR NOT log.opaque)
    AND ifnull(tail.last, 0) = new.column3 - 1
    AND NOT EXISTS (SELECT 1 FROM batch WHERE batch.log = log.id AND last >= new.column3)
"""


ADD_BATCH = """
INSERT INTO batch(log, epoch, first, last, upto, payload)
VALUES (?1, ?2, ?3, ?4, ifnull((SELECT upto FROM batch WHERE log = ?1 AND last = ?3 - 1), 0) + length(?5), ?5)
"""
LAST_BATCH = "SELECT epoch, first, last, payload FROM batch WHERE log = ?1 ORDER BY last DESC LIMIT 1"

PRODUCER = "SELECT epoch, seq, place FROM producer WHERE log = ?1 AND name = ?2"
SET_PRODUCER = "INSERT OR REPLACE INTO producer VALUES (?1, ?2, ?3, ?4, ?5)"

# Record by record or at once, what was stored together need not be read together: whole batches of one epoch, up to a
# page, come as one value, because each row that is stepped to costs a change of threads. Behind it stands the last seq,
# or, where line ends do not part the records, a list of each one's seq and size.
READ = """
SELECT epochs, log.first, ended, opaque, (SELECT max(last) FROM batch WHERE batch.log = log.id), edge.epoch, edge.first,
    (SELECT CAST(
            group_concat(payload, '')
            || iif(opaque, json_group_array(json_array(last, length(payload))) FILTER (WHERE opaque), max(last))
        AS BLOB) FROM (
        SELECT payload, last FROM batch
        WHERE batch.log = edge.log AND last >= edge.last AND epoch = edge.epoch
            AND last <= ifnull(
                (SELECT last FROM batch WHERE batch.log = edge.log AND last >= ?2 + ?3 ORDER BY last LIMIT 1),
                edge.last + ?3)
            AND (last = edge.last OR upto <= edge.upto - length(edge.payload) + ?4)
        ORDER BY last))
FROM log LEFT JOIN batch AS edge
    ON edge.id = (SELECT id FROM batch WHERE batch.log = log.id AND last > ?2 ORDER BY last LIMIT 1)
WHERE name = ?1
"""

# The first batch to keep, which is never later than the last one.
FIRST_KEPT = """
SELECT log.id, log.first, kept.first, kept.upto - length(kept.payload)
FROM log LEFT JOIN batch AS kept ON kept.id = ifnull(
    (SELECT id FROM batch WHERE batch.log = log.id AND last >= ?2 ORDER BY last LIMIT 1),
    (SELECT id FROM batch WHERE batch.log = log.id ORDER BY last DESC LIMIT 1))
WHERE name = ?1
"""
TRIM = "UPDATE log SET first = ?2, trimmed = ?3 WHERE id = ?1"
ADD_DEBRIS = "INSERT OR REPLACE INTO debris VALUES (?1, ?2)"

MARK = "INSERT OR REPLACE INTO mark VALUES (?1, ?2, ?3, ?4)"
COUNT_MARKS = "SELECT count(*) FROM mark WHERE log = ?1"
BEAT_OF = "SELECT beat FROM mark WHERE log = ?1 AND reader = ?2"
UNMARK = "DELETE FROM mark WHERE log = ?1 AND reader = ?2"
MARKS_OF = "SELECT reader, seq, beat FROM mark WHERE log = ?1"

# --- runs ------------------------------------------------------------------------------------------------------------

RUN_ID = "SELECT run.id FROM log JOIN run USING (id) WHERE name = ?1"
LOGS_TAKEN = f"""
SELECT 1 FROM log WHERE name = ?1 UNION ALL SELECT 1 FROM log WHERE name = ?1 || '{inbox_of("")}' LIMIT 1
"""
ADD_RUN = """
INSERT INTO run(id, state, actor, parent, root, queue, key, meta, input)
SELECT id, 'queued', ?2, ?3, ?4, ?5, ?6, ?7, ?8 FROM log WHERE name = ?1
"""
ADD_LABELS = "INSERT INTO label SELECT key, value, (SELECT id FROM log WHERE name = ?1) FROM json_each(?2)"

_HEAD = """
name, meta, epochs, first, (SELECT max(last) FROM batch WHERE batch.log = log.id), state, error, started, run.ended,
    beat, heard
"""
_AND_LOG = "JOIN log ON log.id = run.id LEFT JOIN owner ON owner.run = run.id"

HEAD = f"""
SELECT {_HEAD}, input,
    iif(run.ended IS NULL, NULL, (SELECT payload FROM batch WHERE batch.log = log.id ORDER BY last DESC LIMIT 1))
FROM run {_AND_LOG} WHERE name = ?1
"""
LIGHT_HEAD = f"SELECT {_HEAD}, NULL, NULL FROM run {_AND_LOG} WHERE name = ?1"


def list_runs(columns: Sequence[str], labels: int) -> str:
    """Heads without input and result, newest first, of the runs that have given values in `columns` and as many labels.

    Arguments: the id below which they lie, how many, a value for each column, a name and a value for each label.

    From the newest run of the first filter it leaps to the newest of the second that is no newer, and so on; where they
    meet is a run of the list, and the next round begins behind it. A leap is one look into a filter's index, and each
    round passes a run of every filter: there are twice as many at most as the narrowest filter has runs.
    """
    column, label = "SELECT max(id) FROM run AS older WHERE", "SELECT max(run) FROM label WHERE"
    leaps = [f"({column} {name} = ?{place} AND id <= {{}})" for place, name in enumerate(columns, 3)]
    places = range(3 + len(columns), 3 + len(columns) + 2 * labels, 2)
    leaps += [f"({label} name = ?{place} AND value = ?{place + 1} AND run <= {{}})" for place in places]
    first, *others = leaps or [f"({column} id <= {{}})"]
    low = reduce(lambda place, leap: leap.format(place), others, "run.id")
    return f"""
WITH RECURSIVE round(high, low) AS (
    SELECT ?1, ?1 - 1
    UNION ALL
    SELECT run.id, {low} FROM round CROSS JOIN run ON run.id = {first.format("round.low - (round.low = round.high)")})
SELECT {_HEAD}, NULL, NULL FROM round CROSS JOIN run ON run.id = low {_AND_LOG} WHERE low = high LIMIT ?2
"""


BEGIN_RUN = "UPDATE run SET state = 'running', started = ?2 WHERE id = ?1 AND started IS NULL"
END_RUN = """
UPDATE run SET state = ?2, error = ?3, ended = ?4,
    expires = ?4 + max(iif(json_valid(CAST(meta AS TEXT)), CAST(meta AS TEXT) ->> '$.retention', NULL), ?5)
WHERE id = ?1
"""
HEARTBEAT = """
INSERT INTO owner SELECT run.id, 1, ?2 FROM log JOIN run USING (id) WHERE name = ?1 AND run.ended IS NULL
ON CONFLICT(run) DO UPDATE SET beat = beat + 1, heard = excluded.heard
"""
DROP_RUN = "DELETE FROM run WHERE id = (SELECT id FROM log WHERE name = ?1)"

# --- the queue -------------------------------------------------------------------------------------------------------

PUT = """
INSERT INTO queue(run, queue, actor, key, priority, due, ready, number, beat, hold, crashes, meta, input)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0, 0, 0, 0, 0, ?7, ?8) ON CONFLICT(run) DO NOTHING
"""

FIRST_DUE = "SELECT min(due) FROM queue WHERE due IS NOT NULL"

# The new row takes the old one's place: its id says that it was put just now. REPLACE fires no delete trigger.
PUT_DUE = """
INSERT OR REPLACE INTO queue(run, queue, actor, key, priority, ready, number, beat, hold, crashes, meta, input)
SELECT run, queue, actor, key, priority, 0, number, 0, 0, 0, meta, input FROM queue
WHERE due <= ?1 ORDER BY due, id LIMIT ?2
"""

_IS_FREE = "ready AND worker IS NULL AND hold = 0"

FREE = f"""
SELECT min((SELECT id FROM queue WHERE queue = name.value AND priority = ?2 AND {_IS_FREE} ORDER BY id LIMIT 1))
FROM json_each(?1) AS name
"""

# Without the actors in ?3 and the entries in ?4: from actor to actor, so that nobody's backlog is walked through.
FREE_BUT = f"""
WITH RECURSIVE line(name, actor) AS (
    SELECT value, (SELECT min(actor) FROM queue WHERE queue = value AND priority = ?2 AND {_IS_FREE})
    FROM json_each(?1)
    UNION ALL
    SELECT name, (
        SELECT min(actor) FROM queue WHERE queue = name AND priority = ?2 AND {_IS_FREE} AND actor > line.actor)
    FROM line WHERE line.actor IS NOT NULL)
SELECT min((
    SELECT id FROM queue INDEXED BY queue_actor
    WHERE queue = name AND priority = ?2 AND actor = line.actor AND {_IS_FREE}
        AND id NOT IN (SELECT value FROM json_each(?4)) ORDER BY id LIMIT 1))
FROM line WHERE actor IS NOT NULL AND actor NOT IN (SELECT value FROM json_each(?3))
"""

# As one JSON array: a step, and so a change of threads, for all of them.
HELD = """
SELECT json_group_array(json_array(
    run, number, beat, hold, json(iif(worker IS NULL, 'true', 'false')), id, queue, actor, priority)) FROM (
    SELECT * FROM queue WHERE worker IS NOT NULL OR hold > 0 ORDER BY id LIMIT ?1)
"""

# Numbers grow also over entries of the same run: a later entry has a larger id.
CLAIM = """
UPDATE queue SET crashes = crashes + (worker IS NOT NULL), worker = ?2, hold = ?3, beat = 0,
    number = max(number, id << 20) + 1
WHERE id = ?1 RETURNING run, number, crashes, meta, input
"""

GIVEN = "SELECT claims FROM given"
GIVE = "UPDATE given SET claims = claims + 1"

QUEUE_OF = "SELECT queue FROM queue WHERE run = ?1"
FORCE_CLAIM = """
UPDATE queue SET worker = ?2, hold = ?3, beat = 0, number = max(number, id << 20) + 1
WHERE run = ?1 RETURNING number, crashes
"""

PUT_BACK = "UPDATE queue SET worker = NULL, hold = 0 WHERE id = ?1"

HOLDER = "SELECT worker, number FROM queue WHERE run = ?1"
RENEW = "UPDATE queue SET beat = beat + 1 WHERE run = ?1 AND worker = ?2 AND number = ?3"
RELEASE = "UPDATE queue SET beat = beat + 1, worker = NULL, hold = ?2 WHERE run = ?1"
LEAVE_QUEUE = "DELETE FROM queue WHERE run = ?1"
LEAVE_EARLY = "DELETE FROM queue WHERE run = ?1 AND due IS NOT NULL"

_ENTRIES = """
SELECT run, actor, queue, key, priority,
    CASE WHEN due IS NOT NULL THEN 'delayed' WHEN worker IS NOT NULL THEN 'leased' WHEN hold > 0 THEN 'delayed'
        WHEN ready THEN 'ready' ELSE 'behind' END AS place,
    worker, number, crashes, meta
FROM queue WHERE due IS {} AND (?1 IS NULL OR queue = ?1) AND (?2 IS NULL OR place = ?2) ORDER BY {} LIMIT ?3
"""
ENTRIES = _ENTRIES.format("NULL", "id")
ENTRIES_DUE = _ENTRIES.format("NOT NULL", "due, id")

# --- workers ---------------------------------------------------------------------------------------------------------

REGISTER = """
INSERT INTO worker VALUES (?1, ?2, ?3, 0, ?4) ON CONFLICT DO UPDATE
SET asked = asked AND started = excluded.started, started = excluded.started, seen = excluded.seen, info = excluded.info
RETURNING asked
"""
DEREGISTER = "DELETE FROM worker WHERE name = ?1"
FORGET_WORKERS = "DELETE FROM worker WHERE seen < ?1"
WORKERS = "SELECT info, seen, asked FROM worker WHERE seen >= ?1 ORDER BY name"
REQUEST_DRAIN = "UPDATE worker SET asked = 1 WHERE name = ?1 AND seen >= ?2"

# --- changes ---------------------------------------------------------------------------------------------------------

ADD_CHANGE = "INSERT INTO change(kind, topic) VALUES (?1, ?2)"
NEWEST = """
SELECT ifnull((SELECT seq FROM sqlite_sequence WHERE name = 'batch'), 0),
    ifnull((SELECT seq FROM sqlite_sequence WHERE name = 'change'), 0)
"""
CHANGES = """
SELECT json_group_array(json_array(kind, topic)) FROM (
    SELECT DISTINCT kind, topic FROM change WHERE id BETWEEN ?1 AND ?2)
"""
APPENDED = """
SELECT json_group_array(name) FROM (
    SELECT DISTINCT log.name FROM batch JOIN log ON log.id = batch.log WHERE batch.id BETWEEN ?1 AND ?2)
"""
DATA_VERSION = "PRAGMA data_version"

# --- upkeep ----------------------------------------------------------------------------------------------------------

_ORPHANS = """
FROM run CROSS JOIN log USING (id)
WHERE state IN ('running', {}) AND NOT EXISTS (SELECT 1 FROM queue WHERE queue.run = log.name) ORDER BY run.id LIMIT ?1
"""
STARTED_ORPHANS = "SELECT name" + _ORPHANS.format("'running'")

# What cannot be read is put all the same, and told of by who claims it.
REQUEUE = f"""
INSERT INTO queue(run, queue, actor, key, priority, due, ready, number, beat, hold, crashes, meta, input)
SELECT name, queue, actor, key,
    CASE told ->> '$.priority' WHEN 'high' THEN 0 WHEN 'low' THEN 2 ELSE 1 END,
    iif(told ->> '$.not_before' > ?2, told ->> '$.not_before', NULL),
    0, 0, 0, 0, 0, meta, input
FROM (
    SELECT *, iif(json_valid(CAST(meta AS TEXT)), CAST(meta AS TEXT), '{{}}') AS told {_ORPHANS.format("'queued'")})
"""

_SPENT = """
SELECT run.id FROM run CROSS JOIN log USING (id)
WHERE run.ended IS NOT NULL AND NOT EXISTS (SELECT 1 FROM queue WHERE queue.run = log.name)
"""

DROP_AGED = f"DELETE FROM run WHERE id IN ({_SPENT} AND run.ended < ?1 AND expires IS NULL ORDER BY run.ended LIMIT ?2)"
DROP_EXPIRED = f"DELETE FROM run WHERE id IN ({_SPENT} AND expires <= ?1 ORDER BY expires LIMIT ?2)"
DROP_OLDEST = f"DELETE FROM run WHERE id IN ({_SPENT} ORDER BY run.ended LIMIT ?1)"
ENDED_RUNS = "SELECT count(*) FROM run WHERE ended IS NOT NULL"

DEBRIS = "SELECT log, before FROM debris LIMIT 1"
CLEAR = """
DELETE FROM batch WHERE id IN (SELECT id FROM batch WHERE log = ?1 AND last < ?2 ORDER BY last LIMIT ?3)
"""
CLEARED = "DELETE FROM debris WHERE log = ?1"
FORGET_CHANGES = "DELETE FROM change WHERE id <= (SELECT seq FROM sqlite_sequence WHERE name = 'change') - ?1"
PAGES = """
SELECT page_count, freelist_count, page_size
FROM pragma_page_count, pragma_freelist_count, pragma_page_size
"""
VACUUM = "PRAGMA incremental_vacuum"
