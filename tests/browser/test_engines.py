"""The engines page in a real Chromium: an admin adds an engine, changes it, drains it and removes it."""

import pytest
from playwright.async_api import Page, expect

from tests.boxes import PASSWORD
from tests.browser.test_client import browser, log_in, page  # noqa: F401 (fixtures)
from tests.conftest import MakeBox
from tests.stand_ins.openai_engine import MODEL

# ruff: noqa: F811 (fixtures are taken by their names)

pytestmark = pytest.mark.browser

NARROW = {"width": 390, "height": 780}


async def _choose(page: Page, action: str) -> None:
    await page.get_by_role("button", name="Actions for gpu").click()
    await page.get_by_role("menuitem", name=action).click()


async def test_an_admin_adds_changes_drains_and_removes_an_engine(
    page: Page, make_box: MakeBox, engine_url: str
) -> None:
    """A box without engines gets one: its model is there, it takes nothing while it is drained, then it is gone."""
    box = await make_box()
    await box.person("root", role="admin", password=PASSWORD)
    await log_in(page, box, "root")
    await page.get_by_role("link", name="Engines").click()
    await expect(page.get_by_text("There is no engine yet.")).to_be_visible()
    await page.get_by_role("button", name="Add an engine").click()
    await page.get_by_label("Name").fill("gpu")
    await page.get_by_label("URL").fill("ftp://gpu-box/v1")
    await page.get_by_role("button", name="Add", exact=True).click()
    await expect(page.get_by_text("begins with http:// or https:// and a host")).to_be_visible()
    await expect(page.get_by_label("URL")).to_be_focused()
    await page.get_by_label("URL").fill(engine_url)
    await page.get_by_role("button", name="Add", exact=True).click()
    row = page.get_by_test_id("engine-row")
    await expect(page.get_by_text("gpu was added and is in use.")).to_be_visible()
    await expect(row.get_by_role("list", name="Models of gpu")).to_have_text(MODEL)
    await expect(row).to_contain_text("counts tokens: yes")
    await expect(row).to_contain_text("0 of 4 slots in use")
    await _choose(page, "Change…")
    form = page.get_by_role("form", name="Change gpu")
    await expect(form.get_by_label("URL")).to_be_focused()
    await form.get_by_text("How much it is given at a time").click()
    await expect(form.get_by_label("Slots", exact=True)).to_have_attribute("placeholder", "4 (default)")
    await form.get_by_label("Slots", exact=True).fill("7")
    await form.get_by_role("button", name="Save").click()
    await expect(row).to_contain_text("0 of 7 slots in use")
    await expect(row.get_by_label("Limits of gpu")).to_contain_text("Slots7 set here")
    await _choose(page, "Drain")
    await expect(row).to_contain_text("It takes no new requests")
    await _choose(page, "Take in again")
    await expect(row).not_to_contain_text("It takes no new requests")
    await _choose(page, "Remove…")
    await expect(page.get_by_role("button", name="Cancel")).to_be_focused()
    await page.get_by_role("button", name="Remove", exact=True).click()
    await expect(row).to_have_count(0)
    await expect(page.get_by_text("There is no engine yet.")).to_be_visible()


async def test_the_page_fits_a_phone_and_tells_the_machine(page: Page, make_box: MakeBox, engine_url: str) -> None:
    """On a narrow screen nothing sticks out; the host is always among the devices."""
    box = await make_box()
    await box.person("root", role="admin", password=PASSWORD)
    await page.set_viewport_size(NARROW)  # type: ignore[arg-type]
    await log_in(page, box, "root")
    await page.goto(f"{box.url}/engines")
    await page.get_by_role("button", name="Add an engine").click()
    await page.get_by_label("Name").fill("gpu")
    await page.get_by_label("URL").fill(engine_url)
    await page.get_by_role("button", name="Add", exact=True).click()
    await expect(page.get_by_test_id("engine-row")).to_contain_text(MODEL)
    await _choose(page, "Change…")
    at = await page.get_by_role("form", name="Change gpu").bounding_box()
    assert at is not None
    assert at["width"] <= NARROW["width"]
    await page.get_by_role("button", name="Cancel").click()
    await expect(page.get_by_test_id("device-row").filter(has_text="host")).to_contain_text("in use")
    assert await page.evaluate("document.documentElement.scrollWidth") == NARROW["width"]
    assert await page.locator("main").evaluate("({parentElement: at}) => at.scrollWidth <= at.clientWidth")


async def test_members_see_no_engines(page: Page, make_box: MakeBox) -> None:
    """No link, and no page behind its address."""
    box = await make_box()
    await box.person("ann", password=PASSWORD)
    await log_in(page, box, "ann")
    await expect(page.get_by_role("link", name="Usage")).to_be_visible()
    await expect(page.get_by_role("link", name="Engines")).to_have_count(0)
    await page.goto(f"{box.url}/engines")
    await expect(page.get_by_role("heading", name="There is no such page")).to_be_visible()
