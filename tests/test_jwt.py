"""JSON Web Tokens: what is taken, what is refused, and where keys come from."""

import asyncio
import json
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Annotated, Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from fastapi import Depends, FastAPI, WebSocket
from starlette.exceptions import WebSocketException

from tests.secrecy import secret
from wshub import ConnectionManager
from wshub.auth import InvalidCredential, KeySet, authenticate, bearer_header, jwt_verifier
from wshub.auth import jwks as key_sets
from wshub.auth.principal import Principal
from wshub.rejections import RejectionHandler
from wshub.testing import connect, live_server, refusal, until
from wshub.testing.deadline import DEADLINE

SECRET = secret("a shared secret of at least 64 bytes, as HS512 wants it, for tests only")
CLAIMS = {"sub": "ana", "aud": "chat", "iss": "https://id.example"}
PRIVATE, STRANGE = (rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in "12")

WEAK = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505  (to be refused)


def sign(
    key: Any = SECRET,
    algorithm: str = "HS256",
    headers: dict[str, Any] | None = None,
    *,
    leave_out: str = "",
    **claims: Any,
) -> str:
    """Return a token that no log may show."""
    content = {**CLAIMS, "exp": int(time.time()) + 60, **claims}
    content.pop(leave_out, None)
    return secret(jwt.encode(content, key, algorithm, headers))


def jwk(key: rsa.RSAPrivateKey, kid: str | None, **fields: str) -> dict[str, Any]:
    """Return a public key as a member of a key set."""
    public: dict[str, Any] = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key()))
    return {**public, **({"kid": kid} if kid else {}), **fields}


verify = jwt_verifier(
    SECRET, algorithms=["HS256", "HS512"], audience="chat", issuer="https://id.example"
)


async def test_a_good_token_says_who_it_is() -> None:
    """Its claims become a principal, which ends when it does and a little later."""
    ends = int(time.time()) + 60
    token = sign(sid="tab", scope="read write", exp=ends, aud=["mail", "chat"], role="x")
    principal = await verify(token)
    assert principal == Principal(
        "ana", session_id="tab", scopes=frozenset({"read", "write"}), expires_at=ends + 10
    )
    assert principal.claims["role"] == "x"
    assert (await verify(sign(algorithm="HS512", scope=["read"]))).scopes == {"read"}
    own = jwt_verifier(
        SECRET, algorithms=["HS256"], session_claim="jti", scope_claim="rights", leeway=0
    )
    principal = await own(sign(jti="7", rights="a", leave_out="aud", exp=ends))
    assert principal.session_id == "7"
    assert principal.scopes == {"a"}
    assert principal.expires_at == ends


@pytest.mark.parametrize(
    "claims",
    [
        {"leave_out": "sub"},
        {"leave_out": "exp"},
        {"leave_out": "aud"},
        {"leave_out": "iss"},
        {"aud": "mail"},
        {"aud": []},
        {"iss": "https://id.example.evil.example"},
        {"nbf": int(time.time()) + 3600},
        {"iat": int(time.time()) + 3600},
        {"sub": ""},
        {"sub": "x" * 300},
        {"sub": 7},
        {"sub": "a\nb"},
        {"exp": "soon"},
        {"exp": 10**400},
        {"scope": 7},
        {"scope": [7]},
        {"scope": {"read": True}},
        {"sid": 7},
        {"key": "another secret of at least 64 bytes, as HS512 wants it, for tests only"},
        {"algorithm": "HS384"},
        {"key": None, "algorithm": "none"},
        {"headers": {"crit": ["x"], "x": 1}},
    ],
    ids="-".join,
)
async def test_a_bad_token_is_refused(claims: dict[str, Any]) -> None:
    """Whatever is wrong with it; and what is said of it shows nothing that it says."""
    claims = {"key": SECRET, "algorithm": "HS256", "headers": None, **claims}
    with pytest.raises(InvalidCredential, match="it is refused by") as refused:
        await verify(sign(**claims))
    assert not refused.value.expired
    assert refused.value.__cause__ is None


