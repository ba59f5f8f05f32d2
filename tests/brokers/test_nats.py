"""What is NATS' own: its streams, its clusters, who may do what, and how it is told."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import ssl
import sys
from contextlib import AsyncExitStack, ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nkeys
import pytest
import trustme

from tests.brokers.kinds import KINDS
from tests.brokers.nats_server import NatsServer, connected
from tests.brokers.proxy import Proxy
from tests.ports import free_port
from wshub import BackendLost, BackendRefused, BackendRegained, BackendUnavailable, PayloadTooLarge
from wshub.backends import NatsBackend, NatsOneTimeKeys, Receiver, _supervisor
from wshub.backends._nats_url import read_url
from wshub.testing import until
from wshub.testing._worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from tests.brokers.kinds import Broker, Kind
    from wshub.backends import Backend

NATS = next(kind for kind in KINDS if kind.name == "nats")

pytestmark = pytest.mark.skipif(NATS.missing is not None, reason=str(NATS.missing))

PLAIN = 'listen: "127.0.0.1:{port}"\n'
JETSTREAM = PLAIN + 'jetstream {{ store_dir: "{directory}" }}\n'


@contextmanager
def running(*servers: NatsServer) -> Generator[None, None, None]:
    """Run servers for the length of a block."""
    with ExitStack() as stack:
        for server in servers:
            server.launch()
            stack.callback(server.stop)
        for server in servers:
            server.answers()
        yield


@pytest.fixture
def nats(started: Callable[[Kind], Broker]) -> Broker:
    """A server that other tests use, too."""
    return started(NATS)


async def works(backend: Backend) -> None:
    """Check that what is published comes back."""
    async with Worker(backend).running() as worker:
        assert backend.health().ready, backend.health().problem
        await worker.publish("hi")
        await worker.reached_by("hi")


async def refuses(backend: Backend, problem: str) -> None:
    """Check that a backend does not start, and why."""
    with pytest.raises(BackendRefused, match=problem) as refused:
        async with Worker(backend).running():
            pytest.fail("it started")  # pragma: no cover
    assert "s3cret" not in f"{refused.value} {backend!r}"


# --- one order


async def test_without_jetstream_it_says_what_to_do(prefix: str) -> None:
    """A plain server passes messages on, but has no order for all; that has to be chosen."""
    with running(server := NatsServer(PLAIN)):
        await refuses(NatsBackend(server.url), "has no JetStream; start it with -js, or .*ordered=")
        await works(NatsBackend(server.url, prefix=prefix, ordered=False))
        await works(NatsBackend(f"{server.url}?ordered=false", prefix=prefix))
        url = f"{server.url}?ordered=false"
        await refuses(NatsBackend(url, prefix=prefix, ordered=True), "has no JetStream")


async def test_an_account_without_jetstream(prefix: str) -> None:
    """JetStream itself says so."""
    accounts = "accounts {{ A {{ users: [{{ user: a, password: b }}] }} }}\nno_auth_user: a\n"
    with running(server := NatsServer(JETSTREAM + accounts)):
        await refuses(NatsBackend(server.url, prefix=prefix), "enable it, or do without one order")


async def test_its_stream_keeps_nothing(nats: Broker, prefix: str) -> None:
    """A message is in memory for a second, then it is gone."""

    def stored() -> Any:
        with connected(nats.url) as client:
            return client.ask(f"$JS.API.STREAM.INFO.{prefix}-order")

    async with Worker(NatsBackend(nats.url, prefix=prefix)).running() as worker:
        for number in range(20):
            await worker.publish(str(number))
        await worker.is_delivered(20)
        assert stored()["config"]["storage"] == "memory"
        assert stored()["state"]["messages"] <= 1
        await worker.backend.stop()
        await until(lambda: stored()["state"]["messages"] == 0)


async def test_a_stream_that_an_administrator_has_made(nats: Broker, prefix: str) -> None:
    """It may differ in what does not matter to us; in what does, it is not touched."""
    settings = {
        "name": f"{prefix}-order",
        "subjects": [f"{prefix}.publish.>"],
        "storage": "file",
        "max_age": 5_000_000_000,
    }
    name = f"{prefix}-order"
    with connected(nats.url) as client:
        assert "error" not in client.ask(f"$JS.API.STREAM.CREATE.{name}", settings)
        await refuses(NatsBackend(nats.url, prefix=prefix), f"its stream {name} does not publish")
        republish = {"src": f"{prefix}.publish.>", "dest": f"{prefix}.deliver.>"}
        changed = {**settings, "republish": republish}
        assert "error" not in client.ask(f"$JS.API.STREAM.UPDATE.{name}", changed)
        await works(NatsBackend(nats.url, prefix=prefix))
        config = client.ask(f"$JS.API.STREAM.INFO.{name}")["config"]
        assert (config["storage"], config["max_age"]) == ("file", 5_000_000_000)


async def test_a_stream_that_is_deleted_is_an_outage(nats: Broker, prefix: str) -> None:
    """Publishing fails, and does not pretend; the stream is made again."""
    async with Worker(NatsBackend(nats.url, prefix=prefix)).running() as worker:
        with connected(nats.url) as client:
            assert client.ask(f"$JS.API.STREAM.DELETE.{prefix}-order")["success"]
        with pytest.raises(BackendUnavailable):
            await worker.publish("lost")
        await until(lambda: len(worker.events) == 2)
        assert [type(event) for event in worker.events] == [BackendLost, BackendRegained]
        await worker.publish("back")
        await worker.reached_by("back")


async def test_a_stream_that_takes_nothing_is_an_outage(nats: Broker, prefix: str) -> None:
    """Here because an administrator has limited it."""
    async with Worker(NatsBackend(nats.url, prefix=prefix)).running() as worker:
        with connected(nats.url) as client:
            name = f"{prefix}-order"
            config = client.ask(f"$JS.API.STREAM.INFO.{name}")["config"]
            client.ask(f"$JS.API.STREAM.UPDATE.{name}", {**config, "max_msg_size": 10})
            with pytest.raises(BackendUnavailable):
                await worker.publish("too long for it")
            await until(lambda: "took nothing" in str(worker.backend.health().problem))
            client.ask(f"$JS.API.STREAM.DELETE.{name}")
        await until(lambda: worker.backend.health().ready)


async def test_a_name_that_jetstream_does_not_take(nats: Broker, prefix: str) -> None:
    """What it says is told: here that another stream has the subjects already."""
    with connected(nats.url) as client:
        settings = {"name": f"{prefix}-other", "subjects": [f"{prefix}.publish.>"]}
        assert "error" not in client.ask(f"$JS.API.STREAM.CREATE.{prefix}-other", settings)
        async with Worker(NatsBackend(nats.url, prefix=prefix)).running() as worker:
            assert "JetStream says: subjects overlap" in str(worker.backend.health().problem)
            client.ask(f"$JS.API.STREAM.DELETE.{prefix}-other")
            await until(lambda: worker.backend.health().ready)


def make_cluster(number: int = 3) -> list[NatsServer]:
    """Return servers that know each other."""
    ports = [free_port() for _ in range(number)]
    names = ", ".join(f'"nats://127.0.0.1:{port}"' for port in ports)
    cluster = 'cluster {{{{ name: c, listen: "127.0.0.1:{}", routes: [{}] }}}}\nserver_name: n{}\n'
    return [NatsServer(JETSTREAM + cluster.format(port, names, port)) for port in ports]


@pytest.mark.one_loop
async def test_workers_on_all_nodes_of_a_cluster_see_one_order(prefix: str) -> None:
    """Wherever they publish."""
    servers = make_cluster()
    with running(*servers):
        workers = [Worker(NatsBackend(server.url, prefix=prefix)) for server in servers]
        async with AsyncExitStack() as stack:
            for worker in workers:
                await stack.enter_async_context(worker.running())
            await until(lambda: all(one.backend.health().ready for one in workers), 30)
            # Routes need a moment to hear of subscriptions.
            for name, worker in enumerate(workers):
                while not all(f"here is {name}" in one.texts for one in workers):
                    await worker.publish(f"here is {name}")

            async def talk(name: int, worker: Worker) -> None:
                for number in range(100):
                    await worker.publish(f"{name}: {number}")

            await asyncio.gather(*(talk(*named) for named in enumerate(workers)))

            def said() -> list[list[str]]:
                return [[text for text in map(str, one.texts) if ":" in text] for one in workers]

            await until(lambda: all(len(texts) == 300 for texts in said()))
            assert said() == [said()[0]] * 3


async def test_the_first_server_that_answers_is_used(nats: Broker, prefix: str) -> None:
    """Some may be away, or say nothing."""
    host = nats.url.removeprefix("nats://")
    silent = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    async with silent:
        other = f"127.0.0.1:{silent.sockets[0].getsockname()[1]}"
        for hosts in (f"127.0.0.1:{free_port()},{host}", f"{other},{host}", f"{host},{other}"):
            await works(NatsBackend(f"nats://{hosts}", prefix=prefix))


@pytest.mark.one_loop
async def test_a_server_that_says_nothing_is_left_for_the_next(
    nats: Broker, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the next attempt: the one that is tried has all the time there is."""
    monkeypatch.setattr(_supervisor, "PATIENCE", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hosts = f"127.0.0.1:{silent.getsockname()[1]},{nats.url.removeprefix('nats://')}"
        async with Worker(NatsBackend(f"nats://{hosts}", prefix=prefix)).running() as worker:
            await until(lambda: worker.backend.health().ready)
            await worker.publish("hi")
            await worker.reached_by("hi")


class SlowProxy(Proxy):
    """Takes a while to pass a connection on."""

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.5)
        await super()._connect(reader, writer)


