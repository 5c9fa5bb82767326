-- Experiments and runs. {identity} is the database's own integer key; all times are UTC milliseconds.

CREATE TABLE experiments (
    id {identity},                                  -- shown as text; 0 is Default
    name TEXT NOT NULL,
    artifact_location TEXT,                         -- NULL: <store>/<id>, so that a store is a folder one can move
    lifecycle_stage TEXT NOT NULL DEFAULT 'active', -- active | deleted
    creation_time BIGINT NOT NULL,
    last_update_time BIGINT NOT NULL
);
-- A deleted experiment's name is free again.
CREATE UNIQUE INDEX experiments_name ON experiments (name) WHERE lifecycle_stage = 'active';

CREATE TABLE experiment_tags (
    experiment BIGINT NOT NULL REFERENCES experiments (id) ON DELETE CASCADE,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (experiment, key)
) {clustered};

CREATE TABLE runs (
    id {identity},
    run_id TEXT NOT NULL UNIQUE,
    experiment BIGINT NOT NULL REFERENCES experiments (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    user_id TEXT NOT NULL DEFAULT '',
    status TEXT NOT NULL,                           -- RUNNING | SCHEDULED | FINISHED | FAILED | KILLED
    start_time BIGINT NOT NULL,
    end_time BIGINT,
    lifecycle_stage TEXT NOT NULL DEFAULT 'active',
    deleted_time BIGINT,
    owner TEXT                                      -- the journal whose writer keeps this run alive; NULL: nobody watches it
);
CREATE INDEX runs_newest ON runs (experiment, lifecycle_stage, start_time DESC, run_id);
CREATE INDEX runs_newest_of_all ON runs (lifecycle_stage, start_time DESC, run_id);
CREATE INDEX runs_open ON runs (owner) WHERE status IN ('RUNNING', 'SCHEDULED');

CREATE TABLE params (
    run BIGINT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    number DOUBLE PRECISION,                        -- the value as a number where it is one: params.lr > 0.05
    PRIMARY KEY (run, key)
) {clustered};
CREATE INDEX params_value ON params (key, value, run);
CREATE INDEX params_number ON params (key, number, run);

CREATE TABLE tags (
    run BIGINT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (run, key)
) {clustered};
-- Long values (notes, command lines) would bloat the index of values: they have one of their own, without the value.
-- Queries repeat the words of the WHERE; only so are partial indexes found.
CREATE INDEX tags_value ON tags (key, value, run) WHERE length(value) <= 200;
CREATE INDEX tags_long ON tags (key, run) WHERE length(value) > 200;

-- One row per metric of a run: its latest point (max by step, timestamp, value), its extremes; what search reads.
CREATE TABLE series (
    id {identity},
    run BIGINT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    key TEXT NOT NULL,
    value DOUBLE PRECISION NOT NULL,                -- 0 where is_nan, which no database orders alike
    is_nan SMALLINT NOT NULL DEFAULT 0,
    step BIGINT NOT NULL,
    timestamp BIGINT NOT NULL,
    min DOUBLE PRECISION,                           -- NULL while every point is NaN
    max DOUBLE PRECISION,
    UNIQUE (run, key)
);
CREATE INDEX series_value ON series (key, is_nan, value, run);

-- Every point. The same point twice is one point, as in MLflow.
CREATE TABLE metrics (
    series BIGINT NOT NULL REFERENCES series (id) ON DELETE CASCADE,
    step BIGINT NOT NULL,
    timestamp BIGINT NOT NULL,
    value DOUBLE PRECISION NOT NULL,
    is_nan SMALLINT NOT NULL DEFAULT 0,
    PRIMARY KEY (series, step, timestamp, value, is_nan)
) {clustered};

CREATE TABLE datasets (
    id {identity},
    name TEXT NOT NULL,
    digest TEXT NOT NULL,
    source_type TEXT NOT NULL,
    source TEXT NOT NULL,
    schema TEXT,
    profile TEXT
);
CREATE INDEX datasets_name ON datasets (name, digest);

CREATE TABLE inputs (
    run BIGINT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    dataset BIGINT NOT NULL REFERENCES datasets (id),
    PRIMARY KEY (run, dataset)
) {clustered};
CREATE INDEX inputs_dataset ON inputs (dataset, run);

CREATE TABLE input_tags (
    run BIGINT NOT NULL,
    dataset BIGINT NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (run, dataset, key),
    FOREIGN KEY (run, dataset) REFERENCES inputs (run, dataset) ON DELETE CASCADE
) {clustered};

-- How far each journal has been read; written in the transaction that applies its lines, so each line counts once.
CREATE TABLE journals (
    name TEXT NOT NULL PRIMARY KEY,
    position BIGINT NOT NULL,                       -- bytes applied
    default_run TEXT,                               -- the run of lines that name none
    finished SMALLINT NOT NULL DEFAULT 0            -- the writer is gone, all is applied, the file may go
) {clustered};

-- Lines that could not be applied, kept so that nothing is lost in silence; `mlcli doctor` tells of them.
CREATE TABLE rejected_lines (
    id {identity},
    journal TEXT NOT NULL,
    position BIGINT NOT NULL,
    run_id TEXT,
    line TEXT NOT NULL,
    reason TEXT NOT NULL,
    time BIGINT NOT NULL
);