@pytest.mark.parametrize(
    "token", ["", ".", "..", "a.b.c", "é.é.é", "e30.e30.", "\ud800", "eyJhbGciOiJub25lIn0.e30."]
)
async def test_what_is_no_token(token: str) -> None:
    """It is refused as a bad one."""
    for keys in (SECRET, KeySet({"keys": [jwk(PRIVATE, "k1")]})):
        algorithms = ["HS256"] if keys is SECRET else ["RS256"]
        with pytest.raises(InvalidCredential):
            await jwt_verifier(keys, algorithms=algorithms)(token)


async def test_clocks_may_differ_a_little() -> None:
    """A token counts for `leeway` seconds more, and then is known to have been good."""
    now = int(time.time())
    assert (await verify(sign(exp=now - 5))).user == "ana"
    with pytest.raises(InvalidCredential) as refused:
        await verify(sign(exp=now - 15))
    assert refused.value.expired
    assert str(refused.value) == "invalid credential: it has expired"


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"algorithms": []}, ValueError, "name the algorithms"),
        ({"algorithms": "HS256"}, TypeError, "is a collection"),
        ({"algorithms": ["none"]}, ValueError, "'none' cannot be used"),
        ({"algorithms": ["HS256", "none"]}, ValueError, "'none' cannot be used"),
        ({"algorithms": ["None"]}, ValueError, "'None' cannot be used"),
        ({"algorithms": ["HS256", "RS256"]}, ValueError, "go with no others"),
        ({"algorithms": ["HS256"], "leeway": 301}, ValueError, "leeway must be 0 to 300"),
        ({"algorithms": ["HS256"], "leeway": -1}, ValueError, "leeway must be 0 to 300"),
        ({"algorithms": ["HS256"], "key": "short"}, ValueError, "unfit for HS256"),
        ({"algorithms": ["RS256"]}, ValueError, "unfit for RS256"),
    ],
    ids=str,
)
def test_what_is_no_verifier(options: dict[str, Any], error: type[Exception], text: str) -> None:
    """Mistakes are told when the verifier is made, before any token comes."""
    key = options.pop("key", SECRET)
    with pytest.raises(error, match=text):
        jwt_verifier(key, **options)


def test_a_missing_pyjwt_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what to install."""
    monkeypatch.setitem(sys.modules, "jwt", None)
    with pytest.raises(ImportError, match=r"pip install 'wshub\[jwt\]'"):
        jwt_verifier(SECRET, algorithms=["HS256"])


async def test_a_public_key_is_no_shared_secret() -> None:
    """A token signed with the public key as if it were a secret is refused."""
    pem = PRIVATE.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    by_pem = jwt_verifier(pem, algorithms=["RS256"], audience="chat")
    assert (await by_pem(sign(PRIVATE, "RS256"))).user == "ana"
    for bad in (sign(STRANGE, "RS256"), sign(SECRET, "HS256")):
        with pytest.raises(InvalidCredential):
            await by_pem(bad)


@pytest.mark.parametrize("algorithm", ["RS512", "PS256"])
async def test_a_key_set_that_does_not_say_for_which_algorithm(algorithm: str) -> None:
    """A key is good for any of the allowed ones that fit it (RFC 7517 §4.4), and for no other."""
    member = {name: value for name, value in jwk(PRIVATE, "k1").items() if name != "alg"}
    check = jwt_verifier(KeySet({"keys": [member]}), algorithms=[algorithm], audience="chat")
    assert (await check(sign(PRIVATE, algorithm, {"kid": "k1"}))).user == "ana"
    for bad in (sign(PRIVATE, "RS256", {"kid": "k1"}), sign(SECRET, "HS256", {"kid": "k1"})):
        with pytest.raises(InvalidCredential):
            await check(bad)
    unsigned = sign(None, "none", {"kid": "k1"})
    with pytest.raises(InvalidCredential, match="does not fit the key"):
        await check(unsigned)


async def test_a_key_set_at_hand() -> None:
    """The key that a token names, or the only one, and one for signatures."""
    two = KeySet({"keys": [jwk(PRIVATE, "k1"), jwk(STRANGE, "k2"), jwk(STRANGE, "k3", use="enc")]})
    by_two = jwt_verifier(two, algorithms=["RS256"], audience="chat")
    by_one = jwt_verifier(
        KeySet({"keys": [jwk(PRIVATE, None)]}), algorithms=["RS256"], audience="chat"
    )
    assert (await by_two(sign(PRIVATE, "RS256", {"kid": "k1"}))).user == "ana"
    assert (await by_one(sign(PRIVATE, "RS256"))).user == "ana"
    for bad in (
        sign(PRIVATE, "RS256"),
        sign(PRIVATE, "RS256", {"kid": "k2"}),
        sign(PRIVATE, "RS256", {"kid": "k9"}),
        sign(STRANGE, "RS256", {"kid": "k3"}),
        sign(PRIVATE, "RS512", {"kid": "k1"}),
    ):
        with pytest.raises(InvalidCredential):
            await by_two(bad)


class KeyServer:
    """
    Serves a key set.

    Attributes:
        body: What it answers.
        requests: How often it was asked.
        gate: Answers wait for it.
    """

    def __init__(self) -> None:
        self.body = b""
        self.status = 200
        self.headers: dict[str, str] = {}
        self.requests = 0
        self.gate = threading.Event()
        self.gate.set()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.requests += 1
                server.gate.wait(DEADLINE)
                self.send_response(server.status)
                for name, value in server.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(server.body)

            def log_message(self, *_: object) -> None:
                """Keep quiet."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/keys"

    def serve(self, *keys: dict[str, Any]) -> None:
        self.body = json.dumps({"keys": keys}).encode()


