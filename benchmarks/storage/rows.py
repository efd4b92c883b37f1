"""Rows as use makes them: conversations of some exchanges, every fourth answer a council of three."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from benchmarks.sharing.workloads import TRACE
from benchmarks.storage.words import Words
from server.clock import uuid7

COUNCIL_EVERY = 4
MEMBERS = ("A", "B", "C")
MODELS = ("llama-3.3-70b-instruct", "qwen3-32b", "gemma-3-27b-it")
EXCHANGES = (1, 24)
PAUSE_S = (20, 240)
MEMBER = {"label": "A", "model": MODELS[0], "engine": "vllm", "state": "done", "first_token_ms": 412, "total_ms": 9120}
SUMMARY = {
    "council": {"name": "council", "size": 3, "wanted": 3, "strategy": "council-k", "reason": "3 of 3: there is room"},
    "verdict": {"method": "chair", "agreement": 0.71, "winner": "A"},
}

COLUMNS = {
    "conversations": "id user_id title model leaf_id pinned_at created_at updated_at imported_from",
    "messages": "id conversation_id user_id parent_id role content thinking model state problem request_id council"
    " finish_reason input_tokens output_tokens first_token_ms total_ms created_at updated_at",
    "member_answers": "id message_id conversation_id user_id label model role content state output_tokens",
    "usage": "request_id user_id key_id surface model engine input_tokens output_tokens queue_ms first_token_ms"
    " total_ms pauses paused_ms council_id role outcome started_at",
    "council_runs": "id user_id name strategy kind wanted size reason binding steps members chair verdict_method"
    " agreement winner shadow outcome started_at total_ms feedback",
}


class Lengths:
    """How long questions and answers are, in tokens."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311
        rows = map(msgspec.json.decode, TRACE.read_bytes().splitlines())
        self._pairs = [(max(row["prompt_len"], 1), max(row["output_len"], 1)) for row in rows]

    def __next__(self) -> tuple[int, int]:
        return self._random.choice(self._pairs)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return self


@dataclass
class Batch:
    """Rows to be written, by table."""

    rows: dict[str, list[tuple[Any, ...]]] = field(default_factory=lambda: {name: [] for name in COLUMNS})

    @property
    def count(self) -> int:
        """Of messages."""
        return len(self.rows["messages"])

    async def write(self, connection: asyncpg.Connection) -> None:
        """Write them, as the tables' owner; row-level security must not be forced meanwhile."""
        for table, rows in self.rows.items():
            await connection.copy_records_to_table(table, records=rows, columns=COLUMNS[table].split(), timeout=600)
        self.rows = {name: [] for name in COLUMNS}


def converse(
    batch: Batch, who: UUID, began: datetime, exchanges: int, *, dice: random.Random, words: Words, lengths: Lengths
) -> datetime:
    """One conversation; returns when it ended."""
    chat, at, leaf = uuid7(began), began, None
    add = {name: rows.append for name, rows in batch.rows.items()}
    for number in range(exchanges):
        question_tokens, answer_tokens = next(lengths)
        at += timedelta(seconds=dice.uniform(*PAUSE_S))
        question, answer = uuid7(at), uuid7(at + timedelta(milliseconds=1))
        is_council = number % COUNCIL_EVERY == COUNCIL_EVERY - 1
        council = msgspec.json.encode(SUMMARY).decode() if is_council else None
        told = (*(None,) * 6, at, at)
        add["messages"](
            (question, chat, who, leaf, "user", words.text(question_tokens), "", "", "complete", None, None, *told)
        )
        numbers = (question_tokens, answer_tokens, 412, 9120)
        said = (words.text(answer_tokens), "", MODELS[0], "complete", None, answer, council, "stop")
        add["messages"]((answer, chat, who, question, "assistant", *said, *numbers, at, at + timedelta(seconds=9)))
        leaf = answer
        used = (question_tokens, answer_tokens, 12, 412, 9120, 0, 0)
        if not is_council:
            add["usage"]((answer, who, None, "chat.completions", MODELS[0], "vllm", *used, None, None, "completed", at))
            continue
        members = msgspec.json.encode([{**MEMBER, "label": label} for label in MEMBERS]).decode()
        set_up: tuple[Any, ...] = (
            "council",
            "council-k",
            "open",
            None,
            3,
            SUMMARY["council"]["reason"],
            "worth",
            [],
            members,
        )
        ended = (MODELS[0], "chair", 0.71, "A", None, "completed", at, 9120, None)
        add["council_runs"]((answer, who, *set_up, *ended))
        for index, label in enumerate((*MEMBERS, "chair")):
            one = uuid7(at + timedelta(milliseconds=2 + index))
            model, role = MODELS[index % len(MODELS)], "chair" if label == "chair" else "member"
            add["usage"]((one, who, None, "chat.completions", model, "vllm", *used, answer, role, "completed", at))
            if role == "member":
                text = words.text(answer_tokens)
                add["member_answers"]((one, answer, chat, who, label, model, role, text, "done", answer_tokens))
    title = words.text(10)
    add["conversations"]((chat, who, title, MODELS[0], leaf, None, began, at, None))
    return at
