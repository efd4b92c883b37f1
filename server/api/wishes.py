"""What a request itself says about leaving this box: in its body, in its headers, the stricter of both (docs/cloud.md).

The body's words are taken out of it: no engine and no provider gets them.
"""

from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from server.errors import InvalidRequest
from server.messages import CloudWish, ModelRequest
from server.privacy.modes import Wish, strictest_wish, wish_of

OURS, MODE, EVENTS = "wirthforge", "cloud", "cloud_events"
HEADER, CONSENT_HEADER = "x-wirthforge-cloud", "x-wirthforge-cloud-consent"
CONSENT_CHARACTERS_MAX = 200


def take_wish(body: dict[str, Any]) -> CloudWish:
    """What the body says, and no longer says behind this call.

    Raises:
        InvalidRequest: it says what is no mode.
    """
    ours = body.get(OURS)
    if not isinstance(ours, dict) or not ours.keys() & {MODE, EVENTS}:
        return CloudWish()
    rest = {name: value for name, value in ours.items() if name not in {MODE, EVENTS}}
    if rest:
        body[OURS] = rest
    else:
        del body[OURS]
    takes_events = ours.get(EVENTS, False)
    if not isinstance(takes_events, bool):
        raise InvalidRequest(f"{OURS}.{EVENTS} is true or false.", param=f"{OURS}.{EVENTS}")
    return CloudWish(mode=_wish(ours.get(MODE), f"{OURS}.{MODE}"), takes_events=takes_events)


def with_headers(request: ModelRequest, headers: Mapping[str, str]) -> ModelRequest:
    """The request with what its headers say as well.

    Raises:
        InvalidRequest: they say what is no mode.
    """
    said, consent = headers.get(HEADER), headers.get(CONSENT_HEADER, "")
    if said is None and not consent:
        return request
    if len(consent) > CONSENT_CHARACTERS_MAX:
        raise InvalidRequest(f"{CONSENT_HEADER} holds no token of ours.", param=CONSENT_HEADER)
    wish = _wish(said.strip().lower() if said is not None else None, HEADER)
    known = wish_of(request.cloud.mode)
    return replace(request, cloud=replace(request.cloud, mode=strictest_wish(known, wish), consent=consent.strip()))


def _wish(said: object, param: str) -> Wish | None:
    try:
        return wish_of(said)
    except ValueError as error:
        raise InvalidRequest(f"{param}: this is none. {error}", code="cloud_mode", param=param) from None
