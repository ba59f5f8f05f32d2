"""The shape of the package: layers, public names, dependencies."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path

import pytest

import wshub
from wshub import exceptions

SOURCE = Path(wshub.__file__).parent
LAYERS = [
    {
        "_backend_errors",
        "_clock",
        "_close_codes",
        "_counters",
        "_frames",
        "_hub_error",
        "_rejection",
        "_servers",
        "_tasks",
        "events",
        "exceptions",
        "messages",
    },
    {
        "_address_rate",
        "_addresses",
        "_authorization",
        "_batch",
        "_dismissals",
        "_eager",
        "_facade",
        "_farewell",
        "_flush",
        "_framed_outbox",
        "_handler",
        "_inbox",
        "_link",
        "_loop_thread",
        "_names",
        "_outbox",
        "_reader",
        "_ring",
        "_sink",
        "_spawned",
        "_tenure",
        "_token_bucket",
        "_watch",
        "_wire",
        "auth",
        "backends._broker",
        "backends._deadline",
        "backends._driver",
        "backends._options",
        "backends._outgoing",
        "backends._probes",
        "backends._problem",
        "backends._redis_replies",
        "backends._subscriptions",
        "backends.base",
        "backends.one_time_keys",
        "handshakes",
        "limits",
    },
    {"_registry", "backends", "connection", "rooms"},
    {"_admission", "_drain", "_hub", "_lifecycle", "_relay", "_tutorial"},
    {"manager", "rejections"},
    {"_command", "cli", "publisher", "testing", "uvicorn", "uvicorn_http"},
]
"""Lowest first. A module imports from its own layer and from those before it."""

MODULES = [
    module.name
    for module in pkgutil.walk_packages([str(SOURCE)], "wshub.")
    if not module.name.startswith("wshub.examples")
]
FILES = sorted(path for path in SOURCE.rglob("*.py") if "examples" not in path.parts)


def layer_of(module: str) -> int:
    """Return the layer of `module`, or of the package it is in."""
    name = module.removeprefix("wshub.")
    layers = [
        number
        for number, names in enumerate(LAYERS)
        if name in names or name.split(".")[0] in names
    ]
    assert layers, f"{module} is in no layer; put it into LAYERS"
    return layers[0]


def imports_of(tree: ast.AST) -> set[str]:
    """Return the modules of this package that are imported, also for type checking only."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("wshub"):
            assert node.module is not None
            found.add(node.module)
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names if alias.name.startswith("wshub"))
    return found


def runtime_only(tree: ast.Module) -> ast.Module:
    """Drop the blocks that only type checkers see."""
    body = [
        node
        for node in tree.body
        if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    ]
    return ast.Module(body=body, type_ignores=[])


@pytest.mark.parametrize("path", FILES, ids=str)
def test_imports_point_to_lower_layers(path: Path) -> None:
    """A module imports nothing from a layer above its own."""
    module = ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")
    if module == "__init__":
        return
    tree = runtime_only(ast.parse(path.read_text()))
    for imported in imports_of(tree):
        assert layer_of(imported) <= layer_of(module), f"{module} imports {imported}"


@pytest.mark.parametrize("name", ["wshub", *MODULES])
def test_all_lists_what_is_public(name: str) -> None:
    """`__all__` is a sorted tuple of names that exist; what is defined and public is in it."""
    module = importlib.import_module(name)
    assert isinstance(module.__all__, tuple)
    assert list(module.__all__) == sorted(module.__all__)
    defined = {
        public
        for public, value in vars(module).items()
        if not public.startswith("_")
        and getattr(value, "__module__", None) == name
        and isinstance(value, type)
    }
    assert set(module.__all__) <= set(vars(module))
    if not name.rsplit(".", 1)[-1].startswith("_"):
        assert defined <= set(module.__all__)


def test_every_error_is_importable_from_the_top() -> None:
    """Whoever catches an error finds it beside the manager."""
    errors = {name for name in exceptions.__all__ if isinstance(getattr(exceptions, name), type)}
    assert errors <= set(wshub.__all__)


def test_the_package_needs_four_others_and_no_more() -> None:
    """Everything else is an extra."""
    needed = {
        requirement.split(">=")[0].strip()
        for requirement in requires("wshub") or []
        if "extra ==" not in requirement
    }
    assert needed == {"anyio", "fastapi", "starlette", "typing-extensions"}


def loaded_by(modules: str, names: set[str]) -> list[str]:
    """Return which of `names` are loaded once a fresh interpreter has imported `modules`."""
    program = f"import sys, {modules}; print(*sorted({names!r} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    return done.stdout.split()


def test_importing_it_loads_no_server_and_no_driver() -> None:
    """`import wshub` works without any extra, and leaves the tools for tests alone."""
    names = {"uvicorn", "websockets", "wsproto", "uvloop", "httpx", "pytest", "wshub.testing"}
    names |= {"jwt", "redis", "hiredis", "psycopg", "psycopg_pool", "nats", "typer"}
    assert loaded_by("wshub, wshub.auth, wshub.backends, wshub.rejections", names) == []


def test_importing_the_tools_for_tests_loads_no_server_and_no_client() -> None:
    """Whoever wants a fake clock alone needs no extra for it."""
    names = {"uvicorn", "websockets", "uvloop", "pytest", "pytest_asyncio"}
    assert loaded_by("wshub.testing", names) == []


def test_no_file_is_longer_than_two_rooms() -> None:
    """A file of more than 350 lines is asking to be two."""
    assert [path.name for path in FILES if len(path.read_text().splitlines()) > 350] == []
