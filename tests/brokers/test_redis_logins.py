"""Who may use a Redis server: TLS, users, and what they have a right to."""

from __future__ import annotations

from pathlib import Path

import pytest
import trustme

from tests.brokers.outcomes import refuses, works
from tests.brokers.redis_groups import Sentinel, is_well, needs_redis, needs_redis_7, started
from tests.brokers.redis_server import DEBIAN_SERVER, OWN_SERVER, RedisServer
from tests.ports import free_port
from wshub import BackendUnavailable
from wshub.backends import RedisBackend, RedisOneTimeKeys
from wshub.testing import wait_until

pytestmark = needs_redis


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def certified(authority: trustme.CA, tmp_path: Path) -> tuple[str, ...]:
    """Options of a server that takes TLS only."""
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "server.pem"))
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    server = str(tmp_path / "server.pem")
    files = ("--tls-cert-file", server, "--tls-key-file", server)
    return (*files, "--tls-ca-cert-file", str(tmp_path / "ca.pem"), "--tls-auth-clients", "no")


@needs_redis_7
async def test_tls(certified: tuple[str, ...], prefix: str, tmp_path: Path) -> None:
    """Certificates are checked: with one that is not trusted it does not start."""
    port = free_port()
    with started(RedisServer(str(DEBIAN_SERVER), "--tls-port", str(port), *certified)):
        url = f"rediss://127.0.0.1:{port}/0"
        trusted = str(tmp_path / "ca.pem")
        for backend in (
            RedisBackend(url, prefix=prefix, options={"ssl_ca_certs": trusted}),
            RedisBackend(f"{url}?ssl_ca_certs={trusted}", prefix=prefix),
        ):
            await works(backend)
        await refuses(RedisBackend(url), "certificate is not trusted")


async def test_users_and_passwords(prefix: str, caplog: pytest.LogCaptureFixture) -> None:
    """With any characters in them; without a right to our channels it does not start."""
    caplog.set_level("DEBUG")
    with started(server := RedisServer(OWN_SERVER)):
        for user, password, rules in (
            ("ann", "s3cret", ("&*", "+@all")),
            ("bob", "s3cret@:/?#%", (f"&{prefix}:*", "+@pubsub", "+@connection")),
            ("eve", "s3cret", ("&others:*", "+@pubsub", "+@connection")),
            ("mum", "s3cret", ("&*", "+@pubsub", "-publish", "+@connection")),
        ):
            create = ("ACL", "SETUSER", user, "on", "resetchannels", f">{password}")
            server.admin.execute_command(*create, *rules)
        server.admin.execute_command("ACL", "SETUSER", "default", ">s3cret")
        address = f"127.0.0.1:{server.port}"
        for login in ("ann:s3cret", "bob:s3cret%40%3A%2F%3F%23%25", ":s3cret"):
            backend = RedisBackend(f"redis://{login}@{address}/0", prefix=prefix)
            await works(backend)
            assert "s3cret" not in repr(backend)
        backend = RedisBackend(f"redis://eve:s3cret@{address}/0", prefix=prefix)
        await refuses(backend, "may not use pub/sub on these channels")
        backend = RedisBackend(f"redis://mum:s3cret@{address}/0", prefix=prefix)
        await refuses(backend, "it refuses to publish .*NOPERM")
        backend = RedisBackend(f"redis://{address}/0", prefix=prefix)
        await refuses(backend, "refuses the user or the password")
    assert "s3cret" not in caplog.text


@needs_redis_7
async def test_the_rights_that_the_docs_give_are_enough(tmp_path: Path) -> None:
    """On a cluster, and behind sentinels, for one-time keys, too; and none is of no use."""
    page = (Path(__file__).parents[2] / "docs/how-to/workers.md").read_text()
    common = "ACL SETUSER shop on >password resetchannels &shop-staging:* +@pubsub +@connection"
    for_keys = "~shop-staging:once:* +set +getdel"
    node = RedisServer(str(DEBIAN_SERVER), "--cluster-enabled", "yes")
    master = RedisServer(OWN_SERVER)
    sentinel = Sentinel(master, tmp_path)
    cluster = f"redis+cluster://shop:password@127.0.0.1:{node.port}"
    sentinels = f"redis+sentinel://shop:password@127.0.0.1:{sentinel.port}/my-service"
    with started(node, master, sentinel):
        node.admin.execute_command("CLUSTER", "ADDSLOTS", *range(16384))
        wait_until(lambda: is_well(node))
        for server, url, right in ((node, cluster, "+cluster|slots"), (master, sentinels, "+role")):
            assert all(f"`{rights}`" in page for rights in (common, right, for_keys))
            server.admin.execute_command(*common.split())
            await refuses(RedisBackend(url, prefix="shop-staging"), "no permissions to run")
            server.admin.execute_command("ACL", "SETUSER", "shop", right)
            await works(RedisBackend(url, prefix="shop-staging"))
            keys = RedisOneTimeKeys(url, prefix="shop-staging")
            with pytest.raises(BackendUnavailable):
                await keys.put("key", "value", 60)
            server.admin.execute_command("ACL", "SETUSER", "shop", *for_keys.split())
            await keys.put("key", "value", 60)
            assert await keys.take("key") == "value"
            await keys.stop()
