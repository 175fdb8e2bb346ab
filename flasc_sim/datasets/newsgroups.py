"""20 Newsgroups by date, through scikit-learn's loader; an author's posts belong to one owner."""

from __future__ import annotations

import numpy as np

from flasc_sim.datasets.examples import LabelledTexts
from flasc_sim.datasets.owners import number_owners

__all__ = ["author_of", "fetch_newsgroups"]


def fetch_newsgroups() -> LabelledTexts:
    """Fetch the corpus, or read scikit-learn's own copy of it; OSError without a network."""
    from sklearn.datasets import fetch_20newsgroups

    train, test = fetch_20newsgroups(subset="train"), fetch_20newsgroups(subset="test")
    texts = [*train.data, *test.data]
    return LabelledTexts(
        name="20newsgroups",
        label_names=tuple(train.target_names),
        texts=texts,
        labels=np.concatenate([train.target, test.target]).astype(np.int64),
        owners=number_owners([author_of(text) for text in texts], rows=len(texts)),
        held_out=np.arange(len(texts)) >= len(train.data),
    )


def author_of(post: str) -> str | None:
    """What follows `From:` in the head of a post."""
    for line in post.splitlines():
        if not line.strip():
            return None
        if line.lower().startswith("from:"):
            return line[5:].strip().lower()
    return None
