#!/bin/bash
#SBATCH --job-name=physics/melt-x7k2p@0123456789abcdef
#SBATCH --partition=main
#SBATCH --output="/home/alice/my home/.hpk/pods/5d0c1f9e-0000-4000-8000-000000000002/attempts/0123456789abcdef/job.log"
#SBATCH --open-mode=append
#SBATCH --chdir=/
#SBATCH --export=ALL
#SBATCH --ntasks=4
#SBATCH --ntasks-per-node=2
#SBATCH --constraint=ib&a100
#SBATCH --exclusive
#SBATCH --cpus-per-task=1
#SBATCH --mem=2862M
#SBATCH --gres=gpu:2
#SBATCH --time=0-01:01:00
#SBATCH --no-requeue
set -euo pipefail
# What srun starts inherits this environment, whatever a site's settings say of batch jobs.
export SLURM_EXPORT_ENV=ALL
exec /opt/software/hpk/bin/python -I -S '/home/alice/my home/.hpk/artifacts/supervisor-0.pyz' run --attempt-dir '/home/alice/my home/.hpk/pods/5d0c1f9e-0000-4000-8000-000000000002/attempts/0123456789abcdef'
