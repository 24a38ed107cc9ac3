-- Every statement of the SQLite store. A line of two dashes and `name:` begins one; {job} stands for the columns
-- of a job and its seq, {columns} and {values} for those that an insert writes, {changes} for those that a
-- transition may change.

-- name: insert_job
INSERT INTO jobs ({columns}) VALUES ({values})

-- name: insert_input
INSERT INTO inputs (seq, input) VALUES (?, ?)

-- name: update_job
UPDATE jobs SET {changes} WHERE seq = ?

-- name: find_job
-- A job whose result has expired is gone, swept or not.
SELECT {job} FROM jobs JOIN inputs USING (seq) WHERE id = ? AND (forget_at IS NULL OR forget_at > ?)

-- name: load_job
SELECT {job} FROM jobs JOIN inputs USING (seq) WHERE seq = ?

-- name: find_idempotent
SELECT seq, forget_at, input_digest FROM jobs WHERE function = ? AND principal = ? AND idempotency_key = ?

-- name: unpark
-- Jobs whose wait for a retry is over join the others.
UPDATE jobs SET parked = 0 WHERE state = 'IN_QUEUE' AND parked = 1 AND available_at <= ?

-- name: next_claimable
-- Expired jobs stand here until the next sweep: passed over, not claimed.
SELECT -priority, seq FROM jobs
WHERE function = ? AND state = 'IN_QUEUE' AND parked = 0 AND expires_at > ?
ORDER BY priority DESC, seq LIMIT ?

-- name: oldest_waiting
SELECT submitted_at FROM jobs
WHERE function = ? AND state = 'IN_QUEUE' AND parked = 0 AND expires_at > ?
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
SELECT seq, function, state FROM jobs WHERE forget_at <= ? LIMIT ?

-- name: delete_job
DELETE FROM jobs WHERE seq = ?

-- name: delete_input
DELETE FROM inputs WHERE seq = ?

-- name: delete_chunks
DELETE FROM chunks WHERE seq = ?

-- name: list_jobs
SELECT {job} FROM jobs JOIN inputs USING (seq)
WHERE (forget_at IS NULL OR forget_at > ?) AND IFNULL(function = ?, 1) AND IFNULL(state = ?, 1)
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
