"""A RabbitMQ for the tests.

Promise: `open_rabbitmq` gives a broker that answers: the one that ATEMPORAL_TEST_BROKER_URL names,
else a node of the tests' own, in a temporary folder, with an own name service (epmd) and own ports, so
that it neither sees nor disturbs another node; else, where no RabbitMQ is installed, one in docker. A
test gets an empty virtual host (`create_vhost`). Own nodes can be stopped, restarted and killed.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import uuid
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pika

from tests.servers.child import Child
from tests.servers.ports import free_port

VARIABLE = "ATEMPORAL_TEST_BROKER_URL"
_IMAGE = "rabbitmq:3"
_BOOT_S = 120.0

# The limits are absolute, so that a test never hangs on a blocked publisher because the machine
# is small; quorum queues would otherwise set half a gigabyte aside for their log.
SMALL = """\
vm_memory_high_watermark.absolute = 1GB
disk_free_limit.absolute = 10MB
raft.wal_max_size_bytes = 16777216
"""
_CONFIG = """\
listeners.tcp.1 = 127.0.0.1:{port}
log.console = true
log.console.level = info
log.file = false
"""


def find() -> Path | None:
    """The folder with `rabbitmq-server` and `rabbitmqctl`.

    Debian's real ones come first: those on its path are wrappers that change to the system's user.
    """
    folders = [Path("/usr/lib/rabbitmq/bin")]
    on_path = shutil.which("rabbitmq-server")
    if on_path:
        folders.append(Path(on_path).resolve().parent)
    return next((folder for folder in folders if (folder / "rabbitmq-server").exists()), None)


def docker_works() -> bool:
    """Whether this user can run containers."""
    docker = shutil.which("docker")
    return (
        docker is not None
        and not subprocess.run(
            [docker, "info"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ).returncode
    )


def purge(url: str, *queues: str) -> None:
    """Empty queues, which exist, of messages that nobody has in hand."""
    connection = pika.BlockingConnection(pika.URLParameters(url))
    try:
        channel = connection.channel()
        for queue in queues:
            channel.queue_purge(queue)
    finally:
        connection.close()


class RabbitMQ:
    """A broker that somebody else runs: the tests share its one virtual host and stop nothing."""

    # What the project declares, deleted between tests that would otherwise see old messages.
    _EXCHANGES = ("atemporal", "atemporal.internal", "atemporal.events")
    _QUEUES = ("atemporal.submit", "atemporal.launch", "atemporal.reap", "atemporal.dead")

    def __init__(self, url: str) -> None:
        """Use the broker at `url`, whose user may configure, write and read everything there."""
        self.url = url

    def create_vhost(self) -> str:
        """Return the URL of a virtual host without the project's queues and exchanges."""
        self._clean()
        return self.url

    def _clean(self) -> None:
        connection = pika.BlockingConnection(pika.URLParameters(self.url))
        try:
            channel = connection.channel()
            for queue in self._QUEUES:
                channel.queue_delete(queue)
            for exchange in self._EXCHANGES:
                channel.exchange_delete(exchange)
        finally:
            connection.close()

    def ctl(self, *args: str) -> str:
        """Run `rabbitmqctl args...` on the node and return what it printed.

        Raises:
            RuntimeError: it failed; with what it printed.
        """
        self._refuse()
        return ""

    def start(self) -> None:
        """Start the stopped broker; return when it accepts clients."""
        self._refuse()

    def stop(self) -> None:
        """End it in order: clients are told, durable messages are kept."""
        self._refuse()

    def kill(self) -> None:
        """End it with SIGKILL; what was confirmed comes back with the next start."""
        self._refuse()

    def restart(self) -> None:
        """Stop and start it; its address stays the same."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Freeze it: its connections stay open and nothing answers."""
        self._refuse()

    def resume(self) -> None:
        """Let a frozen broker go on."""
        self._refuse()

    def close(self) -> None:
        """Leave nothing behind."""
        self._clean()

    def _refuse(self) -> None:
        raise RuntimeError(
            f"this test manages its RabbitMQ, and {VARIABLE} names one that is not the tests' own: "
            "unset it and the tests run theirs"
        )


class _OwnRabbitMQ(RabbitMQ):
    """What own brokers have in common: virtual hosts are made at will."""

    def __init__(self) -> None:
        self._port = free_port()
        super().__init__(f"amqp://guest:guest@127.0.0.1:{self._port}/%2F")

    def create_vhost(self) -> str:
        name = f"test-{uuid.uuid4().hex}"
        # One call for host and permissions: each start of rabbitmqctl takes more than a second.
        self.ctl(
            "eval",
            f'ok = rabbit_vhost:add(<<"{name}">>, <<"tests">>), '
            f'rabbit_auth_backend_internal:set_permissions(<<"guest">>, <<"{name}">>, '
            '<<".*">>, <<".*">>, <<".*">>, <<"tests">>).',
        )
        return urlunsplit(urlsplit(self.url)._replace(path=f"/{name}"))

    def _accepts(self) -> bool:
        """Whether the broker answers a client's greeting with a frame (its `connection.start`)."""
        try:
            with socket.create_connection(("127.0.0.1", self._port), timeout=5) as client:
                client.sendall(b"AMQP\x00\x00\x09\x01")
                return client.recv(1) == b"\x01"
        except OSError:
            return False


