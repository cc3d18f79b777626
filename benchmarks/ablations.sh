#!/bin/sh
# The studies of ablations.md, on two cores, into runs/; their summaries into benchmarks/. Stopped, it goes on where it was.
set -eu
export OMP_NUM_THREADS=1
simulated() {
  python benchmarks/ablations/run.py --out runs/ablations-simulated --jobs 2 "$@" \
    --transfer simulated:people simulated:noise simulated:lengths simulated:rate simulated:other \
    -- --data simulated --mma mma_mrnnet/pretrained --clips 4000 1000 2000 --epochs 6 \
    --learning_rate 1e-3 --weight_decay 0.1 --dropout 0.2 --hidden_size 64
}
simulated --questions channels length loss routing planted --seeds 5
simulated --questions frames transfer --seeds 3

[ -d runs/drawn-clips ] || mma-mrnnet draw runs/drawn-clips --clips 700 150 400 --workers 2
python benchmarks/ablations/run.py --out runs/ablations-drawn --jobs 2 --seeds 3 --questions extractor pixels length loss \
  --frames '--data drawn:partial --items 3000 --epochs 4 --batch_size 32 --learning_rate 1e-3 --image_size 48 --augment False
    --layer_type basic --embedding_size 16 --hidden_sizes 16 32 64 128 --depths 1 1 1 1' \
  -- --data hume:runs/drawn-clips --epochs 10 --batch_size 32 \
  --learning_rate 1e-3 --weight_decay 0.1 --dropout 0.2 --hidden_size 64

for name in simulated drawn; do
  cp "runs/ablations-$name/ablations.json" "benchmarks/results/ablations_$name.json"
  cp "runs/ablations-$name/ablations.png" "benchmarks/ablations_$name.png"
done
python benchmarks/fill_readme.py
