"""Runs kvlane-context-parallel by mpirun, and reads what it reports."""

import os
import subprocess

# Open MPI refuses to run as root, which network namespaces and containers need, unless the first two are set. Ranks that wait
# yield their processor, which they may share.
SETTINGS = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_mpi_yield_when_idle": "1",
}


def run(mpirun, program, n_ranks, arguments, environment=()):
    """Returns what each line reports: the numbers after its name. environment: variables of the ranks, NAME=VALUE."""
    exports = [word for variable in environment for word in ("-x", variable)]
    command = [mpirun, "--oversubscribe", "-n", str(n_ranks), *exports, program, *arguments]
    ended = subprocess.run(command, env={**os.environ, **SETTINGS}, capture_output=True, text=True, timeout=120)
    if ended.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}\n{ended.stdout}{ended.stderr}")
    lines = [line.split() for line in ended.stdout.splitlines()]
    return {name: [float(number) for number in numbers] for name, *numbers in lines}
