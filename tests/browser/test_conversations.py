"""Stored conversations in a real Chromium: they are there again, in another tab too, with their branches."""

import pytest
from playwright.async_api import Page, expect

from tests.boxes import PASSWORD, Box
from tests.browser.test_client import browser, log_in, page  # noqa: F401 (fixtures)
from tests.stand_ins.openai_engine import Order

# ruff: noqa: F811 (fixtures are taken by their names)

pytestmark = pytest.mark.browser


async def _ask(page: Page, question: str) -> None:
    await page.get_by_role("textbox", name="Message").fill(question)
    await page.get_by_role("button", name="Send").click()


async def test_a_conversation_is_there_again_and_can_be_branched_found_and_deleted(
    page: Page, built_in_box: Box
) -> None:
    """Ask a real model, reload, edit the question, go back, search, rename, delete."""
    await built_in_box.person("ann", password=PASSWORD)
    await log_in(page, built_in_box, "ann")
    await _ask(page, "What is a council?")
    answer = page.get_by_test_id("answer").last
    foot = page.get_by_test_id("answer-meta").last
    await expect(answer).to_contain_text("several models")
    await expect(foot).to_contain_text("tokens")
    assert "/chat/" in page.url
    await page.reload()
    await expect(answer).to_contain_text("several models")
    await expect(foot).to_contain_text("tokens")
    row = page.get_by_test_id("conversation")
    await expect(row).to_have_text("What is a council?")

    question = page.get_by_test_id("question")
    await question.hover()
    await page.get_by_role("button", name="Edit question").click()
    await page.get_by_role("textbox", name="Question").fill("How is the box shared?")
    await page.keyboard.press("Enter")
    await expect(question).to_have_text("How is the box shared?")
    await expect(foot).to_contain_text("tokens")
    await page.reload()
    await expect(page.get_by_test_id("question-branches")).to_have_text("2/2")
    await page.get_by_role("button", name="Previous question").click()
    await expect(question).to_have_text("What is a council?")
    await expect(answer).to_contain_text("several models")

    search = page.get_by_role("textbox", name="Search conversations")
    await search.fill("shared")
    await expect(page.locator("mark").first).to_have_text("shared")
    await search.press("Escape")
    await row.hover()
    await page.get_by_role("button", name="Actions for What is a council?").click()
    await page.get_by_role("menuitem", name="Rename").click()
    await page.get_by_role("textbox", name="Title").fill("Councils")
    await page.keyboard.press("Enter")
    await expect(row).to_have_text("Councils")
    await row.hover()
    await page.get_by_role("button", name="Actions for Councils").click()
    await page.get_by_role("menuitem", name="Delete…").click()
    await page.get_by_role("button", name="Delete", exact=True).click()
    await expect(row).to_have_count(0)
    await expect(page).to_have_url(f"{built_in_box.url}/")


async def test_a_second_tab_picks_up_an_answer_and_the_first_one_may_close(page: Page, box: Box, order: Order) -> None:
    """What came so far is there at once, the rest as it comes; the engine does not notice who reads."""
    await box.person("ann", password=PASSWORD)
    await log_in(page, box, "ann")
    order.tokens, order.held_after = 6, 3
    order.hold.clear()
    await _ask(page, "hi")
    await expect(page.get_by_test_id("answer")).to_contain_text("word2")
    address = page.url
    assert "/chat/" in address
    second = await page.context.new_page()
    await second.goto(address)
    await expect(second.get_by_test_id("answer")).to_contain_text("word2")
    await page.goto("about:blank")
    order.hold.set()
    await expect(second.get_by_test_id("answer")).to_contain_text("word5")
    await expect(second.get_by_test_id("answer-meta")).to_contain_text("tokens")
    (row,) = await box.usage(1)
    assert row.outcome == "completed"


async def test_either_tab_stops_an_answer(page: Page, box: Box, order: Order) -> None:
    """Escape in the second tab ends it for both, and what came stays."""
    await box.person("ann", password=PASSWORD)
    await log_in(page, box, "ann")
    order.tokens, order.held_after = 50, 4
    order.hold.clear()
    await _ask(page, "hi")
    await expect(page.get_by_test_id("answer")).to_contain_text("word3")
    second = await page.context.new_page()
    await second.goto(page.url)
    await expect(second.get_by_test_id("answer")).to_contain_text("word3")
    await second.keyboard.press("Escape")
    for tab in (page, second):
        await expect(tab.get_by_test_id("answer-meta")).to_contain_text("stopped")
        await expect(tab.get_by_test_id("answer")).to_contain_text("word3")
    await order.gone.wait()


async def test_a_temporary_chat_leaves_nothing(page: Page, box: Box) -> None:
    """It is answered, has no address, and is gone after a reload."""
    await box.person("ann", password=PASSWORD)
    await log_in(page, box, "ann")
    await page.get_by_role("switch", name="Temporary chat").check()
    await expect(page.get_by_test_id("temporary")).to_contain_text("nothing of it is stored")
    await _ask(page, "hi")
    await expect(page.get_by_test_id("answer-meta")).to_contain_text("tokens")
    assert page.url == f"{box.url}/"
    await page.reload()
    await expect(page.get_by_text("What you ask is kept here.")).to_be_visible()
    await expect(page.get_by_test_id("question")).to_have_count(0)


async def test_the_list_is_a_drawer_on_a_phone(page: Page, box: Box) -> None:
    """It opens over the chat, leads to a conversation, and closes; nothing sticks out."""
    await box.person("ann", password=PASSWORD)
    await page.set_viewport_size({"width": 390, "height": 780})
    await log_in(page, box, "ann")
    await _ask(page, "hi")
    await expect(page.get_by_test_id("answer-meta")).to_contain_text("tokens")
    await page.get_by_role("button", name="New chat").click()
    await expect(page.get_by_test_id("question")).to_have_count(0)
    await page.get_by_role("button", name="Show conversations").click()
    await page.get_by_role("link", name="hi").click()
    await expect(page.get_by_role("dialog")).to_have_count(0)
    await expect(page.get_by_test_id("question")).to_have_text("hi")
    assert await page.evaluate("document.documentElement.scrollWidth") == 390
