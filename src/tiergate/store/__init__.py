"""Keeps ledger entries, keys, jobs and cached answers in SQLite; all SQL lives here."""
