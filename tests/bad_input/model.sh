#!/bin/bash
# Broken models and adapters: the message names the file and the tensor or key.
#
#   tests/bad_input/model.sh ADAMEM
set -euo pipefail
adamem=$1
# shellcheck source=tests/bad_input/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
export LC_ALL=C # sed edits bytes

# refuse_model WHAT PATTERN: spoiled/ as model, by what reads the weights and, where it can, what reads only config.json.
refuse_model() {
    refuse_training "$1" "$2" --set model.path=spoiled
    refuse "evaluate: $1" "$2" evaluate --model spoiled --input data.jsonl
}

# config WHAT PATTERN SED: config.json edited.
config() {
    rm -rf spoiled
    cp -r model spoiled
    sed -i "$3" spoiled/config.json
    ! cmp -s model/config.json spoiled/config.json || complain "$1" "the row changes nothing"
    refuse_model "$1" "spoiled/config.json:.*$2"
    refuse "dry run: $1" "spoiled/config.json:.*$2" "${train[@]}" --dry-run --set model.path=spoiled
}

config "another architecture" 'model_type is "llama"' 's/"qwen2"/"llama"/'
config "another head" 'architecture "Qwen2ForSequenceClassification"' 's/Qwen2ForCausalLM/Qwen2ForSequenceClassification/'
config "rope scaling" 'rope_scaling is set' 's/"rope_theta"/"rope_scaling": {"type": "yarn", "factor": 4.0}, &/'
config "rope type" 'rope_parameters.rope_type is "yarn"' 's/"rope_theta"/"rope_parameters": {"rope_type": "yarn"}, &/'
config "sliding window" 'use_sliding_window is true' 's/"use_sliding_window": false/"use_sliding_window": true/'
config "activation" 'hidden_act is "gelu"' 's/"silu"/"gelu"/'
config "no JSON" 'column' 's/"hidden_act"/hidden_act/'
config "empty" '' d
config "array" 'object' 's/^{/[{/; s/^}/}]/'
config "no width" '"hidden_size" is missing' '/hidden_size/d'
config "text for a number" '"num_hidden_layers" must be' 's/"num_hidden_layers": 2/"num_hidden_layers": "2"/'
config "no layers" 'num_hidden_layers = 0 is out of range' 's/"num_hidden_layers": 2/"num_hidden_layers": 0/'
config "heads that do not divide" 'num_key_value_heads = 3 is out of range 1..2' 's/"num_key_value_heads": 1/"num_key_value_heads": 3/'
config "huge vocabulary" 'vocab_size = 999999999 is out of range' 's/"vocab_size": 256/"vocab_size": 999999999/'
config "huge width" 'hidden_size' 's/"hidden_size": 128/"hidden_size": 99999999999/'
config "epsilon" 'rms_norm_eps' 's/1e-06/-1/'

# weights WHAT PATTERN COMMAND...: model.safetensors after COMMAND, run beside it.
weights() {
    local what=$1 pattern=$2
    shift 2
    rm -rf spoiled
    cp -r model spoiled
    (cd spoiled && "$@")
    ! diff -r model spoiled >/dev/null || complain "$what" "the row changes nothing"
    refuse_model "$what" "$pattern"
}
# shellcheck disable=SC2317 # called through weights and adapter
# A tensor's entry in the header, edited without a change of length: edit TENSOR SED.
edit() { sed -i "s/\(\"$1\":{[^}]*\)$2/\1$3/" model.safetensors; }
file='spoiled/model.safetensors: '
norm=model.norm.weight
# shellcheck disable=SC2317
length_bytes() { printf '%b' "$1" | dd of=model.safetensors bs=1 conv=notrunc status=none; }

weights "truncated" "$file.*$norm.*data_offsets" truncate -s -100 model.safetensors
weights "cut within the header" "$file.*its header claims" truncate -s 200 model.safetensors
weights "five bytes" "$file.*5 bytes" truncate -s 5 model.safetensors
weights "empty" "$file" truncate -s 0 model.safetensors
weights "longer" "$file.*100 bytes after the last tensor" truncate -s +100 model.safetensors
weights "header longer than the file" "$file.*its header claims" length_bytes '\x00\x00\x00\x00\x01'
weights "header of 2^63 bytes" "$file.*its header claims" length_bytes '\x00\x00\x00\x00\x00\x00\x00\x80'
weights "header one byte short" "$file.*column" length_bytes '\x10'
weights "no JSON" "$file" sed -i 's/{"model/["model/' model.safetensors
weights "unknown dtype" "$file.*$norm.*unknown dtype \"XX16\"" edit "$norm" BF16 XX16
weights "dtype of no weights" "spoiled.*tensor $norm has dtype I16" edit "$norm" '"BF16",' '"I16", '
weights "dtype of another size" "$file.*$norm.*shape and dtype need" edit "$norm" '"BF16",' '"F32", '
weights "lying shape" "$file.*$norm.*shape and dtype need" edit "$norm" '\[128\]' '[129]'
weights "negative shape" "$file.*$norm.*non-negative" edit "$norm" '\[128\]' '[-12]'
weights "turned shape" "spoiled.*model.layers.0.mlp.down_proj.weight has shape \[64, 128\], expected \[128, 64\]" \
    edit model.layers.0.mlp.down_proj.weight '\[128,64\]' '[64,128]'
