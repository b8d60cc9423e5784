"""PodPlan to the text of its sbatch script. Decides nothing."""
