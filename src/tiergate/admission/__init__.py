"""Who is calling and may they enter now: keys and the caller's own rates and concurrency."""

from tiergate.admission.keys import Admission, AdmissionStatistics, Keyring

__all__ = ["Admission", "AdmissionStatistics", "Keyring"]
