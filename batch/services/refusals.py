"""What Cloud Storage's refusals mean: the setting of the bucket, or the part of one request, that caused them, and what mends it.

A setting holds for everybody, so no task pays for it: DependencyForbidden. What is wrong with one request alone, such as an object that a
retention policy keeps, is ServiceRefused: the task's own failure. What another try may mend is DependencyUnavailable.

The words and texts are those of "HTTP status and error codes for JSON" in the documentation of Cloud Storage, and of answers that people
have reported. An error of an upload or a download may have a text only.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from batch.model.errors import DependencyForbidden, DependencyMissing, DependencyUnavailable, FanoutError, ServiceRefused

MAX_DETAIL_CHARS = 500
_SECRET = re.compile(r"([?&](?:upload_id|x-goog-signature|signature|access_token)=)[^&\s'\")]+", re.IGNORECASE)
_FORBIDDEN = frozenset({401, 402, 403, 407, 451})
_RETRIED = frozenset({408, 429})
_PASSING = frozenset({409, 410, 412, 416})
"""A conflict, an upload's session or a range that is gone, a precondition that nobody has set: it may be gone at the next try."""


class Where(NamedTuple):
    """What a request was about, for the messages."""

    action: str
    bucket: str
    project: str
    name: str = ""

    def __str__(self) -> str:
        target = f"object {self.name} in bucket {self.bucket}" if self.name else f"bucket {self.bucket}"
        return f"cannot {self.action} {target} (project {self.project})"


class Refusal(NamedTuple):
    """`status` is that of HTTP, 0 when there was no answer; `reason` the word that the JSON of an error has for it, empty without one."""

    status: int
    detail: str = ""
    reason: str = ""

    @property
    def shown(self) -> str:
        """The detail on one line, cut, without what lets others in: an upload's session and a signed URL need no more than themselves."""
        return _SECRET.sub(r"\1…", " ".join(self.detail.split()))[:MAX_DETAIL_CHARS]


class Rule(NamedTuple):
    """`reasons` (a `*` at the end stands for any more) and `texts` are in lower case: one of them must be in the answer. `advice` says what
    is the case and what mends it; it names {bucket}, {project} and {name}."""

    kind: type[FanoutError]
    advice: str
    reasons: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()

    def fits(self, refusal: Refusal) -> bool:
        """Whether this rule explains the refusal."""
        reason, detail = refusal.reason.lower(), refusal.detail.lower()
        named = any(reason.startswith(one[:-1]) if one.endswith("*") else reason == one for one in self.reasons)
        return named or any(one in detail for one in self.texts)


RULES = (
    Rule(
        DependencyForbidden,
        "the bucket has Requester Pays, and no project was named that pays: set BILLING_PROJECT to a project on which this identity has "
        "roles/serviceusage.serviceUsageConsumer, or turn it off with `gcloud storage buckets update gs://{bucket} --no-requester-pays`",
        ("userprojectmissing", "authenticationrequiredrequesterpays"),
        ("requester pays bucket but no user project",),
    ),
    Rule(
        DependencyForbidden,
        "the project that BILLING_PROJECT names cannot be billed: grant this identity roles/serviceusage.serviceUsageConsumer on it, "
        "and look whether its billing account is open",
        ("userproject*",),
        ("serviceusage.services.use",),
    ),
    Rule(
        DependencyForbidden,
        "billing is off for the project of the bucket, or for the one that pays: link an open account with "
        "`gcloud billing projects link PROJECT --billing-account=ACCOUNT`",
        ("accountdisabled",),
        ("billing account", "billing disabled", "not configured billing", "billing to be enabled", "billing is disabled"),
    ),
    Rule(
        DependencyForbidden,
        "the key that the bucket encrypts with (CMEK) cannot be used: let Cloud Storage use it with "
        "`gcloud storage service-agent --project={project} --authorize-cmek=KEY`, and look whether the key's version is enabled; "
        "`gcloud storage buckets describe gs://{bucket} --format='value(default_kms_key)'` names it",
        ("cloudkms*",),
        ("cloud kms", "cloudkms."),
    ),
    Rule(
        ServiceRefused,
        "a retention policy keeps the object that is there, which can be neither replaced nor deleted before its time: write under another "
        "name, or look at `gcloud storage buckets describe gs://{bucket} --format='value(retention_policy)'`",
        ("retentionpolicynotmet",),
        ("retention policy", "object retention"),
    ),
    Rule(
        ServiceRefused,
        "a hold keeps the object that is there: write under another name, or end the hold with "
        "`gcloud storage objects update 'gs://{bucket}/{name}' --no-temporary-hold --no-event-based-hold`",
        ("objectunderactivehold",),
        ("event-based hold", "temporary hold", "active hold"),
    ),
    Rule(
        ServiceRefused,
        "it is encrypted with a key of a customer's own (CSEK), which Fanout does not have: store it without one",
        ("resourceisencryptedwith*", "resourcenotencryptedwith*", "customerencryption*"),
        ("customer-supplied encryption key", "customer supplied encryption key"),
    ),
    Rule(
        DependencyForbidden,
        "the bucket has uniform bucket-level access, and the request named an access list (ACL) of an object: grant roles on the bucket",
        (),
        ("uniform bucket-level access", "bucket policy only", "legacy acl", "object policies are disabled"),
    ),
    Rule(
        DependencyForbidden,
        "a policy of the organization forbids it: ask those who administer it, and see `gcloud org-policies list --project={project}`",
        ("orgpolicyconstraintfailed",),
        ("constraints/",),
    ),
    Rule(
        DependencyForbidden,
        "VPC Service Controls forbid it: bring this identity and the project of the bucket into one perimeter, or let it in by a rule",
        ("vpcservicecontrols",),
        ("vpc service controls", "vpc_service_controls", "vpcservicecontrols"),
    ),
    Rule(
        DependencyForbidden,
        "the API of Cloud Storage is off: `gcloud services enable storage.googleapis.com --project={project}`",
        ("accessnotconfigured", "usagelimits.accessnotconfigured"),
        ("service_disabled",),
    ),
    Rule(
        DependencyUnavailable,
        "it is asked for more often than a limit allows; one object takes about one write a second: try again later",
        ("ratelimitexceeded", "userratelimitexceeded", "usagelimits.ratelimitexceeded", "quotaexceeded"),
        ("rate limit",),
    ),
    Rule(
        ServiceRefused,
        "it is too large: Cloud Storage takes at most 5 TiB an object, and 8 KiB of metadata",
        ("uploadtoolarge",),
        ("custom metadata of an object", "metadata is too large"),
    ),
)
"""The first that fits counts."""


