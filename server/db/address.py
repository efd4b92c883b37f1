"""Where Postgres is, and how far the line to it is trusted: URLs as libpq knows them, and the one way to open them.

`?sslmode=` says what is asked of the line, in libpq's words, and the other ssl words what it needs:
https://www.postgresql.org/docs/18/libpq-connect.html#LIBPQ-PARAMKEYWORDS. A word that is not in the URL is taken from
libpq's variables (PGSSLMODE and others) and files (~/.postgresql), so that `psql` and this server mean the same.

disable      never TLS.
prefer       TLS with whoever answers, and no TLS where the server has none. libpq's default, and ours: it is what a URL
             without the word has always meant, it serves a Postgres in the same pod as well as one that takes nothing
             but TLS, and it asks nothing that would stop an upgrade. But it is not quiet: a line to another machine
             that is not encrypted is told in the log, until the URL says `disable` or something better.
require      TLS or nothing, with whoever answers; with `sslrootcert` the same as verify-ca, which is libpq's way too.
verify-ca    only with a certificate of an authority in `sslrootcert`.
verify-full  and only if that is for the host in the URL; without `sslrootcert`, of those whom the machine trusts.

From `require` on nothing of ours, neither name nor password, is on the line before it is encrypted. A Unix socket never
is; there the file's permissions decide. `allow` (no TLS if it can be helped) is refused: nobody means it.

Neither asyncpg nor the libpq of our wheel, which was built without TLS, is left to decide: all connections of asyncpg
get a context that is made here (`open_engine`), and pg_dump and pg_restore go through a relay that uses the same
(server/backup/relay.py). Looked at: asyncpg 0.32, SQLAlchemy 2.1.
"""

import os
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import URL, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from server.errors import StartError
from server.tls import SYSTEM, VERSIONS, Doubts, Trust, Untrusted, is_logging, require

DRIVER = "postgresql+asyncpg"
MODES = ("disable", "prefer", "require", "verify-ca", "verify-full")
# SQLSTATE "connection does not exist".
CLOSED = "08003"
# Postgres 17 can begin with TLS at once, without asking first; such a connection says what it is for.
PROTOCOL = "postgresql"
# The URL's words, and where libpq looks for what they do not say.
VARIABLES = {
    "sslmode": "PGSSLMODE",
    "sslrootcert": "PGSSLROOTCERT",
    "sslcert": "PGSSLCERT",
    "sslkey": "PGSSLKEY",
    "sslcrl": "PGSSLCRL",
    "sslnegotiation": "PGSSLNEGOTIATION",
    "ssl_min_protocol_version": "PGSSLMINPROTOCOLVERSION",
}
FILES = {"sslrootcert": "root.crt", "sslcert": "postgresql.crt", "sslkey": "postgresql.key", "sslcrl": "root.crl"}
# asyncpg's word for sslmode; and one that has no variable.
ALIAS, KEY_PASSWORD = "ssl", "sslpassword"
# What we have none of may be asked for only if it may be missing.
REFUSED = {"channel_binding": ("disable", "prefer"), "gssencmode": ("disable", "prefer")}

_EMPTY = re.compile(r"[?&](ssl\w*)=?(?:&|$)")

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Address:
    """A database and the line to it.

    Attributes:
        url: with our driver, and without the words about TLS.
        mode: one of MODES.
        trust: what is asked of the line; None where TLS is not used.
        is_direct: TLS begins at once.
        is_told: it was said that the line may be open, so nobody needs to hear it.
    """

    url: URL
    mode: str
    trust: Trust | None
    is_direct: bool
    is_told: bool

    @property
    def name(self) -> str:
        """Of whom is connected to, for messages."""
        return f"Postgres at {', '.join(_hosts(self.url)) or 'localhost'}"

    def tell_open(self) -> None:
        """Say once, in the log, that what is sent to another machine can be read on the way."""
        if not self.is_told and is_logging():
            _tell_open(self.name)


