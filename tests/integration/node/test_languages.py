"""The languages beside Python, by real compilers in real boxes (`angelos runtime check`)."""

from __future__ import annotations

import tempfile
from pathlib import Path

import msgspec
import pytest

from angelos.core.ids import PrincipalId, TaskId
from angelos.core.messages import Limits, RunTask, Status, Tier, limits_for
from angelos.core.task_files import InputFile
from angelos.node.broker.models import NetworkConfig
from angelos.node.broker.service import Brokers
from angelos.node.checkouts.store import Checkouts
from angelos.node.commands.output import OutputBuffer
from angelos.node.commands.runner import Runner
from angelos.node.config import SandboxConfig
from angelos.node.environments.store import Environments
from angelos.node.files.inputs import Inputs
from angelos.node.runtimes.builder import Builder
from angelos.node.runtimes.commands import diagnostics
from angelos.node.runtimes.definitions import definitions
from angelos.node.runtimes.finder import Missing, find
from angelos.node.runtimes.install import look
from angelos.node.runtimes.program import Programs
from angelos.node.sandbox.sandbox import BubblewrapSandbox
from angelos.testing import MemoryContents, need
from angelos.wiring.settings import runtimes_folder
from tests.absent import skip_absent

# Each program prints its arguments and its input and ends with exit code 3.
PROGRAMS = {
    "javascript": """
const text = require("fs").readFileSync(0, "utf8");
console.log(process.argv.slice(2).join(" "), text.trim());
process.exit(3);
""",
    "typescript": """
const text: string = new TextDecoder().decode(await new Response(Deno.stdin.readable).bytes());
console.log(Deno.args.join(" "), text.trim());
Deno.exit(3);
""",
    "rust": """
fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let mut text = String::new();
    std::io::Read::read_to_string(&mut std::io::stdin(), &mut text).unwrap();
    println!("{} {}", args.join(" "), text.trim());
    std::process::exit(3);
}
""",
    "go": """
package main

import (
	"fmt"
	"io"
	"os"
	"strings"
)

func main() {
	text, _ := io.ReadAll(os.Stdin)
	fmt.Println(strings.Join(os.Args[1:], " "), strings.TrimSpace(string(text)))
	os.Exit(3)
}
""",
    "csharp": """
class Program {
    static int Main(string[] args) {
        var text = System.Console.In.ReadToEnd().Trim();
        System.Console.WriteLine(string.Join(" ", args) + " " + text);
        return 3;
    }
}
""",
    "swift": """
import Foundation
let text = String(data: FileHandle.standardInput.readDataToEndOfFile(), encoding: .utf8)!
let args = CommandLine.arguments.dropFirst().joined(separator: " ")
print(args, text.trimmingCharacters(in: .newlines))
exit(3)
""",
}
WRONG = {
    "javascript": ("\nlet x = ;\n", 2, 9),
    "typescript": ("\nconst x: number = 'a';\nconsole.log(x);\n", 2, 7),
    "rust": ('\nfn main() { let x: u32 = "a"; }\n', 2, 26),
    "go": ('\npackage main\n\nfunc main() { var x int = "a"; _ = x }\n', 4, 27),
    "csharp": ('\nclass A { static void Main() { int x = "a"; } }\n', 2, 40),
    "swift": ('\nlet x: Int = "a"\n', 2, 14),
}
# A project of two files: a library and a program that uses it.
PROJECTS = {
    "javascript": {
        "main.js": "console.log(require('./lib.js').double(21));",
        "lib.js": "exports.double = x => 2 * x;",
    },
    "typescript": {
        "main.ts": "import { double } from './lib.ts'; console.log(double(21));",
        "lib.ts": "export const double = (x: number): number => 2 * x;",
    },
    "rust": {
        "main.rs": 'mod lib;\nfn main() { println!("{}", lib::double(21)); }',
        "lib.rs": "pub fn double(x: u32) -> u32 { 2 * x }",
    },
    "go": {
        "go.mod": "module example.org/double\n\ngo 1.21\n",
        "main.go": 'package main\n\nimport "fmt"\n\nfunc main() { fmt.Println(double(21)) }\n',
        "lib.go": "package main\n\nfunc double(x int) int { return 2 * x }\n",
    },
    "csharp": {
        "main.cs": "class P { static void Main() { System.Console.WriteLine(Lib.Double(21)); } }",
        "lib.cs": "static class Lib { public static int Double(int x) { return 2 * x; } }",
    },
    "swift": {
        "main.swift": "print(double(21))",
        "lib.swift": "func double(_ x: Int) -> Int { 2 * x }",
    },
}


