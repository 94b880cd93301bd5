"""The admin plane: API, dashboard, metrics page, on its own listener."""
