"""A kernel of a served Jupyter, as a browser uses it."""

from __future__ import annotations

import asyncio
import json
import uuid

from tornado.httpclient import HTTPRequest

from angelos.adapters.net.dial import dial, hang_up


class KernelClient:
    """One WebSocket to one kernel."""

    def __init__(self, served, token, kernel) -> None:
        self.served, self.token, self.id = served, token, kernel
        self.session = uuid.uuid4().hex

    @classmethod
    async def start(cls, served, token="t-owner", **body):
        answer = await served.ask("/api/kernels", token, "POST", json=body)
        assert answer.code == 201, answer.body
        client = cls(served, token, json.loads(answer.body)["id"])
        await client.connect()
        return client

    async def connect(self) -> None:
        url = self.served.url.replace("http", "ws", 1)
        self.socket = await dial(
            HTTPRequest(
                f"{url}/api/kernels/{self.id}/channels?session_id={self.session}",
                headers={"Authorization": f"token {self.token}"},
            )
        )

    def send(self, kind, content, channel="shell") -> str:
        number = uuid.uuid4().hex
        header = {
            "msg_id": number, "msg_type": kind, "username": "", "session": self.session,
            "version": "5.3", "date": "",
        }  # fmt: skip
        message = {
            "header": header, "parent_header": {}, "metadata": {}, "content": content,
            "channel": channel, "buffers": [],
        }  # fmt: skip
        self.socket.write_message(json.dumps(message))
        return number

    async def messages(self, seconds=30):
        """Yield what comes, decoded."""
        async with asyncio.timeout(seconds):
            while (message := await self.socket.read_message()) is not None:
                yield json.loads(message)

    def execute(self, code, *, stdin=False) -> str:
        content = {
            "code": code, "silent": False, "store_history": False, "user_expressions": {},
            "allow_stdin": stdin,
        }  # fmt: skip
        return self.send("execute_request", content)

    async def output(self, number, answer=None) -> str:
        """Return what a cell prints, its error included."""
        out = ""
        async for message in self.messages():
            if message["parent_header"].get("msg_id") != number:
                continue
            kind, content = message["msg_type"], message["content"]
            if kind == "input_request":
                self.send("input_reply", {"value": answer}, "stdin")
            elif kind == "stream":
                out += content["text"]
            elif kind == "error":
                out += f"{content['ename']}: {content['evalue']}"
            elif kind == "status" and content["execution_state"] == "idle":
                return out
        raise AssertionError("the socket was closed")

    async def run(self, code, answer=None) -> str:
        return await self.output(self.execute(code, stdin=answer is not None), answer)

    def leave(self) -> None:
        hang_up(self.socket)

    async def end(self) -> None:
        self.leave()
        await self.served.ask(f"/api/kernels/{self.id}", self.token, "DELETE")
