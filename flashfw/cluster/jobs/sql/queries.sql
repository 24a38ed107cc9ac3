-- Every statement of the SQLite store. A line of two dashes and `name:` begins one; {job} stands for the columns
-- of a job, its seq and whether it is parked, {record} for the same without its input, {columns} and {values} for
-- those that an insert writes, {changes} for those that a transition may change, {changing} for those of them that
-- are a job's.

-- name: insert_job
INSERT INTO jobs ({columns}) VALUES ({values})

-- name: insert_input
INSERT INTO inputs (seq, input) VALUES (?, ?)

-- name: update_job
UPDATE jobs SET {changes} WHERE seq = ?

-- name: end_job
-- The same of a job that ran, in half the time: nothing else of it changes.
UPDATE jobs SET state = ?, reason = ?, output = ?, error = ?, finished_at = ?, forget_at = ?, progress = NULL, alone = 0
WHERE seq = ?

-- name: find_job
-- A job whose result has expired is gone, swept or not.
SELECT {job} FROM jobs JOIN inputs USING (seq) WHERE id = ? AND (forget_at IS NULL OR forget_at > ?)

-- name: peek_job
SELECT {record} FROM jobs WHERE id = ? AND (forget_at IS NULL OR forget_at > ?)

-- name: load_job
SELECT {job} FROM jobs JOIN inputs USING (seq) WHERE seq = ?

-- name: find_idempotent
SELECT seq, forget_at, input_digest FROM jobs WHERE function = ? AND principal = ? AND idempotency_key = ?

-- name: free_key
UPDATE jobs SET idempotency_key = NULL WHERE seq = ?

-- name: due
-- Jobs whose wait for a retry is over, as `unpark` finds them: per function all of them, the low ones, the alone ones.
SELECT function, COUNT(*), SUM(priority < 0), SUM(alone) FROM jobs
WHERE state = 'IN_QUEUE' AND parked = 1 AND available_at <= ? GROUP BY function

-- name: next_due
SELECT MIN(available_at) FROM jobs WHERE state = 'IN_QUEUE' AND parked = 1

-- name: unpark
-- They join the others.
UPDATE jobs SET parked = 0 WHERE state = 'IN_QUEUE' AND parked = 1 AND available_at <= ?

-- name: set_back_jobs
UPDATE jobs SET available_at = MAX(0.0, available_at - ?) WHERE state = 'IN_QUEUE' AND available_at > ?

-- name: set_back_deliveries
UPDATE deliveries SET due_at = due_at - ? WHERE due_at > ?

-- name: next_claimable
-- Expired jobs stand here until the next sweep, and some that are not due again since the clock went back a little:
-- passed over, so that they keep nobody from the jobs behind them.
SELECT -priority, seq FROM jobs
WHERE function = ? AND state = 'IN_QUEUE' AND parked = 0 AND expires_at > ? AND available_at <= ?
ORDER BY priority DESC, seq LIMIT ?

-- name: next_beside
-- The same for a worker that has other calls.
SELECT -priority, seq FROM jobs
WHERE function = ? AND state = 'IN_QUEUE' AND parked = 0 AND expires_at > ? AND available_at <= ? AND alone = 0
ORDER BY priority DESC, seq LIMIT ?

-- name: oldest_waiting
-- By name, since SQLite would rather search jobs_claimable by priority and sort.
SELECT submitted_at FROM jobs INDEXED BY jobs_waiting
WHERE function = ? AND state = 'IN_QUEUE' AND parked = 0 AND priority >= 0 AND expires_at > ?
ORDER BY submitted_at LIMIT 1

-- name: orphans
SELECT {job} FROM jobs JOIN inputs USING (seq) WHERE state = 'IN_PROGRESS' AND boot <> ?

-- name: expiring
SELECT {job} FROM jobs JOIN inputs USING (seq) WHERE state = 'IN_QUEUE' AND expires_at <= ? ORDER BY expires_at LIMIT ?

-- name: last_seq
SELECT COALESCE(MAX(seq), 0) FROM jobs

-- name: queued
-- For purges: those up to a seq, parked or not, so that a purge ends though jobs keep coming.
SELECT {job} FROM (
    SELECT seq FROM jobs WHERE function = ? AND state = 'IN_QUEUE' AND parked = 0
    UNION ALL
    SELECT seq FROM jobs WHERE function = ? AND state = 'IN_QUEUE' AND parked = 1
) AS picked JOIN jobs USING (seq) JOIN inputs USING (seq) WHERE seq <= ? LIMIT ?

-- name: forgettable
SELECT seq, function, state, webhook FROM jobs WHERE forget_at <= ? AND (webhook IS NULL OR NOT EXISTS (
    SELECT 1 FROM deliveries WHERE deliveries.seq = jobs.seq AND due_at IS NOT NULL
)) LIMIT ?

-- name: delete_job
DELETE FROM jobs WHERE seq = ?

-- name: delete_input
DELETE FROM inputs WHERE seq = ?

