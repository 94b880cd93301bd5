-- The ledger on PostgreSQL: the tables and columns of the SQLite one (`store/migrations/ledger`), where each is
-- explained. What differs:
--
-- No `room`: a settlement is a new version of its row in any case, and a disk that is full is the server's.
-- Owners live side by side, each with a heartbeat by this server's clock.
-- Ids compare byte by byte (COLLATE "C"), as ranges of ids are ranges of time.

CREATE TABLE schema_version (
    one     integer PRIMARY KEY CHECK (one = 1),
    version integer NOT NULL
);

INSERT INTO schema_version VALUES (1, 1);

CREATE FUNCTION now_ns() RETURNS bigint LANGUAGE sql VOLATILE
AS 'SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000000 AS bigint)';

CREATE TABLE owner (
    epoch        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id           text   NOT NULL UNIQUE,
    pid          bigint NOT NULL,
    seat         text   NOT NULL,               -- of its data folder, whose lock it holds: one owner lives on a seat
    started_ns   bigint NOT NULL,
    heartbeat_ns bigint NOT NULL,
    steady_ns    bigint NOT NULL,               -- since when its heart has beaten without a gap
    ended_ns     bigint,
    state        text   NOT NULL DEFAULT 'alive' CHECK (state IN ('alive', 'left', 'dead'))
);

CREATE TABLE call (
    id             text    COLLATE "C" NOT NULL PRIMARY KEY,
    parent         text,
    cause          text    NOT NULL
                   CHECK (cause IN ('client', 'batch', 'replay', 'shadow', 'refresh', 'embed', 'probe')),
    key            text    NOT NULL,
    team           text,
    tenant         text    NOT NULL,
    tag            text,
    endpoint       text    NOT NULL,
    asked_model    text    NOT NULL,
    class          text    NOT NULL CHECK (class IN ('interactive', 'batch')),
    data_class     text    NOT NULL CHECK (data_class IN ('any', 'private-only')),
    streamed       boolean NOT NULL,
    generation     bigint  NOT NULL,
    received_ns    bigint  NOT NULL,
    deadline_ns    bigint  NOT NULL,
    prompt_bytes   bigint  NOT NULL CHECK (prompt_bytes >= 0),
    route          text    NOT NULL,
    owner_epoch    bigint  NOT NULL,
    receipt_id     bigint,
    job_id         text,
    line_n         bigint,
    request_hash   bytea,
    prefix_hashes  bytea   CHECK (octet_length(prefix_hashes) <= 64),
    cache_outcome  text,
    cache_reason   text,
    avoided_input  bigint,
    avoided_output bigint,
    avoided_nanos  bigint,
    receipt        text,
    receipt_of     text,
    first_event_ns bigint,
    last_event_ns  bigint,
    finish_reasons text,
    error_code     text,
    end_state      text
                   CHECK (end_state IN ('success', 'failed', 'interrupted', 'client_closed', 'lapsed'))
);

CREATE INDEX call_open ON call (owner_epoch) WHERE end_state IS NULL;
CREATE INDEX call_first_open ON call (id) WHERE end_state IS NULL;

CREATE TABLE attempt (
    call_id             text   COLLATE "C" NOT NULL,
    n                   bigint NOT NULL CHECK (n > 0),
    provider            text   NOT NULL,
    model               text   NOT NULL,
    tier                text   NOT NULL CHECK (tier IN ('private', 'hosted', 'cache')),
    credential_id       text,
    queued_ns           bigint NOT NULL,
    permit_ns           bigint NOT NULL,
    in_flight           bigint NOT NULL,
    predicted_wait_ms   bigint,
    predicted_finish_ms bigint,
    price_id            text,
    price_ids           text,
    owner_epoch         bigint NOT NULL,
    ceilings            text,
    bound_nanos         bigint CHECK (bound_nanos >= 0),
    prompt_shape        text,
    hold_state          text   NOT NULL DEFAULT 'held'
                        CHECK (hold_state IN ('held', 'settled', 'released', 'lapsed')),
    replica             text,
    sent_ns             bigint,
    first_ns            bigint,
    last_ns             bigint,
    outcome             text   CHECK (outcome IN ('success', 'ignore', 'dropped')),
    blame               text   CHECK (blame IN ('provider', 'caller', 'us')),
    error_code          text,
    status              bigint,
    input               bigint NOT NULL DEFAULT 0,
    cache_read          bigint NOT NULL DEFAULT 0,
    cache_write_5m      bigint NOT NULL DEFAULT 0,
    cache_write_1h      bigint NOT NULL DEFAULT 0,
    output              bigint NOT NULL DEFAULT 0,
    reasoning           bigint NOT NULL DEFAULT 0,
    audio_in            bigint NOT NULL DEFAULT 0,
    audio_out           bigint NOT NULL DEFAULT 0,
    images              bigint NOT NULL DEFAULT 0,
    usage_source        text   NOT NULL DEFAULT 'none'
                        CHECK (usage_source IN ('reported', 'none', 'bounded', 'estimated')),
    cash_nanos          bigint CHECK (cash_nanos >= 0),
    upstream_cost_nanos bigint CHECK (upstream_cost_nanos >= 0),
    upstream_request_id text,
    service_tier        text,
    gpu_ms              bigint CHECK (gpu_ms >= 0),
    PRIMARY KEY (call_id, n),
    CHECK ((input | cache_read | cache_write_5m | cache_write_1h | output | reasoning
            | audio_in | audio_out | images) >= 0)
);

