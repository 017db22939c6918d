"""The control API as data: one struct for each request and answer.

The server's routes, the OpenAPI document, `angelos.client` and the CLI's `--json` use these.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from angelos.core.facts import (
    NodeLoad,
    RestartCause,
    StepResult,
    TaskReported,
    TaskResult,
)
from angelos.core.findings import GateFinding, RiskFactor
from angelos.core.ids import CommandId, Offset, PrincipalId, ProposalId, Revision, TaskId
from angelos.core.messages import Input, Language, Limits, Message, Priority, TaskAction, Tier
from angelos.core.network import MAX_RULES
from angelos.core.node_profile import NodeProfile
from angelos.core.pending import PartChoice, Pending
from angelos.core.permissions import Permission, Role
from angelos.core.principals import SessionKind
from angelos.core.reports import CaseOutcome
from angelos.core.repository import Change, TreeEdit
from angelos.core.requirements import MAX_PACKAGES
from angelos.core.revision_v2 import Trailer, TreeEntry
from angelos.core.task_files import FILE_BYTES, MAX_FILES, MAX_PATTERNS, InputFile

# Python's `$` also matches before a last newline; the lookahead does not let that pass.
Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$(?!\n)")]
NoName = Annotated[str, msgspec.Meta(pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]{0,63})?$(?!\n)")]
"""A name or nothing."""
Requirement = Annotated[str, msgspec.Meta(max_length=20_000, pattern=r"^[^\x00]*$")]
Text = Annotated[str, msgspec.Meta(max_length=2_000, pattern=r"^[^\x00]*$")]
"""Text of a caller; neither PostgreSQL nor a command line takes a NUL."""
Code = Annotated[str, msgspec.Meta(max_length=1_000_000)]


class View(Message, frozen=True, kw_only=True):
    """An answer; a client ignores unknown fields."""


# -- tasks -----------------------------------------------------------------------------------

TaskState = Literal["accepted", "running", "cut-off", "finished"]
"""`cut-off`: its node has started it and is away, so nobody knows how it is."""


class SubmitTask(Input, frozen=True, kw_only=True):
    """Run `code` with the arguments `argv`, or the program `argv`, in a sandbox.

    With `repo` and `revision`, in that checkout.
    """

    language: Language = "python"
    action: TaskAction = "run"
    """`check` and `test` are for the languages beside Python."""
    code: Code = ""
    argv: Annotated[tuple[Text, ...], msgspec.Meta(max_length=256)] = ()
    stdin: Annotated[str, msgspec.Meta(max_length=1_000_000)] = ""
    repo: NoName = ""
    revision: Revision | None = None
    limits: Limits = Limits()
    guard: bool = True
    node: Name | None = None
    """Run on this node; by default on the least busy execution node."""
    command: CommandId | None = None
    """Give the same id to repeat a request without running the task twice."""
    label: Text = ""
    inputs: Annotated[tuple[InputFile, ...], msgspec.Meta(max_length=MAX_FILES)] = ()
    """Files that stand read-only at `/in`, with links to them in `/tmp`."""
    outputs: Annotated[tuple[Text, ...], msgspec.Meta(max_length=MAX_PATTERNS)] = ()
    """Patterns of files in `/tmp` that are kept when it has ended: `*.png`, `plots/**`."""
    network: Annotated[tuple[Text, ...], msgspec.Meta(max_length=MAX_RULES)] = ()
    """What it may reach: `https://host/prefix`, `GET,POST https://host/prefix`, `tls://host`."""
    packages: Annotated[tuple[Requirement, ...], msgspec.Meta(max_length=MAX_PACKAGES)] = ()
    """Python packages that it can import beside the node's own: `numpy==2.1.0`, with hashes."""
    lock: Text = ""
    """A file of the checkout with more of them, one a line."""
    priority: Priority = "normal"
    """`background`: it waits while others do; every fourth slot of a node is for those that do."""


class UploadFile(Input, frozen=True, kw_only=True):
    """Keep a file for tasks; it is named by its content's hash."""

    content: Annotated[bytes, msgspec.Meta(max_length=FILE_BYTES)]
    """In base64."""


