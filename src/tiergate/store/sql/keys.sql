-- Statements on virtual keys. Each UPDATE names the state that it leaves: a revoked key stays revoked.

-- name: all
SELECT name, digest, hint, team, models, tiers, data_class, budget, metadata, created_ns, expires_ns, revoked_ns,
       old_digest, old_until_ns, made_under, limits
FROM virtual_key ORDER BY created_ns, name;

-- name: add
INSERT INTO virtual_key (name, digest, hint, team, models, tiers, data_class, budget, metadata, created_ns, expires_ns,
                         made_under, limits)
VALUES (:name, :digest, :hint, :team, :models, :tiers, :data_class, :budget, :metadata, :created_ns, :expires_ns,
        :made_under, :limits)
ON CONFLICT (name) DO NOTHING;

-- name: revoke
UPDATE virtual_key SET revoked_ns = :now_ns, old_digest = NULL, old_until_ns = NULL
WHERE name = :name AND revoked_ns IS NULL;

-- name: rotate
UPDATE virtual_key SET old_digest = digest, old_until_ns = :until_ns, digest = :digest, hint = :hint,
                       made_under = :made_under
WHERE name = :name AND revoked_ns IS NULL;
