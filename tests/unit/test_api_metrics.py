"""/metrics: valid Prometheus text that agrees with the views, and documentation that names every family."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from attrs import evolve
from prometheus_client.parser import text_string_to_metric_families

from bgpd.api import metrics
from bgpd.api.limits import Pace
from bgpd.api.metrics import Exposition, names
from bgpd.api.state import DaemonState
from bgpd.api.views import Views

from .api_support import World

DOCUMENT = Path(__file__).parents[2] / "docs" / "metrics.md"


async def _samples(state: DaemonState) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    text = (await Exposition(Views(state)).text(Pace())).decode()
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    families = [family.name for family in text_string_to_metric_families(text)]
    assert len(families) == len(set(families)), "a family is in one piece, with one header"
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return found


async def test_metrics_agree_with_the_views() -> None:
    world = World({"10.60.0.0/16": (101, "Network is unreachable")})
    world.host.speaker.peers["tor"].findings["MED: attribute discarded"] = 3
    found = await _samples(world.state)
    assert found["bgpd_ready"][()] == 1
    assert found["bgpd_peers"][("kind", "established"),] == 2
    tor = (("address", "10.0.0.3"), ("asn", "64600"), ("kind", "ebgp"), ("peer", "tor"))
    assert found["bgpd_peer_up"][tor] == 1
    assert found["bgpd_peer_state"][("peer", "absent"),] == 3
    labels = (("family", "ipv4"), ("peer", "tor"), ("table", "advertised"))
    assert found["bgpd_peer_prefixes"][labels] == 3
    assert found["bgpd_kernel_routes"][("family", "ipv4"), ("state", "refused")] == 1
    assert found["bgpd_datastore_problems"][()] == 1
    assert found["bgpd_peer_attribute_errors_total"][("error", "MED: attribute discarded"), ("peer", "tor")] == 3
    assert "process_resident_memory_bytes" in found


async def test_a_daemon_without_a_speaker_is_scraped() -> None:
    found = await _samples(DaemonState("node-a", "1"))
    assert found["bgpd_ready"][()] == 0
    assert "bgpd_peer_up" not in found


async def test_many_peers_are_one_family_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "_SAMPLES", 1)
    found = await _samples(World().state)
    assert len(found["bgpd_peer_up"]) == 3


async def test_what_is_documented_is_what_is_exported() -> None:
    world = World({"10.60.0.0/16": (101, "Network is unreachable")})
    speaker = world.host.speaker
    speaker.peers["tor"].findings["MED: attribute discarded"] = 3
    speaker.peers["absent"].settings = evolve(speaker.peers["absent"].settings, disabled="its password is missing")
    text = (await Exposition(Views(world.state)).text(Pace())).decode()
    exported = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE bgpd_")}
    rows = dict(re.findall(r"^\| `(bgpd_\w+)` \| (.*?) \|", DOCUMENT.read_text(), re.MULTILINE))
    assert exported == rows.keys()
    for name, _, labels in names():
        told = set(re.findall(r"`(\w+)`", rows[name])) | ({"peer"} if name.startswith("bgpd_peer_") else set())
        assert told == set(labels), name


async def test_names_follow_prometheus_conventions() -> None:
    """Base units, `_total` on counters alone, a help text without a full stop (prometheus.io, "naming")."""
    text = (await Exposition(Views(World().state)).text(Pace())).decode()
    kinds = dict(re.findall(r"^# TYPE (\S+) (\w+)$", text, re.MULTILINE))
    for name, kind in kinds.items():
        assert re.fullmatch(r"[a-z][a-z0-9_]*", name)
        assert name.endswith("_total") == (kind == "counter"), name
        assert not re.search(r"_(ms|us|minutes|hours|kb|mb|percent)(_|$)", name), name
    for name, said in re.findall(r"^# HELP (bgpd_\S+) (.*)$", text, re.MULTILINE):
        assert said and not said.endswith("."), name