-- name: delete_chunks
DELETE FROM chunks WHERE seq = ?

-- name: delete_reader
DELETE FROM readers WHERE seq = ?

-- name: seq_of
SELECT seq FROM jobs WHERE id = ?

-- name: list_jobs
SELECT {line} FROM jobs
WHERE jobs.seq < ? AND (forget_at IS NULL OR forget_at > ?) AND IFNULL(function = ?, 1) AND IFNULL(state = ?, 1)
ORDER BY jobs.seq DESC LIMIT ?

-- name: find_ids
-- By the index of ids alone, so that the jobs themselves need not be read.
SELECT id FROM jobs WHERE instr(id, ?) > 0 ORDER BY id DESC LIMIT ?

-- name: list_dead
SELECT {line} FROM jobs INDEXED BY jobs_dead
WHERE jobs.seq < ? AND (forget_at IS NULL OR forget_at > ?) AND IFNULL(function = ?, 1) AND IFNULL(state = ?, 1)
    AND state = 'FAILED' AND attempt > 1
ORDER BY jobs.seq DESC LIMIT ?

-- name: set_progress
UPDATE jobs SET progress = ? WHERE seq = ?

-- name: last_chunk
SELECT place, total FROM chunks WHERE seq = ? AND fence = ? ORDER BY place DESC LIMIT 1

-- name: delete_older_chunks
DELETE FROM chunks WHERE seq = ? AND fence < ?

-- name: insert_chunk
INSERT INTO chunks (seq, fence, attempt, place, data, total) VALUES (?, ?, ?, ?, ?, ?)

-- name: chunks
SELECT chunks.attempt, place, data FROM jobs JOIN chunks USING (seq, fence)
WHERE id = ? AND place > ? AND (forget_at IS NULL OR forget_at > ?) ORDER BY place

-- name: load_tallies
SELECT function, name, jobs FROM tallies

-- name: save_tally
INSERT INTO tallies (function, name, jobs) VALUES (?, ?, ?)
ON CONFLICT (function, name) DO UPDATE SET jobs = excluded.jobs

-- name: insert_delivery
INSERT INTO deliveries (id, seq, tries, created_at, due_at) VALUES (?, ?, 0, ?, ?)

-- name: due_deliveries
SELECT id, seq, tries, created_at FROM deliveries WHERE due_at <= ? ORDER BY due_at LIMIT ?

-- name: lease_delivery
UPDATE deliveries SET due_at = ? WHERE id = ?

-- name: delete_delivery
DELETE FROM deliveries WHERE id = ?

-- name: undelivered
UPDATE deliveries SET tries = tries + 1, error = ?, due_at = ? WHERE id = ?

-- name: supersede
-- The job is about to leave the terminal record that these deliveries are of.
INSERT INTO superseded ({changing}, delivery) SELECT {changing_of_jobs}, deliveries.id
FROM jobs JOIN deliveries USING (seq)
WHERE seq = ? AND due_at IS NOT NULL AND deliveries.id NOT IN (SELECT delivery FROM superseded)

-- name: superseded
SELECT {changing} FROM superseded WHERE delivery = ?

-- name: delete_superseded
DELETE FROM superseded WHERE delivery = ?

-- name: delete_superseded_of_job
DELETE FROM superseded WHERE delivery IN (SELECT id FROM deliveries WHERE seq = ?)

-- name: delete_deliveries_of_job
DELETE FROM deliveries WHERE seq = ?

-- name: insert_entry
INSERT INTO journal (at, endpoint, name, fields, job, worker) VALUES (?, ?, ?, ?, ?, ?)

-- name: story
SELECT at, endpoint, name, fields, job, worker FROM journal WHERE job = ? ORDER BY seq

-- name: happened
SELECT at, endpoint, name, fields, job, worker FROM journal
WHERE job IS NULL AND endpoint = ? AND at BETWEEN ? AND ? ORDER BY at, seq LIMIT ?

-- name: cut_journal
-- Of its first entries those that are too old or too many: after a number of entries and before a time.
DELETE FROM journal WHERE seq IN (SELECT seq FROM journal ORDER BY seq LIMIT ?)
    AND (at < ? OR seq <= (SELECT MAX(seq) FROM journal) - ?)

-- name: last_tick
SELECT at, job FROM ticks WHERE key = ?

-- name: set_tick
INSERT INTO ticks (key, at, job) VALUES (?, ?, ?)
ON CONFLICT (key) DO UPDATE SET at = excluded.at, job = excluded.job

-- name: read_position
SELECT readers.fence, place FROM jobs JOIN readers USING (seq) WHERE id = ?

-- name: set_read_position
INSERT INTO readers (seq, fence, place) SELECT seq, ?, ? FROM jobs WHERE id = ?
ON CONFLICT (seq) DO UPDATE SET fence = excluded.fence, place = excluded.place
WHERE (excluded.fence, excluded.place) > (readers.fence, readers.place)
