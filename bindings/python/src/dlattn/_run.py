"""Where a call runs: on the CPU, or on the device and the stream of the framework that its first tensor comes from."""
from __future__ import annotations

import ctypes
from typing import Optional

from . import _frameworks, _nvrtc, _raw
from ._library import check

EXEC_SIZE = ctypes.sizeof(_raw.dlattn_exec)


SLOTS, MOST_DIMS = 8, 8
_spare: list = []  # sets of SLOTS slots, ready to be used again


class Slot:
    """A DLTensor with its address, and room for its shape and strides with theirs. To make one takes longer than to
    fill it, so they are kept from call to call."""

    __slots__ = ("tensor", "address", "sizes", "sizes_address")

    def __init__(self):
        self.tensor, self.sizes = _raw.DLTensor(), (ctypes.c_int64 * (2 * MOST_DIMS))()
        self.address, self.sizes_address = ctypes.addressof(self.tensor), ctypes.addressof(self.sizes)


class Loans(list):
    """What a call has borrowed: whatever must live until it is over, and `run`, its place on CUDA (None: the CPU)."""

    __slots__ = ("run", "slots", "used")

    def __init__(self):
        self.run: Optional[Run] = None
        self.slots, self.used = None, 0

    def slot(self) -> Slot:
        if self.slots is None:
            try:
                self.slots = _spare.pop()
            except IndexError:
                self.slots = [Slot() for _ in range(SLOTS)]
        if self.used == SLOTS:
            slot = Slot()
            self.append(slot)
            return slot
        self.used += 1
        return self.slots[self.used - 1]

    def release(self) -> None:
        """The call is over, and its tensors may serve another one."""
        if self.slots is not None:
            _spare.append(self.slots)
            self.slots = None

    def launch(self, function, subject, result, exec_=None, workspace=None) -> None:
        """Calls a function of the library that takes (subject, result, exec); see Problem.launch. The call's tensors
        are gone afterwards."""
        run = self.run
        if run is None:
            check(function(subject, result, exec_))
        else:
            self._launch_there(run, function, subject, result, workspace)
        self.release()

    def _launch_there(self, run: Run, function, subject, result, workspace) -> None:
        if workspace is not None:
            needed = ctypes.c_uint64()
            check(workspace(subject, result, run.exec, needed, None))
            if needed.value:
                self.append(run.take_workspace(needed.value))
        check(function(subject, result, run.exec))
        if run.others or run.waits:
            run.finish()


class Run:
    """A call on CUDA. Its stream is the current one of the first tensor's framework, from which outputs and workspace
    come too, so their memory is used in that stream's order alone. A tensor of another framework is ordered by events:
    the call waits for that framework's stream, and that stream then waits for the call."""

    __slots__ = ("framework", "device", "stream", "others", "waits", "exec")

    def __init__(self, framework, device: int):
        _nvrtc.announce()
        self.framework, self.device, self.others, self.waits = framework, device, (), framework.waits
        self.stream = framework.stream(device)
        self.exec = _raw.dlattn_exec(EXEC_SIZE, self.stream)

    def consumer_stream(self, device: int) -> Optional[int]:
        """The stream argument of __dlpack__: 1 is the legacy default stream there, and 0 is not allowed. For a tensor
        of another device, which the library refuses, None: that is safe with every producer."""
        return (self.stream or 1) if device == self.device else None

    def admit(self, framework) -> None:
        """Lets the call wait for what another framework has in flight; None: one that we know nothing of."""
        if framework is None:
            self.waits = True
        elif framework not in self.others:
            self.others += (framework,)
            self.waits |= framework.waits
            framework.fork(self.device, self.stream)

    def empty(self, shape, word: int, like):
        return self.framework.empty(shape, word, self.device, like)

    def take_workspace(self, size: int):
        owner, self.exec.workspace = self.framework.workspace(size, self.device, self.stream)
        self.exec.workspace_bytes = size
        return owner

    def finish(self) -> None:
        """After the launch: order what comes next behind it."""
        for framework in self.others:
            framework.join(self.device, self.stream)
        if self.waits:
            _frameworks.wait(self.stream)
