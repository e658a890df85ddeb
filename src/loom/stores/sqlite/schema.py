"""What a store's file is made of: its tables and triggers, the number of its format, and how an older one becomes it.

A run's outbox is log ``2 * run.id``, its inbox the log after it. Ids are AUTOINCREMENT, so that none comes twice:
what is left of a run that was dropped never belongs to another, and a larger id is always a later row.
"""

from __future__ import annotations

from loom.model.run import inbox_of

__all__ = ["APPLICATION_ID", "LOOK", "MARKS", "OLDEST", "QUEUE", "SCHEMA", "UPGRADES", "VERSION"]

APPLICATION_ID = 0x4C4F4F4D  # "LOOM"
VERSION = 4
"""The file's format, as its `user_version` tells it."""

OLDEST = 2
"""The oldest that is brought to this one when it is opened. No release wrote an older one."""

LOOK, MARKS, QUEUE = range(3)
"""What a row of `change` says: look at this log; its readers' marks changed; somebody may claim."""

_RUN = """
CREATE TABLE run (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    name        TEXT NOT NULL UNIQUE,
    actor       TEXT NOT NULL,
    queue       TEXT NOT NULL,
    key         TEXT,
    state       TEXT NOT NULL,              -- RunState
    epoch       INTEGER NOT NULL,           -- the newest, which alone may append; -1: none yet
    epochs      BLOB NOT NULL,              -- Head.epochs, JSON
    inbox_epoch INTEGER NOT NULL,
    first       INTEGER NOT NULL,           -- the first seq that is kept
    beat        INTEGER NOT NULL,           -- the owner's heartbeat
    started     REAL,                       -- Unix seconds
    ended       REAL,
    expires     REAL,                       -- of an ended run with a retention of its own
    error       BLOB,                       -- ErrorInfo, JSON
    meta        BLOB NOT NULL,              -- Meta but for its input, JSON
    input       BLOB NOT NULL               -- the last column: who reads the others never loads it
) STRICT;
CREATE INDEX run_state ON run(state, id);
CREATE INDEX run_actor ON run(actor, id);
CREATE INDEX run_ended ON run(ended, expires) WHERE ended IS NOT NULL;
CREATE INDEX run_expires ON run(expires) WHERE expires IS NOT NULL;
"""

_QUEUE = """
CREATE TABLE queue (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    run      TEXT NOT NULL UNIQUE,
    queue    TEXT NOT NULL,
    actor    TEXT NOT NULL,
    key      TEXT,
    priority INTEGER NOT NULL DEFAULT 1,    -- its rank (the default: for processes that know only format 2)
    due      REAL,                          -- Unix seconds: not put before, in no line; NULL once it is put
    ready    INTEGER NOT NULL,              -- no earlier entry of its actor's key
    worker   TEXT,                          -- who claimed it
    number   INTEGER NOT NULL,              -- of the newest claim
    beat     INTEGER NOT NULL,              -- its heartbeat
    hold     REAL NOT NULL,                 -- lease or delay: claimable when (number, beat) stood still for so long
    crashes  INTEGER NOT NULL,
    meta     BLOB NOT NULL,                 -- as in run
    input    BLOB NOT NULL
) STRICT;
CREATE INDEX queue_key ON queue(actor, key, id) WHERE key IS NOT NULL AND due IS NULL;
CREATE INDEX queue_free ON queue(queue, priority, id) WHERE ready AND worker IS NULL AND hold = 0;
CREATE INDEX queue_actor ON queue(queue, priority, actor, id) WHERE ready AND worker IS NULL AND hold = 0;
CREATE INDEX queue_held ON queue(id) WHERE worker IS NOT NULL OR hold > 0;
CREATE INDEX queue_due ON queue(due) WHERE due IS NOT NULL;

-- How many claims were handed out: which priority is next.
CREATE TABLE given (
    claims INTEGER NOT NULL
) STRICT;
INSERT INTO given VALUES (0);

-- The workers that attended lately.
CREATE TABLE worker (
    name    TEXT PRIMARY KEY,
    started REAL NOT NULL,
    seen    REAL NOT NULL,                  -- Unix seconds
    asked   INTEGER NOT NULL,               -- to drain
    info    BLOB NOT NULL                   -- WorkerInfo, JSON
) STRICT, WITHOUT ROWID;
"""

# Tables of their own: a row of `run` ends with its input, which each change of it writes anew; and a process that knows
# only format 3 goes on with the others.
_FACTS = """
-- When an owner was last heard of.
CREATE TABLE owner (
    run   INTEGER PRIMARY KEY,
    heard REAL NOT NULL                     -- Unix seconds
) STRICT;

-- How many attempts have failed.
CREATE TABLE failure (
    run   INTEGER PRIMARY KEY,
    count INTEGER NOT NULL
) STRICT;
"""

