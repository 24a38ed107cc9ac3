-- A store of schema 1 as `sqlite3 jobs.sqlite .dump` has it, with jobs in every state: what migrations must keep.
BEGIN TRANSACTION;
CREATE TABLE chunks (
    seq INTEGER NOT NULL,
    fence INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    place INTEGER NOT NULL,
    data BLOB NOT NULL,
    total INTEGER NOT NULL
);
INSERT INTO "chunks" VALUES(6,1,1,0,X'226122',3);
INSERT INTO "chunks" VALUES(6,1,1,1,X'226222',6);
CREATE TABLE inputs (seq INTEGER PRIMARY KEY, input BLOB NOT NULL);
INSERT INTO "inputs" VALUES(1,X'7B2270726F6D7074223A226120636174227D');
INSERT INTO "inputs" VALUES(2,X'7B2270726F6D7074223A226120636174227D');
INSERT INTO "inputs" VALUES(3,X'7B2270726F6D7074223A226120636174227D');
INSERT INTO "inputs" VALUES(4,X'7B2270726F6D7074223A226120636174227D');
INSERT INTO "inputs" VALUES(5,X'7B2270726F6D7074223A226120636174227D');
INSERT INTO "inputs" VALUES(6,X'7B2270726F6D7074223A226120636174227D');
INSERT INTO "inputs" VALUES(7,X'7B2270726F6D7074223A226120636174227D');
INSERT INTO "inputs" VALUES(8,X'7B2270726F6D7074223A226120636174227D');
INSERT INTO "inputs" VALUES(9,X'7B2270726F6D7074223A226120636174227D');
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
INSERT INTO "jobs" VALUES(1,'queued','gpu','gpu',1000000.0,1000100.0,10.0,50.0,0,'IN_QUEUE',NULL,0.0,NULL,NULL,0,0,0,NULL,NULL,NULL,NULL,NULL,NULL,'','',NULL,0,NULL);
INSERT INTO "jobs" VALUES(2,'low','gpu','gpu',1000000.0,1000100.0,10.0,50.0,-1,'IN_QUEUE',NULL,0.0,NULL,NULL,0,0,0,NULL,NULL,NULL,NULL,NULL,NULL,'','',NULL,0,NULL);
INSERT INTO "jobs" VALUES(3,'parked','gpu','gpu',1000000.0,1000100.0,10.0,50.0,0,'IN_QUEUE',NULL,1000020.0,NULL,NULL,0,0,0,NULL,NULL,NULL,NULL,NULL,NULL,'','',NULL,1,NULL);
INSERT INTO "jobs" VALUES(4,'parked-low','gpu/upscale','gpu',1000000.0,1000100.0,10.0,50.0,-1,'IN_QUEUE',NULL,1000040.0,NULL,NULL,0,0,0,NULL,NULL,NULL,NULL,NULL,NULL,'','',NULL,1,NULL);
INSERT INTO "jobs" VALUES(5,'running','gpu','gpu',1000000.0,1000100.0,10.0,50.0,0,'IN_PROGRESS',NULL,0.0,1000000.0,NULL,1,1,0,'boot-1','worker-1',NULL,NULL,NULL,NULL,'','',NULL,0,NULL);
INSERT INTO "jobs" VALUES(6,'completed','gpu','gpu',1000000.0,1000100.0,10.0,50.0,0,'COMPLETED',NULL,0.0,1000000.0,1000000.0,1,1,0,'boot-1','worker-1',X'7B2273756D223A337D',NULL,NULL,'k','','d','https://example.com/hook',0,1000050.0);
INSERT INTO "jobs" VALUES(7,'failed','gpu','gpu',1000000.0,1000100.0,10.0,50.0,0,'FAILED','handler_error',0.0,1000000.0,1000000.0,1,1,0,'boot-1','worker-1',NULL,X'7B2274797065223A2256616C75654572726F72227D',NULL,NULL,'','',NULL,0,1000050.0);
INSERT INTO "jobs" VALUES(8,'quarantined','other','other',1000000.0,1000100.0,10.0,50.0,0,'FAILED','worker_lost',0.0,1000000.0,1000000.0,3,3,3,'boot-1','worker-1',NULL,X'22676F6E6522',NULL,NULL,'','',NULL,0,1000050.0);
INSERT INTO "jobs" VALUES(9,'cancelled','gpu','gpu',1000000.0,1000100.0,10.0,50.0,0,'CANCELLED','cancelled',0.0,NULL,1000000.0,0,0,0,NULL,NULL,NULL,NULL,NULL,NULL,'','',NULL,0,1000050.0);
CREATE TABLE tallies (
    function TEXT NOT NULL,
    name TEXT NOT NULL,
    jobs INTEGER NOT NULL,
    PRIMARY KEY (function, name)
) WITHOUT ROWID;
INSERT INTO "tallies" VALUES('gpu','CANCELLED',1);
INSERT INTO "tallies" VALUES('gpu','COMPLETED',1);
INSERT INTO "tallies" VALUES('gpu','FAILED',1);
INSERT INTO "tallies" VALUES('gpu','IN_PROGRESS',1);
INSERT INTO "tallies" VALUES('gpu','IN_QUEUE',3);
INSERT INTO "tallies" VALUES('gpu','ever_completed',1);
INSERT INTO "tallies" VALUES('gpu','ever_failed',1);
INSERT INTO "tallies" VALUES('gpu/upscale','IN_QUEUE',1);
INSERT INTO "tallies" VALUES('other','FAILED',1);
INSERT INTO "tallies" VALUES('other','IN_PROGRESS',0);
INSERT INTO "tallies" VALUES('other','IN_QUEUE',0);
INSERT INTO "tallies" VALUES('other','ever_failed',1);
INSERT INTO "tallies" VALUES('other','retried',2);
CREATE INDEX jobs_claimable ON jobs (function, priority DESC, seq) WHERE state = 'IN_QUEUE' AND parked = 0;
CREATE INDEX jobs_waiting ON jobs (function, submitted_at) WHERE state = 'IN_QUEUE' AND parked = 0;
CREATE INDEX jobs_parked ON jobs (available_at) WHERE state = 'IN_QUEUE' AND parked = 1;
CREATE INDEX jobs_expiring ON jobs (expires_at) WHERE state = 'IN_QUEUE';
CREATE INDEX jobs_running ON jobs (boot) WHERE state = 'IN_PROGRESS';
CREATE INDEX jobs_forgettable ON jobs (forget_at) WHERE forget_at IS NOT NULL;
CREATE UNIQUE INDEX jobs_idempotent ON jobs (function, principal, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE UNIQUE INDEX chunks_in_order ON chunks (seq, fence, place);
COMMIT;
PRAGMA user_version = 1;