@pytest.mark.one_loop
async def test_a_slow_server_has_its_time_however_many_there_are(nats: Broker, prefix: str) -> None:
    """Also if it is the only one of them that is there."""
    port = int(nats.url.rpartition(":")[2])
    async with SlowProxy(port).running() as proxy:
        hosts = [*(f"127.0.0.1:{free_port()}" for _ in range(5)), f"127.0.0.1:{proxy.port}"]
        await works(NatsBackend(f"nats://{','.join(hosts)}", prefix=prefix))


# --- limits


async def test_a_server_that_takes_less_than_we_would(prefix: str) -> None:
    """Its own limit is told; a message right below it arrives."""
    with running(server := NatsServer(JETSTREAM + "max_payload: 5000\n")):
        backend = NatsBackend(server.url, prefix=prefix)
        async with Worker(backend).running() as worker:
            with pytest.raises(PayloadTooLarge) as too_large:
                await worker.publish("x" * 5000)
            assert too_large.value.limit == 5000
            envelope = too_large.value.size - 5000
            await worker.publish("y" * (5000 - envelope))
            await worker.reached_by("y" * (5000 - envelope))
            assert worker.events == []


async def test_the_longest_message_of_all(nats: Broker, prefix: str) -> None:
    """What the stream adds to it does no harm."""
    async with Worker(NatsBackend(nats.url, prefix=prefix)).running() as worker:
        with pytest.raises(PayloadTooLarge) as too_large:
            await worker.publish("x" * 1024 * 1024)
        longest = "y" * (2 * 1024 * 1024 - too_large.value.size)
        await worker.publish(longest)
        await worker.reached_by(longest)


