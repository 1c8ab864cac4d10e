#!/bin/bash
# Subject: the Ruby library IPAddress 0.8.3 (Debian 12).
# A good guess: two addresses that are equal are one key of a Hash, and one in uniq and in a Set, as strings and Ruby's own IPAddr are;
#   addresses of both families can be compared, if only to be unequal.
# Seen: equal is `==` alone: a Hash does not find the address again, uniq keeps both, `-` of two lists takes nothing away. `==` of an IPv4 and an
#   IPv6 address, as `include?` of a mixed list does it, raises NoMethodError, and so does a prefix asked for an address of the other family.
#   A /31 has no hosts, and its broadcast address is 255.255.255.255.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
debian ruby3.1=3.1.7+really3.1.2-0+deb12u1 libruby3.1=3.1.7+really3.1.2-0+deb12u1 ruby-ipaddress=0.8.3-3
export RUBYLIB=$root/usr/share/rubygems-integration/all/gems/ipaddress-0.8.3/lib:$root/usr/lib/ruby/3.1.0:$libraries/ruby/3.1.0
seen "$(unpacked "$root/usr/bin/ruby3.1" --disable-gems - <<'END'
require "ipaddr"
require "ipaddress"

def shown(title)
  puts "#{title}: #{yield}"
rescue StandardError => error
  puts "#{title}: #{error.class}"
end

{ "IPAddr" => IPAddr.method(:new), "IPAddress" => method(:IPAddress) }.each do |library, read|
  one, same, six = %w[203.0.113.5 203.0.113.5 2001:db8::5].map { |text| read.call(text) }
  shown("#{library} one == same") { one == same }
  shown("#{library} found in a Hash") { { one => "guest 100" }.key?(same) }
  shown("#{library} uniq") { [one, same].uniq.size }
  shown("#{library} list without it") { ([one] - [same]).size }
  shown("#{library} one == IPv6") { one == six }
  shown("#{library} mixed list includes IPv6") { [one, six].include?(read.call("2001:db8::5")) }
  shown("#{library} 0.0.0.0/0 includes IPv6") { read.call("0.0.0.0/0").include?(six) }
end
pair = IPAddress("203.0.113.4/31")
puts "IPAddress /31: size #{pair.size}, hosts #{pair.hosts.size}, broadcast #{pair.broadcast}"
END
)" <<'END'
IPAddr one == same: true
IPAddr found in a Hash: true
IPAddr uniq: 1
IPAddr list without it: 0
IPAddr one == IPv6: false
IPAddr mixed list includes IPv6: true
IPAddr 0.0.0.0/0 includes IPv6: false
IPAddress one == same: true
IPAddress found in a Hash: false
IPAddress uniq: 2
IPAddress list without it: 1
IPAddress one == IPv6: NoMethodError
IPAddress mixed list includes IPv6: NoMethodError
IPAddress 0.0.0.0/0 includes IPv6: NoMethodError
IPAddress /31: size 2, hosts 0, broadcast 255.255.255.255
END
