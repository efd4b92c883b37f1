"""The connection to Redis."""

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

REDIS_CONNECTIONS_MAX = 32
REDIS_CONNECT_S_MAX = 2
# More than the longest blocking read (gate.LISTEN_MS).
REDIS_ANSWER_S_MAX = 5


def connect_redis(url: str) -> Redis:
    """A client whose calls wait for a free connection instead of opening more and more.

    It does not retry: what a lost reply means is known to the gate and to the usage writer.
    """
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=REDIS_CONNECTIONS_MAX,
        timeout=REDIS_ANSWER_S_MAX,
        decode_responses=True,
        socket_connect_timeout=REDIS_CONNECT_S_MAX,
        socket_timeout=REDIS_ANSWER_S_MAX,
        retry=Retry(NoBackoff(), 0),
    )
    return Redis.from_pool(pool)