async def test_a_worker_that_is_slow_lets_the_server_wait(nats: Broker, prefix: str) -> None:
    """No more than some messages are read ahead, and none is lost."""
    sender = Worker(NatsBackend(nats.url, prefix=prefix))
    slow = Worker(NatsBackend(nats.url, prefix=prefix))
    async with sender.running(), slow.running():
        texts = [f"{number} {'x' * 1000}" for number in range(1000)]
        await asyncio.gather(*map(sender.publish, texts))
        await slow.reached_by(*texts)
        assert slow.events == sender.events == []


async def test_what_a_worker_does_not_take_stays_on_the_server(nats: Broker, prefix: str) -> None:
    """It waits there, and in the socket: memory here is bounded."""
    backend = NatsBackend(nats.url, prefix=prefix)
    go_on = asyncio.Event()
    taken: list[object] = []

    async def take(envelope: object) -> None:
        await go_on.wait()
        taken.append(envelope)

    backend.attach(Receiver(take, lambda _: None, lambda _: None))
    backend.subscribe("everyone", "")
    await backend.start()
    async with Worker(NatsBackend(nats.url, prefix=prefix)).running() as sender:
        for number in range(20):
            await sender.publish(f"{number} {'x' * 200_000}")
        await sender.is_delivered(20)
        waiting = backend._nats._link._payloads
        await until(lambda: sum(map(len, waiting)) > 1024 * 1024)
        assert sum(map(len, waiting)) < 1024 * 1024 + 300_000
        go_on.set()
        await until(lambda: len(taken) == 20)
    await backend.stop()


