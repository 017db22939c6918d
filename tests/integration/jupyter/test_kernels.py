"""Kernels of a real server: in their boxes, of their persons, with their door to the API."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest
from tornado.httpclient import HTTPClientError

sys.path.insert(0, str(Path(__file__).parent))
from kernel_client import KernelClient

RESEARCHER, GUEST, ROGUE = "t-researcher", "t-guest", "t-rogue"


@pytest.fixture(scope="module")
def running(served):
    """One kernel for most of the tests, as its id."""

    async def start() -> str:
        answer = await served.ask(
            "/api/kernels", RESEARCHER, "POST", json={"path": "study/book.ipynb"}
        )
        return json.loads(answer.body)["id"]

    return asyncio.run(start())


@pytest.fixture
async def kernel(served, running):
    client = KernelClient(served, RESEARCHER, running)
    await client.connect()
    yield client
    client.leave()


async def test_a_kernel_works_in_its_repository_and_sees_nothing_else(served, kernel):
    served.document("readme.md")
    (served.workspace / "other").mkdir(exist_ok=True)
    out = await kernel.run("import os; print(os.getcwd(), os.listdir())")
    assert f"{served.workspace}/study" in out
    assert "readme.md" in out
    folders = f"{str(served.folder)!r}, {str(served.workspace)!r}"
    out = await kernel.run(f"import os; print(*map(os.listdir, [{folders}]))")
    assert out == "['workspace'] ['study']\n"
    assert await kernel.run("open('made.txt', 'w').write('x')") == ""
    assert (served.workspace / "study" / "made.txt").read_text() == "x"


async def test_a_kernel_holds_no_secret_of_the_server(kernel):
    out = await kernel.run(
        "import os\n"
        "for pid in filter(str.isdigit, os.listdir('/proc')):\n"
        "    print(open(f'/proc/{pid}/environ').read(), open(f'/proc/{pid}/cmdline').read())\n"
    )
    assert "t-owner" not in out
    assert "JUPYTER_TOKEN" not in out
    assert "ANGELOS_DATA_DIR" not in out


async def test_the_rules_of_a_repository_are_read_only(served, kernel):
    """A kernel of its own, since what exists is protected when the kernel starts."""
    (served.workspace / "study" / "angelos.toml").write_text("[pipeline]\n")
    client = await KernelClient.start(served, RESEARCHER, path="study/book.ipynb")
    try:
        assert "Read-only" in await client.run("open('angelos.toml', 'w')")
        assert "busy" in await client.run("import os; os.rename('angelos.toml', 'x')")
    finally:
        await client.end()
        (served.workspace / "study" / "angelos.toml").unlink()


async def test_a_kernel_calls_the_api_as_its_person(kernel):
    out = await kernel.run(
        "from angelos.client import Angelos\n"
        "async with Angelos.connect() as angelos:\n"
        "    print((await angelos.fetch('GET', '/echo/here')).decode())\n"
    )
    assert json.loads(out) == {"by": "person/rosa", "role": "researcher", "what": "here"}


async def test_the_socket_of_a_kernel_takes_its_token_only(served, kernel):
    other = await KernelClient.start(served, ROGUE)
    try:
        token = await other.run("import os; print(open(os.environ['ANGELOS_TOKEN_FILE']).read())")
        for text in (token.strip(), "t-owner", RESEARCHER, ""):
            out = await kernel.run(
                "import os\n"
                "from angelos.client import Angelos\n"
                f"async with Angelos(os.environ['ANGELOS_URL'], token={text!r}) as angelos:\n"
                "    print(await angelos.fetch('GET', '/echo/here'))\n"
            )
            assert out.startswith("Unauthenticated"), out
    finally:
        await other.end()


async def test_a_kernel_follows_the_events(served, kernel):
    out = await kernel.run(
        "from angelos.client import Angelos\n"
        "async with Angelos.connect() as angelos:\n"
        "    await angelos.fetch('POST', '/say/task-7', body={})\n"
        "    async for fact in angelos.events(subject='task-7'):\n"
        "        print(fact.kind)\n"
        "        break\n"
    )
    assert out == "task.accepted\n"


async def test_another_persons_kernel_is_not_there(served, kernel):
    listed = json.loads((await served.ask("/api/kernels", ROGUE)).body)
    assert kernel.id not in {model["id"] for model in listed}
    for method, path in (
        ("GET", f"/api/kernels/{kernel.id}"),
        ("DELETE", f"/api/kernels/{kernel.id}"),
        ("POST", f"/api/kernels/{kernel.id}/interrupt"),
        ("POST", f"/api/kernels/{kernel.id}/restart"),
    ):
        assert (await served.ask(path, ROGUE, method)).code == 404, path
    answer = await served.ask("/api/kernels", ROGUE, "POST", json={"kernel_id": kernel.id})
    assert answer.code == 404
    body = {"path": "x.ipynb", "name": "", "type": "notebook", "kernel": {"id": kernel.id}}
    assert (await served.ask("/api/sessions", ROGUE, "POST", json=body)).code == 404
    for token in (ROGUE, "t-owner"):  # an admin may end it, and never run code as its owner
        with pytest.raises(HTTPClientError):
            await KernelClient(served, token, kernel.id).connect()
    assert kernel.id in (await served.ask("/api/kernels", "t-owner")).body.decode()


async def test_two_people_who_open_a_notebook_have_a_kernel_each(served):
    body = {
        "path": "study/both.ipynb", "name": "both.ipynb", "type": "notebook",
        "kernel": {"name": "python3"},
    }  # fmt: skip
    opened = {}
    for token in (RESEARCHER, ROGUE, RESEARCHER):
        answer = await served.ask("/api/sessions", token, "POST", json=body)
        assert answer.code == 201, answer.body
        model = json.loads(answer.body)
        assert opened.setdefault(token, model["id"]) == model["id"]
    assert len(set(opened.values())) == 2
    listed = json.loads((await served.ask("/api/sessions", ROGUE)).body)
    assert [model["id"] for model in listed] == [opened[ROGUE]]
    foreign = f"/api/sessions/{opened[RESEARCHER]}"
    assert (await served.ask(foreign, ROGUE)).code == 404
    assert (await served.ask(foreign, ROGUE, "PATCH", json={"name": "x"})).code == 404
    for token, session in opened.items():
        assert (await served.ask(f"/api/sessions/{session}", token, "DELETE")).code == 204


async def test_a_console_has_an_empty_folder(served):
    body = {
        "path": "study/console-1", "name": "", "type": "console", "kernel": {"name": "python3"},
    }  # fmt: skip
    model = json.loads((await served.ask("/api/sessions", RESEARCHER, "POST", json=body)).body)
    client = KernelClient(served, RESEARCHER, model["kernel"]["id"])
    await client.connect()
    try:
        out = await client.run("import os; print(os.getcwd())")
        assert out == "/tmp\n"
        assert await client.run(f"print(os.path.exists({str(served.root)!r}))") == "False\n"
    finally:
        await client.end()


async def test_a_person_has_only_so_many_kernels(served):
    """However many are asked for at once."""
    answers = await asyncio.gather(
        *(served.ask("/api/kernels", ROGUE, "POST", json={}) for _ in range(6))
    )
    started = [json.loads(answer.body)["id"] for answer in answers if answer.code == 201]
    refused = [answer for answer in answers if answer.code != 201]
    assert len(started) == 4, [answer.body for answer in refused]
    for answer in refused:
        assert answer.code == 429
        assert "the most that one person may have" in json.loads(answer.body)["message"]
    await served.ask(f"/api/kernels/{started.pop()}", ROGUE, "DELETE")
    answer = await served.ask("/api/kernels", ROGUE, "POST", json={})
    assert answer.code == 201, answer.body
    for kernel in (*started, json.loads(answer.body)["id"]):
        await served.ask(f"/api/kernels/{kernel}", ROGUE, "DELETE")


async def test_a_viewer_starts_no_kernel(served):
    assert (await served.ask("/api/kernels", GUEST, "POST", json={})).code == 403


@pytest.mark.parametrize("name", ["../../etc/x-1-2-3-4", "short", "a" * 65, "a-b-c-d-e/f"])
async def test_an_id_is_an_id(served, name):
    answer = await served.ask("/api/kernels", RESEARCHER, "POST", json={"kernel_id": name})
    assert answer.code == 400


async def test_interrupt_restart_and_input_work(served, kernel):
    number = kernel.execute("import time\nprint('on', flush=True)\ntime.sleep(60)")
    async for message in kernel.messages():
        if message["msg_type"] == "stream":
            break
    answer = await served.ask(f"/api/kernels/{kernel.id}/interrupt", RESEARCHER, "POST")
    assert answer.code == 204
    assert "KeyboardInterrupt" in await kernel.output(number)
    assert await kernel.run("print(input('name? '))", "rosa") == "rosa\n"
    await kernel.run("kept = 1")
    answer = await served.ask(f"/api/kernels/{kernel.id}/restart", RESEARCHER, "POST")
    assert answer.code == 200, answer.body
    kernel.leave()
    await kernel.connect()
    assert "NameError" in await kernel.run("kept")


async def test_the_kernels_loopback_is_its_own(served, kernel):
    out = await kernel.run(
        "import socket\n"
        "server = socket.create_server(('127.0.0.1', 0))\n"
        "client = socket.create_connection(server.getsockname())\n"
        "print('own')\n"
    )
    assert out == "own\n"
    port = served.url.rpartition(":")[2]
    out = await kernel.run(f"socket.create_connection(('127.0.0.1', {port}), 2)")
    assert "ConnectionRefused" in out
    out = await kernel.run("socket.create_connection(('192.0.2.1', 80), 2)")
    assert "unreachable" in out


async def test_a_cell_says_why_its_kernel_died(served):
    client = await KernelClient.start(served, RESEARCHER)
    try:
        number = client.execute("hog = [bytearray(2**20) for _ in range(1000)]")
        async for message in client.messages(60):
            if message["msg_type"] == "stream":
                break
        assert message["parent_header"]["msg_id"] == number
        assert message["content"]["text"].strip() == (
            "The kernel has ended (oom): it used more than its 256 MB of memory."
        )
    finally:
        await client.end()


async def test_only_admins_start_what_the_operator_allowed_without_a_box(served):
    specs = json.loads((await served.ask("/api/kernelspecs")).body)["kernelspecs"]
    assert "python-unboxed" not in specs
    answer = await served.ask("/api/kernels", "t-owner", "POST", json={"name": "python-unboxed"})
    assert answer.code >= 400


@pytest.mark.parametrize("kind", ["pdf", "webpdf", "latex", "rst", "script", "os"])
async def test_no_conversion_starts_programs(served, kind):
    served.document("plain.ipynb", json.dumps({"cells": [], "metadata": {}, "nbformat": 4}))
    for method, path in (("GET", "/study/plain.ipynb"), ("POST", "")):
        answer = await served.ask(f"/nbconvert/{kind}{path}", RESEARCHER, method, body=None)
        assert answer.code == 403


@pytest.mark.parametrize(
    "name",
    [".bashrc", ".ipython/x.py", "jupyter_server_config.py", "Jupyter_Lab_Config.JSON", "x.pth",
     "ipython_config.py", "sitecustomize.py", "a/.git/hooks/post-commit"],
)  # fmt: skip
async def test_no_upload_writes_hidden_or_configuration_files(served, name):
    body = {"type": "file", "format": "text", "content": "import os"}
    answer = await served.ask(f"/api/contents/{name}", RESEARCHER, "PUT", json=body)
    assert answer.code == 403, answer.body
    put = await served.ask("/api/contents/plain.txt", RESEARCHER, "PUT", json=body)
    assert put.code in {200, 201}
    moved = await served.ask("/api/contents/plain.txt", RESEARCHER, "PATCH", json={"path": name})
    assert moved.code == 403
    assert not (served.root / name).exists()
