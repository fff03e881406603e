# shellcheck shell=bash
# What the same-bits scripts share: a small data set, one configuration, runs, kills, comparisons. To be sourced after
# adamem (the program), scratch (an empty folder) and dtype (float32 or bfloat16) are set.
#
# A run is a folder in $scratch. ranks and threads say how the next one is started: ranks=1 is a plain start.
: "${adamem:?}" "${scratch:?}" "${dtype:?}"
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
adamem=$(cd "$(dirname "$adamem")" && pwd)/$(basename "$adamem") # runs start in $scratch
steps=20
ranks=1
threads=1
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMP_WAIT_POLICY=passive # more threads than cores must not spin

fail() {
    echo "FAILED: $*" >&2
    exit 1
}

# The processes of the run under way: each writes its id before it becomes adamem.
kill_ranks() {
    local file
    for file in "$scratch"/rank.*; do
        [[ -s $file ]] || continue
        kill -KILL "$(<"$file")" 2>/dev/null || true
    done
}

clean_up() {
    kill_ranks
    [[ -z ${keep:-} ]] && rm -rf "$scratch"
}
trap clean_up EXIT

# Two sources of different lengths: sentences of some 45 tokens, windows of 150; and what no run trains on.
make_data() {
    local lines=$repository/tests/parity/data/train20/train.jsonl
    head -n 52 "$lines" >"$scratch/short.jsonl"
    tail -n 16 "$lines" >"$scratch/held-out.jsonl"
    # The model reads bytes. Only letters and blanks, so that no byte needs a second look.
    gzip -dc "$repository/jobs/data/text-train.jsonl.gz" |
        awk 'NR == 3 { gsub(/\\n/, " "); gsub(/[^a-zA-Z ,.]/, ""); print substr($0, 300, 2400) }' |
        fold -w 150 | while IFS= read -r window; do
            ids=$(printf %s "$window" | od -An -v -tu1 | tr -s ' \n' ',')
            ids=${ids#,} && ids=${ids%,}
            printf '{"input_ids":[%s],"labels":[%s]}\n' "$ids" "$ids"
        done >"$scratch/long.jsonl"
    [[ $(wc -l <"$scratch/long.jsonl") == 16 ]] || fail "the long source should have 16 samples"
}

# 52 short samples and half of the 16 long ones make an epoch of 60: 8 steps, the last with 4 samples; 20 steps are 2.5
# epochs. A step is 4 micro-batches, so that 4 ranks share it. Logs every 3 steps: a restart falls between two of them.
make_config() {
    cat >"$scratch/run.cfg" <<CONFIG
run = { seed = 7; watchdog_seconds = 0; };
model = { path = "$repository/tests/parity/data/tied_h64"; dtype = "$dtype"; };
lora = { r = 8; lora_alpha = 16; lora_dropout = 0.5; target_modules = [ "all-linear" ]; };
data = { train = ( { path = "$scratch/short.jsonl"; format = "tokens"; },
                   { path = "$scratch/long.jsonl"; format = "tokens"; weight = 0.5; } );
         validation = ( { path = "$scratch/held-out.jsonl"; format = "tokens"; } );
         cache_dir = "$scratch/cache"; };
training = { max_steps = $steps; per_device_train_batch_size = 2; global_batch_size = 8; learning_rate = 1e-2;
             lr_scheduler_type = "cosine"; warmup_steps = 2; weight_decay = 0.01; logging_steps = 3; eval_steps = 5;
             save_steps = 0; gradient_checkpointing = "none"; };
CONFIG
}

# start RUN [--set KEY=VALUE]...: in the background; $launcher is its process.
start() {
    local run=$1 launch=()
    shift
    rm -f "$scratch"/rank.*
    ((ranks == 1)) || launch=(mpirun --oversubscribe --bind-to none -n "$ranks")
    # shellcheck disable=SC2016 # expanded by the shell of each rank
    (cd "$scratch" && OMP_NUM_THREADS=$threads exec "${launch[@]}" \
        bash -c 'echo $$ >"rank.${OMPI_COMM_WORLD_RANK:-0}" && exec "$@"' rank \
        "$adamem" train --config run.cfg --set "run.output_dir=$run" "$@") </dev/null >>"$scratch/$run.log" 2>&1 &
    launcher=$!
}

# train RUN [--set KEY=VALUE]...
train() {
    local status=0
    start "$@"
    wait "$launcher" || status=$?
    rm -f "$scratch"/rank.*
    if ((status)); then
        cat "$scratch/$1.log" >&2
        fail "$1 ended with status $status"
    fi
}

all_ranks_gone() {
    local file
    for file in "$scratch"/rank.*; do
        # A zombie still has an id; it has no more open files and writes nothing.
        if [[ $(cut -d' ' -f3 "/proc/$(<"$file")/stat" 2>/dev/null || true) == [RSDT] ]]; then return 1; fi
    done
}

# interrupt STEP RUN [--set KEY=VALUE]...: starts the run and kills it with SIGKILL as soon as it has written
# checkpoint-STEP. False when it came to its end first.
interrupt() {
    local step=$1 run=$2
    shift
    start "$@" --set "training.save_steps=$step"
    until [[ -e $scratch/$run/checkpoint-$step.h5 ]]; do
        kill -0 "$launcher" 2>/dev/null && continue
        [[ -e $scratch/$run/checkpoint-$step.h5 ]] || { cat "$scratch/$run.log" >&2 && fail "$run ended without checkpoint-$step"; }
    done # the file may have come, and the run have ended, between two looks
    kill_ranks
    wait "$launcher" 2>/dev/null || true # mpirun ends when its ranks do
    until all_ranks_gone; do sleep 0.01; done
    rm -f "$scratch"/rank.*
    [[ ! -e $scratch/$run/final.h5 ]]
}

# killed STEP RUN [--set ...]: interrupt, again with new folders when the run was quicker than the kill.
killed() {
    local attempt
    for attempt in 1 2 3 4 5; do
        rm -rf "${scratch:?}/$2" "$scratch/$2.log"
        if interrupt "$@"; then return; fi
        echo "  $2: attempt $attempt came to its end before the kill" >&2
    done
    fail "$2: five runs were quicker than the kill; the runs must become longer"
}

digest() {
    (cd "$scratch" && "$adamem" inspect --json "$1/final.h5") | grep -o '"digest": "[0-9a-f]*"'
}

# The history without what depends on the clock and the machine.
history() {
    sed -E 's/, "(tokens_per_second|mfu|[a-z]+_seconds|memory_bytes|eval_runtime|eval_samples_per_second)": [^,}]*//g' \
        "$scratch/$1/metrics.jsonl"
}

# same RUN REFERENCE WHAT: adapters and history are bit-identical.
same() {
    [[ $(digest "$1") == "$(digest "$2")" ]] || fail "$3: other bits than $2"
    diff <(history "$2") <(history "$1") >&2 || fail "$3: metrics.jsonl differs from that of $2"
    echo "same bits: $3"
}

different() {
    [[ $(digest "$1") != "$(digest "$2")" ]] || fail "$3: the same bits as $2, which cannot be"
    echo "other bits, as it should be: $3"
}

# resumed_from RUN: the step from which the last start went on.
resumed_from() {
    sed -n 's/^continuing from step //p' "$scratch/$1.log" | tail -n 1
}
