"""Another version takes a node over: kernel routes, state folder and peers are those that the one before it left.

The oldest version in the repository's history stands for all of them: what it wrote has to be read, and after a step
back it has to live with what we leave.
"""

from __future__ import annotations

import io
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.lab.cluster import Lab, Machine
from tests.lab.speakers import ROOT, OurSpeaker
from tests.netns.e2e import require, traffic, untouched

pytestmark = [pytest.mark.netns, pytest.mark.slow]
Figure = Callable[[str, object], None]


def git(*arguments: str) -> bytes:
    try:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no git history: there is no older version to come from")


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages of the oldest version."""
    folder = tmp_path_factory.mktemp("older")
    first = git("rev-list", "--max-parents=0", "HEAD").decode().split()[-1]
    with tarfile.open(fileobj=io.BytesIO(git("archive", first, "bgpd", "config", "reflector"))) as archive:
        archive.extractall(folder)  # of our own making: no filter, which Python 3.11.2 does not have
    return folder


def use(lab: Lab, node: Machine, code: Path) -> None:
    """The node's next speaker is of another version; of options that came later it knows nothing."""
    speaker = lab.speaker_for(node, "ours")
    assert isinstance(speaker, OurSpeaker)
    if code != ROOT:
        arguments = list(speaker.main.arguments)
        place = arguments.index("--bird-sockets")
        speaker.main.arguments = arguments[:place] + arguments[place + 2 :]
        speaker.main.folder = code
    node.speaker = speaker


@pytest.fixture(scope="module")
def lab(older: Path) -> Iterator[Lab]:
    require("bird")
    with Lab(nodes=3, tor="bird") as lab:
        for node in lab.nodes:
            use(lab, node, older)
        lab.start()
        lab.wait_converged()
        lab.wait_settled()
        for letter in "abc":
            lab.add_pod(lab.node(letter), f"pod-{letter}")
        yield lab


@pytest.mark.parametrize("forward", [True, False], ids=["to_this_version", "and_back"])
def test_versions_change_under_traffic(lab: Lab, older: Path, forward: bool, figure: Figure) -> None:
    """Node by node, as a rolling upgrade does it; in between the cluster is mixed."""
    a, b, c = (lab.node(letter).pods[f"pod-{letter}"].endpoint for letter in "abc")
    flows = [(a, b), (b, c), (c, a), (a, lab.outside), (b, lab.outside)]
    with untouched(lab, "node-a", "node-b", "node-c") as changes, traffic(flows) as probes:
        for node in lab.nodes:
            node.bgp.stop()
            time.sleep(0.3)
            use(lab, node, ROOT if forward else older)
            node.bgp.start()
            lab.wait_settled(60)
        lab.wait_converged()
        account = probes.finish()
    figure("every node to this version" if forward else "every node back to the oldest version", account)
    figure("... unchanged kernel routes touched", len(changes))
    assert account.lost == 0, "\n".join(map(str, account.losses))
    assert not changes, "\n".join(changes)
