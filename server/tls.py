"""TLS to Postgres and Redis: who is believed, and what is said when somebody is not.

Three things are asked of a certificate, and each mode asks for some of them: nothing (the line is encrypted, to whoever
answers), that an authority signed it whom we believe (anybody who has a certificate of that authority may answer), and
that it is for the name in the URL as well (only the right machine may). An authority that is named is believed alone:
with a file of one's own, those that the machine trusts for the web are not.

A `Trust` keeps names of files and no file's content: they are read for every new connection, so a certificate that was
exchanged holds from the next connection on, and a server need not be restarted for it. Connections that are open stay.

Passwords are in URLs, so what is said here never quotes one.
"""

import ssl
from dataclasses import dataclass, fields, replace
from pathlib import Path

import structlog

from server.errors import StartError

# For `authorities`: those that the machine trusts. libpq's word, see
# https://www.postgresql.org/docs/18/libpq-connect.html#LIBPQ-CONNECT-SSLROOTCERT
SYSTEM = "system"
VERSIONS = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}
# X509_V_ERR_…: https://docs.openssl.org/3.0/man3/X509_STORE_CTX_get_error/
_REFUSED = {
    3: "whether the certificate of {name} was revoked cannot be told: its authority's list is not in {revoked}",
    9: "the certificate of {name} is not valid yet",
    10: "the certificate of {name} has expired",
    12: "the list of revoked certificates in {revoked} has expired",
    18: "the certificate of {name} is signed by itself, and not in {authorities}",
    19: "the certificate of {name} is of an authority that is not in {authorities}",
    20: "the certificate of {name} is of an authority that is not in {authorities}",
    21: "the certificate of {name} is of an authority that is not in {authorities}",
    23: "the certificate of {name} was revoked",
    62: "the certificate of {name} is for another name",
    64: "the certificate of {name} is for another address",
}
_NO_TLS = (
    "WRONG_VERSION_NUMBER",
    "RECORD_LAYER_FAILURE",
    "HTTP_REQUEST",
    "PACKET_LENGTH_TOO_LONG",
    "UNEXPECTED_MESSAGE",
)
_NO_VERSION = ("UNSUPPORTED_PROTOCOL", "TLSV1_ALERT_PROTOCOL_VERSION", "WRONG_SSL_VERSION", "NO_PROTOCOLS_AVAILABLE")


log = structlog.get_logger(__name__)


class Untrusted(ConnectionError):
    """TLS was asked for, and there is none with whom we want to speak. Says why in one sentence without a full stop."""


