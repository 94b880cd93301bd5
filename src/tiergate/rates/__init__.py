"""How much per minute and at one time, alone or shared with other processes: buckets, places, leases."""

from tiergate.rates.buckets import A_LEASE_S, BURST_S, Bucket, LeasedBucket, RateBucket
from tiergate.rates.learned import LearnedRate
from tiergate.rates.leasing import (
    ASKED_S,
    Leased,
    Leasing,
    LimitHolder,
    RateBank,
    RatesUnavailable,
    SharedLimit,
    Sharing,
    WithoutBank,
)
from tiergate.rates.places import LeasedPlaces
from tiergate.rates.wants import PlaceWant, Want

__all__ = [
    "ASKED_S",
    "A_LEASE_S",
    "BURST_S",
    "Bucket",
    "LearnedRate",
    "Leased",
    "LeasedBucket",
    "LeasedPlaces",
    "Leasing",
    "LimitHolder",
    "PlaceWant",
    "RateBank",
    "RateBucket",
    "RatesUnavailable",
    "SharedLimit",
    "Sharing",
    "Want",
    "WithoutBank",
]
