-- What a key may do: {"rpm", "tpm", "concurrency"} as JSON, null where there is no limit. NULL: none at all.
ALTER TABLE virtual_key ADD COLUMN limits TEXT;
