"""
The documentation: its code runs, its links lead somewhere, its tables say what the code does.

The Python blocks of a page form one module: each continues the blocks before it on the same page,
and nothing else. A block that only includes a file (`--8<--`) is not run here; the files it may
include have tests of their own.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import importlib
import re
import textwrap
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

import httpx
import pytest
import uvicorn
from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from starlette.exceptions import WebSocketException
from starlette.testclient import TestClient
from websockets.exceptions import ConnectionClosed

from wshub import CloseCode, ConnectionManager, Limits, Rejection, exceptions
from wshub.events import LimitName
from wshub.rejections import RejectionHandler
from wshub.testing import FaultySink, connect, fixtures, live_server, refusal, until, wait_until
from wshub.testing.deadline import DEADLINE

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
PUBLIC_MODULES = [
    "wshub",
    "wshub.auth",
    "wshub.backends",
    "wshub.events",
    "wshub.exceptions",
    "wshub.handshakes",
    "wshub.limits",
    "wshub.messages",
    "wshub.rejections",
    "wshub.testing",
    "wshub.testing.backends",
    "wshub.uvicorn_http",
]
# Python under any other name than `python` would escape its execution.
LANGUAGES = {"console", "javascript", "nginx", "python", "text", "yaml"}

BLOCK = re.compile(r"^( *)```([^\n]*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
# In three lines: formatters take `--8<-- "file"` for Python, and change it to something else.
INCLUDE = re.compile(r"^ *--8<--\n *([^:\n]+):?([^\n]*)\n *--8<--$", re.MULTILINE)
LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")
DIRECTIVE = re.compile(r"^::: (\S+)$", re.MULTILINE)


def pages(*, having: str = "") -> pytest.MarkDecorator:
    """Parametrize a test over the pages, or over those that have a certain text in them."""
    chosen = [page for page in PAGES if having in page.read_text()]
    names = [str(page.relative_to(ROOT)) for page in chosen]
    return pytest.mark.parametrize("page", chosen, ids=names)


class Block(NamedTuple):
    """A fenced block: its language, its code, and the line of the page that it begins on."""

    language: str
    code: str
    line: int


def blocks_of(page: Path) -> Iterator[Block]:
    text = page.read_text()
    for found in BLOCK.finditer(text):
        language = found[2].split()[0] if found[2] else ""
        yield Block(language, textwrap.dedent(found[3]), text.count("\n", 0, found.start(3)))


def run(name: str) -> Any:
    """Execute the Python blocks of a page, in their order, and return them as a module."""
    page = ROOT / name
    module = ModuleType(re.sub(r"\W", "_", name))
    for language, code, line in blocks_of(page):
        if language == "python" and not INCLUDE.fullmatch(code.strip()):
            # Empty lines in front make tracebacks point into the page.
            exec(compile("\n" * line + code, page, "exec"), vars(module))  # noqa: S102 (our pages)
    return module


def _tests_on(name: str, definition: str) -> list[str]:
    """Return the tests on a page, of those that begin with `def` or with `async def`."""
    return re.findall(rf"^{definition} (test_\w+)", (ROOT / name).read_text(), re.MULTILINE)


def table_of(name: str, heading: str) -> list[list[str]]:
    """Return the rows of the table on a page whose first heading is `heading`."""
    _, found, rest = (ROOT / name).read_text().partition(f"\n| {heading} |")
    assert found, f"{name} has no table with {heading!r}"
    rows = rest.partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


# --- any page


@pages()
def test_blocks_name_a_known_language(page: Path) -> None:
    """No code escapes its execution under another name."""
    assert {block.language for block in blocks_of(page)} <= LANGUAGES
    assert page.read_text().count("```") == 2 * len(list(blocks_of(page)))


@pages(having="```python")
def test_python_runs(page: Path) -> None:
    """Every Python block runs after the blocks before it on its page."""
    run(str(page.relative_to(ROOT)))


@pages(having="--8<--\n")
def test_includes_exist(page: Path) -> None:
    """What a page includes is there, also the part of it that is asked for."""
    includes = INCLUDE.findall(page.read_text())
    assert page.read_text().count("--8<--\n") == 2 * len(includes)
    for name, part in includes:
        text = (ROOT / name).read_text()
        if ":" in part:
            first, last = map(int, part.split(":"))
            assert "".join(text.splitlines()[first - 1 : last]).strip()
        elif part:
            assert f"--8<-- [start:{part}]" in text
            assert f"--8<-- [end:{part}]" in text


@pages(having="](")
def test_links_lead_to_files(page: Path) -> None:
    """Every relative link of a page, and every picture, is a file of the repository."""
    targets = LINK.findall(BLOCK.sub("", page.read_text()))
    files = [target for target in targets if not target.startswith("https://")]
    assert [file for file in files if not (page.parent / file).is_file()] == []


# --- tables that repeat the code


async def test_close_codes_are_as_the_code_says() -> None:
    """The table has every close code, and says what the code and the server do with it."""
    app = FastAPI()
    app.add_exception_handler(WebSocketException, RejectionHandler("http"))

    @app.websocket("/{code}")
    async def refuse(websocket: WebSocket, code: int) -> None:
        raise Rejection(code)

    rows = table_of("docs/close-codes.md", "code")
    documented = [(code, name, *answers) for code, name, _, _, *answers in rows]
    async with live_server(app) as server:
        assert documented == [
            (
                str(int(code)),
                f"`{code.name}`",
                "yes" if code.can_send else "no",
                "yes" if code.should_reconnect else "no",
                str((await refusal(f"{server.ws}/{code}")).status) if code.can_send else "none",
            )
            for code in CloseCode
        ]


def test_the_client_of_the_close_codes_page_stops_at_the_right_ones() -> None:
    """Its list of final codes has all those after which a client should not connect again."""
    text = (DOCS / "close-codes.md").read_text()
    found = re.search(r"FINAL = new Set\(\[([^]]+)\]\)", text)
    assert found
    final = {int(code) for code in re.findall(r"\d+", found[1])}
    assert final == {code for code in CloseCode if not code.should_reconnect}


async def test_rejections_are_as_the_code_says() -> None:
    """Each helper in the table of rejections has the code and the HTTP status that it says."""
    app = FastAPI()
    app.add_exception_handler(WebSocketException, RejectionHandler("http"))

    @app.websocket("/{helper}")
    async def refuse(websocket: WebSocket, helper: str) -> None:
        build = getattr(exceptions, helper)
        raise build()

    documented = set()
    async with live_server(app) as server:
        for helper, code, status in table_of("docs/how-to/rejecting.md", "helper")[:-1]:
            name = helper.strip("`").partition("(")[0]
            documented.add(name)
            assert str(getattr(exceptions, name)().code) == code
            assert str((await refusal(f"{server.ws}/{name}")).status) == status
    helpers = {name for name, value in vars(exceptions).items() if _builds_a_rejection(value)}
    assert documented == helpers


def _builds_a_rejection(value: object) -> bool:
    return getattr(value, "__annotations__", {}).get("return") == "Rejection"


def test_the_error_tree_is_whole() -> None:
    """The tree in the reference has every error, and nothing but the tree."""
    ((name, lines),) = INCLUDE.findall((DOCS / "reference" / "exceptions.md").read_text())
    first, last = map(int, lines.split(":"))
    tree = (ROOT / name).read_text().splitlines()[first - 1 : last]
    classes = [value for value in vars(exceptions).values() if isinstance(value, type)]
    errors = {value.__name__ for value in classes if issubclass(value, Exception)}
    assert {re.findall(r"\w+", line)[0] for line in tree} == errors - {"WebSocketDisconnect"} | {
        "Exception"
    }


def test_limits_are_as_the_code_says() -> None:
    """The table of limits has each of them, its default, and what a client beyond it gets."""
    rows = {name.strip("`"): rest for name, *rest in table_of("docs/how-to/limits.md", "limit")}
    assert list(rows) == list(get_args(LimitName))
    for name, (default, _, before, after) in rows.items():
        assert default == str(getattr(Limits(), name) or "off")
        if before:
            error = exceptions.LimitExceeded(name, 1)  # type: ignore[arg-type]
            assert (before, after) == (str(error.status or 403), str(error.code))


def test_bad_input_names_its_tests() -> None:
    """The page about bad input names all tests of bad input, and others that there are."""
    named = set(re.findall(r"`(test_\w+)`", (DOCS / "bad-input.md").read_text()))
    tests = {path.name: _tests_of(path) for path in (ROOT / "tests").glob("test_*.py")}
    assert tests["test_bad_input.py"] | tests["test_hostile_clients.py"] <= named
    assert named <= set().union(*tests.values())


def _tests_of(path: Path) -> set[str]:
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    names = {node.name for node in ast.parse(path.read_text()).body if isinstance(node, functions)}
    return {name for name in names if name.startswith("test_")}


def test_architecture_lists_every_module() -> None:
    """The layers on the architecture page are those that test_architecture.py enforces."""
    tree = ast.parse((ROOT / "tests" / "test_architecture.py").read_text())
    (value,) = (
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "LAYERS"
    )
    rows = table_of("docs/architecture.md", "layer")
    documented = [set(re.findall(r"`([\w.]+)`", row[1])) for row in rows]
    # A package is where its modules are, and its `__init__` re-exports.
    assert documented == [layer - {"backends"} for layer in ast.literal_eval(value)]


def _resolve(path: str) -> object:
    """Return what `wshub.x.y` names."""
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


@pytest.mark.parametrize("name", PUBLIC_MODULES)
def test_the_reference_has_every_public_name(name: str) -> None:
    """Whatever a public module exports has its entry in the reference."""
    text = "".join(page.read_text() for page in (DOCS / "reference").glob("*.md"))
    documented = [_resolve(path) for path in DIRECTIVE.findall(text)]
    module = importlib.import_module(name)
    missing = [
        public
        for public in module.__all__
        if not any(getattr(module, public) is value for value in documented)
    ]
    assert missing == []


def test_fixtures_are_as_the_page_says() -> None:
    """The table of fixtures has all that wshub.testing offers."""
    rows = table_of("docs/how-to/testing.md", "fixture")
    assert [name.strip("`") for name, _ in rows] == list(fixtures.__all__)


def test_uvicorns_defaults_are_as_the_page_says() -> None:
    """The defaults on the page about deploying are uvicorn's."""
    rows = table_of("docs/how-to/deploying.md", "option")
    documented = {option.strip("`"): default.strip("`") for option, default, _ in rows}
    config = uvicorn.Config(FastAPI(), log_config=None)
    assert documented == {
        "--ws": config.ws,
        "--ws-max-size": f"{config.ws_max_size // 1024**2} MiB",
        "--ws-ping-interval": f"{config.ws_ping_interval:.0f} s",
        "--ws-ping-timeout": f"{config.ws_ping_timeout:.0f} s",
        "--ws-per-message-deflate": str(config.ws_per_message_deflate).lower(),
        "--timeout-graceful-shutdown": str(config.timeout_graceful_shutdown).lower(),
        "--log-level": "info",
    }