class FileView(View, frozen=True, kw_only=True):
    """A file that is kept for a week after its last use."""

    sha256: str
    size: int


class TaskView(View, frozen=True, kw_only=True):
    """A task by its facts."""

    id: TaskId
    state: TaskState
    by: PrincipalId
    node: str
    label: str
    at: float
    offset: Offset
    """The events with this subject after this offset hold its output from the start."""
    result: TaskResult | None = None
    attempt: int = 0
    """How often it was started; over 1 if its node died meanwhile. The last one counts."""
    reason: str = ""
    """Why a task that was cancelled or cut off has not ended, in a sentence."""
    reported: TaskReported | None = None
    """What its node reported after the task was given up, as `result` says."""
    hidden: bool = False
    """Its output is not the caller's to read."""
    expired: bool = False
    """Its output was kept for as long as the settings say, and is erased."""


class TaskList(View, frozen=True, kw_only=True):
    """Tasks, newest first: a page of all that a query names."""

    tasks: tuple[TaskView, ...]
    total: int = 0
    """How many the query names in all, of those that control remembers."""
    next: str = ""
    """What to give as `after` for the next page; empty on the last one."""


class Reason(Input, frozen=True, kw_only=True):
    """Why."""

    reason: Text = ""


# -- proposals -------------------------------------------------------------------------------

ProposalState = Literal[
    "received",
    "pending",
    "testing",
    "waiting",
    "approved",
    "promoted",
    "rejected",
    "refused",
    "rolled-back",
]
SETTLED: frozenset[ProposalState] = frozenset(
    {"promoted", "rejected", "refused", "rolled-back", "waiting"}
)
"""States in which nothing more happens by itself."""


class SubmitProposal(Input, frozen=True, kw_only=True):
    """Edits against a base revision (`main` and `dev` stand for their heads)."""

    base: str
    edits: Annotated[tuple[TreeEdit, ...], msgspec.Meta(min_length=1, max_length=256)]
    message: Text
    proposal: ProposalId | None = None
    """Give the same id to repeat a request safely."""
    live: bool = False
    """Enter the live documents at once; only for people, who could type it as well."""


class ProposalView(View, frozen=True, kw_only=True):
    """A proposal by its facts."""

    id: ProposalId
    repo: str
    base: Revision
    author: PrincipalId
    message: str
    digest: str
    state: ProposalState
    reason: str
    """Why it is in this state, in a sentence."""
    changes: tuple[Change, ...]
    steps: tuple[StepResult, ...] = ()
    findings: tuple[GateFinding, ...] = ()
    """What a person has to look at before it may be promoted."""
    factors: tuple[RiskFactor, ...] = ()
    """What makes it risky, with points and figures."""
    candidate: Revision | None = None
    batch: int = 1
    """How many proposals the candidate holds."""
    revision: Revision | None = None
    """The `main` it became."""
    commit: Revision | None = None
    """Of exactly its own edits, in the candidate or in `main`."""
    needs: int = 0
    """How many more people have to approve it."""
    in_dev: bool = False
    """It was accepted into the live documents, or is part of `main`."""
    approvals: tuple[PrincipalId, ...] = ()
    long: bool = False
    """It is approved only by who fetched the whole of it (`GET /proposals/{id}/diff`)."""
    part_of: ProposalId | None = None
    """The proposal of which a person took this part; the author is the same."""
    at: float = 0.0


class ProposalDiff(View, frozen=True, kw_only=True):
    """A page of the whole change of a proposal, exactly as it would become `main`."""

    proposal: ProposalId
    digest: str
    changes: tuple[Change, ...]
    """Whole diffs, or pieces of them: a diff that goes on has `cut`, and the next page begins with
    the rest of it."""
    next: str = ""
    """What to give as `after` for the next page; empty on the last one."""
    shown: str = ""
    """On the last page, what an approval shows that the caller was given every page."""


class ProposalList(View, frozen=True, kw_only=True):
    """Proposals, newest first: a page of all that a query names."""

    proposals: tuple[ProposalView, ...]
    total: int = 0
    """How many the query names in all."""
    next: str = ""
    """What to give as `after` for the next page; empty on the last one."""


