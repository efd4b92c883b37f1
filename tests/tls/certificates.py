"""An authority of a test's own, and certificates of it: good, expired, for somebody else, for a client."""

from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from server.clock import SystemClock

DAY = timedelta(days=1)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    path.touch(mode=0o600)
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


class Issued:
    """A certificate and its key, as files."""

    def __init__(self, folder: Path, name: str) -> None:
        self.certificate = folder / f"{name}.pem"
        self.key = folder / f"{name}.key"


class Authority:
    """One, with its files in a folder.

    Attributes:
        file: its own certificate.
    """

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(f"WIRTHFORGE tests: {name}")
        self._now = SystemClock().now()
        self.file = folder / f"{name}.crt"
        usage = x509.KeyUsage(
            **dict.fromkeys(
                ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "digital_signature"),
                False,
            ),
            key_cert_sign=True,
            crl_sign=True,
            encipher_only=False,
            decipher_only=False,
        )
        own = (
            self._begun(self._name, self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .sign(self._key, SHA256())
        )
        self.file.write_bytes(own.public_bytes(Encoding.PEM))
        self._issued: dict[str, x509.Certificate] = {}

    def _begun(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, ended: bool = False
    ) -> x509.CertificateBuilder:
        first, last = (self._now - 10 * DAY, self._now - DAY) if ended else (self._now - DAY, self._now + 30 * DAY)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(first)
            .not_valid_after(last)
        )

    def issue(self, file: str, *, names: tuple[str, ...] = ("localhost", "127.0.0.1"), ended: bool = False) -> Issued:
        """For a server; written over what had the same file name."""
        key, issued = ec.generate_private_key(ec.SECP256R1()), Issued(self._folder, file)
        alternatives: list[x509.GeneralName] = [
            x509.IPAddress(ip_address(name)) if name[0].isdigit() else x509.DNSName(name) for name in names
        ]
        certificate = (
            self._begun(_name(names[0]), key, ended=ended)
            .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .sign(self._key, SHA256())
        )
        return self._written(issued, certificate, key)

    def issue_client(self, file: str, user: str) -> Issued:
        """For somebody who connects: Postgres reads the user from its name."""
        key, issued = ec.generate_private_key(ec.SECP256R1()), Issued(self._folder, file)
        certificate = (
            self._begun(_name(user), key)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
            .sign(self._key, SHA256())
        )
        return self._written(issued, certificate, key)

    def revoke(self, file: str) -> Path:
        """A list of revoked certificates that holds the one issued as `file`."""
        revoked = (
            x509.RevokedCertificateBuilder()
            .serial_number(self._issued[file].serial_number)
            .revocation_date(self._now - DAY)
            .build()
        )
        listed = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._name)
            .last_update(self._now - DAY)
            .next_update(self._now + DAY)
            .add_revoked_certificate(revoked)
            .sign(self._key, SHA256())
        )
        path = self._folder / "revoked.pem"
        path.write_bytes(listed.public_bytes(Encoding.PEM))
        return path

    def _written(self, issued: Issued, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Issued:
        issued.certificate.write_bytes(certificate.public_bytes(Encoding.PEM))
        _write_key(issued.key, key)
        self._issued[issued.certificate.stem] = certificate
        return issued
