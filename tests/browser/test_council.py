"""A council in a real Chromium: members side by side, the verdict, and what one thinks of it."""

import pytest
from playwright.async_api import Page, expect

from tests.boxes import PASSWORD, Box
from tests.browser.test_client import browser, log_in, page  # noqa: F401 (fixtures)

pytestmark = pytest.mark.browser


async def test_three_models_answer_and_one_is_picked(page: Page, built_in_box: Box) -> None:  # noqa: F811
    """The picker has councils; the answer is right; the size is explained; the pick is taken."""
    await built_in_box.person("ann", password=PASSWORD)
    await log_in(page, built_in_box, "ann")
    await page.get_by_label("Model", exact=True).select_option("council")
    await page.get_by_role("textbox", name="Message").fill("What is a council?")
    await page.get_by_role("button", name="Send").click()
    await expect(page.get_by_test_id("answer").last).to_contain_text("several models")
    council = page.get_by_test_id("council").last
    await expect(page.get_by_test_id("verdict")).to_contain_text("agree")
    await expect(council).to_contain_text("Council")
    await council.get_by_role("button").first.click()
    await expect(page.get_by_test_id("member")).to_have_count(3)
    await expect(page.get_by_test_id("member").first).to_contain_text("wirthforge-large")
    await page.get_by_role("button", name="Good answer").click()
    await expect(page.get_by_role("button", name="Good answer")).to_have_attribute("aria-pressed", "true")
