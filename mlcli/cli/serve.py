"""`mlcli models serve`, `predict`, `loadtest` and what prepares them: put a model to use, in an environment of its own."""

from __future__ import annotations

import math
import os
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, List, Optional

import typer

from mlcli.cli import options, render
from mlcli.errors import InvalidInput, MlcliError, ModelError

if TYPE_CHECKING:
    from mlcli.cli.served_rollout import Plan
    from mlcli.serving.image import Context
    from mlcli.serving.launch import Environment, Launch, Served
    from mlcli.serving.loadtest import Report
    from mlcli.serving.pool import Pool

TOKEN_FILE = "serve-token"  # noqa: S105 - the name of a file
_INPUTS = ("csv", "json", "jsonl", "parquet")
_OUTPUTS = ("json", "csv", "jsonl")
_ENDINGS = {
    ".csv": "csv",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}

Model = Annotated[
    str,
    typer.Option(
        "-m",
        "--model-uri",
        metavar="URI",
        help="NAME@ALIAS, NAME/VERSION, runs:/RUN/PATH or a folder.",
    ),
]
Manager = Annotated[
    Optional[str],
    typer.Option(
        "--env-manager",
        metavar="NAME",
        help="virtualenv, uv or conda builds what the model asks for, once; local is the current one."
        " [default: virtualenv]",
    ),
]
Trust = Annotated[bool, typer.Option("--trust", help="Load the model even if loading it can run code.")]
Memory = Annotated[
    Optional[str], typer.Option("--max-memory", metavar="SIZE", help="Address space of each worker, such as 4G.")
]


def _no(flag: str, **more: Any) -> Any:
    return typer.Option(flag, hidden=True, **more)


