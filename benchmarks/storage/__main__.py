"""`python -m benchmarks.storage`: a year, and the pace."""

import argparse
import asyncio
import logging

import structlog

from benchmarks.storage.pace import pace
from benchmarks.storage.year import DAYS, year
from server import VERSION


async def main(options: argparse.Namespace) -> None:
    """Both, or one of them."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    print(f"wirthforge {VERSION}: seed {options.seed}", flush=True)
    if options.days:
        await year(options.days, options.seed)
    if options.messages:
        await pace(options.messages, options.asked, options.seed)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=int, default=DAYS, help="of the year; 0: none")
    parser.add_argument("--messages", type=int, nargs="*", default=[1_000, 100_000, 1_000_000], help="none: no pace")
    parser.add_argument("--asked", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    asyncio.run(main(parser.parse_args()))
