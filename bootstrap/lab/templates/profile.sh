# shellcheck shell=sh
# What the site's software directory adds to everybody's login shell.
PATH=/opt/software/bin:/opt/software/apptainer/bin:$PATH
export PATH
