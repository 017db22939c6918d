"""Which modules, names and attributes the rule over syntax trees understands.

Everything that is not here is not understood. A module is understood whole (except for names that
begin with an underscore, and modules that it has imported itself), or by the names listed.
"""

from __future__ import annotations

WHOLE = frozenset(
    [
        "__future__",
        "abc",
        "argparse",
        "array",
        "base64",
        "binascii",
        "bisect",
        "calendar",
        "cmath",
        "colorsys",
        "collections",
        "collections.abc",
        "configparser",
        "contextlib",
        "contextvars",
        "copy",
        "csv",
        "dataclasses",
        "datetime",
        "decimal",
        "difflib",
        "email",
        "email.message",
        "email.utils",
        "enum",
        "errno",
        "fnmatch",
        "fractions",
        "functools",
        "glob",
        "graphlib",
        "gzip",
        "hashlib",
        "heapq",
        "hmac",
        "html",
        "html.entities",
        "html.parser",
        "io",
        "ipaddress",
        "itertools",
        "json",
        "keyword",
        "linecache",
        "locale",
        "logging",
        "lzma",
        "math",
        "mimetypes",
        "numbers",
        "pathlib",
        "platform",
        "posixpath",
        "pprint",
        "queue",
        "random",
        "re",
        "reprlib",
        "secrets",
        "shlex",
        "sqlite3",
        "stat",
        "statistics",
        "string",
        "stringprep",
        "struct",
        "tempfile",
        "textwrap",
        "time",
        "token",
        "tokenize",
        "tomllib",
        "typing",
        "typing_extensions",
        "unicodedata",
        "urllib",
        "urllib.parse",
        "uuid",
        "xml",
        "xml.etree",
        "xml.etree.ElementTree",
        "zipfile",
        "zlib",
        "zoneinfo",
        "warnings",
    ]
)
"""Standard modules that are understood whole."""

PARTS = {
    "ast": """literal_eval parse walk iter_child_nodes dump unparse get_docstring NodeVisitor AST
        Module FunctionDef AsyncFunctionDef ClassDef Name Attribute Constant Call Expr Import
        ImportFrom Assign Return arg arguments stmt expr Load Store""",
    "asyncio": """Queue QueueEmpty QueueFull Lock Event Condition Semaphore BoundedSemaphore
        TaskGroup Task Future Timeout TimeoutError CancelledError timeout timeout_at wait_for wait
        gather sleep shield create_task get_running_loop current_task iscoroutinefunction
        as_completed Runner run to_thread StreamReader StreamWriter AbstractEventLoop TimerHandle
        IncompleteReadError FIRST_COMPLETED ALL_COMPLETED all_tasks ensure_future new_event_loop
        wrap_future         BaseTransport Protocol Transport AbstractServer Server""",
    "concurrent": "futures",
    "concurrent.futures": "Future TimeoutError CancelledError as_completed wait",
    "http": "HTTPStatus HTTPMethod",
    "http.cookies": "SimpleCookie Morsel",
    "inspect": """signature Parameter Signature isfunction isclass ismethod iscoroutinefunction
        isawaitable isabstract ismodule cleandoc getdoc iscoroutine isasyncgenfunction
        isgeneratorfunction""",
    "operator": """add sub mul truediv floordiv mod neg pos eq ne lt le gt ge and_ or_ xor not_ inv
        itemgetter contains index concat countOf indexOf getitem matmul pow abs is_ is_not truth
        lshift rshift attrgetter""",
    "os": """path sep altsep linesep pathsep curdir pardir devnull name environ fspath PathLike
        getcwd listdir scandir stat lstat stat_result walk access R_OK W_OK X_OK F_OK getpid getuid
        geteuid cpu_count urandom strerror fsencode fsdecode get_terminal_size makedirs mkdir
        rename replace remove unlink rmdir utime getenv DirEntry terminal_size chmod truncate open
        close fsync sync fstat fchmod chown lchown readlink symlink link O_RDONLY O_WRONLY
        O_RDWR O_CREAT O_EXCL O_CLOEXEC O_NOFOLLOW O_NONBLOCK O_APPEND O_TRUNC O_DIRECTORY""",
    "signal": "Signals SIGTERM SIGINT SIGKILL SIGHUP",
    "ssl": """SSLError SSLContext CERT_REQUIRED CERT_NONE PROTOCOL_TLS_CLIENT PROTOCOL_TLS_SERVER
        TLSVersion create_default_context Purpose""",
    "sys": """version_info version maxsize byteorder float_info int_info hash_info platform argv
        executable stdin stdout stderr getsizeof intern maxunicode implementation exit
        getdefaultencoding getfilesystemencoding prefix base_prefix base_exec_prefix exec_prefix
        stdlib_module_names""",
    "shutil": """copyfile copyfileobj copy copy2 copytree rmtree move which disk_usage
        get_terminal_size Error""",
    "threading": """Lock RLock Event Condition Semaphore BoundedSemaphore local current_thread
        main_thread get_ident""",
    "traceback": "format_exception format_exc format_exception_only TracebackException",
    "types": """SimpleNamespace MappingProxyType TracebackType NoneType EllipsisType UnionType
        GenericAlias ModuleType FunctionType MethodType GeneratorType NotImplementedType""",
    "weakref": "WeakKeyDictionary WeakValueDictionary WeakSet ref proxy",
    "importlib": "metadata resources",
    "importlib.metadata": "version PackageNotFoundError metadata",
    "importlib.resources": "files as_file",
    "bz2": "compress decompress BZ2File open",
    "subprocess": """CompletedProcess TimeoutExpired CalledProcessError SubprocessError PIPE DEVNULL
        STDOUT""",
}
"""Standard modules of which only these names are understood; in annotations any name is."""

