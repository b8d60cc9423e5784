#!/bin/bash
#SBATCH --job-name=physics/wide@0123456789abcdef
#SBATCH --partition=main
#SBATCH --output="/home/alice/my home/.hpk/pods/5d0c1f9e-0000-4000-8000-000000000005/attempts/0123456789abcdef/job.log"
#SBATCH --open-mode=append
#SBATCH --chdir=/
#SBATCH --export=ALL
#SBATCH --ntasks=4
#SBATCH --ntasks-per-node=2
#SBATCH --cpus-per-task=2
#SBATCH --mem=3072M
#SBATCH --time=1-00:00:00
#SBATCH --no-requeue
set -euo pipefail
# What srun starts inherits this environment, whatever a site's settings say of batch jobs.
export SLURM_EXPORT_ENV=ALL
exec /opt/software/hpk/bin/python -I -S '/home/alice/my home/.hpk/artifacts/supervisor-0.pyz' run --attempt-dir '/home/alice/my home/.hpk/pods/5d0c1f9e-0000-4000-8000-000000000005/attempts/0123456789abcdef'