# --- who may


@pytest.mark.parametrize("user", ["app:p%40ss%2Fword", "t%3Ak%23n"])
async def test_users_and_tokens_of_the_url(user: str, prefix: str) -> None:
    """With any characters in them."""
    login = {
        "app:p%40ss%2Fword": 'user: app, password: "p@ss/word"',
        "t%3Ak%23n": 'token: "t:k#n"',
    }[user]
    with running(server := NatsServer(f"{JETSTREAM}authorization {{{{ {login} }}}}\n")):
        url = server.url.replace("nats://", f"nats://{user}@")
        await works(NatsBackend(url, prefix=prefix))
        for wrong in ("nats://", "nats://s3cret@", "nats://app:s3cret@"):
            await refuses(NatsBackend(server.url.replace("nats://", wrong)), "it refuses the user")


@pytest.mark.parametrize("ordered", [True, False])
async def test_a_user_without_a_right_to_our_subjects(*, ordered: bool, prefix: str) -> None:
    """The start says which right is missing."""
    for rights in ('publish: ["$JS.API.>"]', 'publish: [">"], subscribe: ["_INBOX.>"]'):
        users = (
            f"authorization {{{{ users: [{{{{ user: a, permissions: {{{{ {rights} }}}} }}}}] }}}}"
        )
        users = users.replace("user: a,", "user: a, password: b,")
        with running(server := NatsServer(JETSTREAM + users)):
            url = server.url.replace("nats://", "nats://a:b@")
            backend = NatsBackend(url, prefix=prefix, ordered=ordered)
            await refuses(backend, r"may not use a subject .*permissions violation for")


@pytest.mark.parametrize(
    ("ordered", "publish"),
    [(True, '"shop.publish.>", "$JS.API.STREAM.*.shop-order"'), (False, '"shop.deliver.>"')],
)
async def test_the_rights_that_the_docs_give_are_enough(*, ordered: bool, publish: str) -> None:
    """And one prefix stays out of another."""
    rights = f'publish: [{publish}], subscribe: ["shop.deliver.>", "_INBOX.>"]'
    page = (Path(__file__).parents[2] / "docs/how-to/workers.md").read_text()
    assert f"[{publish}]" in page
    assert 'subscribe: ["shop.deliver.>", "_INBOX.>"]' in page
    user = f"{{{{ user: a, password: b, permissions: {{{{ {rights} }}}} }}}}"
    with running(server := NatsServer(f"{JETSTREAM}authorization {{{{ users: [{user}] }}}}\n")):
        url = server.url.replace("nats://", "nats://a:b@")
        await works(NatsBackend(url, prefix="shop", ordered=ordered))
        await refuses(NatsBackend(url, prefix="bank", ordered=ordered), "may not use a subject")


