"""Speaks to hosted APIs and private servers over HTTP; turns their answers and failures into ours."""

from tiergate.upstream.allowances import read_allowances
from tiergate.upstream.openai import HttpUpstream, ReplicaStatistics, UpstreamStatistics
from tiergate.upstream.opening import open_transport
from tiergate.upstream.probe import Probe, probe
from tiergate.upstream.provider import Credential, Provider
from tiergate.upstream.transport import (
    Endpoint,
    Origin,
    OriginStatistics,
    Response,
    Timing,
    Transport,
    TransportStatistics,
)

__all__ = [
    "Credential",
    "Endpoint",
    "HttpUpstream",
    "Origin",
    "OriginStatistics",
    "Probe",
    "Provider",
    "ReplicaStatistics",
    "Response",
    "Timing",
    "Transport",
    "TransportStatistics",
    "UpstreamStatistics",
    "open_transport",
    "probe",
    "read_allowances",
]
