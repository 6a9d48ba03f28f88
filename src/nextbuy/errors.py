"""Every error that nextbuy raises on purpose, in one tree.

    NextbuyError
    ├── DataError            the purchases cannot be read or used
    │   ├── UnreadableFileError   a file, folder, glob or query gives no table
    │   ├── ColumnError           a column is missing, doubled or of the wrong kind
    │   ├── TimeFormatError       timestamps cannot be told apart or lack a time zone
    │   └── EmptyDataError        nothing is left to work with
    ├── ConfigError          an option, name or combination of options is wrong
    ├── SplitError           the asked split leaves a side empty or needs what is not there
    ├── TrainingError        training cannot go on
    │   ├── NonFiniteLossError    the loss is NaN or infinite; the step was not taken
    │   ├── ResumeError           the checkpoint does not belong to this command
    │   ├── RunLockedError        another process trains in this folder
    │   ├── JoinError             a process may not or cannot join a team that trains
    │   └── PeerLostError         one of a team that trains is gone, hangs or cannot be reached
    ├── DamagedError         a stored file is missing, changed or not what it says
    │   └── BundleError           a bundle cannot be loaded
    ├── ServiceError         the service cannot do what was asked
    │   ├── ConflictError         an idempotency key was used for something else
    │   ├── ModelUnavailableError no bundle is loaded
    │   ├── OverloadedError       too much is waiting already; try again
    │   └── StoreError            the store cannot be used as it is
    │       └── StoreUnavailableError   nor can it be reached now; try again
    ├── NotFittedError       a model was asked before it was fitted
    └── MissingExtraError    an optional dependency is not installed

A message says what was asked, what was found (numbers, an example) and what to do.
"""


class NextbuyError(Exception):
    """Base of all errors that are raised on purpose; the message is meant for the user."""


class DataError(NextbuyError):
    """The purchases cannot be read or used."""


class UnreadableFileError(DataError):
    """A file, folder, glob or query gives no table."""


class ColumnError(DataError):
    """A column is missing, doubled or of the wrong kind."""


class TimeFormatError(DataError):
    """Timestamps cannot be told apart or lack a time zone."""


class EmptyDataError(DataError):
    """Nothing is left to work with."""


class ConfigError(NextbuyError):
    """An option, a name or a combination of options is wrong."""


class SplitError(NextbuyError):
    """The asked split leaves a side empty or needs what is not there."""


class TrainingError(NextbuyError):
    """Training cannot go on."""


class NonFiniteLossError(TrainingError):
    """The loss is NaN or infinite; the optimizer step was not taken."""


class TimeIsUpError(TrainingError):
    """A model cannot be fitted in the time that is left."""


class MemoryIsShortError(TrainingError):
    """A model cannot be fitted in the memory that it may take."""


class ResumeError(TrainingError):
    """The checkpoint in the folder does not belong to this command."""


class RunLockedError(TrainingError):
    """Another process trains in this folder."""


class JoinError(TrainingError):
    """A process may not or cannot join a team that trains."""


class PeerLostError(TrainingError):
    """One of a team that trains is gone, hangs or cannot be reached."""


class DamagedError(NextbuyError):
    """A stored file is missing, changed or not what it says it is."""


class BundleError(DamagedError):
    """A bundle cannot be loaded."""


class ServiceError(NextbuyError):
    """The service cannot do what was asked."""


class ConflictError(ServiceError):
    """An idempotency key was used for something else."""


class ModelUnavailableError(ServiceError):
    """No bundle is loaded."""


class OverloadedError(ServiceError):
    """Too much is waiting already; what was asked may be tried again."""

    def __init__(self, message: str, retry_after_seconds: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class TooManyJobsError(OverloadedError):
    """As many jobs wait as may: the service is well, but who asks has to come back."""


class StoreError(ServiceError):
    """The store of live purchases cannot be used as it is: another format, damaged, read-only."""


class StoreUnavailableError(StoreError):
    """The store cannot be reached, is full or busy; what was asked may be tried again."""

    def __init__(self, message: str, retry_after_seconds: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class NotFittedError(NextbuyError):
    """A model was asked for something before it was fitted."""


class MissingExtraError(NextbuyError):
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs {package}, which is not installed. "
            f"Install it with: pip install 'nextbuy[{extra}]'"
        )