def serve(
    model_uri: Annotated[
        Optional[str],
        typer.Option(
            "-m",
            "--model-uri",
            metavar="URI",
            help="models:/NAME@ALIAS, models:/NAME/VERSION, runs:/RUN/PATH or a folder.",
        ),
    ] = None,
    port: Annotated[
        int, typer.Option("-p", "--port", metavar="PORT", min=0, max=65535, help="The port; 0 is any that is free.")
    ] = 5000,
    host: Annotated[str, typer.Option("-h", "--host", metavar="HOST", help="The address to listen on.")] = "127.0.0.1",
    timeout: Annotated[
        float, typer.Option("-t", "--timeout", metavar="SECONDS", min=0.1, help="How long a request may take.")
    ] = 60,
    workers: Annotated[
        int, typer.Option("-w", "--workers", metavar="N", min=1, max=256, help="Processes that predict.")
    ] = 1,
    env_manager: Manager = None,
    trust: Trust = False,
    max_batch_size: Annotated[
        int,
        typer.Option("--max-batch-size", metavar="N", min=1, help="Put up to N waiting requests in one prediction."),
    ] = 1,
    max_batch_time: Annotated[
        float,
        typer.Option("--max-batch-time", metavar="MS", min=0, help="How long a request waits for others to join it."),
    ] = 0,
    max_memory: Memory = None,
    max_body: Annotated[
        str, typer.Option("--max-body", metavar="SIZE", help="The largest body that is taken.")
    ] = "16M",
    token_file: Annotated[
        Optional[str],
        typer.Option("--token-file", metavar="FILE", help="Ask for the token in this file; made if it is not there."),
    ] = None,
    allowed_hosts: Annotated[
        Optional[List[str]],
        typer.Option("--allowed-hosts", metavar="NAMES", help="Names this server is reached by (a,b or repeated)."),
    ] = None,
    rollout: Annotated[
        Optional[str],
        typer.Option("--rollout", metavar="NAME", help="Serve the models of a rollout, each its share."),
    ] = None,
    durability: Annotated[
        str,
        typer.Option(
            "--durability",
            metavar="HOW",
            help="With --rollout, when a request is answered: async (at once), group (it is in the store), ack (on the disk).",
        ),
    ] = "async",
    keep_inputs: Annotated[
        bool, typer.Option("--keep-inputs/--no-keep-inputs", help="With --rollout, keep small bodies too.")
    ] = True,
    controller: Annotated[
        bool, typer.Option("--controller/--no-controller", help="With --rollout, have its verdicts acted on.")
    ] = True,
    no_conda: Annotated[bool, _no("--no-conda")] = False,
    enable_mlserver: Annotated[bool, _no("--enable-mlserver")] = False,
    install_mlflow: Annotated[bool, _no("--install-mlflow")] = False,
) -> None:
    """Serve a model over HTTP.

    MLflow's /invocations, the Open Inference Protocol, and a page to try it in a browser.
    The model runs in processes of its own, in the environment that it asks for. An alias is watched: when it names another
    version, that one takes over without a request lost. Ctrl-C or SIGTERM ends the server when all is answered.
    """
    if enable_mlserver:
        raise InvalidInput(
            "--enable-mlserver: there is no MLServer here", hint="its protocol, v2, is served anyway: /v2"
        )
    if install_mlflow:
        render.note("--install-mlflow does nothing: models are served without MLflow")
    if (model_uri is None) == (rollout is None):
        raise InvalidInput(
            "name what to serve", hint="-m URI for a model, --rollout NAME for several behind one address"
        )
    from mlcli.serving.launch import byte_count, find

    body, memory = byte_count(max_body), byte_count(max_memory) if max_memory else None
    if max_batch_time and max_batch_size < 2:
        raise InvalidInput("--max-batch-time is of no use without --max-batch-size")
    plan = None
    if rollout is not None:
        from mlcli.cli.served_rollout import Plan

        plan = Plan.of(rollout, durability, keep_inputs=keep_inputs, controller=controller)
    served = plan.control if plan else find(str(model_uri))
    manager = "local" if no_conda else env_manager
    settings = {
        "trust": trust,
        "memory": memory,
        "batch_size": max_batch_size,
        "batch_seconds": max_batch_time / 1000,
    }
    launch = _launch(served, manager, workers=workers, **settings)
    candidates: list[Launch | str] = []
    if plan:
        launch = launch._replace(name=plan.rollout.endpoint)
        candidates = [_candidate(plan, one, manager, workers=workers, **settings) for one in plan.candidates]
    # The workers import for most of a second; meanwhile we do.
    started = [launch.start() for _ in range(workers)]
    others = [[] if isinstance(one, str) else [one.start() for _ in range(workers)] for one in candidates]
    from mlcli.server.run import bind
    from mlcli.server.security import Auth, Doors, is_loopback, token_from
    from mlcli.serving.app import Gateway
    from mlcli.serving.run import Follow
    from mlcli.serving.run import serve as run

    token, new = None, False
    if token_file is None and not is_loopback(host):
        from mlcli import config

        token_file = os.path.join(config.state_root(), TOKEN_FILE)
    try:
        if token_file is not None:
            token, new = token_from(token_file)
        sock = bind(host, port)
    except BaseException:
        for worker in [*started, *(one for under_way in others for one in under_way)]:
            worker.process.kill()
            worker.process.wait()
        raise
    port = sock.getsockname()[1]
    allowed = [name for given in allowed_hosts or () for name in given.split(",") if name.strip()]
    auth, doors = Auth(token), Doors(port, allowed)
    from mlcli.cli.server import shown

    url = f"http://{shown(host)}:{port}"

    def ready() -> None:
        if plan:
            print(
                f"rollout {plan.rollout.name} is ready: POST {url}/invocations and {url}/feedback; it is {plan.state}",
                flush=True,
            )
            return
        named = f"{served.name}, version {served.version}," if served.follows or served.version != "1" else served.name
        needs = " with the token (Authorization: Bearer)" if token else ""
        print(f"{named} is ready: POST {url}/invocations{needs}; try it at {url}/docs", flush=True)
        if new:
            print(f"the token, shown this once and kept in {token_file}: {token}", flush=True)
        render.note("Ctrl-C ends the server")

    def current() -> str:
        from mlcli.serving.launch import version_of

        return version_of(served.uri)

    def gateway(pool: Pool) -> Gateway:
        if plan is None:
            return Gateway(pool, doors=doors, auth=auth, max_body=body)
        policy = plan.policy(pool, launch, candidates, others, workers=workers, timeout=timeout)
        return Gateway(pool, doors=doors, auth=auth, max_body=body, policy=policy, more=tuple(policy.pools[1:]))

    follow = Follow(current, lambda: _launch(find(served.uri), manager, workers=workers, **settings))
    run(
        launch,
        sock,
        gateway,
        workers=workers,
        timeout=timeout,
        ready=ready,
        follow=follow if served.follows and plan is None else None,
        started=started,
    )


