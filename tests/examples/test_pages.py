"""The five pages in a headless browser."""

from __future__ import annotations

import shutil
import signal
from typing import TYPE_CHECKING, Any

import pytest
from fastapi import Depends, FastAPI, Request, WebSocket
from fastapi.responses import HTMLResponse
from playwright.async_api import expect
from starlette.exceptions import WebSocketException

from examples.auth.app import app as auth_app
from examples.chat.app import app as chat_app
from examples.echo.app import app as echo_app
from examples.items.app import app as items_app
from examples.rooms.app import app as rooms_app
from wshub import ConnectionManager
from wshub.auth import OriginPolicy, Principal, authenticate, cookie
from wshub.rejections import RejectionHandler
from wshub.testing import live_server, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from playwright.async_api import Locator, Page

    from tests.examples.conftest import Running, Tabs
    from wshub.testing import LiveServer

    Run = Callable[..., AbstractAsyncContextManager[Running]]

PHONE = {"width": 360, "height": 640}


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


HIJACK = """
<!DOCTYPE html><title>Cats</title><link rel="icon" href="data:,"><p id="state" role="status"></p>
<script>
  const tell = (text) => { document.getElementById("state").textContent = text; };
  const socket = new WebSocket("%s");
  socket.onmessage = (event) => tell(`heard ${event.data}`);
  socket.onclose = (event) => tell(`closed with ${event.code} ${event.reason}`);
</script>
"""
"""A page that opens a WebSocket somewhere, wherever it is itself."""


def victim(origins: OriginPolicy | None) -> FastAPI:
    """An app whose WebSocket greets whoever the cookie says."""

    async def verify(value: str) -> Principal | None:
        return Principal("ana") if value == "of-ana" else None

    app, manager = FastAPI(), ConnectionManager()
    app.add_exception_handler(WebSocketException, RejectionHandler("close"))
    find_user = Depends(authenticate(cookie("session"), verify=verify, origins=origins))

    @app.get("/")
    async def page(request: Request) -> HTMLResponse:
        url = str(request.url_for("greet")).replace("http", "ws")
        response = HTMLResponse(HIJACK % url)
        response.set_cookie("session", "of-ana", httponly=True, samesite="lax")
        return response

    @app.websocket("/ws")
    async def greet(websocket: WebSocket, who: Principal = find_user) -> None:
        async with manager.connection(websocket, principal=who) as connection:
            await connection.send(f"hello {who.user}")
            await connection.receive()

    return app


@pytest.mark.parametrize("careless", [False, True])
@pytest.mark.browser
async def test_a_page_of_another_origin(tabs: Tabs, *, careless: bool) -> None:
    """
    It opens a WebSocket with its visitor's cookie, and is refused; without the check it is not.

    Ports are origins of their own but share their cookies, and count as one site to SameSite.
    """
    evil = FastAPI()
    app = victim(OriginPolicy(allow="*") if careless else None)
    async with live_server(app) as server, live_server(evil) as other:

        @evil.get("/")
        async def page() -> HTMLResponse:
            return HTMLResponse(HIJACK % f"{server.ws}/ws")

        own = await tabs.open(f"{server.http}/")
        await expect(own.get_by_role("status")).to_have_text("heard hello ana")
        cats = await tabs.open(f"{other.http}/", beside=own)
        told = "heard hello ana" if careless else "closed with 3003 origin not allowed"
        await expect(cats.get_by_role("status")).to_have_text(told)
        await own.reload()
        await expect(own.get_by_role("status")).to_have_text("heard hello ana")


# --- rooms


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
