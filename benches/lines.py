"""Cache lines that calls of two workers have in common: Linux on x86-64, with the right to trace a process.

    cargo rustc --release --bin sabir -- -C strip=none
    pip install iced-x86
    python benches/lines.py target/release/sabir [CONFIG PATH]

Both workers serve calls while they are traced, an instruction at a time and one worker after the other; what the
instructions read and write is decoded from their bytes and the registers. A cache line counts as common if both workers
have touched it and one of them has written to it. The kernel's part of a call is not seen.

Without CONFIG, plain requests are relayed to a server of the script's own. CONFIG is a file with `workers: 2` and one
listener on `127.0.0.1:0`; PATH is what is asked of it with GET, and is answered with 200.

A call takes a second in this way, so that what is done by the clock shows in every call: the log hands on its lines
(25 ms, or 64 KiB of them), the allocator gives back memory (2 s).
"""

import ctypes
import http.client
import http.server
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from bisect import bisect_right
from collections import Counter, defaultdict

from iced_x86 import Decoder, InstructionInfoFactory, OpAccess, Register

CALLS = 5  # that are traced of each worker
WARM = 200  # calls before, so that caches and pools are filled
TRIAL = 20  # calls that tell which worker has a connection
STARTING = 60  # seconds that the gateway may take to listen
PATIENCE = 120  # seconds that one call may take
LINE = 64  # bytes

RELAY = """
workers: 2
listeners: [{{address: "127.0.0.1:0"}}]
admin: {{address: "127.0.0.1:0"}}
backends: {{upstream: {{protocol: rest, endpoints: ["http://127.0.0.1:{port}"]}}}}
routes: [{{path: /**, backend: upstream}}]
"""

# Of <sys/ptrace.h>.
CONT, SINGLESTEP, GETREGS, DETACH, SEIZE, INTERRUPT = 7, 9, 12, 17, 0x4206, 0x4207
ALL_THREADS = 0x40000000  # __WALL of <sys/wait.h>

# user_regs_struct of <sys/user.h>.
REGISTERS = (
    "r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss fs_base gs_base ds es fs gs"
).split()
WRITES = {OpAccess.WRITE, OpAccess.COND_WRITE, OpAccess.READ_WRITE, OpAccess.READ_COND_WRITE}


class Registers(ctypes.Structure):
    _fields_ = [(name, ctypes.c_ulonglong) for name in REGISTERS]


NAMES = {getattr(Register, name.upper()): name for name in REGISTERS if hasattr(Register, name.upper())}
NAMES |= {Register.FS: "fs_base", Register.GS: "gs_base"}
NAMES |= {getattr(Register, "E" + name[1:].upper()): name for name in REGISTERS if re.fullmatch("r[a-ds][xip]|r[sb]p", name)}

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.restype = ctypes.c_long
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


def ptrace(request, thread, data=0):
    if libc.ptrace(request, thread, 0, data) < 0:
        raise OSError(ctypes.get_errno(), f"ptrace request {request}")


class Memory:
    """What instructions of a process touch."""

    def __init__(self, process):
        self.file = open(f"/proc/{process}/mem", "rb", buffering=0)
        self.known = {}
        self.factory = InstructionInfoFactory()

    def operands(self, at):
        if at not in self.known:
            self.file.seek(at)
            instruction = Decoder(64, self.file.read(15), ip=at).decode()
            self.known[at] = [
                (
                    # Other segments begin at 0.
                    NAMES[used.segment] if used.segment in (Register.FS, Register.GS) else None,
                    NAMES.get(used.base),
                    NAMES.get(used.index),
                    used.scale,
                    used.displacement,
                    used.access in WRITES,
                )
                for used in self.factory.info(instruction).used_memory()
                if used.access != OpAccess.NO_MEM_ACCESS
            ]
        return self.known[at]

    def touched(self, registers):
        """Addresses, and whether they are written to."""
        for segment, base, index, scale, displacement, written in self.operands(registers.rip):
            address = displacement
            address += getattr(registers, segment) if segment else 0
            address += getattr(registers, base) if base else 0
            address += getattr(registers, index) * scale if index else 0
            yield address % 2**64, written


def trace(memory, thread, work):
    """What a thread touches while `work` is done: instruction, address, written."""
    touched, registers = [], Registers()
    ptrace(SEIZE, thread)
    ptrace(INTERRUPT, thread)
    os.waitpid(thread, ALL_THREADS)
    working = threading.Thread(target=work)
    working.start()
    stopped = True
    while working.is_alive():
        if stopped:
            ptrace(SINGLESTEP, thread)
        stopped = os.waitpid(thread, ALL_THREADS | os.WNOHANG)[0] == thread
        if stopped:
            ptrace(GETREGS, thread, ctypes.addressof(registers))
            touched += [(registers.rip, *access) for access in memory.touched(registers)]
    if not stopped:
        ptrace(INTERRUPT, thread)
        os.waitpid(thread, ALL_THREADS)
        if has_stepped(thread):
            # The step ended at the same time: its signal is taken here, or it would end the process.
            ptrace(CONT, thread)
            os.waitpid(thread, ALL_THREADS)
    ptrace(DETACH, thread)
    return touched


def has_stepped(thread):
    """Whether the signal by which a step ends waits for a thread."""
    with open(f"/proc/{thread}/status") as status:
        pending = next(line for line in status if line.startswith("SigPnd:"))
    return int(pending.split()[1], 16) >> (signal.SIGTRAP - 1) & 1 == 1