def _launch(served: Served, manager: str | None, *, workers: int = 1, **settings: Any) -> Launch:
    from mlcli.serving.launch import Launch

    found = _environment(served, manager)
    environ = dict(found.environ)
    if workers > 1:  # the threads of one must not fight those of another
        share = str(max(1, (os.cpu_count() or 1) // workers))
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
            environ.setdefault(name, share)
    made = Launch(served.folder, served.name, served.version, found.python, environ, **settings)
    return made._replace(digest=served.digest, only_digest=served.only_digest)


def _candidate(plan: Plan, served: Served | str, manager: str | None, **settings: Any) -> Launch | str:
    """What a candidate's workers are started with, or why there can be none: then control answers alone."""
    if isinstance(served, str):
        return served
    try:
        return _launch(served, manager, **settings)._replace(name=plan.rollout.endpoint)
    except MlcliError as error:
        if not plan.goes_on:
            raise
        return error.message


def _environment(served: Served, manager: str | None) -> Environment:
    from mlcli.serving.launch import environment

    return environment(served.folder, manager, render.note)


def predict(
    model_uri: Model,
    input_path: Annotated[
        Optional[str],
        typer.Option("-i", "--input-path", metavar="FILE", help="The rows; - is standard input. [default: -]"),
    ] = None,
    output_path: Annotated[
        Optional[str],
        typer.Option("-o", "--output-path", metavar="FILE", help="Where predictions go. [default: standard output]"),
    ] = None,
    content_type: Annotated[
        Optional[str],
        typer.Option(
            "-t",
            "--content-type",
            metavar="TYPE",
            help="csv, json, jsonl or parquet. [default: from the file's name, else json]",
        ),
    ] = None,
    output_type: Annotated[
        Optional[str],
        typer.Option(
            "--output-type", metavar="TYPE", help="json, csv or jsonl. [default: from the file's name, else json]"
        ),
    ] = None,
    env_manager: Manager = None,
    trust: Trust = False,
    max_memory: Memory = None,
    no_conda: Annotated[bool, _no("--no-conda")] = False,
    install_mlflow: Annotated[bool, _no("--install-mlflow")] = False,
) -> None:
    """Predict for the rows of a file.

    In the environment that the model asks for. CSV, JSON lines and Parquet go through in parts, so that a file of any size needs the same memory. The file of -o
    appears when it is complete, or not at all.
    """
    del install_mlflow
    kind = _type(content_type, input_path, _INPUTS, "--content-type")
    form = _type(output_type, output_path, _OUTPUTS, "--output-type")
    if input_path == "-":
        input_path = None
    if input_path is not None and not os.path.exists(input_path):
        raise InvalidInput(f"there is no file {input_path}")
    if input_path is not None and os.path.isdir(input_path):
        raise InvalidInput(f"{input_path} is a folder", hint="-i names a file of rows")
    from mlcli.serving.launch import byte_count, find

    served = find(model_uri)
    launch = _launch(
        served,
        "local" if no_conda else env_manager,
        trust=trust,
        memory=byte_count(max_memory) if max_memory else None,
        file={"source": input_path, "kind": kind, "form": form},
    )
    from mlcli.serving.batch import predict_file

    size = os.path.getsize(input_path) if input_path else 0
    with render.progress("predicting") as tick:
        rows = predict_file(launch, output_path, (lambda done: tick(done, size)) if tick and size else None)
    if output_path is not None:
        render.success(f"{render.count(rows, 'row')} predicted: {output_path}")


def _type(given: str | None, path: str | None, known: tuple[str, ...], option: str) -> str:
    if given is not None:
        name = {"text/csv": "csv", "application/json": "json"}.get(given.lower(), given.lower())
        if name not in known:
            raise InvalidInput(f"{option} {given!r} is not known", hint=f"one of {', '.join(known)}")
        return name
    ending = os.path.splitext(path or "")[1].lower()
    found = _ENDINGS.get(ending, "json")
    if found not in known:
        raise InvalidInput(f"{path} cannot be written as {found}", hint=f"{option} names one of {', '.join(known)}")
    return found


def prepare_env(model_uri: Model, env_manager: Manager = None, as_json: options.Json = False) -> None:
    """Build the environment that a model asks for.

    `serve` and `predict` then find it ready.
    """
    from mlcli.serving.launch import find

    if env_manager == "local":
        raise ModelError("there is nothing to prepare for --env-manager local")
    found = _environment(find(model_uri), env_manager)
    render.emit_json({"python": found.python, "env_manager": found.manager}) if as_json else render.emit(found.python)


Folder = Annotated[
    str,
    typer.Option(
        "-d", "--output-directory", metavar="FOLDER", help="Where to put it; new or empty.", show_default=False
    ),
]
Base = Annotated[str, typer.Option("--base-image", metavar="IMAGE", help="What the image is built on.")]
ImageWorkers = Annotated[int, typer.Option("-w", "--workers", metavar="N", min=1, help="Processes that predict.")]
ImageTrust = Annotated[bool, typer.Option("--trust", help="Let the image load a model that can run code.")]


def generate_dockerfile(
    model_uri: Model,
    output_directory: Folder = "mlcli-dockerfile",
    base_image: Base = "python:3.12-slim",
    workers: ImageWorkers = 1,
    trust: ImageTrust = False,
) -> None:
    """Write what an image of a model is built from.

    A Dockerfile and all that it needs: nothing else of this machine.
    """
    context = _context(model_uri, output_directory, base_image, workers, trust=trust)
    render.emit(context.dockerfile)
    render.note(f"build it: docker build -t NAME {shlex.quote(context.folder)}; run it: docker run -p 5000:8080 NAME")


def build_docker(
    model_uri: Model,
    name: Annotated[str, typer.Option("-n", "--name", metavar="NAME", help="The image's name.")] = "mlcli-model",
    output_directory: Annotated[
        Optional[str],
        typer.Option(
            "-d", "--output-directory", metavar="FOLDER", help="Keep what it is built from here.", show_default=False
        ),
    ] = None,
    base_image: Base = "python:3.12-slim",
    workers: ImageWorkers = 1,
    trust: ImageTrust = False,
) -> None:
    """Build an image that serves a model.

    Where no docker engine answers, what it would be built from is left, and how is said.
    """
    from mlcli.serving.image import build

    folder = output_directory or f"{re.sub('[^A-Za-z0-9_.-]+', '-', name)}-context"
    context = _context(model_uri, folder, base_image, workers, trust=trust)
    if build(context, name, render.note):
        if output_directory is None:
            import shutil

            shutil.rmtree(context.folder)
        render.success(f"{name} is built; run it: docker run -p 5000:8080 {name}")
        return
    render.note("no docker engine answers here; where one does:")
    render.emit(f"docker build -t {name} {shlex.quote(context.folder)}")


def _context(model_uri: str, folder: str, base: str, workers: int, *, trust: bool) -> Context:
    from mlcli.serving.image import write_context
    from mlcli.serving.launch import find

    return write_context(find(model_uri), folder, base=base, workers=workers, trust=trust)


def loadtest(
    url: Annotated[
        Optional[str],
        typer.Argument(metavar="[URL]", help="A server, such as http://127.0.0.1:5000.", show_default=False),
    ] = None,
    data: Annotated[
        str,
        typer.Option("--data", metavar="FILE", help="What to ask: .csv or .jsonl (a request a row), or a .json body."),
    ] = "",
    model_uri: Annotated[
        Optional[str], typer.Option("-m", "--model-uri", metavar="URI", help="Serve this model here, test it, end it.")
    ] = None,
    rate: Annotated[float, typer.Option("--rate", metavar="N", min=0.01, help="Requests a second.")] = 100,
    duration: Annotated[str, typer.Option("--duration", metavar="TIME", help="How long: 30s, 2m.")] = "10s",
    timeout: Annotated[
        float, typer.Option("-t", "--timeout", metavar="SECONDS", min=0.1, help="Longest wait for an answer.")
    ] = 60,
    max_p99: Annotated[
        Optional[str], typer.Option("--max-p99", metavar="TIME", help="Fail if 99 % are not answered in this: 50ms.")
    ] = None,
    max_error_rate: Annotated[
        Optional[float],
        typer.Option("--max-error-rate", metavar="SHARE", min=0, max=1, help="Fail if more go wrong: 0.001."),
    ] = None,
    token_file: Annotated[
        Optional[str], typer.Option("--token-file", metavar="FILE", help="The server's token.")
    ] = None,
    env_manager: Manager = None,
    workers: Annotated[
        int, typer.Option("-w", "--workers", metavar="N", min=1, help="Processes that predict, with -m.")
    ] = 1,
    trust: Trust = False,
    as_json: options.Json = False,
) -> None:
    """Measure a server under a steady rate of requests.

    How long answers take is counted from when each request was due.
    A server that stalls is asked on, so that the stall shows: every request that was due meanwhile has waited. The exit code
    is 1 when a limit is exceeded, or when there was no answer at all. Load goes to the given address and nowhere else.
    """
    from mlcli.serving import loadtest as test

    if (url is None) == (model_uri is None):
        raise InvalidInput("name a server or a model", hint="give URL, or -m URI")
    if not data:
        raise InvalidInput("--data is missing", hint="name a file with rows to ask for: --data rows.csv")
    found, kind = test.bodies(data)
    seconds, limit = _seconds(duration), None if max_p99 is None else _seconds(max_p99)
    token = None
    if token_file is not None:
        from mlcli.server.security import token_from

        token, _ = token_from(token_file)
    with _own_server(model_uri, env_manager, workers, trust=trust) as own:
        target = test.Target.of(own or url or "")
        requests = [target.request(body, kind, token) for body in found]
        with render.progress("asking", "request") as tick:
            report = test.run(target, requests, rate=rate, seconds=seconds, timeout=timeout, tick=tick)
    told = report.to_dictionary()
    render.emit_json(told) if as_json else _show_report(report)
    exceeded = []
    if limit is not None and not report.percentile(0.99) <= limit:
        exceeded.append(f"p99 is {_time(report.percentile(0.99))}, and at most {_time(limit)} is allowed")
    if max_error_rate is not None and report.error_rate > max_error_rate:
        exceeded.append(
            f"{report.errors} of {render.count(report.requests, 'request')} went wrong, a share of"
            f" {report.error_rate:.4g}, and at most {max_error_rate:g} is allowed"
        )
    if max_error_rate is None and not report.latencies:
        exceeded.append(f"{target.host}:{target.port} answered none of {render.count(report.requests, 'request')}")
    for line in exceeded:
        render.error(line)
    if exceeded:
        raise typer.Exit(1)


@contextmanager
def _own_server(model_uri: str | None, manager: str | None, workers: int, *, trust: bool) -> Iterator[str | None]:
    """A server of our own for the time of a test, if a model is named."""
    if model_uri is None:
        yield None
        return
    import subprocess
    import sys

    words = ["models", "serve", "-m", model_uri, "-p", "0", "-w", str(workers), *(["--trust"] if trust else [])]
    words += ["--env-manager", manager] if manager else []
    server = subprocess.Popen([sys.executable, "-m", "mlcli", "-q", *words], stdout=subprocess.PIPE, text=True)
    try:
        line = server.stdout.readline() if server.stdout else ""
        if "POST " not in line:
            raise ModelError("the model cannot be served", hint="what its server said stands above")
        yield line.split("POST ")[1].split("/invocations")[0]
    finally:
        server.terminate()
        server.wait()


def _seconds(text: str) -> float:
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|)\s*", text.lower())
    found = float(match[1]) * {"ms": 0.001, "s": 1, "": 1, "m": 60, "h": 3600}[match[2]] if match else 0
    if found <= 0:
        raise InvalidInput(f"{text!r} is no length of time", hint="write 50ms, 30s or 2m")
    return found


def _time(seconds: float) -> str:
    if seconds != seconds:  # noqa: PLR0124 - NaN: nothing was answered
        return "not known"
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.{1 if seconds >= 0.01 else 2}f} ms"


