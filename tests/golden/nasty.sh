#!/bin/bash
#SBATCH --job-name=default/nasty@0123456789abcdef
#SBATCH --partition=main
#SBATCH --output="/home/alice/my home/.hpk/pods/5d0c1f9e-0000-4000-8000-000000000003/attempts/0123456789abcdef/job.log"
#SBATCH --open-mode=append
#SBATCH --chdir=/
#SBATCH --export=ALL
#SBATCH --comment="# $(touch canary) `touch canary` 'single' \"double\" \\ %j ; #SBATCH --uid=0"
#SBATCH --time=1-00:00:00
#SBATCH --no-requeue
set -euo pipefail
# What srun starts inherits this environment, whatever a site's settings say of batch jobs.
export SLURM_EXPORT_ENV=ALL
exec /opt/software/hpk/bin/python -I -S '/home/alice/my home/.hpk/artifacts/supervisor-0.pyz' run --attempt-dir '/home/alice/my home/.hpk/pods/5d0c1f9e-0000-4000-8000-000000000003/attempts/0123456789abcdef'
