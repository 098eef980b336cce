"""What the tests share: small models and images, servers, launchers, and a reference loss."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""Folder of the repository."""
