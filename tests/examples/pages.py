"""What tests do on a page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from playwright.async_api import expect

if TYPE_CHECKING:
    from playwright.async_api import Locator, Page, ViewportSize

    from tests.examples.conftest import Tabs
    from wshub.testing import LiveServer

PHONE: ViewportSize = {"width": 360, "height": 640}


async def send(page: Page, text: str) -> None:
    """Write a message and press Enter."""
    box = page.get_by_label("Message", exact=True)
    await box.fill(text)
    await box.press("Enter")


async def fits(page: Page) -> bool:
    """Whether nothing sticks out to the right."""
    fit: bool = await page.evaluate(
        "document.scrollingElement.scrollWidth <= document.scrollingElement.clientWidth"
    )
    return fit


def conversation(page: Page) -> Locator:
    """The conversation on the screen."""
    return page.get_by_role("log")


async def introduce(page: Page, name: str) -> Page:
    """Choose a name and wait until the page is connected."""
    await page.get_by_label("Your name", exact=True).fill(name)
    await page.get_by_role("button", name="Start chatting").click()
    await expect(page.get_by_role("status")).to_have_text("Online")
    return page


async def come(tabs: Tabs, server: LiveServer, name: str, **options: Any) -> Page:
    """Open the rooms page in a browser of its own."""
    return await introduce(await tabs.open(f"{server.http}/", **options), name)
