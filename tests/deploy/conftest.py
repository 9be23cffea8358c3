"""Fixtures of the deployment's tests."""

from tests.deploy.recorder.fixtures import gcloud, recorder

__all__ = ["gcloud", "recorder"]
