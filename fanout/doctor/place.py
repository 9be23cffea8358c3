"""Where doctor looks, and the gcloud commands that belong there."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Place:
    """`controller_url` and `audience`, of the tokens that the controller takes, are empty where they are not known."""

    project: str
    region: str
    bucket: str
    billing_project: str = ""
    controller_url: str = ""
    audience: str = ""

    def update_subscription(self, name: str, options: str) -> str:
        return f"gcloud pubsub subscriptions update {name} --project={self.project} {options}"

    def create_subscription(self, name: str, topic: str, dead_letter_topic: str) -> str:
        net = f" --dead-letter-topic={dead_letter_topic} --max-delivery-attempts=100" if dead_letter_topic else ""
        settings = "--ack-deadline=60 --message-retention-duration=7d --expiration-period=never"
        return f"gcloud pubsub subscriptions create {name} --project={self.project} --topic={topic} {settings}{net}"

    def create_topic(self, name: str) -> str:
        return f"gcloud pubsub topics create {name} --project={self.project}"

    def update_job(self, name: str, options: str) -> str:
        return f"gcloud run jobs update {name} --project={self.project} --region={self.region} {options}"

    def grant(self, kind: str, name: str, member: str, role: str) -> str:
        """`kind` is `topic`, `subscription`, `job` or `bucket`."""
        if kind == "bucket":
            return f"gcloud storage buckets add-iam-policy-binding gs://{name} --member={member} --role={role}"
        group = {"topic": "pubsub topics", "subscription": "pubsub subscriptions", "job": "run jobs"}[kind]
        region = f" --region={self.region}" if kind == "job" else ""
        return f"gcloud {group} add-iam-policy-binding {name} --project={self.project}{region} --member={member} --role={role}"

    @property
    def service_agent(self) -> str:
        """Pub/Sub's own account, as a shell writes it: its number is found when the command runs."""
        number = f"$(gcloud projects describe {self.project} --format='value(projectNumber)')"
        return f'"serviceAccount:service-{number}@gcp-sa-pubsub.iam.gserviceaccount.com"'
