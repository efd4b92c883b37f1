"""Reports of usage in a real Chromium, and prices that an admin sets."""

import re

import pytest
from playwright.async_api import Page, expect

from tests.boxes import PASSWORD, Box
from tests.browser.test_client import browser, log_in, page  # noqa: F401 (fixtures)
from tests.stand_ins.openai_engine import MODEL

# ruff: noqa: F811 (fixtures are taken by their names)

pytestmark = pytest.mark.browser


async def _ask(page: Page, question: str, answers: int = 1) -> None:
    await page.get_by_role("textbox", name="Message").fill(question)
    await page.get_by_role("button", name="Send").click()
    await expect(page.get_by_test_id("answer-meta")).to_have_count(answers)
    await expect(page.get_by_test_id("answer-meta").last).to_contain_text("tokens")


async def test_a_report_holds_what_was_asked(page: Page, box: Box) -> None:
    """Two answers are two requests: in the sums, in the chart, in the groups, in the file, on a phone too."""
    await box.person("ann", password=PASSWORD)
    await log_in(page, box, "ann")
    await _ask(page, "hi")
    await _ask(page, "and again", answers=2)
    await box.usage(2)
    await page.get_by_role("link", name="Usage").click()
    totals = page.get_by_test_id("usage-totals")
    await expect(totals).to_contain_text(re.compile(r"Requests\s*2\D"))
    await expect(totals).to_contain_text(re.compile(r"Output tokens\s*6\D"))
    await expect(page.get_by_test_id("day-chart")).to_be_visible()
    rows = page.get_by_test_id("report-row")
    await expect(rows).to_have_count(1)
    await expect(rows).to_contain_text(MODEL)
    await page.get_by_label("By", exact=True).select_option("placement")
    await expect(rows).to_contain_text("on this box")
    await expect(page.get_by_test_id("usage-row")).to_have_count(2)
    async with page.expect_download() as started:
        await page.get_by_role("link", name="Download as CSV").click()
    lines = (await (await started.value).path()).read_text().splitlines()
    assert len(lines) == 2
    assert lines[1].startswith('"local",2,14,6,')
    # Prices and everybody's usage are the admins'.
    await expect(page.get_by_role("link", name="Prices")).to_have_count(0)
    await page.set_viewport_size({"width": 390, "height": 780})
    await expect(totals).to_be_visible()
    assert await page.evaluate("document.documentElement.scrollWidth") == 390


async def test_an_admin_sets_a_price_and_what_is_asked_then_costs(page: Page, box: Box) -> None:
    """What was used before has no cost, and the report says so."""
    await box.person("eve", "admin", password=PASSWORD)
    await log_in(page, box, "eve")
    await _ask(page, "hi")
    await box.usage(1)
    await page.goto(f"{box.url}/usage/everybody")
    await expect(page.get_by_text("the models had no price then")).to_be_visible()
    await page.get_by_role("link", name="Prices", exact=True).click()
    await page.get_by_role("button", name="Set a price").click()
    await page.get_by_role("form", name="Set a price").get_by_label("Model").fill(MODEL)
    await page.get_by_label("A million tokens read").fill("1000000")
    await page.get_by_label("A million tokens written").fill("2000000")
    await page.get_by_role("button", name="Save").click()
    await expect(page.get_by_test_id("price-row")).to_contain_text(MODEL)

    await page.get_by_role("link", name="Chat", exact=True).click()
    await expect(page.get_by_role("heading", name="What would you like to know?")).to_be_visible()
    await _ask(page, "and now?")
    await box.usage(2)
    await page.goto(f"{box.url}/usage/everybody")
    # 7 tokens in at 1, 3 out at 2.
    await expect(page.get_by_test_id("usage-totals")).to_contain_text(re.compile(r"Cost\s*13"))
    await expect(page.get_by_test_id("report-row")).to_contain_text("eve")
    await expect(page.get_by_text("1 of the requests is not in the cost")).to_be_visible()
