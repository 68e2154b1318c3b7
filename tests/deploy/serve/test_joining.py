"""Head and body of an answer go out together."""

import asyncio

from cnn_trainer.deploy.serve.limits import _Joining


class Transport:
    """Remembers what it is told."""

    def __init__(self):
        self.calls = []

    def write(self, data):
        self.calls.append(data)

    def close(self):
        self.calls.append("close")

    def is_closing(self):
        return self.calls[-1:] == ["close"]


def test_what_is_written_in_one_turn_of_the_loop_goes_out_at_once_and_in_order():
    transport = Transport()

    async def talk():
        joining = _Joining(transport, asyncio.get_running_loop())
        joining.write(b"head ")
        joining.write(b"body")
        assert transport.calls == []
        await asyncio.sleep(0)
        assert transport.calls == [b"head body"]
        joining.write(b"next")
        await asyncio.sleep(0)
        assert transport.calls == [b"head body", b"next"]

    asyncio.run(talk())


def test_nothing_is_lost_at_the_close():
    transport = Transport()

    async def talk():
        joining = _Joining(transport, asyncio.get_running_loop())
        joining.write(b"last")
        joining.close()
        assert joining.is_closing()
        await asyncio.sleep(0)

    asyncio.run(talk())
    assert transport.calls == [b"last", "close"]