async def test_the_rights_that_the_docs_give_are_enough_for_one_time_keys() -> None:
    """Beside those to our subjects."""
    publish = '"shop.once.*", "$JS.API.STREAM.*.shop-once", "$JS.API.STREAM.MSG.*.shop-once"'
    assert f"`{publish}`" in (Path(__file__).parents[2] / "docs/how-to/workers.md").read_text()
    rights = f'publish: [{publish}], subscribe: ["_INBOX.>"]'
    user = f"{{{{ user: a, password: b, permissions: {{{{ {rights} }}}} }}}}"
    with running(server := NatsServer(f"{JETSTREAM}authorization {{{{ users: [{user}] }}}}\n")):
        keys = NatsOneTimeKeys(server.url.replace("nats://", "nats://a:b@"), prefix="shop")
        await keys.put("key", "value", 60)
        assert await keys.take("key") == "value"
        await keys.stop()


def make_key(prefix: int) -> nkeys.KeyPair:
    seed = nkeys.encode_seed(bytes(range(32)), prefix)
    return nkeys.from_seed(bytearray(seed))


def make_jwt(issuer: nkeys.KeyPair, subject: nkeys.KeyPair, claims: dict[str, Any]) -> str:
    """Return what NATS' own tools would make of these claims."""
    body = {
        "jti": "x",
        "iat": 1,
        "iss": issuer.public_key.decode(),
        "sub": subject.public_key.decode(),
        "name": "tests",
        "nats": {**claims, "version": 2},
    }
    parts = [
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()
        for part in ({"typ": "JWT", "alg": "ed25519-nkey"}, body)
    ]
    signature = issuer.sign(".".join(parts).encode())
    return ".".join([*parts, base64.urlsafe_b64encode(signature).rstrip(b"=").decode()])


async def test_a_file_of_credentials(prefix: str, tmp_path: Path) -> None:
    """As operators hand them out; another file, or none, is told apart from an outage."""
    operator = make_key(nkeys.PREFIX_BYTE_OPERATOR)
    account = make_key(nkeys.PREFIX_BYTE_ACCOUNT)
    user = make_key(nkeys.PREFIX_BYTE_USER)
    limits = dict.fromkeys(("subs", "data", "payload", "conn", "leaf", "imports", "exports"), -1)
    granted = {"type": "account", "limits": {**limits, "wildcards": True}}
    configuration = (
        f"operator: {make_jwt(operator, operator, {'type': 'operator'})}\nresolver: MEMORY\n"
        f"resolver_preload: {{{{ {account.public_key.decode()}: "
        f"{make_jwt(operator, account, granted)} }}}}\n"
    )
    allowed = {"type": "user", "subs": -1, "data": -1, "payload": -1}
    path = tmp_path / "app.creds"
    path.write_text(
        "-----BEGIN NATS USER JWT-----\n"
        f"{make_jwt(account, user, allowed)}\n"
        "------END NATS USER JWT------\n\n"
        "-----BEGIN USER NKEY SEED-----\n"
        f"{user.seed.decode()}\n"
        "------END USER NKEY SEED------\n"
    )
    with running(server := NatsServer(PLAIN + configuration)):
        make: dict[str, Any] = {"prefix": prefix, "ordered": False}
        await works(NatsBackend(server.url, options={"user_credentials": str(path)}, **make))
        await works(NatsBackend(f"{server.url}?user_credentials={path}", **make))
        await refuses(NatsBackend(server.url, **make), "it refuses the user")
        path.write_text("s3cret")
        url = f"{server.url}?user_credentials={path}"
        await refuses(NatsBackend(url, **make), "is no file of NATS credentials")
        path.unlink()
        await refuses(NatsBackend(url, **make), "the credentials cannot be read: .*No such file")


async def test_a_seed_of_an_nkey(prefix: str, tmp_path: Path) -> None:
    """From a file, or as text."""
    user = make_key(nkeys.PREFIX_BYTE_USER)
    path = tmp_path / "seed"
    path.write_bytes(user.seed)
    users = f"authorization {{{{ users: [{{{{ nkey: {user.public_key.decode()} }}}}] }}}}\n"
    with running(server := NatsServer(JETSTREAM + users)):
        seed = user.seed.decode()
        for options in ({"nkeys_seed": str(path)}, {"nkeys_seed_str": seed}):
            await works(NatsBackend(server.url, prefix=prefix, options=options))
        wrong = {"nkeys_seed_str": "SUs3cret"}
        await refuses(NatsBackend(server.url, options=wrong), "the seed of the nkey cannot be read")
        path.unlink()
        gone = {"nkeys_seed": str(path)}
        await refuses(NatsBackend(server.url, options=gone), "a file is missing: .*seed")


