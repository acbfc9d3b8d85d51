"""Shared by the tests: servers, clients, fakes, programs. No test imports another test."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# Seconds after which a test that still waits has failed.
TIMEOUT = 20.0

# The same for what another program does, where many of them share a busy machine. One that ends has
# failed at once.
PATIENCE = 120.0
