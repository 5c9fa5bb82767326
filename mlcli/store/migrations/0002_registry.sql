-- Registered models, their versions, logged models, what runs read and made of them; runs that moved.

-- The experiment in whose folder the artifacts of a run lie, where that is not its own: a run that moved leaves them.
ALTER TABLE runs ADD COLUMN home BIGINT REFERENCES experiments (id);

CREATE TABLE registered_models (
    id {identity},
    name TEXT NOT NULL UNIQUE,
    creation_time BIGINT NOT NULL,
    last_updated_time BIGINT NOT NULL,
    description TEXT NOT NULL DEFAULT '',
    highest_version BIGINT NOT NULL DEFAULT 0       -- ever given: the number of a deleted version is not given again
);

CREATE TABLE registered_model_tags (
    model BIGINT NOT NULL REFERENCES registered_models (id) ON DELETE CASCADE,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (model, key)
) {clustered};

CREATE TABLE model_versions (
    id {identity},
    model BIGINT NOT NULL REFERENCES registered_models (id) ON DELETE CASCADE,
    version BIGINT NOT NULL,
    creation_time BIGINT NOT NULL,
    last_updated_time BIGINT NOT NULL,
    description TEXT NOT NULL DEFAULT '',
    user_id TEXT NOT NULL DEFAULT '',
    stage TEXT NOT NULL DEFAULT 'None',             -- None | Staging | Production | Archived
    source TEXT NOT NULL,                           -- as it was given
    storage TEXT NOT NULL,                          -- where they are: run-artifacts:/<run>/<path>, model-artifacts:/<id>/<path>, or a URI
    run_id TEXT NOT NULL DEFAULT '',                -- perhaps of a run that is kept elsewhere
    run_link TEXT NOT NULL DEFAULT '',
    model_id TEXT NOT NULL DEFAULT '',
    status TEXT NOT NULL DEFAULT 'READY',
    status_message TEXT NOT NULL DEFAULT '',
    UNIQUE (model, version)
);
CREATE INDEX model_versions_run ON model_versions (run_id);
CREATE INDEX model_versions_stage ON model_versions (model, stage, version);
CREATE INDEX model_versions_newest ON model_versions (last_updated_time DESC);

CREATE TABLE model_version_tags (
    version BIGINT NOT NULL REFERENCES model_versions (id) ON DELETE CASCADE,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (version, key)
) {clustered};

CREATE TABLE registered_model_aliases (
    model BIGINT NOT NULL REFERENCES registered_models (id) ON DELETE CASCADE,
    alias TEXT NOT NULL,
    version BIGINT NOT NULL,
    PRIMARY KEY (model, alias),
    FOREIGN KEY (model, version) REFERENCES model_versions (model, version) ON DELETE CASCADE
) {clustered};
CREATE INDEX registered_model_aliases_version ON registered_model_aliases (model, version);

CREATE TABLE logged_models (
    id {identity},
    model_id TEXT NOT NULL UNIQUE,
    experiment BIGINT NOT NULL REFERENCES experiments (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    creation_time BIGINT NOT NULL,
    last_updated_time BIGINT NOT NULL,
    status TEXT NOT NULL DEFAULT 'PENDING',         -- PENDING | READY | FAILED
    status_message TEXT NOT NULL DEFAULT '',
    model_type TEXT NOT NULL DEFAULT '',
    source_run_id TEXT NOT NULL DEFAULT '',
    lifecycle_stage TEXT NOT NULL DEFAULT 'active',
    deleted_time BIGINT
);
CREATE INDEX logged_models_newest ON logged_models (experiment, lifecycle_stage, creation_time DESC);
CREATE INDEX logged_models_run ON logged_models (source_run_id);

CREATE TABLE logged_model_params (
    model BIGINT NOT NULL REFERENCES logged_models (id) ON DELETE CASCADE,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    number DOUBLE PRECISION,
    PRIMARY KEY (model, key)
) {clustered};

CREATE TABLE logged_model_tags (
    model BIGINT NOT NULL REFERENCES logged_models (id) ON DELETE CASCADE,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (model, key)
) {clustered};

-- Every point of a metric that was logged for a model, by which run and on which dataset ('' where none was named).
CREATE TABLE logged_model_metrics (
    model BIGINT NOT NULL REFERENCES logged_models (id) ON DELETE CASCADE,
    key TEXT NOT NULL,
    run_id TEXT NOT NULL DEFAULT '',
    dataset_name TEXT NOT NULL DEFAULT '',
    dataset_digest TEXT NOT NULL DEFAULT '',
    step BIGINT NOT NULL,
    timestamp BIGINT NOT NULL,
    value DOUBLE PRECISION NOT NULL,                -- 0 where is_nan
    is_nan SMALLINT NOT NULL DEFAULT 0,
    PRIMARY KEY (model, key, run_id, dataset_name, dataset_digest, step, timestamp, value, is_nan)
) {clustered};

-- The logged models that a run made, or read.
CREATE TABLE run_models (
    run BIGINT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    role TEXT NOT NULL,                             -- input | output
    model_id TEXT NOT NULL,
    step BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (run, role, model_id)
) {clustered};
CREATE INDEX run_models_model ON run_models (model_id);
