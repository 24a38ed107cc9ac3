-- Every statement of the PostgreSQL store, by the names and with the parameters of queries.sql where the ledger shares
-- them; the places in braces are explained there. Whoever looks for rows to change locks them and passes over those
-- that another server has locked, so that servers neither wait for each other nor take the same job.

-- name: insert_job
INSERT INTO jobs ({columns}, input) VALUES ({values}, %s) ON CONFLICT DO NOTHING RETURNING seq

-- name: update_job
UPDATE jobs SET {changes} WHERE seq = %s AND fence = %s AND state = %s

-- name: find_job
-- A job whose result has expired is gone, swept or not.
SELECT {job} FROM jobs WHERE id = %s AND (forget_at IS NULL OR forget_at > %s) FOR UPDATE

-- name: get_job
SELECT {job} FROM jobs WHERE id = %s AND (forget_at IS NULL OR forget_at > %s)

-- name: peek_job
SELECT {record} FROM jobs WHERE id = %s AND (forget_at IS NULL OR forget_at > %s)

-- name: load_job
SELECT {job} FROM jobs WHERE seq = %s

-- name: hold_job
SELECT TRUE FROM jobs WHERE seq = %s AND fence = %s AND state = 'IN_PROGRESS' FOR UPDATE

-- name: find_idempotent
SELECT seq, forget_at, input_digest FROM jobs WHERE function = %s AND principal = %s AND idempotency_key = %s

-- name: free_key
UPDATE jobs SET idempotency_key = NULL WHERE seq = %s

-- name: unpark
WITH due AS (
    SELECT seq FROM jobs WHERE state = 'IN_QUEUE' AND parked AND available_at <= %s FOR UPDATE SKIP LOCKED
), joined AS (
    UPDATE jobs SET parked = FALSE FROM due WHERE jobs.seq = due.seq RETURNING jobs.function, jobs.priority, jobs.alone
)
SELECT function, COUNT(*), COUNT(*) FILTER (WHERE priority < 0), COUNT(*) FILTER (WHERE alone)
FROM joined GROUP BY function

-- name: next_due
SELECT MIN(available_at) FROM jobs WHERE state = 'IN_QUEUE' AND parked

-- name: set_back_jobs
UPDATE jobs SET available_at = GREATEST(0, available_at - %s) WHERE state = 'IN_QUEUE' AND available_at > %s

-- name: set_back_deliveries
UPDATE deliveries SET due_at = due_at - %s WHERE due_at > %s

-- name: next_claimable
-- Expired jobs stand here until the next sweep: passed over, not claimed.
SELECT {job} FROM jobs
WHERE function = %s AND state = 'IN_QUEUE' AND NOT parked AND expires_at > %s AND available_at <= %s AND (home IS NULL OR home = %s)
ORDER BY priority DESC, seq LIMIT %s FOR UPDATE SKIP LOCKED

-- name: next_beside
-- The same for a worker that has other calls.
SELECT {job} FROM jobs
WHERE function = %s AND state = 'IN_QUEUE' AND NOT parked AND expires_at > %s AND available_at <= %s
    AND (home IS NULL OR home = %s) AND NOT alone
ORDER BY priority DESC, seq LIMIT %s FOR UPDATE SKIP LOCKED

-- name: oldest_waiting
SELECT submitted_at FROM jobs
WHERE function = %s AND state = 'IN_QUEUE' AND NOT parked AND priority >= 0 AND expires_at > %s
ORDER BY submitted_at LIMIT 1

-- name: absent
-- Servers that this schema knows of, and whose locks nobody holds: they are gone, or have lost their connection.
SELECT boot FROM (
    SELECT boot FROM servers UNION SELECT boot FROM jobs WHERE state = 'IN_PROGRESS'
) AS known
WHERE boot <> %s AND NOT EXISTS (
    SELECT 1 FROM pg_locks
    WHERE locktype = 'advisory' AND granted AND objsubid = 2
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND classid::BIGINT = hashtext(%s)::BIGINT & 4294967295
        AND objid::BIGINT = hashtext(boot)::BIGINT & 4294967295
)

