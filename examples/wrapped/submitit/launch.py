"""A training that is submitted by submitit, and run by `nemo-harness wrap` in its job."""

import sys

import numpy as np
import submitit
from training import Training

WRAP = r"nemo-harness wrap --profile submitit --lead 20s --crashes 2 --metric 'step=^step (\d+)' --metric 'loss=loss: (\S+)' --"


def main():
    # The line that was changed. It was: submitit.AutoExecutor("jobs")
    executor = submitit.AutoExecutor("jobs", slurm_python=f"exec {WRAP} {sys.executable}", slurm_max_num_timeout=100)
    executor.update_parameters(timeout_min=1, mem_gb=0.3, slurm_use_srun=False)
    job = executor.submit(Training())
    print(job.job_id, flush=True)
    np.save("weights.npy", job.result())


if __name__ == "__main__":
    main()
