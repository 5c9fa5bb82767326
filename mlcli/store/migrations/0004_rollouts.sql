-- Rollouts: models compared under live traffic. What gateways record comes in batches: one transaction, one row of
-- rollout_batches, whose number grows with time. Whatever has a batch up to one number is what was known at that moment,
-- so a verdict can be found again. Times (ns) are nanoseconds since 1970. Arms are numbers, control is 0.

CREATE TABLE rollouts (
    id {identity},
    name TEXT NOT NULL UNIQUE,
    spec TEXT NOT NULL,                             -- the file, as it was written
    state TEXT NOT NULL DEFAULT 'draft',            -- draft | running | paused | promoted | aborted | stopped
    invalid SMALLINT NOT NULL DEFAULT 0,
    step BIGINT NOT NULL DEFAULT -1,
    step_ns BIGINT NOT NULL DEFAULT 0,
    version BIGINT NOT NULL DEFAULT 0,              -- of the weights in force
    created_ns BIGINT NOT NULL,
    started_ns BIGINT NOT NULL DEFAULT 0,
    ended_ns BIGINT NOT NULL DEFAULT 0,
    controller TEXT NOT NULL DEFAULT '',            -- who decides at present
    controller_until_ns BIGINT NOT NULL DEFAULT 0
);

CREATE TABLE rollout_events (
    id {identity},
    rollout BIGINT NOT NULL REFERENCES rollouts (id) ON DELETE CASCADE,
    ns BIGINT NOT NULL,
    kind TEXT NOT NULL,
    state TEXT NOT NULL,                            -- after it
    actor TEXT NOT NULL DEFAULT '',
    reason TEXT NOT NULL DEFAULT '',
    evidence TEXT NOT NULL DEFAULT ''               -- JSON
);
CREATE INDEX rollout_events_rollout ON rollout_events (rollout, id);

CREATE TABLE rollout_weights (
    rollout BIGINT NOT NULL REFERENCES rollouts (id) ON DELETE CASCADE,
    version BIGINT NOT NULL,
    ns BIGINT NOT NULL,
    weights TEXT NOT NULL,                          -- JSON, control first
    shadow DOUBLE PRECISION NOT NULL DEFAULT 0,     -- share of requests that are copied to candidates
    step BIGINT NOT NULL DEFAULT -1,
    reason TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (rollout, version)
) {clustered};

CREATE TABLE rollout_batches (
    id {identity},
    rollout BIGINT NOT NULL REFERENCES rollouts (id) ON DELETE CASCADE,
    ns BIGINT NOT NULL                              -- never before that of an earlier batch, whatever the clock does
);
CREATE INDEX rollout_batches_time ON rollout_batches (rollout, ns);

-- A unit under one set of weights: which arm it has and how likely that was.
CREATE TABLE rollout_exposures (
    rollout BIGINT NOT NULL REFERENCES rollouts (id) ON DELETE CASCADE,
    unit TEXT NOT NULL,
    version BIGINT NOT NULL,
    arm SMALLINT NOT NULL,
    place DOUBLE PRECISION NOT NULL,
    propensity DOUBLE PRECISION NOT NULL,
    ns BIGINT NOT NULL,
    first SMALLINT NOT NULL DEFAULT 1,              -- its first exposure of all
    batch BIGINT NOT NULL,
    PRIMARY KEY (rollout, unit, version, arm)
) {clustered};
CREATE INDEX rollout_exposures_batch ON rollout_exposures (rollout, batch);

-- The first request of a unit that failed.
CREATE TABLE rollout_first_errors (
    rollout BIGINT NOT NULL REFERENCES rollouts (id) ON DELETE CASCADE,
    unit TEXT NOT NULL,
    arm SMALLINT NOT NULL,
    version BIGINT NOT NULL,
    ns BIGINT NOT NULL,
    batch BIGINT NOT NULL,
    PRIMARY KEY (rollout, unit)
) {clustered};

CREATE TABLE predictions (
    rollout BIGINT NOT NULL REFERENCES rollouts (id) ON DELETE CASCADE,
    request_id TEXT NOT NULL,
    role TEXT NOT NULL,                             -- live | shadow
    arm SMALLINT NOT NULL,                          -- that it was assigned to
    answered SMALLINT NOT NULL,                     -- the arm that answered: control, where a candidate failed
    version BIGINT NOT NULL,
    propensity DOUBLE PRECISION NOT NULL,
    unit TEXT NOT NULL DEFAULT '',                  -- '' where the request named none: not analysed
    ns BIGINT NOT NULL,
    latency_us BIGINT NOT NULL,
    status INTEGER NOT NULL,                        -- that the client got
    error TEXT NOT NULL DEFAULT '',                 -- of the arm
    features TEXT,
    prediction TEXT,
    score DOUBLE PRECISION,                         -- the first number of the prediction
    batch BIGINT NOT NULL,
    PRIMARY KEY (rollout, request_id, role, arm)
) {clustered};
CREATE INDEX predictions_batch ON predictions (rollout, batch);

CREATE TABLE outcomes (
    id {identity},
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
CREATE INDEX outcomes_key ON outcomes (rollout, key, batch);

-- Exact counts, in the transaction of the rows they count, so that rows which were shed bias no rate.
CREATE TABLE serve_counters (
    id {identity},
    rollout BIGINT NOT NULL REFERENCES rollouts (id) ON DELETE CASCADE,
    batch BIGINT NOT NULL,
    role TEXT NOT NULL,
    arm SMALLINT NOT NULL,
    version BIGINT NOT NULL,
    minute BIGINT NOT NULL,
    n BIGINT NOT NULL,
    errors BIGINT NOT NULL,
    shed BIGINT NOT NULL DEFAULT 0,                 -- counted here, their rows left out on purpose
    dropped BIGINT NOT NULL DEFAULT 0,              -- never recorded, or never shadowed
    latencies TEXT NOT NULL DEFAULT ''              -- bucket:count of microseconds, buckets 2 % wide
);
CREATE INDEX serve_counters_batch ON serve_counters (rollout, batch);

CREATE TABLE decisions (
    id {identity},
    rollout BIGINT NOT NULL REFERENCES rollouts (id) ON DELETE CASCADE,
    ns BIGINT NOT NULL,
    batch BIGINT NOT NULL,                          -- the last one it knew of
    verdict TEXT NOT NULL,
    rule TEXT NOT NULL,
    evidence TEXT NOT NULL                          -- JSON
);
CREATE INDEX decisions_rollout ON decisions (rollout, id);