class CaseView(View, frozen=True, kw_only=True):
    """One test, how it ended for a proposal, and before that for whichever."""

    case: str
    step: str = ""
    """Of the pipeline; empty in the history of a repository."""
    outcome: CaseOutcome | None = None
    seconds: float = 0.0
    detail: str = ""
    history: tuple[CaseOutcome, ...] = ()
    """Its last outcomes in the repository, the newest first."""


class CaseList(View, frozen=True, kw_only=True):
    """Tests, in the order in which they ran."""

    cases: tuple[CaseView, ...]
    missing: tuple[str, ...] = ()
    """Steps whose single results control no longer holds; they are in the audit log."""


class PendingList(View, frozen=True, kw_only=True):
    """Proposals that wait beside `dev`, the first that came first."""

    pending: tuple[Pending, ...]


class Review(Input, frozen=True, kw_only=True):
    """A person's review of a proposal, bound to its digest."""

    digest: str
    comment: Text = ""
    shown: Annotated[str, msgspec.Meta(max_length=64)] = ""
    """What the last page of the whole change gave (`ProposalDiff.shown`); needed where a list of
    proposals shows less than the whole."""


class PartReview(Review, frozen=True, kw_only=True):
    """A person's review of a proposal, or of a part of it."""

    part: PartChoice | None = None
    """Which cells, hunks or files; None for the whole. The digest is the whole's all the same."""


class Rollback(Input, frozen=True, kw_only=True):
    """Roll `main` back to the tree of `to` with a new commit."""

    to: str
    reason: Text = ""


class RolledBack(View, frozen=True, kw_only=True):
    """The new `main` that a rollback made."""

    revision: Revision


# -- repositories ----------------------------------------------------------------------------


class CreateRepo(Input, frozen=True, kw_only=True):
    """A new repository from files, notebooks as their JSON."""

    name: Name
    files: Annotated[dict[str, str], msgspec.Meta(max_length=5_000)]
    """Text by path, at most 5,000; import more with proposals."""
    blobs: Annotated[dict[str, bytes], msgspec.Meta(max_length=5_000)] = msgspec.field(
        default_factory=dict[str, bytes]
    )
    """What is no text in UTF-8, by path, in base64."""
    links: Annotated[dict[str, str], msgspec.Meta(max_length=5_000)] = msgspec.field(
        default_factory=dict[str, str]
    )
    """Symbolic links: target by path."""
    executable: Annotated[tuple[str, ...], msgspec.Meta(max_length=5_000)] = ()
    """Which of the files and blobs are programs."""
    message: Text = "import"


class RepoView(View, frozen=True, kw_only=True):
    """A repository and its two branches."""

    name: str
    dev: Revision
    main: Revision


class RepoList(View, frozen=True, kw_only=True):
    """All repositories."""

    repos: tuple[RepoView, ...]


class RevisionView(View, frozen=True, kw_only=True):
    """A revision with its files."""

    revision: Revision
    repo: str
    parents: tuple[Revision, ...]
    tree: str
    author: PrincipalId
    """The first of the authors."""
    authors: tuple[PrincipalId, ...]
    message: str
    trailers: tuple[Trailer, ...]
    at: int
    body: bytes
    """The exact bytes that are hashed and signed (`core/revision_v2.py`)."""
    signature: bytes
    files: tuple[TreeEntry, ...]


# -- nodes, agents, people -------------------------------------------------------------------


class NodeView(View, frozen=True, kw_only=True):
    """An execution or labs node."""

    id: PrincipalId
    role: Literal["execution", "labs"]
    connected: bool
    tier: Tier
    since: float
    running: int
    revisions: dict[str, Revision] = {}
    """By repository, the revision of `main` that is checked out and healthy there."""
    profile: NodeProfile = NodeProfile()
    """As the node says it."""


class NodeList(View, frozen=True, kw_only=True):
    """All enrolled nodes."""

    nodes: tuple[NodeView, ...]