def _show_report(report: Report) -> None:
    from mlcli.serving.loadtest import PERCENTILES, histogram, percentile

    pairs: list[tuple[str, object]] = [
        ("requests", report.requests),
        ("rate", f"{report.rate:g} a second for {report.seconds:g} s"),
        ("errors", report.errors),
        ("statuses", ", ".join([f"{status}: {count}" for status, count in sorted(report.statuses.items())])),
    ]
    pairs += [("no answer", f"{why} ({count})") for why, count in list(report.reasons.items())[:3]]
    if any("certificate is not trusted" in why for why in report.reasons):
        render.note("SSL_CERT_FILE=FILE names the certificates to trust, such as the server's own")
    if report.late > 0.1:
        pairs.append(("sender", f"was up to {_time(report.late)} behind: this machine is too slow for the rate"))
    render.fields(pairs)
    if not report.latencies:
        return
    rows = [
        {
            "share": "slowest" if name == "100" else f"p{name}",
            "latency": _time(report.percentile(share)),
            "service": _time(percentile(report.service, share)),
        }
        for name, share in PERCENTILES.items()
    ]
    columns = (
        render.Column("share", "", style="bold"),
        render.Column("latency", "SINCE DUE", right=True),
        render.Column("service", "SINCE SENT", right=True),
    )
    render.emit("")
    render.records(rows, columns)
    found = histogram(report.latencies)
    if not found or not render.on_terminal():
        return
    render.emit("")
    most = max([count for _, count in found])
    room = max(10, render.terminal_width() - 30)
    sign = "█" if render.unicode_ok() else "#"
    for bound, count in found:
        bar = sign * math.ceil(count / most * room)
        render.emit(f"  <= {_time(bound):>9}  {count:>7}  {bar}")


def register(app: typer.Typer) -> None:
    """Make these commands of `mlcli models`."""
    # -h is the host here, as in MLflow.
    app.command(context_settings={"help_option_names": ["--help"]})(serve)
    app.command()(predict)
    app.command("prepare-env")(prepare_env)
    app.command("build-docker")(build_docker)
    app.command("generate-dockerfile")(generate_dockerfile)
    app.command()(loadtest)
