#!/bin/bash
# Does gpu.sh read its programs right? Runs it where there is no GPU, with stand-ins for what needs one: once with everything
# passing, once for each check with that check failing, and with a row that does not say why it was not run.
#
#   tests/gpu_script/gpu_script.sh TEST_DEVICE TEST_OPS    programs of tests/cuda_on_host: what they print is the real thing
set -euo pipefail
tests=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
test_device=$(realpath "$1")
test_ops=$(realpath "$2")
scratch=$(mktemp -d "${TMPDIR:-/tmp}/gpu-script-XXXXXX")
trap 'rm -rf "$scratch"' EXIT
tree=$scratch/tree   # as an unpacked bundle, with the objects of a build folder
tools=$scratch/tools # what the machine has

fail() {
    echo "FAILED: $*" >&2
    [[ ! -e $scratch/output ]] || cat "$scratch/output" "$scratch/errors" >&2
    exit 1
}

# stand_in FILE: the script on standard input, behind fault NAME, which is true in the run where that is to fail.
stand_in() {
    mkdir -p "$(dirname "$1")"
    {
        cat <<'END'
#!/bin/bash
fault() { [[ ${FAULT:-} == "$1" ]]; }
passes() { printf '[ RUN      ] %s\n[       OK ] %s\n' "$1" "$1"; }
fails() {
    printf '[ RUN      ] %s\n[  ERROR   ] --- %s: y[0, 0] is 1, expected 2\n[  FAILED  ] %s\n' "$1" "$1" "$1"
    exit 1
}
END
        cat
    } >"$1"
    chmod +x "$1"
}

mkdir -p "$tree/tests" "$tree/CMakeFiles/adamem_cuda.dir"
cp "$tests/gpu.sh" "$tree/tests/"
echo 0123456789abcdef >"$tree/COMMIT"
: >"$tree/CMakeFiles/adamem_cuda.dir/swiglu.cu.o"
stand_in "$tree/gpu/test_device_cuda" <<END
if fault none; then exec "$test_device"; fi
echo "GPU: a stand-in"
if fault device; then fails test_memory; fi
passes test_memory
END
stand_in "$tree/gpu/test_attention_cuda" <<<'if fault attention; then fails test_engines; else passes test_engines; fi'
stand_in "$tree/gpu/test_ops_cuda" <<END
if [[ \${1:-} == cudnn ]]; then
    if fault absent; then echo "attention: cuDNN is absent: libcudnn.so.9 was not found" && exit 1; fi
    if fault cudnn; then fails "attention BF16"; fi
    echo "[info] attention forward: cuDNN 9.99.0, engine 4"
    echo "max_error attention BF16 0.250"
    passes "attention BF16"
    exit
fi
if fault none && [[ -z \${1:-} ]]; then exec "$test_ops" 'swiglu*'; fi # its text is what gpu.sh must understand
passes "swiglu F32"
if fault ops; then fails "matmul F32"; fi
if fault gradient; then fails "matmul by differences"; fi
if fault repeat; then echo "swiglu F32 on a stand-in, run 2: other bits than in run 0 on it" && exit 1; fi
if fault crash; then kill -SEGV \$\$; fi
passes "swiglu by differences"
END
# shellcheck disable=SC2016 # of the stand-in
stand_in "$tree/gpu/parity_gpu" <<<'if fault "$1"; then fails test_logits; else passes test_logits; fi'
stand_in "$tree/gpu/test_nccl" <<<'exit 1'
stand_in "$tree/gpu/bench_stand_in" <<<'echo "1.25 ms"'
stand_in "$tree/adamem" <<<'exit 1'
stand_in "$tree/tests/cuda/program.sh" <<'END'
fault "program $2" && { echo "row: loss of the CPU backend: FAIL: at most 1 of 1e-05 apart" && exit 1; }
fault "program-dies" && { echo "cannot start" && exit 1; }
fault "silent" && echo "row: 2 ranks on one GPU: NOT RUN: "
echo "row: loss of the CPU backend: PASS: at most 0 of 1e-05 apart"
END
stand_in "$tree/tests/cuda/memory.sh" <<<'if fault memory; then echo "row: memory as planned: FAIL: +9 %"; else echo "row: memory as planned: PASS: +1 %"; fi'
stand_in "$tree/tests/cuda_on_host/no_spills.sh" <<<'if fault spills; then echo "swiglu_kernel spills 8 bytes" && exit 1; fi'
stand_in "$tools/cuobjdump" <<<''
stand_in "$tools/nvidia-smi" <<'END'
if [[ $1 == -L ]]; then printf 'GPU 0: a\nGPU 1: b\n'; else echo "Stand-in, 999.99, 1 MiB"; fi
END
stand_in "$tools/mpirun" <<'END'
fault nccl && { echo "[rank 1] error: NCCL barrier" && exit 1; }
echo "all checks passed on 2 ranks"
END
stand_in "$tools/compute-sanitizer" <<'END'
tool=$2
while [[ $1 == --* ]]; do shift 2; done
[[ $tool == racecheck ]] && { echo "========= Error: Device not supported" && exit 1; }
fault slow && exec sleep 20
fault "$tool" && { echo "========= Invalid __global__ read of size 4 bytes" && exit 99; }
exec "$@"
END

