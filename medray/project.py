"""Where the files that are not modules lie: job scripts, profiles, serve configurations.

In a checkout they stand beside the package; in an installed wheel they are inside it.
"""

from pathlib import Path

from medray.common.errors import ConfigError

PACKAGE = Path(__file__).resolve().parent


def jobs_directory() -> Path:
    """The directory of job scripts; `profiles/` is inside it."""
    checkout = PACKAGE.parent / "jobs"
    return checkout if (checkout / "profiles").is_dir() else PACKAGE / "_jobs"


def job_names() -> list[str]:
    """Names of the job scripts, without their ending."""
    return sorted(path.stem for path in jobs_directory().glob("[!_]*.py"))


def find_job(name: str) -> str:
    """The job script's name for `name`, which may leave out the verb: `sft` for `run_sft`.

    Raises:
        ConfigError: no such job; the message lists them.
    """
    wanted, names = name.removesuffix(".py").replace("-", "_"), job_names()
    found = [job for job in names if wanted in (job, job.partition("_")[2])]
    if len(found) != 1:
        raise ConfigError(f"no job {name!r}; the jobs are: {', '.join(names)}")
    return found[0]


def find_profile(name: str) -> Path:
    """The YAML file of a profile given by name (`laptop`) or by path.

    Raises:
        ConfigError: neither; the message lists the shipped profiles.
    """
    profiles = jobs_directory() / "profiles"
    for path in (profiles / f"{name}.yaml", Path(name).expanduser()):
        if path.is_file():
            return path
    shipped = ", ".join(sorted(path.stem for path in profiles.glob("*.yaml")))
    raise ConfigError(f"no profile {name!r}; give one of {shipped}, or the path of a YAML file")


def find_serve_config(name: str) -> Path:
    """The YAML file of a serve configuration given by name (`laptop`) or by path."""
    checkout = PACKAGE.parent / "serve_configs"
    shipped = checkout if checkout.is_dir() else PACKAGE / "_serve_configs"
    for path in (shipped / f"{name}.yaml", Path(name).expanduser()):
        if path.is_file():
            return path
    names = ", ".join(sorted(path.stem for path in shipped.glob("*.yaml")))
    raise ConfigError(
        f"no serve configuration {name!r}; give one of {names}, or the path of a YAML file"
    )