ANNOTATION_ONLY = frozenset({"types", "subprocess", "socket", "ssl", "threading", "concurrent"})

TEST_WHOLE = frozenset({"hypothesis", "hypothesis.strategies", "doctest"})
TEST_PARTS = {
    "unittest": """TestCase IsolatedAsyncioTestCase main skip skipIf skipUnless expectedFailure
        SkipTest mock""",
    "unittest.mock": """Mock MagicMock AsyncMock NonCallableMock ANY call sentinel patch
        create_autospec""",
    "pytest": """fixture mark raises approx param warns skip importorskip fail deprecated_call
        MonkeyPatch CaptureFixture LogCaptureFixture TempPathFactory FixtureRequest""",
}
"""What a new test may use besides."""

LIBRARIES = frozenset(
    [
        "numpy",
        "pandas",
        "scipy",
        "sklearn",
        "matplotlib",
        "seaborn",
        "sympy",
        "networkx",
        "statsmodels",
        "polars",
        "pyarrow",
        "xarray",
        "msgspec",
        "attrs",
        "attr",
        "pydantic",
        "yaml",
        "requests",
        "httpx",
        "click",
        "typer",
        "rich",
        "tqdm",
        "jinja2",
        "dateutil",
        "pytz",
        "PIL",
        "torch",
        "lightning",
        "jax",
        "plotly",
        "altair",
        "bokeh",
        "ipywidgets",
        "anywidget",
        "tabulate",
        "orjson",
        "structlog",
    ]
)
"""Installed libraries that are understood except for the names in `HIDDEN`."""
FRAMEWORKS = frozenset(
    [
        "unittest",
        "pytest",
        "_pytest",
        "doctest",
        "hypothesis",
        "nose",
        "pluggy",
        "coverage",
        "nbclient",
        "nbformat",
        "nbconvert",
        "ipykernel",
        "IPython",
        "jupyter_client",
        "jupyter_core",
        "testpath",
        "tox",
        "xdist",
    ]
)
"""What runs tests; only a test may use the parts above."""

BUILTINS = frozenset(
    [
        "abs",
        "aiter",
        "all",
        "anext",
        "any",
        "ascii",
        "bin",
        "bool",
        "bytearray",
        "bytes",
        "callable",
        "chr",
        "classmethod",
        "complex",
        "dict",
        "dir",
        "divmod",
        "enumerate",
        "filter",
        "float",
        "format",
        "frozenset",
        "hasattr",
        "hash",
        "hex",
        "id",
        "int",
        "isinstance",
        "issubclass",
        "iter",
        "len",
        "list",
        "map",
        "max",
        "memoryview",
        "min",
        "next",
        "object",
        "oct",
        "open",
        "ord",
        "pow",
        "print",
        "property",
        "range",
        "repr",
        "reversed",
        "round",
        "set",
        "slice",
        "sorted",
        "staticmethod",
        "str",
        "sum",
        "super",
        "tuple",
        "type",
        "zip",
        "getattr",
        "setattr",
        "NotImplemented",
        "Ellipsis",
        "True",
        "False",
        "None",
        "__name__",
        "__doc__",
        "__file__",
        "__debug__",
    ]
)
"""Builtin functions that are understood; exceptions are too."""

