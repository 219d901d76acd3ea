"""The whole paper in one command: every experiment, and one page with every claim.

Runs the experiments of a scale one after the other, each in its own subfolder of `--out`, and
writes index.html (self-contained), explorer.html, claims.json and the figures as PDF. An
interrupted run resumes where it stopped. Example:

    python -m experiments.paper --scale=laptop
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from absl import flags

from adam_transition.commands import _flagfiles, _flags, _outputs, _runner, _terminal
from adam_transition.commands.paper.plan import RUNS, SCALES, STATEMENTS, Run, Scale

FLAGS = _flags.common_flags("paper", figures=False)
flags.DEFINE_enum(
    "scale",
    "laptop",
    SCALES,
    "smoke: seconds per experiment, a test that all works; laptop: 60 to 90 minutes on two "
    "cores, depending on the data sets at hand; gpu.",
    flag_values=FLAGS,
)
flags.DEFINE_list("only", "", "Names of the runs to do; default: all.", flag_values=FLAGS)

_GRACE_S = 0.3
_PACKAGES = ("flax", "sklearn", "mnist1d")  # needed by runs with networks


def main(values: dict[str, Any]) -> None:
    """Flags → every experiment → page, claims."""
    from adam_transition.commands import explorer
    from adam_transition.commands.paper import page
    from adam_transition.sweeps import store

    names = [run.name for run in RUNS]
    if values["only"]:
        _flags.check_choices("only", values["only"], names)
    runs = [run for run in RUNS if run.name in (values["only"] or names)]
    out, scale = Path(values["out"]).absolute(), values["scale"]
    _check_needs(runs, out)
    out.mkdir(parents=True, exist_ok=True)
    lock = store.hold(out / "paper.json")
    summaries = {}
    for i, run in enumerate(runs):
        print(f"{i + 1}/{len(runs)}  {run.title}", flush=True)
        summaries[run.name] = compute(run, scale, out, values)
    found = rows(summaries)
    text = page.render(runs, summaries, found, scale=scale, folder=out)
    _outputs.write_text(out / "index.html", text)
    _outputs.write_text(out / page.EXPLORER, explorer.page())
    for run in runs:
        for figure in run.captions:
            target = out / page.pdf_name(run, figure)
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(out / run.name / f"{figure}.pdf", target)
    _outputs.write_text(out / "claims.json", json.dumps(found, indent=2, allow_nan=False) + "\n")
    claims = [claim for summary in summaries.values() for claim in summary["claims"]]
    _outputs.write_json(
        "paper",
        values,
        claims,
        wall_time_s=round(sum(s.get("wall_time_s") or 0 for s in summaries.values()), 2),
    )
    lock.release()
    if values["json"] != "-":
        written = "index.html", page.EXPLORER, "claims.json", "figures"
        print(f"{len(found)} claims", *(f"wrote {out / name}" for name in written), sep="\n")


def compute(run: Run, scale: Scale, out: Path, values: Mapping[str, Any]) -> dict[str, Any]:
    """Runs one experiment in its own process; returns its summary.

    Args:
      run: the experiment.
      scale: selects the flagfile.
      out: the folder in which the run gets a subfolder.
      values: the flags of this command.

    Raises:
      ValueError: the run failed; its message is on stderr.
    """
    folder = out / run.name
    flagfile = _flagfiles.path(run.flagfile_name(scale))
    command = [sys.executable, "-m", "adam_transition", run.command, f"--flagfile={flagfile}"]
    command += [f"--out={folder}", f"--seed={values['seed']}", "--distributed=off"]
    command += [] if values["resume"] else ["--noresume"]
    if run.name == "advise":
        command += [f"--results={out / 'batch_size'}"]
    status = _run_to_its_end(command)
    if status in (130, -2):
        raise KeyboardInterrupt
    if status:
        raise ValueError(f"{run.name} ended with status {status}; run again to continue")
    summary = folder / f"{run.command}.json"
    return json.loads(summary.read_text(encoding="utf-8"))


def _run_to_its_end(command: Sequence[str]) -> int:
    """Exit status of a process that ends with this one: terminated, or by the end of its input."""
    env = {**os.environ, _terminal.STOP_WITH_STDIN: "1"}
    with subprocess.Popen(
        command, env=env, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    ) as process:
        try:
            return process.wait()
        except BaseException:
            process.terminate()
            try:
                process.wait(_GRACE_S)
            except subprocess.TimeoutExpired:
                process.kill()
            raise


def rows(summaries: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Every claim of the runs, with the first statement of the paper that it belongs to.

    Raises:
      ValueError: a claim that belongs to no statement.
    """
    found: list[dict[str, Any]] = []
    for name, summary in summaries.items():
        for claim in summary["claims"]:
            statement = next(
                (s for s in STATEMENTS if _belongs(f"{name}:{claim['id']}", s.claims)), None
            )
            if statement is None:
                raise ValueError(f"the claim {name}:{claim['id']} belongs to no statement")
            found.append({**claim, "run": name, "statement_title": statement.title})
    order = [statement.title for statement in STATEMENTS]
    return sorted(found, key=lambda row: order.index(row["statement_title"]))


def _belongs(claim: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(claim, pattern) for pattern in patterns)


def _check_needs(runs: Sequence[Run], out: Path) -> None:
    names = {run.name for run in runs}
    trained = "batch_size" in names or (out / "batch_size" / "batch_size.zarr").exists()
    if names & {"networks", "batch_size", "finder", "advise"}:
        _runner.check_installed(_PACKAGES)
    if "certify" in names:
        _runner.check_installed(("flint",), "certify")
    if "advise" in names and not trained:
        raise ValueError("--only=advise: needs batch_size, which is not in --out")


COMMAND = _runner.Command("paper", __doc__, FLAGS, main)
