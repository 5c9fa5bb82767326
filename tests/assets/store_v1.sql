-- A store as schema version 1 kept it; test_store_sqlite.py opens it with the mlcli of today.
PRAGMA application_id = 1835819884;
PRAGMA user_version = 1;
BEGIN TRANSACTION;
CREATE TABLE datasets (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    digest TEXT NOT NULL,
    source_type TEXT NOT NULL,
    source TEXT NOT NULL,
    schema TEXT,
    profile TEXT
);
INSERT INTO "datasets" VALUES(1,'wine','abc12345','local','wine.csv','{"columns": []}',NULL);
CREATE TABLE experiment_tags (
    experiment BIGINT NOT NULL REFERENCES experiments (id) ON DELETE CASCADE,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (experiment, key)
) WITHOUT ROWID;
INSERT INTO "experiment_tags" VALUES(1,'team','blue');
CREATE TABLE experiments (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    artifact_location TEXT,
    lifecycle_stage TEXT NOT NULL DEFAULT 'active',
    creation_time BIGINT NOT NULL,
    last_update_time BIGINT NOT NULL
);
INSERT INTO "experiments" VALUES(0,'Default',NULL,'active',1700000000000,1700000000000);
INSERT INTO "experiments" VALUES(1,'wine 한국어',NULL,'active',1700000001000,1700000001000);
INSERT INTO "experiments" VALUES(2,'gone',NULL,'deleted',1700000002000,1700000005000);
INSERT INTO "experiments" VALUES(3,'far','/data/artifacts','active',1700000003000,1700000003000);
CREATE TABLE input_tags (
    run BIGINT NOT NULL,
    dataset BIGINT NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (run, dataset, key),
    FOREIGN KEY (run, dataset) REFERENCES inputs (run, dataset) ON DELETE CASCADE
) WITHOUT ROWID;
INSERT INTO "input_tags" VALUES(1,1,'mlflow.data.context','train');
CREATE TABLE inputs (
    run BIGINT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    dataset BIGINT NOT NULL REFERENCES datasets (id),
    PRIMARY KEY (run, dataset)
) WITHOUT ROWID;
INSERT INTO "inputs" VALUES(1,1);
CREATE TABLE journals (
    name TEXT NOT NULL PRIMARY KEY,
    position BIGINT NOT NULL,
    default_run TEXT,
    finished SMALLINT NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE metrics (
    series BIGINT NOT NULL REFERENCES series (id) ON DELETE CASCADE,
    step BIGINT NOT NULL,
    timestamp BIGINT NOT NULL,
    value DOUBLE PRECISION NOT NULL,
    is_nan SMALLINT NOT NULL DEFAULT 0,
    PRIMARY KEY (series, step, timestamp, value, is_nan)
) WITHOUT ROWID;
INSERT INTO "metrics" VALUES(1,0,1700000001001,0.5,0);
INSERT INTO "metrics" VALUES(1,1,1700000001002,0.25,0);
INSERT INTO "metrics" VALUES(1,2,1700000001003,0.0,1);
INSERT INTO "metrics" VALUES(2,0,1700000001004,0.1,0);
INSERT INTO "metrics" VALUES(3,-3,1,9e999,0);
INSERT INTO "metrics" VALUES(4,9223372036854775807,1,-9e999,0);
INSERT INTO "metrics" VALUES(5,0,1,4.94065645841247e-324,0);
INSERT INTO "metrics" VALUES(6,0,1700000002001,0.9,0);
CREATE TABLE params (
    run BIGINT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    number DOUBLE PRECISION,
    PRIMARY KEY (run, key)
) WITHOUT ROWID;
INSERT INTO "params" VALUES(1,'emoji','🦉',NULL);
INSERT INTO "params" VALUES(1,'empty','',NULL);
INSERT INTO "params" VALUES(1,'lr','0.10',0.1);
INSERT INTO "params" VALUES(2,'lr','0.2',0.2);
CREATE TABLE rejected_lines (
    id INTEGER PRIMARY KEY,
    journal TEXT NOT NULL,
    position BIGINT NOT NULL,
    run_id TEXT,
    line TEXT NOT NULL,
    reason TEXT NOT NULL,
    time BIGINT NOT NULL
);
CREATE TABLE runs (
    id INTEGER PRIMARY KEY,
    run_id TEXT NOT NULL UNIQUE,
    experiment BIGINT NOT NULL REFERENCES experiments (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    user_id TEXT NOT NULL DEFAULT '',
    status TEXT NOT NULL,
    start_time BIGINT NOT NULL,
    end_time BIGINT,
    lifecycle_stage TEXT NOT NULL DEFAULT 'active',
    deleted_time BIGINT,
    owner TEXT
);
INSERT INTO "runs" VALUES(1,'000000000000000000000000000000a1',0,'calm-owl-1','ann','FINISHED',1700000001000,1700000009000,'active',NULL,NULL);
INSERT INTO "runs" VALUES(2,'000000000000000000000000000000b2',1,'brisk-heron-2','bob','FAILED',1700000002000,1700000003000,'deleted',1700000004000,NULL);
INSERT INTO "runs" VALUES(3,'000000000000000000000000000000c3',2,'lost-lark-3','ann','RUNNING',1700000004000,NULL,'deleted',1700000006000,NULL);
INSERT INTO "runs" VALUES(4,'000000000000000000000000000000d4',3,'far-fox-4','ann','SCHEDULED',1700000005000,NULL,'active',NULL,NULL);
CREATE TABLE series (
    id INTEGER PRIMARY KEY,
    run BIGINT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    key TEXT NOT NULL,
    value DOUBLE PRECISION NOT NULL,
    is_nan SMALLINT NOT NULL DEFAULT 0,
    step BIGINT NOT NULL,
    timestamp BIGINT NOT NULL,
    min DOUBLE PRECISION,
    max DOUBLE PRECISION,
    UNIQUE (run, key)
);
INSERT INTO "series" VALUES(1,1,'loss',0.0,1,2,1700000001003,0.25,0.5);
INSERT INTO "series" VALUES(2,1,'acc',0.1,0,0,1700000001004,0.1,0.1);
INSERT INTO "series" VALUES(3,1,'big',9e999,0,-3,1,9e999,9e999);
INSERT INTO "series" VALUES(4,1,'small',-9e999,0,9223372036854775807,1,-9e999,-9e999);
INSERT INTO "series" VALUES(5,1,'tiny',4.94065645841247e-324,0,0,1,4.94065645841247e-324,4.94065645841247e-324);
INSERT INTO "series" VALUES(6,2,'acc',0.9,0,0,1700000002001,0.9,0.9);
CREATE TABLE tags (
    run BIGINT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (run, key)
) WITHOUT ROWID;
INSERT INTO "tags" VALUES(1,'mlflow.note.content','note: it''s "quoted"
second line; -- no comment');
INSERT INTO "tags" VALUES(1,'mlflow.runName','calm-owl-1');
INSERT INTO "tags" VALUES(1,'team','blue');
INSERT INTO "tags" VALUES(2,'mlflow.runName','brisk-heron-2');
INSERT INTO "tags" VALUES(3,'mlflow.runName','lost-lark-3');
INSERT INTO "tags" VALUES(4,'mlflow.runName','far-fox-4');
CREATE UNIQUE INDEX experiments_name ON experiments (name) WHERE lifecycle_stage = 'active';
CREATE INDEX runs_newest ON runs (experiment, lifecycle_stage, start_time DESC, run_id);
CREATE INDEX runs_newest_of_all ON runs (lifecycle_stage, start_time DESC, run_id);
CREATE INDEX runs_open ON runs (owner) WHERE status IN ('RUNNING', 'SCHEDULED');
CREATE INDEX params_value ON params (key, value, run);
CREATE INDEX params_number ON params (key, number, run);
CREATE INDEX tags_value ON tags (key, value, run) WHERE length(value) <= 200;
CREATE INDEX tags_long ON tags (key, run) WHERE length(value) > 200;
CREATE INDEX series_value ON series (key, is_nan, value, run);
CREATE INDEX datasets_name ON datasets (name, digest);
CREATE INDEX inputs_dataset ON inputs (dataset, run);
COMMIT;
