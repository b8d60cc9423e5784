#!/bin/bash
# Runs HPK's control plane inside a Slurm job:
#
#   hpk up --print-batch-script > hpk-start.sh
#   sbatch hpk-start.sh
#
# then, on a login node, `hpk status` shows where it runs and `hpk down` (or scancel) stops it. The
# pods' own jobs are jobs of their own: they go on when this one ends. Change what follows to suit
# your site; options given to sbatch win over these lines.
#
#SBATCH --job-name=hpk-control-plane
#SBATCH --nodes=1
#SBATCH --ntasks=1
# An idle control plane holds 0.8 GiB; Go's programs are told to stay within 2.8 GiB together. A
# partition with a long time limit and no preemption is best.
#SBATCH --cpus-per-task=2
#SBATCH --mem=4G
# A second control plane of the same home is refused, so a requeued job would only fail.
#SBATCH --no-requeue
# A minute before the time limit this process alone gets SIGTERM, and stops everything in order.
#SBATCH --signal=B:TERM@60
#SBATCH --output=hpk-control-plane-%j.log
set -euo pipefail

# The batch step becomes the supervising process, so that signals reach it and nothing delays them.
exec hpk up --foreground
