"""The dashboard's ESM in a bare page with a model of our own: attacks, keyboard, updates."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import angelos.dashboard

STATIC = Path(angelos.dashboard.__file__).parent / "static"
ATTACK = '<img src=x onerror="window.attacked = 1"><script>window.attacked = 1</script>'
VIEW = {
    "system": {
        "connected": True, "detail": "", "tier": "full", "banner": ATTACK,
        "repos": [{"name": ATTACK, "main": "c" * 12, "dev": "d" * 12}],
    },
    "nodes": [
        {
            "name": ATTACK, "role": "execution", "connected": True, "tier": "full", "running": 1,
            "revisions": [{"repo": ATTACK, "revision": "c" * 12}],
        }
    ],
    "approvals": [
        {
            "id": "prop-1", "digest": "digest-1", "repo": "study", "base": "b" * 12,
            "author": ATTACK, "message": "first " + ATTACK, "reason": ATTACK, "needs": 1,
            "approvals": [], "notice": "", "failures": 0, "hidden": 0,
            "changes": [{"path": ATTACK, "diff": f"-old\n+{ATTACK}\n", "cut": False}],
            "steps": [{"name": ATTACK, "status": "ok", "seconds": 1.0, "output": ATTACK}],
        }
    ],
    "recent": [
        {
            "id": "prop-0", "state": "promoted", "author": ATTACK, "message": ATTACK,
            "reason": ATTACK, "revision": "",
        }
    ],
    "tasks": [
        {
            "id": "task-1", "label": ATTACK, "by": ATTACK, "node": ATTACK, "state": "running",
            "status": "running", "seconds": None, "output": ATTACK, "cut": False,
        }
    ],
}  # fmt: skip
PAGE = """
<!doctype html><html lang="en"><title>dashboard</title><style>%s</style>
<body><div id="el"></div>
<script type="module">
  const listeners = {};
  window.sent = [];
  window.model = {
    state: %s,
    get(name) { return this.state[name]; },
    on(event, handler) { (listeners[event] ??= []).push(handler); },
    off() {},
    send(message) { window.sent.push(message); },
    set(name, value) {
      this.state[name] = value;
      for (const handler of listeners["change:" + name] ?? []) handler();
    },
  };
  const source = %s;
  const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
  const widget = (await import(url)).default;
  widget.render({ model: window.model, el: document.getElementById("el") });
  window.ready = true;
</script>
"""


def script_text(value: object) -> str:
    return json.dumps(value).replace("<", "\\u003c")


@pytest.fixture
async def page(browser):
    page = await browser.new_page()
    source = (STATIC / "dashboard.js").read_text()
    css = (STATIC / "dashboard.css").read_text()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    await page.set_content(PAGE % (css, script_text(VIEW), script_text(source)))
    await page.wait_for_function("window.ready")
    yield page
    assert problems == []


async def test_no_text_becomes_markup(page):
    assert await page.locator("#el img, #el script").count() == 0
    shown = await page.locator("#el").inner_text()
    assert shown.count(ATTACK) >= 8
    changed = json.loads(json.dumps(VIEW["tasks"]))
    changed[0]["output"] = ATTACK * 2
    await page.evaluate("tasks => window.model.set('tasks', tasks)", changed)
    assert await page.locator("#el img, #el script").count() == 0
    assert await page.evaluate("window.attacked") is None


async def test_a_reader_of_screens_finds_names_and_roles(page):
    assert await page.get_by_role("region", name="AngelOS dashboard").count() == 1
    for heading in ("Nodes", "Waiting for approval", "Changes", "Tasks"):
        assert await page.get_by_role("heading", name=heading).count() == 1
    assert await page.get_by_role("button", name="Approve: first").count() == 1
    assert await page.get_by_role("textbox", name="Comment on first").count() == 1


async def test_the_keyboard_alone_approves_exactly_what_is_shown(page):
    comment = page.get_by_role("textbox", name="Comment on first")
    await comment.focus()
    await page.keyboard.type("looks right")
    await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")
    assert await page.evaluate("window.sent") == [
        {
            "word": "approve", "proposal": "prop-1", "digest": "digest-1",
            "comment": "looks right",
        }
    ]  # fmt: skip
    button = page.get_by_role("button", name="Approve: first")
    assert await button.is_disabled()
    refused = json.loads(json.dumps(VIEW["approvals"]))
    refused[0] |= {"notice": "You may not.", "failures": 1}
    await page.evaluate("items => window.model.set('approvals', items)", refused)
    assert not await button.is_disabled()
    await button.click()
    assert await button.is_disabled()
    refused[0]["failures"] = 2  # the same words once more
    await page.evaluate("items => window.model.set('approvals', items)", refused)
    assert not await button.is_disabled()
    assert await page.get_by_role("alert").filter(has_text="You may not.").count() == 1


async def test_what_is_not_shown_whole_cannot_be_approved(page):
    approve = page.get_by_role("button", name="Approve: first")
    assert not await approve.is_disabled()
    (item,) = VIEW["approvals"]
    part = [{**item["changes"][0], "cut": True}]
    for more in ({"long": True}, {"hidden": 3}, {"changes": part}):
        await page.evaluate("items => window.model.set('approvals', items)", [item | more])
        assert await approve.is_disabled()
        assert await page.get_by_text("angelos proposal approve --whole prop-1").count() == 1
    await page.evaluate("items => window.model.set('approvals', items)", [item])
    assert not await approve.is_disabled()


async def test_a_kernel_that_ends_leaves_a_grey_face_that_says_what_to_do(page):
    await page.evaluate("window.model.set('beat', 1)")
    assert await page.locator(".ad-root.ad-old").count() == 0
    await page.get_by_text("Run its cell again").wait_for(timeout=60_000)
    assert await page.locator(".ad-root.ad-old").count() == 1
    await page.evaluate("window.model.set('beat', 2)")
    assert await page.locator(".ad-root.ad-old").count() == 0
    await page.evaluate(
        "window.model.set('system', { connected: false, detail: 'Not connected.', repos: [] })"
    )
    assert await page.locator(".ad-root.ad-old").count() == 1


async def test_no_key_is_a_command_of_lab(page):
    button = page.get_by_role("button", name="Reject: first")
    assert await button.evaluate("b => b.closest('[data-lm-suppress-shortcuts]') !== null")


async def test_a_narrow_page_fits(page):
    await page.set_viewport_size({"width": 320, "height": 800})
    wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert await page.evaluate(wide) <= 0


async def test_an_update_keeps_focus_and_what_was_typed(page):
    comment = page.get_by_role("textbox", name="Comment on first")
    await comment.fill("half a tho")
    await comment.focus()
    new = {**VIEW["approvals"][0], "id": "prop-2", "message": "second"}
    await page.evaluate(
        "items => window.model.set('approvals', items)", [new, VIEW["approvals"][0]]
    )
    assert await page.locator("article").count() == 2
    assert await comment.input_value() == "half a tho"
    assert await comment.evaluate("element => element === document.activeElement")
