"""Credentials of a connection, as FastAPI dependencies."""

from wshub.auth.credentials import CookieOrToken, build_cookie_or_token, get_cookie_or_token

__all__ = ("CookieOrToken", "build_cookie_or_token", "get_cookie_or_token")
