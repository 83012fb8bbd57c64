# Trigger an event, with nothing but Ruby itself. Usage: ruby pusher_send.rb http://localhost:8081 CHANNEL EVENT JSON
# Id, key and secret are those of pusher_apps.json, with which the farm was started (pusher.apps).
require "json"
require "net/http"
require "openssl"

farm, channel, event, data = ARGV
unless ARGV.length == 4 && farm.match?(%r{\Ahttps?://})
  warn "usage: ruby pusher_send.rb http://localhost:8081 CHANNEL EVENT JSON"
  exit 2
end
id, key, secret = "1", "shop-key", "shop-secret"

path = "/apps/#{id}/events"
body = JSON.generate(name: event, channels: [channel], data: data) # the data is JSON in a string
# What is signed: the method, the path, and the query with its names in order of the alphabet. The body is in it by its MD5.
query = URI.encode_www_form(
  auth_key: key,
  auth_timestamp: Time.now.to_i, # the farm refuses one that is more than 600 s off
  auth_version: "1.0",
  body_md5: OpenSSL::Digest::MD5.hexdigest(body)
)
signature = OpenSSL::HMAC.hexdigest("SHA256", secret, "POST\n#{path}\n#{query}")

address = URI("#{farm}#{path}?#{query}&auth_signature=#{signature}")
begin
  answer = Net::HTTP.post(address, body, "Content-Type" => "application/json")
rescue SystemCallError, SocketError, IOError, Timeout::Error, OpenSSL::SSL::SSLError => error
  abort error.message
end
puts "#{answer.code} #{answer.body}" # 200 {}
exit answer.code == "200" # 429 and 503: again later, after Retry-After
