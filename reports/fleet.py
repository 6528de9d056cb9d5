"""Replicas that come and go: their section in a run's report."""

from reports.document import Section
from reports.figures.base import TimeAxis
from reports.figures.fleet import fleet_figure
from reports.load import RunData, section
from reports.tables import TextTable
from reports.text import number, percent, seconds


def fleet_panel(run: RunData, axis: TimeAxis) -> Section | None:
    """The section of the page; None where all replicas serve all the time."""
    table = fleet_table(run)
    return Section("fleet", "Replicas", [fleet_figure(run, axis)], [table]) if table else None


def fleet_table(run: RunData) -> TextTable | None:
    """What replicas were on, started and stopped, and who waited for them; None without a scaling policy."""
    did = section(run.summary, "fleet")
    if not did:
        return None
    gateway, spent = did["gateway"], did["replica_s"]
    said = section(section(run.summary, "definitions"), "fleet")
    rows = [
        (str(said[key]["label"]), value, str(said[key]["definition"]))
        for key, value in (
            ("mean_on", f"{number(did['mean_on'], 3)} of {did['max']} ({percent(did['on_share'])})"),
            ("mean_serving", number(did["mean_serving"], 3)),
            ("gpu_hours", number(did["gpu_hours"], 3)),
            ("starts", number(did["starts"])),
            ("stops", number(did["stops"])),
            ("cancelled_starts", number(did["cancelled_starts"])),
            ("kept", number(did["kept"])),
            ("start_mean_s", "none" if did["start_mean_s"] is None else seconds(did["start_mean_s"])),
            ("replica_s", ", ".join(f"{seconds(value)} {state}" for state, value in spent.items())),
        )
    ]
    waits = gateway["wait_ms"]
    waited = "nobody waited"
    if gateway["requests"]:
        mean, most = seconds(waits["mean"] / 1e3), seconds(waits["max"] / 1e3)
        waited = f"{number(gateway['requests'])} requests, {mean} in the mean, {most} at most"
    rows.append((str(said["gateway"]["label"]), waited, str(said["gateway"]["definition"])))
    read = f"Scaling policy {did['scaling']}: {did['min']} to {did['max']} replicas on."
    return TextTable("fleet", "Replicas that come and go", read, ("what", "value", "meaning"), rows, ())
