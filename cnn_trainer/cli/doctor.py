"""``cnn-train doctor``: what this machine is, and what is wrong with it."""

from typing import TYPE_CHECKING

from cnn_trainer.cli.options import DEFAULT_RUNS_DIR, AsJson, RunsDir
from cnn_trainer.cli.output import next_step, print_json, print_lines, say
from cnn_trainer.cli.tables import pairs

if TYPE_CHECKING:
    from cnn_trainer.doctor.examine import Diagnosis, Finding

_INSTRUCTIONS = {"avx2": "AVX2", "avx512": "AVX-512", "avx512_bf16": "AVX512_BF16", "amx": "AMX"}


def doctor(runs_dir: RunsDir = DEFAULT_RUNS_DIR, as_json: AsJson = False) -> None:
    """Look at this machine, and say what is wrong.

    Versions, devices, threads, processor, memory, disk, data; and whether a training works, which is tried. The exit
    code is 0 where one on the CPU would work.
    """
    from cnn_trainer.doctor.examine import examine

    say("starting TensorFlow and training three steps on made-up images; this takes some seconds")
    found = examine(runs_dir)
    if as_json:
        print_json(_as_json(found))
    else:
        print_lines(_describe(found))
    for finding in found.findings:
        if finding.stops is not None:
            raise finding.stops(f"training would fail here: {finding.problem}; {finding.remedy}")
    next_step("train", "configs/mnist.yaml")


def _as_json(found: "Diagnosis") -> dict[str, object]:
    return {
        **{name: value for name, value in vars(found).items() if name != "findings"},
        "wrong": [
            {
                "problem": finding.problem,
                "remedy": finding.remedy,
                "exit_code": finding.stops.exit_code if finding.stops else 0,
            }
            for finding in found.findings
        ],
    }


def _describe(found: "Diagnosis") -> list[str]:
    sections = {
        "versions": [(name, version or "not installed") for name, version in found.versions.items()],
        "device": _device(found),
        "processor": _processor(found),
        "memory and disk": _space(found),
        "data": [(each["source"], each["problem"] or each["location"] or "not at hand") for each in found.data],
        "environment": _environment(found),
    }
    lines: list[str] = []
    for title, rows in sections.items():
        lines += [title, *pairs(rows, indent="  "), ""]
    return lines + _wrong(found.findings)


def _device(found: "Diagnosis") -> list[tuple[str, str]]:
    device = found.device
    threads = f"{device['intra_op_threads']} in an operation, {device['inter_op_threads']} operations at a time"
    gpus = ", ".join(device["gpus"]) or ("none seen" if device["built_for_gpu"] else "none; this build knows none")
    rows = [
        ("training", f"works, on {device['used']}" if device["works"] else "does not work"),
        ("GPUs", gpus if device["works"] else "not known"),
        ("cores", str(device["cores"])),
        ("threads", f"{threads}, towers {device['towers']} (the documented network, on the CPU)"),
    ]
    return rows + [("message", message) for message in device["messages"]]


def _processor(found: "Diagnosis") -> list[tuple[str, str]]:
    processor = found.processor
    has = [words for name, words in _INSTRUCTIONS.items() if processor[name]]
    if processor["bfloat16"]:
        advice = f"float32; or bfloat16, which this processor computes itself ({', '.join(processor['bfloat16'])})"
    else:
        advice = "float32; bfloat16 would be slower, for this processor has no AMX"
    return [
        ("name", processor["name"] or processor["architecture"]),
        ("instructions", ", ".join(has) or "none of AVX2, AVX-512, AVX512_BF16, AMX"),
        ("precision", advice),
    ]


def _space(found: "Diagnosis") -> list[tuple[str, str]]:
    statuses = ", ".join(f"{count} {status}" for status, count in found.runs["statuses"].items())
    rows = [
        ("memory", f"{_gibibytes(found.memory['available_bytes'])} free of {_gibibytes(found.memory['total_bytes'])}"),
        ("runs directory", f"{found.runs['runs_dir']}: {_gibibytes(found.runs['free_bytes'])} free"),
        ("runs", statuses or "none"),
    ]
    return rows + [("locked", f"{name}: a process works on it") for name in found.runs["locked"]]


def _gibibytes(num_bytes: int | None) -> str:
    return "unknown" if num_bytes is None else f"{num_bytes / 2**30:.1f} GiB"


def _environment(found: "Diagnosis") -> list[tuple[str, str]]:
    from cnn_trainer.doctor.examine import meaning

    rows = [(f"{name}={value}", meaning(name)) for name, value in found.environment.items()]
    return rows or [("nothing is set", "that changes how TensorFlow works")]


def _wrong(findings: "list[Finding]") -> list[str]:
    if not findings:
        return ["wrong: nothing"]
    return ["wrong:", *(line for found in findings for line in (f"  {found.problem}", f"    remedy: {found.remedy}"))]