def address(url: str) -> Address:
    """Read a URL.

    Raises:
        StartError: it is none, or asks for something that cannot be had. Quotes nothing that may be a password.
    """
    try:
        # What SQLAlchemy says of a wrong port quotes it, and where an @ is missing that is a password.
        read = make_url(with_driver(url))
    except (ArgumentError, ValueError):
        read = None
    hosts = _hosts(read) if read is not None else []
    if read is None or any("@" in host for host in hosts):
        raise StartError(
            "The database's URL cannot be read: it is like postgresql://user:password@host:5432/name, with :, /, @, # "
            "and % of a password written as %3A, %2F, %40, %23 and %25."
        )
    if empty := _EMPTY.search(url):
        # SQLAlchemy would not tell us of it, and what a variable was to fill is not to be overlooked.
        raise StartError(f"The database's URL says {empty[1]}, and then nothing.")
    words = {name: _one(name, value) for name, value in read.query.items() if _is_ours(name)}
    rest = read.set(query={name: value for name, value in read.query.items() if not _is_ours(name)})
    said = words.pop(ALIAS, None) or words.get("sslmode") or os.environ.get("PGSSLMODE")
    mode = said or "prefer"
    if mode not in MODES:
        raise StartError(f"The database's sslmode is {' or '.join(MODES)}, and not {mode}.")
    is_local = bool(hosts) and all(host.startswith("/") for host in hosts)
    # Where nobody is named, Unix sockets are tried first and then the loopback, which is as good unless TLS is a must.
    if is_local or mode == "disable" or (mode == "prefer" and not hosts):
        is_told = is_local or said == "disable" or all(map(_is_here, hosts))
        return Address(rest, "disable", None, is_direct=False, is_told=is_told)
    is_direct = _word(words, "sslnegotiation") == "direct"
    if is_direct and mode == "prefer":
        raise StartError("The database's sslnegotiation=direct needs an sslmode of require or more.")
    return Address(rest, mode, _trust(mode, words), is_direct=is_direct, is_told=all(map(_is_here, hosts)))


def with_driver(url: str) -> str:
    """The URL with our driver, whatever scheme the administrator wrote."""
    for scheme in ("postgresql://", "postgres://"):
        if url.startswith(scheme):
            return f"{DRIVER}://{url.removeprefix(scheme)}"
    return url


def open_engine(url: str, *, connect_args: Mapping[str, Any], **options: Any) -> AsyncEngine:  # noqa: ANN401
    """SQLAlchemy's engine for a URL, whose every connection is as that asks. All of this server are opened here.

    Args:
        connect_args: for asyncpg.
        options: for SQLAlchemy.

    Raises:
        StartError: the URL is of no use, or a file that it names.
    """
    where = address(url)
    if where.trust is not None:
        require(where.trust, "Postgres")
    engine = create_async_engine(where.url, connect_args=dict(connect_args), **options)
    event.listen(engine.sync_engine, "do_connect", _Connecting(where))
    return engine


class _Connecting:
    """Opens one connection after the other, and says in the log when trust begins to fail."""

    def __init__(self, where: Address) -> None:
        self._where = where
        self._doubts = Doubts("Postgres is not trusted")

    def __call__(self, dialect: Any, record: object, positional: list[Any], named: dict[str, Any]) -> Any:  # noqa: ANN401
        """SQLAlchemy's hook: https://docs.sqlalchemy.org/en/21/core/events.html (do_connect)."""
        del record
        try:
            opened = self._open(dialect, positional, named)
        except Untrusted as error:
            self._doubts.tell(error)
            raise
        self._doubts.end()
        return opened

    def _open(self, dialect: Any, positional: list[Any], named: dict[str, Any]) -> Any:  # noqa: ANN401
        where = self._where
        if where.trust is None:
            where.tell_open()
            return dialect.connect(*positional, **named, ssl=False, direct_tls=False)
        try:
            # The files are read now, for this connection.
            encrypted = where.trust.context(PROTOCOL)
            return dialect.connect(*positional, **named, ssl=encrypted, direct_tls=where.is_direct)
        except dialect.dbapi.Error as error:
            # In TLS 1.3 a client hears only by its first reading that its certificate is refused, and asyncpg no more.
            if where.trust.certificate and getattr(error, "pgcode", None) == CLOSED:
                raise Untrusted(where.trust.hung_up(where.name)) from None
            raise
        except OSError as error:
            has_none = "rejected SSL upgrade" in str(error)
            if has_none and where.mode == "prefer":
                where.tell_open()
                return dialect.connect(*positional, **named, ssl=False, direct_tls=False)
            if has_none:
                raise Untrusted(f"{where.name} has no TLS, and sslmode={where.mode} asks for it") from None
            if isinstance(error, ConnectionResetError | BrokenPipeError) and where.trust.certificate:
                raise Untrusted(where.trust.hung_up(where.name)) from None
            if isinstance(error, Untrusted) or not _is_of_tls(error):
                raise
            raise Untrusted(where.trust.reason(error, where.name)) from None


