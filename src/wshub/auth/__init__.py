"""Credentials of a connection, as FastAPI dependencies, and what they allow."""

from wshub.auth.authentication import authenticate, require
from wshub.auth.credential import InvalidCredential
from wshub.auth.credentials import CookieOrToken, build_cookie_or_token, get_cookie_or_token
from wshub.auth.first_message import first_message
from wshub.auth.jwks import KeySet
from wshub.auth.jwt import jwt_verifier
from wshub.auth.origins import OriginPolicy
from wshub.auth.principal import Principal
from wshub.auth.redaction import QueryRedaction, redact_queries
from wshub.auth.room_rules import RoomRule, RoomRules, anyone, with_scopes
from wshub.auth.source import Source, Verifier, first_of
from wshub.auth.sources import bearer_header, bearer_subprotocol, cookie, query
from wshub.auth.tickets import Tickets, ticket

__all__ = (
    "CookieOrToken",
    "InvalidCredential",
    "KeySet",
    "OriginPolicy",
    "Principal",
    "QueryRedaction",
    "RoomRule",
    "RoomRules",
    "Source",
    "Tickets",
    "Verifier",
    "anyone",
    "authenticate",
    "bearer_header",
    "bearer_subprotocol",
    "build_cookie_or_token",
    "cookie",
    "first_message",
    "first_of",
    "get_cookie_or_token",
    "jwt_verifier",
    "query",
    "redact_queries",
    "require",
    "ticket",
    "with_scopes",
)