HIDDEN = frozenset(
    [
        "sys",
        "os",
        "gc",
        "ctypes",
        "ctypeslib",
        "builtins",
        "importlib",
        "subprocess",
        "marshal",
        "multiprocessing",
        "posix",
        "nt",
        "runpy",
        "pickle",
        "atexit",
        "tb_frame",
        "tb_next",
        "f_back",
        "f_globals",
        "f_locals",
        "f_builtins",
        "f_code",
        "f_trace",
        "gi_frame",
        "gi_code",
        "cr_frame",
        "cr_code",
        "ag_frame",
        "ag_code",
        "func_globals",
        "func_code",
        "co_code",
        "co_consts",
        "settrace",
        "setprofile",
        "meta_path",
        "path_hooks",
        "exitfunc",
        "excepthook",
        "displayhook",
        "f2py",
        "distutils",
        "cpp_extension",
        "load_inline",
        "load_library",
        "load_extension",
        "enable_load_extension",
        "read_pickle",
        "to_pickle",
        "unsafe_load",
        "full_load",
        "unsafe_load_all",
        "UnsafeLoader",
        "FullLoader",
        "get_field",
        "ForwardRef",
        "get_type_hints",
        "create_subprocess_exec",
        "create_subprocess_shell",
        "open_code",
    ]
)
"""Attributes that lead to the interpreter, whatever they are read from."""

HIDDEN_WITH = {
    "pandas": frozenset({"eval", "query"}),
    "yaml": frozenset({"load", "load_all", "Loader"}),
}
"""Attributes that run text as code, in a file that imports this library."""

DUNDERS = frozenset(
    f"__{name}__"
    for name in [
        "name",
        "qualname",
        "doc",
        "module",
        "file",
        "all",
        "version",
        "author",
        "members",
        "init",
        "new",
        "post_init",
        "enter",
        "exit",
        "aenter",
        "aexit",
        "iter",
        "next",
        "aiter",
        "anext",
        "len",
        "contains",
        "getitem",
        "setitem",
        "delitem",
        "call",
        "repr",
        "str",
        "format",
        "hash",
        "int",
        "float",
        "index",
        "abs",
        "neg",
        "add",
        "radd",
        "sub",
        "rsub",
        "mul",
        "rmul",
        "truediv",
        "floordiv",
        "mod",
        "pow",
        "matmul",
        "and",
        "or",
        "xor",
        "invert",
        "cause",
        "context",
        "notes",
        "struct_fields",
        "struct_config",
        "dataclass_fields",
        "main",
        "length_hint",
        "bytes",
        "complex",
        "round",
        "trunc",
        "floor",
        "ceil",
        "divmod",
        "iadd",
        "isub",
        "imul",
        "fspath",
        "missing",
        "match_args",
        "slots",
        "reversed",
    ]
)
"""Special attributes and methods that are understood."""

OVERRIDDEN = frozenset(
    [
        "assertEqual",
        "assertTrue",
        "assertFalse",
        "assertRaises",
        "assertIs",
        "assertIn",
        "fail",
        "run",
        "debug",
        "addFailure",
        "addError",
        "addSuccess",
        "addSkip",
        "skipTest",
        "failureException",
        "wasSuccessful",
        "countTestCases",
        "outcome",
    ]
)
"""Attributes of test frameworks, which no patch may set on anything."""

MAGICS = frozenset({"%matplotlib inline", "%%time"})
"""Whole lines of a notebook that are no Python and are understood."""

DOORS = frozenset({
    "exec", "eval", "compile", "__import__", "globals", "locals", "getattr", "setattr", "delattr",
    "breakpoint",
})  # fmt: skip
"""Builtins whose name nothing else may bear: a local of that name would hide a call of them."""
