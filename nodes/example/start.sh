#!/bin/sh
# Makes everything that the four hospitals need on this machine: data, keys, and the file that they share.
# README.md tells who does which of these steps in real life. `git clean -fdX .` in this folder removes it all again.
set -eu
cd "$(dirname "$0")"

if [ -e federation.toml ]; then
    echo "federation.toml is there already; to begin anew: git clean -fdX ." >&2
    exit 1
fi

hospitals="north east south west"

# Each hospital has its own patients. Here: scikit-learn's digits, dealt out unevenly.
flop-p2p data export --data digits --partition dirichlet:0.5 --sites 4 --topology ring.toml --out data
for hospital in $hospitals; do
    mv "data/$hospital.safetensors" "$hospital/data.safetensors"
done

# Each hospital makes its keys, and mails keys/public.toml to north.
for hospital in $hospitals; do
    flop-p2p keygen "$hospital/keys" --name "$hospital"
done

# North makes the common file. West gives no address: it only dials out.
flop-p2p federation init federation.toml --name four-hospitals --topology ring.toml --rounds 200 \
    --task multiclass --classes 0,1,2,3,4,5,6,7,8,9 --shape 1,8,8 --deadline 20 \
    --member north/keys/public.toml@tcp://127.0.0.1:5710,tcp://127.0.0.1:5711 \
    --member east/keys/public.toml@tcp://127.0.0.1:5720,tcp://127.0.0.1:5721 \
    --member south/keys/public.toml@tcp://127.0.0.1:5730,tcp://127.0.0.1:5731 \
    --member west/keys/public.toml

# North mails it to the others.
for hospital in $hospitals; do
    cp federation.toml "$hospital/federation.toml"
done

echo
echo "Ready. Start each node in a terminal of its own, here in $(pwd):"
for hospital in $hospitals; do
    echo "    flop-p2p node $hospital/site.toml"
done
