"""What the commands of `medray` do. In: parsed options. Out: exit codes, text on standard output.

Heavy packages are imported inside the commands, so that `medray --help` answers at once.
"""

import argparse
import logging
import os
import sys

from medray.common.errors import DataError
from medray.project import find_job, find_serve_config, jobs_directory


def job_options(args: argparse.Namespace) -> list[str]:
    """The command line of the job script, from that of `medray run` or `medray submit`."""
    options = ["--profile", args.profile]
    if args.data:
        options += ["--data", args.data]
    if args.dry_run:
        options.append("--dry-run")
    return options + args.overrides


def run_job(args: argparse.Namespace) -> int:
    """Becomes the job: same process, so that signals and the exit code are the job's own."""
    script = jobs_directory() / f"{find_job(args.job)}.py"
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, str(script), *job_options(args)])


def submit_job(args: argparse.Namespace) -> int:
    """Sends the job to a cluster; exit code of the job unless `--no-wait`."""
    from medray.submit import follow, submit

    client, job_id = submit(
        jobs_directory(), find_job(args.job), job_options(args), args.address,
        profile=args.profile, overrides=args.overrides,
    )  # fmt: skip
    sys.stdout.write(f"submitted {job_id} to {args.address}\n")
    return 0 if args.no_wait else follow(client, job_id)


def serve_models(args: argparse.Namespace) -> int:
    """Serves until interrupted; or turns the emergency switch of what is being served, or moves
    its index."""
    from medray.serving import up

    action = [word for word in args.words if "=" not in word]
    args.overrides += [word for word in args.words if "=" in word]
    if action and "index" in action[0]:
        return _move_index(args, action)
    if action:
        return _switch(args, action)
    running = up.start(
        find_serve_config(args.config), args.overrides,
        host=args.host, port=args.port, certificate=args.certificate, key=args.key,
        address=args.address, tell=lambda line: _say(f"{line}\n"),
    )  # fmt: skip
    _say("stop with Ctrl-C\n")
    up.run_until_interrupt(running)
    return 0


def _switch(args: argparse.Namespace, action: list[str]) -> int:
    from medray.common.errors import ConfigError
    from medray.serving.switch import Switch
    from medray.serving.up import read_config

    word, *given = action
    verb, _, what = word.partition("-")
    if (
        verb not in ("stop", "start")
        or what not in ("model", "canary")
        or len(given) > (word == "stop-model")
    ):
        raise ConfigError(
            f"medray serve {' '.join(action)}: it is stop-model, stop-model NAME, start-model, "
            "stop-canary, start-canary, use-index KEY or roll-back-index"
        )
    _, config = read_config(find_serve_config(args.config), args.overrides)
    gateway, instead = config.gateway, "".join(given)
    if instead and instead not in config.models:
        raise ConfigError(
            f"{instead!r} is not kept warm; models: {', '.join(config.models) or 'there are none'}"
        )
    path, setting = (
        (gateway.stop_file, "gateway.stop_file")
        if what == "model"
        else (gateway.canary.stop_file, "gateway.canary.stop_file")
    )
    if not path:
        raise ConfigError(f"this config has no such switch; set {setting} and serve it")
    changed = Switch(path).stop(instead) if verb == "stop" else Switch(path).start()
    state = "stopped" if verb == "stop" else "answering"
    _say(f"the {what} is {state}{'' if changed else ', as it was before'}\n")
    if word == "stop-model":
        _say(
            f"{instead} answers instead from now on\n" if instead
            else "no other answers; one of `models` would at once (stop-model NAME), and one that "
            "is served anew after the seconds that `medray serve` tells when it is ready\n"
        )  # fmt: skip
    return 0


def _move_index(args: argparse.Namespace, action: list[str]) -> int:
    from medray.common.errors import ConfigError
    from medray.serving.alias import IndexAlias, find_index
    from medray.serving.up import read_config

    name, *given = action
    if (name, len(given)) not in (("use-index", 0), ("use-index", 1), ("roll-back-index", 0)):
        raise ConfigError(f"medray serve {' '.join(action)}: it is use-index KEY, roll-back-index")
    _, config = read_config(find_serve_config(args.config), args.overrides)
    if not config.index_file:
        raise ConfigError("this config's index cannot be moved; set index_file and serve it")
    newest = config.locate(config.index_dir, "index")
    alias = IndexAlias(config.index_file, newest)
    if name == "roll-back-index":
        _say(f"index {alias.roll_back().version} is searched again\n")
        return 0
    index = find_index(newest, *given)
    moved = alias.move(index)
    took = "is searched as soon as it is open" if moved else "is searched, as it was before"
    _say(f"index {index.version} {took}\n")
    return 0