# --- TLS


class Certificates:
    """Of a server and of a client, and of the authority that both trust."""

    def __init__(self, directory: Path) -> None:
        authority = trustme.CA()
        self.authority = str(directory / "ca.pem")
        self.server = str(directory / "server.pem")
        self.client = str(directory / "client.pem")
        authority.cert_pem.write_to_path(self.authority)
        for path, name in ((self.server, "127.0.0.1"), (self.client, "app@example.org")):
            made = authority.issue_cert(name)
            made.private_key_and_cert_chain_pem.write_to_path(path)

    def configure(self, *more: str) -> str:
        """Return the configuration of a server."""
        files = (
            f'cert_file: "{self.server}", key_file: "{self.server}", ca_file: "{self.authority}"'
        )
        return f"{JETSTREAM}tls {{{{ {', '.join((files, *more))} }}}}\n"


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path)


async def test_tls(certificates: Certificates, prefix: str) -> None:
    """Certificates are checked: with one that is not trusted it does not start."""
    authority = certificates.authority
    with running(server := NatsServer(certificates.configure())):
        url = server.url.replace("nats://", "nats+tls://")
        for backend in (
            NatsBackend(url, prefix=prefix, options={"ssl_ca_certs": authority}),
            NatsBackend(f"{server.url}?ssl_ca_certs={authority}", prefix=prefix),
            NatsBackend(
                url, prefix=prefix, options={"tls": ssl.create_default_context(cafile=authority)}
            ),
        ):
            await works(backend)
        for untrusted in (url, server.url):
            await refuses(NatsBackend(untrusted), "its certificate is not trusted")
        name = {"ssl_ca_certs": authority, "tls_hostname": "elsewhere"}
        await refuses(NatsBackend(url, options=name), "its certificate is not trusted")


async def test_a_certificate_of_the_client(certificates: Certificates, prefix: str) -> None:
    """Some servers want one; some begin with TLS, before they say that they are NATS."""
    demanding = certificates.configure("verify: true", "handshake_first: true")
    options = {
        "ssl_ca_certs": certificates.authority,
        "ssl_certfile": certificates.client,
        "tls_handshake_first": True,
    }
    query = "&".join(f"{name}={value}".replace("True", "true") for name, value in options.items())
    with running(server := NatsServer(demanding, greets=False)):
        await works(NatsBackend(server.url, prefix=prefix, options=options))
        await works(NatsBackend(f"{server.url}?{query}", prefix=prefix))


async def test_no_password_is_sent_without_tls(nats: Broker, unused_tcp_port: int) -> None:
    """Where TLS was asked for: neither to a server that has none, nor to who pretends to be it."""
    url = nats.url.replace("nats://", "nats+tls://app:s3cret@")
    await refuses(NatsBackend(url), "it does not ask for TLS")
    heard = bytearray()

    async def pretend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"server_id":"x","version":"2.11.0","max_payload":1048576}\r\n')
        heard.extend(await reader.read(-1))
        writer.close()

    async with await asyncio.start_server(pretend, "127.0.0.1", unused_tcp_port):
        url = f"nats+tls://app:s3cret@127.0.0.1:{unused_tcp_port}"
        await refuses(NatsBackend(url), "it does not ask for TLS")
    assert heard == b""


