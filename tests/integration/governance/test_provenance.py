"""`angelos provenance verify` with an export of a real log, and nothing else."""

from __future__ import annotations

import json

from click.testing import CliRunner

from angelos.adapters.host.clock import SystemClock
from angelos.cli import cli
from tests.unit.control.fakes import ADA, World, edit


async def test_a_merge_is_verified_from_an_export_alone(start, journal, tmp_path):
    world = World(SystemClock())
    async with world.running() as control:
        await world.node()
        view = await control.proposals.propose(ADA, "study", edit())
        await world.reaches(view.id, "promoted")
        view = await control.proposals.view(view.id)
    async with start() as log:
        await journal.append(await world.journal.read("0-0", 1_000))
        await log.checkpoint()
        lines = b"".join([piece async for piece in log.export()])
    export = tmp_path / "log.jsonl"
    export.write_bytes(lines)
    signer = world.key.public.raw.hex()
    options = ["--export", str(export), "--signer", signer, "--json"]
    done = CliRunner().invoke(cli, ["provenance", "verify", view.revision, *options])
    assert done.exit_code == 0, done.output
    answer = json.loads(done.output)
    assert (answer["ok"], len(answer["statements"])) == (True, 1)
    shown = CliRunner().invoke(cli, ["provenance", "verify", view.revision, *options[:2]])
    assert "unit: ok on node/exec1" in shown.output
    for args, code in (
        (["f" * 12, *options], 1),
        ([view.revision, "--export", str(export), "--signer", "00" * 32], 1),
        ([view.revision, "--export", str(tmp_path / "none")], 2),
        (["xyz", *options], 2),
    ):
        assert CliRunner().invoke(cli, ["provenance", "verify", *args]).exit_code == code, args
    export.write_bytes(lines.replace(b"node/exec1", b"node/exec2"))
    done = CliRunner().invoke(cli, ["provenance", "verify", view.revision, *options])
    assert (done.exit_code, json.loads(done.output)["ok"]) == (1, False)
