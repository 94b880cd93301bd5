"""Who is calling and may they enter now: keys and the caller's own rates and concurrency."""

from tiergate.admission.keys import Admission, AdmissionStatistics, Keyring
from tiergate.admission.virtual import KEY_PREFIX, KeyBudget, KeyMaker, KeyStore, VirtualKey

__all__ = [
    "KEY_PREFIX",
    "Admission",
    "AdmissionStatistics",
    "KeyBudget",
    "KeyMaker",
    "KeyStore",
    "Keyring",
    "VirtualKey",
]
