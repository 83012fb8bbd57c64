#!/bin/sh
# A push in each dialect, with curl. FARM is the router port. Usage:
#   curl.sh simplepush ENDPOINT VERSION       ENDPOINT is what the device has got when it registered
#   curl.sh webpush ENDPOINT                  without contents: those have to be encrypted (webpush_send.py)
#   curl.sh pusher CHANNEL EVENT JSON         signed with openssl, for the application in pusher_apps.json
#   curl.sh gopush2 KEY TEXT                  and prints the token with which a device may connect once
#   curl.sh pushstream CHANNEL TEXT
set -eu
FARM=${FARM:-http://localhost:8081}
usage() {
  echo "usage: curl.sh $1" >&2
  exit 2
}
send() { curl --silent --show-error --fail-with-body "$@"; }

case ${1-} in
simplepush)
  [ $# = 3 ] || usage "simplepush ENDPOINT VERSION"
  send --request PUT --data "version=$3" "$2"
  ;;
webpush)
  [ $# = 2 ] || usage "webpush ENDPOINT"
  send --request POST --header 'TTL: 3600' "$2" # TTL, in seconds, is needed
  ;;
pusher)
  [ $# = 4 ] || usage "pusher CHANNEL EVENT JSON"
  quoted() { printf '%s' "$1" | sed 's/[\\"]/\\&/g'; } # the data is JSON in a string
  body="{\"name\": \"$(quoted "$3")\", \"channels\": [\"$2\"], \"data\": \"$(quoted "$4")\"}"
  md5=$(printf '%s' "$body" | openssl dgst -md5 -r | cut -d ' ' -f 1)
  query="auth_key=shop-key&auth_timestamp=$(date +%s)&auth_version=1.0&body_md5=$md5"
  signature=$(printf 'POST\n/apps/1/events\n%s' "$query" | openssl dgst -sha256 -hmac shop-secret -r | cut -d ' ' -f 1)
  send --data-raw "$body" "$FARM/apps/1/events?$query&auth_signature=$signature"
  ;;
gopush2)
  [ $# = 3 ] || usage "gopush2 KEY TEXT"
  token=$(openssl rand -hex 16)
  send --get --data-urlencode "key=$2" --data "token=$token" "$FARM/ch" >&2
  send --data-raw "$3" "$FARM/pub?key=$2&expire=600" >&2 # it waits 600 s for a device that is away
  echo "$token"
  ;;
pushstream)
  [ $# = 3 ] || usage "pushstream CHANNEL TEXT"
  send --data-raw "$3" "$FARM/pub?id=$2"
  ;;
*) usage "simplepush|webpush|pusher|gopush2|pushstream ..." ;;
esac