class Symbols:
    """Names of the functions of a program that runs."""

    def __init__(self, process, program):
        with open(f"/proc/{process}/maps") as maps:
            mappings = [line.split() for line in maps]
        self.mapped = []
        for mapping in mappings:
            begin, end = (int(number, 16) for number in mapping[0].split("-"))
            self.mapped.append((begin, end, mapping[5] if len(mapping) > 5 else ""))
        program = os.path.realpath(program)
        start = min(begin for begin, _, path in self.mapped if path == program)
        self.program = program
        listed = subprocess.run(["nm", "-C", "--defined-only", program], capture_output=True, text=True, check=False)
        lines = (line.split(" ", 2) for line in listed.stdout.splitlines())
        self.known = sorted((int(at, 16) + start, name) for at, _, name in lines)
        if not self.known:
            sys.exit(f"{program} has no symbols; build it with `-C strip=none`")

    def of(self, at):
        path = next((path for begin, end, path in self.mapped if begin <= at < end), "")
        if path != self.program:
            return os.path.basename(path)
        name = self.known[bisect_right(self.known, (at, "\U0010ffff")) - 1][1]
        # Types in brackets say little here, and much of it.
        name = re.sub(r"::\{\{closure\}\}|::h[0-9a-f]{16}$", "", name)
        while re.search(r"<[^<>]*>", name):
            name = re.sub(r"(?:::)?<[^<>]*>(?:::)?", "", name)
        return name


class Upstream(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def do_GET(self):
        body = b'{"id": 7}'
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Gateway:
    """A gateway of two workers, and a connection to each."""

    def __init__(self, program, configuration, path):
        command = [program, "--log-format", "json", "serve", "--config", configuration]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        late = threading.Timer(STARTING, self.process.kill)
        late.start()
        said = []
        for line in self.process.stdout:
            said.append(line)
            if found := re.search(r"listening on (127\.0\.0\.1):(\d+)", line):
                break
        else:
            sys.exit("the gateway does not listen: " + "".join(said))
        late.cancel()
        # Read to the end, so that the gateway is never held up.
        threading.Thread(target=self.process.stdout.read, daemon=True).start()
        self.address, self.path = (found[1], int(found[2])), path

    def workers(self):
        tasks = f"/proc/{self.process.pid}/task"
        names = {int(task): open(f"{tasks}/{task}/comm").read() for task in os.listdir(tasks)}
        workers = [task for task, name in names.items() if name.startswith("worker-")]
        if len(workers) != 2:
            sys.exit(f"the gateway has {len(workers)} workers instead of 2")
        return workers

    def spent(self, worker):
        with open(f"/proc/{self.process.pid}/task/{worker}/schedstat") as stat:
            return int(stat.read().split()[0])

    def connections(self):
        """For each worker one that it serves: whoever has worked while it was used."""
        workers, found = self.workers(), {}
        for _ in range(64):
            connection = http.client.HTTPConnection(*self.address, timeout=PATIENCE)
            before = {worker: self.spent(worker) for worker in workers}
            self.call(connection, TRIAL)
            found.setdefault(max(workers, key=lambda worker: self.spent(worker) - before[worker]), connection)
            if len(found) == len(workers):
                return found
        sys.exit("one worker got no connection")

    def call(self, connection, times):
        for _ in range(times):
            connection.request("GET", self.path)
            response = connection.getresponse()
            response.read()
            if response.status != 200:
                raise RuntimeError(f"the gateway answered {response.status}")

    def end(self):
        self.process.terminate()
        self.process.wait()


def report(traces, symbols):
    touched = [defaultdict(Counter) for _ in traces]
    for lines, accesses in zip(touched, traces):
        for instruction, address, written in accesses:
            lines[address // LINE][symbols.of(instruction), written] += 1
    common = [
        line for line in set.intersection(*map(set, touched)) if any(written for each in touched for _, written in each[line])
    ]
    # Lines that the same functions write to are told together.
    groups = defaultdict(list)
    for line in common:
        writers = {name for each in touched for name, written in each[line] if written}
        groups[tuple(sorted(writers))].append(line)
    calls = CALLS * len(traces)
    instructions = sum(map(len, traces)) / calls
    print(f"{instructions:.0f} accesses a call, {len(common)} cache lines in common; lines, writes a call, who writes:")
    for writers, lines in sorted(groups.items(), key=lambda group: len(group[1])):
        writes = sum(times for line in lines for each in touched for (_, written), times in each[line].items() if written)
        print(f"{len(lines):4} {writes / calls:8.1f}  {', '.join(writers)}")


def main():
    program = sys.argv[1] if len(sys.argv) > 1 else "target/release/sabir"
    configuration, path = sys.argv[2:4] if len(sys.argv) > 3 else (None, "/")
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        if configuration is None:
            upstream = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
            threading.Thread(target=upstream.serve_forever, daemon=True).start()
            file.write(RELAY.format(port=upstream.server_port))
            file.flush()
        gateway = Gateway(program, configuration or file.name, path)
        try:
            memory = Memory(gateway.process.pid)
            traces = []
            for worker, connection in gateway.connections().items():
                gateway.call(connection, WARM)
                traces.append(trace(memory, worker, lambda: gateway.call(connection, CALLS)))
            report(traces, Symbols(gateway.process.pid, program))
        finally:
            gateway.end()


main()
