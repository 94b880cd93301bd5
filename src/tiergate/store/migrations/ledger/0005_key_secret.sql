-- A mark of the secret under which a key's digest was made: under another one the key opens nothing. NULL: not known.
ALTER TABLE virtual_key ADD COLUMN made_under BLOB;
