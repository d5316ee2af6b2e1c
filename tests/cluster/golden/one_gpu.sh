#!/bin/bash
# Train imagenet-resnet50-bbi-0c1d2e3f4a-s0
#
# Written by bbi for the site generic. Read it, change it, and submit it by hand:
#   sbatch /shared/runs/.slurm/imagenet-resnet50-bbi-0c1d2e3f4a-s0/job.sh
#SBATCH --job-name=bbi-imagenet-resnet50-bbi-0c1d2e3f4a-s0
#SBATCH --output=/shared/runs/.slurm/imagenet-resnet50-bbi-0c1d2e3f4a-s0/%j.log
#SBATCH --open-mode=append
#SBATCH --chdir=/home/user/study
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-node=1
#SBATCH --mem=64G
#SBATCH --time=4:00:00
#SBATCH --signal=USR1@120
#SBATCH --requeue

trap : TERM USR1 # a signal is for the processes, which save; this shell outlives them
say() { echo "bbi $(date +%FT%T): $*" >&2; }
fail() { say "$*"; exit 1; }
patiently() { # the controller may be restarting
  for pause in 1 2 4 8 16; do "$@" && return; sleep $pause; done
  "$@"
}

job=$SLURM_JOB_ID
[ -z "${SLURM_ARRAY_JOB_ID:-}" ] || job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
say "job $job on $SLURM_JOB_NODELIST, restart ${SLURM_RESTART_COUNT:-0}"

# 1. The environment. A line that fails ends the job: what it would have brought is missing.

# 2. The work. What is said of the first node is for srun alone: submitted anew, the job has another one.
srun --kill-on-bad-exit=1 --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" \
    /env/bin/python -m bbi_lightning.cli train data=imagenet model=resnet50 runtime.devices=1 \
    runtime.num_nodes=1 runtime.root=/shared/runs 'data.root='"'"'/data/it'"'"''"'"'s'"'"''
code=$?

# 3. What now? 0 and 2 (a mistake in the command) are final, and so is scancel.
case $code in
  0) exit 0 ;;
  2) fail "a mistake in the command: see above" ;;
esac
record=$(patiently scontrol --oneliner show job "$job" | head -n 1)
fact() { grep -oE " $1=[^ ]*" <<<"$record" | head -n 1 | cut -d= -f2; }
out_of_time() {
  local limit
  limit=$(fact TimeLimit | awk -F'[-:]' 'NF > 2 { print $(NF-2) * 3600 + $(NF-1) * 60 + $NF + (NF > 3) * $1 * 86400 }')
  [ -n "$limit" ] && [ "$(date +%s)" -ge $(($(date +%s -d "$(fact StartTime)") + limit)) ]
}
cancelled_for_another() { # preempted in this attempt, and SLURM has not requeued it
  [ "$(fact Restarts)" = "${SLURM_RESTART_COUNT:-0}" ] && [[ $(fact PreemptTime) == 2* ]] \
    && ! [[ $(fact PreemptTime) < $(fact StartTime) ]]
}
state=$(fact JobState)
if [ "$state" != RUNNING ] && ! out_of_time && ! cancelled_for_another; then
  say "stopped by SLURM (${state:-gone}, code $code): scancel is final, a lost node is requeued by SLURM"
  exit "$code"
fi
restarts=$((${BBI_RESTARTS:-0} + ${SLURM_RESTART_COUNT:-0}))
[ "$restarts" -lt 100 ] || fail "gave up after $restarts restarts (code $code)"

requeue() { # SLURM may have been faster, and refuses then
  scontrol requeue "$job" || [ "$(squeue --noheader --jobs="$job" --format=%T)" = PENDING ]
}
again() { # queue this script anew, as a job of its own; the options say when and where
  export BBI_RESTARTS=$((restarts + 1))
  unset SLURM_RESTART_COUNT
  sbatch --parsable --export=ALL ${SLURM_ARRAY_TASK_ID:+--array="$SLURM_ARRAY_TASK_ID"} "$@" \
    /shared/runs/.slurm/imagenet-resnet50-bbi-0c1d2e3f4a-s0/job.sh
}
# A process that is lost soon after the start, again and again, has crashed: the others' code hides its own.
lost=/shared/runs/.slurm/imagenet-resnet50-bbi-0c1d2e3f4a-s0/lost.txt
losses=0
case $code in
  71 | 137)
    [ "$SECONDS" -ge 600 ] || echo "$SLURMD_NODENAME $job $code $(date +%FT%T)" >>"$lost"
    [ ! -e "$lost" ] || losses=$(awk -v job="$job" '$2 == job { n++ } END { print n + 0 }' "$lost")
    ;;
esac
[ "$losses" -ge 3 ] || case $code in
  # a lost rank, the time limit, SIGKILL, SIGUSR1, SIGUSR2, SIGTERM: it can go on at once
  71 | 75 | 137 | 138 | 140 | 143)
    say "interrupted (code $code): requeued"
    patiently requeue && exit "$code"
    say "scontrol requeue was refused: submitted anew"
    again || fail "could not be submitted anew"
    exit "$code"
    ;;
esac

# A crash: bounded, with a pause that doubles, and away from a node where it keeps happening.
export BBI_CRASHES=$((${BBI_CRASHES:-0} + 1))
[ "$BBI_CRASHES" -lt 3 ] || fail "crashed $BBI_CRASHES times, the last with code $code: gave up"
crashes=/shared/runs/.slurm/imagenet-resnet50-bbi-0c1d2e3f4a-s0/crashes.txt
echo "$SLURMD_NODENAME $job $code $(date +%FT%T)" >>"$crashes"
bad=$(awk '{ n[$1]++ } END { for (node in n) if (n[node] >= 2) print node }' "$crashes" | paste -sd,)
pause=$((30 << (BBI_CRASHES - 1)))
say "crashed with code $code, $BBI_CRASHES of 3: submitted anew in $pause s${bad:+, not on $bad}"
again --begin=now+"$pause" ${bad:+--exclude="$bad"} || fail "could not be submitted anew"
exit "$code"
