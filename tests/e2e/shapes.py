"""Image references, env files and commands in the shapes that people write, with names of our own.

Each is judged by a real docker in `test_as_docker.py`; nothing here says what docker thinks of it.
`stricter` says why we refuse what docker takes, `looser` why we take what docker refuses.
"""

from __future__ import annotations

from typing import NamedTuple

_HEX = "0123456789abcdef" * 8
_SHA256, _SHA384, _SHA512 = f"sha256:{_HEX[:64]}", f"sha384:{_HEX[:96]}", f"sha512:{_HEX}"

REFERENCES = (
    # Docker Hub: official, of a person, with and without what docker adds.
    *(
        "postgres",
        "postgres:16",
        "postgres:16.4-alpine3.20",
        "postgres:latest",
        "library/postgres",
    ),
    *("docker.io/postgres", "docker.io/library/postgres:16", "index.docker.io/postgres:16"),
    *("index.docker.io/acme/report", "registry-1.docker.io/acme/report:1", "docker.io/a/b/c:1"),
    *("acme/report", "1acme/2report:3", "a/b", "123/456", "x", "7", f"{'a' * 63}", f"{'a' * 65}"),
    # What stands between letters.
    *("acme/re-port", "acme/re---port", "acme/re_port", "acme/re__port", "acme/re.port"),
    *("a-b/c_d.e", "acme/re___port", "acme/re..port", "acme/re_.port", "acme/re-_port"),
    *("acme/-report", "acme/report-", "acme/_report", "acme/report_", "acme/.report", "a./b"),
    # Tags.
    *("acme/report:v1.2.3_RC-4", "acme/report:_x", "acme/report:A", "acme/report:0", "acme/x:_"),
    *("acme/report:2024-01-31T02-00", "acme/report:main-3f2a9c1", f"acme/report:{'t' * 128}"),
    *(f"acme/report:{'t' * 129}", "acme/report:.x", "acme/report:-x", "acme/report:1.2+build"),
    *("acme/report:feature/x", "acme/report:", "acme/report:1:2", ":1", "acme/report:a b"),
    # Other registries, by name, address and port.
    *("ghcr.io/acme/report:1", "quay.io/acme/report:1", "gcr.io/acme-1/report", "eu.gcr.io/a/b:1"),
    *("europe-west4-docker.pkg.dev/acme-prod/app/report:1", "public.ecr.aws/a1b2c3/report:1"),
    "123456789012.dkr.ecr.eu-west-1.amazonaws.com/team/report:1",
    *("acme.azurecr.io/report:20240131.2", "mcr.microsoft.com/acme/a/b:9.0", "lscr.io/acme/x"),
    *("registry.gitlab.com/acme/group/sub/report/job:1", "registry.k8s.io/acme/x:v1.30.0"),
    *("harbor.example.com/proxy.docker.io/library/postgres:16", "xn--80ak6aa92e.example/a:1"),
    *("registry.example.com:5000/report", "registry.example.com:443/acme/report:1", "a.b/c"),
    *("registry.example.com:99999/x", "registry.example.com:05000/x", "registry:5000/a/b:1"),
    *("registry.example.com:/x", "registry.example.com:port/x", "reg_istry:5000/a"),
    *("localhost/report:1", "localhost:5000/report", "127.0.0.1:5000/a", "10.1.2.3:5000/a/b:1"),
    *("host.docker.internal:5000/a", "my-registry:80/a", "report:5000/x", "localhost"),
    *("-acme.example.com/x", "acme-.example.com/x", "acme..com/x", "acme./x", ".example.com/x"),
    # Upper case is for hosts and tags.
    *("Registry.Example.COM/acme/report:1", "REGISTRY:5000/report:A", "acme/Report", "ACME"),
    *("registry.example.com/Acme/report", "ACME/Report:1", "GHCR.IO/acme/report"),
    # Depth and length.
    *("ghcr.io/a/b/c/d/e/f/g/h:1", "a/b/c", "/".join("abcdefghijklmnop") + ":1"),
    *(f"acme/{'r' * 240}", f"acme/{'r' * 251}", f"r.example.com/{'r' * 241}:1", "a/" * 200 + "a"),
    *(f"r.example.com/{'r' * 256}", f"{'h' * 60}.example.com/{'a/' * 80}b:{'t' * 100}"),
    # Digests.
    *(f"postgres@{_SHA256}", f"postgres:16@{_SHA256}", f"docker.io/library/postgres@{_SHA256}"),
    *(f"registry.example.com:5000/acme/report:1@{_SHA256}", f"acme/report@{_SHA384}"),
    *(f"ghcr.io/acme/report@{_SHA512}", f"acme/report@{_SHA256[:-1]}", f"acme/report@{_SHA256}0"),
    *(f"acme/report@{_SHA256.upper()}", f"acme/report@sha256:{'A' * 64}", "acme/report@sha256"),
    *(f"acme/report@md5:{_HEX[:32]}", f"acme/report@sha256:{'g' * 64}", f"@{_SHA256}", "a@latest"),
    *(f"acme/report@{_SHA256}:1", f"acme/report@{_SHA256}@{_SHA256}", _SHA256, _HEX[:64]),
    # What is no reference: paths, addresses, templates, what was pasted along.
    *("", " postgres", "postgres ", "post gres", "postgres\n", "postgres\t", "postgres\r"),
    *("a//b", "/a", "a/", "./report", "../report", "acme/../report", "~/report", "C:\\report"),
    *("http://registry.example.com/a", "https://ghcr.io/acme/report", "docker://postgres:16"),
    *("${REGISTRY}/report:${TAG}", "acme/report:$TAG", "<image>", "{{ image }}", "acme/report#1"),
    *('"acme/report"', "'acme/report'", "acme/report,", "acme/report;ls", "acme/report:1,2"),
    *(
        "acme/réport",
        "акме/report",
        "acme/report:тег",
        "acme/re\u200bport",
        "-acme",
        "--name",
        "@",
    ),
)
NEWER_REFERENCES = (
    # A docker of before 25 knows neither hosts in IPv6 nor those told by upper case alone, and counts
    # the registry, docker.io too, into the 255 letters of a path.
    *("[::1]:5000/report:1", "[2001:db8::1]/acme/report", "[2001:DB8::1]:5000/a/b:1"),
    *("[fe80::1%eth0]:5000/a", "[::g]/a", "[::1]", "[]/a", "Acme/report:1", "REGISTRY/report"),
    *(f"acme/{'r' * 250}", f"r.example.com/{'r' * 255}:1", f"{'h' * 99}.example/{'a/' * 100}b"),
)


