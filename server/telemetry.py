"""What the server tells about itself: log lines and metrics. Never prompt text, never a secret.

Log lines carry the request id through structlog's context variables. Metric names follow Prometheus' conventions: base
units in the name, `_total` for what only grows, `_info` for what is always 1. Labels come from bounded sets: routes,
engines, providers and strategies (admins and plugins name them), outcomes. Never a person, a key, a path, an address or
the text of a model that somebody asked for. All of them are in docs/metrics.md.

Most are fed where the thing happens, once for each request; nothing is counted for each token. What can only be known
by looking is looked at by those who look anyway: the gate once a second (sharing/told.py), the monitor of devices
(hardware/gauges.py), and whoever scrapes (api/metrics.py).
"""

import logging
import platform
import shutil
import sys
import threading
from contextlib import suppress
from pathlib import Path

import structlog
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)

from server import VERSION
from server.settings import Settings

# A second series for each, which only says since when it is counted.
disable_created_metrics()  # type: ignore[no-untyped-call]

REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)

SECONDS = (0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600)

BUILD = Gauge(
    "wirthforge_build_info",
    "The version that runs, and the Python below it; always 1.",
    ("version", "python"),
    registry=REGISTRY,
)
BUILD.labels(VERSION, platform.python_version()).set(1)

HTTP_REQUESTS = Counter(
    "wirthforge_http_requests_total",
    "HTTP requests answered, by the template of their path.",
    ("method", "route", "status"),
    registry=REGISTRY,
)
HTTP_SECONDS = Histogram(
    "wirthforge_http_request_duration_seconds",
    "From the first byte of a request to the last of its answer; a stream counts with all its length.",
    ("route",),
    buckets=(0.01, 0.05, 0.2, 1, 5, 30, 120),
    registry=REGISTRY,
)
HTTP_OPEN = Gauge("wirthforge_http_requests_open", "HTTP requests under way, streams included.", registry=REGISTRY)

MODEL_REQUESTS = Counter(
    "wirthforge_model_requests_total",
    "Requests to a model that had a slot, by how they ended.",
    ("engine", "outcome"),
    registry=REGISTRY,
)
REQUESTS_RUNNING = Gauge(
    "wirthforge_requests_running", "Requests of this server that hold a slot.", ("engine",), registry=REGISTRY
)
REQUESTS_WAITING = Gauge(
    "wirthforge_requests_waiting", "Requests of this server in the queue.", ("engine",), registry=REGISTRY
)
REQUESTS_PAUSED = Gauge(
    "wirthforge_requests_paused",
    "Answers of this server that gave up their slot and wait for another.",
    ("engine",),
    registry=REGISTRY,
)
QUEUE_OLDEST_SECONDS = Gauge(
    "wirthforge_queue_oldest_seconds",
    "How long the oldest request in the queue of this server has waited.",
    ("engine",),
    registry=REGISTRY,
)
ENGINE_SLOTS = Gauge(
    "wirthforge_engine_slots",
    "Requests that an engine may run at a time, of all servers together.",
    ("engine",),
    registry=REGISTRY,
)
TOKENS = Counter(
    "wirthforge_tokens_total", "Tokens read (input) and written (output).", ("engine", "direction"), registry=REGISTRY
)
CACHED_TOKENS = Counter(
    "wirthforge_cached_tokens_total",
    "Input tokens that the engine still had in its cache.",
    ("engine",),
    registry=REGISTRY,
)
FIRST_TOKEN_SECONDS = Histogram(
    "wirthforge_first_token_seconds",
    "From arrival to the first token, the wait included.",
    ("engine",),
    buckets=SECONDS,
    registry=REGISTRY,
)
OUTPUT_TOKEN_SECONDS = Histogram(
    "wirthforge_output_token_seconds",
    "Mean time between the tokens of one answer, pauses left out.",
    ("engine",),
    buckets=(0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1, 5),
    registry=REGISTRY,
)
GATE_QUEUE_SECONDS = Histogram(
    "wirthforge_queue_seconds",
    "Time that requests which got a slot had waited for it.",
    ("engine",),
    buckets=SECONDS,
    registry=REGISTRY,
)
REFUSALS = Counter(
    "wirthforge_refusals_total",
    "Requests that got no slot: limited (budget), crowded (their person's own queue), full (the queue), timeout, away.",
    ("engine", "reason"),
    registry=REGISTRY,
)
PAUSES = Counter(
    "wirthforge_pauses_total",
    "Answers interrupted in the middle: paused (somebody lighter waits), moved (their engine ends).",
    ("engine", "reason"),
    registry=REGISTRY,
)
PAUSED_SECONDS = Histogram(
    "wirthforge_paused_seconds",
    "How long answers that were interrupted stood still in all.",
    ("engine",),
    buckets=SECONDS,
    registry=REGISTRY,
)
LEASES_REAPED = Counter(
    "wirthforge_leases_reaped_total", "Leases taken back from servers that were gone.", registry=REGISTRY
)

