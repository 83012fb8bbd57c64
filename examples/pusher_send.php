<?php
// Trigger an event, with nothing but PHP itself. Usage: php pusher_send.php http://localhost:8081 CHANNEL EVENT JSON
// Id, key and secret are those of pusher_apps.json, with which the farm was started (pusher.apps).
if ($argc !== 5) {
    fwrite(STDERR, "usage: php pusher_send.php http://localhost:8081 CHANNEL EVENT JSON\n");
    exit(2);
}
[, $farm, $channel, $event, $data] = $argv;
[$id, $key, $secret] = ["1", "shop-key", "shop-secret"];

$path = "/apps/$id/events";
$body = json_encode(["name" => $event, "channels" => [$channel], "data" => $data]); // the data is JSON in a string
// What is signed: the method, the path, and the query with its names in order of the alphabet. The body is in it by its MD5.
$query = http_build_query([
    "auth_key" => $key,
    "auth_timestamp" => time(), // the farm refuses one that is more than 600 s off
    "auth_version" => "1.0",
    "body_md5" => md5($body),
]);
$signature = hash_hmac("sha256", "POST\n$path\n$query", $secret);

$request = ["method" => "POST", "header" => "Content-Type: application/json", "content" => $body, "ignore_errors" => true];
$answer = @fopen("$farm$path?$query&auth_signature=$signature", "r", false, stream_context_create(["http" => $request]));
if (!$answer) {
    fwrite(STDERR, error_get_last()["message"] . "\n");
    exit(1);
}
$status = stream_get_meta_data($answer)["wrapper_data"][0];
echo $status, " ", stream_get_contents($answer), "\n"; // HTTP/1.1 200 OK {}
exit(str_contains($status, " 200 ") ? 0 : 1); // 429 and 503: again later, after Retry-After
