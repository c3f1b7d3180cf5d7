"""Network namespaces, and how to be allowed to make them.

As root they are made directly. Otherwise the process moves into a user namespace of its own, where it is root over
everything it makes; `/run` is a fresh tmpfs there, so that `ip netns` finds its folder writable.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from pyroute2 import IPRoute

PREFIX = "cbl"
NETNS_FOLDER = Path("/run/netns")
_CLONE_NEWNS, _CLONE_NEWUSER, _CLONE_NEWNET = 0x00020000, 0x10000000, 0x40000000
_MS_REC, _MS_PRIVATE = 0x4000, 0x40000


class LabError(Exception):
    """The lab cannot be built or does not do what was asked; the text is for people."""


def may_make_namespaces() -> bool:
    """Whether this process can make network namespaces as it is."""
    return _in_child(lambda: _unshare(_CLONE_NEWNET | _CLONE_NEWNS)) is None


def enter_user_namespace() -> None:
    """Move this process into a user namespace, as its root. Raises LabError with the setting that forbids it.

    Only before the first thread starts: the kernel refuses it afterwards.
    """
    failure = _in_child(_become_namespace_root)
    if failure is not None:
        raise LabError(_why_no_user_namespace(failure))
    _become_namespace_root()


def _unshare(flags: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(ctypes.c_int(flags)):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), "unshare")


def _mount(source: str, target: str, kind: str, flags: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), None):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), f"mount {target}")


def _become_namespace_root() -> None:
    user, group = os.getuid(), os.getgid()
    _unshare(_CLONE_NEWUSER | _CLONE_NEWNS | _CLONE_NEWNET)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {user} 1")
    Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    _mount("none", "/", "none", _MS_REC | _MS_PRIVATE)
    _mount("none", "/run", "tmpfs", 0)
    if not Path("/var/run").is_symlink():
        _mount("/run", "/var/run", "none", 0x1000)
    NETNS_FOLDER.mkdir()


def _in_child(action: Any) -> OSError | None:
    """Try something in a forked child; the error it raised, or None."""
    child = os.fork()
    if child == 0:
        code = 0
        try:
            action()
        except OSError as error:
            code = error.errno or errno.EPERM
        except BaseException:
            code = errno.EPERM
        os._exit(code & 0xFF)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return None if status == 0 else OSError(abs(status), os.strerror(abs(status)))


_SETTINGS = (
    ("kernel/unprivileged_userns_clone", "0", "sysctl -w kernel.unprivileged_userns_clone=1"),
    ("kernel/apparmor_restrict_unprivileged_userns", "1", "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"),
    ("user/max_user_namespaces", "0", "sysctl -w user.max_user_namespaces=10000"),
    ("user/max_net_namespaces", "0", "sysctl -w user.max_net_namespaces=10000"),
)


def _why_no_user_namespace(failure: OSError) -> str:
    for name, forbidding, remedy in _SETTINGS:
        try:
            value = Path("/proc/sys", name).read_text().strip()
        except OSError:
            continue
        if value == forbidding:
            return f"{name.replace('/', '.')} = {value} forbids user namespaces: run as root, or allow them ({remedy})"
    return (
        f"user namespaces are refused ({failure.strerror}), by a container's seccomp profile or a security module: "
        "run as root with CAP_SYS_ADMIN and CAP_NET_ADMIN, or allow unshare(CLONE_NEWUSER)"
    )


class Namespace:
    """One network namespace, by name. `ipr` speaks rtnetlink inside it."""

    def __init__(self, name: str) -> None:
        self.name = name
        _ip_netns("add", name)
        self.ipr: Any = _route_socket(name)
        self.ipr.link("set", index=self.ipr.link_lookup(ifname="lo")[0], state="up")

    def command(self, arguments: Sequence[str], keep: bool = False) -> list[str]:
        """The command line that runs `arguments` in here; without `keep` it dies together with this process."""
        bound = [] if keep else ["setpriv", "--pdeathsig", "KILL"]
        return [*bound, "nsenter", f"--net={NETNS_FOLDER / self.name}", "--", *arguments]

    def popen(self, arguments: Sequence[str], *, keep: bool = False, **options: Any) -> subprocess.Popen[bytes]:
        """Start a program in here."""
        options.setdefault("stdin", subprocess.DEVNULL)
        return subprocess.Popen(self.command(arguments, keep), **options)

    def run(self, arguments: Sequence[str], timeout: float = 20.0) -> str:
        """Run a program in here; its standard output. Raises LabError with its standard error if it fails."""
        result = subprocess.run(
            self.command(arguments), capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL
        )
        if result.returncode:
            raise LabError(f"{' '.join(arguments)} in {self.name}: {(result.stderr or result.stdout).strip()}")
        return result.stdout

    def sysctl(self, values: Mapping[str, str | int]) -> None:
        """Write settings below /proc/sys/net of this namespace ("ipv4/ip_forward": 1); absent ones are passed over."""
        script = "\n".join(f"[ ! -e /proc/sys/net/{k} ] || echo {v} > /proc/sys/net/{k}" for k, v in values.items())
        self.run(["sh", "-c", script])

    def index(self, interface: str) -> int:
        """Index of an interface. Raises LabError."""
        found = self.ipr.link_lookup(ifname=interface)
        if not found:
            raise LabError(f"{self.name} has no interface {interface}")
        return int(found[0])

    def up(self, interface: str, addresses: Iterable[str] = ()) -> int:
        """Give an interface addresses ("10.0.0.1/24") and set it up; its index."""
        index = self.index(interface)
        for text in addresses:
            address, length = text.split("/")
            # IFA_F_NODAD: an IPv6 address is usable at once.
            flags = {"flags": 2} if ":" in address else {}
            self.ipr.addr("add", index=index, address=address, prefixlen=int(length), **flags)
        self.ipr.link("set", index=index, state="up")
        return index

    def close(self) -> None:
        """Let go of the namespace, leaving it in place."""
        self.ipr.close()

    def remove(self) -> None:
        """Remove the namespace and with it its links and routes."""
        self.close()
        remove_namespace(self.name)


def _route_socket(name: str) -> Any:
    """pyroute2's socket inside a namespace. Its own way there forks a child that inherits our signal handlers and is
    ended by a signal; a thread may simply go there and come back, since a socket stays where it was made.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(NETNS_FOLDER / name, os.O_RDONLY)
    try:
        if libc.setns(there, _CLONE_NEWNET):
            code = ctypes.get_errno()
            raise LabError(f"cannot enter {name}: {os.strerror(code)}")
        try:
            return IPRoute()
        finally:
            libc.setns(home, _CLONE_NEWNET)
    finally:
        os.close(home)
        os.close(there)