_RUN_TRIGGER = f"""
CREATE TRIGGER run_gone AFTER DELETE ON run BEGIN
    DELETE FROM fence WHERE run = OLD.id;
    DELETE FROM sent WHERE run = OLD.id;
    DELETE FROM mark WHERE run = OLD.id;
    DELETE FROM owner WHERE run = OLD.id;
    DELETE FROM failure WHERE run = OLD.id;
    INSERT OR REPLACE INTO debris VALUES (2 * OLD.id, {2**63 - 1}), (2 * OLD.id + 1, {2**63 - 1});
    INSERT INTO change(kind, topic) VALUES ({LOOK}, OLD.name), ({LOOK}, OLD.name || '{inbox_of("")}');
END;
"""

_QUEUE_TRIGGERS = f"""
CREATE TRIGGER queue_put AFTER INSERT ON queue BEGIN
    UPDATE queue SET ready = 1 WHERE id = NEW.id AND NEW.due IS NULL AND NOT EXISTS (
        SELECT 1 FROM queue WHERE actor = NEW.actor AND key = NEW.key AND due IS NULL AND id < NEW.id);
    INSERT INTO change(kind, topic) VALUES ({QUEUE}, '');
END;

CREATE TRIGGER queue_gone AFTER DELETE ON queue WHEN OLD.key IS NOT NULL AND OLD.due IS NULL BEGIN
    UPDATE queue SET ready = 1
        WHERE id = (SELECT min(id) FROM queue WHERE actor = OLD.actor AND key = OLD.key AND due IS NULL);
    INSERT INTO change(kind, topic) VALUES ({QUEUE}, '');
END;
"""

SCHEMA = f"""{_RUN}
-- Rows lie in the order of their commits, whatever their log: appends of many runs share pages, and `id` tells what is
-- new. The index finds "after n": the first batch whose last chunk is beyond n.
CREATE TABLE batch (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    log     INTEGER NOT NULL,
    epoch   INTEGER NOT NULL,
    first   INTEGER NOT NULL,
    last    INTEGER NOT NULL,
    upto    INTEGER NOT NULL,               -- payload bytes of the log, this batch included: bounds a page
    payload BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX batch_place ON batch(log, last);

CREATE TABLE fence (
    run   INTEGER NOT NULL,
    token TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    PRIMARY KEY (run, token)
) STRICT, WITHOUT ROWID;

CREATE TABLE sent (
    run    INTEGER NOT NULL,
    sender TEXT NOT NULL,
    id     TEXT NOT NULL,
    seq    INTEGER NOT NULL,
    PRIMARY KEY (run, sender, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE mark (
    run    INTEGER NOT NULL,
    reader TEXT NOT NULL,
    seq    INTEGER NOT NULL,
    beat   INTEGER NOT NULL,
    PRIMARY KEY (run, reader)
) STRICT, WITHOUT ROWID;

{_FACTS}{_QUEUE}
-- What changed besides batches, for who watches in this process and in others. Only the newest rows are kept.
CREATE TABLE change (
    id    INTEGER PRIMARY KEY AUTOINCREMENT,
    kind  INTEGER NOT NULL,
    topic TEXT NOT NULL
) STRICT;

-- Batches of `log` that end before `before` are forgotten already; they are deleted little by little.
CREATE TABLE debris (
    log    INTEGER PRIMARY KEY,
    before INTEGER NOT NULL
) STRICT;

{_RUN_TRIGGER}{_QUEUE_TRIGGERS}"""

# Ids, and how far they were drawn, stay: claims' numbers only grow.
_FROM_2 = f"""
DROP TRIGGER run_gone;
{_FACTS}DROP INDEX run_state;
DROP INDEX run_actor;
DROP INDEX run_ended;
ALTER TABLE run RENAME TO run_2;
{_RUN}
INSERT INTO run(
    id, name, actor, queue, key, state, epoch, epochs, inbox_epoch, first, beat, started, ended, error, meta, input)
SELECT id, name, actor, queue, key, state, epoch, epochs, inbox_epoch, first, beat, started, ended, error, meta, input
FROM run_2;
DELETE FROM sqlite_sequence WHERE name = 'run';
UPDATE sqlite_sequence SET name = 'run' WHERE name = 'run_2';
DROP TABLE run_2;
{_RUN_TRIGGER}
DROP TRIGGER queue_put;
DROP TRIGGER queue_gone;
DROP INDEX queue_key;
DROP INDEX queue_free;
DROP INDEX queue_held;
ALTER TABLE queue RENAME TO queue_2;
{_QUEUE}
INSERT INTO queue(id, run, queue, actor, key, ready, worker, number, beat, hold, crashes, meta, input)
SELECT id, run, queue, actor, key, ready, worker, number, beat, hold, crashes, meta, input FROM queue_2;
DELETE FROM sqlite_sequence WHERE name = 'queue';
UPDATE sqlite_sequence SET name = 'queue' WHERE name = 'queue_2';
DROP TABLE queue_2;
{_QUEUE_TRIGGERS}
PRAGMA user_version = {VERSION};
"""

_FROM_3 = f"""
DROP TRIGGER run_gone;
{_FACTS}{_RUN_TRIGGER}
PRAGMA user_version = {VERSION};
"""

UPGRADES = {2: _FROM_2, 3: _FROM_3}
"""By format, what brings it to this one. Format 2 had no priorities, no delayed starts, no register of workers and no
retention of a run's own; format 3 counted failed attempts by what the log held, and did not know when an owner was last
heard of."""
