"""Who may ask what: every address of the application, with no credentials, a member's, and an admin's."""

import socket
from uuid import UUID

import httpx
from msgspec.structs import replace

from server.settings import Settings
from tests.boxes import PASSWORD, Box
from tests.conftest import MakeBox
from tests.web.described import addresses, litestar

NOBODY = str(UUID(int=0))
# What answers without credentials, and why it may. Whatever is not here must refuse.
OPEN = {
    ("GET", "/"),  # the client's files
    ("GET", "/{path}"),
    ("GET", "/docs"),  # leads to the log-in page
    ("GET", "/health"),  # for probes, which have no key
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/api/session"),  # says that nobody is logged in
    ("POST", "/api/login"),  # the ways in and out
    ("POST", "/api/logout"),
    ("POST", "/api/setup"),  # their link is the credential
    ("POST", "/api/setup/check"),
}
ADMIN_ONLY = {
    ("GET", "/metrics"),
    ("GET", "/api/admin/users"),
    ("POST", "/api/admin/users"),
    ("PATCH", "/api/admin/users/{user_id}"),
    ("DELETE", "/api/admin/users/{user_id}"),
    ("POST", "/api/admin/users/{user_id}/reset-password"),
    ("GET", "/api/admin/removals"),
    ("GET", "/api/admin/removals/{receipt_id}"),
    ("GET", "/api/admin/audit"),
    ("GET", "/api/admin/quotas"),
    ("GET", "/api/admin/engines"),
    ("GET", "/api/admin/engines/kinds"),
    ("GET", "/api/admin/calibrations"),
    ("POST", "/api/admin/calibrations/{engine}"),
    ("POST", "/api/admin/engines"),
    ("PATCH", "/api/admin/engines/{name}"),
    ("DELETE", "/api/admin/engines/{name}"),
    ("POST", "/api/admin/engines/test/{name}"),
    ("GET", "/api/admin/councils"),
    ("GET", "/api/admin/council-runs"),
    ("GET", "/api/admin/usage"),
    ("GET", "/api/admin/usage/export"),
    ("GET", "/api/admin/prices"),
    ("GET", "/api/admin/egress/summary"),
    *((method, "/api/admin/prices/{model}") for method in ("PUT", "DELETE")),
    *((method, "/api/admin/cloud/providers") for method in ("GET", "POST")),
    *((method, "/api/admin/cloud/providers/{name}") for method in ("PATCH", "DELETE")),
    ("POST", "/api/admin/cloud/providers/{name}/check"),
    *((method, "/api/admin/cloud/policy") for method in ("GET", "PUT")),
    *((method, "/api/admin/cloud/caps/{user_id}") for method in ("GET", "PUT", "DELETE")),
    *((method, "/api/admin/councils/{name}") for method in ("GET", "PUT", "DELETE")),
    *((method, f"/api/admin/{name}") for name in ("skills", "contention") for method in ("GET", "DELETE")),
    *((method, "/api/admin/quotas/default") for method in ("PUT", "DELETE")),
    *((method, "/api/admin/quotas/roles/{role}") for method in ("PUT", "DELETE")),
    *((method, "/api/admin/quotas/users/{user_id}") for method in ("GET", "PUT", "DELETE")),
}
TGI = {("POST", "/"), ("POST", "/generate"), ("POST", "/generate_stream"), ("GET", "/info")}
CLOSED = [address for address in addresses() if address not in OPEN]
SECRETS = {"prompt": "x", "name": "x", "label": "x", "current": "x", "new": "x", "password": "x", "messages": []}


def _path(template: str) -> str:
    return (
        template.replace("{user_id}", NOBODY)
        .replace("{key_id}", NOBODY)
        .replace("{receipt_id}", NOBODY)
        .replace("{council_id}", NOBODY)
        .replace("{conversation_id}", NOBODY)
        .replace("{question_id}", NOBODY)
        .replace("{answer_id}", NOBODY)
        .replace("{model}", "stand-in")
        .replace("{role}", "member")
        .replace("{name}", "no-engine")
    )


def test_the_lists_name_what_there_is() -> None:
    """No address in the lists above is a mistake, or gone."""
    assert set(addresses()) >= OPEN
    assert set(CLOSED) >= ADMIN_ONLY
    assert {address for address in CLOSED if "/admin" in address[1]} <= ADMIN_ONLY


