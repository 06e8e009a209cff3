#!/bin/bash
# The experiment as a SLURM job, from the repository's folder, with whatever stages.mk takes:
#   sbatch experiments/llava15/slurm.sh fits BUDGETS='coincide random'
# Each stage runs on all nodes, and a job that was stopped goes back to the queue and goes on.
#SBATCH --job-name=llava15
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --gres=gpu:4
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log

# Runs a command as all tasks. It ends with 75 where a process was lost, 143 or 138 where it was
# asked to end (before the time is over, or for a job of a higher priority), 137 where it was killed.
on_all_nodes() {
  srun "$@"
  local status=$?
  case $status in
    75 | 137 | 138 | 143)
      [ "${SLURM_RESTART_COUNT:-0}" -lt 50 ] && scontrol requeue "$SLURM_JOB_ID"
      ;;
  esac
  return $status
}
export -f on_all_nodes

make -f experiments/llava15/stages.mk SHELL=/bin/bash LAUNCH=on_all_nodes "$@"
