r"""A repository's own configuration: `angelos.toml` at its root, always read from `main`.

    [pipeline]
    timeout_s = 120
    memory_mb = 1024
    steps = [
      { name = "unit", run = ["python", "-m", "unittest", "discover", "-s", "tests"] },
      { name = "notebook", notebook = "analysis.ipynb" },
      { name = "lint", run = ["ruff", "check", "--output-format", "sarif"], report = "sarif" },
      { name = "audit", run = ["bandit", "-r", "study"], stage = "security", required = false },
    ]
    [health]
    run = ["python", "-m", "study.health"]
    timeout_s = 30
    [review]
    protected = ["study/protected/**"]
    hold_agents = true
    solo = false

>>> parse(b'[health]\nrun = ["true"]').health.run
('true',)
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import PurePosixPath
from typing import Annotated

import msgspec

from angelos.control.gate.judges import SETTINGS
from angelos.core.api import Name
from angelos.core.errors import InvalidInput, NotFound
from angelos.core.ids import Revision
from angelos.core.messages import Input, Limits
from angelos.core.paths import safe_path
from angelos.core.plans import CaseRunner
from angelos.core.ports import Repository

FILE = "angelos.toml"
MAX_BYTES = 64_000
MAX_STEPS = 32
Arg = Annotated[str, msgspec.Meta(min_length=1, max_length=2_000)]
Argv = Annotated[tuple[Arg, ...], msgspec.Meta(max_length=256)]
Seconds = Annotated[float, msgspec.Meta(ge=0.05, le=3600)]


class Stage(StrEnum):
    """What a step tests; all stages run at the same time."""

    static = "static"
    unit = "unit"
    integration = "integration"
    security = "security"


class ReportForm(StrEnum):
    """A form in which a program prints its results."""

    junit = "junit"
    sarif = "sarif"


class Step(Input, frozen=True, kw_only=True):
    """One test: a command line (`run`), or a notebook re-run in a clean kernel (`notebook`)."""

    name: Name
    run: Argv = ()
    notebook: Annotated[str, msgspec.Meta(max_length=512)] = ""
    timeout_s: Seconds | None = None
    judge: bool = False
    """Whether the notebook is a test, so that each change of it needs a person."""
    stage: Stage | None = None
    """By default `static` for a program that only reads the code, else `unit`."""
    required: bool = True
    """Whether its failure rejects; if not it is advice, which is only shown."""
    report: ReportForm | None = None
    """What an analyser or a plain command prints: its results are kept one by one."""
    memory_mb: Annotated[int, msgspec.Meta(ge=16, le=65_536)] | None = None
    pids: Annotated[int, msgspec.Meta(ge=1, le=4096)] | None = None
    disk_mb: Annotated[int, msgspec.Meta(ge=1, le=16_384)] | None = None
    """Limits of its own, in place of the pipeline's."""

    def __post_init__(self) -> None:
        """Refuse a step with none or both of its forms."""
        if bool(self.run) == bool(self.notebook):
            raise ValueError(f"step {self.name!r} needs either run or notebook")
        if self.judge and not self.notebook:
            raise ValueError(f"step {self.name!r} has judge, which only notebooks have")
        if self.report and self.kind.cases is not None:
            raise ValueError(f"step {self.name!r} has report, but our own runner reports on it")
        if self.notebook:
            safe_path(self.notebook)

    @property
    def staged(self) -> Stage:
        """The stage that it belongs to."""
        return self.stage or (Stage.static if self.kind is StepRunner.analyser else Stage.unit)

    @property
    def kind(self) -> StepRunner:
        """What runs it, and whose word its end is."""
        return _kind(self)


class StepRunner(StrEnum):
    """What runs a step."""

    notebook = "notebook"
    unittest = "unittest"
    pytest = "pytest"
    doctest = "doctest"
    analyser = "analyser"
    """A program that reads the checkout and never runs it, installed outside."""
    command = "command"
    """Anything else: its end is the word of what may have been changed, so it never passes."""

    @property
    def witnessed(self) -> bool:
        """Whether a step of this kind can say that a candidate is good."""
        return self is not StepRunner.command

    @property
    def cases(self) -> CaseRunner | None:
        """The kind of cases that a runner asks for; None where an exit code is all there is."""
        known = self.value in CaseRunner.__members__
        return CaseRunner(self.value) if known else None


ANALYSERS = frozenset(
    {"bandit", "basedpyright", "mypy", "pycodestyle", "pyflakes", "pyright", "ruff"}
)
"""Programs that read code and do not run it."""
_RUNNERS = frozenset({"unittest", "pytest", "doctest"})


def _kind(step: Step) -> StepRunner:
    """Return what runs a step.

    >>> _kind(Step(name="a", run=("python", "-m", "pytest", "-q"))).value
    'pytest'
    """
    if step.notebook:
        return StepRunner.notebook
    program, words = step.run[0], step.run[1:]
    if program in {"python", "python3"}:
        if words[:1] != ("-m",) or len(words) < 2:  # noqa: PLR2004
            return StepRunner.command
        program = words[1]
    if program in _RUNNERS and (program == "pytest" or step.run[0] != program):
        return StepRunner(program)
    return StepRunner.analyser if program in ANALYSERS else StepRunner.command


