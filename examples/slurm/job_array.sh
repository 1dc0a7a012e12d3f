#!/bin/bash
# Train an ablation with independent SLURM jobs that share one results folder, without Ray:
#
#     sbatch examples/slurm/job_array.sh freeze --block 1 2 3 4 --data esc50 --data-root DIR --fold all
#
# Every job runs the same command. A job trains the runs that no other job trains, waits for the rest, and writes the
# same tables. A job that is killed or reaches its time limit loses two seconds of training at most; the other jobs, or
# the same command again, finish its runs. The results folder must be on a file system that supports locks.
#SBATCH --job-name=ablation
#SBATCH --array=1-4
#SBATCH --cpus-per-task=4
#SBATCH --time=08:00:00
#SBATCH --output=ablation-%A_%a.log
# On GPUs, also: #SBATCH --gres=gpu:1

cd "${SLURM_SUBMIT_DIR:?submit this script with sbatch}" || exit 1
# shellcheck disable=SC1091
[ ! -f .venv/bin/activate ] || source .venv/bin/activate
exec python run_ablation.py "$@" --threads "${SLURM_CPUS_PER_TASK:-1}"
