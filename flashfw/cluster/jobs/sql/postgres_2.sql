-- Schema 2: what each server serves, so that nobody ends the queued jobs of a function that another one has. NULL where
-- that is not known: its files do not parse, it has just begun, or it is of an earlier flashfw.
ALTER TABLE servers ADD COLUMN functions TEXT[];

-- Where the files of a job are that came with it: only servers with that folder take it.
ALTER TABLE jobs ADD COLUMN home TEXT;
