"""The ledger on PostgreSQL: fills the same ports as the SQLite file, for several replicas at once.

Needs psycopg (`pip install 'tiergate[postgres]'`); nothing imports this before a setting asks for it.
"""

from tiergate.store.postgres.place import ServerPlace

__all__ = ["ServerPlace"]
