-- Statements on cache.db; see `store/shelf.py`.

-- name: get
SELECT value FROM answer WHERE key = :key AND expires_ns > :now_ns;

-- name: size_of
SELECT length(value) FROM answer WHERE key = :key;

-- name: put
INSERT INTO answer (key, tenant, entry, expires_ns, value) VALUES (:key, :tenant, :entry, :expires_ns, :value)
ON CONFLICT (key) DO UPDATE
SET tenant = excluded.tenant, entry = excluded.entry, expires_ns = excluded.expires_ns, value = excluded.value;

-- name: total
SELECT coalesce(sum(length(value)), 0) FROM answer;

-- name: purge
DELETE FROM answer
WHERE (:tenant IS NULL OR tenant = :tenant) AND (:entry IS NULL OR entry = :entry);

-- name: forget_old
DELETE FROM answer
WHERE rowid IN (SELECT rowid FROM answer WHERE expires_ns <= :now_ns ORDER BY expires_ns LIMIT :most)
RETURNING length(value);

-- Those that go first anyway make room.
-- name: make_room
DELETE FROM answer WHERE rowid IN (SELECT rowid FROM answer ORDER BY expires_ns LIMIT :most)
RETURNING length(value);
