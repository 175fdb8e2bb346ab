"""The API's description of itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import APIRoute

from admin_api.routes import adapters, devices, keys, rounds, tasks
from admin_api.routes import operations as operations_routes
from admin_api.schemas.common import Page
from aggregator_service.store.base import Store
from aggregator_service.store.memory import MemoryBlobs
from tests.support.operator import Operator


@pytest.fixture
def document(memory_store: Store) -> dict[str, Any]:
    document: dict[str, Any] = Operator(memory_store, MemoryBlobs()).get("/openapi.json").json()
    return document


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def test_every_operation_is_named_once_and_explained(document: dict[str, Any]) -> None:
    names = [operation["operationId"] for _, operation in operations(document)]

    assert len(set(names)) == len(names) >= 25
    assert all(operation["description"] for _, operation in operations(document))


def test_every_body_and_every_answer_has_an_example(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        bodies = [operation["requestBody"]] if "requestBody" in operation else []
        for body in [*bodies, *operation["responses"].values()]:
            for media in body.get("content", {}).values():
                assert media.get("example") or media.get("examples"), name


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    def references(node: Any) -> Iterator[str]:
        if isinstance(node, dict):
            if isinstance(node.get("$ref"), str):
                yield node["$ref"]
            for value in node.values():
                yield from references(value)
        elif isinstance(node, list):
            for value in node:
                yield from references(value)

    known = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert set(references(document)) <= known


def test_an_example_of_an_answer_is_an_answer(document: dict[str, Any]) -> None:
    parts = (tasks, rounds, adapters, devices, keys, operations_routes)
    models = {
        route.name: route.response_model
        for part in parts
        for route in part.router.routes
        if isinstance(route, APIRoute)
    }

    checked = 0
    for name, operation in operations(document):
        model = models.get(operation["operationId"])
        for status, answer in operation["responses"].items():
            example = answer.get("content", {}).get("application/json", {}).get("example")
            if model is not None and status.startswith("2") and example is not None:
                assert model.model_validate(example), name
                checked += 1
    assert checked >= 20


def test_only_health_is_open(document: dict[str, Any]) -> None:
    assert document["security"] == [{"key": []}]
    open_paths = {path for path, operation in operations(document) if "security" in operation}
    assert open_paths == {"GET /healthz", "GET /readyz"}


def test_every_operation_that_needs_a_key_says_how_it_is_refused(
    document: dict[str, Any],
) -> None:
    for name, operation in operations(document):
        assert {"401", "422", "503"} <= operation["responses"].keys(), name


def test_inputs_that_are_not_known_are_refused_by_every_body(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    bodies = {name for name in schemas if name.endswith("Body") or name.startswith("New")}
    bodies.add("Retraction")

    closed = {name for name in bodies if schemas[name].get("additionalProperties") is False}
    assert bodies - closed == {"NewApiKeyView"}


def test_a_page_says_where_the_next_one_starts() -> None:
    assert Page.model_fields["next_cursor"].is_required()


def test_every_route_is_in_the_documentation(document: dict[str, Any]) -> None:
    page = (Path(__file__).parents[3] / "docs/admin-api.md").read_text()

    for path in document["paths"]:
        stem, _, verb = path.rpartition("/")
        short = f"{stem}/pause` · `" in page and f"`{verb}`" in page
        assert f"{path}`" in page or short, path