-- name: is_gone
-- As long as this transaction lasts the server cannot come back.
SELECT pg_try_advisory_xact_lock(hashtext(%s), hashtext(%s))

-- name: orphans_of
SELECT {job} FROM jobs WHERE state = 'IN_PROGRESS' AND boot = %s FOR UPDATE

-- name: inherit_tallies
DELETE FROM tallies WHERE boot = %s RETURNING function, name, jobs

-- name: served
-- A server that is gone stays here until its jobs are taken over.
SELECT boot, functions FROM servers

-- name: serve
INSERT INTO servers (boot, commits, functions) VALUES (%s, 0, %s)
ON CONFLICT (boot) DO UPDATE SET functions = excluded.functions

-- name: delete_server
DELETE FROM servers WHERE boot = %s

-- name: expiring
SELECT {job} FROM jobs WHERE state = 'IN_QUEUE' AND expires_at <= %s ORDER BY expires_at LIMIT %s FOR UPDATE SKIP LOCKED

-- name: last_seq
SELECT COALESCE(MAX(seq), 0) FROM jobs

-- name: queued
-- For purges: those up to a seq, parked or not, so that a purge ends though jobs keep coming.
SELECT {job} FROM jobs WHERE state = 'IN_QUEUE' AND seq IN (
    (SELECT seq FROM jobs WHERE function = %s AND state = 'IN_QUEUE' AND NOT parked AND seq <= %s LIMIT %s)
    UNION ALL
    (SELECT seq FROM jobs WHERE function = %s AND state = 'IN_QUEUE' AND parked AND seq <= %s LIMIT %s)
) LIMIT %s FOR UPDATE SKIP LOCKED

-- name: forgettable
SELECT seq, function, state FROM jobs WHERE forget_at <= %s AND (webhook IS NULL OR NOT EXISTS (
    SELECT 1 FROM deliveries WHERE deliveries.seq = jobs.seq AND due_at IS NOT NULL
)) LIMIT %s FOR UPDATE SKIP LOCKED

-- name: delete_superseded_of_jobs
DELETE FROM superseded WHERE delivery IN (SELECT id FROM deliveries WHERE seq = ANY(%s))

-- name: delete_deliveries_of_jobs
DELETE FROM deliveries WHERE seq = ANY(%s)

-- name: delete_readers
DELETE FROM readers WHERE seq = ANY(%s)

-- name: delete_chunks
DELETE FROM chunks WHERE seq = ANY(%s)

-- name: delete_jobs
DELETE FROM jobs WHERE seq = ANY(%s)

-- name: withdraw
-- A job that nobody was told of: it was not accepted.
DELETE FROM jobs WHERE id = %s AND state = 'IN_QUEUE' AND idempotency_key IS NULL
RETURNING function, priority, alone, parked

-- name: seq_of
SELECT seq FROM jobs WHERE id = %s

-- name: list_jobs
SELECT {line} FROM jobs
WHERE jobs.seq < %s AND (forget_at IS NULL OR forget_at > %s)
    AND COALESCE(function = %s, TRUE) AND COALESCE(state = %s, TRUE)
ORDER BY jobs.seq DESC LIMIT %s

-- name: list_dead
SELECT {line} FROM jobs
WHERE jobs.seq < %s AND (forget_at IS NULL OR forget_at > %s)
    AND COALESCE(function = %s, TRUE) AND COALESCE(state = %s, TRUE) AND state = 'FAILED' AND attempt > 1
ORDER BY jobs.seq DESC LIMIT %s

-- name: find_ids
SELECT id FROM jobs WHERE strpos(id, %s) > 0 ORDER BY id DESC LIMIT %s

-- name: set_progress
UPDATE jobs SET progress = %s WHERE seq = %s

-- name: last_chunk
SELECT place, total FROM chunks WHERE seq = %s AND fence = %s ORDER BY place DESC LIMIT 1

-- name: delete_older_chunks
DELETE FROM chunks WHERE seq = %s AND fence < %s

