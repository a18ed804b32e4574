#!/bin/sh
# assemble.sh SERVICE SOURCE TARGET: build our wheels and put what SERVICE needs of them into TARGET.
# Run while an image is built, by deploy/Dockerfile.
set -eu
service=$1 source=$2 target=$3
python=/opt/splitformer/bin/python

fail() {
	echo "assemble: $1" >&2
	exit 1
}

for_services() {
	ls -d /opt/splitformer/lib/python3*/site-packages/prometheus_client >/dev/null 2>&1
}

case $service in
encoder | decoder) for_services || fail "SERVICE=$service needs REQUIREMENTS=native, cpu or cuda" ;;
client) for_services && fail "SERVICE=client needs REQUIREMENTS=client" ;;
*) fail "SERVICE must be encoder, decoder or client, got '$service'" ;;
esac

wheels() { # FOLDER...
	/opt/tools/bin/pip wheel -q --no-index --no-build-isolation --no-deps -w /wheels "$@"
}

cd "$source"
if [ "$service" = client ]; then
	wheels .
else
	# Status 1 if the machine that builds cannot run it; the one that serves may.
	$python -m splitformer.native --package || ls splitformer/native/*.so
	wheels . ./models
fi
/opt/tools/bin/pip --python $python install -q --no-index --no-deps --target "$target" /wheels/*.whl

cd "$target"
mkdir -p bin
case $service in
encoder) rm -r decoder_service ;;
decoder) rm -r encoder_service ;;
client) rm -r decoder_service encoder_service \
	splitformer/generation splitformer/model splitformer/native splitformer/serving ;;
esac
if [ "$service" = client ]; then
	printf '#!/bin/sh\nexec splitformer "$@"\n' >bin/run
	printf '#!/bin/sh\n' >bin/healthy
else
	printf '#!/bin/sh\nexec python -m %s_service "$@"\n' "$service" >bin/run
	printf '#!/bin/sh\nexec python -I -S %s/splitformer/serving/probe.py %s\n' "$target" "$service" \
		>bin/healthy
fi
chmod +x bin/*
