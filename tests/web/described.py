"""The application, described but not served, so that tests can ask it what it has."""

from litestar import Litestar
from litestar.routes import HTTPRoute

from server.api.scope import RequestScopes
from server.app import create_app
from server.settings import Settings


def litestar() -> Litestar:
    """The Litestar application that every server runs."""
    app = create_app(Settings(database_url="postgresql:///", redis_url="redis://"), engines=[])
    assert isinstance(app, RequestScopes)
    assert isinstance(app.app, Litestar)
    return app.app


def addresses() -> list[tuple[str, str]]:
    """Every method and path (as a template) that it answers."""
    return sorted(
        (method, route.path_format)
        for route in litestar().routes
        if isinstance(route, HTTPRoute)
        for method in route.methods
        if method != "OPTIONS"  # Litestar's own, which tell methods and nothing else
    )
