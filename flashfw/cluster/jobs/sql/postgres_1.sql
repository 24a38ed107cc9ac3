-- Schema 1 of the PostgreSQL store. A migration is never edited once released: a change is the next file.

-- One row per job; seq is the order of submission. Columns as the fields of model.Job, and two of the store's own:
-- parked (while available_at lies ahead) and forget_at (when the result expires). An input of some size stands apart by
-- itself (TOAST), and is not written again with each transition.
CREATE TABLE jobs (
    seq BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    function TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    input BYTEA NOT NULL,
    submitted_at DOUBLE PRECISION NOT NULL,
    expires_at DOUBLE PRECISION NOT NULL,
    timeout_s DOUBLE PRECISION NOT NULL,
    result_ttl_s DOUBLE PRECISION NOT NULL,
    priority INTEGER NOT NULL,
    state TEXT NOT NULL,
    reason TEXT,
    available_at DOUBLE PRECISION NOT NULL,
    started_at DOUBLE PRECISION,
    finished_at DOUBLE PRECISION,
    attempt INTEGER NOT NULL,
    fence BIGINT NOT NULL,
    deaths INTEGER NOT NULL,
    boot TEXT,
    worker TEXT,
    output BYTEA,
    error BYTEA,
    progress BYTEA,
    idempotency_key TEXT,
    principal TEXT NOT NULL,
    input_digest TEXT NOT NULL,
    webhook TEXT,
    alone BOOLEAN NOT NULL,
    parked BOOLEAN NOT NULL,
    forget_at DOUBLE PRECISION
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05);

-- What a claim reads, in the order of claims.
CREATE INDEX jobs_claimable ON jobs (function, priority DESC, seq) WHERE state = 'IN_QUEUE' AND NOT parked;

-- Who has waited longest, for the autoscaler; jobs of low priority start no worker by themselves.
CREATE INDEX jobs_waiting ON jobs (function, submitted_at) WHERE state = 'IN_QUEUE' AND NOT parked AND priority >= 0;

-- Jobs that wait for a retry, by the time that it is due.
CREATE INDEX jobs_parked ON jobs (available_at) WHERE state = 'IN_QUEUE' AND parked;

-- Queued jobs by the end of their ttl.
CREATE INDEX jobs_expiring ON jobs (expires_at) WHERE state = 'IN_QUEUE';

-- Running jobs by the server that has them.
CREATE INDEX jobs_running ON jobs (boot) WHERE state = 'IN_PROGRESS';

-- Ended jobs by the time that their result expires.
CREATE INDEX jobs_forgettable ON jobs (forget_at) WHERE forget_at IS NOT NULL;

-- Failed after more than one attempt.
CREATE INDEX jobs_dead ON jobs (seq) WHERE state = 'FAILED' AND attempt > 1;

CREATE UNIQUE INDEX jobs_idempotent ON jobs (function, principal, idempotency_key) WHERE idempotency_key IS NOT NULL;

-- Yielded items by claim (fence); total is the bytes of this claim's items up to and with this one.
CREATE TABLE chunks (
    seq BIGINT NOT NULL,
    fence BIGINT NOT NULL,
    attempt INTEGER NOT NULL,
    place INTEGER NOT NULL,
    data BYTEA NOT NULL,
    total BIGINT NOT NULL,
    PRIMARY KEY (seq, fence, place)
);

-- How far the reader of a job's stream has come.
CREATE TABLE readers (seq BIGINT PRIMARY KEY, fence BIGINT NOT NULL, place INTEGER NOT NULL);

-- The servers on this schema; commits is the number of its latest transaction, so that one whose answer was lost can
-- be asked for.
CREATE TABLE servers (boot TEXT PRIMARY KEY, commits BIGINT NOT NULL) WITH (fillfactor = 20);

-- Jobs per function and name, as changes: each server adds to rows of its own, so that none waits for another's
-- transaction; the sum over the servers is the count. Rows of servers that are gone pass to whoever recovers them.
CREATE TABLE tallies (
    boot TEXT NOT NULL,
    function TEXT NOT NULL,
    name TEXT NOT NULL,
    jobs BIGINT NOT NULL,
    PRIMARY KEY (boot, function, name)
) WITH (fillfactor = 20);

-- Terminal records that a webhook has yet to be told. due_at moves on while one is being tried, and is NULL once it
-- is given up.
CREATE TABLE deliveries (
    id TEXT PRIMARY KEY,
    seq BIGINT NOT NULL,
    tries INTEGER NOT NULL,
    created_at DOUBLE PRECISION NOT NULL,
    due_at DOUBLE PRECISION,
    error TEXT
);
CREATE INDEX deliveries_due ON deliveries (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX deliveries_of_job ON deliveries (seq);

-- What a job asked for anew had ended with, while that is still to be delivered. Columns as in jobs.
CREATE TABLE superseded (
    delivery TEXT PRIMARY KEY,
    state TEXT NOT NULL,
    reason TEXT,
    expires_at DOUBLE PRECISION NOT NULL,
    available_at DOUBLE PRECISION NOT NULL,
    started_at DOUBLE PRECISION,
    finished_at DOUBLE PRECISION,
    attempt INTEGER NOT NULL,
    fence BIGINT NOT NULL,
    deaths INTEGER NOT NULL,
    boot TEXT,
    worker TEXT,
    output BYTEA,
    error BYTEA,
    progress BYTEA,
    alone BOOLEAN NOT NULL
);

-- What happened, to jobs and to endpoints.
CREATE TABLE journal (
    seq BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at DOUBLE PRECISION NOT NULL,
    endpoint TEXT,
    name TEXT NOT NULL,
    fields TEXT NOT NULL,
    job TEXT,
    worker TEXT
);
CREATE INDEX journal_of_job ON journal (job, seq) WHERE job IS NOT NULL;
CREATE INDEX journal_of_endpoint ON journal (endpoint, at) WHERE job IS NULL;
CREATE INDEX journal_by_age ON journal (at);

-- How far each schedule has come.
CREATE TABLE ticks (key TEXT PRIMARY KEY, at DOUBLE PRECISION NOT NULL, job TEXT);
