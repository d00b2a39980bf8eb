#!/bin/bash
# Presets by variants by seeds as one array of Slurm jobs, then a job for the notebooks and pages of each preset.
#
#     scripts/slurm.sh PRESET...           submit, from the repository, with the virtual environment active
#     scripts/slurm.sh --list PRESET...    print the tasks, one PRESET VARIANT SEED a line, and submit nothing
#
# REMI_SBATCH holds options of sbatch for the array, REMI_SBATCH_BOOK those of the last jobs:
#
#     REMI_SBATCH="--gres=gpu:1 --mem=96G --time=12:00:00" scripts/slurm.sh qwen2.5-coder-32b
#
# All jobs must see the same store (REMI_STORE, else store/ here). A job that fails is submitted again as it is: what it
# had stored is kept, and the last jobs start only when the whole array is done.
set -euo pipefail

tasks() {
    local preset
    for preset in "$@"; do
        remi measure --preset "$preset" --list | awk -v preset="$preset" '{print preset, $1, $2}'
    done
}

if [ -n "${SLURM_ARRAY_TASK_ID:-}" ]; then
    list=$(tasks "$@")
    read -r preset variant seed <<<"$(sed -n "$((SLURM_ARRAY_TASK_ID + 1))p" <<<"$list")"
    exec remi measure --preset "$preset" --variant "$variant" --seed "$seed"
fi

if [ "${1:-}" = --list ]; then
    shift
    tasks "$@"
    exit
fi

if [ $# -eq 0 ]; then
    echo "usage: scripts/slurm.sh [--list] PRESET..." >&2
    exit 2
fi

list=$(tasks "$@")
last=$(($(wc -l <<<"$list") - 1))
# Word splitting is meant: the variables hold several options.
# shellcheck disable=SC2086
array=$(sbatch --parsable --job-name=remi --array="0-$last" ${REMI_SBATCH:-} "$0" "$@")
for preset in "$@"; do
    # shellcheck disable=SC2086
    sbatch --parsable --job-name="remi-$preset" --dependency="afterok:${array%%;*}" ${REMI_SBATCH_BOOK:-} \
        --wrap="remi run --preset $preset && remi book --preset $preset"
done
