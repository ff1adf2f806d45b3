#!/usr/bin/env bash
# Tries launchers that the tests do not: Slurm, and mpirun over ssh as the MPI operator for Kubernetes calls it. Two
# nodes of two ranks each are made on this machine, and every run has to give the losses, to the bit, of
# `--nproc 4`. Wants root, a built clone and, for what is to be tried:
#   apt-get install slurmctld slurmd slurm-client munge     (not the services: they are started here)
#   apt-get install openssh-server openssh-client iproute2
#   scripts/try-launchers.sh [slurm] [ssh]                  both by default
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
work=$(mktemp -d /var/tmp/simper-launchers-XXXXXX) # nodes have a /tmp of their own
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
pids=()
clean() {
  [ ${#pids[@]} -eq 0 ] || kill "${pids[@]}" 2>/dev/null || true
  wait
  for i in 0 1 2 bridge; do ip netns del "simper-try-$i" 2>/dev/null || true; done
  rm -rf "$work"
}
trap clean EXIT

# What a rank runs, for launchers that take a program; $1 is the name of the run.
cat > "$work/rank.sh" <<END
exec "$(command -v node)" "$root/dist/cli.js" train "$root/configs/quickstart.yaml" --device cpu --max_steps 6 \\
  --zero_stage 3 --output_dir "$work/\$1" "\${@:2}"
END

losses() {
  node -e '
    const lines = require("fs").readFileSync(process.argv[1], "utf8").trim().split("\n").map(JSON.parse);
    console.log(lines.map(({ step, loss, grad_norm, eval_loss }) => [step, loss, grad_norm, eval_loss].join(" ")).join("\n"));
  ' "$work/$1/metrics.jsonl"
}

# check NAME: the run is that of `--nproc 4`.
check() {
  diff <(losses expected) <(losses "$1") || { echo "try-launchers: $1: other losses" >&2; exit 1; }
  echo "try-launchers: $1: the bits of --nproc 4"
}

# launch NAME COMMAND...: quiet unless it fails.
launch() {
  timeout 180 "${@:2}" > "$work/$1.log" 2>&1 || { cat "$work/$1.log" >&2; echo "try-launchers: $1 failed" >&2; exit 1; }
  check "$1"
}

slurm() {
  local host node
  host=$(hostname -s)
  mkdir -p "$work/state" /run/munge
  cat > "$work/slurm.conf" <<END
ClusterName=try
SlurmctldHost=$host(127.0.0.1)
ProctrackType=proctrack/linuxproc
ReturnToService=2
SlurmUser=root
SlurmctldPidFile=$work/slurmctld.pid
SlurmdPidFile=$work/slurmd-%n.pid
SlurmdSpoolDir=$work/spool-%n
StateSaveLocation=$work/state
SlurmctldLogFile=$work/slurmctld.log
SlurmdLogFile=$work/slurmd-%n.log
SwitchType=switch/none
TaskPlugin=task/affinity
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
NodeName=node0 NodeHostname=$host NodeAddr=127.0.0.1 Port=17001 CPUs=$(nproc) State=UNKNOWN
NodeName=node1 NodeHostname=$host NodeAddr=127.0.0.1 Port=17002 CPUs=$(nproc) State=UNKNOWN
PartitionName=try Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=FORCE:4
END
  export SLURM_CONF=$work/slurm.conf
  if ! munge -n > /dev/null 2>&1; then
    chown munge /run/munge
    su -s /bin/sh munge -c /usr/sbin/munged
  fi
  slurmctld -D -f "$SLURM_CONF" > "$work/daemons.log" 2>&1 & pids+=($!)
  slurmd -D -N node0 -f "$SLURM_CONF" >> "$work/daemons.log" 2>&1 & pids+=($!)
  # Two nodes that share a host name and its shared memory would take each other for one.
  unshare --mount --uts sh -c "mount -t tmpfs tmpfs /tmp; mount -t tmpfs tmpfs /dev/shm; hostname node1
    exec slurmd -D -N node1 -f '$SLURM_CONF'" >> "$work/daemons.log" 2>&1 & pids+=($!)
  for _ in $(seq 30); do [ "$(sinfo -h -t idle -o %D 2> /dev/null)" = 2 ] && break; sleep 1; done
  local nodes=(--nodes=2 --ntasks=4 --overcommit)
  launch srun srun "${nodes[@]}" --mpi=pmix bash "$work/rank.sh" srun
  for node in "srun --overcommit --mpi=pmix" "mpirun --oversubscribe -n 4"; do
    local name="batch-${node%% *}"
    printf '#!/bin/bash\n%s bash %s %s\n' "$node" "$work/rank.sh" "$name" > "$work/$name.sh"
    launch "$name" sbatch --wait "${nodes[@]}" -o "$work/$name.out" "$work/$name.sh"
  done

  # A signal before the end of a job: the ranks save, and say so by their exit code.
  printf '#!/bin/bash\nsrun --overcommit --mpi=pmix bash %s stopped --max_steps 2000 --num_train_epochs 100\n' \
    "$work/rank.sh" > "$work/stopped.sh"
  local job
  job=$(sbatch --parsable "${nodes[@]}" -o "$work/stopped.out" "$work/stopped.sh")
  for _ in $(seq 60); do grep -qs '"loss"' "$work/stopped/metrics.jsonl" && break; sleep 1; done
  scancel --signal=USR2 "$job"
  for _ in $(seq 60); do [ -z "$(squeue -h -j "$job" 2> /dev/null)" ] && break; sleep 1; done
  compgen -G "$work/stopped/checkpoint-*" > /dev/null && grep -q 'resume_from_checkpoint true' "$work/stopped.out" ||
    { cat "$work/stopped.out" >&2; echo "try-launchers: scancel --signal=USR2 saved nothing" >&2; exit 1; }
  echo "try-launchers: scancel --signal=USR2: a checkpoint"
}

ssh_operator() {
  local i
  ip netns add simper-try-bridge
  ip -n simper-try-bridge link add bridge type bridge
  ip -n simper-try-bridge link set bridge up
  printf '127.0.0.1 localhost\n10.99.7.10 launcher\n10.99.7.11 worker-0.simper\n10.99.7.12 worker-1.simper\n' > "$work/hosts"
  printf 'worker-0.simper slots=2\nworker-1.simper slots=2\n' > "$work/hostfile"
  ssh-keygen -q -t ed25519 -N '' -f "$work/key"
  printf 'HostKey %s\nAuthorizedKeysFile %s\nPermitRootLogin yes\nStrictModes no\nPidFile none\n' \
    "$work/key" "$work/key.pub" > "$work/sshd_config"
  mkdir -p /run/sshd
  for i in 0 1 2; do
    ip netns add "simper-try-$i"
    ip link add eth0 netns "simper-try-$i" type veth peer name "port$i" netns simper-try-bridge
    ip -n "simper-try-$i" addr add "10.99.7.$((10 + i))/24" dev eth0
    ip -n "simper-try-$i" link set lo up
    ip -n "simper-try-$i" link set eth0 up
    ip -n simper-try-bridge link set "port$i" master bridge
    ip -n simper-try-bridge link set "port$i" up
    [ "$i" -eq 0 ] && continue
    ip netns exec "simper-try-$i" unshare --mount --uts sh -c "hostname worker-$((i - 1))
      mount --bind $work/hosts /etc/hosts; mount -t tmpfs tmpfs /dev/shm
      exec /usr/sbin/sshd -D -f $work/sshd_config" & pids+=($!)
  done
  sleep 1
  # The variables are those that the operator sets in the launcher's pod.
  launch ssh ip netns exec simper-try-0 unshare --mount --uts env \
    OMPI_MCA_orte_default_hostfile="$work/hostfile" OMPI_MCA_orte_keep_fqdn_hostnames=true \
    OMPI_MCA_plm_rsh_args="-o ConnectionAttempts=10 -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -i $work/key" \
    sh -c "hostname launcher; mount --bind $work/hosts /etc/hosts
      exec mpirun -n 4 --bind-to none bash $work/rank.sh ssh"
}

bash "$work/rank.sh" expected --nproc 4 > "$work/expected.log" 2>&1 || { cat "$work/expected.log" >&2; exit 1; }
for what in "${@:-slurm ssh}"; do
  for launcher in $what; do
    case $launcher in
      slurm) slurm ;;
      ssh) ssh_operator ;;
      *) echo "scripts/try-launchers.sh: expected slurm or ssh, received $launcher" >&2; exit 2 ;;
    esac
  done
done