# --- the apps on the pages


@pytest.mark.parametrize("name", ["README.md", "docs/how-to/rooms.md"])
async def test_the_lines_that_matter(name: str, ws: str) -> None:
    """They are a chat with rooms: a message reaches the others in its room, and nobody else."""
    page = run(name)
    async with (
        live_server(page.app, ws=ws, lifespan="on") as server,
        connect(f"{server.ws}/rooms/tea") as ann,
        connect(f"{server.ws}/rooms/tea") as ben,
        connect(f"{server.ws}/rooms/milk") as cy,
        connect(f"{server.ws}/rooms/milk") as dan,
    ):
        await until(lambda: page.manager.statistics().connections == 4)
        await ann.send("for tea")
        assert await ben.receive() == "for tea"
        await ben.send(b"bytes for tea")
        assert await ann.receive() == b"bytes for tea"
        await cy.send("for milk")
        assert await dan.receive() == "for milk"


def test_the_home_page_shows_the_same_lines() -> None:
    """The home page includes them from the README."""
    assert INCLUDE.findall((DOCS / "index.md").read_text()) == [("README.md", "app")]


async def test_an_apps_own_lifespan_may_enter_the_managers() -> None:
    """The lifespan of the tutorial's first step starts and stops with the app."""
    page = run("docs/tutorial/1-echo.md")
    async with live_server(page.app, lifespan="on") as server, httpx.AsyncClient() as client:
        assert (await client.get(server.http)).status_code == 404


