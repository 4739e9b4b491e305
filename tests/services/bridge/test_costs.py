"""The benchmark of the bridge runs, on each broker."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("faststream")

from support.transports import KINDS

pytestmark = pytest.mark.once

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("broker", "kind"), [("nats", "nats"), ("redis", "redis"), ("rabbitmq", "rabbit")]
)
def test_each_broker_is_measured_beside_its_raw_client(broker: str, kind: str) -> None:
    """With a few events; the numbers of such a run mean nothing."""
    KINDS[kind].find()
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.bridge", broker, "--rounds=1", "--events=40"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == [broker] * 3
    assert "bridge, 1,000 keys" in done.stdout
