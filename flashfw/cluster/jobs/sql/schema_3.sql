-- Schema 3: where the files of a job are that came with it.
ALTER TABLE jobs ADD COLUMN home TEXT;