async def test_the_shorter_chat_is_the_same_chat(ws: str) -> None:
    """The tutorial's chat, written with `connection()`, says what the original says."""
    page = run("docs/tutorial/3-chat.md")
    async with (
        live_server(page.app, ws=ws, lifespan="on") as server,
        connect(f"{server.ws}/ws/1") as first,
        connect(f"{server.ws}/ws/2") as second,
    ):
        await until(lambda: len(page.manager.active_connections) == 2)
        assert await first.ask("hello") == "You wrote: hello"
        assert await first.receive() == "Client #1 says: hello"
        assert await second.receive() == "Client #1 says: hello"
        await first.close()
        assert await second.receive() == "Client #1 left the chat"


async def test_how_each_style_ends_is_as_the_table_says(ws: str) -> None:
    """The codes of the table that compares `connect()` with `connection()`."""
    manager = ConnectionManager()
    app = FastAPI()

    async def end(websocket: WebSocket) -> None:
        how = await websocket.receive_text()
        if how == "the handler fails":
            raise LookupError(how)
        if how == "it raises a `WebSocketException`":
            raise WebSocketException(4321)

    @app.websocket("/connect")
    async def registered(websocket: WebSocket) -> None:
        await manager.connect(websocket)
        await end(websocket)

    @app.websocket("/connection")
    async def connection(websocket: WebSocket) -> None:
        async with manager.connection(websocket):
            await end(websocket)

    rows = table_of("docs/tutorial/3-chat.md", "how it ends")
    async with live_server(app, ws=ws) as server:
        for how, *cells in rows[:3]:
            for path, cell in zip(("connect", "connection"), cells, strict=True):
                async with connect(f"{server.ws}/{path}") as client:
                    await client.send(how)
                    expected = cell.replace("its code", "4321").split()[-1]
                    assert str((await client.closed())[0]) == expected, (how, path)


