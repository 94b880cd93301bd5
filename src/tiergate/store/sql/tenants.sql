-- Statements on tenants. Whoever comes first gives a tenant its salt.

-- name: salt
INSERT INTO tenant (name, salt, salted_ns) VALUES (:name, :salt, :now_ns) ON CONFLICT (name) DO NOTHING;

-- name: all
SELECT name, salt FROM tenant;

-- name: forget
DELETE FROM tenant WHERE name = :name;
