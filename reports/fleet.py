"""Replicas that come and go: their section in a run's report."""

from reports.document import Section
from reports.figures.base import TimeAxis
from reports.figures.fleet import fleet_figure
from reports.load import RunData, section
from reports.tables import TextTable
from reports.text import NO_VALUE, binary_bytes, number, percent, seconds


def fleet_panel(run: RunData, axis: TimeAxis) -> Section | None:
    """The section of the page; None where all replicas serve all the time."""
    table = fleet_table(run)
    return Section("fleet", "Replicas", [fleet_figure(run, axis)], [table, *models_tables(run)]) if table else None


def fleet_table(run: RunData) -> TextTable | None:
    """What replicas were on, started and stopped, and who waited for them; None without a scaling policy."""
    did = section(run.summary, "fleet")
    if not did:
        return None
    gateway, spent = did["gateway"], did["replica_s"]
    share = did.get("gpu_share", did["on_share"])  # of several models the GPUs are paid for whoever runs on them
    said = section(section(run.summary, "definitions"), "fleet")
    rows = [
        (str(said[key]["label"]), value, str(said[key]["definition"]))
        for key, value in (
            ("mean_on", f"{number(did['mean_on'], 3)} of {did['max']} ({percent(share)})"),
            ("mean_serving", number(did["mean_serving"], 3)),
            ("gpu_hours", f"{number(did['gpu_hours'], 3)} h"),
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
    return TextTable("replicas-on", "Replicas that come and go", read, ("What", "Value", "Meaning"), rows, ())


def models_tables(run: RunData) -> list[TextTable]:
    """What each of several models on the same GPUs did, and what loading weights ahead came to; none of one model."""
    did = section(run.summary, "fleet")
    if not did.get("models"):
        return []
    rows = []
    for model in did["models"]:
        ttft, waits, starts = model["ttft_ms"], model["gateway_wait_ms"], model["starts"]
        rows.append(
            (
                str(model["name"]),
                number(model["gpus"]),
                binary_bytes(model["weight_bytes"]),
                f"{number(model['finished'])} of {number(model['requests'])}",
                _ms(ttft["mean"]),
                _ms(ttft["p99"]),
                _ms(waits["p99"]),
                *(number(starts[how]) for how in ("warm", "partly", "cold")),
            )
        )
    terms = [
        ("GPUs", "Of one instance."),
        ("Weights", "Bytes that an instance has in HBM."),
        ("Finished", "Requests for the model that ended, of those that came."),
        ("Mean, P99 TTFT", "From arrival to the first token, the gateway included."),
        ("P99 gateway", "The part of TTFT for which no instance took the request."),
        ("Warm, partly, cold", "Starts that found the weights in HBM, on their way there, or not at all."),
    ]
    columns = ("Model", "GPUs", "Weights", "Finished", "Mean TTFT", "P99 TTFT", "P99 gateway", "Warm", "Partly", "Cold")
    ahead = did["prewarm"]
    hits, later = (NO_VALUE if ahead[key] is None else percent(ahead[key]) for key in ("hit_ratio", "later_hit_ratio"))
    read = (
        f"Weights are loaded ahead by {ahead['policy']}: {hits} of the starts found them (of those in the second half "
        f"of the trace {later}); {number(ahead['loads'])} loads ahead, {number(ahead['unused'])} of them in vain, "
        f"{binary_bytes(ahead['loaded_bytes'])} of weights loaded in all. "
        "Seconds off and on are those of instances, not of GPUs."
    )
    if ahead["policy"] == "none":
        read = "No weights are loaded ahead. Seconds off and on are those of instances, not of GPUs."
    return [TextTable("fleet-models", "Models", read, columns, rows, range(1, len(columns)), terms)]


def _ms(value: float | None) -> str:
    return NO_VALUE if value is None else seconds(value / 1e3)