def _is_of_tls(error: OSError) -> bool:
    # Or an error from before TLS, whose words asyncpg does not believe (CVE-2024-10977).
    return isinstance(error, ssl.SSLError) or "SSL exchange" in str(error)


def _trust(mode: str, words: dict[str, str]) -> Trust:
    authorities = _word(words, "sslrootcert")
    if mode == "prefer":
        authorities = ""
    elif mode == "verify-full":
        # libpq would refuse here; the name is checked, so those whom the web trusts are no weaker than `require`.
        authorities = authorities or SYSTEM
    elif mode == "verify-ca" and not authorities:
        raise StartError(
            "The database's sslmode=verify-ca needs to know whom to believe: add sslrootcert=/path/to/authority.pem."
        )
    if authorities == SYSTEM and mode != "verify-full":
        raise StartError(
            "The database's sslrootcert=system needs sslmode=verify-full: anybody can have a certificate of those."
        )
    oldest = _word(words, "ssl_min_protocol_version") or "TLSv1.2"
    if oldest not in VERSIONS:
        raise StartError(f"The database's ssl_min_protocol_version is {' or '.join(VERSIONS)}, and not {oldest}.")
    return Trust(
        authorities=authorities,
        checks_name=mode == "verify-full",
        certificate=(certificate := _word(words, "sslcert")),
        key=_word(words, "sslkey") if certificate else "",
        key_password=words.get(KEY_PASSWORD, ""),
        revoked=_word(words, "sslcrl") if authorities else "",
        oldest=oldest,
    )


def _word(words: Mapping[str, str], name: str) -> str:
    """What the URL says, or libpq's variable, or the file that libpq would find."""
    if found := words.get(name) or os.environ.get(VARIABLES[name]):
        return found
    if name in FILES:
        try:
            path = Path.home() / ".postgresql" / FILES[name]
            return str(path) if path.is_file() else ""
        except (RuntimeError, OSError):
            # Nobody's home, or one that is closed to us.
            return ""
    return ""


def _is_ours(name: str) -> bool:
    return name.startswith("ssl") or name in REFUSED


def _one(name: str, value: str | tuple[str, ...]) -> str:
    """A word about TLS that is said once, and that we know. Raises StartError: none may be overlooked."""
    known = (*VARIABLES, KEY_PASSWORD, ALIAS)
    if isinstance(value, tuple):
        raise StartError(f"The database's URL says {name} twice.")
    if name in REFUSED:
        if value not in REFUSED[name]:
            raise StartError(f"The database's {name}={value} is not supported: remove it from the URL.")
    elif name not in known:
        raise StartError(f"The database's URL asks for {name}, which is not known. Known are {', '.join(known)}.")
    return value


def _hosts(url: URL) -> list[str]:
    """Names, addresses and folders of sockets that are connected to; none where none is named."""
    named = url.query.get("host", ())
    found = [named] if isinstance(named, str) else list(named)
    found = found or [url.host or os.environ.get("PGHOST", "")]
    return [host for host in found if host]


def _is_here(host: str) -> bool:
    """Whether what is sent there does not leave the machine."""
    name = host if host.count(":") > 1 else host.partition(":")[0]
    try:
        return ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return name.startswith("/") or name == "localhost" or name.endswith(".localhost")


@cache
def _tell_open(name: str) -> None:
    log.warning(
        "the line to the database is not encrypted", database=name, help="docs/tls.md; sslmode=disable if that is meant"
    )
