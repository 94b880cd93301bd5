-- What a job has spent, and what of it a dead owner left: asked for when its first hold after a start is placed.
CREATE INDEX call_job ON call (job_id) WHERE job_id IS NOT NULL;
CREATE INDEX attempt_lapsed ON attempt (call_id) WHERE hold_state = 'lapsed';
