#!/bin/bash
# Extraction and training on nodes of Slurm, as one job:
#
#   sbatch deploy/slurm.sh run                    # extraction alone
#   sbatch deploy/slurm.sh train                  # training alone
#   sbatch deploy/slurm.sh run train              # one after the other
#   sbatch deploy/slurm.sh run+train              # side by side: extraction scales down for training
#
# or as two, the second once the first has ended:
#
#   job=$(sbatch --parsable deploy/slurm.sh run)
#   sbatch --dependency=afterany:"$job" deploy/slurm.sh train
#
# Every part resumes: started again, or queued again after a time limit or a lost node, the same command goes on.
#
# HANDLOOM_VENV: the environment that holds handloom, the same path on all nodes. HANDLOOM_DB, HANDLOOM_OUT: on a shared
# file system or s3://. HANDLOOM_CONFIG, HANDLOOM_TRAIN_CONFIG: settings (TOML), if any. HANDLOOM_RECIPE: arm4r.
# HANDLOOM_ROWS: with run+train, training starts once this many clips have a row (1000), or extraction has ended.

#SBATCH --job-name=handloom
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --mem=64G
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@120
#SBATCH --output=handloom-%j.log
# For GPU nodes: #SBATCH --gpus-per-node=1

set -euo pipefail
export PATH="${HANDLOOM_VENV:?the folder of the environment}/bin:$PATH"
db=${HANDLOOM_DB:?the database}
out=${HANDLOOM_OUT:-}
recipe=${HANDLOOM_RECIPE:-arm4r}
[ $# -gt 0 ] || { echo "usage: sbatch $0 run|train|run+train ..." >&2; exit 2; }

# Nobody else on these nodes can use this Ray.
export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
RAY_AUTH_TOKEN=$(python -c 'import secrets; print(secrets.token_hex(32))')
export RAY_AUTH_TOKEN

# Ports and a folder for this turn only: another job, or the turn before, may still have a Ray on the same node.
port=$((20000 + (${SLURM_JOB_ID:?started by sbatch} + 97 * ${SLURM_RESTART_COUNT:-0}) % 10000 * 3))
cpus=${SLURM_CPUS_PER_TASK:-1}
gpus=${SLURM_GPUS_ON_NODE:-0}
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
# If `ray[client]` is installed its server starts too, and needs a port; else Ray refuses the option.
client=()
if python -c 'import grpc' 2>/dev/null; then client=(--ray-client-server-port=$((port + 2))); fi
head_ip=$(srun --nodes=1 --ntasks=1 --nodelist="${nodes[0]}" hostname --ip-address | awk '{print $1}')
address=$head_ip:$port

parts=()  # process ids of what is at work
# shellcheck disable=SC2317 # called by the trap
stop() {  # Slurm's signal two minutes before the limit: commit, write checkpoints, and ask for another turn
    trap '' TERM
    echo "time is nearly up: stopping; the job is queued again" >&2
    for part in "${parts[@]}"; do kill -TERM "$part" 2>/dev/null || true; done
    for part in "${parts[@]}"; do wait "$part" || true; done
    scontrol requeue "$SLURM_JOB_ID"
    exit 0
}
trap stop TERM

ray_node() {  # ray_node NODE ARGUMENTS: a node of the Ray cluster, until the job ends
    local node=$1
    shift
    srun --nodes=1 --ntasks=1 --nodelist="$node" --overlap ray start "$@" --num-cpus="$cpus" --num-gpus="$gpus" \
        --dashboard-agent-listen-port=$((port + 1)) --block </dev/null &
}

ray_node "${nodes[0]}" --head --node-ip-address="$head_ip" --port="$port" --include-dashboard=false \
    "${client[@]}" --temp-dir="/tmp/ray-$SLURM_JOB_ID"
head_ray=$!
until said=$(ray health-check --address "$address" 2>&1); do
    if ! kill -0 "$head_ray" 2>/dev/null || [ "$SECONDS" -gt 300 ]; then
        echo "no Ray on ${nodes[0]}: $said" >&2
        exit 1
    fi
    sleep 2
done
for node in "${nodes[@]:1}"; do
    ray_node "$node" --address="$address"
done

extract() {  # exec: the signal must reach handloom itself
    exec handloom run --db "$db" ${HANDLOOM_CONFIG:+--config "$HANDLOOM_CONFIG"} --ray-address "$address"
}
train() {
    exec handloom train "$recipe" --db "$db" --out "${out:?HANDLOOM_OUT, for checkpoints}" \
        ${HANDLOOM_TRAIN_CONFIG:+--config "$HANDLOOM_TRAIN_CONFIG"} --ray-address "$address"
}
num_rows() {
    handloom status --db "$db" --json 2>/dev/null | python -c 'import json, sys; print(json.load(sys.stdin)["clips"])'
}
train_beside() {  # train_beside PID: of extraction
    while kill -0 "$1" 2>/dev/null && [ "$(num_rows || echo 0)" -lt "${HANDLOOM_ROWS:-1000}" ]; do sleep 15; done
    train
}

failed=0
for step in "$@"; do
    parts=()
    case $step in
    run) extract & parts+=($!) ;;
    train) train & parts+=($!) ;;
    run+train)
        extract & parts+=($!)
        train_beside "${parts[0]}" & parts+=($!)
        ;;
    *) echo "run, train or run+train, not $step" >&2; exit 2 ;;
    esac
    for part in "${parts[@]}"; do
        code=0
        wait "$part" || code=$?
        # 3: finished, some clips rejected. Anything else ends the job here.
        [ "$code" -eq 0 ] || [ "$code" -eq 3 ] || failed=$code
    done
    [ "$failed" -eq 0 ] || break
done
exit "$failed"
