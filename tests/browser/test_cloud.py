"""A cloud over a full box, in a real Chromium: what is asked, both answers to it, and what is told afterwards."""

import pytest
from playwright.async_api import Locator, Page, expect

from tests.boxes import PASSWORD
from tests.browser.test_client import browser, log_in, page  # noqa: F401 (fixtures)
from tests.cloud.boxes import PROVIDER, Sky
from tests.cloud.conftest import cloud, looker, quiet_sky, settings, sky, soon, switches  # noqa: F401 (fixtures)
from tests.stand_ins.cloud_provider import MODEL as FAR

# ruff: noqa: F811 (fixtures are taken by their names)

pytestmark = pytest.mark.browser

QUESTION = "Why is the sky blue?"


async def _log_in(page: Page, sky: Sky) -> None:
    """As ann, who wants to be asked at once."""
    await sky.ann_says(mode="ask", patience_ms=0)
    await sky.box.users.set_password(sky.ann.user.id, PASSWORD)
    await log_in(page, sky.box, "ann")


async def _ask(page: Page) -> Locator:
    """Ask; gives where the answer comes."""
    await page.get_by_role("textbox", name="Message").fill(QUESTION)
    await page.get_by_role("button", name="Send").click()
    return page.get_by_test_id("answer")


async def test_what_is_shown_is_what_leaves_after_a_yes(page: Page, sky: Sky) -> None:
    """To the letter; the answer is marked, now and later, and what left is told."""
    await _log_in(page, sky)
    async with sky.full():
        answer = await _ask(page)
        card, body = page.get_by_test_id("cloud-ask"), page.get_by_test_id("cloud-body")
        await expect(card).to_contain_text(f"to {FAR} at {PROVIDER}")
        await expect(body).to_contain_text(QUESTION)
        await page.set_viewport_size({"width": 390, "height": 780})
        await expect(card.get_by_role("button", name="Keep waiting here")).to_be_visible()
        assert await page.evaluate("document.documentElement.scrollWidth") == 390
        await page.set_viewport_size({"width": 1280, "height": 800})
        await card.get_by_text("To the letter").click()
        shown = await body.text_content()
        assert shown
        assert sky.is_silent
        await card.get_by_role("button", name="Send").click()
        await expect(answer).to_have_text("Hello from far away")
        await expect(page.get_by_test_id("cloud-mark")).to_contain_text(f"{FAR} at {PROVIDER}")
        await expect(card).to_have_count(0)
    assert sky.cloud.bodies == [shown.encode()]
    await page.reload()
    await expect(page.get_by_test_id("cloud-mark")).to_contain_text(f"{FAR} at {PROVIDER}")
    await page.goto(f"{sky.box.url}/cloud/left")
    row = page.get_by_test_id("departure")
    await expect(row).to_have_count(1)
    await expect(row).to_contain_text(f"{FAR} at {PROVIDER}")
    await expect(row).to_contain_text("you said yes")
    send, *_ = await sky.entries()
    await row.get_by_text("Proof").click()
    await expect(row).to_contain_text(send.sha256.hex())


async def test_after_a_no_the_box_answers(page: Page, sky: Sky) -> None:
    """And nobody has even knocked at the provider's."""
    await _log_in(page, sky)
    async with sky.full():
        answer = await _ask(page)
        card = page.get_by_test_id("cloud-ask")
        await expect(card).to_contain_text(QUESTION)
        await card.get_by_role("button", name="Keep waiting here").click()
        await expect(card).to_have_count(0)
        await expect(page.get_by_test_id("waiting")).to_be_visible()
        sky.order.hold.set()
        await expect(answer).to_have_text("word0 word1 word2")
    await expect(page.get_by_test_id("answer-meta")).to_contain_text("tokens")
    await expect(page.get_by_test_id("cloud-mark")).to_have_count(0)
    assert sky.is_silent
    await page.goto(f"{sky.box.url}/cloud/left")
    await expect(page.get_by_test_id("nothing-left")).to_be_visible()


async def test_of_a_private_conversation_nothing_is_asked(page: Page, sky: Sky) -> None:
    """It waits for the box, though its person has no patience."""
    await _log_in(page, sky)
    await page.get_by_role("button", name="Cloud for this conversation").click()
    await page.get_by_role("menuitemradio", name="Private").click()
    await expect(page.get_by_role("button", name="Cloud for this conversation: Private")).to_be_visible()
    await page.keyboard.press("Escape")
    async with sky.full():
        answer = await _ask(page)
        await expect(page.get_by_test_id("waiting")).to_contain_text("You are next")
        await expect(page.get_by_test_id("cloud-ask")).to_have_count(0)
        sky.order.hold.set()
        await expect(answer).to_have_text("word0 word1 word2")
    await expect(page.get_by_test_id("cloud-mark")).to_have_count(0)
    assert sky.is_silent
