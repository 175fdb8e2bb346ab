"""The operator's front door: a REST API under /v1, its event stream, and a web page."""

from admin_api.app import create_app
from admin_api.server import AdminServer, serve

__all__ = ["AdminServer", "create_app", "serve"]
