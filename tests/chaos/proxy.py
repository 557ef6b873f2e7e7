"""TCP proxies that can be told to fail. All run in one thread."""

import asyncio
import threading


class Proxy:
    """One listening port in front of one address.

    Modes: `pass`; `cut`: open connections are reset, new ones too; `stall`: accepts and forwards nothing, what arrived is
    forwarded afterwards; `delay`: each piece waits some milliseconds; `deaf`: requests go through, their answers are lost, and
    the connections that lost one are reset afterwards.
    """

    def __init__(self, name, port, upstream):
        self.name, self.port, self.upstream = name, port, upstream
        self.mode, self.delay_s = "pass", 0.0
        self.changed = asyncio.Event()
        self.open = set()
        self.torn = set()

    async def listen(self):
        self.server = await asyncio.start_server(self.accept, "127.0.0.1", self.port)

    def set(self, mode, delay_s):
        self.mode, self.delay_s = mode, delay_s
        for writer in list(self.open if mode == "cut" else self.torn):
            writer.transport.abort()
        self.torn.clear()
        # Whoever waits in `gate` looks again; later ones wait for the next change.
        self.changed.set()
        self.changed = asyncio.Event()

    async def gate(self):
        """Waits until something may be forwarded."""
        while self.mode == "stall":
            await self.changed.wait()
        if self.mode == "delay":
            await asyncio.sleep(self.delay_s)

    async def accept(self, reader, writer):
        if self.mode == "cut":
            writer.transport.abort()
            return
        self.open.add(writer)
        ends = {writer}
        try:
            await self.gate()
            there, back = await asyncio.open_connection(*self.upstream)
            ends.add(back)
            self.open.add(back)
            await asyncio.gather(self.pump(reader, back, ends, False), self.pump(there, writer, ends, True))
        except OSError:
            pass
        finally:
            # An upstream that is gone is gone for the client too.
            for end in ends:
                end.transport.abort()
            self.open -= ends
            self.torn -= ends

    async def pump(self, reader, writer, ends, is_answer):
        while data := await reader.read(1 << 16):
            await self.gate()
            if is_answer and self.mode == "deaf":
                self.torn |= ends
            elif not ends & self.torn:
                writer.write(data)
                await writer.drain()
        if writer.can_write_eof() and not ends & self.torn:
            writer.write_eof()


class Proxies:
    """All proxies by name; to be called from any thread."""

    def __init__(self):
        self.by_name = {}
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, name="proxies", daemon=True).start()

    def add(self, name, port, upstream):
        """Returns the address to connect to."""

        async def make():
            proxy = self.by_name[name] = Proxy(name, port, upstream)
            await proxy.listen()

        asyncio.run_coroutine_threadsafe(make(), self.loop).result(10)
        return f"127.0.0.1:{port}"

    def set(self, names, mode, delay_s=0.0):
        async def change():
            for name in names:
                self.by_name[name].set(mode, delay_s)

        asyncio.run_coroutine_threadsafe(change(), self.loop).result(10)

    def named(self, prefix):
        return sorted(name for name in self.by_name if name.startswith(prefix))
