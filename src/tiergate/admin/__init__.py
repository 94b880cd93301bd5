"""The admin plane: API, dashboard, metrics page, on its own listener."""

from tiergate.admin.desk import Desk
from tiergate.admin.keys import KeyWish
from tiergate.admin.listener import AdminListener
from tiergate.admin.plane import admin_plane

__all__ = ["AdminListener", "Desk", "KeyWish", "admin_plane"]