def grow_instructions(args: argparse.Namespace) -> int:
    """Grows instructions and prints how many were let in, and why others were not."""
    from medray.common.config import apply_overrides
    from medray.instructions.growth.grow import GrowConfig, grow

    config = GrowConfig.parse(apply_overrides({}, args.overrides), "the command line")
    totals = grow(config, args.seeds, args.out, args.url, args.model)
    sys.stdout.write(f"{args.out}: {totals}\n")
    return 0


def ask_server(args: argparse.Namespace) -> int:
    """Streams one answer to the terminal, then what it cites."""
    from medray.serving.client import ask, sources

    for piece in ask(args.question, args.url, retrieval=args.retrieval):
        _say(piece.text if piece.grounding is None else f"{sources(piece.grounding)}\n")
    return 0


def forget_patient(args: argparse.Namespace) -> int:
    """Erases a patient and prints what was changed and what is outdated; 2 if a row is left."""
    from medray import erasure

    # A shell keeps its command lines; a pipe leaves nothing behind.
    patient = sys.stdin.readline().strip() if args.patient == "-" else args.patient
    done = erasure.run(patient, args.profile, args.overrides)
    _say(erasure.to_text(done))
    return 2 if done.files_found else 0


def report_corpus(args: argparse.Namespace) -> int:
    """Writes the page of the profile's corpus."""
    from medray.corpus.report import write_report
    from medray.job import Job
    from medray.launch import load_profile

    if not args.out.parent.is_dir():
        raise DataError(f"--out {args.out}: there is no directory {args.out.parent}; make it first")
    job = Job(load_profile(args.profile, args.overrides, args.data))
    write_report(job.path("corpus"), args.out)
    _say(f"{args.out}\n")
    return 0


def show_runs(args: argparse.Namespace) -> int:
    """Prints the training runs of the profile's storage, or draws the curves of some."""
    from medray import runs
    from medray.common.storage import Storage
    from medray.launch import load_profile

    # A word KEY=VALUE is a setting of the profile, and no run.
    settings = [word for word in args.words if "=" in word]
    words = [word for word in args.words if "=" not in word]
    storage = Storage(load_profile(args.profile, [*args.overrides, *settings]).storage)
    known = runs.list_runs(storage)
    if not words:
        _say(runs.table(known))
    elif words[0] != "compare" or len(words) < 2:
        raise DataError(f"medray runs takes nothing, or compare RUN …; got {' '.join(words)}")
    else:
        chosen = [runs.find_run(known, name) for name in words[1:]]
        runs.compare(storage, chosen, args.out)
        _say(f"{args.out}\n")
    return 0


def import_ratings(args: argparse.Namespace) -> int:
    """Writes scores and preferences, and prints how far the raters agree."""
    from medray.instructions.ratings import import_ratings as read

    found = read(args.responses, args.ratings, args.out)
    figures = ", ".join(
        f"{name} {'n/a' if value is None else f'{value:.4g}'}"
        for name, value in found.agreement.items()
    )
    _say(f"{args.out}: {len(found.scores)} scores, {len(found.preferences)} pairs; {figures}\n")
    return 0


def convert_model(args: argparse.Namespace) -> int:
    """Converts a directory of weights."""
    from medray.training.baichuan import convert, is_baichuan
    from medray.training.weights import convert_pickles

    if args.bin and not is_baichuan(args.source):
        convert_pickles(args.source, args.target)
    else:
        convert(args.source, args.target, allow_bin=args.bin)
    _say(f"{args.target}\n")
    return 0


def quantise_model(args: argparse.Namespace) -> int:
    """Quantises a directory and prints what it saves."""
    from medray.launch import set_environment

    set_environment()
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # what it could download
    from medray.training.quantise import quantise

    before, after = quantise(args.source, args.target, args.bits)
    _say(f"{args.target}: {before / 1e6:.1f} MB → {after / 1e6:.1f} MB of weights\n")
    return 0


def print_table(args: argparse.Namespace) -> int:
    """Prints the demo's table for a storage root."""
    from medray.evaluation.table import format_table, read_table

    _say(format_table(read_table(args.root)))
    return 0


def run_demo(args: argparse.Namespace) -> int:
    """Runs the demonstration."""
    from medray.demo import run

    return run(args.profile, args.overrides, port=args.port, keep=args.keep)


def check_machine(args: argparse.Namespace) -> int:
    """Prints one line a check; 2 if one failed."""
    from medray import doctor

    checks = doctor.examine(
        args.profile, args.overrides, address=args.address, models=args.model, gpu=args.gpu
    )
    sys.stdout.write(doctor.to_json(checks) if args.json else doctor.to_table(checks))
    return 2 if any(check.status == "fail" for check in checks) else 0


def _say(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