async def test_without_credentials_everything_else_is_closed(make_box: MakeBox, settings: Settings) -> None:
    """Each address that is not meant to be open answers 401, in the shape that its callers expect."""
    assert len(CLOSED) >= 14
    # Many more wrong credentials than an address may send (tests/api/test_refused.py).
    box = await make_box(replace(settings, address_refusals_per_minute_max=0))
    async with box.http() as client:
        for method, template in CLOSED:
            for headers in ({}, {"Cookie": "wirthforge_session=x"}, {"Authorization": "Bearer wf-x"}):
                answer = await client.request(method, _path(template), headers=headers, json=SECRETS)
                assert answer.status_code == 401, (method, template, headers)
                assert answer.headers["WWW-Authenticate"] == "Bearer"
                error = answer.json()["error"]
                if (method, template) in TGI or template.startswith("/tgi"):
                    assert error.endswith(".")  # text-generation-inference's errors are a sentence
                    continue
                assert error["code"] == ("invalid_api_key" if "Authorization" in headers else "not_authenticated")
                assert error.get("type") == ("authentication_error" if template.startswith("/v1") else None)


async def test_a_member_does_not_administer(box: Box) -> None:
    """Each address that is for admins answers a member 403, whatever they send."""
    ben = await box.person("ben")
    async with box.http(headers=ben.bearer) as client:
        for method, template in sorted(ADMIN_ONLY):
            answer = await client.request(method, _path(template), json=SECRETS)
            assert answer.status_code == 403, (method, template)
            assert answer.json()["error"]["code"] == "admin_only"


async def test_an_admin_does(box: Box) -> None:
    """The same addresses answer an admin, by key and by cookie."""
    ann = await box.person("ann", "admin", PASSWORD)
    async with box.http(headers=ann.bearer) as client:
        for method, template in sorted(ADMIN_ONLY):
            answer = await client.request(method, _path(template), json=SECRETS)
            # The body that is sent is no rule of a quota: that one is refused as such, and not for who sends it.
            assert answer.status_code in {200, 201, 204, 400, 404}, (method, template)
    async with box.http() as client:
        await client.post("/api/login", json={"name": "ann", "password": PASSWORD})
        assert (await client.get("/api/admin/users")).status_code == 200


async def test_a_schema_of_everything(box: Box) -> None:
    """The served schema is the application's, and knows the shapes that the web client is typed by."""
    ann = await box.person("ann")
    async with box.http(headers=ann.bearer) as client:
        served = (await client.get("/schema/openapi.json")).json()
        assert (await client.get("/schema/other")).status_code == 404
    described = litestar().openapi_schema.to_schema()
    assert served["paths"].keys() == described["paths"].keys()
    assert {"/api/session", "/api/keys", "/api/admin/users", "/api/usage", "/v1/models"} <= served["paths"].keys()
    shapes = {name.rpartition(".")[2].rpartition("_")[2] for name in served["components"]["schemas"]}
    assert {"Principal", "SessionState", "NewApiKey", "ApiKey", "UsageRow", "User", "Invitation"} <= shapes


MALFORMED = [b"", b"{", b"[]", b"null", b'"x"', b"{}", b'{"name":1,"password":"x"}', b'{"name":"x"}', b"name=x"]


async def test_a_malformed_body_is_told_in_one_line(box: Box) -> None:
    """Not JSON, the wrong type, a missing field: 400, in our shape, with something to read."""
    async with box.http() as client:
        for body in MALFORMED:
            answer = await client.post("/api/login", content=body)
            error = answer.json()["error"]
            assert answer.status_code == 400, body
            assert error.keys() == {"message", "code", "param"}
            assert error["message"]
            assert "\n" not in error["message"]


async def test_a_wrong_field_is_named(box: Box) -> None:
    """Whoever reads the sentence knows where to look."""
    wrong: list[tuple[dict[str, object], str]] = [
        ({"name": 1, "password": "x"}, "name"),
        ({"name": "x"}, "password"),
        ({"name": "x", "password": []}, "password"),
    ]
    async with box.http() as client:
        for body, field in wrong:
            assert field in (await client.post("/api/login", json=body)).json()["error"]["message"]


