"""Who may use a NATS server: users, tokens, keys, TLS, and what they have a right to."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nkeys
import pytest
import trustme

from tests.brokers.nats_groups import JETSTREAM, PLAIN, needs_nats, running
from tests.brokers.nats_server import NatsServer
from tests.brokers.outcomes import refuses, works
from wshub.backends import NatsBackend, NatsOneTimeKeys

if TYPE_CHECKING:
    from tests.brokers.kinds import Broker

pytestmark = needs_nats


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
