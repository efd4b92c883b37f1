"""What the server tells about itself: log lines and metrics. Never prompt text, never a secret.

Log lines carry the request id through structlog's context variables. Metric names follow Prometheus' conventions,
units in the name, and labels come from bounded sets (routes, engines, outcomes).
"""

import logging
import sys

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from server.settings import Settings

REGISTRY = CollectorRegistry()

SECONDS = (0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300)

HTTP_REQUESTS = Counter(
    "wirthforge_http_requests_total", "Requests answered.", ("method", "route", "status"), registry=REGISTRY
)
MODEL_REQUESTS = Counter(
    "wirthforge_model_requests_total", "Requests that held a lease.", ("engine", "outcome"), registry=REGISTRY
)
TOKENS = Counter("wirthforge_tokens_total", "Tokens counted.", ("engine", "direction"), registry=REGISTRY)
FIRST_TOKEN_SECONDS = Histogram(
    "wirthforge_first_token_seconds",
    "From arrival to the first token.",
    ("engine",),
    buckets=SECONDS,
    registry=REGISTRY,
)
GATE_QUEUE_SECONDS = Histogram(
    "wirthforge_queue_seconds", "Time spent waiting for a slot.", ("engine",), buckets=SECONDS, registry=REGISTRY
)
REFUSALS = Counter(
    "wirthforge_refusals_total", "Requests that were not let into the queue.", ("engine", "reason"), registry=REGISTRY
)
LEASES_REAPED = Counter(
    "wirthforge_leases_reaped_total", "Leases taken back from replicas that were gone.", registry=REGISTRY
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