async def test_who_may_enter_a_room() -> None:
    """On the page about rooms, members enter and others are refused."""
    page = run("docs/how-to/rooms.md")
    async with live_server(page.app) as server:
        async with connect(f"{server.ws}/members-only/board?token=ana") as ana:
            assert await ana.ask("hello") == "hello"
        for path in ("board?token=ben", "attic?token=ana", "board"):
            assert (await refusal(f"{server.ws}/members-only/{path}")).status == 403


async def test_sending_from_other_places() -> None:
    """Routes of both kinds reach users and rooms, and a spawned task sends by itself."""
    page = run("docs/how-to/rooms.md")
    async with (
        live_server(page.app) as server,
        httpx.AsyncClient(base_url=server.http) as http,
        connect(f"{server.ws}/notifications/ana") as tab,
        connect(f"{server.ws}/notifications/ana") as other_tab,
        connect(f"{server.ws}/rooms/tea") as guest,
        connect(f"{server.ws}/clock") as clock,
    ):
        await until(lambda: page.manager.statistics().connections == 4)
        await http.post("/notify/ana", params={"text": "hello"})
        assert await tab.receive() == await other_tab.receive() == '{"text":"hello"}'
        await http.post("/announce/tea", params={"text": "closing"})
        assert await guest.receive() == '{"text":"closing"}'
        assert str(await clock.receive()).startswith('{"now":"20')


async def test_rejecting_as_the_client_understands(ws: str) -> None:
    """Before accept browsers get a close frame and others an HTTP answer; afterwards a code."""
    page = run("docs/how-to/rejecting.md")
    origin = "https://chat.example.com"
    async with live_server(page.app, ws=ws) as server:
        assert (await refusal(f"{server.ws}/rooms/board")).status == 403
        assert (await refusal(f"{server.ws}/rooms/tea?page=x")).status == 422
        async with connect(f"{server.ws}/rooms/board", origin=origin) as client:
            assert await client.closed() == (3003, "members only")
        async with connect(f"{server.ws}/rooms/tea?page=x", origin=origin) as client:
            assert (await client.closed())[0] == 1008
        async with connect(f"{server.ws}/rooms/tea") as client:
            assert await client.ask("hello") == "hello"
            await client.send("spam")
            assert await client.closed() == (3003, "not here")
    assert page.expired.status == 410


@pytest.mark.parametrize("name", _tests_on("docs/how-to/testing.md", "def"))
def test_a_test_without_an_event_loop(name: str) -> None:
    """The synchronous tests of the page about testing pass."""
    getattr(run("docs/how-to/testing.md"), name)()


@pytest.mark.parametrize("name", _tests_on("docs/how-to/testing.md", "async def"))
async def test_a_test_with_a_real_server(name: str) -> None:
    """The other tests of the page about testing pass."""
    await getattr(run("docs/how-to/testing.md"), name)()


async def _say_goodbye(websocket: WebSocket, heard: list[str]) -> None:
    """Send after the client has left, then go on for a while."""
    await websocket.accept()
    with contextlib.suppress(WebSocketDisconnect):
        await websocket.receive_text()
    try:
        await websocket.send_text("too late")
        heard.append("sent")
    except (WebSocketDisconnect, RuntimeError):
        heard.append("not sent")
    try:
        await asyncio.sleep(0.1)
        heard.append("ran to its end")
    except asyncio.CancelledError:
        heard.append("cancelled")
        raise


