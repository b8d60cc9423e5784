"""What people are shown of Pods and jobs: computed here, printed by hpk.cli."""
