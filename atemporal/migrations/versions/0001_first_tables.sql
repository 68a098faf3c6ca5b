-- Jobs, attempts, events, API tokens. The jobs table is claimed from all the time: its dead rows
-- are cleared early, and its pages keep room.

CREATE TABLE api_tokens (
    name TEXT NOT NULL,
    hash TEXT NOT NULL,
    scopes TEXT[] NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT pk_api_tokens PRIMARY KEY (name),
    CONSTRAINT ck_api_tokens_scopes
        CHECK (scopes <@ ARRAY['submit', 'read', 'cancel', 'admin']),
    CONSTRAINT uq_api_tokens_hash UNIQUE (hash)
);

CREATE TABLE jobs (
    id UUID NOT NULL,
    key TEXT,
    spec JSONB NOT NULL,
    state TEXT NOT NULL,
    outcome TEXT,
    reason TEXT,
    attempt INTEGER DEFAULT 0 NOT NULL,
    attempt_base INTEGER DEFAULT 0 NOT NULL,
    attempt_limit INTEGER NOT NULL,
    run_at TIMESTAMP WITH TIME ZONE NOT NULL,
    due_at TIMESTAMP WITH TIME ZONE NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    finished_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT pk_jobs PRIMARY KEY (id),
    CONSTRAINT ck_jobs_state
        CHECK (state IN ('scheduled', 'queued', 'warming', 'running', 'finished')),
    CONSTRAINT ck_jobs_outcome
        CHECK (outcome IN ('succeeded', 'failed', 'timed_out', 'cancelled', 'lost')),
    CONSTRAINT ck_jobs_reason
        CHECK (reason IN (
            'completed', 'exit_nonzero', 'out_of_memory', 'start_failed', 'timed_out',
            'cancelled', 'unreported', 'launch_refused', 'launch_deadline', 'boot_deadline',
            'pull_failed', 'create_failed', 'instance_lost')),
    CONSTRAINT ck_jobs_finished_says_how
        CHECK ((state = 'finished') = (outcome IS NOT NULL) AND (state = 'finished') = (finished_at IS NOT NULL)),
    CONSTRAINT ck_jobs_within_budget
        CHECK (attempt >= 0 AND attempt - attempt_base <= attempt_limit),
    CONSTRAINT ck_jobs_active_has_attempt
        CHECK (state IN ('scheduled', 'finished') OR attempt > 0),
    CONSTRAINT uq_jobs_key UNIQUE (key)
);

CREATE INDEX ix_jobs_due ON jobs (due_at) WHERE state = 'scheduled';

CREATE INDEX ix_jobs_labels ON jobs USING gin ((spec -> 'labels'));

CREATE INDEX ix_jobs_queued ON jobs (updated_at) WHERE state = 'queued';

CREATE INDEX ix_jobs_state ON jobs (state, id);

CREATE TABLE attempts (
    job_id UUID NOT NULL,
    number INTEGER NOT NULL,
    state TEXT NOT NULL,
    reason TEXT,
    launch JSONB NOT NULL,
    instance_id TEXT,
    public_dns TEXT,
    public_ip TEXT,
    claim TEXT,
    exit_code SMALLINT,
    oom_killed BOOLEAN,
    log_tail BYTEA,
    detail TEXT,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    called_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    launched_at TIMESTAMP WITH TIME ZONE,
    running_at TIMESTAMP WITH TIME ZONE,
    exited_at TIMESTAMP WITH TIME ZONE,
    closed_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT pk_attempts PRIMARY KEY (job_id, number),
    CONSTRAINT uq_attempts_instance_id UNIQUE (instance_id),
    CONSTRAINT ck_attempts_number
        CHECK (number > 0),
    CONSTRAINT ck_attempts_state
        CHECK (state IN (
            'launching', 'warming', 'ready', 'running', 'exited', 'closed')),
    CONSTRAINT ck_attempts_reason
        CHECK (reason IN (
            'completed', 'exit_nonzero', 'out_of_memory', 'start_failed', 'timed_out',
            'cancelled', 'unreported', 'launch_refused', 'launch_deadline', 'boot_deadline',
            'pull_failed', 'create_failed', 'instance_lost')),
    CONSTRAINT ck_attempts_ended_says_why
        CHECK ((state IN ('launching', 'warming', 'ready', 'running')) = (reason IS NULL) AND (state IN ('launching', 'warming', 'ready', 'running')) = (exited_at IS NULL)),
    CONSTRAINT ck_attempts_closed_at
        CHECK ((state = 'closed') = (closed_at IS NOT NULL)),
    CONSTRAINT ck_attempts_exit_code
        CHECK (exit_code BETWEEN 0 AND 255),
    CONSTRAINT fk_attempts_job_id FOREIGN KEY(job_id) REFERENCES jobs (id)
);

CREATE INDEX ix_attempts_open ON attempts (state) WHERE state <> 'closed';

CREATE UNIQUE INDEX uq_attempts_one_live_a_job ON attempts (job_id) WHERE state IN ('launching', 'warming', 'ready', 'running');

CREATE TABLE events (
    id BIGSERIAL NOT NULL,
    job_id UUID NOT NULL,
    attempt INTEGER NOT NULL,
    at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    type TEXT NOT NULL,
    actor TEXT NOT NULL,
    detail JSONB DEFAULT '{}' NOT NULL,
    relayed BOOLEAN DEFAULT false NOT NULL,
    CONSTRAINT pk_events PRIMARY KEY (id),
    CONSTRAINT fk_events_job_id FOREIGN KEY(job_id) REFERENCES jobs (id)
);

CREATE INDEX ix_events_job_id ON events (job_id, id);

CREATE INDEX ix_events_unrelayed ON events (id) WHERE NOT relayed;

ALTER TABLE jobs SET (
    fillfactor = 70,
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_cost_delay = 0
);