weights "offsets past the end" "$file.*$norm.*data_offsets" edit "$norm" 'offsets":\[[0-9]' 'offsets":[9'
weights "overlap" "$file.*overlap" edit model.layers.0.input_layernorm.weight '65536,65792' '65280,65536'
weights "missing tensor" "spoiled.*tensor $norm is missing" sed -i "s/$norm/model.nrom.weight/" model.safetensors
weights "no weights" "spoiled: holds none of model.safetensors" mv model.safetensors weights.safetensors
weights "a directory" "$file" sh -c 'rm model.safetensors && mkdir model.safetensors'
weights "index without shard" 'spoiled/.*part-1.safetensors' sh -c \
    'rm model.safetensors && echo "{\"weight_map\": {\"model.norm.weight\": \"part-1.safetensors\"}}" >model.safetensors.index.json'
weights "index that leaves the directory" 'model.safetensors.index.json: .*not a plain file name' sh -c \
    'rm model.safetensors && echo "{\"weight_map\": {\"model.norm.weight\": \"../model/model.safetensors\"}}" >model.safetensors.index.json'
refuse_training "no such model" 'nowhere/config.json: cannot' --set model.path=nowhere
refuse_training "model is a file" 'good.cfg/config.json: cannot' --set model.path=good.cfg

# adapter WHAT PATTERN COMMAND...: adapter/ after COMMAND, to continue from and to evaluate.
adapter() {
    local what=$1 pattern=$2
    shift 2
    rm -rf adapter
    cp -r model/adapter adapter
    (cd adapter && "$@")
    ! diff -r model/adapter adapter >/dev/null || complain "$what" "the row changes nothing"
    refuse_training "adapter: $what" "$pattern" --set lora.init_from=adapter
    refuse "evaluate: adapter: $what" "$pattern" evaluate --model model --adapter adapter --input data.jsonl
}
settings='adapter/adapter_config.json: '
set_key() { sed -i "s/\"$1\": [^,]*/\"$1\": $2/" adapter_config.json; }

refuse_training "adapter of another rank" "model/adapter/adapter_config.json: r differs from .*lora.r" --set lora.r=8 \
    --set lora.init_from=model/adapter
refuse_training "adapter of another alpha" "lora_alpha differs" --set lora.lora_alpha=4 --set lora.init_from=model/adapter
refuse_training "adapter of other modules" "target_modules differs" --set 'lora.target_modules=["q_proj"]' \
    --set lora.init_from=model/adapter
refuse_training "no such adapter" 'nowhere/adapter_config.json: cannot' --set lora.init_from=nowhere
for key in use_dora lora_bias fan_in_fan_out; do adapter "$key" "$settings$key is set" set_key $key true; done
adapter "modules_to_save" "${settings}modules_to_save is set" set_key modules_to_save '["lm_head"]'
adapter "bias" "${settings}bias is set" set_key bias '"all"'
adapter "layers_to_transform" "${settings}layers_to_transform is set" set_key layers_to_transform '[0]'
adapter "another method" "${settings}peft_type is \"LOHA\"" set_key peft_type '"LOHA"'
adapter "alpha_pattern alone" "${settings}alpha_pattern has other patterns than rank_pattern" set_key alpha_pattern '{"q_proj": 4}'
adapter "rank as text" "$settings\"r\" must be" set_key r '"4"'
adapter "no weights" 'adapter: holds none of' rm adapter_model.safetensors
adapter "truncated" 'adapter/adapter_model.safetensors: ' truncate -s -8 adapter_model.safetensors
adapter "missing tensor" 'adapter.*tensor base_model.model.model.layers.0.mlp.down_proj.lora_A.weight is missing' \
    sed -i 's/layers.0.mlp.down_proj.lora_A/layers.0.mlp.dwon_proj.lora_A/' adapter_model.safetensors
rm -rf adapter && cp -r model/adapter adapter && (cd adapter && set_key r 5)
refuse_training "adapter: weights of another rank" 'adapter.*has shape \[4, ' --set lora.r=5 --set lora.init_from=adapter
refuse "evaluate: adapter: weights of another rank" 'adapter.*has shape \[4, ' evaluate --model model --adapter adapter \
    --input data.jsonl

accept "the good model" evaluate --model model --adapter model/adapter --input data.jsonl
all_refused "model"
