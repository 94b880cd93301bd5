"""How much per minute, alone or shared with other processes: buckets, and leases from a bank of rates."""

from tiergate.rates.buckets import A_LEASE_S, BURST_S, Bucket, LeasedBucket, RateBucket
from tiergate.rates.leasing import (
    ASKED_S,
    Leased,
    Leasing,
    RateBank,
    RateHolder,
    RatesUnavailable,
    SharedRate,
    Sharing,
    Want,
    WithoutBank,
)

__all__ = [
    "ASKED_S",
    "A_LEASE_S",
    "BURST_S",
    "Bucket",
    "Leased",
    "LeasedBucket",
    "Leasing",
    "RateBank",
    "RateBucket",
    "RateHolder",
    "RatesUnavailable",
    "SharedRate",
    "Sharing",
    "Want",
    "WithoutBank",
]
