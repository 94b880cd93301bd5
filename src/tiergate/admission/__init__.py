"""Who is calling and may they enter now: keys and the caller's own rates and concurrency."""

from tiergate.admission.door import Admission, AdmissionStatistics, Visitor
from tiergate.admission.keys import Keyring
from tiergate.admission.limits import (
    CHOICES_MAX,
    CONCURRENCY_MAX,
    IMAGES_MAX,
    OUTPUT_TOKENS_MAX,
    RPM_MAX,
    TPM_MAX,
    Allowance,
    KeyLimits,
    RateLeft,
)
from tiergate.admission.virtual import KEY_PREFIX, KeyBudget, KeyMaker, KeyStore, VirtualKey

__all__ = [
    "CHOICES_MAX",
    "CONCURRENCY_MAX",
    "IMAGES_MAX",
    "KEY_PREFIX",
    "OUTPUT_TOKENS_MAX",
    "RPM_MAX",
    "TPM_MAX",
    "Admission",
    "AdmissionStatistics",
    "Allowance",
    "KeyBudget",
    "KeyLimits",
    "KeyMaker",
    "KeyStore",
    "Keyring",
    "RateLeft",
    "VirtualKey",
    "Visitor",
]
