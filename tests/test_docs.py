"""
The documentation: its code runs, its links lead somewhere, its tables say what the code does.

The Python blocks of a page form one module: each continues the blocks before it on the same page,
and nothing else. A block that only includes a file (`--8<--`) is not run here; the files it may
include have tests of their own.
"""

from __future__ import annotations

import ast
import importlib
import re
from typing import TYPE_CHECKING, get_args

import pytest
import uvicorn
from fastapi import FastAPI, WebSocket
from starlette.exceptions import WebSocketException

from tests.documentation import BLOCK, DOCS, INCLUDE, PAGES, ROOT, blocks_of, run, table_of
from wshub import CloseCode, Limits, Rejection, exceptions
from wshub.events import LimitName
from wshub.rejections import RejectionHandler
from wshub.testing import fixtures, live_server, refusal

if TYPE_CHECKING:
    from pathlib import Path

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

# In three lines: formatters take `--8<-- "file"` for Python, and change it to something else.
LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")
DIRECTIVE = re.compile(r"^::: (\S+)$", re.MULTILINE)


def pages(*, having: str = "") -> pytest.MarkDecorator:
    """Parametrize a test over the pages, or over those that have a certain text in them."""
    chosen = [page for page in PAGES if having in page.read_text()]
    names = [str(page.relative_to(ROOT)) for page in chosen]
    return pytest.mark.parametrize("page", chosen, ids=names)


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
