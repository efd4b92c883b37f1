"""Takes the README's pictures: follows a set-up link in headless Chromium, asks something, and looks at the pages.

For the last two it brings people in, gives them quotas, and has all of them ask at once.

wirthforge up --data-dir /tmp/pictures          (prints the set-up link)
python tools/pictures.py LINK docs/images
"""

import asyncio
import shutil
import sys
from pathlib import Path
from typing import Any

import httpx
from playwright.async_api import Browser, Page, async_playwright

WIDTH, HEIGHT = 1200, 780
QUESTIONS = ("What is a council?", "How is the box shared?")
PASSWORD = "a picture's password"  # noqa: S105 (of nobody)
HOUSEMATES = ("ann", "bob")
# Of each person: with fewer there would be no queue to look at.
REQUESTS_AT_A_TIME = 4
ANSWER_TOKENS = 1500


async def ask(page: Page, question: str) -> None:
    """Ask, and wait for the whole answer."""
    before = await page.get_by_test_id("answer-meta").count()
    await page.get_by_role("textbox", name="Message").fill(question)
    await page.get_by_role("button", name="Send").click()
    await page.get_by_test_id("answer-meta").nth(before).wait_for()


async def call(page: Page, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """Ask the API as the person of the page."""
    origin = page.url.split("/", 3)
    headers = {"Origin": "/".join(origin[:3])}
    answer = await page.request.fetch("/".join([*origin[:3], path]), method=method, data=body, headers=headers)
    result: dict[str, Any] = await answer.json()
    return result


async def key_of(page: Page) -> str:
    """A key of the person of the page."""
    return str((await call(page, "POST", "api/keys", {"label": "laptop", "expires_in_days": None}))["key"])


async def bring_in(chromium: Browser, admin: Page, name: str) -> tuple[str, str]:
    """Somebody more, who follows their set-up link; their id, and a key."""
    invited = await call(admin, "POST", "api/admin/users", {"name": name, "role": "member"})
    context = await chromium.new_context()
    page = await context.new_page()
    await page.goto(admin.url)
    token = invited["setup_path"].partition("#")[2]
    await call(page, "POST", "api/setup", {"token": token, "name": name, "password": PASSWORD})
    key = await key_of(page)
    await context.close()
    return invited["user"]["id"], key


async def keep_asking(origin: str, key: str) -> None:
    """Ask again and again, until cancelled."""
    question = {"role": "user", "content": QUESTIONS[0]}
    body = {
        "model": "wirthforge-large",
        "stream": True,
        "max_tokens": ANSWER_TOKENS,
        "ignore_eos": True,
        "messages": [question],
    }
    async with httpx.AsyncClient(base_url=origin, headers={"Authorization": f"Bearer {key}"}, timeout=60) as client:
        while True:
            async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
                answer.raise_for_status()
                async for _ in answer.aiter_raw():
                    pass


async def take_sharing(chromium: Browser, page: Page, origin: str, folder: Path) -> None:
    """The pages that show nothing while one person is alone."""
    people = {name: await bring_in(chromium, page, name) for name in HOUSEMATES}
    await call(page, "PUT", "api/admin/quotas/default", {"tokens_per_day": 500_000, "in_flight_max": 3})
    await call(page, "PUT", "api/admin/quotas/roles/member", {"tokens_per_minute": 60_000})
    await call(page, "PUT", f"api/admin/quotas/users/{people['ann'][0]}", {"weight": 200, "tokens_per_day": 800_000})
    await call(page, "PUT", f"api/admin/quotas/users/{people['ann'][0]}", {"weight": 200, "tokens_per_day": None})
    await page.goto(f"{origin}/quotas")
    await page.get_by_test_id("audit-row").first.wait_for()
    await page.screenshot(path=folder / "quotas.png")
    keys = [await key_of(page), *(key for _, key in people.values())]
    asking = [asyncio.create_task(keep_asking(origin, key)) for key in keys for _ in range(REQUESTS_AT_A_TIME)]
    await page.goto(f"{origin}/sharing")
    await page.get_by_test_id("share-sentence").filter(has_text="Three people").wait_for()
    await page.get_by_test_id("own-request").filter(has_text="ahead of you, about").first.wait_for()
    await page.get_by_test_id("own-request").filter(has_text="so far").first.wait_for()
    await page.screenshot(path=folder / "sharing.png")
    for one in asking:
        one.cancel()
    await asyncio.gather(*asking, return_exceptions=True)


async def take_council(page: Page, origin: str, folder: Path) -> None:
    """A question to all models, with what each of them said."""
    await page.goto(origin)
    await page.get_by_label("Model", exact=True).select_option("council")
    await ask(page, QUESTIONS[0])
    await page.get_by_test_id("council").last.get_by_role("button").first.click()
    await page.screenshot(path=folder / "council.png")


async def take(link: str, folder: Path) -> None:
    """All pictures, in the order of a first visit."""
    origin = link.partition("/setup")[0]
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        page = await chromium.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        await page.goto(link)
        await page.get_by_label("Password", exact=True).fill(PASSWORD)
        await page.get_by_label("Repeat password").fill(PASSWORD)
        await page.screenshot(path=folder / "setup.png")
        await page.get_by_role("button", name="Start").click()
        for question in QUESTIONS:
            await ask(page, question)
        await page.screenshot(path=folder / "chat.png")
        await take_council(page, origin, folder)
        for name in ("keys", "usage", "people", "docs"):
            await page.goto(f"{origin}/{name}")
            await page.wait_for_load_state("networkidle")
            await page.screenshot(path=folder / f"{name}.png")
        await take_sharing(chromium, page, origin, folder)
        await chromium.close()


if __name__ == "__main__":
    asyncio.run(take(sys.argv[1], Path(sys.argv[2])))
