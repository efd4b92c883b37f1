"""What every answer tells browsers, in one place: scope.py adds it as an answer begins, never per piece of it.

Sources: OWASP Secure Headers Project; Fetch (CORP, nosniff), HTML (COOP), RFC 6797 (HSTS), CSP Level 3. There is no
CORS header anywhere: pages of other origins can send nothing that asks first, and read nothing.
"""

from collections.abc import Iterable

ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
}
# What an answer says of itself counts. What is not the client's files is somebody's data, and no page.
UNLESS_SAID = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}
# A year. Browsers heed it over https only; neighbours below the same domain are not ours to speak for.
OVER_HTTPS = {"Strict-Transport-Security": "max-age=31536000"}

Raw = tuple[bytes, bytes]


def _raw(*groups: dict[str, str]) -> tuple[Raw, ...]:
    return tuple((name.lower().encode(), value.encode()) for group in groups for name, value in group.items())


_HTTP = _raw(ALWAYS, UNLESS_SAID)
_HTTPS = _raw(ALWAYS, UNLESS_SAID, OVER_HTTPS)


def guarded(said: Iterable[Raw], *, is_https: bool) -> list[Raw]:
    """The headers of an answer, and those of ours that it does not have already."""
    told = list(said)
    names = {name.lower() for name, _ in told}
    return told + [pair for pair in (_HTTPS if is_https else _HTTP) if pair[0] not in names]