class EnvFile(NamedTuple):
    """The content of an env file."""

    shape: str
    content: str | bytes
    stricter: str = ""
    looser: str = ""


_OUR_NAMES = "a name is letters, digits and _, as every shell and language can read it"

ENV_FILES = (
    EnvFile("plain", "LEVEL=info\nPORT=8080\n"),
    EnvFile("no newline at the end", "LEVEL=info"),
    EnvFile("empty", ""),
    EnvFile("blank lines", "\n\n  \n\t\nLEVEL=info\n\n"),
    EnvFile("comments", "# of the report\n  # indented\n#LEVEL=debug\nLEVEL=info\n"),
    EnvFile("a hash in a value", "COLOUR=#ff0000\nANCHOR=a#b\n"),
    EnvFile("a comment behind a value", "LEVEL=info # not debug\n"),
    EnvFile("quoted", 'SINGLE=\'a b\'\nDOUBLE="a b"\nHALF="a\n'),
    EnvFile("spaces in values", "A= b\nB=b \nC=  \nD=a  b\tc\n"),
    EnvFile("a space before =", "LEVEL =info\n"),
    EnvFile("a tab before =", "LEVEL\t=info\n"),
    EnvFile("indented names", "  A=1\n\tB=2\n"),
    EnvFile("odd white space before a name", "\x0cA=1\n\xa0B=2\n\u2003C=3\n"),
    EnvFile("a separator that is no white space to docker", "\x1cA=1\n", _OUR_NAMES),
    EnvFile("empty values", "A=\nB=\n"),
    EnvFile("= in values", "DSN=postgres://u:p@db/x?a=b&c=d\nB64=YQ==\n"),
    EnvFile("no name", "=info\n"),
    EnvFile("export", "export LEVEL=info\n"),
    EnvFile("of windows", "A=1\r\nB=2\r\n\r\n# c\r\n"),
    EnvFile("carriage returns inside", "A=1\rB=2\nC=3\r\r\n"),
    EnvFile("a byte order mark", "\ufeffA=1\nB=\ufeff2\n"),
    EnvFile("substitutions", "HOME_DIR=$HOME\nURL=http://${HOST}:${PORT:-80}\nA=$$\nB=`id`\n"),
    EnvFile("escapes", "A=a\\nb\nB=\\\nC=a\\\\b\n"),
    EnvFile("a line that goes on", "A=one \\\n  two=three\n"),
    EnvFile("JSON", 'CONFIG={"a": [1, 2], "b": "x=y"}\n'),
    EnvFile("a key in PEM, on one line", "KEY=-----BEGIN X-----\\nabc\\n-----END X-----\n"),
    EnvFile("a key in PEM, on several lines", "KEY=-----BEGIN X-----\nabc\n-----END X-----\n"),
    EnvFile("yaml", "LEVEL: info\n"),
    EnvFile("a name twice", "A=1\nB=2\nA=3\n"),
    EnvFile("the caller's own", "MINE\nB=2\n"),
    EnvFile("the caller's own, indented", "  MINE\n"),
    EnvFile("the caller's own and a space", "MINE \n"),
    EnvFile("one that the caller has not", "ABSENT\nB=2\n"),
    EnvFile("unicode", "NAME=Zoë ☃ 東京\nE=é\n"),
    EnvFile("separators of lines in values", "A=1\u20282\x0b3\x0c4\x855\n"),
    EnvFile("control characters", "A=\x1b[0m\x07\n"),
    EnvFile("lower case and underscores", "_a=1\n__B2_=2\nmixedCase=3\n"),
    EnvFile("a digit first", "1A=1\n", _OUR_NAMES),
    EnvFile("dots and dashes in a name", "app.level=info\n", _OUR_NAMES),
    EnvFile("a dash in a name", "app-level=info\n", _OUR_NAMES),
    EnvFile("a letter that is not ASCII in a name", "É=1\n", _OUR_NAMES),
    EnvFile("brackets in a name", "A[0]=1\n", _OUR_NAMES),
    EnvFile("not UTF-8", b"NAME=Zo\xeb\n"),
    EnvFile("of UTF-16", "A=1\n".encode("utf-16")),
    EnvFile("a NUL in a value", "A=1\x002\n", "no program can get it"),
    EnvFile("a name of ours", "ATEMPORAL_X=1\n", "such names are kept for us"),
    EnvFile(
        "a line of 70 000 letters",
        f"A={'x' * 70_000}\n",
        looser="only docker's reader of files stops at 64 KiB: a container takes it",
    ),
    EnvFile("a line of 140 000 letters", f"A={'x' * 140_000}\n"),
)


