"""The errors of the storage model; each one is an answer that Cloud Storage gives, with its HTTP status and reason.

The model raises nothing else on purpose, and only the server turns them into HTTP.

StorageError
├── InvalidArgument        400
├── UserProjectMissing     400 (a bucket with Requester Pays, and nobody who pays)
├── RetentionPolicyNotMet  403 (the object is kept until its time)
├── ObjectUnderActiveHold  403 (the object is kept until its hold is removed)
├── NotFound               404
├── Conflict               409
├── PreconditionFailed     412
├── NotModified            304 (a read with a not-match condition)
├── RangeNotSatisfiable    416
├── Gone                   410 (a resumable upload that has ended)
├── Damaged                500 (somebody changed the files of the state folder by hand)
├── Unavailable            503 (Pub/Sub cannot be asked for a topic)
├── Unwritable             500 (the disk is full, or the state folder cannot be written)
└── NotSupported           400 (a call that is not here; on 404 or 501 gcloud would hide the reason or try for a minute)
"""

from __future__ import annotations


class StorageError(Exception):
    """`message` is the text that the client sees; `status` and `reason` stand in the error JSON."""

    status = 500
    reason = "backendError"

    def __init_subclass__(cls, status: int = 500, reason: str = "backendError") -> None:
        cls.status = status
        cls.reason = reason

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class InvalidArgument(StorageError, status=400, reason="invalid"): ...


class UserProjectMissing(StorageError, status=400, reason="required"): ...


class RetentionPolicyNotMet(StorageError, status=403, reason="retentionPolicyNotMet"): ...


class ObjectUnderActiveHold(StorageError, status=403, reason="objectUnderActiveHold"): ...


class Unavailable(StorageError, status=503, reason="backendError"): ...


class NotFound(StorageError, status=404, reason="notFound"): ...


class Conflict(StorageError, status=409, reason="conflict"): ...


class PreconditionFailed(StorageError, status=412, reason="conditionNotMet"):
    def __init__(self, message: str = "At least one of the pre-conditions you specified did not hold.") -> None:
        super().__init__(message)


class NotModified(StorageError, status=304, reason="notModified"):
    def __init__(self) -> None:
        super().__init__("Not Modified")


class RangeNotSatisfiable(StorageError, status=416, reason="requestedRangeNotSatisfiable"):
    """`size` is the object's length in bytes, for the Content-Range of the answer."""

    def __init__(self, size: int) -> None:
        super().__init__("Request range not satisfiable")
        self.size = size


class Gone(StorageError, status=410, reason="gone"): ...


class Damaged(StorageError): ...


class Unwritable(StorageError): ...


class NotSupported(StorageError, status=400, reason="notImplemented"): ...
