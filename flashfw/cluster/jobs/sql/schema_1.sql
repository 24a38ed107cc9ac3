-- Schema 1. A migration is never edited once released: a change is the next file.

-- One row per job; seq is the order of submission. Columns as the fields of model.Job, and two of the store's own:
-- parked (1 while available_at lies ahead, so that claims never walk over jobs that wait for a retry) and
-- forget_at (when the result expires).
CREATE TABLE jobs (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    function TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    submitted_at REAL NOT NULL,
    expires_at REAL NOT NULL,
    timeout_s REAL NOT NULL,
    result_ttl_s REAL NOT NULL,
    priority INTEGER NOT NULL,
    state TEXT NOT NULL,
    reason TEXT,
    available_at REAL NOT NULL,
    started_at REAL,
    finished_at REAL,
    attempt INTEGER NOT NULL,
    fence INTEGER NOT NULL,
    deaths INTEGER NOT NULL,
    boot TEXT,
    worker TEXT,
    output BLOB,
    error BLOB,
    progress BLOB,
    idempotency_key TEXT,
    principal TEXT NOT NULL,
    input_digest TEXT NOT NULL,
    webhook TEXT,
    parked INTEGER NOT NULL,
    forget_at REAL
);

-- Inputs stand apart: SQLite writes a whole row for each transition, and an input may have megabytes.
CREATE TABLE inputs (seq INTEGER PRIMARY KEY, input BLOB NOT NULL);

-- What a claim reads, in the order of claims.
CREATE INDEX jobs_claimable ON jobs (function, priority DESC, seq) WHERE state = 'IN_QUEUE' AND parked = 0;

-- Who has waited longest, for the autoscaler.
CREATE INDEX jobs_waiting ON jobs (function, submitted_at) WHERE state = 'IN_QUEUE' AND parked = 0;

-- Jobs that wait for a retry, by the time that it is due.
CREATE INDEX jobs_parked ON jobs (available_at) WHERE state = 'IN_QUEUE' AND parked = 1;

-- Queued jobs by the end of their ttl.
CREATE INDEX jobs_expiring ON jobs (expires_at) WHERE state = 'IN_QUEUE';

-- Running jobs, so that a start finds those of a dead server without reading all others.
CREATE INDEX jobs_running ON jobs (boot) WHERE state = 'IN_PROGRESS';

-- Ended jobs by the time that their result expires.
CREATE INDEX jobs_forgettable ON jobs (forget_at) WHERE forget_at IS NOT NULL;

CREATE UNIQUE INDEX jobs_idempotent ON jobs (function, principal, idempotency_key) WHERE idempotency_key IS NOT NULL;

-- Yielded items by claim (fence): a claim given back repeats its attempt's number, so attempt alone is ambiguous.
-- total is the bytes of this claim's items up to and with this one, which makes the limit one look at the last row.
CREATE TABLE chunks (
    seq INTEGER NOT NULL,
    fence INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    place INTEGER NOT NULL,
    data BLOB NOT NULL,
    total INTEGER NOT NULL
);
CREATE UNIQUE INDEX chunks_in_order ON chunks (seq, fence, place);

-- Jobs per function and name, written with the transaction that changes them, so that a start counts nothing.
CREATE TABLE tallies (
    function TEXT NOT NULL,
    name TEXT NOT NULL,
    jobs INTEGER NOT NULL,
    PRIMARY KEY (function, name)
) WITHOUT ROWID;
