"""Rules that a machine can hold the source to; ruff and mypy have the others."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from aggregator_service.domain.assignments import AssignmentState
from aggregator_service.domain.rounds import RoundState
from aggregator_service.domain.tasks import TaskState
from tests.architecture.replacements import replacements_in
from tests.architecture.source import FOLDERS, PACKAGES, Source, sources, written

EVERYTHING = [source for source in sources(*FOLDERS) if written(source)]
PRODUCT = [source for source in EVERYTHING if source.package in PACKAGES]
# Formats that run code when they are read.
CODE_ON_READING = {"cPickle", "cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve"}
# Where time comes in; everywhere else it is an argument.
CLOCKS = {"aggregator_service/clock.py"}
# Elapsed time for logs and waiting, which nothing is decided by.
STOPWATCHES = {"monotonic", "perf_counter", "process_time", "sleep"}


def imported_by(source: Source) -> Iterator[tuple[ast.stmt, str]]:
    for node in source.nodes():
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node, node.module


def calls_of(source: Source) -> Iterator[tuple[ast.Call, str]]:
    """Each call with its name as written: `datetime.now`."""
    for node in source.nodes():
        if isinstance(node, ast.Call):
            yield node, ast.unparse(node.func)


def classes_of(source: Source) -> Iterator[ast.ClassDef]:
    return (node for node in source.nodes() if isinstance(node, ast.ClassDef))


def test_there_is_something_to_check() -> None:
    assert {source.package for source in PRODUCT} == set(PACKAGES)


@pytest.mark.parametrize("source", PRODUCT, ids=lambda source: source.path)
def test_a_file_has_at_most_400_lines(source: Source) -> None:
    assert source.text.count("\n") <= 400


def test_a_module_begins_with_a_sentence() -> None:
    silent = [
        source.path
        for source in EVERYTHING
        if source.text.strip() and not first_paragraph(source).endswith((".", ":"))
    ]
    assert silent == []


def first_paragraph(source: Source) -> str:
    return (ast.get_docstring(source.tree) or "").split("\n\n")[0].rstrip()


def test_only_the_store_commits() -> None:
    commits = [
        source.place(call)
        for source in PRODUCT
        if not source.path.startswith("aggregator_service/store/")
        for call, name in calls_of(source)
        if name.endswith(".commit") and not call.args and not call.keywords
    ]
    assert commits == []


def test_nothing_is_read_that_could_run_code() -> None:
    found = [
        f"{source.place(node)} {name}"
        for source in EVERYTHING
        for node, name in imported_by(source)
        if name.split(".")[0] in CODE_ON_READING
    ]
    allowed = [
        source.place(call)
        for source in EVERYTHING
        for call, _ in calls_of(source)
        for keyword in call.keywords
        if keyword.arg == "allow_pickle" and ast.unparse(keyword.value) != "False"
    ]
    assert found == allowed == []


def test_the_time_is_read_at_the_edge_only() -> None:
    readers = {
        source.path
        for source in PRODUCT
        for _, name in calls_of(source)
        if name.endswith(("datetime.now", "datetime.utcnow", "datetime.today", "date.today"))
        or name == "time.time"
    }
    assert readers == CLOCKS


def test_every_metric_is_named_in_one_place() -> None:
    metrics = {"Counter", "Enum", "Gauge", "Histogram", "Info", "Summary"}
    namers = {
        source.path
        for source in PRODUCT
        for node in source.nodes()
        if isinstance(node, ast.ImportFrom) and node.module == "prometheus_client"
        if any(alias.name in metrics for alias in node.names)
    }
    assert namers == {"aggregator_service/telemetry.py"}


def test_rules_and_use_cases_know_no_clock_at_all() -> None:
    pure = ("aggregator_service/domain/", "aggregator_service/app/", "flasc_core/")
    found = [
        f"{source.place(node)} {name}"
        for source in PRODUCT
        if source.path.startswith(pure)
        for node, name in imported_by(source)
        if name == "time"
    ]
    assert found == []


def test_what_uses_the_time_module_decides_nothing_by_it() -> None:
    used = {
        name.removeprefix("time.")
        for source in PRODUCT
        for _, name in calls_of(source)
        if name.startswith("time.")
    }
    assert used <= STOPWATCHES


def test_an_enum_s_values_are_distinct() -> None:
    loose = [
        f"{source.place(node)} {node.name}"
        for source in PRODUCT
        for node in classes_of(source)
        if any(ast.unparse(base).endswith("Enum") for base in node.bases)
        and "unique" not in map(ast.unparse, node.decorator_list)
    ]
    assert loose == []


@pytest.mark.parametrize("states", [RoundState, TaskState])
def test_a_state_that_is_final_ends_in_ed(states: type[RoundState | TaskState]) -> None:
    assert all(state.name.endswith("ED") for state in states if state.is_final)
    assert all(state.value == state.name for state in states)


def test_an_assignment_is_the_only_state_that_runs() -> None:
    running = {state for state in AssignmentState if not state.name.endswith("ED")}
    assert running == {AssignmentState.TRAINING}


def test_values_and_use_cases_are_frozen_slotted_and_named() -> None:
    loose = [
        f"{source.place(node)} {node.name}"
        for source in PRODUCT
        if source.path.startswith(("aggregator_service/domain/", "aggregator_service/app/"))
        for node in classes_of(source)
        for decorator in map(ast.unparse, node.decorator_list)
        if decorator.startswith("dataclass")
        and decorator != "dataclass(frozen=True, slots=True, kw_only=True)"
    ]
    assert loose == []


def test_a_use_case_has_a_file_of_its_own() -> None:
    cases = [
        source.path
        for source in PRODUCT
        if source.path.startswith("aggregator_service/app/")
        for node in classes_of(source)
        for method in node.body
        if isinstance(method, ast.FunctionDef) and method.name == "__call__"
    ]
    assert cases
    assert sorted(set(cases)) == sorted(cases)


def test_a_module_says_what_is_public() -> None:
    unsaid = [
        source.path
        for source in PRODUCT
        if source.path.startswith(("aggregator_service/", "flasc_core/", "client_sdk/"))
        and any(isinstance(node, ast.ClassDef | ast.FunctionDef) for node in source.tree.body)
        and "__all__" not in source.text
    ]
    assert unsaid == []


def test_nothing_is_left_to_do() -> None:
    marks = [f"{mark}" for mark in ("TO" + "DO", "FIX" + "ME", "X" * 3)]
    found = [source.path for source in EVERYTHING if any(mark in source.text for mark in marks)]
    assert found == []


def test_tests_replace_nothing_with_mocks() -> None:
    found = [
        f"{source.place(node)} {name}"
        for source in EVERYTHING
        if source.package == "tests"
        for node, name in imported_by(source)
        if "mock" in name
    ]
    assert found == []


def test_tests_replace_nothing_of_our_own() -> None:
    found = [
        place
        for source in EVERYTHING
        if source.package == "tests"
        for place in replacements_in(source)
    ]
    assert found == []


@pytest.mark.parametrize(
    ("line", "is_found"),
    [
        ("patched.setattr(os, 'fsync', fail)", False),
        ("patched.setattr('os.fsync', fail)", False),
        ("patched.setattr(Store, 'read', fail)", True),
        ("patched.setattr(sdk.participant, 'sleep', fail)", True),
        ("patched.setattr('admin_api.lookup.find_task', fail)", True),
        ("patched.setattr(type(store), 'read', fail)", True),
        ("patched.delattr(store, 'read')", True),
        ("setattr(Store, 'read', fail)", True),
        ("setattr(message, 'dim', 4)", False),
        ("Store.read = fail", True),
        ("sdk.participant.sleep = fail", True),
        ("message.dim = 4", False),
    ],
)
def test_whatever_replaces_our_own_is_found(line: str, is_found: bool) -> None:
    imports = (
        "import os\nimport client_sdk as sdk\nfrom aggregator_service.store.base import Store\n"
    )
    source = Source(path="tests/x.py", text=line, tree=ast.parse(imports + line))
    assert bool(list(replacements_in(source))) is is_found