class System:
    """A runner with contents, on this machine's tools."""

    def __init__(self, sandbox: BubblewrapSandbox, directory: Path) -> None:
        self.contents = MemoryContents()
        programs = Programs(Builder(directory), runtimes_folder())
        checkouts = Checkouts(directory, None, None)  # type: ignore[arg-type]
        inputs = Inputs(directory, self)
        environments = Environments(directory, Brokers(directory, NetworkConfig()), None)
        self.runner = Runner("exec1", sandbox, checkouts, inputs, self, programs, environments)

    async def fetch(self, task: TaskId, digest: str) -> bytes:
        return await self.contents.get(digest)

    async def keep(self, task: TaskId, content: bytes) -> None:
        await self.contents.put(content)

    async def run(self, language: str, **fields: object):
        async def nothing(*_: object) -> None:
            return None

        values: dict = {
            "task": TaskId("task-1"),
            "language": language,
            "limits": limits_for(language),
        }
        task = RunTask(**{**values, **fields})
        return await self.runner.run(
            task, nothing, nothing, OutputBuffer(), PrincipalId("person/ada")
        )


@pytest.fixture(params=sorted(PROGRAMS), scope="module")
def language(request: pytest.FixtureRequest) -> str:
    found = find(definitions()[request.param], runtimes_folder())
    reason = found.reason if isinstance(found, Missing) else ""
    if reason and request.param == "swift":
        skip_absent("swift")
    need(not isinstance(found, Missing), f"{request.param} cannot run here: {reason}")
    return request.param


@pytest.fixture
async def system():
    async with BubblewrapSandbox(SandboxConfig(ready_boxes=0)) as sandbox:
        need(sandbox.tier in {Tier.full, Tier.reduced}, f"no boxes here: {sandbox.reasons}")
        with tempfile.TemporaryDirectory() as folder:
            yield System(sandbox, Path(folder))


@pytest.mark.timeout(300)
async def test_a_program_runs_and_a_wrong_one_says_where(system: System, language: str) -> None:
    result = await system.run(language, code=PROGRAMS[language], argv=("a", "b c"), stdin=b"in\n")
    assert (result.status, result.exit_code) == (Status.error, 3), result
    assert result.stdout == "a b c in\n"
    code, line, column = WRONG[language]
    result = await system.run(language, code=code, action="check")
    assert (result.status, result.evidence["stage"]) == (Status.error, "compile"), result
    first = result.evidence["diagnostics"][0]
    assert (first["file"], first["line"]) == (definitions()[language].main, line), first
    assert first["column"] == column, first
    assert first["message"]
    assert result.stderr
    if language in {"csharp", "go", "rust", "swift"}:  # the compiler has the task's limits
        limits = Limits(memory_mb=16)
        result = await system.run(language, code=PROGRAMS[language] + "\n", limits=limits)
        assert (result.status, result.evidence["stage"]) == (Status.oom, "compile"), result


@pytest.mark.timeout(300)
async def test_a_project_is_a_folder_of_files(system: System, language: str) -> None:
    files = [
        InputFile(path=f"project/{name}", sha256=await system.contents.put(text.encode()))
        for name, text in PROJECTS[language].items()
    ]
    result = await system.run(language, argv=("project",), inputs=tuple(files))
    assert (result.status, result.stdout) == (Status.ok, "42\n"), result
    result = await system.run(language, argv=("none",), inputs=tuple(files))
    assert (result.status, result.evidence["code"]) == (Status.denied, "invalid-input"), result


async def test_what_is_not_here_is_said_before_anything_starts(system: System, tmp_path) -> None:
    for definition in definitions().values():
        nowhere = tuple(
            msgspec.structs.replace(toolchain, tools={"tool": ("no-such-tool",)})
            for toolchain in definition.toolchain
        )
        report = look(msgspec.structs.replace(definition, toolchain=nowhere), tmp_path)
        assert not report.ready
        assert "There is no tool of" in report.reason
        assert f"angelos runtime install {definition.language}" in report.hint


async def test_what_was_built_is_built_once_and_for_the_same_bytes_only(system: System) -> None:
    need(not isinstance(find(definitions()["csharp"], runtimes_folder()), Missing), "no C# here")
    code = 'class P { static void Main() { System.Console.Write("one"); } }'
    for text, builds in ((code, 1), (code, 1), (code.replace("one", "two"), 2)):
        result = await system.run("csharp", code=text)
        assert result.status == Status.ok, result
        built = system.runner._programs._builder._root
        assert len(list(built.iterdir())) == builds


def test_a_compilers_text_is_read_as_rows_and_never_trusted() -> None:
    pattern = definitions()["go"].toolchain[0].diagnostic
    text = "# command\n./main.go:4:2: undefined: x\n/in/a/b.go:1:1: " + "y" * 999 + "\n"
    rows = diagnostics(pattern, text, "/in/a")
    assert [(row.file, row.line, row.column) for row in rows] == [("main.go", 4, 2), ("b.go", 1, 1)]
    assert max(len(row.message) for row in rows) == 500
    assert diagnostics(pattern, "x.go:1:2: e\n" * 1_000, "/in") != ()
    assert len(diagnostics(pattern, "x.go:1:2: e\n" * 1_000, "/in")) == 50
