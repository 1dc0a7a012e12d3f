#!/bin/bash
# Start a Ray cluster on the nodes of one SLURM job, and train an ablation on it:
#
#     sbatch examples/slurm/ray_cluster.sh freeze --block 1 2 3 4 --data esc50 --data-root DIR --fold all
#
# The results folder must be visible to all nodes; otherwise add --storage (docs/sweeps.md).
#SBATCH --job-name=ablation
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=08:00:00
#SBATCH --output=ablation-%j.log
# On GPUs, also: #SBATCH --gpus-per-node=4

cd "${SLURM_SUBMIT_DIR:?submit this script with sbatch}" || exit 1
# shellcheck disable=SC1091
[ ! -f .venv/bin/activate ] || source .venv/bin/activate
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} # where the workers find the toolkit and your network files

export RAY_AUTH_MODE=token # so that other users of the machines cannot run code on this cluster
[ -f ~/.ray/auth_token ] || ray get-auth-token --generate >/dev/null

port=$((20000 + SLURM_JOB_ID % 10000)) # two jobs on one node need two ports
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
address=$(srun --nodes=1 --ntasks=1 --nodelist="$first" hostname -I | awk '{print $1}'):$port
cpus=${SLURM_CPUS_PER_TASK:-1}

srun --nodes=1 --ntasks=1 --nodelist="$first" \
    ray start --head --node-ip-address="${address%:*}" --port="$port" --num-cpus="$cpus" \
    --include-dashboard=false --block >/dev/null &
head_step=$!
for _ in $(seq 60); do # Ray takes up to a minute to start on a shared file system
    ray status --address "$address" >/dev/null 2>&1 && break
    kill -0 "$head_step" 2>/dev/null || break
    sleep 2
done
if [ "$SLURM_JOB_NUM_NODES" -gt 1 ]; then
    others=$((SLURM_JOB_NUM_NODES - 1))
    srun --nodes="$others" --ntasks="$others" --exclude="$first" \
        ray start --address="$address" --num-cpus="$cpus" --block >/dev/null &
fi

python run_ablation.py "$@" --ray "$address"
status=$?
kill %1 %2 2>/dev/null
exit "$status"
