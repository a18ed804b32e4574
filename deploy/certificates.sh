#!/bin/sh
# certificates.sh FOLDER [NAME...]: certificates for trying out compose.tls.yaml, with openssl.
#
# An authority of their own, good for 30 days: ca.pem, and a certificate with its key for encoder,
# decoder and client. Those of the services are good for `encoder`, `decoder`, `localhost`,
# 127.0.0.1 and the further NAMEs. Whoever reads the folder can pass for any of them.
set -eu
[ $# -ge 1 ] || {
	echo "usage: certificates.sh FOLDER [NAME...]" >&2
	exit 2
}
folder=$1
shift
names=DNS:encoder,DNS:decoder,DNS:localhost,IP:127.0.0.1
for name in "$@"; do names=$names,DNS:$name; done

mkdir -p "$folder"
cd "$folder"
new="-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
quietly() {
	"$@" 2>log || {
		cat log >&2
		exit 1
	}
}

# shellcheck disable=SC2086 (the options are several words)
quietly openssl req -x509 $new -keyout ca.key -out ca.pem -subj /CN=splitformer-ca -days 30
printf 'subjectAltName=%s\n' "$names" >names
for role in encoder decoder client; do
	# shellcheck disable=SC2086
	quietly openssl req $new -keyout $role.key -out request -subj /CN=$role
	quietly openssl x509 -req -in request -out $role.pem -days 30 -extfile names \
		-CA ca.pem -CAkey ca.key -CAcreateserial
done
rm -f log names request ca.srl
chmod 644 encoder.key decoder.key # the containers' user is another one
