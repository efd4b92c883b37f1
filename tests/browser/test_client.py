"""The web client in a real Chromium, as a person uses it, in front of llama.cpp."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, async_playwright, expect

from tests.boxes import PASSWORD, Box
from tests.stand_ins.openai_engine import MODEL, Order

pytestmark = pytest.mark.browser

# No connection but to the box: Chromium's own services are not there in a test.
ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
WAIT_MS = 15_000
# Real models answer as fast as the machine lets them.
expect.set_options(timeout=WAIT_MS)


@pytest.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    """One Chromium for all tests here."""
    path = shutil.which("chromium") or shutil.which("google-chrome")
    assert path, "Chromium is missing: `make browser` installs it"
    async with async_playwright() as playwright:
        running = await playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield running
        await running.close()


@pytest.fixture
async def page(browser: Browser) -> AsyncIterator[Page]:
    """A fresh profile. Errors on the page, and requests to other places, fail the test."""
    context = await browser.new_context()
    page = await context.new_page()
    page.set_default_timeout(WAIT_MS)
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on(
        "request",
        lambda request: (
            faults.append(request.url) if not request.url.startswith(("http://127.0.0.1:", "data:")) else None
        ),
    )
    yield page
    await context.close()
    assert faults == []


async def log_in(page: Page, box: Box, name: str) -> None:
    """Through the form."""
    await page.goto(f"{box.url}/login")
    await page.get_by_label("Name").fill(name)
    await page.get_by_label("Password", exact=True).fill(PASSWORD)
    await page.get_by_role("button", name="Log in").click()
    await expect(page.get_by_role("textbox", name="Message")).to_be_visible()


async def test_a_set_up_link_leads_to_an_answer_and_its_usage(page: Page, built_in_box: Box) -> None:
    """The first minute: follow the link, choose a password, ask, watch the answer, find the usage."""
    admin = await built_in_box.users.add("admin", "admin")
    token = await built_in_box.users.invite(admin.id)
    await page.goto(f"{built_in_box.url}/setup#{token}")
    await expect(page.get_by_label("Name")).to_have_value("admin")
    await page.get_by_label("Name").fill("ann")
    await page.get_by_label("Password", exact=True).fill(PASSWORD)
    await page.get_by_label("Repeat password").fill(PASSWORD)
    await page.get_by_role("button", name="Start").click()
    await page.get_by_role("textbox", name="Message").fill("What is a council?")
    await page.get_by_role("button", name="Send").click()
    answer = page.get_by_test_id("answer").last
    await expect(answer).to_contain_text("several models")
    await expect(page.get_by_test_id("answer-meta").last).to_contain_text("wirthforge-large")
    await expect(page.get_by_text("demonstration model").first).to_be_visible()
    (row,) = await built_in_box.usage(1)
    assert (row.user_id, row.outcome, row.key_id) == (admin.id, "completed", None)
    assert row.output_tokens > 0
    await page.goto(f"{built_in_box.url}/usage")
    await expect(page.get_by_test_id("usage-row")).to_have_count(1)
    await page.goto(f"{built_in_box.url}/setup#{token}")
    await expect(page.get_by_text("used").first).to_be_visible()


async def test_markdown_streams_in_and_is_harmless(page: Page, box: Box, order: Order) -> None:
    """Tokens show as they come; markup in an answer is text, not markup."""
    await box.person("ann", password=PASSWORD)
    await log_in(page, box, "ann")
    order.tokens, order.held_after = 6, 3
    order.hold.clear()
    await page.get_by_role("textbox", name="Message").fill("hi")
    await page.keyboard.press("Enter")
    answer = page.get_by_test_id("answer").last
    await expect(answer).to_contain_text("word2")
    await expect(answer).not_to_contain_text("word3")
    order.hold.set()
    await expect(answer).to_contain_text("word5")


async def test_stop_keeps_the_text_and_frees_the_engine(page: Page, box: Box, order: Order) -> None:
    """The stop button ends the engine's work, and what came stays on the page."""
    await box.person("ann", password=PASSWORD)
    await log_in(page, box, "ann")
    order.tokens, order.held_after = 50, 4
    order.hold.clear()
    await page.get_by_role("textbox", name="Message").fill("hi")
    await page.get_by_role("button", name="Send").click()
    await expect(page.get_by_test_id("answer").last).to_contain_text("word3")
    await page.get_by_role("button", name="Stop").click()
    await expect(page.get_by_test_id("answer-meta").last).to_contain_text("stopped")
    await order.gone.wait()
    (row,) = await box.usage(1)
    assert (row.outcome, row.output_tokens) == ("cancelled", 4)
    await expect(page.get_by_test_id("answer").last).to_contain_text("word3")