def _ip_netns(verb: str, name: str) -> None:
    result = subprocess.run(["ip", "netns", verb, name], capture_output=True, text=True)
    if result.returncode:
        raise LabError(f"ip netns {verb} {name}: {result.stderr.strip()}")


def remove_namespace(name: str) -> None:
    """Remove a namespace by name; one that is gone already is fine."""
    if (NETNS_FOLDER / name).exists():
        _ip_netns("del", name)


def sweep(folder: Path) -> None:
    """Remove what killed labs left: namespaces and folders below `folder`. One kept on purpose has a file `keep`."""

    def left(name: str) -> bool:
        match = re.fullmatch(rf"{PREFIX}-(\d+)(-.*)?", name)
        if not match or Path("/proc", match[1]).exists():
            return False
        return not (folder / f"{PREFIX}-{match[1]}" / "keep").exists()

    if NETNS_FOLDER.is_dir():
        for entry in NETNS_FOLDER.iterdir():
            if left(entry.name):
                remove_namespace(entry.name)
    for path in folder.glob(f"{PREFIX}-*"):
        if left(path.name) and os.access(path, os.W_OK):
            shutil.rmtree(path, ignore_errors=True)


def open_log(path: Path) -> IO[bytes]:
    """A log file, appended to: a restarted program goes on in the same file."""
    return path.open("ab")