MODEL_LOAD_SECONDS = Histogram(
    "wirthforge_model_load_seconds", "Time that loading a model took.", ("engine",), buckets=SECONDS, registry=REGISTRY
)
MODEL_PRELOADS = Counter(
    "wirthforge_model_preloads_total",
    "Models loaded before anybody asked: loaded, broken_off (somebody wanted something else), failed; used afterwards.",
    ("engine", "outcome"),
    registry=REGISTRY,
)
MODEL_MEMORY_RATIO = Histogram(
    "wirthforge_model_memory_ratio",
    "What a load really took of its devices, by what was estimated.",
    ("engine",),
    buckets=(0.25, 0.5, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.5, 2.0, 4.0),
    registry=REGISTRY,
)
ENGINE_UP = Gauge(
    "wirthforge_engine_up", "Whether the engine answered when last asked.", ("engine",), registry=REGISTRY
)

COUNCILS = Counter("wirthforge_councils_total", "Councils that have ended.", ("strategy", "outcome"), registry=REGISTRY)
COUNCIL_SIZE = Histogram(
    "wirthforge_council_size",
    "Members that sat in a council.",
    ("strategy",),
    buckets=(1, 2, 3, 4, 5, 6, 8),
    registry=REGISTRY,
)
COUNCIL_MEMBERS = Counter(
    "wirthforge_council_members_total",
    "Members of councils that have ended, by how they did: done, failed, revoked, late, dropped.",
    ("role", "state"),
    registry=REGISTRY,
)

CLOUD_SENDS = Counter(
    "wirthforge_cloud_sends_total",
    "Requests that left this box for a cloud: entries in the ledger of what left.",
    ("provider",),
    registry=REGISTRY,
)
CLOUD_SENT_BYTES = Counter(
    "wirthforge_cloud_sent_bytes_total", "Bytes of these requests.", ("provider",), registry=REGISTRY
)
CLOUD_ENDS = Counter(
    "wirthforge_cloud_ends_total", "Requests to a cloud that have ended.", ("outcome",), registry=REGISTRY
)
CLOUD_SPENT_MICROS = Counter(
    "wirthforge_cloud_spent_micros_total",
    "What these cost, in millionths of the currency that prices are in.",
    registry=REGISTRY,
)

USAGE_ROWS = Counter("wirthforge_usage_rows_total", "Rows of usage written to Postgres.", registry=REGISTRY)
USAGE_SET_ASIDE = Counter(
    "wirthforge_usage_set_aside_total", "Usage of which no row could be made; people have to look.", registry=REGISTRY
)

POSTGRES_UP = Gauge(
    "wirthforge_postgres_up", "Whether Postgres answered when this page was asked for.", registry=REGISTRY
)
POSTGRES_CONNECTIONS = Gauge(
    "wirthforge_postgres_connections_used", "Connections to Postgres at work.", registry=REGISTRY
)
REDIS_UP = Gauge("wirthforge_redis_up", "Whether Redis answered when last asked.", registry=REGISTRY)
LOOP_LAG_SECONDS = Histogram(
    "wirthforge_event_loop_lag_seconds",
    "How much later than asked for the server's loop woke up, once a second.",
    buckets=(0.001, 0.005, 0.02, 0.1, 0.5, 2, 10),
    registry=REGISTRY,
)
DISK_BYTES = Gauge(
    "wirthforge_disk_size_bytes", "Size of the disk that a folder is on.", ("folder",), registry=REGISTRY
)
DISK_FREE_BYTES = Gauge(
    "wirthforge_disk_free_bytes", "Bytes that this server may still write there.", ("folder",), registry=REGISTRY
)


class Disks:
    """Watches the disks that some folders are on. A network disk may hang, so whoever asks has a thread for it."""

    def __init__(self) -> None:
        self._folders: dict[str, Path] = {}
        self._is_asked = threading.Lock()

    def watch(self, name: str, folder: Path) -> None:
        """From now on; the folder need not be there yet."""
        self._folders[name] = folder

    def look(self) -> None:
        """Ask the system; blocks. Does nothing while another still waits for an answer."""
        if not self._is_asked.acquire(blocking=False):
            return
        try:
            for name, folder in list(self._folders.items()):
                with suppress(OSError):
                    there = next((one for one in (folder, *folder.parents) if one.exists()), folder)
                    usage = shutil.disk_usage(there)
                    DISK_BYTES.labels(name).set(usage.total)
                    DISK_FREE_BYTES.labels(name).set(usage.free)
        finally:
            self._is_asked.release()


DISKS = Disks()


def configure_logging(settings: Settings) -> None:
    """Set up structlog and the standard library's loggers: JSON for machines, aligned text on a terminal."""
    use_json = settings.log_format == "json" or (settings.log_format == "auto" and not sys.stderr.isatty())
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    tail: list[structlog.typing.Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
        if use_json
        # Plain: the prettier tracebacks show local variables, and those hold prompts and passwords.
        else [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
    )
    structlog.configure(
        processors=[*shared, *tail],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *tail],
        )
    )
    logging.basicConfig(handlers=[handler], level=max(level, logging.WARNING), force=True)
