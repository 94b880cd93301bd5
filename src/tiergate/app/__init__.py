"""Builds the whole house from settings; owns start-up, shutdown, the Python Gateway and the commands."""
