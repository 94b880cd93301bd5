-- The shape of some questions, as counts with commas between: what estimates of input tokens learn from. It is
-- written with the hold, so the row's room is not touched; no text can be told from it.
ALTER TABLE attempt ADD COLUMN prompt_shape TEXT;
