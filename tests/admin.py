"""The admin plane of a gateway process, asked over its own socket."""

from typing import Any

from flow.plain_http import Answer, ask, bearer
from house import GatewayProcess
from tiergate.store import find_owner


def admin(gateway: GatewayProcess, path: str, *, token: str | None = None, body: Any = None) -> Answer:
    """Ask with the operator's token, or another one; with a body it is a POST."""
    owner = find_owner(gateway.data_dir)
    assert owner is not None and owner.admin is not None
    port = int(owner.admin.rpartition(":")[2])
    return ask(port, path, body, headers=[bearer(token or owner.admin_token or "")])
