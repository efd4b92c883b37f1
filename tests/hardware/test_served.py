"""The routes as the server serves them."""

from server.clock import SystemClock
from tests.boxes import Box


async def test_the_box_tells_of_itself(box: Box) -> None:
    """This machine's own devices, to whoever is logged in, and to nobody else."""
    ben = await box.person("ben")
    async with box.http() as client:
        assert (await client.get("/api/hardware")).status_code == 401
        answer = await client.get("/api/hardware", headers=ben.bearer)
        while answer.status_code == 503:  # not looked at yet
            await SystemClock().sleep_ms(20)
            answer = await client.get("/api/hardware", headers=ben.bearer)
        assert answer.status_code == 200
        shown = answer.json()
        assert [device["kind"] for device in shown["devices"]].count("cpu") == 1
        assert shown["tier"]["why"].endswith(".")
        assert (await client.get("/api/hardware/history", headers=ben.bearer)).json() == {"minutes": 60, "points": []}
        assert (await client.get("/api/hardware/history?minutes=0", headers=ben.bearer)).status_code == 400
