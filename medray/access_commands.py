"""`medray keys`, `audit` and `feedback`: who may use the service, and what was done with it."""

import argparse
import sys
from pathlib import Path

from medray.common.errors import ConfigError, DataError


def new_key(args: argparse.Namespace) -> int:
    """Makes a key and shows it, this once."""
    from medray.serving.identity.keys import KeyFile

    made = KeyFile(args.file).add(
        args.name, args.role,
        requests_per_minute=args.requests_per_minute, tokens_per_day=args.tokens_per_day,
    )  # fmt: skip
    sys.stderr.write(f"key {made.key.id} for {made.key.name}, role {made.key.role}; shown once:\n")
    sys.stdout.write(f"{made.secret}\n")
    return 0


def list_keys(args: argparse.Namespace) -> int:
    """Lists the keys of a file, without their secrets."""
    from medray.serving.identity.keys import KeyFile

    for key in KeyFile(args.file).keys().values():
        state = f"revoked {key.revoked}" if key.revoked else "holds"
        limits = [
            f"{value} {what}"
            for value, what in (
                (key.requests_per_minute, "requests a minute"),
                (key.tokens_per_day, "tokens a day"),
            )
            if value is not None
        ]
        sys.stdout.write("  ".join([key.id, key.role, state, key.name, *limits]) + "\n")
    return 0


def revoke_key(args: argparse.Namespace) -> int:
    """Takes a key back, from the next request on."""
    from medray.serving.identity.keys import KeyFile

    key = KeyFile(args.file).revoke(args.id)
    sys.stdout.write(f"revoked {key.id} ({key.name})\n")
    return 0


def verify_audit(args: argparse.Namespace) -> int:
    """Checks the audit log; exit code 1 if anything was edited, cut or removed."""
    from medray.serving.audit_log import verify

    found = verify(args.directory)
    sys.stdout.write(f"{found.num_entries} entries of {found.num_writers} writers\n")
    for fault in found.faults:
        sys.stdout.write(f"FAULT {fault}\n")
    sys.stdout.write(f"head {found.head}\n")
    return 1 if found.faults else 0


def show_audit(args: argparse.Namespace) -> int:
    """Prints the entries about a request, or all, with their texts where the key is given."""
    from medray.serving.audit_log import KEY_VARIABLE, key_from_environment, read_entries

    key = key_from_environment()
    if args.texts and key is None:
        raise ConfigError(f"texts are encrypted; give their key in {KEY_VARIABLE}")
    shown = 0
    for line in read_entries(args.directory, args.request, key if args.texts else None):
        sys.stdout.write(line + "\n")
        shown += 1
    if args.request and not shown:
        raise DataError(f"{args.directory} has no entry of request {args.request}")
    return 0


def name_caller(args: argparse.Namespace) -> int:
    """Prints the name that a subject of the identity provider has in the audit log."""
    from medray.serving.audit_log import key_from_environment
    from medray.serving.identity.oidc import pseudonym

    # A shell keeps its command lines; a pipe leaves nothing behind.
    subject = sys.stdin.readline().strip() if args.subject == "-" else args.subject
    sys.stdout.write(pseudonym(args.issuer, subject, key_from_environment()) + "\n")
    return 0


def export_feedback(args: argparse.Namespace) -> int:
    """Writes what readers said of answers as task files."""
    from medray.feedback import export_feedback as export
    from medray.serving.audit_log import KEY_VARIABLE, key_from_environment

    key = key_from_environment()
    if key is None:
        raise ConfigError(f"feedback is encrypted; give its key in {KEY_VARIABLE}")
    made = export(args.directory, args.out, key)
    sys.stdout.write(
        f"{made.num_scores} scores and {made.num_preferences} preferences in {args.out}, "
        f"left out {made.left_out}; they hold patients' words: build_instructions masks them\n"
    )
    return 0


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """The three commands and their own."""
    keys = commands.add_parser("keys", help="API keys of the service: new, list, revoke")
    keys.add_argument("--file", type=Path, required=True, help="the gateway's keys_file")
    of_keys = keys.add_subparsers(metavar="COMMAND", required=True)
    new = of_keys.add_parser("new", help="make a key; it is shown once")
    new.add_argument("name", help="who will hold it")
    new.add_argument("--role", choices=("patient", "clinician", "quality", "admin"), required=True)
    new.add_argument("--requests-per-minute", type=int, metavar="N")
    new.add_argument("--tokens-per-day", type=int, metavar="N")
    new.set_defaults(command=new_key)
    of_keys.add_parser("list", help="list them").set_defaults(command=list_keys)
    revoke = of_keys.add_parser("revoke", help="take one back")
    revoke.add_argument("id", help="as `list` shows it")
    revoke.set_defaults(command=revoke_key)

    feedback = commands.add_parser("feedback", help="readers' feedback as reward data")
    feedback.add_argument("directory", type=Path, help="the gateway's audit_dir")
    feedback.add_argument("--out", type=Path, required=True, help="a directory for two task files")
    feedback.set_defaults(command=export_feedback)

    audit = commands.add_parser("audit", help="the service's audit log: verify, show, caller")
    of_audit = audit.add_subparsers(metavar="COMMAND", required=True)
    check = of_audit.add_parser("verify", help="was anything edited, cut or removed?")
    check.add_argument("directory", type=Path, help="the gateway's audit_dir")
    check.set_defaults(command=verify_audit)
    show = of_audit.add_parser("show", help="print entries, one JSON object a line")
    show.add_argument("directory", type=Path, help="the gateway's audit_dir")
    show.add_argument("--request", default="", help="of one request only")
    show.add_argument("--texts", action="store_true", help="decrypt; the key is in the environment")
    show.set_defaults(command=show_audit)
    who = of_audit.add_parser("caller", help="what the holder of a token is called in the log")
    who.add_argument("issuer", help="the gateway's oidc.issuer")
    who.add_argument("subject", help="as tokens have it in `sub`; - reads one line")
    who.set_defaults(command=name_caller)
