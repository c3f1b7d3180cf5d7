"""What a running dump has shown so far. Pure."""

from __future__ import annotations

from bgpd.fib.entries import Form
from bgpd.fib.messages import AF_INET, AF_INET6, RouteShape


class Picture:
    """Own and foreign routes of a dump, of the whole table (`ifindex` 0) or of one outgoing interface."""

    __slots__ = ("foreign", "forms", "ifindex", "own")

    def __init__(self, ifindex: int) -> None:
        self.ifindex = ifindex
        self.forms: dict[int, dict[RouteShape, Form]] = {AF_INET: {}, AF_INET6: {}}
        self.own: dict[int, dict[bytes, Form | list[Form]]] = {AF_INET: {}, AF_INET6: {}}
        """One form is the usual case and stands by itself."""
        self.foreign: dict[int, dict[bytes, dict[int, RouteShape]]] = {AF_INET: {}, AF_INET6: {}}

    def add(self, afi: int, key: bytes, form: Form) -> None:
        """One route of ours."""
        own = self.own[afi]
        found = own.get(key)
        if found is None:
            own[key] = form
        elif isinstance(found, list):
            found.append(form)
        else:
            own[key] = [found, form]
