"""Attributes that are only passed on, shown by bgpctl in ExaBGP's words or as octets."""

from __future__ import annotations

import subprocess
import sys

import pytest

from bgpd.api.schema import Attributes
from bgpd.ctl import exabgp_text, words


def attrs(**changes: object) -> Attributes:
    base: Attributes = {
        "origin": "igp",
        "as_path": "",
        "next_hop": "10.0.0.1",
        "med": None,
        "local_pref": None,
        "communities": [],
        "large_communities": [],
        "extended_communities": [],
        "originator_id": None,
        "cluster_list": [],
        "unknown": [],
    }
    return {**base, **changes}  # type: ignore[typeddict-item]


@pytest.fixture
def without_exabgp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exabgp_text, "_decoder", lambda: None)
    exabgp_text.attribute_text.cache_clear()


def test_an_extended_community_is_named() -> None:
    assert "extended communities target:65000:100" in words.attributes(attrs(extended_communities=["0002fde800000064"]))


@pytest.mark.usefixtures("without_exabgp")
def test_without_the_extra_octets_are_shown() -> None:
    shown = words.attributes(
        attrs(extended_communities=["0002fde800000064"], unknown=[{"code": 22, "flags": 0xC0, "value": "00060000000a"}])
    )
    assert "extended communities 0002fde800000064" in shown
    assert "attribute 22 (6 octets)" in shown


@pytest.mark.parametrize("flags", [0xC0, 0xE0], ids=["whole", "partial"])
def test_a_pmsi_tunnel_is_named(flags: int) -> None:
    shown = words.attributes(attrs(unknown=[{"code": 22, "flags": flags, "value": "00060000000a000001"}]))
    assert "attribute 22 (pmsi:ingressreplication" in shown
    assert "10.0.0.1" in shown


@pytest.mark.parametrize("value", ["", "00", "ff" * 40, "00" * 3000])
@pytest.mark.parametrize("code", [22, 25, 26, 29, 40, 99, 128, 255])
def test_whatever_its_decoders_do_an_answer_comes(code: int, value: str) -> None:
    shown = words.attributes(attrs(unknown=[{"code": code, "flags": 0xC0, "value": value}]))
    assert f"attribute {code} (" in shown
    assert shown.isprintable()


def test_the_daemon_never_loads_exabgp() -> None:
    code = "import sys, bgpd.__main__, bgpd.api.server; sys.exit('exabgp' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
