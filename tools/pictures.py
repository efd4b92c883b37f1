"""Takes the README's pictures: follows a set-up link in headless Chromium, asks something, and looks at the pages.

wirthforge up --data-dir /tmp/pictures          (prints the set-up link)
python tools/pictures.py LINK docs/images
"""

import asyncio
import shutil
import sys
from pathlib import Path

from playwright.async_api import Page, async_playwright

WIDTH, HEIGHT = 1200, 780
QUESTIONS = ("What is a council?", "How is the box shared?")


async def ask(page: Page, question: str) -> None:
    """Ask, and wait for the whole answer."""
    before = await page.get_by_test_id("answer-meta").count()
    await page.get_by_role("textbox", name="Message").fill(question)
    await page.get_by_role("button", name="Send").click()
    await page.get_by_test_id("answer-meta").nth(before).wait_for()


async def take(link: str, folder: Path) -> None:
    """All pictures, in the order of a first visit."""
    origin = link.partition("/setup")[0]
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        page = await chromium.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        await page.goto(link)
        await page.get_by_label("Password", exact=True).fill("a picture's password")
        await page.get_by_label("Repeat password").fill("a picture's password")
        await page.screenshot(path=folder / "setup.png")
        await page.get_by_role("button", name="Start").click()
        for question in QUESTIONS:
            await ask(page, question)
        await page.screenshot(path=folder / "chat.png")
        for name in ("keys", "usage", "people", "docs"):
            await page.goto(f"{origin}/{name}")
            await page.wait_for_load_state("networkidle")
            await page.screenshot(path=folder / f"{name}.png")
        await chromium.close()


if __name__ == "__main__":
    asyncio.run(take(sys.argv[1], Path(sys.argv[2])))
