#!/usr/bin/env bash
# What the targets begin with: files of the fixtures, and answers of a Hub.
set -euo pipefail
cd "$(dirname "$0")"
data=../tests/fixtures/data
for target in weights checkpoint pickle adapter recipe dataset hub migrate formula; do mkdir -p "corpus/$target"; done
cp "$data"/adapters/peft-lora-linear.safetensors "$data"/words/sdxl-a.safetensors corpus/weights/
cp "$data"/pickled/* corpus/pickle/
with() { { printf "\\x$1"; cat "$2"; } > "$3"; }
for recipe in ../configs/*.toml; do with 00 "$recipe" "corpus/recipe/$(basename "$recipe")"; done
with 05 "$data/parquet/train-00000-of-00001.parquet" corpus/dataset/parquet
with 02 ../configs/quickstart/data/ant.webp corpus/dataset/webp
with 01 ../tests/fixtures/photo/seeding.jpg corpus/dataset/jpeg
{
    echo 'f 4 8 lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q.lora_down.weight'
    echo 'f 8 4 lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q.lora_up.weight'
    echo 'f lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q.alpha'
} > corpus/adapter/kohya
echo 'h 4 8 transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight' > corpus/adapter/peft
echo 'b 8 unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q.ia3_l' > corpus/adapter/ia3
echo 'f 8 bundle_emb.x.clip_l' > corpus/adapter/word
{
    echo 'f 32 4 3 3 model.diffusion_model.input_blocks.0.0.weight'
    echo 'f 8 768 model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight'
    echo 'm modelspec.prediction_type v'
    echo 'f 0 v_pred'
} > corpus/checkpoint/sd1
echo 'f 8 8 double_blocks.0.img_attn.qkv.weight' > corpus/checkpoint/flux
sha=0123456789012345678901234567890123456789
{
    printf 'HTTP/1.1 200 OK\r\n\r\n{"sha":"%s"}\xff' $sha
    printf 'HTTP/1.1 200 OK\r\n\r\n[{"type":"file","path":"a.json","oid":"9e26dfeeb6e641a33dae4961196235bdb965b21b","size":2}]\xff'
    printf 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}'
} > corpus/hub/whole
printf 'HTTP/1.1 302 Found\r\nLocation: /again\r\n\r\n\xffHTTP/1.1 429 Busy\r\nRetry-After: 0\r\n\r\n' > corpus/hub/elsewhere
cases=../core/migrate/tests/cases
cp "$cases"/*.{toml,json,sh,ps1} corpus/migrate/
# A configuration with the dataset that it names, and one with prompts.
{ cat "$cases/sdxl-vpred.toml"; printf '\xff'; cat "$cases/sdxl-vpred.dataset.toml"; } > corpus/migrate/with-dataset
{ cat "$cases/sd15-lora.sh"; printf '\xff'; cat "$cases/prompts.txt"; } > corpus/migrate/with-prompts
printf '\x00lerp(x, y, k) + if(x > 1, beta_cdf(x, 2, 3), -x^2) * min(1, x, 2e-1)' > corpus/formula/alone
printf '\x06min(snr, 5)' > corpus/formula/weighting
printf '\x08cos(pi / 2 * t);sin(pi / 2 * t)' > corpus/formula/schedule
printf '\x092 * ln((1 - t) / t);sigmoid(lambda / 2)' > corpus/formula/log-snr
printf '\x0a-sigma;alpha;1 / hypot(alpha, sigma)' > corpus/formula/objective
printf '\x0bsigmoid(probit(u))' > corpus/formula/quantile
printf '\x0c-2 * probit(u)' > corpus/formula/levels
printf '\x0dexp(-logit(t)^2 / 2) / (t * r)' > corpus/formula/density
printf '\x0ec^2 * log1p((d / c)^2);lerp(1, 0.1, t)' > corpus/formula/distance
printf '\x0fmax(1 - batch / n, 0)^7.9' > corpus/formula/ema
printf '\x00beta_cdf(0.1261657338486498, 0.03062498165240735, 6.138193525667177)' > corpus/formula/endless
printf '\x0d1 + beta_quantile(t, 2, 3) + sin(1e9 * t)' > corpus/formula/rough
# The words that a target's texts are made of, for -dict=.
grep -rhoE '^ *(Rule::new\()?"[a-zA-Z_.0-9]+",' ../core/migrate/src | grep -oE '"[^"]+"' | sort -u > corpus/migrate.dict
grep -oE '^    "[a-z_0-9]+" +"' ../plugins/expr/src/engine/functions.rs | grep -oE '"[a-z_0-9]+"' | sort -u > corpus/formula.dict