class PeerView(View, frozen=True, kw_only=True):
    """A node or agent that is connected to the hub."""

    id: PrincipalId
    labels: tuple[str, ...] = ()
    """By which messages find it: `role=...` is enrolled, the rest is what it reports."""
    load: int = 0
    """How many envelopes are with it, not settled."""
    hub: str = ""
    """The address of the hub that it is connected to."""
    subprotocol: str = ""
    """How its frames are written."""
    items: int = 0
    """What it has sent to this hub since that was started: facts, posts, settlements, frames."""
    bytes: int = 0
    cpu_s: float = 0.0
    """What reading that took."""
    paused_s: float = 0.0
    """For how long it was not read from, because it spent more than it may."""


class PeerList(View, frozen=True, kw_only=True):
    """Who is connected."""

    peers: tuple[PeerView, ...]


class DeadLetterView(View, frozen=True, kw_only=True):
    """An envelope or an entry of the journal that could not be delivered or read."""

    destination: PrincipalId
    position: str
    reason: str
    detail: str
    at: float
    attempts: int
    source: str = ""
    envelope: str = ""
    lane: str = ""
    codec: str = ""
    size: int = 0
    preview: bytes = b""
    """The first bytes, base64; of commands none."""


class DeadLetterList(View, frozen=True, kw_only=True):
    """Dead letters, oldest first for each destination."""

    letters: tuple[DeadLetterView, ...]


class DeadLetterPositions(Input, frozen=True, kw_only=True):
    """Dead letters of one destination."""

    destination: Annotated[str, msgspec.Meta(max_length=80)]
    positions: Annotated[
        tuple[Annotated[str, msgspec.Meta(max_length=40)], ...],
        msgspec.Meta(min_length=1, max_length=1000),
    ]


class LetterCount(View, frozen=True, kw_only=True):
    """How many dead letters were changed."""

    count: int


class RestartView(View, frozen=True, kw_only=True):
    """A part of the system (a store, the server, a node) that was started again."""

    part: str
    count: int
    """How often, as far as the journal reaches."""
    at: float
    """When it happened last."""
    cause: RestartCause
    exit_code: int | None = None


class NodeLoadView(View, frozen=True, kw_only=True):
    """How busy a connected node is, as it says itself."""

    id: PrincipalId
    at: float
    """When the hub got it (Unix seconds)."""
    load: NodeLoad
    queue_waiting: int = 0
    """Envelopes that wait in its queue."""


class LoadView(View, frozen=True, kw_only=True):
    """How busy the system is now."""

    at: float
    tasks: dict[str, int]
    """Open tasks by state."""
    finished: dict[str, int]
    """Tasks that ended since the server started, by status."""
    proposals: dict[str, int]
    """By state."""
    queue: dict[str, int]
    """Envelopes that wait, by lane."""
    nodes: tuple[NodeLoadView, ...]
    """Of the nodes that are connected to this server."""
    server_cpu: float = 0.0
    """Processors that the server's own process uses, 0 to their number."""
    server_resident_bytes: int = 0
    banner: str = ""
    restarts: tuple[RestartView, ...] = ()


class CardView(View, frozen=True, kw_only=True):
    """Something about principals or the system that a person should look at."""

    kind: Literal["alarm", "quarantine", "pause", "rollout", "node", "restart", "log"]
    subject: str
    title: str
    detail: str
    figures: dict[str, Any] = {}
    acts: tuple[str, ...] = ()
    """Ids of the facts that it rests on."""
    done: str = ""
    """What was done about it."""
    at: float
    urgent: bool = False
    """Whether the banner says it too."""
    hint: str = ""
    """What to do."""


class RetentionView(View, frozen=True, kw_only=True):
    """What is kept of what grows, and how much of it there is."""

    journal_days: float
    journal_mb: float
    outputs_days: float
    """0: for ever."""
    files_days: float
    at: float | None = None
    """When it was last seen to (Unix seconds)."""
    journal_facts: int = 0
    journal_bytes: int = 0
    journal_oldest_at: float | None = None
    facts_removed: int = 0
    """From the journal, since the server started; so are the next ones."""
    outputs_expired: int = 0
    files_removed: int = 0
    problem: str = ""
    """Why the last time failed."""


