-- A store as schema version 4 kept it; opened by the mlcli of today in the tests.
PRAGMA application_id = 1835819884;
PRAGMA user_version = 4;
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
CREATE TABLE decisions (
    id INTEGER PRIMARY KEY,
    rollout BIGINT NOT NULL REFERENCES rollouts (id) ON DELETE CASCADE,
    ns BIGINT NOT NULL,
    batch BIGINT NOT NULL,
    verdict TEXT NOT NULL,
    rule TEXT NOT NULL,
    evidence TEXT NOT NULL
);
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
CREATE TABLE logged_model_metrics (
    model BIGINT NOT NULL REFERENCES logged_models (id) ON DELETE CASCADE,
    key TEXT NOT NULL,
    run_id TEXT NOT NULL DEFAULT '',
    dataset_name TEXT NOT NULL DEFAULT '',
    dataset_digest TEXT NOT NULL DEFAULT '',
    step BIGINT NOT NULL,
    timestamp BIGINT NOT NULL,
    value DOUBLE PRECISION NOT NULL,
    is_nan SMALLINT NOT NULL DEFAULT 0,
    PRIMARY KEY (model, key, run_id, dataset_name, dataset_digest, step, timestamp, value, is_nan)
) WITHOUT ROWID;
CREATE TABLE logged_model_params (
    model BIGINT NOT NULL REFERENCES logged_models (id) ON DELETE CASCADE,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    number DOUBLE PRECISION,
    PRIMARY KEY (model, key)
) WITHOUT ROWID;
CREATE TABLE logged_model_tags (
    model BIGINT NOT NULL REFERENCES logged_models (id) ON DELETE CASCADE,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (model, key)
) WITHOUT ROWID;
CREATE TABLE logged_models (
    id INTEGER PRIMARY KEY,
    model_id TEXT NOT NULL UNIQUE,
    experiment BIGINT NOT NULL REFERENCES experiments (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    creation_time BIGINT NOT NULL,
    last_updated_time BIGINT NOT NULL,
    status TEXT NOT NULL DEFAULT 'PENDING',
    status_message TEXT NOT NULL DEFAULT '',
    model_type TEXT NOT NULL DEFAULT '',
    source_run_id TEXT NOT NULL DEFAULT '',
    lifecycle_stage TEXT NOT NULL DEFAULT 'active',
    deleted_time BIGINT
);
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
CREATE TABLE model_version_tags (
    version BIGINT NOT NULL REFERENCES model_versions (id) ON DELETE CASCADE,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (version, key)
) WITHOUT ROWID;
CREATE TABLE model_versions (
    id INTEGER PRIMARY KEY,
    model BIGINT NOT NULL REFERENCES registered_models (id) ON DELETE CASCADE,
    version BIGINT NOT NULL,
    creation_time BIGINT NOT NULL,
    last_updated_time BIGINT NOT NULL,
    description TEXT NOT NULL DEFAULT '',
    user_id TEXT NOT NULL DEFAULT '',
    stage TEXT NOT NULL DEFAULT 'None',
    source TEXT NOT NULL,
    storage TEXT NOT NULL,
    run_id TEXT NOT NULL DEFAULT '',
    run_link TEXT NOT NULL DEFAULT '',
    model_id TEXT NOT NULL DEFAULT '',
    status TEXT NOT NULL DEFAULT 'READY',
    status_message TEXT NOT NULL DEFAULT '',
    UNIQUE (model, version)
);
CREATE TABLE outcomes (
    id INTEGER PRIMARY KEY,
    rollout BIGINT NOT NULL REFERENCES rollouts (id) ON DELETE CASCADE,
    idempotency_key TEXT NOT NULL,
    request_id TEXT NOT NULL DEFAULT '',
    unit TEXT NOT NULL DEFAULT '',
    key TEXT NOT NULL,
    value DOUBLE PRECISION NOT NULL,
    ns BIGINT NOT NULL,
    batch BIGINT NOT NULL,
    UNIQUE (rollout, idempotency_key)
);
INSERT INTO "outcomes" VALUES(1,1,'u:u1:conversion','','u1','conversion',1.0,1700000002000000000,1);
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
CREATE TABLE predictions (
    rollout BIGINT NOT NULL REFERENCES rollouts (id) ON DELETE CASCADE,
    request_id TEXT NOT NULL,
    role TEXT NOT NULL,
    arm SMALLINT NOT NULL,
    answered SMALLINT NOT NULL,
    version BIGINT NOT NULL,
    propensity DOUBLE PRECISION NOT NULL,
    unit TEXT NOT NULL DEFAULT '',
    ns BIGINT NOT NULL,
    latency_us BIGINT NOT NULL,
    status INTEGER NOT NULL,
    error TEXT NOT NULL DEFAULT '',
    features TEXT,
    prediction TEXT,
    score DOUBLE PRECISION,
    batch BIGINT NOT NULL,
    PRIMARY KEY (rollout, request_id, role, arm)
) WITHOUT ROWID;
INSERT INTO "predictions" VALUES(1,'r1','live',0,0,1,0.9,'u1',1700000002000000000,500,200,'',NULL,NULL,NULL,1);
CREATE TABLE registered_model_aliases (
    model BIGINT NOT NULL REFERENCES registered_models (id) ON DELETE CASCADE,
    alias TEXT NOT NULL,
    version BIGINT NOT NULL,
    PRIMARY KEY (model, alias),
    FOREIGN KEY (model, version) REFERENCES model_versions (model, version) ON DELETE CASCADE
) WITHOUT ROWID;
CREATE TABLE registered_model_tags (
    model BIGINT NOT NULL REFERENCES registered_models (id) ON DELETE CASCADE,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (model, key)
) WITHOUT ROWID;
CREATE TABLE registered_models (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    creation_time BIGINT NOT NULL,
    last_updated_time BIGINT NOT NULL,
    description TEXT NOT NULL DEFAULT '',
    highest_version BIGINT NOT NULL DEFAULT 0
);
CREATE TABLE rejected_lines (
    id INTEGER PRIMARY KEY,
    journal TEXT NOT NULL,
    position BIGINT NOT NULL,
    run_id TEXT,
    line TEXT NOT NULL,
    reason TEXT NOT NULL,
    time BIGINT NOT NULL
);
CREATE TABLE rollout_batches (
    id INTEGER PRIMARY KEY,
    rollout BIGINT NOT NULL REFERENCES rollouts (id) ON DELETE CASCADE,
    ns BIGINT NOT NULL
);
INSERT INTO "rollout_batches" VALUES(1,1,1700000002000000000);
CREATE TABLE rollout_events (
    id INTEGER PRIMARY KEY,
    rollout BIGINT NOT NULL REFERENCES rollouts (id) ON DELETE CASCADE,
    ns BIGINT NOT NULL,
    kind TEXT NOT NULL,
    state TEXT NOT NULL,
    actor TEXT NOT NULL DEFAULT '',
    reason TEXT NOT NULL DEFAULT '',
    evidence TEXT NOT NULL DEFAULT ''
);
INSERT INTO "rollout_events" VALUES(1,1,1700000000000000000,'created','draft','ann','','');
CREATE TABLE rollout_exposures (
    rollout BIGINT NOT NULL REFERENCES rollouts (id) ON DELETE CASCADE,
    unit TEXT NOT NULL,
    version BIGINT NOT NULL,
    arm SMALLINT NOT NULL,
    place DOUBLE PRECISION NOT NULL,
    propensity DOUBLE PRECISION NOT NULL,
    ns BIGINT NOT NULL,
    first SMALLINT NOT NULL DEFAULT 1,
    batch BIGINT NOT NULL,
    PRIMARY KEY (rollout, unit, version, arm)
) WITHOUT ROWID;
INSERT INTO "rollout_exposures" VALUES(1,'u1',1,0,0.5,0.9,1700000002000000000,1,1);
CREATE TABLE rollout_first_errors (
    rollout BIGINT NOT NULL REFERENCES rollouts (id) ON DELETE CASCADE,
    unit TEXT NOT NULL,
    arm SMALLINT NOT NULL,
    version BIGINT NOT NULL,
    ns BIGINT NOT NULL,
    batch BIGINT NOT NULL,
    PRIMARY KEY (rollout, unit)
) WITHOUT ROWID;
CREATE TABLE rollout_weights (
    rollout BIGINT NOT NULL REFERENCES rollouts (id) ON DELETE CASCADE,
    version BIGINT NOT NULL,
    ns BIGINT NOT NULL,
    weights TEXT NOT NULL,
    shadow DOUBLE PRECISION NOT NULL DEFAULT 0,
    step BIGINT NOT NULL DEFAULT -1,
    reason TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (rollout, version)
) WITHOUT ROWID;
INSERT INTO "rollout_weights" VALUES(1,1,1700000001000000000,'[0.9, 0.1]',0.0,1,'');
CREATE TABLE rollouts (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    spec TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'draft',
    invalid SMALLINT NOT NULL DEFAULT 0,
    step BIGINT NOT NULL DEFAULT -1,
    step_ns BIGINT NOT NULL DEFAULT 0,
    version BIGINT NOT NULL DEFAULT 0,
    created_ns BIGINT NOT NULL,
    started_ns BIGINT NOT NULL DEFAULT 0,
    ended_ns BIGINT NOT NULL DEFAULT 0,
    controller TEXT NOT NULL DEFAULT '',
    controller_until_ns BIGINT NOT NULL DEFAULT 0
);
INSERT INTO "rollouts" VALUES(1,'churn','kind: Rollout','running',0,-1,0,1,1700000000000000000,1700000001000000000,0,'',0);
CREATE TABLE run_models (
    run BIGINT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    role TEXT NOT NULL,
    model_id TEXT NOT NULL,
    step BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (run, role, model_id)
) WITHOUT ROWID;
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
, home BIGINT REFERENCES experiments (id));
INSERT INTO "runs" VALUES(1,'000000000000000000000000000000a1',0,'calm-owl-1','ann','FINISHED',1700000001000,1700000009000,'active',NULL,NULL,NULL);
INSERT INTO "runs" VALUES(2,'000000000000000000000000000000b2',1,'brisk-heron-2','bob','FAILED',1700000002000,1700000003000,'deleted',1700000004000,NULL,NULL);
INSERT INTO "runs" VALUES(3,'000000000000000000000000000000c3',2,'lost-lark-3','ann','RUNNING',1700000004000,NULL,'deleted',1700000006000,NULL,NULL);
INSERT INTO "runs" VALUES(4,'000000000000000000000000000000d4',3,'far-fox-4','ann','SCHEDULED',1700000005000,NULL,'active',NULL,NULL,NULL);
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
CREATE TABLE serve_counters (
    id INTEGER PRIMARY KEY,
    rollout BIGINT NOT NULL REFERENCES rollouts (id) ON DELETE CASCADE,
    batch BIGINT NOT NULL,
    role TEXT NOT NULL,
    arm SMALLINT NOT NULL,
    version BIGINT NOT NULL,
    minute BIGINT NOT NULL,
    n BIGINT NOT NULL,
    errors BIGINT NOT NULL,
    shed BIGINT NOT NULL DEFAULT 0,
    dropped BIGINT NOT NULL DEFAULT 0,
    latencies TEXT NOT NULL DEFAULT ''
);
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
CREATE INDEX params_number ON params (key, number, run);
CREATE INDEX tags_value ON tags (key, value, run) WHERE length(value) <= 200;
CREATE INDEX tags_long ON tags (key, run) WHERE length(value) > 200;
CREATE INDEX series_value ON series (key, is_nan, value, run);
CREATE INDEX datasets_name ON datasets (name, digest);
CREATE INDEX inputs_dataset ON inputs (dataset, run);
CREATE INDEX model_versions_run ON model_versions (run_id);
CREATE INDEX model_versions_stage ON model_versions (model, stage, version);
CREATE INDEX model_versions_newest ON model_versions (last_updated_time DESC);
CREATE INDEX registered_model_aliases_version ON registered_model_aliases (model, version);
CREATE INDEX logged_models_newest ON logged_models (experiment, lifecycle_stage, creation_time DESC);
CREATE INDEX logged_models_run ON logged_models (source_run_id);
CREATE INDEX run_models_model ON run_models (model_id);
CREATE INDEX params_value ON params (key, value, run) WHERE length(value) <= 200;
CREATE INDEX params_long ON params (key, run) WHERE length(value) > 200;
CREATE INDEX rollout_events_rollout ON rollout_events (rollout, id);
CREATE INDEX rollout_batches_time ON rollout_batches (rollout, ns);
CREATE INDEX rollout_exposures_batch ON rollout_exposures (rollout, batch);
CREATE INDEX predictions_batch ON predictions (rollout, batch);
CREATE INDEX outcomes_key ON outcomes (rollout, key, batch);
CREATE INDEX serve_counters_batch ON serve_counters (rollout, batch);
CREATE INDEX decisions_rollout ON decisions (rollout, id);
COMMIT;