def _liar(heard: list[str]) -> FastAPI:
    app = FastAPI()

    @app.websocket("/goodbye")
    async def goodbye(websocket: WebSocket) -> None:
        await _say_goodbye(websocket, heard)

    @app.websocket("/refuse")
    async def refuse(websocket: WebSocket) -> None:
        raise exceptions.unauthorized()

    return app


def test_what_testclient_says() -> None:
    """Sends to a client that left succeed, its handler is cancelled, rejections show their code."""
    heard: list[str] = []
    client = TestClient(_liar(heard))
    with client.websocket_connect("/goodbye") as session:
        session.close()
        wait_until(lambda: heard)
    assert heard == ["sent", "cancelled"]
    with pytest.raises(WebSocketDisconnect) as refused:
        client.websocket_connect("/refuse").__enter__()
    assert refused.value.code == 3000


async def test_what_a_real_server_says_instead(ws: str) -> None:
    """Such sends fail, the handler runs to its end, and a rejection without a handler is 403."""
    heard: list[str] = []
    async with live_server(_liar(heard), ws=ws) as server:
        async with connect(f"{server.ws}/goodbye"):
            pass
        await until(lambda: heard == ["not sent", "ran to its end"])
        assert (await refusal(f"{server.ws}/refuse")).status == 403


async def test_statistics_as_json() -> None:
    """The endpoint of the page about deploying shows all figures."""
    page = run("docs/how-to/deploying.md")
    async with live_server(page.app) as server, httpx.AsyncClient() as http:
        shown = (await http.get(f"{server.http}/internal/websockets")).json()
    assert shown == ConnectionManager().statistics()._asdict()


async def test_clients_beyond_the_limits_of_the_page(ws: str) -> None:
    """One user has ten connections and no more; a client that floods is closed."""
    page = run("docs/how-to/limits.md")
    async with (
        live_server(page.app, ws=ws) as server,
        contextlib.AsyncExitStack() as clients,
        connect(f"{server.ws}/rooms/tea") as flooder,
    ):
        url = f"{server.ws}/rooms/tea?user=ana"
        for _ in range(10):
            await clients.enter_async_context(connect(url))
        assert (await refusal(url)).status == 429
        with contextlib.suppress(ConnectionClosed):
            for number in range(200):
                await flooder.send(str(number))
        assert await flooder.closed() == (1008, "too many messages")


async def test_who_is_warned_is_told_to_slow_down() -> None:
    """The hook on the page about limits sends a message to a client that is warned."""
    page = run("docs/how-to/limits.md")
    sink = FaultySink()
    async with page.polite.connection(sink.websocket) as connection:
        for _ in range(51):
            sink.events.put_nowait({"type": "websocket.receive", "text": "x"})
            await connection.receive()
        assert sink.sent[-1]["text"] == '{"type":"slow down"}'
    assert [event["type"] for event in sink.sent[1:]] == ["websocket.send", "websocket.close"]


async def test_the_route_that_drains(ws: str) -> None:
    """On the page about deploying it is for this machine only, and tells clients when to return."""
    page = run("docs/how-to/deploying.md")
    async with (
        live_server(page.app, ws=ws, lifespan="on") as server,
        httpx.AsyncClient(base_url=server.http) as http,
        connect(f"{server.ws}/uploads") as client,
    ):
        elsewhere = {"X-Forwarded-For": "192.0.2.7"}  # which uvicorn believes from this machine
        assert (await http.post("/internal/drain", headers=elsewhere)).status_code == 404
        await client.send(b"part")
        await until(lambda: page.manager.statistics().received == 1)
        draining = asyncio.create_task(http.post("/internal/drain", timeout=DEADLINE))
        code, reason = await client.closed()
        assert code == 1012
        assert re.search(r"retry-after=[\d.]+$", reason)
        assert (await draining).status_code == 204
        assert (await refusal(f"{server.ws}/uploads")).status == 403
        await until(lambda: page.saved == [b"part"])


async def test_the_hook_of_the_page_about_deploying() -> None:
    """It notes who is cut off, and who is refused."""
    page = run("docs/how-to/deploying.md")
    sink = FaultySink()
    async with page.observed.connection(sink.websocket, user="ana"):
        sink.fault = OSError("gone")
        await page.observed.broadcast("x")
    with pytest.raises(exceptions.LimitExceeded):
        await page.observed.connect(FaultySink().websocket, rooms=map(str, range(1025)))
    assert page.cut_off == ["ana: write_failed"]
    assert page.turned_away == ["rooms_per_connection"]
