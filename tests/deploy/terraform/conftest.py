"""Fixtures of these tests."""

from tests.deploy.terraform.running import plan, terraform

__all__ = ["plan", "terraform"]