# run_script FAULT: exit status, and the table in $scratch/output; the file that gpu.sh writes must hold the same rows.
run_script() {
    local status=0 row
    (cd "$scratch" && FAULT=$1 PATH=$tools:$PATH bash "$tree/tests/gpu.sh" --build "$tree" --output result.txt --sanitizer-seconds \
        "${seconds:-10}" "${@:2}" >output 2>errors) || status=$?
    while IFS= read -r row; do
        grep -qxF -e "$row" "$scratch/result.txt" || fail "$1: the result file lacks: $row"
    done <"$scratch/output"
    return $status
}

# shown FAULT TEXT: a row, blanks as they come
shown() {
    tr -s ' ' <"$scratch/output" | grep -qF -e "$2" || fail "$1: no row \"$2\""
}

run_script none --bench || fail "exit status $? where everything passes"
for text in "commit: 0123456789abcdef" "binary: $(sha256sum "$tree/gpu/test_ops_cuda" | cut -c1-64)" "gpu: Stand-in, 999.99, 1 MiB" \
    "date: 20" "attention engines agree 1 - PASS" "attention by cuDNN 1 0.250 PASS forward cuDNN 9.99.0" "same bits when repeated" \
    "float32: loss of the CPU backend 1 - PASS at most 0" "memory as planned 1 - PASS" "goldens: export 1 - PASS" \
    "NCCL, one rank per GPU 1 - PASS" "no spilled registers 1 - PASS" "compute-sanitizer memcheck 2 - PASS" \
    "compute-sanitizer racecheck 0 - NOT RUN the tool says" "failures: 0" "seconds: ops" "---- bench_stand_in" "1.25 ms"; do
    shown none "$text"
done
tr -s ' ' <"$scratch/output" | grep -qE '^swiglu [0-9]+ 0\.[0-9]+ PASS' || fail "none: no row of the emulated swiglu"
tr -s ' ' <"$scratch/output" | grep -qE '^device [0-9]+ - PASS' || fail "none: no row of the emulated device"
if grep -q FAIL "$scratch/output"; then fail "none: a check failed"; fi

count=0
# failing FAULT ROW: this row and exit status 1
failing() {
    if run_script "$1"; then fail "$1: exit status 0"; fi
    shown "$1" "$2"
    count=$((count + 1))
}
failing device "device 1 - FAIL"
failing attention "attention engines agree 1 - FAIL"
failing cudnn "attention by cuDNN 1 - FAIL"
failing ops "matmul 1 - FAIL"
failing gradient "gradients by differences 0 - FAIL 1 failed"
failing repeat "ops: same bits when repeated 0 - FAIL swiglu F32"
failing crash "failures: "
failing "program float32" "float32: loss of the CPU backend 1 - FAIL at most 1"
failing "program bfloat16" "bfloat16: loss of the CPU backend 1 - FAIL at most 1"
failing program-dies "program float32 0 - FAIL cannot start"
failing silent "float32: 2 ranks on one GPU 0 - NOT RUN"
failing memory "memory as planned 1 - FAIL +9 %"
failing parity "goldens: parity 1 - FAIL"
failing nccl "NCCL, one rank per GPU 1 - FAIL [rank 1] error"
failing spills "no spilled registers 1 - FAIL swiglu_kernel spills 8 bytes"
failing memcheck "compute-sanitizer memcheck 0 - FAIL ========= Invalid"

run_script absent || fail "absent: exit status $?"
shown absent "attention by cuDNN 0 - NOT RUN cuDNN is absent: libcudnn.so.9 was not found"
seconds=1 run_script slow || fail "slow: exit status $?"
shown slow "compute-sanitizer initcheck 0 - NOT RUN no end within 1 s"
rm "$tree/gpu/parity_gpu" "$tree/adamem" "$tree/gpu/test_nccl"
run_script absent || fail "without programs: exit status $?"
shown absent "goldens: rules 0 - NOT RUN"
shown absent "memory as planned 0 - NOT RUN"
shown absent "NCCL, one rank per GPU 0 - NOT RUN"
echo "gpu.sh: all passing, $count failures, 3 reasons not to run: as it should be"
