"""Shared by the tests: servers, clients, fakes, programs. No test imports another test."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# A test that waits for longer than this has failed.
TIMEOUT = 20.0
