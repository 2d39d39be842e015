"""The `medray` command, as a user starts it: output, exit codes, no tracebacks."""

import base64
import hashlib
import io
import subprocess
import sys
from pathlib import Path

import pytest

from medray import __version__, cli, commands
from medray.common.errors import ConfigError, ServiceError
from medray.project import find_job, find_profile, job_names
from medray.serving.identity.oidc import pseudonym
from medray.submit import check_storage, connect

ROOT = Path(__file__).parent.parent


def medray(*args: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "medray.cli", *args], capture_output=True, text=True, cwd=cwd
    )


def parse(*argv: str) -> list[str]:
    """The job's command line for that of `medray`."""
    args, rest = cli.build_parser().parse_known_args(argv)
    args.overrides = rest
    return commands.job_options(args)


def assert_one_message(result: subprocess.CompletedProcess[str], *parts: str) -> None:
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    for part in parts:
        assert part in result.stderr


def test_version_and_help() -> None:
    assert medray("--version").stdout == f"medray {__version__}\n"
    help_text = medray("--help").stdout
    for command in ("run", "submit", "serve", "ask", "eval", "quality", "doctor", "demo", "table"):
        assert f"    {command} " in help_text


def test_jobs_are_found_with_and_without_the_verb() -> None:
    assert {"run_pipeline", "prepare_corpus", "run_sft", "check_quality"} <= set(job_names())
    for job in job_names():
        assert find_job(job) == job
        assert find_job(f"{job}.py") == job
        assert find_job(job.partition("_")[2]) == job
        assert find_job(job.replace("_", "-")) == job


def test_options_are_handed_to_the_job_in_any_order() -> None:
    wanted = ["--profile", "laptop", "--data", "d", "--dry-run", "sft.lr=1", "a.b=[x, y]"]
    assert parse("run", "sft", "sft.lr=1", "--data", "d", "a.b=[x, y]", "--dry-run") == wanted
    assert parse("eval", "--dry-run", "sft.lr=1", "--data", "d", "a.b=[x, y]") == wanted


def test_unknown_job_lists_the_jobs() -> None:
    assert_one_message(medray("run", "nix"), "no job 'nix'", "run_pipeline")


@pytest.mark.parametrize(
    "args", [("run", "sft", "--nix"), ("run", "sft", "lr"), ("ask", "a", "b=c")]
)
def test_unknown_arguments_are_refused(args: tuple[str, ...]) -> None:
    assert_one_message(medray(*args), "unrecognised arguments")


def test_unknown_profile_lists_the_profiles() -> None:
    with pytest.raises(ConfigError, match=r"no profile 'nix'; give one of .*laptop"):
        find_profile("nix")


def test_unknown_serve_config_is_one_message() -> None:
    assert_one_message(medray("serve", "--config", "nix.yaml"), "no serve configuration 'nix.yaml'")


def test_table_of_a_missing_root_is_one_message(tmp_path: Path) -> None:
    assert_one_message(medray("table", "--root", str(tmp_path / "nix")), "no pipeline.json", "nix")


def test_submit_without_a_cluster_is_one_message() -> None:
    result = medray(
        "submit", "pipeline", "--address", "http://127.0.0.1:9", "storage.root=/tmp/medray"
    )
    assert_one_message(result, "no Ray cluster answers at http://127.0.0.1:9", "ray start --head")


def test_submit_wants_the_dashboard() -> None:
    with pytest.raises(ConfigError, match="http://HOST:8265"):
        connect("127.0.0.1:6379")
    with pytest.raises(ServiceError, match="no Ray cluster"):
        connect("http://127.0.0.1:9")


def test_submit_refuses_a_storage_root_that_the_cluster_would_delete() -> None:
    with pytest.raises(ConfigError, match=r"storage\.root is 'runs'"):
        check_storage({"storage": {"root": "runs"}}, "laptop.yaml")
    for root in ("/mnt/medray", "~/medray", "s3://bucket/medray"):
        check_storage({"storage": {"root": root}}, "laptop.yaml")


def test_ask_without_a_server_is_one_message() -> None:
    assert_one_message(
        medray("ask", "肺炎如何治疗？", "--url", "http://127.0.0.1:9"), "127.0.0.1:9"
    )


def test_a_reader_that_leaves_is_no_error(tmp_path: Path) -> None:
    """As `medray keys … list | head` does."""
    file = str(tmp_path / "keys.json")
    assert medray("keys", "--file", file, "new", "a", "--role", "admin").returncode == 0
    listing = subprocess.Popen(
        [sys.executable, "-m", "medray.cli", "keys", "--file", file, "list"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT,
    )  # fmt: skip
    assert listing.stdout is not None and listing.stderr is not None
    listing.stdout.close()
    assert listing.stderr.read() == b""
    assert listing.wait() == 141


def test_who_a_pseudonym_of_the_audit_log_is(monkeypatch, capsys) -> None:
    issuer = "https://sso.hospital.example"
    monkeypatch.delenv("MEDRAY_AUDIT_KEY", raising=False)
    assert cli.main(["audit", "caller", issuer, "4711"]) == 0
    plain = capsys.readouterr().out
    told = hashlib.sha256(f"28:{issuer}4711".encode()).hexdigest()
    assert plain == f"oidc-{told[:32]}\n"
    monkeypatch.setenv("MEDRAY_AUDIT_KEY", base64.b64encode(bytes(32)).decode())
    monkeypatch.setattr("sys.stdin", io.StringIO("4711\n"))
    assert cli.main(["audit", "caller", issuer, "-"]) == 0
    keyed = capsys.readouterr().out
    assert keyed == pseudonym(issuer, "4711", bytes(32)) + "\n" != plain


def test_the_switch_of_a_server(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`medray serve` takes KEY=VALUE before and after its other words."""
    switch = f"gateway.stop_file={tmp_path / 'stopped'}"
    for words, made in ((["stop-model", switch], True), ([switch, "start-model"], False)):
        assert cli.main(["serve", *words]) == 0
        assert (tmp_path / "stopped").exists() == made
    for words, told in (
        ("stop-model", "set gateway.stop_file"),
        ("pause", "stop-model NAME, start-model"),
        ("stop-model previous", "'previous' is not kept warm"),
    ):
        assert cli.main(["serve", *words.split()]) == 2
        assert told in capsys.readouterr().err