CREATE INDEX attempt_held ON attempt (owner_epoch) WHERE hold_state = 'held';
CREATE INDEX attempt_counted ON attempt (call_id, n)
    WHERE prompt_shape IS NOT NULL AND usage_source = 'reported';

CREATE TABLE adjustment (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    call_id     text   COLLATE "C" NOT NULL,
    n           bigint NOT NULL,
    delta_nanos bigint NOT NULL,
    reason      text   NOT NULL,
    owner_epoch bigint NOT NULL,
    written_ns  bigint NOT NULL
);

CREATE INDEX adjustment_of ON adjustment (call_id, n);

CREATE FUNCTION adjustment_stands() RETURNS trigger LANGUAGE plpgsql
AS 'BEGIN RAISE EXCEPTION ''an adjustment is never changed or deleted''; END';

CREATE TRIGGER adjustment_stands BEFORE UPDATE OR DELETE ON adjustment
FOR EACH ROW EXECUTE FUNCTION adjustment_stands();

-- What attempts whose calls were received in a window have cost and hold, by what ceilings ask about. Whoever makes a
-- row adds the records up while nobody writes any; from then on the triggers below keep it in step with them, whoever
-- changes an attempt, and in whatever way. Calls that are forgotten stay in it.
CREATE TABLE balance (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    scope        text   NOT NULL CHECK (scope IN ('all', 'key', 'team', 'model', 'tier')),
    name         text   NOT NULL,
    start_ns     bigint NOT NULL,
    end_ns       bigint NOT NULL,               -- not included; the largest number: for ever
    spent_nanos  bigint NOT NULL,               -- lapsed holds at their worst case included
    lapsed_nanos bigint NOT NULL,
    held_nanos   bigint NOT NULL,
    told_nanos   bigint NOT NULL DEFAULT 0,     -- how much of it somebody was told of
    UNIQUE (scope, name, end_ns, start_ns)
);

CREATE FUNCTION count_attempts() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM balance) THEN
        RETURN NULL;
    END IF;
    UPDATE balance
    SET spent_nanos = balance.spent_nanos + told.spent, lapsed_nanos = balance.lapsed_nanos + told.lapsed,
        held_nanos = balance.held_nanos + told.held
    FROM (
        SELECT counted.id, sum(change.spent) AS spent, sum(change.lapsed) AS lapsed, sum(change.held) AS held
        FROM (
            SELECT call_id, tier,
                   CASE hold_state WHEN 'settled' THEN coalesce(cash_nanos, 0)
                                   WHEN 'lapsed' THEN coalesce(bound_nanos, 0) ELSE 0 END AS spent,
                   CASE hold_state WHEN 'lapsed' THEN coalesce(bound_nanos, 0) ELSE 0 END AS lapsed,
                   CASE hold_state WHEN 'held' THEN coalesce(bound_nanos, 0) ELSE 0 END AS held
            FROM rows_now
            UNION ALL
            SELECT call_id, tier,
                   -CASE hold_state WHEN 'settled' THEN coalesce(cash_nanos, 0)
                                    WHEN 'lapsed' THEN coalesce(bound_nanos, 0) ELSE 0 END,
                   -CASE hold_state WHEN 'lapsed' THEN coalesce(bound_nanos, 0) ELSE 0 END,
                   -CASE hold_state WHEN 'held' THEN coalesce(bound_nanos, 0) ELSE 0 END
            FROM rows_before
        ) AS change
        JOIN call ON call.id = change.call_id
        CROSS JOIN LATERAL (
            VALUES ('all', ''), ('key', call.key), ('team', call.team), ('model', call.asked_model),
                   ('tier', change.tier)
        ) AS whose (scope, name)
        JOIN balance AS counted
             ON counted.scope = whose.scope AND counted.name = whose.name
             AND counted.end_ns > call.received_ns AND counted.start_ns <= call.received_ns
        GROUP BY counted.id
    ) AS told
    WHERE balance.id = told.id;
    RETURN NULL;
END $$;

CREATE TRIGGER attempts_change AFTER UPDATE ON attempt
REFERENCING NEW TABLE AS rows_now OLD TABLE AS rows_before
FOR EACH STATEMENT EXECUTE FUNCTION count_attempts();