# --- what else may come


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        (b"-ERR 'Slow Consumer'\r\n", "slow consumer"),
        (b"-ERR \r\n", "the connection to NATS is closed"),  # on which nats-py's reader stumbles
        (b"HELP ME\r\n", "protocol error"),
    ],
)
async def test_a_server_that_complains_is_lost(
    said: bytes, problem: str, unused_tcp_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever it says, the worker does not go on deaf."""

    async def complain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"server_id":"x","version":"2.11.0","max_payload":1048576}\r\n')
        while line := await reader.readline():
            if line == b"PING\r\n":
                writer.write(b"PONG\r\n")
            if line.startswith(b"SUB"):
                writer.write(said)
        writer.close()

    async with await asyncio.start_server(complain, "127.0.0.1", unused_tcp_port):
        backend = NatsBackend(f"nats://127.0.0.1:{unused_tcp_port}", ordered=False)
        async with Worker(backend).running() as worker:
            await until(lambda: worker.events)
            assert problem in str(backend.health().problem)
            assert isinstance(worker.events[0], BackendLost)
    assert "s3cret" not in caplog.text


# --- what is read of a URL


@pytest.mark.parametrize(
    ("url", "options", "problem"),
    [
        ("nats:/s3cret", {}, "this is no URL of NATS"),
        ("redis://s3cret@host", {}, "this is no URL of NATS"),
        ("nats://s3cret@host:port", {}, "a host and port of this URL cannot be read"),
        ("nats://host?ordered=s3crets", {}, "ordered is true or false"),
        ("nats://host?allow_reconnect=true", {}, "does not know the option 'allow_reconnect'"),
        ("nats://host", {"speed": 9}, "does not know the option 'speed'"),
        ("nats://host?ssl_ca_certs=/no/where", {}, "a certificate or its key cannot be read"),
        ("nats://host", {"ssl_certfile": "/no/where"}, "a certificate or its key cannot be read"),
    ],
)
def test_a_url_that_makes_no_sense(url: str, options: dict[str, Any], problem: str) -> None:
    """Is a ValueError that says so, and does not repeat what may be secret."""
    with pytest.raises(ValueError, match=problem) as error:
        NatsBackend(url, options=options)
    assert "s3cret@" not in str(error.value)


@pytest.mark.parametrize(
    ("url", "servers", "login"),
    [
        ("nats://", ["nats://localhost:4222"], {}),
        ("nats://host", ["nats://host:4222"], {}),
        ("NATS://[::1]:42,b,c:7/", ["nats://[::1]:42", "nats://b:4222", "nats://c:7"], {}),
        ("nats://t%40ken@host", ["nats://host:4222"], {"token": "t@ken"}),
        ("nats://u:p%3A@host", ["nats://host:4222"], {"user": "u", "password": "p:"}),
    ],
)
def test_what_a_url_says(url: str, servers: Sequence[str], login: dict[str, str]) -> None:
    """Hosts have a port of their own, or NATS' usual one; secrets are no part of them."""
    settings = read_url(url, {})
    assert settings.servers == servers
    assert settings.options == {"name": "wshub", **login}
    assert not settings.encrypted
    assert not any(secret in repr(settings) for secret in login.values())


def test_without_its_driver_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra has a name."""
    monkeypatch.setitem(sys.modules, "nats.aio.client", None)
    for name in ("_nats_link", "_nats_connection"):
        monkeypatch.delitem(sys.modules, f"wshub.backends.{name}", raising=False)
    with pytest.raises(ImportError, match=r"NatsBackend needs nats; pip install 'wshub\[nats\]'"):
        NatsBackend()


async def test_rooms_can_be_read_on_the_server(nats: Broker, prefix: str) -> None:
    """An administrator may grant a right to a room, and see who has subscribed to it."""
    async with Worker(NatsBackend(nats.url, prefix=prefix)).running() as worker:
        await worker.subscribe("room", "lobby")
        await worker.subscribe("user", "ann.lee@example.org")
        with connected(nats.url) as client:
            answer = client.ask("$SYS.REQ.ACCOUNT.PING.CONNZ", {"subscriptions": True})
    subjects = {
        subject
        for connection in answer["data"]["connections"]
        for subject in connection.get("subscriptions_list", ())
        if subject.startswith(f"{prefix}.") and ".worker." not in subject
    }
    assert subjects == {
        f"{prefix}.deliver.everyone",
        f"{prefix}.deliver.room.lobby",
        f"{prefix}.deliver.user.ann%2Elee%40example%2Eorg",
    }
