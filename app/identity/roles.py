"""The role check in front of a view."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from flask import current_app, g, request

from app.errors import Forbidden, Unauthorized
from app.identity.keys import Identity


def authenticate() -> Identity:
    """Who sent this request. Raises Unauthorized."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    identity = current_app.extensions["iparking"].keys.identify(token.strip()) if scheme.lower() == "bearer" else None
    if identity is None:
        raise Unauthorized("send Authorization: Bearer <key>")
    return identity


def require(*roles: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Let only these roles through; the identity is then `flask.g.identity`. Raises Unauthorized, Forbidden."""

    def decorate(view: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(view)
        def checked(*args: Any, **kwargs: Any) -> Any:
            identity = authenticate()
            if identity.role not in roles:
                raise Forbidden(f"a {identity.role} may not do this; it takes a {' or '.join(roles)}")
            g.identity = identity
            return view(*args, **kwargs)

        return checked

    return decorate
