"""The `medray` command: runs and submits jobs, serves, asks, checks a machine.

In: a command line. Out: what the job, server or check prints; exit code 0, 2 for an error that
the user can mend (one message, no traceback), or the job's own.
Heavy packages are imported inside the commands, so that `medray --help` answers at once.
"""

import argparse
import os
import sys
from pathlib import Path

from medray import __version__, access_commands
from medray import commands as do
from medray.common.errors import MedrayError
from medray.project import job_names

ADDRESS = "http://127.0.0.1:8265"
SERVER = "http://127.0.0.1:8000"
NO_SETTINGS = (
    do.ask_server, do.print_table, do.import_ratings, do.convert_model, do.quantise_model,
    access_commands.new_key, access_commands.list_keys, access_commands.revoke_key,
    access_commands.verify_audit, access_commands.show_audit, access_commands.export_feedback,
)  # fmt: skip
ALIASES = {"eval": "run_eval", "quality": "check_quality"}


def main(argv: list[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    parser = build_parser()
    args, rest = parser.parse_known_args(argv)
    # argparse cannot take `KEY=VALUE …` on both sides of an option, so the rest is sorted here.
    strange = [text for text in rest if text.startswith("-") or "=" not in text]
    if strange or (rest and args.command in NO_SETTINGS):
        parser.error(f"unrecognised arguments: {' '.join(strange or rest)}")
    args.overrides = rest
    try:
        code = args.command(args)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # `medray … | head`; Python would complain once more as it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except MedrayError as error:
        sys.stderr.write(f"medray: {error}\n")
        return 2
    except OSError as error:
        if error.filename is None:
            raise
        sys.stderr.write(f"medray: {error.filename}: {error.strerror}\n")
        return 2
    except KeyboardInterrupt:
        return 130


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = argparse.ArgumentParser(
        prog="medray",
        description="From a hospital's records to a served, audited medical model on Ray.",
    )
    parser.add_argument("--version", action="version", version=f"medray {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    run = commands.add_parser("run", help="run a job here, on local Ray or at RAY_ADDRESS")
    run.add_argument("job", metavar="JOB", help=f"one of: {', '.join(job_names())}")
    add_job_options(run)
    run.set_defaults(command=do.run_job)
    for alias, name in ALIASES.items():
        job = commands.add_parser(alias, help=f"the same as: medray run {name}")
        add_job_options(job)
        job.set_defaults(command=do.run_job, job=name)

    submit = commands.add_parser("submit", help="send a job to a cluster and follow its log")
    submit.add_argument("job", metavar="JOB", help=f"one of: {', '.join(job_names())}")
    submit.add_argument("--address", default=ADDRESS, help=f"the head's dashboard ({ADDRESS})")
    submit.add_argument("--no-wait", action="store_true", help="print the job's id and return")
    add_job_options(submit)
    submit.set_defaults(command=do.submit_job)

    serve = commands.add_parser(
        "serve", help="serve the models on this machine; switch them off; move their index"
    )
    # `KEY=VALUE` may come first, and is sorted out by the command.
    serve.add_argument(
        "words",
        nargs="*",
        metavar="stop-model | start-model | … | use-index [KEY] | roll-back-index",
        help="the switch; which index is searched",
    )
    serve.add_argument("--config", default="laptop", help="a name or a YAML file (laptop)")
    serve.add_argument("--host", default="127.0.0.1", help="0.0.0.0 lets other machines in")
    serve.add_argument("--port", type=int, default=8000)
    serve.add_argument(
        "--certificate", type=Path, metavar="PEM", help="serve HTTPS: the server's certificate"
    )
    serve.add_argument("--key", type=Path, metavar="PEM", help="and its private key")
    serve.add_argument("--address", help="a Ray cluster; default: Ray on this machine")
    serve.usage = with_overrides(serve)
    serve.set_defaults(command=do.serve_models)

    ask = commands.add_parser("ask", help="ask a running server")
    ask.add_argument("question")
    ask.add_argument("--url", default=SERVER, help=f"default: {SERVER}")
    ask.add_argument(
        "--retrieval", action=argparse.BooleanOptionalAction,
        help="from passages or not at all; --no-retrieval: the model alone; default: the service "
        "decides by the question",
    )  # fmt: skip
    ask.set_defaults(command=do.ask_server)

    access_commands.add_commands(commands)

    forget = commands.add_parser("forget", help="erase a patient from everything under a root")
    forget.add_argument("patient", metavar="PATIENT_ID", help="as in the export; - reads one line")
    add_profile_option(forget)
    forget.set_defaults(command=do.forget_patient)

    growth = commands.add_parser("grow", help="grow instructions from seeds through a model's API")
    growth.add_argument("--seeds", type=Path, required=True, help="JSON Lines: instruction, output")
    growth.add_argument("--out", type=Path, required=True, help="where they go; a rerun goes on")
    growth.add_argument("--url", default=f"{SERVER}/v1", help=f"OpenAI-compatible ({SERVER}/v1)")
    growth.add_argument("--model", default="medray", help="the model's name there (medray)")
    growth.usage = with_overrides(growth)
    growth.set_defaults(command=do.grow_instructions)

    corpus = commands.add_parser("corpus", help="look at a corpus")
    report = corpus.add_subparsers(metavar="COMMAND", required=True).add_parser(
        "report", help="one HTML page: rows through the funnel, texts, identifiers, examples"
    )
    report.add_argument("--data", help="the hospital's own data instead of the sample")
    report.add_argument("--out", type=Path, default=Path("corpus.html"), help="(corpus.html)")
    add_profile_option(report)
    report.set_defaults(command=do.report_corpus)

    runs = commands.add_parser("runs", help="list training runs; compare RUN RUN draws curves")
    runs.add_argument("words", metavar="compare RUN RUN", nargs="*", help="STEP/KEY, or its start")
    runs.add_argument("--out", type=Path, default=Path("runs.html"), help=".html or .png")
    add_profile_option(runs)
    runs.set_defaults(command=do.show_runs)

    ratings = commands.add_parser("ratings", help="physicians' ratings as reward data")
    ratings.add_argument("responses", type=Path, help="responses.jsonl of sample_responses")
    ratings.add_argument("ratings", type=Path, help="ratings.jsonl that came back")
    ratings.add_argument("--out", type=Path, default=Path("rated"), help="a directory (rated)")
    ratings.set_defaults(command=do.import_ratings)

    convert = commands.add_parser(
        "convert", help="Baichuan's weights as Llama's; --bin: pickles as safetensors"
    )
    convert.add_argument("source", type=Path, help="the directory as it is published")
    convert.add_argument("target", type=Path, help="a directory that is not there yet")
    convert.add_argument("--bin", action="store_true", help="read pickles (pytorch_model*.bin)")
    convert.set_defaults(command=do.convert_model)

    quantise = commands.add_parser("quantise", help="a model's weights in 8 or 4 bits, to serve")
    quantise.add_argument("source", type=Path, help="a directory, as training exports it")
    quantise.add_argument("target", type=Path, help="a directory that is not there yet")
    quantise.add_argument("--bits", type=int, choices=(8, 4), required=True)
    quantise.set_defaults(command=do.quantise_model)

    table = commands.add_parser("table", help="print the results of a finished pipeline")
    table.add_argument("--root", type=Path, required=True, help="the profile's storage.root")
    table.set_defaults(command=do.print_table)

    demo = commands.add_parser("demo", help="records to served answers, about 15 minutes")
    demo.add_argument("--keep", action="store_true", help="leave the server up")
    demo.add_argument("--port", type=int, default=8000)
    add_profile_option(demo)
    demo.set_defaults(command=do.run_demo)

    doctor = commands.add_parser("doctor", help="check this machine and say what to mend")
    doctor.add_argument("--address", help="a Ray cluster to reach; default: RAY_ADDRESS")
    doctor.add_argument("--model", type=Path, action="append", help="a model directory to check")
    doctor.add_argument(
        "--gpu", choices=("a100", "h100", "h200"), default="a100", help="to plan for (a100)"
    )
    doctor.add_argument("--json", action="store_true", help="print JSON, one object a check")
    add_profile_option(doctor)
    doctor.set_defaults(command=do.check_machine)
    return parser


def add_profile_option(parser: argparse.ArgumentParser) -> None:
    """`--profile` and the overrides that follow it."""
    parser.add_argument("--profile", default="laptop", help="a name or a YAML file (laptop)")
    parser.usage = with_overrides(parser)


def with_overrides(parser: argparse.ArgumentParser) -> str:
    """The usage line of a command that takes `KEY=VALUE` settings."""
    return f"{parser.format_usage().removeprefix('usage: ').strip()} [KEY=VALUE ...]"


def add_job_options(parser: argparse.ArgumentParser) -> None:
    """The options that every job takes."""
    parser.add_argument("--data", help="the hospital's own data instead of the sample")
    parser.add_argument("--dry-run", action="store_true", help="check the input, then stop")
    add_profile_option(parser)


if __name__ == "__main__":
    sys.exit(main())
