"""Who is calling and may they enter now: keys and the caller's own rates and concurrency."""