class StatusView(View, frozen=True, kw_only=True):
    """The system at a glance."""

    version: str
    started_at: float
    tier: Tier
    """The weakest isolation among connected nodes."""
    nodes: tuple[NodeView, ...]
    repos: tuple[RepoView, ...]
    tasks_running: int
    waiting: int
    """Proposals that wait for a person."""
    journal: Offset
    policy: str
    """Hash of the policy in force."""
    banner: str = ""
    """A warning for everybody, such as unsandboxed execution."""
    restarts: tuple[RestartView, ...] = ()
    cards: tuple[CardView, ...] = ()
    """What governance has to show, the most urgent kind first."""
    retention: RetentionView | None = None
    """None in a server without it."""


class Release(Input, frozen=True, kw_only=True):
    """End a quarantine."""

    new_key: bool = False
    """Its certificate stays void, and it has to join again."""


class Released(View, frozen=True, kw_only=True):
    """What became of it."""

    released: bool
    needs: int
    """How many more people have to ask."""
    probation_until: float | None
    """Unix seconds until which all that it proposes waits for a person."""


class ChangeView(View, frozen=True, kw_only=True):
    """A change of somebody, and what undoing it would meet."""

    proposal: ProposalId
    repo: str
    state: ProposalState
    message: str
    paths: tuple[str, ...]
    undo: str
    """`clean`, or why not; empty where nothing is merged."""
    at: float


class QuarantineView(View, frozen=True, kw_only=True):
    """How a node or agent stands, and what it has changed."""

    principal: PrincipalId
    quarantined: bool
    reason: str
    since: float | None
    release_asked_by: PrincipalId | None
    probation_until: float | None
    tasks_open: int
    """They are ended with a quarantine."""
    merged: tuple[ChangeView, ...]
    """In `dev` or `main`, the newest first."""
    unmerged: tuple[ChangeView, ...]
    """Under way; a quarantine rejects them."""


class CreateEnrolment(Input, frozen=True, kw_only=True):
    """Request a single-use token with which a node or agent gets its certificate."""

    kind: Literal["node", "agent"]
    name: Name
    node_role: Literal["execution", "labs"] = "execution"
    ttl_s: Annotated[int, msgspec.Meta(ge=1, le=86_400)] = 600


class EnrolmentView(View, frozen=True, kw_only=True):
    """The token holds the address, the CA to pin and a secret; it is shown once."""

    token: str
    expires_at: float


class Enrol(Input, frozen=True, kw_only=True):
    """A token's secret and a certificate signing request (PEM)."""

    secret: Annotated[str, msgspec.Meta(max_length=256)]
    csr: Annotated[str, msgspec.Meta(max_length=16_384)]


class Renew(Input, frozen=True, kw_only=True):
    """A certificate signing request (PEM), to renew the caller's certificate."""

    csr: Annotated[str, msgspec.Meta(max_length=16_384)]


class Enrolled(View, frozen=True, kw_only=True):
    """What an enrolled node or agent needs: certificate, CA, and the keys to verify with."""

    id: PrincipalId
    certificate: str
    ca: str
    hub_url: str
    grant_key: bytes
    revision_key: bytes
    node_role: Literal["execution", "labs", ""] = ""


class CreatePerson(Input, frozen=True, kw_only=True):
    """A person who may sign in with a token."""

    name: Name
    role: Role


class PersonView(View, frozen=True, kw_only=True):
    """A person; the token is shown only when it is created."""

    id: PrincipalId
    """Never used again, also when the name is: the second `ann` is `person/ann~2`."""
    role: Role
    name: str = ""
    generation: int = 0
    """Under which they act now; what was done under an older one no longer counts."""
    token: str = ""


class ChangePerson(Input, frozen=True, kw_only=True):
    """Another role, or a new token; a lost right or a new token ends what was signed in."""

    role: Role | None = None
    new_token: bool = False


class PersonList(View, frozen=True, kw_only=True):
    """All people."""

    people: tuple[PersonView, ...]


class CreateToken(Input, frozen=True, kw_only=True):
    """A token of the caller's own, with fewer rights or a shorter life than their role."""

    label: Annotated[str, msgspec.Meta(max_length=200, pattern=r"^[^\x00]*$")] = ""
    scopes: Annotated[tuple[Permission, ...], msgspec.Meta(max_length=64)] = ()
    """What it may do; everything that the caller may if empty."""
    ttl_s: Annotated[int, msgspec.Meta(ge=60, le=2_592_000)] = 86_400