@pytest.fixture
def key_server() -> Iterator[KeyServer]:
    server = KeyServer()
    thread = threading.Thread(target=server.http.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.gate.set()
    server.http.shutdown()
    thread.join()
    server.http.server_close()


async def test_a_key_set_from_elsewhere(
    key_server: KeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is fetched once for many, again for a new key, but not for each token that names none."""
    now = 1000.0
    monkeypatch.setattr(key_sets, "monotonic", lambda: now)
    key_server.serve(jwk(PRIVATE, "k1"))
    keys = KeySet(key_server.url, interval=30, lifetime=600)
    check = jwt_verifier(keys, algorithms=["RS256"], audience="chat")
    token, newer = sign(PRIVATE, "RS256", {"kid": "k1"}), sign(STRANGE, "RS256", {"kid": "k2"})
    key_server.gate.clear()
    many = [asyncio.ensure_future(check(token)) for _ in range(20)]
    hasty = asyncio.ensure_future(check(token))
    async with asyncio.timeout(DEADLINE):
        while not key_server.requests:
            await asyncio.sleep(0.005)
    hasty.cancel()
    key_server.gate.set()
    assert {who.user for who in await asyncio.gather(*many)} == {"ana"}
    assert key_server.requests == 1
    key_server.serve(jwk(PRIVATE, "k1"), jwk(STRANGE, "k2"))
    for _ in range(3):
        with pytest.raises(InvalidCredential, match="no key"):
            await check(newer)
    assert key_server.requests == 1
    now += 31
    assert (await check(newer)).user == "ana"
    assert key_server.requests == 2
    now += 601
    key_server.gate.clear()
    checking = asyncio.ensure_future(check(token))
    await until(lambda: key_server.requests == 3)
    assert checking.done()  # it did not wait for that, as the key is at hand
    assert checking.result().user == "ana"
    key_server.gate.set()
    await until(lambda: keys._fetching is None)


TROUBLES: dict[str, dict[str, Any]] = {
    "status": {"status": 500},
    "redirect": {"status": 302, "headers": {"Location": "/"}},
    "nonsense": {"body": b"<html>"},
    "no list": {"body": b"{}"},
    "none usable": {"body": b'{"keys": [{"kty": "nonsense"}]}'},
    "too many": {"body": json.dumps({"keys": [{}] * 101}).encode()},
    "too long": {"body": json.dumps({"keys": [jwk(PRIVATE, "k1")]}).encode() + b" " * 4096},
}


@pytest.mark.parametrize("trouble", TROUBLES)
async def test_a_key_set_that_cannot_be_had(
    key_server: KeyServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    trouble: str,
) -> None:
    """Tokens are refused, or checked with the keys that are there, and the log says why."""
    now = 1000.0
    monkeypatch.setattr(key_sets, "monotonic", lambda: now)
    monkeypatch.setattr(key_sets, "MAX_BYTES", 4096)
    key_server.serve(jwk(PRIVATE, "k1"))
    known = KeySet(key_server.url, lifetime=60)
    check = jwt_verifier(known, algorithms=["RS256"], audience="chat")
    token = sign(PRIVATE, "RS256", {"kid": "k1"})
    await check(token)
    for name, value in TROUBLES[trouble].items():
        setattr(key_server, name, value)
    now += 61
    assert (await check(token)).user == "ana"
    await until(lambda: "cannot be had" in caplog.text)
    assert key_server.requests == 2
    assert (await check(token)).user == "ana"
    with pytest.raises(InvalidCredential):
        await jwt_verifier(KeySet(key_server.url), algorithms=["RS256"])(token)


async def test_a_key_set_that_takes_too_long(
    key_server: KeyServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Its time is limited, and the event loop runs on meanwhile."""
    key_server.gate.clear()
    check = jwt_verifier(KeySet(key_server.url, timeout=0.05), algorithms=["RS256"])
    with pytest.raises(InvalidCredential):
        await check(sign(PRIVATE, "RS256", {"kid": "k1"}))
    assert "cannot be had" in caplog.text


async def test_a_key_set_that_drips(key_server: KeyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its time is limited as a whole, not for each byte."""
    now = 0.0

    def tick() -> float:
        nonlocal now
        now += 10
        return now

    key_server.serve(jwk(PRIVATE, "k1"))
    monkeypatch.setattr(key_sets, "monotonic", tick)
    with pytest.raises(TimeoutError, match="over 5 seconds"):
        await asyncio.to_thread(key_sets._download, key_server.url, 5)


@pytest.mark.parametrize(
    ("source", "options", "text"),
    [
        ("http://id.example/keys", {}, "https://"),
        ("file:///etc/passwd", {}, "https://"),
        ("ftp://localhost/keys", {}, "https://"),
        ({"keys": []}, {}, "no usable key"),
        ({"keys": [7, {"kty": "nobody knows"}]}, {}, "no usable key: AttributeError; "),
        pytest.param({"keys": [jwk(WEAK, "k1")]}, {}, "no usable key: .*2048", id="weak"),
        ({}, {}, "a list of keys"),
        ("https://id.example/keys", {"timeout": 0}, "timeout must be"),
        ("https://id.example/keys", {"interval": -1}, "interval must be"),
    ],
    ids=str,
)
def test_what_is_no_key_set(source: Any, options: dict[str, float], text: str) -> None:
    """Mistakes are told when it is made; keys never come without TLS."""
    with pytest.raises(ValueError, match=text):
        KeySet(source, **options)


async def test_a_token_on_a_websocket(ws: str) -> None:
    """From the handshake to its end: a good one connects, and closes once it expires."""
    manager = ConnectionManager()
    app = FastAPI()
    app.add_exception_handler(WebSocketException, RejectionHandler())
    quick = jwt_verifier(SECRET, algorithms=["HS256"], audience="chat", leeway=0)
    current = Annotated[Principal, Depends(authenticate(bearer_header(), verify=quick))]

    @app.websocket("/ws")
    async def chat(websocket: WebSocket, principal: current) -> None:
        async with manager.connection(websocket, principal=principal) as connection:
            async for message in connection.iter_text():
                connection.refresh(await quick(message))
                await connection.send("refreshed")

    async with live_server(app, ws=ws) as server:
        url = f"{server.ws}/ws"
        soon = {"Authorization": f"Bearer {sign(exp=int(time.time()) + 2)}"}
        async with (
            connect(url, additional_headers=soon) as expiring,
            connect(url, additional_headers=soon) as refreshed,
        ):
            assert await refreshed.ask(sign()) == "refreshed"
            assert await expiring.closed() == (3000, "token expired")
            assert await refreshed.ask(sign()) == "refreshed"
            await refreshed.send("nonsense")
            assert await refreshed.closed() == (3000, "invalid credential")
        told = await refusal(url, additional_headers=soon)
        assert (told.status, told.json()["detail"]) == (401, "token expired")
        bad = {"Authorization": f"Bearer {sign(aud='mail')}"}
        told = await refusal(url, additional_headers=bad)
        assert (told.status, told.json()["detail"]) == (401, "invalid credential")
