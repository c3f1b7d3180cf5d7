"""A client of etcd's v3 API on grpc.aio: endpoints in turn, TLS, user and password, and errors in words.

One channel at a time, to one endpoint; whoever finds it unusable goes on to the next. A channel is made anew after a
failure, so that certificate files that were replaced are read again. Tokens are renewed when etcd no longer takes them.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import grpc
import grpc.aio
from attrs import field, frozen

from config import etcd_pb2 as pb
from config import tls
from config.source import DatastoreError, Expired, Unavailable

__all__ = ["EtcdClient", "EtcdOptions", "options"]

TIMEOUT = 10.0
"""Seconds for one call."""
CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", 256 << 20),
    ("grpc.max_send_message_length", 16 << 20),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 0),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 200),
    # This one is also how long an attempt to connect may take.
    ("grpc.min_reconnect_backoff_ms", 5000),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # A channel that is made after a failure tries at once, instead of sharing its forerunner's back-off.
    ("grpc.use_local_subchannel_pool", 1),
)
# At level debug, grpc tells of every turn of its own.
logging.getLogger("grpc").setLevel(logging.INFO)

_CALLS: dict[Any, tuple[str, Any]] = {
    pb.RangeRequest: ("/etcdserverpb.KV/Range", pb.RangeResponse),
    pb.TxnRequest: ("/etcdserverpb.KV/Txn", pb.TxnResponse),
    pb.AuthenticateRequest: ("/etcdserverpb.Auth/Authenticate", pb.AuthenticateResponse),
}
_WATCH = "/etcdserverpb.Watch/Watch"
_NOISE = re.compile(r"failed to connect to all addresses; last error: [A-Z_]*: ")
_TLS = re.compile(r"handshake|certificate|SSL|TLS|TSI_", re.IGNORECASE)
_STALE_TOKEN = ("invalid auth token", "revision of auth store is old")


@frozen
class EtcdOptions:
    """Where etcd is, and how to be let in."""

    endpoints: tuple[str, ...]
    """HOST:PORT, [V6]:PORT."""
    secure: bool = False
    ca_file: str = ""
    """"": the system's authorities."""
    cert_file: str = ""
    key_file: str = ""
    username: str = ""
    password: str = field(default="", repr=False)

    @property
    def url(self) -> str:
        """For people; without secrets."""
        return f"{'etcds' if self.secure else 'etcd'}://{','.join(self.endpoints)}"


def options(url: str, env: Mapping[str, str]) -> EtcdOptions:
    """From etcd://HOST[:PORT],... or etcds://..., and Calico's variables; without hosts, ETCD_ENDPOINTS has them.

    Variables: ETCD_ENDPOINTS, ETCD_CA_CERT_FILE, ETCD_CERT_FILE, ETCD_KEY_FILE, ETCD_USERNAME, ETCD_PASSWORD, each
    also with CALICO_ before it. Raises DatastoreError.
    """

    def variable(name: str) -> str:
        return env.get(f"ETCD_{name}") or env.get(f"CALICO_ETCD_{name}") or ""

    scheme, _, rest = url.partition(":")
    hosts = rest.removeprefix("//").rstrip("/")
    if "@" in hosts:
        raise DatastoreError("a user in the datastore's URL is seen by everybody; set ETCD_USERNAME and ETCD_PASSWORD")
    given = [item.strip() for item in (hosts or variable("ENDPOINTS")).split(",") if item.strip()]
    if not given:
        raise DatastoreError(f"the datastore {url} names no host; write etcd://HOST:2379 or set ETCD_ENDPOINTS")
    files = (variable("CA_CERT_FILE"), variable("CERT_FILE"), variable("KEY_FILE"))
    if bool(files[1]) != bool(files[2]):
        raise DatastoreError("of ETCD_CERT_FILE and ETCD_KEY_FILE only one is set; set both or none")
    secure = scheme == "etcds" or any(files) or any(item.startswith("https://") for item in given)
    endpoints = tuple(map(_endpoint, given))
    return EtcdOptions(endpoints, secure, *files, variable("USERNAME"), variable("PASSWORD"))


