r"""Refuses Python code that could only fail or do harm in the box, before anything starts.

The guard gives a fast answer, with a line and a reason, and a signal of risk. It is never the
boundary: code that it allows still meets namespaces, seccomp and Landlock. It uses only the
standard library: as a program, it reads code from its standard input and prints what `check`
returns as JSON (`runtime.py` runs it so for code that would hold up other tasks).

    >>> check("import math\nimport ctypes\n")
    Finding(line=2, reason='import of ctypes is not allowed: it reaches past the interpreter')
"""

from __future__ import annotations

import ast
import json
import resource
import sys
import warnings
from dataclasses import asdict, dataclass, field

MAX_BYTES = 1_000_000
_BYPASS = "it reaches past the interpreter"
_NET = "there is no network in the box"
DENIED_MODULES = {
    **dict.fromkeys(("ctypes", "_ctypes", "cffi", "_cffi_backend", "_posixsubprocess"), _BYPASS),
    **dict.fromkeys(
        ("socket", "_socket", "socketserver", "ftplib", "smtplib", "poplib", "imaplib", "nntplib"),
        _NET,
    ),
    **dict.fromkeys(("telnetlib", "xmlrpc", "urllib.request", "http.client", "http.server"), _NET),
    **dict.fromkeys(("requests", "httpx", "aiohttp", "paramiko"), _NET),
    "pty": "there is no terminal in the box",
}
DENIED_CALLS = {
    "eval": "it hides what is run",
    "exec": "it hides what is run",
    "__import__": "it hides what is imported; use an import statement",
    "os.fork": "use concurrent.futures or multiprocessing",
    "os.forkpty": "there is no terminal in the box",
    "os.setuid": "there is nobody else in the box",
    "os.setgid": "there is nobody else in the box",
    "os.chroot": "there is no privilege in the box",
    "os.mknod": "there is no privilege in the box",
}
DENIED_ATTRIBUTES = {
    "__subclasses__": "it reaches every class of the interpreter",
    "__globals__": "it reaches other modules' names",
    "__code__": "it rewrites functions",
    "__builtins__": "it reaches past the guard",
}
MAX_CPU_S, MAX_MEMORY = 5, 1 << 30
"""Of the guard's own process: CPython needs 97 s to parse an f-string with 300,000 fields."""
_IMPORTERS = frozenset({"importlib.import_module", "import_module"})


@dataclass(frozen=True, slots=True)
class Finding:
    """Why code is refused, and where: `line` counts from 1, and 0 means the whole text."""

    line: int
    reason: str


@dataclass(frozen=True)
class GuardPolicy:
    """What is refused; with `only`, every other import is refused as well."""

    modules: dict[str, str] = field(default_factory=lambda: dict(DENIED_MODULES))
    calls: dict[str, str] = field(default_factory=lambda: dict(DENIED_CALLS))
    attributes: dict[str, str] = field(default_factory=lambda: dict(DENIED_ATTRIBUTES))
    only: frozenset[str] = frozenset()


_DEFAULT = GuardPolicy()
_WITH_NETWORK = GuardPolicy(modules={k: v for k, v in DENIED_MODULES.items() if v is not _NET})


def policy_for(*, network: bool) -> GuardPolicy:
    """Return what is refused to a task that may reach something of the network, or nothing.

    >>> check("import socket", policy_for(network=True))
    """
    return _WITH_NETWORK if network else _DEFAULT


def check(code: str | bytes, policy: GuardPolicy = _DEFAULT) -> Finding | None:
    """Return the first line of `code` that is refused, with the reason, or None.

    Code that does not parse is allowed: the interpreter's own message explains it better. Code
    that no parser should have to read (null bytes, too long, nested too deeply) is refused.
    Bytes are read by the encoding that they name, as the interpreter reads a file.
    """
    if len(code) > MAX_BYTES:
        return Finding(0, f"the code has more than {MAX_BYTES} characters")
    text = code if isinstance(code, str) else code.decode("latin-1")
    if "\0" in text:
        return Finding(text[: text.index("\0")].count("\n") + 1, "the code holds a null byte")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(code)
        findings = [finding for node in ast.walk(tree) for finding in _inspect(node, policy)]
    except (RecursionError, MemoryError):
        return Finding(0, "the code is nested too deeply, or too much of it")
    except (SyntaxError, ValueError):
        return None
    return min(findings, key=lambda finding: finding.line, default=None)


def _inspect(node: ast.AST, policy: GuardPolicy) -> list[Finding]:
    match node:
        case ast.Import(names=names):
            return _imports(node.lineno, [alias.name for alias in names], policy)
        case ast.ImportFrom(module=str(module), names=names, level=0):
            below = [f"{module}.{alias.name}" for alias in names]
            return _imports(node.lineno, [module], policy) or _imports(
                node.lineno, [name for name in below if name in policy.modules], policy
            )
        case ast.Call(func=func, args=args):
            return _call(node.lineno, _dotted(func), args, policy)
        case ast.Attribute(attr=name) if name in policy.attributes:
            return [Finding(node.lineno, f"{name} is not allowed: {policy.attributes[name]}")]
        case ast.Name(id=name) if name in policy.attributes:
            return [Finding(node.lineno, f"{name} is not allowed: {policy.attributes[name]}")]
    return []


def _imports(line: int, names: list[str], policy: GuardPolicy) -> list[Finding]:
    findings = []
    for name in names:
        parts = name.split(".")
        above = [".".join(parts[: i + 1]) for i in range(len(parts))]
        denied = next((module for module in above if module in policy.modules), None)
        if denied is not None:
            reason = f"import of {name} is not allowed: {policy.modules[denied]}"
            findings.append(Finding(line, reason))
        elif policy.only and not policy.only.intersection(above):
            reason = f"import of {name} is not on the list of allowed modules"
            findings.append(Finding(line, reason))
    return findings


def _call(line: int, name: str, args: list[ast.expr], policy: GuardPolicy) -> list[Finding]:
    if name in policy.calls:
        return [Finding(line, f"{name}() is not allowed: {policy.calls[name]}")]
    if name in _IMPORTERS:
        match args:
            case [ast.Constant(value=str(module)), *_]:
                return _imports(line, [module], policy)
            case _:
                return [Finding(line, f"{name}() of a computed name is not allowed")]
    return []


def _dotted(node: ast.expr) -> str:
    """Return the name of an expression such as `os.fork`, or "" if it is not a dotted name."""
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=value, attr=attr):
            prefix = _dotted(value)
            return f"{prefix}.{attr}" if prefix else ""
    return ""


def main() -> None:
    """Check the code on standard input, within limits of this process's own."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (MAX_CPU_S, MAX_CPU_S))
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
    code = sys.stdin.buffer.read()
    text = code if sys.argv[1] == "bytes" else code.decode("utf-8", "surrogatepass")
    finding = check(text, policy_for(network=sys.argv[2] == "network"))
    sys.stdout.write(json.dumps(asdict(finding) if finding else None))


if __name__ == "__main__":
    main()