async def test_a_value_that_will_not_do_names_its_field(box: Box) -> None:
    """`param` is for forms, which put the sentence beside the field."""
    ann = await box.person("ann")
    wrong: list[tuple[dict[str, object], str]] = [
        ({"label": ""}, "label"),
        ({"label": "a\0b"}, "label"),
        ({"label": "x", "expires_in_days": 0}, "expires_in_days"),
    ]
    async with box.http(headers=ann.bearer) as client:
        for body, param in wrong:
            answer = await client.post("/api/keys", json=body)
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


async def test_a_wrong_address_is_told_in_json(box: Box) -> None:
    """Programs get an error there, never a page."""
    wrong = [
        *((method, path) for method in ("GET", "POST", "DELETE") for path in ("/api", "/api/nothing", "/api/a/b/c")),
        *(("DELETE", "/api/keys/no-uuid"), ("PATCH", "/api/admin/users/no-uuid")),
        *(("GET", "/assets/gone.js"), ("GET", "/schema/a/b")),
    ]
    async with box.http() as client:
        for method, path in wrong:
            answer = await client.request(method, path)
            assert answer.status_code == 404, (method, path)
            assert answer.json() == {
                "error": {"message": "There is nothing at this address.", "code": "not_found", "param": None}
            }


async def test_a_wrong_method_is_told(box: Box) -> None:
    """The address is right, the method is not."""
    async with box.http() as client:
        answer = await client.put("/api/login", json={})
    assert (answer.status_code, answer.json()["error"]["code"]) == (405, "method_not_allowed")


ELSEWHERE = "https://evil.example"


async def test_another_sites_page_cannot_act(box: Box) -> None:
    """With a visitor's cookie, only our own pages and programs change anything; everybody may read."""
    refused = [
        {"Origin": ELSEWHERE},
        {"Origin": "null"},
        {"Origin": ""},
        {"Origin": f"{ELSEWHERE}/{box.url}"},
        {"Origin": f"{box.url}.evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site", "Origin": box.url},
    ]
    await box.person("ann", password=PASSWORD)
    async with box.http() as client:
        await client.post("/api/login", json={"name": "ann", "password": PASSWORD})
        for headers in refused:
            answer = await client.post("/api/logout", headers=headers)
            assert answer.status_code == 403, headers
            assert answer.json()["error"]["code"] == "cross_site_request"
            assert (await client.get("/api/session", headers=headers)).json()["principal"]["name"] == "ann"


async def test_our_own_page_can(box: Box) -> None:
    """Its requests say that they are from the same origin; those of programs say nothing."""
    await box.person("ann", password=PASSWORD)
    ours = [
        {"Origin": box.url},
        {"Sec-Fetch-Site": "same-origin", "Origin": box.url},
        {"Sec-Fetch-Site": "none"},
        dict[str, str](),
    ]
    async with box.http() as client:
        for headers in ours:
            login = await client.post("/api/login", json={"name": "ann", "password": PASSWORD}, headers=headers)
            assert login.status_code == 200, headers
            assert (await client.post("/api/logout", headers=headers)).status_code == 204
            assert (await client.get("/api/session")).json() == {"principal": None}


async def test_log_in_is_protected_too(box: Box) -> None:
    """Another site cannot log a visitor in as somebody else; nor is it told whether that would work."""
    async with box.http(headers={"Origin": ELSEWHERE}) as client:
        answer = await client.post("/api/login", json={"name": "ann", "password": "wrong password"})
    assert answer.status_code == 403


async def test_programs_with_a_key_come_from_anywhere(box: Box) -> None:
    """A key is no cookie: nobody else's page has it."""
    ann = await box.person("ann")
    async with box.http(headers={**ann.bearer, "Origin": ELSEWHERE, "Sec-Fetch-Site": "cross-site"}) as client:
        assert (await client.post("/api/keys", json={"label": "x"})).status_code == 201
        body = {"model": "stand-in", "messages": [{"role": "user", "content": "x"}]}
        assert (await client.post("/v1/chat/completions", json=body)).status_code == 200


async def test_a_proxys_pages_are_ours(make_box: MakeBox, settings: Settings) -> None:
    """Where a proxy changes the Host header, the public URL says whose pages may act."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    await make_box(replace(settings, public_url="https://box.home:8443", port=port))
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        for origin, status in (("https://box.home:8443", 204), ("https://box.home", 403), (ELSEWHERE, 403)):
            assert (await client.post("/api/logout", headers={"Origin": origin})).status_code == status, origin
