"""The command line of bgp-reflector, and the settings that it gives."""

from __future__ import annotations

from pathlib import Path

import pytest

from bgpd.settings import AddPath
from reflector.__main__ import main
from reflector.flags import flag_settings
from reflector.options import parse_arguments

GOOD = ["--asn", "64512", "--router-id", "10.0.0.9", "--cluster-id", "1.1.1.1", "--clients", "10.0.0.0/8,fd00::/8"]


def test_flags_give_clients_of_both_families_and_nothing_of_a_kernel() -> None:
    options = parse_arguments([*GOOD, "--listen", "10.0.0.9:1790", "--peers", "10.0.0.8,[fd00::8]:179"], "x")
    settings = flag_settings(options, "key")
    assert settings.listen == (("10.0.0.9", 1790),)
    assert [cidr for cidr, _ in settings.dynamic] == ["10.0.0.0/8", "fd00::/8"]
    template = settings.dynamic[0][1]
    assert template.reflector_client and template.passive and template.password == "key"
    assert template.cluster_id == settings.cluster_id == "1.1.1.1"
    assert [f.family.afi for f in template.families] == [1, 2]
    assert all(f.add_path is AddPath.BOTH and f.max_prefixes == 100_000 for f in template.families)
    assert (template.max_attribute_sets, template.max_octets) == (20_000, 64 * 1024 * 1024)
    assert (settings.max_dynamic, settings.connection_rate) == (10_000, 10)
    assert settings.forwarding_kept and not settings.fib.enabled and not settings.resolve_next_hops
    assert not settings.learn.kernel and not settings.learn.direct and not settings.static_routes
    twin4, twin6 = settings.peers
    assert not twin4.reflector_client and not twin4.passive and twin4.password == "key"
    assert (twin4.address, twin4.port, twin4.source_address) == ("10.0.0.8", 1790, "10.0.0.9")
    assert (twin6.address, twin6.port, twin6.source_address) == ("fd00::8", 179, None)


def test_clients_and_peers_add_up_over_their_flags() -> None:
    """The first --clients is not lost to the second; what is named twice is there once."""
    for _ in range(2):  # nothing of one command line is left for the next
        options = parse_arguments([*GOOD, "--clients", "192.0.2.0/24,fd00::/8", "--peers", "10.0.0.8",
                                   "--peers", "fd00::8", "--peers", "10.0.0.8"], "x")  # fmt: skip
        settings = flag_settings(options, None)
        assert [cidr for cidr, _ in settings.dynamic] == ["10.0.0.0/8", "fd00::/8", "192.0.2.0/24"]
        assert [peer.address for peer in settings.peers] == ["10.0.0.8", "fd00::8"]
    assert parse_arguments(GOOD, "x").peers == ()


def test_one_family_and_other_limits() -> None:
    more = [
        "--families",
        "ipv6",
        "--max-prefixes",
        "0",
        "--max-sessions",
        "5",
        "--hold-time",
        "9",
        "--restart-time",
        "3",
    ]
    template = flag_settings(options := parse_arguments([*GOOD, *more], "x"), None).dynamic[0][1]
    assert [str(f.family) for f in template.families] == ["ipv6"]
    assert template.families[0].max_prefixes == 0 == template.max_attribute_sets
    assert (template.hold_time, template.restart_time, options.max_sessions) == (9, 3, 5)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (GOOD[2:], "--asn is required"),
        (GOOD[:4] + GOOD[6:], "--cluster-id is required"),
        (GOOD[:-2], "--clients is required"),
        ([*GOOD, "--asn", "23456"], "cannot be used as AS number"),
        ([*GOOD, "--asn", "many"], "no AS number"),
        ([*GOOD, "--cluster-id", "0.0.0.0"], "0.0.0.0 is no cluster id"),
        ([*GOOD, "--cluster-id", "7"], "dotted quad"),
        ([*GOOD, "--router-id", "fd00::1"], "no router id"),
        ([*GOOD, "--clients", "10.0.0.1/8"], "host bits"),
        ([*GOOD, "--hold-time", "2"], "RFC 4271"),
        ([*GOOD, "--restart-time", "5000"], "0 to 4095"),
        ([*GOOD, "--max-prefixes", "-1"], "not a number"),
        ([*GOOD, "--families", "ipv4,evpn"], "'evpn' is no family"),
        ([*GOOD, "--listen", "10.0.0.9"], "not ADDR:PORT"),
        ([*GOOD, "--listen", "10.0.0.9:179", "--peers", "10.0.0.9"], "our own --listen address"),
        ([*GOOD, "--datastore", "file:/nowhere"], "exclude each other"),
    ],
)
def test_wrong_flags_are_one_sentence_and_status_2(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert words in capsys.readouterr().err.splitlines()[-1]


def test_a_password_file_that_cannot_be_used_is_no_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = tmp_path / "empty"
    empty.write_text("\n")
    for path in (empty, tmp_path / "absent"):
        assert main([*GOOD, "--password-file", str(path), "--socket", "none", "--health", "none"]) == 1
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith("bgp-reflector: --password-file"), error