CREATE FUNCTION count_holds() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM balance) THEN
        RETURN NULL;
    END IF;
    UPDATE balance
    SET held_nanos = balance.held_nanos + told.held
    FROM (
        SELECT counted.id, sum(coalesce(hold.bound_nanos, 0)) AS held
        FROM rows_now AS hold
        JOIN call ON call.id = hold.call_id
        CROSS JOIN LATERAL (
            VALUES ('all', ''), ('key', call.key), ('team', call.team), ('model', call.asked_model),
                   ('tier', hold.tier)
        ) AS whose (scope, name)
        JOIN balance AS counted
             ON counted.scope = whose.scope AND counted.name = whose.name
             AND counted.end_ns > call.received_ns AND counted.start_ns <= call.received_ns
        GROUP BY counted.id
    ) AS told
    WHERE balance.id = told.id;
    RETURN NULL;
END $$;

CREATE TRIGGER attempts_begin AFTER INSERT ON attempt
REFERENCING NEW TABLE AS rows_now
FOR EACH STATEMENT EXECUTE FUNCTION count_holds();

CREATE FUNCTION count_adjustment() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE balance SET spent_nanos = balance.spent_nanos + NEW.delta_nanos
    FROM call
    JOIN attempt ON attempt.call_id = call.id AND attempt.n = NEW.n
    WHERE call.id = NEW.call_id
      AND balance.end_ns > call.received_ns AND balance.start_ns <= call.received_ns
      AND (balance.scope, balance.name) IN (
          ('all', ''), ('key', call.key), ('team', call.team), ('model', call.asked_model), ('tier', attempt.tier)
      );
    RETURN NULL;
END $$;

CREATE TRIGGER adjustment_counts AFTER INSERT ON adjustment
FOR EACH ROW EXECUTE FUNCTION count_adjustment();

CREATE TABLE receipt (
    key              text   NOT NULL,
    endpoint         text   NOT NULL,
    idempotency_hash bytea  NOT NULL,
    tenant           text   NOT NULL,
    fingerprint      bytea  NOT NULL,
    call_id          text   COLLATE "C" NOT NULL,
    owner_epoch      bigint NOT NULL,
    created_ns       bigint NOT NULL,
    state            text   NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'done', 'freed', 'unknown')),
    ended_ns         bigint,
    reply            bytea  CHECK (octet_length(reply) <= 1048576),
    PRIMARY KEY (key, endpoint, idempotency_hash)
);

CREATE INDEX receipt_age ON receipt (created_ns);
CREATE INDEX receipt_of ON receipt (call_id);

CREATE TABLE rollup (
    slot_ns        bigint NOT NULL,
    key            text   NOT NULL,
    team           text   NOT NULL,
    tag            text   NOT NULL,
    asked_model    text   NOT NULL,
    class          text   NOT NULL,
    target         text   NOT NULL,
    tier           text   NOT NULL,
    calls          bigint NOT NULL,
    succeeded      bigint NOT NULL,
    attempts       bigint NOT NULL,
    unpriced       bigint NOT NULL,
    input          bigint NOT NULL,
    cache_read     bigint NOT NULL,
    cache_write_5m bigint NOT NULL,
    cache_write_1h bigint NOT NULL,
    output         bigint NOT NULL,
    reasoning      bigint NOT NULL,
    audio_in       bigint NOT NULL,
    audio_out      bigint NOT NULL,
    images         bigint NOT NULL,
    cash_nanos     bigint NOT NULL,
    lapsed_nanos   bigint NOT NULL,
    bounded_nanos  bigint NOT NULL,
    gpu_ms         bigint NOT NULL,
    avoided_input  bigint NOT NULL DEFAULT 0,
    avoided_output bigint NOT NULL DEFAULT 0,
    avoided_nanos  bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (slot_ns, key, team, tag, asked_model, class, target, tier)
);

CREATE TABLE rolled (
    one           integer PRIMARY KEY CHECK (one = 1),
    before_ns     bigint NOT NULL,
    calls_from_ns bigint NOT NULL
);

INSERT INTO rolled VALUES (1, 0, 0);

CREATE TABLE stale_slot (
    slot_ns bigint PRIMARY KEY,
    adding  bigint                              -- the owner that adds it up; NULL once a record came since it began
);

CREATE TABLE virtual_key (
    name         text   NOT NULL PRIMARY KEY,
    digest       bytea  NOT NULL UNIQUE,
    hint         text   NOT NULL,
    team         text,
    models       text,
    tiers        text,
    data_class   text   NOT NULL DEFAULT 'any' CHECK (data_class IN ('any', 'private-only')),
    budget       text,
    metadata     text   NOT NULL DEFAULT '{}',
    created_ns   bigint NOT NULL,
    expires_ns   bigint,
    revoked_ns   bigint,
    old_digest   bytea  UNIQUE,
    old_until_ns bigint,
    made_under   bytea,
    limits       text
);
