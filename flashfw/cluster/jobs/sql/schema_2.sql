-- Schema 2: jobs that must be alone, dead letters, the outbox, the journal, schedules, readers of streams.

ALTER TABLE jobs ADD COLUMN alone INTEGER NOT NULL DEFAULT 0;

-- The queue's counts are kept with it: claimable jobs are the queued ones without the parked.
INSERT INTO tallies (function, name, jobs)
SELECT function, 'parked', COUNT(*) FROM jobs WHERE state = 'IN_QUEUE' AND parked = 1 GROUP BY function;
INSERT INTO tallies (function, name, jobs)
SELECT function, 'low', COUNT(*) FROM jobs WHERE state = 'IN_QUEUE' AND parked = 0 AND priority < 0 GROUP BY function;

-- Jobs of low priority start no worker by themselves.
DROP INDEX jobs_waiting;
CREATE INDEX jobs_waiting ON jobs (function, submitted_at) WHERE state = 'IN_QUEUE' AND parked = 0 AND priority >= 0;

-- Failed after more than one attempt.
CREATE INDEX jobs_dead ON jobs (seq) WHERE state = 'FAILED' AND attempt > 1;

-- Terminal records that a webhook has yet to be told. due_at moves on while one is being tried, and is NULL once it
-- is given up.
CREATE TABLE deliveries (
    id TEXT PRIMARY KEY,
    seq INTEGER NOT NULL,
    tries INTEGER NOT NULL,
    created_at REAL NOT NULL,
    due_at REAL,
    error TEXT
);
CREATE INDEX deliveries_due ON deliveries (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX deliveries_of_job ON deliveries (seq);

-- What a job asked for anew had ended with, while that is still to be delivered. Columns as in jobs.
CREATE TABLE superseded (
    delivery TEXT PRIMARY KEY,
    state TEXT NOT NULL,
    reason TEXT,
    expires_at REAL NOT NULL,
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
    alone INTEGER NOT NULL
);

-- What happened, to jobs and to endpoints; cut from its beginning, so that seq has no gaps.
CREATE TABLE journal (
    seq INTEGER PRIMARY KEY,
    at REAL NOT NULL,
    endpoint TEXT,
    name TEXT NOT NULL,
    fields TEXT NOT NULL,
    job TEXT,
    worker TEXT
);
CREATE INDEX journal_of_job ON journal (job) WHERE job IS NOT NULL;
CREATE INDEX journal_of_endpoint ON journal (endpoint, at) WHERE job IS NULL;

-- How far each schedule has come.
CREATE TABLE ticks (key TEXT PRIMARY KEY, at REAL NOT NULL, job TEXT);

-- How far the reader of a job's stream has come. Apart from its row, which may hold megabytes.
CREATE TABLE readers (seq INTEGER PRIMARY KEY, fence INTEGER NOT NULL, place INTEGER NOT NULL);