def _endpoint(text: str) -> str:
    try:
        parts = urlsplit(text if "://" in text else f"//{text}")
        host, port = parts.hostname, parts.port or 2379
    except ValueError:
        host = None
    if not host:
        raise DatastoreError(f"the etcd endpoint {text!r} is not HOST:PORT")
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class EtcdClient:
    """Calls one endpoint after the other until one answers."""

    def __init__(self, options: EtcdOptions, *, timeout: float = TIMEOUT) -> None:
        self.options = options
        self._timeout = timeout
        self._current = 0
        self._channel: grpc.aio.Channel | None = None
        self._token = ""
        self._answered = False
        self._ended = ""
        """That the own certificate is out of date; "": it is not, or there is none."""

    @property
    def endpoint(self) -> str:
        """The one in use."""
        return self.options.endpoints[self._current]

    async def call(self, request: Any) -> Any:
        """The response. Raises Unavailable, Expired (compacted) or DatastoreError (who we are, what we may)."""
        failure: Exception | None = None
        for _ in self.options.endpoints:
            try:
                return await self._authenticated(request)
            except grpc.aio.AioRpcError as error:
                failure = self.explain(error)
                if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                    raise failure from None
                await self.go_on()
        assert failure is not None
        raise failure

    async def _authenticated(self, request: Any) -> Any:
        if self.options.username and not self._token:
            await self._authenticate()
        try:
            return await self._once(request)
        except grpc.aio.AioRpcError as error:
            if not self.options.username or not is_stale_token(error.details()):
                raise
        # The token's time is over, or etcd was restarted: one new token, one more try.
        await self._authenticate()
        return await self._once(request)

    async def _authenticate(self) -> None:
        self._token = ""
        request = pb.AuthenticateRequest(name=self.options.username, password=self.options.password)
        try:
            self._token = (await self._once(request)).token
        except grpc.aio.AioRpcError as error:
            # Where etcd asks nobody who he is, a name does no harm.
            if "authentication is not enabled" not in (error.details() or ""):
                raise

    async def _once(self, request: Any) -> Any:
        path, answer = _CALLS[type(request)]
        method: Any = self._open().unary_unary(
            path, request_serializer=type(request).SerializeToString, response_deserializer=answer.FromString
        )
        response = await method(request, timeout=self._timeout, metadata=self._metadata())
        self._answered = True
        return response

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        return (("token", self._token),) if self._token else ()

    async def watch(self) -> Any:
        """A stream of WatchRequests out and WatchResponses in; it ends when the member loses its leader.

        Raises AioRpcError where a token is needed and not given.
        """
        if self.options.username and not self._token:
            await self._authenticate()
        method: Any = self._open().stream_stream(
            _WATCH,
            request_serializer=pb.WatchRequest.SerializeToString,
            response_deserializer=pb.WatchResponse.FromString,
        )
        return method(metadata=(*self._metadata(), ("hasleader", "true")))

    def forget_token(self) -> None:
        """The next call asks for a new one."""
        self._token = ""

    async def go_on(self) -> None:
        """Leave this endpoint for the next."""
        await self.close()
        self._current = (self._current + 1) % len(self.options.endpoints)

    async def close(self) -> None:
        """Close the channel; a later call opens a new one."""
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close()

    def _open(self) -> grpc.aio.Channel:
        if self._channel is None:
            if self.options.secure:
                self._channel = grpc.aio.secure_channel(self.endpoint, self._credentials(), CHANNEL_OPTIONS)
            else:
                self._channel = grpc.aio.insecure_channel(self.endpoint, CHANNEL_OPTIONS)
        return self._channel

    def _credentials(self) -> grpc.ChannelCredentials:
        chosen = self.options
        authorities = _read("ETCD_CA_CERT_FILE", chosen.ca_file)
        cert, key = _read("ETCD_CERT_FILE", chosen.cert_file), _read("ETCD_KEY_FILE", chosen.key_file)
        # What grpc says of such files is that it has "failed to create a security handshaker".
        try:
            if authorities is not None:
                tls.check_authorities(authorities)
        except ValueError as error:
            raise DatastoreError(f"the file {chosen.ca_file} of ETCD_CA_CERT_FILE cannot be used: {error}") from None
        try:
            if cert is not None and key is not None:
                tls.check_pair(cert, key)
        except ValueError as error:
            files = f"{chosen.cert_file} of ETCD_CERT_FILE and {chosen.key_file} of ETCD_KEY_FILE"
            raise DatastoreError(f"the files {files} cannot be used together: {error}") from None
        self._ended = tls.ended(cert, datetime.now(UTC)) if cert is not None else ""
        return grpc.ssl_channel_credentials(root_certificates=authorities, private_key=key, certificate_chain=cert)

    def explain(self, error: grpc.aio.AioRpcError) -> Exception:
        """What a failed call means, with etcd's or the transport's own words."""
        details = " ".join(_NOISE.sub("", error.details() or error.code().name.lower()).split())
        where = f"etcd at {self.endpoint}"
        if is_compacted(details) or "future revision" in details:
            return Expired(details)
        if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            return Unavailable(f"{where} does not answer within {self._timeout:g} s")
        if error.code() is grpc.StatusCode.UNAVAILABLE:
            if self.options.secure and _TLS.search(details):
                remedy = "check ETCD_CA_CERT_FILE, ETCD_CERT_FILE, ETCD_KEY_FILE and the name in etcd's certificate"
                if not self.options.cert_file:
                    remedy += "; etcd may ask for a client's certificate, and ETCD_CERT_FILE names none"
                elif self._ended:
                    remedy = f"the certificate {self.options.cert_file} of ETCD_CERT_FILE {self._ended}: renew it"
                return DatastoreError(f"{where}: no TLS connection ({details}); {remedy}")
            if not self.options.secure and not self._answered and "Socket closed" in details:
                details += "; if etcd wants TLS, write etcds:// and set ETCD_CA_CERT_FILE"
            return Unavailable(f"{where}: {details}")
        if "authentication failed" in details or "user name is empty" in details or is_stale_token(details):
            name = self.options.username
            who = f"the user {name} is not let in" if name else "etcd asks for a user"
            return DatastoreError(f"{where}: {who} ({details}); check ETCD_USERNAME and ETCD_PASSWORD")
        if error.code() is grpc.StatusCode.PERMISSION_DENIED:
            who = f"the user {self.options.username or '(none)'} may not do this"
            return DatastoreError(f"{where}: {who} ({details}); grant it a role with the keys below /calico/")
        return Unavailable(f"{where}: {details}")


def is_compacted(details: str) -> bool:
    """Whether etcd's words mean that a revision is too old."""
    return "compacted" in details


def is_stale_token(details: str | None) -> bool:
    """Whether etcd's words mean that a new token is all that is needed."""
    return any(words in (details or "") for words in _STALE_TOKEN)


def _read(variable: str, path: str) -> bytes | None:
    if not path:
        return None
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise DatastoreError(f"the file {path} of {variable} cannot be read: {error.strerror}") from None
