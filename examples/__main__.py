"""Start an example: ``python -m examples rooms --port 9000``."""

import argparse
import errno
import importlib
import importlib.util
import ipaddress
import signal
import socket
import sys
from collections.abc import Sequence

EXAMPLES = {
    "rooms": "rooms, names, who is here, private messages (the demo)",
    "chat": "the tutorial's chat with several clients",
    "auth": "log in with a cookie, connect with a ticket, refresh, log out everywhere",
    "items": "the tutorial's cookie or token",
    "echo": "the tutorial's echo: text, bytes and JSON",
}
HIGHEST_PORT = 65535
INSTALL = "pip install 'wshub[examples]'"


class StartError(Exception):
    """The example cannot be started; the text is the one line that says what to do."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one example until Ctrl-C and return the exit code."""
    options = parse(argv)
    try:
        serve(options.example, options.host, options.port, options.ws)
    except StartError as error:
        print(f"{options.example}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        pass
    return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=f"python -m {__package__}",
        description="Start one of the wshub examples.",
        epilog="\n".join(f"  {name:6} {what}" for name, what in EXAMPLES.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("example", choices=EXAMPLES)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("--port", default="8000", help="port to listen on (%(default)s)")
    parser.add_argument(
        "--ws", default="auto", help="WebSocket implementation, such as wsproto (%(default)s)"
    )
    return parser.parse_args(argv)


def serve(example: str, host: str, port: str, ws: str) -> None:
    try:
        import uvicorn  # noqa: PLC0415 (optional: that it is missing is told in one line)
        from uvicorn.importer import ImportFromStringError  # noqa: PLC0415 (the same)
    except ImportError:
        raise StartError(f"uvicorn is not installed: {INSTALL}") from None
    if ws == "auto" and not any(map(importlib.util.find_spec, ("websockets", "wsproto"))):
        raise StartError(f"uvicorn has no WebSocket library: {INSTALL}")

    try:
        app = importlib.import_module(f".{example}.app", __package__).app
    except ImportError as error:
        raise StartError(f"{error.name} is not installed: {INSTALL}") from None
    # Tabs that stay open must not hold up Ctrl-C: uvicorn would wait for them without end.
    config = uvicorn.Config(app, ws=ws, log_level="warning", timeout_graceful_shutdown=2)
    try:
        config.load()
    except (ImportError, ImportFromStringError) as error:
        raise StartError(f"--ws {ws} cannot be loaded ({error}): {INSTALL}") from None

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            print(f"{example}: open {address(listener)} in two tabs, stop with Ctrl-C", flush=True)

    # Bound here and not by uvicorn, so that a taken port is one line.
    with bind(host, port) as listener:
        # uvicorn raises again what it was ended with; SIGTERM shall be as quiet as Ctrl-C.
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            Server(config).run(sockets=[listener])
        finally:
            signal.signal(signal.SIGTERM, before)


def bind(host: str, port: str) -> socket.socket:
    """Listen on the address, or say in one line why that cannot be."""
    spare = 9001 if port == "9000" else 9000
    other = f"--port {spare}" + (
        f", or make demo PORT={spare}" if __package__ == "examples" else ""
    )
    if not (port.isdecimal() and int(port) <= HIGHEST_PORT):
        raise StartError(f"{port!r} is not a port, choose a number up to {HIGHEST_PORT}: {other}")
    try:
        family = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, int(port)), family=family, backlog=2048)
    except (OSError, UnicodeError) as error:
        problems = {
            errno.EADDRINUSE: f"port {port} is taken, choose another: {other}",
            errno.EACCES: f"port {port} needs more rights, choose one above 1023: {other}",
        }
        otherwise = f"cannot listen on {host} port {port}, see --host and --port: {error}"
        raise StartError(problems.get(getattr(error, "errno", None) or 0, otherwise)) from None


def address(listener: socket.socket) -> str:
    """The address to open in a browser on this machine."""
    host, port = listener.getsockname()[:2]
    if ipaddress.ip_address(host).is_unspecified:
        host = "localhost"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


if __name__ == "__main__":
    sys.exit(main())
