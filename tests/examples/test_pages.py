"""The five pages in a headless browser."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest
from fastapi import FastAPI
from playwright.async_api import expect

from examples.auth.app import app as auth_app
from examples.chat.app import app as chat_app
from examples.echo.app import app as echo_app
from examples.items.app import app as items_app
from examples.rooms.app import app as rooms_app
from tests.examples.pages import PHONE, fits, send
from wshub.testing import live_server, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from playwright.async_api import Page

    from tests.examples.conftest import Running, Tabs

    Run = Callable[..., AbstractAsyncContextManager[Running]]

# --- the browser itself


@pytest.mark.parametrize(
    ("required", "outcome"), [("", pytest.skip.Exception), ("1", pytest.fail.Exception)]
)
def test_without_a_browser(
    find_browser: Callable[[], str],
    monkeypatch: pytest.MonkeyPatch,
    required: str,
    outcome: type[BaseException],
) -> None:
    """Where no browser is installed the page tests are skipped, or fail if it is required."""
    monkeypatch.setenv("WSHUB_REQUIRE_BROWSER", required)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(outcome, match="no browser is installed"):
        find_browser()


@pytest.mark.browser
async def test_complaints_are_noticed(tabs: Tabs) -> None:
    """An exception, an error on the console and a request to elsewhere would fail a test."""
    async with live_server(echo_app) as server:
        page = await tabs.open(f"{server.http}/")
        await page.evaluate("console.error('loud')")
        await page.evaluate("void setTimeout(() => { throw new Error('thrown'); })")
        await page.evaluate("void (new Image().src = 'http://localhost:1/elsewhere')")
        await until(lambda: len(tabs.problems) >= 4)
    problems = " ".join(sorted(tabs.problems))
    assert all(word in problems for word in ("loud", "thrown", "elsewhere", "ERR_"))
    tabs.problems.clear()


# --- the tutorial's pages


@pytest.mark.browser
async def test_echo_page(tabs: Tabs) -> None:
    """The visitor chooses text, bytes or JSON and sees what comes back."""
    async with live_server(echo_app) as server:
        page = await tabs.open(f"{server.http}/")
        await expect(page.get_by_text("Connected.")).to_be_visible()
        lines = page.get_by_role("listitem")
        await send(page, "hello <i>you</i>")
        await expect(lines).to_have_text(["Message text was: hello <i>you</i>"])
        await page.get_by_label("Bytes").check()
        await send(page, "hé")
        await expect(lines.nth(1)).to_have_text("3 bytes came back: 68 c3 a9")
        await page.get_by_label("JSON").check()
        await send(page, '{"a": [1]}')
        await expect(lines.nth(2)).to_have_text('{"Message JSON was":{"a":[1]}}')
        await send(page, "{oops")
        await expect(page.get_by_label("Message", exact=True)).to_have_value("{oops")
        await expect(lines).to_have_count(3)


@pytest.mark.browser
async def test_items_page(tabs: Tabs) -> None:
    """With a token the three lines come; without one the page shows code and reason."""
    async with live_server(items_app) as server:
        page = await tabs.open(f"{server.http}/")
        await page.get_by_label("q, a number").fill("7")
        await page.get_by_role("button", name="Connect").click()
        await expect(page.get_by_text("Connected.")).to_be_visible()
        await send(page, "hi")
        await expect(page.get_by_role("listitem")).to_have_text([
            "Session cookie or query token value is: some-key-token",
            "Query parameter q is: 7",
            "Message text was: hi, for item ID: foo",
        ])  # fmt: skip
        await page.get_by_label("Token").fill("")
        await page.get_by_role("button", name="Connect").click()
        state = page.get_by_role("status")
        await expect(state).to_contain_text("Closed with code 1008: ")
        await expect(state).to_contain_text("missing")
        await expect(page.get_by_role("button", name="Send")).to_be_disabled()


@pytest.mark.browser
async def test_chat_page(tabs: Tabs) -> None:
    """Two tabs chat; one closes and the other sees it leave."""
    async with live_server(chat_app) as server:
        first = await tabs.open(f"{server.http}/")
        second = await tabs.open(f"{server.http}/", beside=first)
        number = await second.locator("#client-id").text_content()
        for page in (first, second):
            await expect(page.get_by_text("Connected.")).to_be_visible()
        await send(second, "hello")
        line = f"Client #{number} says: hello"
        await expect(second.get_by_role("listitem")).to_have_text(["You wrote: hello", line])
        await expect(first.get_by_role("listitem")).to_have_text([line])
        await second.close()
        await expect(first.get_by_text(f"Client #{number} left the chat")).to_be_visible()


@pytest.mark.parametrize("app", [auth_app, echo_app, items_app, chat_app, rooms_app])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.browser
async def test_pages_on_a_phone(tabs: Tabs, app: FastAPI, scheme: str) -> None:
    """No page has to be scrolled sideways on a phone, in light or dark."""
    async with live_server(app) as server:
        options: dict[str, Any] = {"viewport": PHONE, "is_mobile": True, "color_scheme": scheme}
        page = await tabs.open(f"{server.http}/", **options)
        assert await fits(page)


@pytest.mark.parametrize("app", [echo_app, chat_app])
@pytest.mark.browser
async def test_pages_below_a_prefix(tabs: Tabs, app: FastAPI) -> None:
    """A page finds its WebSocket where the app is mounted below a prefix."""
    site = FastAPI()
    site.mount("/some/prefix", app)
    async with live_server(site) as server:
        page = await tabs.open(f"{server.http}/some/prefix/")
        await expect(page.get_by_text("Connected.")).to_be_visible()


# --- auth


async def log_in(page: Page, name: str, password: str) -> Page:
    """Fill in the form and send it."""
    await page.get_by_label("Name").fill(name)
    await page.get_by_label("Password").fill(password)
    await page.get_by_role("button", name="Log in").click()
    return page


@pytest.mark.browser
async def test_auth_page(tabs: Tabs) -> None:
    """Who knows the password is in, also in a second tab; a log-out closes both, and no other."""
    tabs.expected = "401"
    async with live_server(auth_app) as server:
        ana = await log_in(await tabs.open(f"{server.http}/"), "ana", "coffee")
        state = ana.get_by_role("status")
        await expect(state).to_have_text("wrong name or password")
        await log_in(ana, "ana", "tea")
        await expect(state).to_have_text("You are ana.")
        ana_too = await tabs.open(f"{server.http}/", beside=ana)
        await expect(ana_too.get_by_role("status")).to_have_text("You are ana.")
        ben = await log_in(await tabs.open(f"{server.http}/"), "ben", "coffee")
        await expect(ben.get_by_role("status")).to_have_text("You are ben.")
        await send(ben, "hello <i>you</i>")
        for page in (ana, ana_too, ben):
            await expect(page.get_by_role("listitem")).to_have_text(["ben: hello <i>you</i>"])
        await ana_too.get_by_role("button", name="Log out").click()
        for page in (ana, ana_too):
            await expect(page.get_by_role("status")).to_have_text(
                "Closed with code 3000: logged out."
            )
            await expect(page.get_by_role("button", name="Log in")).to_be_visible()
        await expect(ben.get_by_role("status")).to_have_text("You are ben.")


@pytest.mark.browser
async def test_auth_page_refreshes(tabs: Tabs, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that sends new tokens stays longer than one token lasts; one that does not is out."""
    monkeypatch.setattr("examples.auth.app.LIFETIME", 2.0)
    async with live_server(auth_app) as server:
        stays = await log_in(await tabs.open(f"{server.http}/"), "ana", "tea")
        await expect(stays.get_by_role("status")).to_have_text("You are ana.")
        goes = await log_in(await tabs.open(f"{server.http}/"), "ben", "coffee")
        await expect(goes.get_by_role("status")).to_have_text("You are ben.")
        await goes.evaluate("clearInterval(refreshing)")
        await expect(goes.get_by_role("status")).to_have_text(
            "Closed with code 3000: token expired."
        )
        await send(stays, "still here")
        await expect(stays.get_by_role("listitem")).to_have_text(["ana: still here"])
        await stays.close()  # a refresh under way when the server ends is an error on the console
