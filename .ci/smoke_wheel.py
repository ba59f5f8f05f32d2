"""
Install the built wheel where nothing else is installed and use it as a newcomer would.

    python .ci/smoke_wheel.py [dist/wshub-….whl]

Checks that the wheel holds the package and the examples, that the library needs none of its
extras, and that an example out of the wheel answers over HTTP and over a WebSocket.
"""

import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
START_TIMEOUT = 30.0

BARE = """
import importlib.util
import wshub
from wshub import *
extras = [name for name in ("uvicorn", "websockets", "pytest") if importlib.util.find_spec(name)]
assert not extras, f"installed without being asked for: {extras}"
wshub.ConnectionManager()
print("imported", wshub.__file__)
"""

CLIENT = """
import sys
from websockets.sync.client import connect
with connect(sys.argv[1], open_timeout=10) as websocket:
    websocket.send("hello from the wheel")
    answer = websocket.recv(timeout=10)
assert "hello from the wheel" in answer, answer
print("answered", answer)
"""


def main() -> None:
    """Run all checks on the wheel named by the first argument, or on the only one in dist/."""
    wheel = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else find_wheel()
    check_contents(wheel)
    # The checkout must not be what is imported, so everything runs in an empty folder.
    with tempfile.TemporaryDirectory(prefix="wshub-wheel-") as folder:
        python = make_environment(Path(folder) / "env")
        install(python, str(wheel))
        run(python, "-c", BARE, cwd=folder)
        install(python, f"{wheel}[examples]")
        check_example(python, folder)


def find_wheel() -> Path:
    """The wheel that `make build` left in dist/."""
    wheels = sorted((ROOT / "dist").glob("wshub-*.whl"))
    if len(wheels) != 1:
        sys.exit(f"error: expected one wheel in dist/, found {len(wheels)}; run `make build`")
    return wheels[0]


def check_contents(wheel: Path) -> None:
    """Everything of the package and the examples is in the wheel, and nothing else."""
    expected = {
        f"{target}/{path.relative_to(ROOT / source).as_posix()}"
        for source, target in (("src/wshub", "wshub"), ("examples", "wshub/examples"))
        for path in (ROOT / source).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheel) as archive:
        found = {name for name in archive.namelist() if ".dist-info/" not in name}
    if found != expected:
        missing, extra = sorted(expected - found), sorted(found - expected)
        sys.exit(f"error: {wheel.name}: missing {missing}, unexpected {extra}")
    if not any(name.endswith(".html") for name in found) or "wshub/py.typed" not in found:
        sys.exit(f"error: {wheel.name} has no page or no py.typed")
    print(f"{wheel.name} holds {len(found)} files")


def make_environment(folder: Path) -> Path:
    """Make an empty virtual environment and return its interpreter."""
    venv.create(folder, with_pip=True)
    return folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def install(python: Path, requirement: str) -> None:
    """Install with the environment's own pip."""
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", requirement)


def run(python: Path, *arguments: str, cwd: str | None = None) -> None:
    """Run the interpreter; stop everything if it fails."""
    completed = subprocess.run([python, *arguments], cwd=cwd, check=False)
    if completed.returncode != 0:
        sys.exit(f"error: exit code {completed.returncode} from: python {' '.join(arguments[:2])}")


def check_example(python: Path, folder: str) -> None:
    """Start the echo example, fetch its page, and have one message echoed."""
    port = find_free_port()
    command = [str(python), "-m", "wshub.examples", "echo", "--port", str(port)]
    server = subprocess.Popen(command, cwd=folder)
    try:
        page = fetch(f"http://127.0.0.1:{port}/", server)
        if "<html" not in page:
            sys.exit(f"error: the example's page is not HTML: {page[:200]!r}")
        print(f"fetched the page, {len(page)} characters")
        run(python, "-c", CLIENT, f"ws://127.0.0.1:{port}/ws", cwd=folder)
    finally:
        server.terminate()
        server.wait(timeout=15)


def find_free_port() -> int:
    """A port of the loopback address that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def fetch(url: str, server: subprocess.Popen[bytes]) -> str:
    """Fetch `url` as soon as the server answers."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + START_TIMEOUT
    while True:
        try:
            with opener.open(url, timeout=5) as response:
                page: bytes = response.read()
                return page.decode()
        except urllib.error.URLError as error:
            if server.poll() is not None:
                sys.exit(f"error: the example ended with exit code {server.returncode}")
            if time.monotonic() > deadline:
                sys.exit(f"error: no answer from {url} within {START_TIMEOUT:.0f} s: {error}")
            time.sleep(0.1)


if __name__ == "__main__":
    main()