COMMANDS: tuple[tuple[str, ...], ...] = (
    (),
    ("true",),
    ("report", "--month", "2024-01"),
    ("report", "--month=2024-01", "-v", "-o", "json"),
    ("sh", "-c", "echo $HOME; exit 7"),
    ("sh", "-c", 'for f in *; do echo "$f"; done | sort > /tmp/x'),
    ("sh", "-c", "set -e\necho one\necho two\n"),
    ("sh", "-c", 'exec "$0" "$@"', "report", "-x"),
    ("bash", "-lc", "source /etc/profile && report"),
    ("python", "-m", "http.server", "8080", "--bind", "0.0.0.0"),
    ("python", "-c", "import sys\nprint(sys.argv)", "a b", ""),
    ("gunicorn", "app:app", "--timeout", "120", "-w", "4", "-e", "A=1"),
    ("java", "-Xmx512m", "-Dkey=value with spaces", "-jar", "/app.jar"),
    ("node", "--max-old-space-size=512", "index.js"),
    ("psql", "postgres://u:p@db/x?a=b&c=d", "-c", "SELECT 'a', \"b\" FROM c;"),
    ("curl", "-H", "Authorization: Bearer x", "--data", '{"a": [1, "b"]}', "http://h/"),
    ("tar", "-xf-"),
    ("tar", "xzf", "-", "-C", "/data"),
    ("find", "/data", "-name", "*.log", "-exec", "rm", "{}", ";"),
    ("xargs", "-0", "--", "rm"),
    ("env", "-i", "A=1", "B=", "sh"),
    ("echo", ""),
    ("echo", "", "", "x"),
    ("echo", " ", "\t", "\n"),
    ("echo", "'", '"', "`", "\\", "$", "!", "#", "*", "?", "~"),
    ("echo", "--", "-", "---", "-1"),
    ("echo", "--help", "--version", "-h", "--at", "tomorrow", "--in", "5m", "--port", "80"),
    ("echo", "%s", "%%", "$$", "${A:-b}", "$(id)", "&&", "||", "|", ">", "2>&1"),
    ("echo", "Zoë", "☃", "東京", "\u200b", "\U0001f600", "e\u0301"),
    ("echo", "\x1b[31m", "\x07", "\x7f", "a\rb", "a\x0bb"),
    ("echo", "x" * 2000),
    ("/usr/local/bin/my report", "a"),
    ("./run.sh", "../data"),
    ("C:\\run.exe", "/S"),
    ("report=1",),
    ("[", "-f", "x", "]"),
    ("--", "ls"),
    ("--", "--", "ls"),
    ("-x",),
    ("--verbose", "report"),
    ("-",),
    ("-e", "A=1"),
    ("--help",),
)
"""The words behind an image."""

_NO_PROGRAM = "a program without a name can not be started"
STRICTER_COMMANDS = {
    ("",): _NO_PROGRAM,
    ("", "a"): _NO_PROGRAM,
    ("echo", "\udcff"): "it is no text: docker itself would put another character in its place",
}
