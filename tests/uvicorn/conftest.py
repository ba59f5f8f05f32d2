"""What tests of the frame sink share."""

from __future__ import annotations

import ssl

import pytest
import trustme


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ssl.SSLContext]:
    """Name of a file with it and its key, and what a client needs to trust it."""
    authority, context = trustme.CA(), ssl.create_default_context()
    authority.configure_trust(context)
    path = tmp_path_factory.mktemp("certificate") / "localhost.pem"
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(path))
    return str(path), context


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a handful of peers be enough for one system call."""
    monkeypatch.setattr("wshub._flush.FEW", 0)