def explained(where: Where, refusal: Refusal) -> FanoutError | None:
    """Our error for a refusal whose cause is known; None for others."""
    if not 400 <= refusal.status < 500:
        return None
    rule = next((one for one in RULES if one.fits(refusal)), None)
    if rule is None:
        return None
    advice = rule.advice.format(bucket=where.bucket, project=where.project, name=where.name)
    return rule.kind(f"{where}: refused with {refusal.status}: {advice}: {refusal.shown}")


def translated(where: Where, refusal: Refusal) -> FanoutError:
    """Our error for any answer but a success, an object's 404, and a 412 to a request with a precondition."""
    return explained(where, refusal) or _by_status(where, refusal.status, refusal.shown)


def is_passing(where: Where, refusal: Refusal, *, is_conditional: bool) -> bool:
    """Whether the same request, sent again, may well succeed. A 412 to a request with a precondition is its answer."""
    if refusal.status not in _PASSING or (is_conditional and refusal.status == 412):
        return False
    return explained(where, refusal) is None


def unreadable(where: Where, error: Exception) -> DependencyUnavailable:
    """Our error for an answer that Cloud Storage does not give."""
    return DependencyUnavailable(f"{where}: the answer does not come from Cloud Storage; find the proxy in between: {error!r:.300}")


def corrupted(where: Where, how: str) -> DependencyUnavailable:
    """Our error for content that does not have the checksum of what is stored."""
    return DependencyUnavailable(f"{where}: what arrived is not what is stored, by its checksum; try again later: {how}")


def _by_status(where: Where, status: int, detail: str) -> FanoutError:
    if status == 404:
        return DependencyMissing(
            f"{where}: bucket {where.bucket} does not exist in project {where.project}: create it with "
            f"`gcloud storage buckets create gs://{where.bucket} --project={where.project}`, or fix BUCKET_NAME; if somebody deleted it, "
            "it may be restored as long as no other has its name: `gcloud storage ls --buckets --soft-deleted`"
        )
    if status in _FORBIDDEN:
        return DependencyForbidden(
            f"{where}: refused with {status}: grant this identity the custom role fanoutObjects (a worker: "
            f"fanoutWorkerObjects), or roles/storage.objectUser, on gs://{where.bucket}, or run as another identity: {detail}"
        )
    if status == 0 or status in _RETRIED or status >= 500:
        answer = f"answered {status}" if status else "did not answer"
        return DependencyUnavailable(f"{where}: Cloud Storage {answer} until the time for retries was over; try again later: {detail}")
    if status in _PASSING or status < 400:
        return DependencyUnavailable(
            f"{where}: Cloud Storage answered {status}, which this request should not meet; try again later: {detail}"
        )
    return ServiceRefused(f"{where}: Cloud Storage refused the request with {status}; repeating it cannot help: {detail}")


def tells_secrets(error: Exception) -> bool:
    """Whether its text, which stands in every traceback below ours, lets others in."""
    return _SECRET.search(str(error)) is not None


def refusal_of(error: Exception) -> Refusal:
    """What the service said, by an error of its client. A retry that gave up counts as its last error."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, Exception):
        return refusal_of(cause)
    response = getattr(error, "response", None)
    status = getattr(error, "code", None) or getattr(response, "status_code", None)
    return Refusal(status if isinstance(status, int) else 0, f"{type(error).__name__}: {error}", _reason(error, response))


def _reason(error: Exception, response: Any) -> str:
    """Errors of uploads and downloads keep the answer alone."""
    try:
        errors = getattr(error, "errors", None) or response.json()["error"]["errors"]
        return str(errors[0]["reason"])
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        return ""
