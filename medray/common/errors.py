"""The error tree. Each error is also a built-in type and has no `__init__` of its own,
so that it pickles between Ray processes.

A message says what is wrong, where, and how to mend it; it never holds record text.
"""


class MedrayError(Exception):
    """An error the user can mend. The command line prints its message and exits with 2."""


class ConfigError(MedrayError, ValueError):
    """A profile or an override is wrong."""


class DataError(MedrayError, ValueError):
    """Input data are missing, unreadable or malformed."""


class StorageError(MedrayError, OSError):
    """The storage root cannot be read or written."""


class CheckpointError(MedrayError, ValueError):
    """A model directory or checkpoint is missing a part or does not fit."""


class GenerationError(MedrayError, RuntimeError):
    """A model that is running failed to answer."""


class ServiceError(MedrayError, ConnectionError):
    """A Ray cluster, a port or an endpoint is not there."""


class QualityError(MedrayError, ValueError):
    """An indicator definition is wrong."""