-- name: insert_chunk
INSERT INTO chunks (seq, fence, attempt, place, data, total) VALUES (%s, %s, %s, %s, %s, %s)

-- name: chunks
SELECT chunks.attempt, place, data FROM jobs JOIN chunks USING (seq, fence)
WHERE id = %s AND place > %s AND (forget_at IS NULL OR forget_at > %s) ORDER BY place

-- name: load_tallies
SELECT function, name, SUM(jobs)::BIGINT FROM tallies GROUP BY function, name

-- name: save_tallies
-- With it the number of the transaction.
WITH numbered AS (
    INSERT INTO servers (boot, commits) VALUES (%s, %s)
    ON CONFLICT (boot) DO UPDATE SET commits = excluded.commits
)
INSERT INTO tallies (boot, function, name, jobs)
SELECT %s, function, name, jobs FROM unnest(%s::TEXT[], %s::TEXT[], %s::BIGINT[]) AS changed (function, name, jobs)
ON CONFLICT (boot, function, name) DO UPDATE SET jobs = tallies.jobs + excluded.jobs

-- name: last_commit
-- Waits for a transaction that is under way on a connection that was lost.
SELECT commits FROM servers WHERE boot = %s FOR UPDATE

-- name: end_session
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = %s AND application_name = %s

-- name: notify
SELECT pg_notify(%s, %s)

-- name: insert_delivery
INSERT INTO deliveries (id, seq, tries, created_at, due_at) VALUES (%s, %s, 0, %s, %s)

-- name: due_deliveries
SELECT id, seq, tries, created_at FROM deliveries WHERE due_at <= %s ORDER BY due_at LIMIT %s FOR UPDATE SKIP LOCKED

-- name: lease_delivery
UPDATE deliveries SET due_at = %s WHERE id = %s

-- name: delete_delivery
DELETE FROM deliveries WHERE id = %s

-- name: undelivered
UPDATE deliveries SET tries = tries + 1, error = %s, due_at = %s WHERE id = %s

-- name: supersede
-- The job is about to leave the terminal record that these deliveries are of.
INSERT INTO superseded ({changing}, delivery) SELECT {changing_of_jobs}, deliveries.id
FROM jobs JOIN deliveries USING (seq) WHERE seq = %s AND due_at IS NOT NULL
ON CONFLICT (delivery) DO NOTHING

-- name: superseded
SELECT {changing} FROM superseded WHERE delivery = %s

-- name: delete_superseded
DELETE FROM superseded WHERE delivery = %s

-- name: insert_entry
INSERT INTO journal (at, endpoint, name, fields, job, worker) VALUES (%s, %s, %s, %s, %s, %s)

-- name: story
SELECT at, endpoint, name, fields, job, worker FROM journal WHERE job = %s ORDER BY seq

-- name: happened
SELECT at, endpoint, name, fields, job, worker FROM journal
WHERE job IS NULL AND endpoint = %s AND at BETWEEN %s AND %s ORDER BY at, seq LIMIT %s

-- name: cut_journal
-- Of its first entries those that are too old or too many: after a number of entries and before a time.
DELETE FROM journal WHERE seq IN (SELECT seq FROM journal ORDER BY seq LIMIT %s FOR UPDATE SKIP LOCKED)
    AND (at < %s OR seq <= (SELECT MAX(seq) FROM journal) - %s)

-- name: last_tick
SELECT at, job FROM ticks WHERE key = %s

-- name: set_tick
INSERT INTO ticks (key, at, job) VALUES (%s, %s, %s)
ON CONFLICT (key) DO UPDATE SET at = excluded.at, job = excluded.job

-- name: read_position
SELECT readers.fence, place FROM jobs JOIN readers USING (seq) WHERE id = %s

-- name: set_read_position
INSERT INTO readers (seq, fence, place) SELECT seq, %s, %s FROM jobs WHERE id = %s
ON CONFLICT (seq) DO UPDATE SET fence = excluded.fence, place = excluded.place
WHERE (excluded.fence, excluded.place) > (readers.fence, readers.place)
