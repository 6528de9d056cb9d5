"""What trials share on one device: streams, the buffer that makes L2 cold, pools of KV, weights and host memory."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from calibration.kernels.kv_cache import FORMATS, VALUE_GROUP, Cache, Layout, Side
from calibration.suite.facts import Facts
from calibration.suite.point import FLUSH

SPARE = 1.25
"""Pages of a pool for each that is used: tables are scattered over it."""
CPU_SPARE = 6
"""On the CPU as many as the pools of the mini engine's layers, so that its caches are as cold."""


class Lab:
    """One device. Big buffers are made once, grow to the size that is needed most, and are shared.

    disk: folder on the disk that is measured. device: where tensors lie (tests play a GPU on the CPU).
    """

    def __init__(
        self, facts: Facts, *, disk: Path | None = None, device: torch.device | None = None, seed: int = 0
    ) -> None:
        self.facts = facts
        self.disk = disk
        self._files: set[Path] = set()
        self.cpu = facts.kind == "cpu"
        self.device = device or torch.device("cpu" if self.cpu else "cuda")
        self.dtype = torch.bfloat16
        self.clock: Callable[[], float] = time.perf_counter
        """Seconds of the host: on the CPU those that this thread worked, so that other programs do not count."""
        if self.cpu:
            torch.set_num_threads(1)
            self.clock = time.thread_time
        self.generator = torch.Generator(device=self.device).manual_seed(seed)
        self._pools: dict[str, torch.Tensor] = {}

    # ---- clocks and streams ------------------------------------------------------------------------------------------

    def event(self) -> Any:
        """An event that keeps time."""
        return torch.cuda.Event(enable_timing=True)

    # Streams are made once: torch deals out the same few again and again, and two uses of one wait for each other.

    @cached_property
    def inward(self) -> Any:
        """Stream for copies toward the GPU."""
        return torch.cuda.Stream()

    @cached_property
    def outward(self) -> Any:
        """Stream for copies toward the host."""
        return torch.cuda.Stream()

    @cached_property
    def side(self) -> Any:
        """Stream for copies within the GPU, and for what runs beside kernels."""
        return torch.cuda.Stream()

    @cached_property
    def compute(self) -> Any:
        """Stream for kernels that run beside the others."""
        return torch.cuda.Stream()

    def synchronize(self) -> None:
        """Wait until the device has done everything."""
        if not self.cpu:
            torch.cuda.synchronize()

    def synchronize_compute(self) -> None:
        """Wait until the current stream has done everything; copies on other streams go on."""
        if not self.cpu:
            torch.cuda.current_stream().synchronize()

    def wait(self, steps: int, stream: Any = None) -> None:
        """Keep a stream (the current one) of the GPU busy for so many loads, one after the other."""
        from calibration.kernels import chase

        chain, end = self._chain, self._end  # made on the current stream, before the other one is
        with torch.cuda.stream(stream or torch.cuda.current_stream()):
            chase.follow(chain, end, steps)

    def has_passed(self, event: Any) -> bool:
        """Whether the GPU has come past an event."""
        return bool(event.query())

    def flush(self) -> None:
        """Read more than L2 holds, so that what was in it is gone and nothing in it has to be written back."""
        if self.cpu:
            self._cold.sum()
            return
        from calibration.kernels import streams

        streams.read(self._cold, self._sums)

    @cached_property
    def _cold(self) -> torch.Tensor:
        words = int(FLUSH * self.facts.l2_bytes) // 4 // 16 * 16
        return torch.ones(words, dtype=torch.float32, device=self.device)

    @cached_property
    def _sums(self) -> torch.Tensor:
        return torch.zeros(self.programs, device=self.device)

    @cached_property
    def _chain(self) -> torch.Tensor:
        from calibration.kernels import chase

        return chase.chain(1 << 20, self.device)

    @cached_property
    def _end(self) -> torch.Tensor:
        return torch.zeros(1, dtype=torch.int64, device=self.device)

    @property
    def rotation(self) -> int:
        """Buffers that samples take in turn: on the CPU, where a flush leaves data in the shared cache."""
        return 6 if self.cpu else 1

    @property
    def programs(self) -> int:
        """Programs of a stream kernel: enough for every SM."""
        return 8 * self.facts.sms

    # ---- buffers -----------------------------------------------------------------------------------------------------

    def random(self, *shape: int, dtype: torch.dtype | None = None) -> torch.Tensor:
        """Normal random numbers on the device."""
        tensor = torch.empty(*shape, dtype=dtype or self.dtype, device=self.device)
        return tensor.normal_(generator=self.generator)

    def pool(self, name: str, count: int, kind: torch.dtype = torch.uint8, *, host: str = "") -> torch.Tensor:
        """At least `count` numbers, shared under a name, on the device or on the host ("pinned" or "pageable").

        Written to from end to end: normal random numbers, or bytes below 120, which are no NaN as fp8 e4m3.
        """
        kept = self._pools.get(name)
        if kept is None or kept.numel() < count:
            self._pools.pop(name, None)
            whole = math.ceil(count / 4096) * 4096
            place = torch.device("cpu") if host else self.device
            kept = torch.empty(whole, dtype=kind, device=place, pin_memory=host == "pinned" and not self.cpu)
            if host:
                kept.view(torch.uint8).fill_(1)
            elif kind in {torch.bfloat16, torch.float16, torch.float32}:
                kept.normal_(generator=self.generator)
            else:
                kept.view(torch.uint8).random_(0, 120, generator=self.generator)
            self._pools[name] = kept
        return kept[:count]

    def free_pools(self) -> None:
        """Give all pools back."""
        self._pools.clear()
        if not self.cpu:
            torch.cuda.empty_cache()

    def release(self) -> None:
        """Give all pools back and remove files."""
        for path in self._files:
            path.unlink(missing_ok=True)
        with suppress(RuntimeError):  # after an error of the GPU nothing can be given back
            self.free_pools()

    def disk_file(self, name: str, nbytes: int) -> Path:
        """A file of random bytes in the folder of `disk`, made once, removed by `release`."""
        if self.disk is None:
            raise ValueError("no folder on the disk was named")
        path = self.disk / name
        if not path.exists() or path.stat().st_size != nbytes:
            block = torch.randint(0, 256, (2**24,), dtype=torch.uint8).numpy().tobytes()
            with path.open("wb") as file:
                for start in range(0, nbytes, len(block)):
                    file.write(block[: nbytes - start])
                os.fsync(file.fileno())
        self._files.add(path)
        return path

    def integers(self, values: list[int] | torch.Tensor, dtype: torch.dtype = torch.int32) -> torch.Tensor:
        """Whole numbers on the device."""
        return torch.as_tensor(values).to(self.device, dtype)

    def cache(self, layout: Layout, lengths: list[int], *, seed: int = 0, host: bool = False) -> Cache:
        """A paged cache over the shared pools, pages in random order; keys and values in pinned memory if `host`."""
        counts = [math.ceil(length / layout.page) for length in lengths]
        pages = math.ceil((CPU_SPARE if self.cpu else SPARE) * sum(counts))
        order = torch.randperm(pages, generator=torch.Generator().manual_seed(seed), dtype=torch.int32)
        table = torch.zeros(len(lengths), max(counts), dtype=torch.int32)
        used = 0
        for row, count in enumerate(counts):
            table[row, :count] = order[used : used + count]
            used += count
        keys, values = (self._side(layout, pages, side, host) for side in ("keys", "values"))
        return Cache(layout, keys, values, table.to(self.device), self.integers(lengths))

    def _side(self, layout: Layout, pages: int, side: str, host: bool) -> Side:
        form, heads, dim = FORMATS[layout.format], layout.kv_heads, layout.head_dim
        kind = form.codes or self.dtype
        shape = (pages, layout.page, heads, form.packed(dim))
        place = "host" if host else "device"
        codes = self._view(f"{side} {place} {kind}", shape, kind, host="pinned" if host else "")
        scales = {
            0: (1, 1, 1, 1),
            1: (pages, layout.page, heads, 1),
            2: (pages, layout.page, heads, 1),
            3: (pages, layout.page, heads, dim // VALUE_GROUP)
            if side == "values"
            else (pages, layout.page // layout.key_group, heads, dim),
        }[form.kind]
        scale, zero = (self._view(f"{side} {name}", scales, torch.float16) for name in ("scale", "zero"))
        return Side(codes, scale, zero)

    def _view(self, name: str, shape: tuple[int, ...], kind: torch.dtype, *, host: str = "") -> torch.Tensor:
        return self.pool(name, math.prod(shape), kind, host=host).view(shape)
