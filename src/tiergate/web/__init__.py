"""The data plane's front door: HTTP endpoints, authentication header, streaming body."""
