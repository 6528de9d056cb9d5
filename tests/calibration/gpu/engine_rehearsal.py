"""The mini engine's GPU side, rehearsed: Triton kernels interpreted, CUDA played by stand-ins, pages really copied.

The same requests run on torch's own operations first; both engines have the same weights, so every prompt must end in
the same hidden numbers. Kernels that see one row at a time are torch's, too: the interpreter would take minutes, and
each is compared with torch by `calibration.kernels.verify`. Run as a script; prints one line per variant.
"""

from __future__ import annotations

import json
from types import SimpleNamespace

import rehearsal
import torch

from calibration.kernels import elementwise, prefetch_l2
from calibration.mini_engine import gpu_copies
from calibration.mini_engine.layer import LayerShape
from calibration.mini_engine.measure import Bench
from calibration.mini_engine.model import ModelShape
from calibration.mini_engine.run_record import unlike
from calibration.mini_engine.setting import VARIANTS, Setting
from calibration.mini_engine.workload import Load
from calibration.suite import bench_memory
from calibration.suite.facts import Facts
from calibration.suite.lab import Lab

GIB = 2**30
LOAD = Load(requests=4, rate=1000.0, documents=3, document_blocks=1, tail=(20, 30), output=(2, 3), seed=3)
SETTING = Setting("tiny", pages=40, host_pages=200, max_seqs=1, max_tokens=256, load=LOAD)
SHAPE = ModelShape(2, LayerShape(hidden=64, heads=2, kv_heads=1, head_dim=32, ffn=64, page=16), vocabulary=128)


def bench(kind: str) -> Bench:
    facts = Facts(kind, "none", "9.0", 1, 64 * 1024, GIB, GIB, GIB)
    return Bench(Lab(facts, device=torch.device("cpu")), SETTING, SHAPE)


def main() -> None:
    reference = bench("cpu").run(VARIANTS["C"])
    rehearsal.stand_in()
    gpu_copies.Runtime = rehearsal.Runtime
    torch.version.cuda = "13.0"
    elementwise.rms_norm = lambda x, gain, y: y.copy_(elementwise.rms_norm_reference(x, gain))
    elementwise.silu_gate = lambda x, y: y.copy_(elementwise.silu_gate_reference(x))
    elementwise.rotate = lambda x, c, s: x.copy_(elementwise.rotate_reference(x, c.to(x.dtype), s.to(x.dtype)))
    replayed = []

    def graph_of(lab, work, count):
        work()
        return SimpleNamespace(replay=lambda: (work(), replayed.append(1)))

    bench_memory.graph_of = graph_of
    asked = []
    prefetch_l2.pages = lambda data, numbers, page_bytes, done, unit=0: asked.append(
        (numbers.numel(), page_bytes, unit)
    )
    played = bench("cuda")
    for name in ("D", "E"):
        replayed.clear()
        run = played.run(VARIANTS[name])
        print(
            json.dumps(
                {
                    "variant": name,
                    "unlike": unlike(reference.outputs, run.outputs),
                    "outputs": len(run.outputs),
                    "wrong_pages": run.wrong_pages,
                    "checked_pages": run.checked_pages,
                    "loaded_pages": run.scheduler.host.counters.loaded_pages,
                    "decode_steps": sum(not step.chunks for step in run.log.steps),
                    "replayed": len(replayed),
                    "prefetches": len(asked),
                }
            )
        )


if __name__ == "__main__":
    main()
