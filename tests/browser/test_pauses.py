"""A paused answer, as its reader sees it."""

import asyncio

import pytest
from msgspec.structs import replace
from playwright.async_api import Page, expect
from redis.asyncio import Redis

from server.settings import Settings
from tests.boxes import PASSWORD
from tests.browser.test_client import browser, log_in, page  # noqa: F401 (fixtures)
from tests.conftest import MakeBox
from tests.continuation.stage import Stage, know, storytellers
from tests.stand_ins.storyteller import HOLD, asked

pytestmark = pytest.mark.browser


async def test_a_reader_sees_that_and_why_an_answer_pauses(
    page: Page,  # noqa: F811 (a fixture)
    make_box: MakeBox,
    settings: Settings,
    redis: Redis,
) -> None:
    """The text so far stays, a line says why, and the foot tells afterwards how often and how long."""
    async with storytellers("one") as (tellers, engines):
        box = await make_box(replace(settings, reserved_slots=0), engines=engines)
        await know(box, "one")
        stage, teller = Stage(box, tellers, redis), tellers["one"]
        hog, guest = await box.person("hog", password=PASSWORD), await box.person("guest")
        teller.held_after = 30
        await log_in(page, box, "hog")
        # A longer prompt: the page's answer is the cheaper one to take up again.
        other = stage.hear(hog, asked(f"{HOLD} {'word ' * 200}"))
        await page.get_by_role("textbox", name="Message").fill(f"{HOLD} for it")
        await page.keyboard.press("Enter")
        answer = page.get_by_test_id("answer").last
        await expect(answer).to_contain_text("wörd29")
        await stage.pausable("one", 2)
        guests = stage.hear(guest, asked(HOLD))
        paused = page.get_by_test_id("paused")
        await expect(paused).to_have_text("Paused: another member is being served")
        for width in (390, 1000):
            await page.set_viewport_size({"width": width, "height": 800})
            await expect(paused).to_be_in_viewport()
            await expect(answer).to_contain_text("wörd29")
            assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        teller.go.set()
        await expect(answer).to_contain_text("wörd119")
        await expect(paused).to_have_count(0)
        await expect(page.get_by_test_id("answer-meta").last).to_contain_text("paused 1 time")
        async with asyncio.timeout(20):
            await asyncio.gather(other[1], guests[1])
        await stage.settled(3)
