# SPDX-License-Identifier: MIT
"""Another firewall tool's flush on the host, while containers of the veth tier send without pause."""

import os
import time

import pytest

from egress_lab import lab  # noqa: F401 (fixture)
from engines import need
from processes import wait_until
from test_n_engines import PROBER, floor, only_allowed_left, podman, policy, service  # noqa: F401 (fixtures)

FLUSHES = 20
KERNEL = tuple(int(n) for n in os.uname().release.split(".")[:2])

pytestmark = [pytest.mark.skipif(need("podman", "nft") is not None, reason="left out: %s" % need("podman", "nft")),
              pytest.mark.skipif(KERNEL < (6, 9), reason="left out: before Linux 6.9 what has an owner goes with "
                                                         "it, so our tables have none")]


@pytest.fixture
def sending(service, podman, policy):
    """A container of the veth tier that sends without pause; the sandbox's name."""
    _, name = podman.start("podman", {"agentd.egress.policy": policy, "agentd.egress.tier": "veth"},
                           "python3", "-c", PROBER)
    service.wait_enforced(name[:12])
    yield name[:12]
    podman.remove(name)
    service.wait_gone(name[:12])


def refused(service, sandbox):
    return service.one(sandbox)["counts"]["kernel_refused_packets"]


def test_a_flush_of_the_host_passes_our_tables_by(lab, service, sending):
    mark = lab.mark()
    before = refused(service, sending)
    for _ in range(FLUSHES):
        assert lab.from_host("nft", "flush", "ruleset").returncode == 0
        time.sleep(0.02)
    wait_until(lambda: refused(service, sending) > before + 100, 20, "it sends, and is refused")
    only_allowed_left(lab, mark)
    assert not lab.packets(mark)

