"""The rooms page in a headless browser."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest
from fastapi import FastAPI
from playwright.async_api import expect

from examples.rooms.app import app as rooms_app
from tests.examples.pages import PHONE, come, conversation, fits, introduce, send
from wshub.testing import live_server

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from tests.examples.conftest import Running, Tabs

    Run = Callable[..., AbstractAsyncContextManager[Running]]


@pytest.mark.browser
async def test_rooms_chat(tabs: Tabs) -> None:
    """Two people see each other come, talk and go."""
    async with live_server(rooms_app) as server:
        ana = await come(tabs, server, "Ana")
        await expect(ana.get_by_text("Only you are here")).to_be_visible()
        ben = await come(tabs, server, "Ben")
        await expect(conversation(ana)).to_contain_text("Ben joined")
        await expect(ana.locator("#people li")).to_have_count(2)
        await send(ana, "hi <img src=x onerror=alert(1)> https://example.com/a?b, bye")
        said = conversation(ben).locator(".bubble")
        await expect(said).to_have_text(
            "hi <img src=x onerror=alert(1)> https://example.com/a?b, bye"
        )
        await expect(said.locator("img")).to_have_count(0)
        link = said.get_by_role("link")
        await expect(link).to_have_attribute("href", "https://example.com/a?b")
        await expect(link).to_have_attribute("rel", "noopener noreferrer nofollow")
        await expect(conversation(ana).locator(".mine .by bdi")).to_have_text("You")
        await expect(conversation(ana).locator(".pending")).to_have_count(0)
        await ben.close()
        await expect(conversation(ana)).to_contain_text("Ben left")
        await expect(ana.get_by_text("Only you are here")).to_be_visible()


@pytest.mark.browser
async def test_rooms_name_is_remembered(tabs: Tabs) -> None:
    """A second tab is the same person; it can be made another one, and names can change."""
    async with live_server(rooms_app) as server:
        ben = await come(tabs, server, "Ben")
        first = await come(tabs, server, "Ana")
        second = await tabs.open(f"{server.http}/", beside=first)
        await expect(second.locator("#people li")).to_have_text(["AAnayou, in 2 tabs", "BBen"])
        await expect(ben.locator("#people li")).to_have_count(2)

        await second.get_by_role("button", name="Be someone else here").click()
        await second.get_by_label("Your name", exact=True).fill("Zoë")
        await second.get_by_role("button", name="Save").click()
        await expect(conversation(ben)).to_contain_text("Zoë joined")
        await expect(ben.locator("#people li")).to_have_count(3)

        await first.get_by_role("button", name="Change your name").click()
        await first.get_by_label("Your name", exact=True).fill("Anna")
        await first.get_by_role("button", name="Save").click()
        await expect(conversation(ben)).to_contain_text("Ana is now Anna")
        await first.reload()
        await expect(first.locator("#my-name")).to_have_text("Anna")
        await expect(second.locator("#my-name")).to_have_text("Zoë")


@pytest.mark.browser
async def test_rooms_rooms(tabs: Tabs) -> None:
    """Rooms can be made, found, read while one is elsewhere, and left."""
    async with live_server(rooms_app) as server:
        ana = await come(tabs, server, "Ana")
        ben = await come(tabs, server, "Ben")
        await ana.get_by_label("Name of a new room").fill("What? Ever!")
        await ana.get_by_label("Name of a new room").press("Enter")
        await expect(ana.get_by_role("alert")).to_contain_text("Letters and digits")
        await ana.get_by_label("Name of a new room").fill("Big Plans")
        await ana.get_by_role("button", name="Create the room").click()
        await expect(ana.get_by_role("heading", level=1)).to_have_text("big-plans")

        entry = ben.locator("#rooms").get_by_role("button", name="big-plans")
        await entry.click()
        await expect(conversation(ana)).to_contain_text("Ben joined")
        await ben.locator("#rooms").get_by_role("button", name="lobby").click()
        await send(ana, "secret plan")
        await expect(entry).to_have_accessible_name("big-plans 1 unread 2 people")
        await expect(ben).to_have_title("(1) lobby · Rooms")
        await ben.go_back()
        await expect(conversation(ben).locator(".bubble")).to_have_text("secret plan")
        await expect(ben).to_have_title("big-plans · Rooms")

        await ben.get_by_role("button", name="Leave").click()
        await expect(conversation(ana)).to_contain_text("Ben left")
        await expect(ben.get_by_role("heading", level=1)).to_have_text("lobby")


@pytest.mark.browser
async def test_rooms_private_message(tabs: Tabs) -> None:
    """A private message appears in all tabs of both people and nowhere else."""
    async with live_server(rooms_app) as server:
        eve = await come(tabs, server, "Eve")
        ben = await come(tabs, server, "Ben")
        ben_too = await tabs.open(f"{server.http}/", beside=ben)
        await expect(ben_too.get_by_role("status")).to_have_text("Online")
        ana = await come(tabs, server, "Ana")
        await ana.locator("#people").get_by_role("button", name="Ben").click()
        await send(ana, "psst")
        for page in (ben, ben_too):
            entry = page.locator("#private-list").get_by_role("button", name="Ana 1 unread")
            await entry.click()
            await expect(conversation(page).locator(".bubble")).to_have_text("psst")
        await send(ben, "yes?")
        await expect(conversation(ana).locator(".bubble")).to_have_text(["psst", "yes?"])
        await expect(conversation(ben_too).locator(".bubble")).to_have_text(["psst", "yes?"])
        await expect(eve.locator("#private")).to_be_hidden()
        await expect(eve.locator(".bubble")).to_have_count(0)

        await ben.close()
        await ben_too.close()
        await expect(ana.get_by_text("Private, not here now")).to_be_visible()
        await send(ana, "too late")
        failed = conversation(ana).locator(".failed")
        await expect(failed).to_contain_text("Not delivered: nobody there.")
        await failed.get_by_role("button", name="Send again").click()
        await expect(failed).to_have_count(1)


@pytest.mark.browser
async def test_rooms_reconnect(tabs: Tabs, run: Run) -> None:
    """The server is killed and comes back: pages reconnect and send what was written."""
    tabs.expected = "ERR_CONNECTION_REFUSED"
    async with run("rooms", "--port", "0") as server:
        port = server.http.rpartition(":")[2]
        ana = await introduce(await tabs.open(f"{server.http}/"), "Ana")
        ben = await introduce(await tabs.open(f"{server.http}/"), "Ben")
        await send(ana, "before")
        await expect(conversation(ben).locator(".bubble")).to_have_text(["before"])
        server.process.send_signal(signal.SIGKILL)
        await server.ended()
    await expect(ana.get_by_role("status")).to_have_text("Offline")
    await expect(ana.get_by_text("Connection lost.")).to_be_visible()
    await send(ana, "meanwhile")
    await expect(conversation(ana).locator(".pending .bubble")).to_have_text(["meanwhile"])
    async with run("rooms", "--port", port):
        for page in (ana, ben):
            await expect(page.get_by_role("status")).to_have_text("Online")
        await expect(conversation(ana).locator(".pending")).to_have_count(0)
        await expect(conversation(ana)).to_contain_text("What was said until now is missing here.")
        await expect(ben.locator("#people li")).to_have_count(2)
        await send(ben, "after")
        await expect(conversation(ana).locator(".bubble").last).to_have_text("after")
        await expect(conversation(ana).locator(".bubble").nth(1)).to_have_text("meanwhile")


@pytest.mark.browser
async def test_rooms_try_now(tabs: Tabs) -> None:
    """Whoever does not want to wait for the next attempt makes it at once."""
    tabs.expected = "ERR_CONNECTION_REFUSED"
    async with live_server(rooms_app) as server:
        ana = await come(tabs, server, "Ana")
        await ana.evaluate("Math.random = () => 1")  # the longest delays
    await expect(ana.get_by_text("Trying again in 4 s.")).to_be_visible()
    async with live_server(rooms_app, port=server.port):
        await ana.get_by_role("button", name="Try now").click()
        await expect(ana.get_by_role("status")).to_have_text("Online")


@pytest.mark.browser
async def test_rooms_refused(tabs: Tabs) -> None:
    """A page that the server refuses says why and does not go on trying."""
    async with live_server(rooms_app) as server:
        page = await tabs.open(f"{server.http}/")
        await page.evaluate("localStorage.setItem('rooms.key', 'short')")
        await page.reload()
        await page.get_by_label("Your name", exact=True).fill("Ana")
        await page.get_by_role("button", name="Start chatting").click()
        await expect(page.get_by_role("status")).to_have_text("Refused")
        await expect(page.locator("#offline")).to_contain_text("query.key")


@pytest.mark.browser
async def test_rooms_on_a_phone(tabs: Tabs) -> None:
    """On a phone rooms and people are drawers that keep the focus inside."""
    async with live_server(rooms_app) as server:
        await come(tabs, server, "Ben")
        ana = await come(tabs, server, "A" * 32, viewport=PHONE, is_mobile=True, has_touch=True)
        await send(ana, "long " + "x" * 500)
        await expect(conversation(ana).locator(".bubble")).to_have_count(1)
        assert await fits(ana)
        for number in range(12):
            await send(ana, f"message {number}")
        await ana.set_viewport_size({"width": 360, "height": 360})  # its keyboard comes up
        await expect(conversation(ana).locator(".bubble").last).to_be_in_viewport()

        sidebar = ana.get_by_role("navigation")
        await expect(sidebar).to_be_hidden()
        await ana.get_by_role("button", name="Show the rooms").tap()
        await expect(sidebar).to_be_visible()
        await expect(ana.get_by_role("button", name="Close the list of rooms")).to_be_focused()
        await sidebar.get_by_role("button", name="coffee").tap()
        await expect(sidebar).to_be_hidden()
        await expect(ana.get_by_role("heading", level=1)).to_have_text("coffee")

        await ana.get_by_role("button", name="Show the rooms").tap()
        await sidebar.get_by_role("button", name="lobby").tap()
        await ana.get_by_role("button", name="Show who is here").tap()
        await expect(ana.locator("#people").get_by_role("button", name="Ben")).to_be_visible()
        assert await fits(ana)
        await ana.keyboard.press("Escape")
        await expect(ana.get_by_role("button", name="Show who is here")).to_be_focused()


@pytest.mark.browser
async def test_rooms_below_a_prefix(tabs: Tabs) -> None:
    """The rooms page works below a prefix, its files included."""
    site = FastAPI()
    site.mount("/some/prefix", rooms_app)
    async with live_server(site) as server:
        await introduce(await tabs.open(f"{server.http}/some/prefix/"), "Ana")
