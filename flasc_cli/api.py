"""The admin API as the command uses it: one client, and errors that say what to do next."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self, cast

from flasc_cli.errors import CliError, ExitCode

if TYPE_CHECKING:
    import httpx

__all__ = ["DEFAULT_API", "AdminApi", "Record", "ServerEvent"]

DEFAULT_API: Final = "http://127.0.0.1:8471"

# A JSON object of the API; its schema is the API's own OpenAPI description.
Record = dict[str, Any]

_PAGE: Final = 200
_TIMEOUT_SECONDS: Final = 30.0
_SILENCE_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerEvent:
    """One server-sent event; `id` continues the stream. The first one has no kind and no data."""

    id: str
    kind: str
    data: Record


class AdminApi:
    """Raises CliError for whatever the service refuses and wherever it can not be reached."""

    def __init__(self, address: str, key: str) -> None:
        if not key:
            raise CliError(
                "the admin API needs a key: create one with `flasc keys create NAME` on the "
                "service's machine, then set FLASC_API_KEY",
                ExitCode.NOT_ALLOWED,
            )
        # Half of what `flasc --help` would take, and most commands' first need of it is here.
        import httpx

        self._address: Final = address.rstrip("/")
        self._client = httpx.Client(
            base_url=self._address,
            headers={"Authorization": f"Bearer {key}"},
            timeout=_TIMEOUT_SECONDS,
            # A proxy in the environment is for the world, not for this machine.
            mounts=dict.fromkeys(("all://127.0.0.1", "all://localhost", "all://[::1]")),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._client.close()

    def get(self, path: str, **query: str | int) -> Record:
        return cast("Record", self._call("GET", path, params=query).json())

    def get_bytes(self, path: str, **query: str | int) -> bytes:
        return self._call("GET", path, params=query).content

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> Record:
        return cast("Record", self._call("POST", path, json=body).json())

    def create_task(self, name: str, config: Mapping[str, Any], adapter: bytes) -> Record:
        """`adapter` is a safetensors file."""
        response = self._call(
            "POST",
            "/v1/tasks",
            data={"name": name, "config": json.dumps(config)},
            files={"adapter": ("adapter.safetensors", adapter, "application/octet-stream")},
        )
        return cast("Record", response.json())

    def list_all(self, path: str) -> Iterator[Record]:
        """Yield the items of every page."""
        query: dict[str, str | int] = {"limit": _PAGE}
        while True:
            page = self.get(path, **query)
            yield from page["items"]
            if page["next_cursor"] is None:
                return
            query["cursor"] = page["next_cursor"]

    def events(self, task: str, *, last_id: str | None = None) -> Iterator[ServerEvent]:
        """Yield what happens from now on, or after `last_id`; ends when the service ends it."""
        headers = {} if last_id is None else {"Last-Event-ID": last_id}
        import httpx

        # Nothing may happen for long, but a heartbeat comes every 15 seconds.
        timeout = httpx.Timeout(_TIMEOUT_SECONDS, read=_SILENCE_SECONDS)
        with (
            self._reachable(),
            self._client.stream(
                "GET", "/v1/events", params={"task": task}, headers=headers, timeout=timeout
            ) as response,
        ):
            if response.is_error:
                response.read()
                raise _refusal(response)
            yield from _parse_events(response.iter_lines())

    def _call(self, method: str, path: str, **request: Any) -> httpx.Response:
        with self._reachable():
            response = self._client.request(method, path, **request)
        if response.is_error:
            raise _refusal(response)
        return response

    @contextmanager
    def _reachable(self) -> Iterator[None]:
        import httpx

        try:
            yield
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise CliError(
                f"no admin API answers at {self._address} ({error}): start it with `flasc serve`, "
                "or give its address with --api or FLASC_API",
                ExitCode.UNREACHABLE,
            ) from error


def _refusal(response: httpx.Response) -> CliError:
    try:
        problem = response.json()
        detail = str(problem.get("detail") or problem.get("title") or problem)
    except (ValueError, AttributeError):
        detail = f"the answer is HTTP {response.status_code}, and no admin API's"
    if response.status_code in {401, 403}:
        return CliError(f"the admin API refuses this key: {detail}", ExitCode.NOT_ALLOWED)
    if response.status_code == 503:
        return CliError(f"the service can not answer now: {detail}", ExitCode.UNREACHABLE)
    return CliError(detail)


def _parse_events(lines: Iterator[str]) -> Iterator[ServerEvent]:
    fields: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")
            continue
        if "id" in fields:
            yield ServerEvent(
                id=fields["id"],
                kind=fields.get("event", ""),
                data=json.loads(fields.get("data", "{}")),
            )
        fields = {}
