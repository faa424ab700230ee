"""Where a call runs: on the CPU, or on the device and the stream of the framework that its first tensor comes from."""
from __future__ import annotations

import ctypes
import struct
from typing import Optional

from . import _frameworks, _nvrtc, _raw
from ._library import check

SLOTS, MOST_DIMS = 16, 8
_spare: list = []  # Loans that wait for their next call
sizeof = ctypes.sizeof
# These C structs with their first fields set and zeros behind.
ATTENTION = struct.Struct(f"=qQQQ{sizeof(_raw.dlattn_attention) - 32}x")
OUTPUTS = struct.Struct(f"=qQ{sizeof(_raw.dlattn_outputs) - 16}x")
GRADIENTS = struct.Struct(f"=q9Q{sizeof(_raw.dlattn_gradients) - 80}x")
EXEC = struct.Struct(f"=qQQQ{sizeof(_raw.dlattn_exec) - 32}x")
PROMISED = 2**64 - 1  # bytes of a workspace that is not there yet: a call on CUDA refuses if it would use any


class Slot:
    """A DLTensor with its address, and room for its shape and strides with theirs."""

    __slots__ = ("tensor", "address", "sizes", "sizes_address")

    def __init__(self):
        self.tensor, self.sizes = _raw.DLTensor(), (ctypes.c_int64 * (2 * MOST_DIMS))()
        self.address, self.sizes_address = ctypes.addressof(self.tensor), ctypes.addressof(self.sizes)


class Loans(list):
    """What a call has borrowed: whatever must live until it is over, and `run`, its place on CUDA (None: the CPU).

    Its C structs are filled anew for each call: to make them would take a third of the time before the launch."""

    __slots__ = ("run", "slots", "used", "attention", "outputs", "gradients", "exec", "needed", "asks")

    def __init__(self):
        self.run: Optional[Run] = None
        self.slots, self.used = [Slot() for _ in range(SLOTS)], 0
        self.attention, self.outputs, self.exec = _raw.dlattn_attention(), _raw.dlattn_outputs(), _raw.dlattn_exec()
        self.gradients = _raw.dlattn_gradients()
        self.needed = ctypes.c_uint64()  # bytes of workspace
        self.asks: set = set()  # ids of functions whose last call on CUDA used a workspace: they ask for its size first

    @staticmethod
    def take() -> Loans:
        try:
            return _spare.pop()
        except IndexError:  # the first call of all, or one beside another
            return Loans()

    def release(self) -> None:
        """The call is over: nothing is kept alive, and tensors and structs serve another one."""
        self.clear()
        self.run, self.used = None, 0
        _spare.append(self)

    def slot(self) -> Slot:
        used = self.used
        if used == SLOTS:
            slot = Slot()
            self.append(slot)
            return slot
        self.used = used + 1
        return self.slots[used]

    def fill_attention(self, q: int, k: int, v: int) -> _raw.dlattn_attention:
        ATTENTION.pack_into(self.attention, 0, ATTENTION.size, q, k, v)
        return self.attention

    def fill_outputs(self, out: int) -> _raw.dlattn_outputs:
        OUTPUTS.pack_into(self.outputs, 0, OUTPUTS.size, out)
        return self.outputs

    def fill_gradients(self, *addresses: int) -> _raw.dlattn_gradients:
        """All fields in the order of the struct; 0: not given."""
        GRADIENTS.pack_into(self.gradients, 0, GRADIENTS.size, *addresses)
        return self.gradients

    def launch(self, function, subject, result, exec_=None, workspace=None) -> None:
        """Calls a function of the library that takes (subject, result, exec); see Problem.launch. Ends the loans."""
        run = self.run
        if run is None:
            status = function(subject, result, exec_)
        elif workspace is None:
            status = function(subject, result, self.exec)
        else:
            status = self._launch_with(workspace, function, subject, result)
        if status:
            check(status)
        if run is not None and (run.others or run.waits):
            run.finish()
        self.release()

    def _launch_with(self, workspace, function, subject, result) -> int:
        """On CUDA, with the workspace that the call uses, if any: it tries without one where it did without the last time.

        torch/_native.py does the same in its own words: there exec is filled only when the stream is another one."""
        exec_, run = self.exec, self.run
        if id(function) not in self.asks:
            EXEC.pack_into(exec_, 0, EXEC.size, run.stream, 0, PROMISED)
            status = function(subject, result, exec_)
            if status != _raw.DLATTN_ERR_WORKSPACE:
                return status
            self.asks.add(id(function))
        status = workspace(subject, result, exec_, self.needed, None)
        if status:
            return status
        size = self.needed.value
        if size:
            owner, address = run.framework.workspace(size, run.device, run.stream)
            EXEC.pack_into(exec_, 0, EXEC.size, run.stream, address, size)
            self.append(owner)
        else:
            self.asks.discard(id(function))
        return function(subject, result, exec_)


class Run:
    """A call on CUDA. Its stream is the current one of the first tensor's framework, from which outputs and workspace
    come too, so their memory is used in that stream's order alone. A tensor of another framework is ordered by events:
    the call waits for that framework's stream, and that stream then waits for the call."""

    __slots__ = ("framework", "device", "stream", "others", "waits")

    def __init__(self, framework, device: int, exec_: _raw.dlattn_exec):
        if not _nvrtc.decided:
            _nvrtc.announce()
        self.framework, self.device, self.others, self.waits = framework, device, (), framework.waits
        self.stream = framework.stream(device)
        EXEC.pack_into(exec_, 0, EXEC.size, self.stream, 0, 0)

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
        """A new array; shape None: the shape and the dtype of `like`."""
        if shape is None:
            return self.framework.empty_like(like)
        return self.framework.empty(shape, word, self.device)

    def finish(self) -> None:
        """After the launch: order what comes next behind it."""
        for framework in self.others:
            framework.join(self.device, self.stream)
        if self.waits:
            _frameworks.wait(self.stream)
