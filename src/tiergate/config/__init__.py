"""Reads files and environment into one frozen, validated, secret-hiding settings object."""
