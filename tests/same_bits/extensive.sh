#!/bin/bash
# What same_bits.sh has no time for: kills at arbitrary moments, several in one run, of one rank alone, every change of
# ranks, and training of other kinds. For the nightly run.
#
#   tests/same_bits/extensive.sh ADAMEM float32|bfloat16
set -euo pipefail
adamem=$1
dtype=$2
scratch=$(mktemp -d "${TMPDIR:-/tmp}/same-bits-XXXXXX")
# shellcheck source=tests/same_bits/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
command -v mpirun >/dev/null || { echo "skipped: mpirun is missing (apt-get install openmpi-bin)" && exit 77; }

# compare NAME [--set ...]: this kind of training on 1 rank, on 4, with 4 threads, recomputed, and killed on 2 and
# continued on 1.
compare() {
    local name=$1
    shift
    ranks=1 threads=1
    train "$name" "$@"
    ranks=4
    train "$name-ranks" "$@"
    same "$name-ranks" "$name" "$name: 4 ranks"
    ranks=1 threads=4
    train "$name-threads" "$@"
    same "$name-threads" "$name" "$name: 4 threads"
    threads=1
    train "$name-recomputed" "$@" --set training.gradient_checkpointing=full
    same "$name-recomputed" "$name" "$name: recomputed"
    ranks=2
    killed 6 "$name-killed" "$@"
    ranks=1
    train "$name-killed" "$@"
    same "$name-killed" "$name" "$name: killed on 2 ranks, continued on 1"
}

make_data
make_config
compare plain
compare ordered --set data.shuffle=false
compare token-limit --set training.max_tokens_per_micro_batch=160
compare full --set 'lora.target_modules=[]' --set 'model.trainable=["layers.1", "embed_tokens"]' --set training.learning_rate=1e-3
compare both --set 'model.trainable=["norm"]' --set 'lora.target_modules=["q_proj", "down_proj"]' \
    --set 'lora.rank_pattern=({pattern="layers.0.self_attn.q_proj"; r=3; lora_alpha=5;})'
compare groups --set 'training.parameter_groups=({pattern="lora_B"; learning_rate=2e-2; weight_decay=0.0;})' \
    --set lora.use_rslora=true --set training.label_smoothing_factor=0.1
compare rotated --set training.save_total_limit=1 --set training.load_best_model_at_end=true

# Every step saved, killed after a random time, again and again until the end comes first.
RANDOM=$$
echo "random moments: seed $$"
for round in {1..10}; do
    run=random-$round
    kills=0
    until [[ -e $scratch/$run/final.h5 ]]; do
        ranks=$((1 << RANDOM % 3)) threads=$((1 + RANDOM % 2))
        start "$run" --set training.save_steps=1
        if ((kills < 8)); then
            sleep "$((RANDOM % 2)).$((100 + RANDOM % 900))"
            kill_ranks
            kills=$((kills + 1))
        fi
        wait "$launcher" 2>/dev/null || true
        until all_ranks_gone; do sleep 0.01; done
        rm -f "$scratch"/rank.*
    done
    same "$run" plain "killed up to $kills times at random"
done

# The kernel kills one rank for its memory: the launcher must end the others, not leave them waiting.
ranks=4 threads=1
for victim in 0 3; do
    run=lone-$victim
    start "$run" --set training.save_steps=2
    until [[ -e $scratch/$run/checkpoint-2.h5 ]]; do sleep 0.001; done
    kill -KILL "$(<"$scratch/rank.$victim")"
    if wait "$launcher"; then fail "$run was quicker than the kill"; fi
    all_ranks_gone || fail "$run: other ranks live on"
    train "$run" --set training.save_steps=2
    same "$run" plain "rank $victim killed alone"
done
