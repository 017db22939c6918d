"""A kernel in its box speaks Jupyter's protocol to the letter: Jupyter's own tests of kernels."""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import Any, ClassVar

import jupyter_kernel_test
import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_kernel_test.msgspec_v5 import validate_message

RESEARCHER, PATIENCE_S = "t-researcher", 60


class TestBoxedKernel(jupyter_kernel_test.KernelTests):
    """The tests that the kernels of all languages are held against, on one boxed kernel."""

    language_name = "python"
    file_extension = ".py"
    code_hello_world = "print('hello, world')"
    code_stderr = "import sys; print('test', file=sys.stderr)"
    completion_samples: ClassVar = [{"text": "zi", "matches": {"zip"}}]
    complete_code_samples: ClassVar = ["1", "print('hello, world')", "def f(x):\n  return x*2\n\n"]
    incomplete_code_samples: ClassVar = ["print('''hello", "def f(x):\n  x*2"]
    invalid_code_samples: ClassVar = ["import = 7q"]
    code_page_something = "zip?"
    code_generate_error = "raise"
    code_execute_result: ClassVar = [
        {"code": "1+2+3", "result": "6"},
        {"code": "[n*n for n in range(1, 4)]", "result": "[1, 4, 9]"},
    ]
    code_display_data: ClassVar = [
        {
            "code": "from IPython.display import HTML, display; display(HTML('<b>test</b>'))",
            "mime": "text/html",
        },
        {
            "code": "from IPython.display import Math, display; display(Math('\\\\frac{1}{2}'))",
            "mime": "text/latex",
        },
    ]
    code_inspect_sample = "zip"
    code_clear_output = "from IPython.display import clear_output; clear_output()"

    @classmethod
    def setUpClass(cls) -> None:
        """Start nothing: the kernel is that of the server."""

    @classmethod
    def tearDownClass(cls) -> None:
        """End nothing."""

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _kernel(cls, served):
        answer = asyncio.run(
            served.ask("/api/kernels", RESEARCHER, "POST", json={"path": "study/book.ipynb"})
        )
        kernel = json.loads(answer.body)["id"]
        (file,) = (served.folder / "home").rglob(f"kernel-{kernel}.json")
        cls.kc = BlockingKernelClient()
        cls.kc.load_connection_file(str(file))
        cls.kc.start_channels()
        cls.kc.wait_for_ready(timeout=60)
        yield
        cls.kc.stop_channels()
        answer = asyncio.run(served.ask(f"/api/kernels/{kernel}", RESEARCHER, "DELETE"))
        assert answer.code == 204, answer.body

    def flush_channels(self) -> None:
        """Do nothing: `execute_helper` leaves out what is not its own."""

    def execute_helper(
        self,
        code: str,
        timeout: int = PATIENCE_S,
        silent: bool = False,  # noqa: FBT001, FBT002 - as in the one that this replaces
        store_history: bool = True,  # noqa: FBT001, FBT002
        stop_on_error: bool = True,  # noqa: FBT001, FBT002
    ) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """As the one that this replaces, which gives a busy machine a tenth of a second.

        Others' messages are left out: what the test before has asked for may still be told.
        """
        number = self.kc.execute(
            code=code, silent=silent, store_history=store_history, stop_on_error=stop_on_error
        )
        reply = self.get_non_kernel_info_reply(timeout=timeout)
        assert reply is not None
        validate_message(reply, "execute_reply", number)
        outputs, states = [], []
        while states[-1:] != ["idle"]:
            message = self.kc.get_iopub_msg(timeout=timeout)
            if message["parent_header"].get("msg_id") != number:
                continue
            validate_message(message, message["msg_type"], number)
            if message["msg_type"] == "status":
                states.append(message["content"]["execution_state"])
            elif message["msg_type"] == "execute_input":
                assert message["content"]["code"] == code
            else:
                outputs.append(message)
        assert states == ["busy", "idle"]
        return reply, outputs

    def test_history(self) -> None:
        """As the one that this replaces, without what IPython's kernel does not have (ranges)."""
        codes = [sample["code"] for sample in self.code_execute_result]
        reply = self.history_helper(
            codes, output=False, raw=True, hist_access_type="tail", n=len(codes)
        )
        assert [line for _, _, line in reply["content"]["history"]] == codes
        reply = self.history_helper(
            codes, output=False, raw=True, hist_access_type="search", pattern="1?2*", unique=True
        )
        assert [line for _, _, line in reply["content"]["history"]] == ["1+2+3"]

    def test_comms_are_opened_and_answered(self) -> None:
        self.flush_channels()
        self.execute_helper(
            "get_ipython().kernel.comm_manager.register_target("
            "'echo', lambda comm, _: comm.on_msg(lambda m: comm.send(m['content']['data'])))"
        )
        comm = uuid.uuid4().hex
        for kind, content in (
            ("comm_open", {"comm_id": comm, "target_name": "echo", "data": {}}),
            ("comm_msg", {"comm_id": comm, "data": {"figure": 7}}),
        ):
            self.kc.shell_channel.send(self.kc.session.msg(kind, content))
        while (message := self.kc.get_iopub_msg(timeout=60))["msg_type"] != "comm_msg":
            pass
        assert message["content"] == {"comm_id": comm, "data": {"figure": 7}}

    def test_the_debugger_stops_where_it_is_told(self) -> None:
        self.flush_channels()
        self._debug("initialize", {"clientID": "t", "adapterID": "", "pathFormat": "path"})
        self._debug("attach", {})
        code = "first = 1\nsecond = first + 1\nthird = 3\n"
        path = self._debug("dumpCell", {"code": code})["body"]["sourcePath"]
        self._debug(
            "setBreakpoints",
            {"source": {"path": path}, "breakpoints": [{"line": 2}], "sourceModified": False},
        )
        self._debug("configurationDone", {})
        cell = self.kc.execute(code)
        while True:
            message = self.kc.get_iopub_msg(timeout=60)
            if message["msg_type"] == "debug_event" and message["content"]["event"] == "stopped":
                break
        thread = message["content"]["body"]["threadId"]
        frames = self._debug("stackTrace", {"threadId": thread})["body"]["stackFrames"]
        assert frames[0]["line"] == 2
        self._debug("continue", {"threadId": thread})
        while True:
            reply = self.kc.get_shell_msg(timeout=60)
            if reply["parent_header"].get("msg_id") == cell:
                break
        assert reply["content"]["status"] == "ok"
        self._debug("disconnect", {"restart": False, "terminateDebuggee": False})

    def _debug(self, command: str, arguments: dict) -> dict:
        request = {"type": "request", "seq": 1, "command": command, "arguments": arguments}
        message = self.kc.session.msg("debug_request", request)
        self.kc.control_channel.send(message)
        while True:
            reply = self.kc.get_control_msg(timeout=60)
            if reply["parent_header"].get("msg_id") == message["header"]["msg_id"]:
                break
        assert reply["content"]["success"], reply["content"]
        return reply["content"]