class PipelineConfig(Input, frozen=True, kw_only=True):
    """The tests of a candidate; independent, so they run at the same time."""

    steps: Annotated[tuple[Step, ...], msgspec.Meta(max_length=MAX_STEPS)] = ()
    timeout_s: Seconds = 120.0
    memory_mb: Annotated[int, msgspec.Meta(ge=16, le=65_536)] = 1024
    pids: Annotated[int, msgspec.Meta(ge=1, le=4096)] = 128
    disk_mb: Annotated[int, msgspec.Meta(ge=1, le=16_384)] = 256

    def __post_init__(self) -> None:
        """Refuse two steps of one name."""
        names = [step.name for step in self.steps]
        if len(set(names)) != len(names):
            raise ValueError("two steps of the pipeline have the same name")

    def limits(self, step: Step) -> Limits:
        """Return the limits of a step."""
        seconds = step.timeout_s or self.timeout_s
        return Limits(
            wall_s=seconds,
            cpu_s=seconds,
            memory_mb=step.memory_mb or self.memory_mb,
            pids=step.pids or self.pids,
            disk_mb=step.disk_mb or self.disk_mb,
        )


class HealthConfig(Input, frozen=True, kw_only=True):
    """The command by which a node checks a checkout's health; without one there is no check."""

    run: Argv = ()
    timeout_s: Seconds = 60.0

    @property
    def limits(self) -> Limits:
        """The limits of the command."""
        return Limits(wall_s=self.timeout_s, cpu_s=self.timeout_s)


class ReviewRules(Input, frozen=True, kw_only=True):
    """Which proposals need a person's approval, and whose."""

    protected: Annotated[
        tuple[Annotated[str, msgspec.Meta(min_length=1, max_length=512)], ...],
        msgspec.Meta(max_length=256),
    ] = ()
    """Paths of which each change waits for a person: `*` in one segment, `folder/**`, `**/a.py`
    anywhere."""
    hold_agents: bool = False
    """Whether each proposal of an agent waits for a person, however small its risk."""
    solo: bool = False
    """Whether one person works alone: until a second one may review, they may approve their own
    and their agents' proposals, and their approval is enough for a change of this file too."""

    def __post_init__(self) -> None:
        """Refuse a pattern that no path can match."""
        for pattern in self.protected:
            try:
                safe_path(pattern)
            except InvalidInput as error:
                raise InvalidInput(
                    f"protected has {pattern!r}, which no file can match. {error.detail}",
                    hint="A folder is written `folder/**`, a file `folder/name.py`.",
                ) from error


class RepoConfig(Input, frozen=True, kw_only=True):
    """All of `angelos.toml`; an absent file is the same as an empty one."""

    pipeline: PipelineConfig = PipelineConfig()
    health: HealthConfig = HealthConfig()
    review: ReviewRules = ReviewRules()

    @property
    def judges(self) -> tuple[str, ...]:
        """Patterns of the files that decide on a proposal: nobody loosens their own tests unseen.

        They are the settings of common tools, and the programs that the steps and the health
        command run, where these lie in the repository. What the programs import is not followed.
        """
        return (*(f"**/{name}" for name in sorted(SETTINGS)), *self.programs)

    @property
    def programs(self) -> tuple[str, ...]:
        """Paths of the programs that the steps and the health command run."""
        commands = [step.run for step in self.pipeline.steps] + [self.health.run]
        return tuple(path for argv in commands for path in _programs(argv))

    @property
    def notebooks(self) -> tuple[str, ...]:
        """Paths of the notebooks that are re-run."""
        return tuple(step.notebook for step in self.pipeline.steps if step.notebook)

    @property
    def judging_notebooks(self) -> tuple[str, ...]:
        """Paths of the notebooks of which any change is a change of a test."""
        return tuple(step.notebook for step in self.pipeline.steps if step.judge)

    @property
    def doctested(self) -> tuple[str, ...]:
        """Paths of the files whose examples are run."""
        steps = [step.run for step in self.pipeline.steps if step.kind is StepRunner.doctest]
        return tuple(word for argv in steps for word in argv if word.endswith(".py"))


def _programs(argv: Argv) -> tuple[str, ...]:
    """Return where the program of a command line would lie in the repository.

    >>> _programs(("python", "-m", "study.check"))
    ('study/check.py', 'study/check/__init__.py', 'study/check/__main__.py')
    >>> _programs(("sh", "-e", "ci/test.sh"))
    ('ci/test.sh',)
    """
    if not argv:
        return ()
    name = PurePosixPath(argv[0]).name
    if not name.startswith(("python", "sh", "bash")):
        return (str(PurePosixPath(argv[0])),)
    for position, argument in enumerate(argv[1:], 1):
        if argument == "-m":
            module = "".join(argv[position + 1 : position + 2]).replace(".", "/")
            return (f"{module}.py", f"{module}/__init__.py", f"{module}/__main__.py")
        if argument == "-c":
            return ()
        if not argument.startswith("-"):
            return (str(PurePosixPath(argument)),)
    return ()


async def load(repository: Repository, repo: str, revision: Revision) -> RepoConfig:
    """Return the configuration at a revision of a repository.

    Raises:
        InvalidInput: The file cannot be read.
    """
    try:
        body = await repository.read(repo, revision, FILE)
    except NotFound:
        return RepoConfig()
    return parse(body)


def parse(body: bytes) -> RepoConfig:
    """Return the configuration in `body`; raise `InvalidInput` that says where it is wrong."""
    if len(body) > MAX_BYTES:
        raise InvalidInput(f"{FILE} has {len(body)} bytes; {MAX_BYTES} are allowed.")
    try:
        return msgspec.toml.decode(body, type=RepoConfig)
    except (msgspec.DecodeError, ValueError, RecursionError, InvalidInput) as error:
        raise InvalidInput(
            f"{FILE} cannot be read: {str(error).rstrip('.')}.",
            hint="It knows the tables [pipeline], [health] and [review].",
        ) from error
