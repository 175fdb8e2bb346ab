"""The operator's page in a real browser, against a real server on a real database."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Final

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from aggregator_service.app.abort_round import AbortRound
from aggregator_service.app.revoke_api_key import RevokeApiKey
from aggregator_service.clock import utc_now
from aggregator_service.domain.credentials import SecretKind, claimed_id
from aggregator_service.domain.events import Event
from aggregator_service.domain.rounds import RoundState
from aggregator_service.store.base import Store
from aggregator_service.store.memory import MemoryBlobs
from tests.builders import (
    a_device,
    a_reservation,
    a_round,
    an_assignment,
    some_counts,
    stored,
)
from tests.support.history import History, a_history
from tests.support.operator import create_key, live_admin
from tests.support.patience import PATIENCE_SECONDS

CHROMIUM: Final = Path(os.environ.get("FLASC_TEST_CHROMIUM", "/usr/bin/chromium"))
ARGUMENTS: Final = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"needs Chromium at {CHROMIUM}"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=1_000 * PATIENCE_SECONDS)
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(
            executable_path=CHROMIUM, args=ARGUMENTS, timeout=1_000 * PATIENCE_SECONDS
        )
        yield launched
        launched.close()


@pytest.fixture
def history(sqlite_store: Store) -> History:
    return a_history(sqlite_store, MemoryBlobs(), start=utc_now() - timedelta(hours=1))


@pytest.fixture
def address(sqlite_store: Store, history: History) -> Iterator[str]:
    with live_admin(sqlite_store, MemoryBlobs()) as address:
        yield address


@pytest.fixture
def key(sqlite_store: Store) -> str:
    return create_key(sqlite_store, utc_now())


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """The page before a key is given; what it wants from elsewhere or logs fails the test."""
    context = browser.new_context()
    opened = context.new_page()
    opened.set_default_timeout(1_000 * PATIENCE_SECONDS)
    asked: list[str] = []
    problems: list[str] = []
    opened.on("request", lambda request: asked.append(request.url))
    opened.on("pageerror", lambda error: problems.append(str(error)))
    opened.goto(address)
    yield opened
    context.close()
    assert [url for url in asked if not url.startswith(address)] == []
    assert problems == []


@pytest.fixture
def entered(page: Page, key: str) -> Page:
    page.get_by_label("Key").fill(key)
    page.get_by_role("button", name="Open").click()
    expect(page.locator("#live")).to_have_text("live")
    expect(page.locator("#rounds tr")).to_have_count(5)
    return page


def test_the_page_shows_tasks_rounds_curves_bytes_and_refusals(entered: Page) -> None:
    task = entered.locator("#tasks tr").filter(has_text="debian-sections")
    expect(task).to_contain_text("RUNNING")
    expect(task).to_contain_text("3 / 2")

    newest, *_, oldest = entered.locator("#rounds tr").all()
    expect(newest).to_contain_text("COLLECTING")
    expect(oldest).to_contain_text("PUBLISHED")
    expect(oldest).to_contain_text("20.0 %")
    expect(entered.locator("#rounds tr").nth(2)).to_contain_text("ABORTED OPERATOR")

    tiles = entered.locator("#tiles")
    expect(tiles).to_contain_text("32.0 %")
    expect(tiles).to_contain_text("+12.0 points since v0")
    # Five rounds of 580 bytes, where dense ones take eleven times 96.
    expect(tiles).to_contain_text("2.9 kB")
    expect(tiles).to_contain_text("instead of 5.3 kB dense")
    expect(tiles).to_contain_text("1.8\u00d7")
    expect(tiles).to_contain_text("dense float32; 0.9\u00d7 bfloat16")
    # Of each round's eight downloads of 50 bytes three were trained from.
    expect(tiles).to_contain_text("1.3 kB")
    expect(oldest).to_contain_text("250 B")

    for chart, points in (("accuracy", 4), ("loss", 4)):
        expect(entered.locator(f"#{chart} circle")).to_have_count(points)
    expect(entered.locator("#bytes rect.front")).to_have_count(5)
    expect(entered.locator("#refusals li")).to_have_text(["NON_FINITE1"])
    expect(entered.locator("#devices")).to_contain_text("4 devices")


def test_totals_are_of_all_rounds_however_few_are_listed(page: Page, key: str) -> None:
    page.route(
        "**/rounds?limit=200",
        lambda route: route.continue_(url=route.request.url.replace("limit=200", "limit=2")),
    )
    page.get_by_label("Key").fill(key)
    page.get_by_role("button", name="Open").click()
    expect(page.locator("#rounds tr")).to_have_count(2, timeout=60_000)

    expect(page.locator("#rounds-note")).to_have_text("the last 2")
    tiles = page.locator("#tiles")
    expect(tiles).to_contain_text("5 rounds")
    expect(tiles).to_contain_text("instead of 5.3 kB dense")
    expect(tiles).to_contain_text("Updates15")
    # The one refusal was in the second round.
    expect(tiles).to_contain_text("1 requests refused")
    expect(page.locator("#refusals li")).to_have_text(["NON_FINITE1"])


def test_a_private_task_shows_what_it_has_reserved(
    page: Page, key: str, history: History, sqlite_store: Store
) -> None:
    stored(sqlite_store, a_reservation(history.rounds[-1], epsilon=2.5, is_last=True))
    page.get_by_label("Key").fill(key)
    page.get_by_role("button", name="Open").click()
    tiles = page.locator("#tiles")
    expect(tiles).to_contain_text("\u03b5 2.500")
    expect(tiles).to_contain_text("once round 5 is published, the last")


def test_a_task_with_tiers_shows_what_each_adds_up_to(
    page: Page, key: str, history: History, sqlite_store: Store
) -> None:
    last, device = history.rounds[-1], a_device()
    part = an_assignment(last, device, tier="phone", evaluation=some_counts(correct=1, total=8))
    stored(sqlite_store, device, part)
    page.get_by_label("Key").fill(key)
    page.get_by_role("button", name="Open").click()

    rows = page.locator("#tiers tr")
    expect(rows).to_have_count(2)
    # Five rounds of four devices, the last of which started from version 3.
    expect(rows.first).to_contain_text("(none)201532.0 %32.0 kB900 B1.3 kB")
    expect(rows.last).to_contain_text("phone1012.5 %3")


def test_a_task_without_tiers_has_no_table_of_them(entered: Page) -> None:
    expect(entered.get_by_role("heading", name="Tiers")).to_be_hidden()


def test_a_round_that_changes_shows_without_a_reload(
    entered: Page, history: History, sqlite_store: Store
) -> None:
    last = history.rounds[-1]
    AbortRound(store=sqlite_store, now=utc_now)(last.id)

    expect(entered.locator("#rounds tr").first).to_contain_text("ABORTED OPERATOR")

    opened = a_round(history.task, state=RoundState.COLLECTING, number=6, base_version=3)
    stored(sqlite_store, replace(opened, opened_at=utc_now()))
    event = Event(
        task_id=history.task.id, round_id=opened.id, state=opened.state.value, at=utc_now()
    )
    stored(sqlite_store, event)

    expect(entered.locator("#rounds tr")).to_have_count(6)
    expect(entered.locator("#rounds tr").first).to_contain_text("COLLECTING")


def test_another_task_is_shown_when_it_is_chosen(
    entered: Page, sqlite_store: Store, history: History
) -> None:
    other = a_history(
        sqlite_store, MemoryBlobs(), name="other", rounds=2, start=utc_now() - timedelta(days=1)
    )
    stored(
        sqlite_store,
        Event(task_id=other.task.id, round_id=None, state=other.task.state, at=utc_now()),
    )

    entered.get_by_role("link", name="other").click()

    expect(entered.locator("#task-title")).to_contain_text("other")
    expect(entered.locator("#rounds tr")).to_have_count(2)
    entered.get_by_role("link", name=history.task.name).click()
    expect(entered.locator("#rounds tr")).to_have_count(5)


def test_a_key_is_kept_for_the_tab_and_forgotten_on_request(entered: Page) -> None:
    entered.reload()
    expect(entered.locator("#rounds tr")).to_have_count(5)

    entered.get_by_role("button", name="Forget key").click()
    expect(entered.get_by_label("Key")).to_be_focused()
    expect(entered.locator("#board")).to_be_hidden()
    entered.reload()

    expect(entered.get_by_label("Key")).to_be_visible()
    assert entered.evaluate("sessionStorage.length + localStorage.length") == 0


def test_a_wrong_key_is_told_so(page: Page) -> None:
    page.get_by_label("Key").fill("flk_" + "0" * 32 + "_" + "A" * 43)
    page.get_by_role("button", name="Open").click()

    expect(page.locator("#key-problem")).to_contain_text("not valid")
    expect(page.locator("#board")).to_be_hidden()


def test_a_revoked_key_is_asked_for_again(entered: Page, key: str, sqlite_store: Store) -> None:
    RevokeApiKey(store=sqlite_store, now=utc_now)(claimed_id(SecretKind.API_KEY, key))

    expect(entered.get_by_label("Key")).to_be_visible()
    expect(entered.locator("#tasks tr")).to_have_count(1)
    expect(entered.locator("#board")).to_be_hidden()


def test_names_are_shown_as_text_and_never_as_markup(
    entered: Page, sqlite_store: Store, history: History
) -> None:
    config = replace(
        history.task.config,
        base_model=replace(history.task.config.base_model, name="<img src=x onerror=alert(1)>"),
    )
    hostile = a_history(
        sqlite_store, MemoryBlobs(), name="hostile", rounds=1, config=config, start=utc_now()
    )
    stored(
        sqlite_store,
        Event(task_id=hostile.task.id, round_id=None, state=hostile.task.state, at=utc_now()),
    )

    expect(entered.locator("#tasks")).to_contain_text("<img src=x")
    assert entered.locator("#tasks img").count() == 0
