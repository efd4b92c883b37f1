"""Sharing and quotas in a real Chromium: one's place in the queue, one's share, and limits that are set."""

import asyncio

import pytest
from msgspec.structs import replace
from playwright.async_api import Page, expect

from server.settings import Settings
from tests.boxes import PASSWORD, Box, Person
from tests.browser.test_client import browser, log_in, page  # noqa: F401 (fixtures)
from tests.conftest import MakeBox
from tests.stand_ins.openai_engine import MODEL, Order

# ruff: noqa: F811 (fixtures are taken by their names)

pytestmark = pytest.mark.browser


async def _ask(box: Box, person: Person) -> None:
    async with box.openai(person) as client:
        await client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "hi"}])


async def test_who_waits_sees_it(
    page: Page, make_box: MakeBox, settings: Settings, engine_url: str, order: Order
) -> None:
    """The chat tells the place in the queue, the sharing page the share, live; then the answer comes."""
    box = await make_box(replace(settings, engines=(engine_url,), engine_slots=1, engine_silence_ms_max=60_000))
    await box.person("ann", password=PASSWORD)
    await log_in(page, box, "ann")
    order.hold.clear()
    other = asyncio.create_task(_ask(box, await box.person("bob")))
    await order.began.wait()
    await page.get_by_role("textbox", name="Message").fill("hi")
    await page.get_by_role("button", name="Send").click()
    await expect(page.get_by_test_id("waiting")).to_contain_text("You are next")
    await page.get_by_role("link", name="Sharing").click()
    await expect(page.get_by_test_id("freshness")).to_have_text("live")
    sentence = page.get_by_test_id("share-sentence")
    await expect(sentence).to_have_text("Two people are using the box. Your share is a half.")
    await expect(page.get_by_test_id("engine")).to_contain_text("1 of 1 in use · 1 waiting")
    await expect(page.get_by_test_id("own-request")).to_contain_text("You are next")
    await expect(page.get_by_text("bob")).to_have_count(0)
    order.hold.set()
    await other
    await expect(sentence).to_have_text("Nobody is using the box.")
    await page.get_by_role("link", name="Chat", exact=True).click()
    await expect(page.get_by_test_id("answer").last).to_contain_text("word2")


async def test_without_a_socket_the_page_asks(page: Page, box: Box) -> None:
    """Where no websocket can be had, the share is asked for every few seconds."""
    await box.person("ann", password=PASSWORD)
    await log_in(page, box, "ann")
    await page.route_web_socket("**/api/live", lambda socket: socket.close())
    await page.get_by_role("link", name="Sharing").click()
    await expect(page.get_by_test_id("freshness")).to_have_text("every 5 seconds")
    await expect(page.get_by_test_id("share-sentence")).to_have_text("Nobody is using the box.")


async def test_an_admin_limits_somebody(page: Page, box: Box) -> None:
    """A limit that is set is in force, is refused where it is wrong, is logged, and can be cleared."""
    await box.person("root", role="admin", password=PASSWORD)
    await box.person("ann")
    await log_in(page, box, "root")
    await page.goto(f"{box.url}/quotas")
    await page.get_by_role("link", name="ann").click()
    await page.get_by_role("button", name="Change").click()
    field = page.get_by_test_id("limit-tokens_per_day")
    await field.get_by_text("Limit", exact=True).click()
    await field.get_by_role("textbox").fill("-5")
    await page.get_by_role("button", name="Save").click()
    await expect(field).to_contain_text("tokens_per_day is a whole number from 1")
    await field.get_by_role("textbox").fill("100 000")
    await page.get_by_role("button", name="Save").click()
    await expect(page.get_by_test_id("in-force-tokens_per_day")).to_contain_text("100,000")
    await page.get_by_role("button", name="Clear the rule").click()
    await page.get_by_role("button", name="Clear", exact=True).click()
    await expect(page.get_by_test_id("in-force-tokens_per_day")).to_contain_text("unlimited")
    await page.get_by_role("link", name="All quotas").click()
    await expect(page.get_by_test_id("audit-row").last).to_contain_text("root set tokens per day of ann to 100,000")
