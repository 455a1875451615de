-- min_compatible_version: 1
-- {s} is the quoted schema. Keys begin with session_id; nothing here needs an extension.

CREATE TABLE {s}.sessions (
    session_id       text COLLATE "C" PRIMARY KEY CHECK (length(session_id) BETWEEN 1 AND 100),
    id               bigint GENERATED ALWAYS AS IDENTITY,        -- for the compatible view alone
    state            text NOT NULL DEFAULT 'live' CHECK (state IN ('live', 'cleared', 'deleted')),
    revision         bigint NOT NULL DEFAULT 0,                  -- one committed flush = one more; 0: never stored
    generation       bigint NOT NULL DEFAULT 1,                  -- rows born in it are updated in place
    manifest_digest  bytea NOT NULL DEFAULT decode(repeat('00', 32), 'hex'),
    file_count       bigint NOT NULL DEFAULT 0,
    total_bytes      bigint NOT NULL DEFAULT 0,
    last_writer      uuid,
    last_push_id     uuid,
    scope            text,                                       -- the service that first stored it
    key_id           text,                                       -- the sealing key, if sealed
    owner            uuid,                                       -- the lease
    token            bigint NOT NULL DEFAULT 0,
    expires_at       timestamptz,
    request_owner    uuid,                                       -- a successor's request
    request_number   bigint,
    request_expires_at timestamptz,
    standing_order   jsonb,                                      -- a one-shot's order to the owner
    order_outcome    jsonb,
    legacy_updated_at timestamp,                                 -- of the imported row of an old table
    created_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at       timestamptz NOT NULL DEFAULT clock_timestamp()  -- the last committed flush
) WITH (fillfactor = 50);  -- a lease renewal and a flush each write the row: room for in-page updates

CREATE TABLE {s}.files (
    session_id  text COLLATE "C" NOT NULL,
    branch      bigint NOT NULL DEFAULT 0,                       -- 0: the line; else a copy
    path        text COLLATE "C" NOT NULL,
    born        bigint NOT NULL,                                 -- the generation that made this row
    died        bigint,                                          -- the generation that closed it
    size        bigint NOT NULL,
    sha256      bytea NOT NULL,
    is_text     boolean NOT NULL,                                -- valid UTF-8 without NUL; decided at write
    content     bytea NOT NULL,
    PRIMARY KEY (session_id, branch, path, born)
) WITH (fillfactor = 80);

-- Pruning finds closed rows here; live rows, which every flush updates in place, are not part of it.
CREATE INDEX files_died ON {s}.files (session_id, branch, died) WHERE died IS NOT NULL;

CREATE TABLE {s}.snapshots (
    session_id       text COLLATE "C" NOT NULL,
    number           bigint GENERATED ALWAYS AS IDENTITY,
    branch           bigint NOT NULL DEFAULT 0,
    generation       bigint NOT NULL,
    taken_at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    reason           text NOT NULL CHECK (reason IN ('start', 'paired', 'hourly', 'cleared', 'identity', 'rollback', 'diverged', 'manual')),
    note             text,
    revision         bigint NOT NULL,
    paired           boolean NOT NULL DEFAULT false,
    file_count       bigint NOT NULL,
    total_bytes      bigint NOT NULL,
    manifest_digest  bytea NOT NULL,
    PRIMARY KEY (session_id, number),
    UNIQUE (session_id, branch, generation)
);

CREATE TABLE {s}.owners (
    session_id   text COLLATE "C" NOT NULL,
    number       bigint GENERATED ALWAYS AS IDENTITY,            -- the order of starts, by the database
    owner        uuid NOT NULL,
    command      text NOT NULL,
    scope        text,
    deployment   text,
    host         text,
    boot_id      text,
    version      text,
    asked_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    seen_at      timestamptz NOT NULL DEFAULT clock_timestamp(), -- of one that waits
    acquired_at  timestamptz,
    ended_at     timestamptz,
    outcome      text,
    PRIMARY KEY (session_id, number)
);
CREATE INDEX owners_owner ON {s}.owners (session_id, owner);

-- What readers of the old table expect. is_text was decided at write: converting here would fail for all rows on the
-- first file with a NUL or invalid UTF-8.
CREATE VIEW {s}.whatsapp_sessions AS
SELECT s.id::integer AS id,
       s.session_id::varchar(100) AS session_id,
       coalesce(f.session_data, '{}'::jsonb) AS session_data,
       s.created_at::timestamp AS created_at,
       s.updated_at::timestamp AS updated_at
  FROM {s}.sessions s
  LEFT JOIN LATERAL (
       SELECT jsonb_object_agg(path, CASE WHEN is_text THEN to_jsonb(convert_from(content, 'UTF8')) END) AS session_data
         FROM {s}.files
        WHERE files.session_id = s.session_id AND branch = 0 AND died IS NULL AND is_text
       ) f ON true
 WHERE s.state = 'live' AND s.revision > 0 AND s.key_id IS NULL;
