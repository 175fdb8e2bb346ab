"""Task configurations, round policies and tiers' files as the JSON text of a column."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache

from aggregator_service.domain.rounds import DownloadFile, RoundPolicy
from aggregator_service.domain.task_json import (
    Json,
    config_from_json,
    config_to_json,
    policy_from_json,
    policy_to_json,
)
from aggregator_service.domain.tasks import TaskConfig
from flasc_core.layout import Role

__all__ = [
    "config_from_text",
    "config_to_text",
    "downloads_from_text",
    "downloads_to_text",
    "policy_from_text",
    "policy_to_text",
    "roles_from_text",
    "roles_to_text",
]


def config_to_text(config: TaskConfig) -> str:
    return _dump(config_to_json(config))


# Layouts are long and every request reads its task, so what was decoded is kept.
@lru_cache(maxsize=64)
def config_from_text(text: str) -> TaskConfig:
    return config_from_json(json.loads(text))


def policy_to_text(policy: RoundPolicy) -> str:
    return _dump(policy_to_json(policy))


@lru_cache(maxsize=64)
def policy_from_text(text: str) -> RoundPolicy:
    return policy_from_json(json.loads(text))


def downloads_to_text(downloads: Mapping[str, DownloadFile]) -> str:
    return _dump(
        {
            tier: {
                "key": file.key,
                "sha256": file.sha256.hex(),
                "size_bytes": file.size_bytes,
                "nnz": file.nnz,
            }
            for tier, file in downloads.items()
        }
    )


def downloads_from_text(text: str) -> dict[str, DownloadFile]:
    return {
        tier: DownloadFile(**(fields | {"sha256": bytes.fromhex(fields["sha256"])}))
        for tier, fields in json.loads(text).items()
    }


def roles_to_text(downloads: Mapping[str, DownloadFile]) -> str:
    return _dump(
        {
            tier: {role.value: count for role, count in file.values_by_role.items()}
            for tier, file in downloads.items()
        }
    )


def roles_from_text(text: str) -> dict[str, dict[Role, int]]:
    return {
        tier: {Role(role): count for role, count in counts.items()}
        for tier, counts in json.loads(text).items()
    }


def _dump(data: Json) -> str:
    return json.dumps(data, allow_nan=False, separators=(",", ":"))