@dataclass(frozen=True)
class Trust:
    """What is asked of whom we connect to.

    Attributes:
        authorities: a PEM file or folder of those that are believed, `system`, or empty: nothing is asked.
        checks_name: the certificate must be for the name in the URL.
        certificate: a PEM file that says who we are, if we are asked.
        key: its key, where that is a file of its own.
        key_password: of the key; never shown.
        revoked: a PEM file of certificates that are not to be believed any more.
        oldest: the oldest version of TLS that is spoken.
    """

    authorities: str = ""
    checks_name: bool = False
    certificate: str = ""
    key: str = ""
    key_password: str = ""
    revoked: str = ""
    oldest: str = "TLSv1.2"

    def __repr__(self) -> str:
        shown = replace(self, key_password="…" if self.key_password else "")
        return f"Trust({', '.join(f'{field.name}={getattr(shown, field.name)!r}' for field in fields(shown))})"

    def context(self, protocol: str = "") -> ssl.SSLContext:
        """Read the files, and say to OpenSSL what is asked.

        Args:
            protocol: that we name while the connection is made (ALPN).

        Raises:
            Untrusted: a file cannot be read, or does not hold what it should.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = VERSIONS[self.oldest]
        context.check_hostname = self.checks_name
        context.verify_mode = ssl.CERT_REQUIRED if self.authorities else ssl.CERT_NONE
        if self.authorities == SYSTEM:
            context.load_default_certs()
        elif self.authorities:
            _load_authorities(context, self.authorities)
        if self.revoked:
            _load_authorities(context, self.revoked)
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN
        if self.certificate:
            self._load_own(context)
        if protocol:
            context.set_alpn_protocols([protocol])
        return context

    def _load_own(self, context: ssl.SSLContext) -> None:
        for path in filter(None, (self.certificate, self.key)):
            _require_readable(path)
        try:
            # A function, since without one OpenSSL asks at the terminal.
            context.load_cert_chain(self.certificate, self.key or None, password=lambda: self.key_password)
        except (ssl.SSLError, ValueError, OSError):
            key = self.key or self.certificate
            raise Untrusted(
                f"{self.certificate} and {key} are no certificate and its key, or the key's password is wrong"
            ) from None

    def reason(self, error: BaseException, name: str) -> str:
        """Why no connection came about, as a sentence without its full stop.

        Args:
            error: what Python said.
            name: of whom we wanted to reach.
        """
        if isinstance(error, ssl.SSLCertVerificationError):
            whom = "what this machine trusts" if self.authorities == SYSTEM else self.authorities
            known = _REFUSED.get(error.verify_code)
            if known is None:
                return f"the certificate of {name} is refused: {error.verify_message}"
            return known.format(name=name, authorities=whom, revoked=self.revoked)
        if isinstance(error, ssl.SSLError):
            return self._reason_of_protocol(error.reason or "", name)
        return str(error).partition("\n")[0] or type(error).__name__

    def hung_up(self, name: str) -> str:
        """The same, where the other side said nothing: of TLS 1.3 a refusal may be lost, since it comes afterwards."""
        return f"{name} hung up as soon as TLS began; it may refuse our certificate ({self._ours})"

    @property
    def _ours(self) -> str:
        return self.certificate or "none, and it may want one"

    def _reason_of_protocol(self, reason: str, name: str) -> str:
        if reason in _NO_TLS:
            return f"{name} does not speak TLS"
        if reason in _NO_VERSION:
            return f"{name} speaks no version of TLS from {self.oldest} on"
        if "ALERT" in reason and any(word in reason for word in ("CERTIFICATE", "UNKNOWN_CA", "HANDSHAKE", "ACCESS")):
            return f"{name} refuses our certificate ({self._ours})"
        return f"no TLS with {name} came about: {reason.lower().replace('_', ' ') or 'the connection was closed'}"


def is_logging() -> bool:
    """Whether a server runs, which has set up its log; a command tells what there is to whoever typed it."""
    return structlog.is_configured()


class Doubts:
    """Says in a server's log why trust fails: when it begins to, and when the reason becomes another.

    Args:
        event: the line's first words.

    Attributes:
        has_ended: a connection has come about.
    """

    def __init__(self, event: str) -> None:
        self._event = event
        self._told = ""
        self.has_ended = False

    def tell(self, error: Untrusted) -> None:
        """No connection came about."""
        if str(error) != self._told:
            self._told = str(error)
            if is_logging():
                log.error(self._event, reason=self._told)

    def end(self) -> None:
        """One did."""
        self._told = ""
        self.has_ended = True


def require(trust: Trust, what: str) -> None:
    """Read the files once, before anything is started. Raises StartError for those that are of no use.

    Args:
        what: whose they are, such as `Redis`.
    """
    try:
        trust.context()
    except Untrusted as error:
        raise StartError(f"{what} cannot be reached over TLS: {error}.") from None


def _load_authorities(context: ssl.SSLContext, path: str) -> None:
    _require_readable(path)
    try:
        if Path(path).is_dir():
            context.load_verify_locations(capath=path)
        else:
            context.load_verify_locations(cafile=path)
    except (ssl.SSLError, OSError):
        raise Untrusted(f"{path} holds no certificates in PEM form") from None


def _require_readable(path: str) -> None:
    try:
        if not Path(path).is_dir():
            with Path(path).open("rb"):
                pass
    except OSError as error:
        raise Untrusted(f"{path} cannot be read: {error.strerror}") from None