class NodeRabbitMQ(_OwnRabbitMQ):
    """A node in a temporary folder, as a child of the tests."""

    def __init__(self, binaries: Path, limits: str = SMALL) -> None:
        """Make and start it with the programs in `binaries`; `limits` are lines of its configuration."""
        super().__init__()
        self._binaries = binaries
        self._limits = limits
        self._home = Path(tempfile.mkdtemp(prefix="atemporal-rabbitmq-"))
        self._epmd_port, self._distribution_port = free_port(), free_port()
        self._epmd: Child | None = None
        self._child: Child | None = None
        self._write_files()
        try:
            self.start()
        except BaseException:
            self.close()
            raise

    def _write_files(self) -> None:
        cookie = self._home / ".erlang.cookie"
        cookie.touch(mode=0o600)
        cookie.write_text(secrets.token_hex(16))
        cookie.chmod(0o400)
        (self._home / "rabbitmq.conf").write_text(_CONFIG.format(port=self._port) + self._limits)
        (self._home / "enabled_plugins").write_text("[].\n")
        (self._home / "rabbitmq-env.conf").touch()

    def _environment(self) -> dict[str, str]:
        home = str(self._home)
        kept = {n: v for n, v in os.environ.items() if not n.startswith(("RABBITMQ_", "ERL_"))}
        return kept | {
            "HOME": home,
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(self._epmd_port),
            # The script then becomes the server instead of guarding it, and signals reach it.
            "RABBITMQ_ALLOW_INPUT": "true",
            "RABBITMQ_CONF_ENV_FILE": f"{home}/rabbitmq-env.conf",
            "RABBITMQ_CONFIG_FILE": f"{home}/rabbitmq.conf",
            "RABBITMQ_DIST_PORT": str(self._distribution_port),
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{home}/enabled_plugins",
            "RABBITMQ_GENERATED_CONFIG_DIR": f"{home}/config",
            "RABBITMQ_LOG_BASE": f"{home}/log",
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_MNESIA_BASE": f"{home}/mnesia",
            "RABBITMQ_NODENAME": self._node,
            "RABBITMQ_PID_FILE": f"{home}/pid",
            "RABBITMQ_SCHEMA_DIR": f"{home}/schema",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        }

    @property
    def _node(self) -> str:
        return f"atemporal-{self._port}@localhost"

    def ctl(self, *args: str) -> str:
        argv = [str(self._binaries / "rabbitmqctl"), "--node", self._node, "--quiet", *args]
        return _run(argv, self._environment(), self._home)

    def start(self) -> None:
        env = self._environment()
        if self._epmd is None:
            self._epmd = Child(
                [_epmd(), "-port", str(self._epmd_port), "-address", "127.0.0.1"],
                log=self._home / "epmd.log",
                env=env,
            )
        self._child = Child(
            [self._binaries / "rabbitmq-server", "-noinput"],
            log=self._home / "rabbitmq.log",
            env=env,
        )
        self._child.wait_ready(self._accepts, _BOOT_S)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._child is not None, "it does not run"
        os.killpg(self._child.pid, number)

    def close(self) -> None:
        self.kill()
        epmd, self._epmd = self._epmd, None
        if epmd:
            epmd.end(signal.SIGKILL)
        shutil.rmtree(self._home)

    def _end(self, how: signal.Signals) -> None:
        child, self._child = self._child, None
        if child:
            child.end(how)


class DockerRabbitMQ(_OwnRabbitMQ):
    """A node in a container, where docker is all there is."""

    def __init__(self) -> None:
        """Make and start it; docker may have to fetch the image first."""
        super().__init__()
        self._name = f"atemporal-rabbitmq-{self._port}"
        self._home = Path(tempfile.mkdtemp(prefix=f"{self._name}-"))
        self._child: Child | None = None
        publish = f"127.0.0.1:{self._port}:5672"
        # The node's name holds the host's: without a fixed one its data would be another node's.
        argv = ["create", "--name", self._name, "--hostname", "rabbitmq", "--publish", publish]
        try:
            self._docker(*argv, _IMAGE)
            self.start()
        except BaseException:
            self.close()
            raise

    def ctl(self, *args: str) -> str:
        return self._docker("exec", self._name, "rabbitmqctl", "--quiet", *args)

    def start(self) -> None:
        argv = ["docker", "start", "--attach", self._name]
        self._child = Child(argv, log=self._home / "rabbitmq.log")
        self._child.wait_ready(self._accepts, _BOOT_S)

    def stop(self) -> None:
        self._docker("stop", self._name)
        self._reap()

    def kill(self) -> None:
        self._docker("kill", self._name)
        self._reap()

    def pause(self) -> None:
        self._docker("pause", self._name)

    def resume(self) -> None:
        self._docker("unpause", self._name)

    def close(self) -> None:
        self._docker("rm", "--force", "--volumes", self._name)
        self._reap()
        shutil.rmtree(self._home)

    def _reap(self) -> None:
        child, self._child = self._child, None
        if child:
            child.end(signal.SIGTERM)

    def _docker(self, *args: str) -> str:
        return _run(["docker", *args], dict(os.environ), Path.cwd())


def _run(argv: list[str], env: dict[str, str], cwd: Path) -> str:
    done = subprocess.run(
        argv,
        env=env,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def _epmd() -> str:
    found = shutil.which("epmd") or next(
        (str(path) for path in Path("/usr/lib/erlang").glob("erts-*/bin/epmd")), None
    )
    if found is None:
        raise RuntimeError("RabbitMQ is here and Erlang's epmd is not: is Erlang whole?")
    return found


def open_rabbitmq() -> RabbitMQ:
    """Give the broker that the environment names, else make one.

    Raises:
        RuntimeError: there is neither a RabbitMQ nor a docker on this machine.
    """
    given = os.environ.get(VARIABLE)
    if given:
        return RabbitMQ(given)
    binaries = find()
    if binaries is not None:
        return NodeRabbitMQ(binaries)
    if docker_works():
        return DockerRabbitMQ()
    raise RuntimeError(f"no RabbitMQ here: `make test` installs one, or set {VARIABLE}")