class TokenView(View, frozen=True, kw_only=True):
    """A token; its secret is shown only when it is created."""

    id: str
    principal: PrincipalId
    kind: SessionKind
    label: str
    scopes: tuple[Permission, ...]
    created_at: float
    expires_at: float
    token: str = ""


class TokenList(View, frozen=True, kw_only=True):
    """The caller's tokens, oldest first."""

    tokens: tuple[TokenView, ...]


# -- policy ----------------------------------------------------------------------------------


class BudgetFigure(View, frozen=True, kw_only=True):
    """One figure of an agent's budget, of the last hour."""

    used: float
    most: float | None
    """None: as much as it likes."""


class WhoamiView(View, frozen=True, kw_only=True):
    """The caller, as the server has established it."""

    id: PrincipalId
    role: Role
    generation: int
    """Under which it acts; what was done under an older one no longer counts."""
    state: Literal["active", "paused", "quarantined", "probation"]
    session: str
    """Id of the token by which it acts, where that is not its own."""
    expires_at: float | None
    """Unix seconds at which that token ends."""
    permissions: tuple[Permission, ...]
    """What role and token allow."""
    tasks_open: int
    proposals_open: int
    budget: dict[str, BudgetFigure]
    """Of an agent; people have none."""
    limits: dict[str, float]
    """How many proposals may be under way and be made in an hour; beyond, they are refused."""


class RuleView(View, frozen=True, kw_only=True):
    """One rule of the policy."""

    id: str
    effect: Literal["permit", "forbid"]
    hint: str
    text: str


class Explanation(View, frozen=True, kw_only=True):
    """The rules about an action and, for a permission, what they decide for a role."""

    action: str
    policy: str
    """Hash of the policy in force."""
    rules: tuple[RuleView, ...]
    role: Role
    allowed: bool | None
    """Null: whether it is allowed depends on more than the role."""
    decided_by: tuple[str, ...]


PolicyText = Annotated[str, msgspec.Meta(max_length=32_000)]


class CheckPolicy(Input, frozen=True, kw_only=True):
    """Files of a policy, by name; those of the policy in force stand for what is left out."""

    files: Annotated[dict[Name, PolicyText], msgspec.Meta(min_length=1, max_length=64)]


class PolicyCheck(View, frozen=True, kw_only=True):
    """Whether files are a policy that can be relied on, and what roles would get or lose."""

    valid: bool
    reason: str
    """Why not."""
    gained: dict[Role, tuple[Permission, ...]]
    lost: dict[Role, tuple[Permission, ...]]


# -- audit -----------------------------------------------------------------------------------


class AuditEntry(View, frozen=True, kw_only=True):
    """One leaf of the Merkle log."""

    index: int
    offset: Offset
    body: str
    """The leaf: canonical JSON (RFC 8785), exactly as hashed."""
    leaf: str
    """SHA-256 of 0x00 || body (RFC 6962), hex."""
    fact: dict[str, Any] = {}
    """The fact for people to read, with the data that the leaf commits to; never hashed."""
    erased: bool = False
    """Whether those data were erased."""


class AuditEntries(View, frozen=True, kw_only=True):
    """Entries in log order."""

    entries: tuple[AuditEntry, ...]
    next: int | None = None
    """What to give as `after` to go on; None at the end of the log. Entries that are not among
    those asked for are passed over some thousands at a time, so a page may be short, or empty."""


class CheckpointView(View, frozen=True, kw_only=True):
    """A signed checkpoint in C2SP tlog-checkpoint form."""

    origin: str
    """The log's name."""
    size: int
    root: str
    note: str
    keys: tuple[tuple[str, ...], ...]
    """Verifier keys (C2SP vkeys) that ever signed, a row for each life of the signer."""


class AuditProofView(View, frozen=True, kw_only=True):
    """The proof that an entry is in the signed log, in C2SP tlog-proof form."""

    index: int
    size: int
    proof: str


class Ok(View, frozen=True, kw_only=True):
    """Done."""

    ok: bool = True