async def test_a_key_is_made_shown_once_and_works(page: Page, box: Box) -> None:
    """What the page shows is what a program can use."""
    await box.person("ann", password=PASSWORD)
    await log_in(page, box, "ann")
    await page.goto(f"{box.url}/keys")
    await page.get_by_label("Label").fill("laptop")
    await page.get_by_role("button", name="Create key").click()
    key = (await page.get_by_test_id("new-key").inner_text()).strip()
    async with box.http(headers={"Authorization": f"Bearer {key}"}) as client:
        listed = await client.get("/v1/models")
    assert [model["id"] for model in listed.json()["data"]] == [MODEL, "council:self"]
    await page.reload()
    await expect(page.get_by_test_id("key-row").filter(has_text="laptop")).to_be_visible()
    await expect(page.get_by_text(key)).to_have_count(0)


async def test_an_admin_brings_somebody_in(page: Page, browser: Browser, box: Box) -> None:
    """The link that an admin copies lets a new person choose a password; members see no people page."""
    await box.person("ann", role="admin", password=PASSWORD)
    await log_in(page, box, "ann")
    await page.goto(f"{box.url}/people")
    await page.get_by_label("Name").fill("bob")
    await page.get_by_role("button", name="Invite").click()
    link = (await page.get_by_test_id("setup-link").inner_text()).strip()
    other = await (await browser.new_context()).new_page()
    await other.goto(link)
    await other.get_by_label("Password", exact=True).fill(PASSWORD)
    await other.get_by_label("Repeat password").fill(PASSWORD)
    await other.get_by_role("button", name="Start").click()
    await expect(other.get_by_role("textbox", name="Message")).to_be_visible()
    await expect(other.get_by_role("link", name="People")).to_have_count(0)
    await other.context.close()


async def test_the_api_documentation_works_offline(page: Page, box: Box) -> None:
    """Who logs in is led to it; every operation is there, and nothing came from elsewhere (the fixture checks)."""
    await box.person("ann", password=PASSWORD)
    await page.goto(f"{box.url}/docs")
    await page.get_by_label("Name").fill("ann")
    await page.get_by_label("Password", exact=True).fill(PASSWORD)
    await page.get_by_role("button", name="Log in").click()
    await expect(page.get_by_text("/v1/chat/completions").first).to_be_visible()
    assert page.url == f"{box.url}/docs"


async def test_wrong_passwords_are_told(page: Page, box: Box) -> None:
    """The sentence of the server is what the page shows."""
    await box.person("ann", password=PASSWORD)
    await page.goto(f"{box.url}/login")
    await page.get_by_label("Name").fill("ann")
    await page.get_by_label("Password", exact=True).fill("not this one at all")
    await page.get_by_role("button", name="Log in").click()
    await expect(page.get_by_text("The name or the password is wrong.")).to_be_visible()


def test_every_asset_is_ours() -> None:
    """No built file names another host to load something from."""
    built = Path("server/web/static")
    for page in built.glob("*.html"):
        text = page.read_text()
        assert "http://" not in text
        assert "https://" not in text
